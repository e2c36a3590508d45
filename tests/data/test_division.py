"""Training images in two: every class is trained, every class that can be is measured, and shares are kept."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import glyphs
from bench.data.division import Division, divide
from bench.errors import UserError
from bench.seeds import generator
from bench.spec import GlyphsData

Images = list[list[int]]
IMAGES = st.lists(st.lists(st.integers(0, 7), max_size=4), min_size=2, max_size=14)


def counts(images: Sequence[Sequence[int]], positions: Sequence[int], classes: int) -> list[int]:
    found = [0] * classes
    for i in positions:
        for c in set(images[i]):
            found[c] += 1
    return found


def sides(images: Images, division: Division, classes: int) -> tuple[list[int], list[int]]:
    """Images of each class in `rest` and in `tune`, all images being on exactly one side, in order."""
    rest, tune = division.rest.tolist(), division.tune.tolist()
    assert sorted(rest + tune) == list(range(len(images)))
    assert rest == sorted(rest)
    assert tune == sorted(tune)
    assert division.rest.dtype == division.tune.dtype == np.int64
    return counts(images, rest, classes), counts(images, tune, classes)


def long_tail(seed: int = 0) -> Images:
    """The classes of each training image of the glyphs of the CPU preset: 80 classes, 1 to about 830 images."""
    spec = GlyphsData(classes=80, max_instances=1600)
    dealt = glyphs.deal(glyphs.instance_counts(spec, seed), spec.objects, generator(seed, "glyphs/deal/train"))
    return [sorted(set(classes)) for classes in dealt]


# -- by hand


def test_two_classes_of_the_same_two_images() -> None:
    division = divide([[0, 1], [1, 0]], 2, 0.2, 0)
    assert sides([[0, 1], [1, 0]], division, 2) == ([1, 1], [1, 1])
    assert division.unsplit == ()


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_one_image_is_trained(seed: int) -> None:
    images = [[0], [1], [1], [2], [2], [2], [2], [2], [], []]
    division = divide(images, 4, 0.3, seed)  # class 3 has no image at all
    rest, tune = sides(images, division, 4)
    assert rest[:2] == [1, 1]
    assert tune[:2] == [0, 1]
    assert tune[2] in (1, 2)
    assert len(division.tune) == 3
    assert division.unsplit == (0,)


def test_both_images_of_a_class_are_needed_by_others() -> None:
    """Class 2 is in the only image of class 0 and in the only one of class 1: training these comes first."""
    images = [[0, 2], [1, 2], [3], [3]]
    division = divide(images, 4, 0.5, 0)
    assert division.unsplit == (0, 1, 2)
    assert division.tune.tolist() in ([2], [3])


def test_of_three_classes_in_a_triangle_one_cannot_be_split() -> None:
    images = [[0, 1], [1, 2], [2, 0]]
    division = divide(images, 3, 0.34, 0)
    rest, tune = sides(images, division, 3)
    assert min(rest) == 1
    assert sorted(tune) == [0, 1, 1]
    assert division.unsplit == (tune.index(0),)


@pytest.mark.parametrize("seed", range(5))
def test_a_row_of_classes_is_mended_along_a_chain(seed: int) -> None:
    """Classes of two images in a row, image i with i - 1 and i: every second image is in `tune`, whatever the draw."""
    images = [[c for c in (i - 1, i) if 0 <= c < 9] for i in range(10)]
    division = divide(images, 9, 0.2, seed)
    assert division.unsplit == ()
    assert division.tune.tolist() in (list(range(0, 10, 2)), list(range(1, 10, 2)))


def test_images_without_a_class_fill_up_the_size() -> None:
    division = divide([[0], [0], [0]] + [[]] * 17, 1, 0.5, 3)
    assert len(division.tune) == 10
    only = divide([[]] * 10, 3, 0.2, 0)
    assert (len(only.tune), len(only.rest), only.unsplit) == (2, 8, ())


def test_rare_classes_make_it_larger_and_common_ones_smaller() -> None:
    images = [[c] for c in range(10) for _ in range(2)]
    assert len(divide(images, 10, 0.1, 0).tune) == 10  # one of each two
    assert len(divide(images, 10, 0.9, 0).tune) == 10


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 20.0, float("nan")])
def test_a_fraction_is_between_nothing_and_all(fraction: float) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        divide([[0], [0]], 1, fraction, 0)


@pytest.mark.parametrize("images", [[], [[0]], [[0], [1]], [[], []], [[0], [0, 1], [1, 2]]])
def test_neither_side_may_be_empty(images: Images) -> None:
    if images == [[0], [0, 1], [1, 2]]:
        assert len(divide(images, 3, 0.2, 0).tune) == 1
    else:
        with pytest.raises(UserError, match="cannot be divided"):
            divide(images, 3, 0.2, 0)


def test_an_exchange_may_make_room_for_another_image() -> None:
    """Nothing can be moved at first: then images are exchanged, and one more is free to go."""
    images = [[0], [0], [0], [0, 1], [0, 1], [0, 2], [0, 3], [1, 3], [1, 3], [1, 3]]
    division = divide(images, 4, 0.8, 0)
    assert len(division.tune) == 8
    assert division.unsplit == (2,)


# -- any images


@settings(max_examples=300, deadline=None)
@given(images=IMAGES, fraction=st.sampled_from([0.1, 0.2, 0.5, 0.8]), seed=st.integers(0, 99))
def test_every_class_is_trained_and_measured_where_it_can_be(images: Images, fraction: float, seed: int) -> None:
    refused = None
    try:
        division = divide(images, 8, fraction, seed)
    except UserError as error:
        refused = str(error)
    if refused is not None and "none in `rest`" in refused:
        assert not any(images), "each class has an image there"
        return
    if refused is not None:
        number = counts(images, range(len(images)), 8)
        wanted = images if round(fraction * len(images)) else [s for s in images if any(number[c] > 1 for c in s)]
        assert all(any(number[c] == 1 for c in shown) for shown in wanted), "an image could be spared"
        return
    rest, tune = sides(images, division, 8)
    number = [a + b for a, b in zip(rest, tune, strict=True)]
    assert all(rest[c] for c in range(8) if number[c])
    assert division.unsplit == tuple(c for c in range(8) if number[c] and not tune[c])
    for c in division.unsplit:  # each image of it is the last of some class
        assert all(any(rest[d] == 1 for d in shown) for shown in images if c in shown)
    if len(division.tune) > round(fraction * len(images)):  # no image of it could be spared
        assert all(any(tune[d] == 1 for d in images[i]) for i in division.tune)
    if len(division.tune) < round(fraction * len(images)):
        assert all(any(rest[d] == 1 for d in images[i]) for i in division.rest)


@settings(max_examples=100, deadline=None)
@given(numbers=st.lists(st.integers(0, 9), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_a_class_of_its_own_images_is_always_split(numbers: list[int], seed: int) -> None:
    images = [[c] for c, number in enumerate(numbers) for _ in range(number)] + [[], []]
    division = divide(images, len(numbers), 0.3, seed)
    assert division.unsplit == tuple(c for c, number in enumerate(numbers) if number == 1)


def test_as_many_classes_are_split_as_trying_everything_splits() -> None:
    rng = random.Random(0)
    for trial in range(300):
        images = [
            [c for c in range(6) if rng.random() < rng.choice([0.15, 0.3, 0.5])] for _ in range(rng.randint(2, 8))
        ]
        members = [{i for i, shown in enumerate(images) if c in shown} for c in range(6)]
        there = [shown for shown in members if shown]
        chosen = itertools.chain.from_iterable(
            itertools.combinations(range(len(images)), size) for size in range(len(images))
        )
        legal = (set(tune) for tune in chosen if not any(shown <= set(tune) for shown in there))
        least = min(sum(not shown & tune for shown in there) for tune in legal)
        try:
            assert len(divide(images, 6, 0.3, trial).unsplit) == least
        except UserError:
            assert least == len(there)


# -- a long tail


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_the_shares_of_a_long_tail(fraction: float) -> None:
    images = long_tail()
    division = divide(images, 80, fraction, 0)
    rest, tune = sides(images, division, 80)
    assert len(division.tune) == round(fraction * len(images))
    single = tuple(c for c in range(80) if rest[c] + tune[c] == 1)
    assert division.unsplit == single
    for c in set(range(80)) - {*single}:
        wanted = min(max(1.0, fraction * (rest[c] + tune[c])), rest[c] + tune[c] - 1.0)
        assert abs(tune[c] - wanted) <= 2.0, f"class {c}: {tune[c]} of {rest[c] + tune[c]}"


def test_a_seed_gives_one_division_and_another_seed_another() -> None:
    images = long_tail()
    first, again, other = (divide(images, 80, 0.2, seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.tune, again.tune)
    assert 0 < len({*first.tune.tolist()} & {*other.tune.tolist()}) < len(first.tune) / 2


def test_a_division_of_version_1_is_known() -> None:
    """What a store holds was divided so: a change of these numbers needs another VERSION."""
    images = [[0, 1], [1], [1, 2], [2], [2, 3], [3], [3], [0, 3], [], [2], [1, 3], [3]]
    division = divide(images, 4, 0.25, 7)
    assert (division.tune.tolist(), division.unsplit) == ([7, 9, 10], ())


@pytest.mark.slow
def test_a_set_of_the_size_of_lvis_takes_seconds() -> None:
    """100,170 images, 1,203 classes of 1 to 20,000 images: over 2 million pairs, more than LVIS v1 has."""
    rng = np.random.default_rng(0)
    images: Images = [[] for _ in range(100_170)]
    for c, number in enumerate(np.exp(np.linspace(0, np.log(20_000), 1203)).round().astype(int).tolist()):
        for i in rng.choice(len(images), number, replace=False).tolist():
            images[i].append(c)
    begun = time.process_time()
    division = divide(images, 1203, 0.2, 0)
    assert time.process_time() - begun < 20.0  # 10 s on the machine it was written on
    rest, tune = sides(images, division, 1203)
    assert len(division.tune) == 20_034
    assert division.unsplit == tuple(c for c in range(1203) if rest[c] + tune[c] == 1)
    common = [c for c in range(1203) if rest[c] + tune[c] >= 100]
    assert max(abs(tune[c] / (rest[c] + tune[c]) - 0.2) for c in common) < 0.01
