"""Exemplars: the checked choice of methods.md 18.3, quotas by class, and what becomes of the boxes not chosen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.split import Category, Image, NoPixels, Split
from bench.detection.contract import LabelledRois, Taps
from bench.errors import UserError
from bench.frequency import ClassStatistics, levels_of
from bench.seeds import generator
from methods.parts import exemplars
from methods.parts.exemplars import replay, select
from methods.parts.samplers import RepeatByLevel
from methods.parts.softmax import Softmax
from tests.methods.rois import head as head_of

TOY = json.loads((Path(__file__).parent / "toy_values.json").read_text())
LABELS = [[0, 0, 1], [0, 1, 2], [0], [0, 0], [1, 2, 2]]  # of five images; classes 0, 1 and 2 are in 4, 3 and 2


def split() -> Split:
    size = [len(labels) for labels in LABELS]
    box = np.array([[4, 4, 20, 20]], np.float32)
    return Split(
        categories=tuple(Category(c + 1, f"class {c}", "f", n, n) for c, n in enumerate((6, 3, 3))),
        images=tuple(Image(i, f"{i}.png", 64, 64) for i in range(len(LABELS))),
        boxes=[box.repeat(n, 0) for n in size],
        labels=[np.array(labels, np.int64) for labels in LABELS],
        ignore=[np.zeros(n, np.bool_) for n in size],
        annotated=[np.zeros((n, 5)) for n in size],
        annotation_ids=[np.arange(n) for n in size],
        source=NoPixels(Path()),
        rows=np.arange(len(LABELS)),
    )


def scores(*values: float) -> dict[str, torch.Tensor]:
    """Of the boxes of the split, in order."""
    image = [i for i, labels in enumerate(LABELS) for _ in labels]
    box = [row for labels in LABELS for row in range(len(labels))]
    return {
        "image_A": torch.tensor(image), "box_A": torch.tensor(box), "score_A": torch.tensor(values),
        "image_counts_C": torch.tensor([4, 3, 2]), "num_images": torch.tensor(5),
    }  # fmt: skip


SURE = scores(0.9, 0.8, 0.6, 0.95, 0.4, 0.3, 0.2, 0.7, 0.1, 0.55, 0.9, 0.8)


def kept(found: Split) -> dict[int, list[int]]:
    """Rows of the boxes that are learnt from, by image."""
    return {int(i): np.flatnonzero(~ignore).tolist() for i, ignore in zip(found.rows, found.ignore, strict=True)}


def test_the_released_choice() -> None:
    toy = TOY["stepwise_exemplar"]
    ids, images, values = zip(*toy["candidates_annid_imgid_score"], strict=True)
    assert [ids[at] for at in select(values, images, toy["m"])] == toy["picked_ann_ids"]


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), max_size=12), st.integers(0, 14))
@settings(max_examples=80, deadline=None)
def test_a_choice_is_as_large_as_it_may_be_and_holds_nothing_twice(found: list[tuple[float, int]], quota: int) -> None:
    values, images = [one for one, _ in found], [image for _, image in found]
    chosen = select(values, images, quota)
    assert len(chosen) == len(set(chosen)) == min(quota, len(found))
    assert sorted(select(values, images, None)) == list(range(len(found)))


def test_so_many_of_each_class_by_its_level() -> None:
    # Class 0 is in 4 images, at or above the edge of 4; two of it, in images 1 (.95) and 0 (.9); one of classes 1, 2.
    found = replay(split(), scores=SURE, quotas=(2, 1), edges=[{"images": 4}], rare="level")
    assert kept(found) == {0: [0, 2], 1: [0], 4: [1]}
    above = replay(split(), scores=SURE, quotas=(2, 1), edges=[{"images": 4}], rare="level", inclusive=False)
    assert kept(above) == {0: [2], 1: [0], 4: [1]}
    every = replay(split(), scores=SURE, quotas=(0, None), edges=[0.8], rare="level")
    assert kept(every) == {0: [2], 1: [1, 2], 4: [0, 1, 2]}
    assert kept(replay(split(), scores=SURE, quotas=(1, 0), edges=[0.8], rare=1)) == {0: [2], 1: [0], 4: [1]}


def test_the_other_boxes_are_ignored_background_or_kept() -> None:
    given_: dict[str, Any] = {"scores": SURE, "quotas": (2, 1), "edges": [{"images": 4}], "rare": "level"}
    ignored = replay(split(), **given_)
    assert [len(labels) for labels in ignored.labels] == [3, 3, 3]
    dropped = replay(split(), **given_, unselected="drop")
    assert [labels.tolist() for labels in dropped.labels] == [[0, 1], [0], [2]]
    # Class 0 lost a box of image 0, class 1 and 2 theirs of image 1: none of them becomes a class known to be absent.
    assert [dropped.negative(i).tolist() for i in range(3)] == [[2], [], [0]]
    everything = replay(split(), **given_, unselected="keep")
    assert kept(everything) == {0: [0, 1, 2], 1: [0, 1, 2], 4: [0, 1, 2]}


def test_boxes_to_ignore_are_not_chosen() -> None:
    whole = split()
    crowd = replace(whole, ignore=[np.ones(3, np.bool_), *whole.ignore[1:]])
    at = {name: value if value.dim() == 0 or len(value) == 3 else value[3:] for name, value in SURE.items()}
    found = replay(crowd, scores=at, quotas=(None, None), edges=[{"images": 4}])
    assert 0 not in kept(found)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"unselected": "hide"}, "'hide'"),
        ({"quotas": (1,)}, "1 quotas for 1 edges"),
        ({"quotas": (0, 0)}, "no annotation is chosen"),
        ({"edges": []}, "one or more, falling"),
        ({"edges": [0.0]}, "an edge is 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(given_: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        replay(split(), **{"scores": SURE, "quotas": (2, 1), "edges": [{"images": 4}], "rare": "level"} | given_)
    assert message in str(error.value)


def test_scores_of_other_annotations_are_refused() -> None:
    with pytest.raises(UserError, match="the scores are of other annotations"):
        replay(split().subset([0, 1]), scores=SURE, quotas=(2, 1), edges=[{"images": 4}])


def test_scores_are_in_the_order_of_the_annotations() -> None:
    head = head_of([50, 20, 5])
    classifier = Softmax(head)
    torch.nn.init.zeros_(classifier.fc.weight)
    with torch.no_grad():
        classifier.fc.bias.copy_(torch.tensor([0.5, 0.3, 0.1, 0.1]).log())
    seen = LabelledRois(
        Taps(torch.zeros(3, head.features)), torch.tensor([1, 0, 2]), torch.tensor([1, 0, 1]), torch.tensor([4, 2, 0]),
        torch.zeros(3, 4), classifier,
    )  # fmt: skip
    for score, wanted in (("max", [0.5, 0.5, 0.5]), ("own", [0.5, 0.1, 0.3])):
        part = exemplars.Scores(head, score=score)
        part.update(seen)
        found = part.result()
        assert found["image_A"].tolist() == [0, 1, 1]
        assert found["box_A"].tolist() == [2, 0, 4]
        torch.testing.assert_close(found["score_A"], torch.tensor(wanted))
        assert found["image_counts_C"].tolist() == list(head.image_counts)
    with pytest.raises(UserError, match="'mean'"):
        exemplars.Scores(head, score="mean")


def test_levels_are_divided_at_their_edges() -> None:
    counts = [200, 100, 99, 30, 29, 10, 9]
    three = [{"images": 100}, {"images": 30}, {"images": 10}]
    assert levels_of(counts, three, 1000).tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert levels_of(counts, three, 1000, inclusive=False).tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert levels_of(counts, [0.1, 0.03, 0.01], 1000).tolist() == levels_of(counts, three, 1000).tolist()


def test_images_are_repeated_by_the_level_of_their_classes() -> None:
    # Images: ten with class 0 (frequent), four with class 1 (head), one with class 2 (tail); t = 0.4 of 15 is 6 images.
    stats = ClassStatistics.from_labels([[0]] * 10 + [[1]] * 4 + [[2]], 3)
    known = {"image_counts_C": np.array([500, 50, 5]), "num_images": 1000}

    def copies(**more: Any) -> list[int]:
        sampler = RepeatByLevel(stats, scores=known, t=0.4, **more)
        order = sampler.epoch(0, generator(0, "order"))
        assert len(order) == sampler.expected_length()
        return [int(n) for n in np.bincount(order, minlength=15)[[0, 10, 14]]]

    assert copies() == [1, 2, 3]  # (6/4)^0.3 = 1.13 and 6^0.5 = 2.45, rounded up; the frequent class has none
    assert copies(powers=(0.0, 1.0)) == [1, 1, 6]
    with pytest.raises(UserError, match="one more than edges"):
        copies(powers=(1.0,))
