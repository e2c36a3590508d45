"""Data parts: what tail_only keeps, drops and marks, and that nothing else of a split moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rois import LVIS

from bench.data.split import ArrayPixels, Category, Image, Split
from bench.errors import UserError
from bench.key import part, resolve
from methods.parts.annotations import of_levels, tail_only

IMAGES = [[0, 0, 1], [0, 2], [0, 0], [], [1, 0, 2]]  # classes 0, 1, 2 have 6, 2, 2 instances


def made(images: Sequence[Sequence[int]], classes: int = 3, ignore: Sequence[Sequence[int]] = ()) -> Split:
    """A split in which every box, id and image can be told apart; `ignore`: positions marked in each image."""
    labels = [np.array(labels, np.int64) for labels in images]
    first = np.cumsum([0, *(len(n) for n in labels)])
    ids = [np.arange(a, a + len(n)) for a, n in zip(first, labels, strict=False)]
    marked = [np.zeros(len(n), np.bool_) for n in labels]
    for mark, positions in zip(marked, ignore, strict=False):
        mark[list(positions)] = True
    corners = [np.stack([i, i, i + 2, i + 3], 1).astype(np.float32) for i in ids]
    return Split(
        categories=tuple(Category(c, f"c{c}", "r", 0, 0) for c in range(classes)),
        images=tuple(Image(i, f"{i}.png", 4, 4) for i in range(len(images))),
        boxes=corners,
        labels=labels,
        ignore=marked,
        annotated=[np.stack([i, i, 2 + 0 * i, 3 + 0 * i, 6 + 0 * i], 1).astype(np.float64) for i in ids],
        annotation_ids=ids,
        source=ArrayPixels(np.arange(len(images), dtype=np.uint8)[:, None, None, None] * np.ones((4, 4, 3), np.uint8)),
        rows=np.arange(len(images)),
    )


def labels_of(split: Split) -> list[list[int]]:
    return [labels.tolist() for labels in split.labels]


def test_images_with_a_tail_class_stay_with_their_tail_boxes() -> None:
    tail = tail_only(made(IMAGES), below=3)
    assert labels_of(tail) == [[1], [2], [1, 2]]
    assert [image.id for image in tail.images] == [0, 1, 4]
    assert [ids.tolist() for ids in tail.annotation_ids] == [[2], [4], [7, 9]]
    assert [boxes[:, 0].tolist() for boxes in tail.boxes] == [[2], [4], [7, 9]]
    assert [int(tail.pixels(i)[0, 0, 0]) for i in range(3)] == [0, 1, 4]
    assert tail.statistics().instance_counts.tolist() == [0, 2, 2]


def test_other_boxes_may_be_ignored_or_kept() -> None:
    ignored = tail_only(made(IMAGES), below=3, nontail="ignore")
    assert labels_of(ignored) == [[0, 0, 1], [0, 2], [1, 0, 2]]
    assert [mark.tolist() for mark in ignored.ignore] == [[True, True, False], [True, False], [False, True, False]]
    assert ignored.statistics().instance_counts.tolist() == [0, 2, 2]
    kept = tail_only(made(IMAGES), below=3, nontail="keep")
    assert labels_of(kept) == labels_of(ignored)
    assert kept.statistics().instance_counts.tolist() == [4, 2, 2]


def test_a_dropped_class_is_not_known_to_be_absent() -> None:
    """Its boxes are gone, the objects are still in the image."""
    tail = tail_only(made(IMAGES), below=3)
    assert [tail.negative(i).tolist() for i in range(3)] == [[2], [1], []]


def test_crowds_count_for_nothing() -> None:
    split = made([[0, 0, 1], [1, 1], [2, 0]], ignore=[(), (0, 1), (0,)])
    tail = tail_only(split, below=3)  # class 0 has 3, class 1 has 1, class 2 none
    assert labels_of(tail) == [[1]]
    marked = made([[0, 0, 0, 1, 2]], ignore=[(0, 4)])
    assert [mark.tolist() for mark in tail_only(marked, below=2).ignore] == [[False, True]]
    assert [mark.tolist() for mark in tail_only(marked, below=2, nontail="ignore").ignore] == [
        [True, True, True, False, True]
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=1, max_size=25),
    st.integers(1, 12),
    st.sampled_from(["drop", "ignore", "keep"]),
)
def test_all_instances_of_tail_classes_and_no_other_count(images: list[list[int]], below: int, nontail: str) -> None:
    split = made(images, 6)
    before = split.statistics().instance_counts
    wanted = np.where(before < below, before, 0)
    if not wanted.any():
        with pytest.raises(UserError):
            tail_only(split, below=below, nontail=nontail)
        return
    tail = tail_only(split, below=below, nontail=nontail)
    after = tail.statistics().instance_counts
    np.testing.assert_array_equal(after[before < below], before[before < below])
    if nontail != "keep":
        assert after.sum() == wanted.sum()
    assert {i.id for i in tail.images} == {i for i, n in enumerate(images) if any(before[c] < below for c in n)}
    np.testing.assert_array_equal(split.statistics().instance_counts, before)  # what is handed in stays as it is


@pytest.mark.skipif(not LVIS.is_file(), reason="LVIS v0.5 counts are not beside the checkout")
def test_lvis() -> None:
    """747 classes with fewer than 100 of the 693,958 instances: 1,186 + 17,042 of them."""
    counts = np.genfromtxt(LVIS, delimiter=",", names=True, dtype=None, encoding="utf-8")["instance_count"]
    tail = tail_only(made([[c] * int(n) for c, n in enumerate(counts)], len(counts)))
    assert counts.sum() == 693_958
    assert (len(tail), tail.statistics().instance_counts.sum()) == (747, 18_228)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"nontail": "dropp"}, "Did you mean 'drop'"),
        ({"below": 2}, r"no class has fewer than 2 training instances\n.*the rarest has 2"),
        ({"below": 0}, "fewer than 0"),
    ],
)
def test_refusals(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        tail_only(made(IMAGES), **wrong)


def test_a_split_without_boxes_is_refused() -> None:
    with pytest.raises(UserError, match="no boxes at all"):
        tail_only(made([[], []]))


def test_the_part_is_found_by_name() -> None:
    function, options = resolve(part("annotations:tail_only", nontail="keep"))
    assert options == {"below": 100, "nontail": "keep"}
    assert len(function(made(IMAGES), **options)) == 4


def test_images_of_a_level_and_what_becomes_of_the_others() -> None:
    """Of five images, classes 0, 1 and 2 are in 4, 2 and 2."""
    edges = [{"images": 3}]
    head = of_levels(made(IMAGES), keep=(0,), edges=edges)
    assert [image.id for image in head.images] == [0, 1, 2, 4]
    assert [mark.tolist() for mark in head.ignore] == [
        [False, False, True],
        [False, True],
        [False, False],
        [True, False, True],
    ]
    assert head.statistics().instance_counts.tolist() == [6, 0, 0]
    tail = of_levels(made(IMAGES), keep=(1,), edges=edges, others="drop")
    assert labels_of(tail) == [[1], [2], [1, 2]]
    assert 0 not in tail.negative(0)  # its boxes are gone, and it is there all the same
    kept = of_levels(made(IMAGES), keep=(1,), edges=[0.8], others="keep", inclusive=False)  # class 0 is in 0.8 of them
    assert labels_of(kept) == [*labels_of(made(IMAGES))[:3], [1, 0, 2]]


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"others": "hide"}, "'hide'"),
        ({"keep": (7,)}, "no image shows a class of the levels [7]"),
        ({"edges": []}, "falling"),
    ],
)
def test_levels_out_of_range_are_refused(given_: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        of_levels(made(IMAGES), **{"keep": (0,), "edges": [{"images": 3}]} | given_)
    assert message in str(error.value)
