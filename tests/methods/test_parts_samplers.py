"""Samplers: published repeat factors and epoch lengths, statistics of the stochastic rounding, reproducibility."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import UserError
from bench.frequency import ClassStatistics, repeat_factors
from bench.key import part, resolve
from bench.seeds import generator
from methods.parts.samplers import RepeatFactor, Shuffle

TOY = json.loads((Path(__file__).parent / "toy_values.json").read_text())
STATS = ClassStatistics.from_labels(TOY["rfs"]["images"], 4)
T = TOY["rfs"]["t"]


def counted(sampler: RepeatFactor, e: int = 0) -> list[int]:
    order = sampler.epoch(e, generator(0, "order", step=e))
    assert order.dtype == np.int64
    return [int(n) for n in np.bincount(order, minlength=STATS.num_images)]


def test_repeat_factors() -> None:
    assert STATS.image_counts.tolist() == TOY["rfs"]["n_img"]
    r_class, r_image = repeat_factors(STATS, T, 0.5)
    np.testing.assert_allclose(r_class, TOY["rfs"]["r_c"], atol=1e-6)
    np.testing.assert_allclose(r_image, TOY["rfs"]["r_I"], atol=1e-6)


@pytest.mark.parametrize(
    ("rounding", "key"),
    [
        ("stochastic", "expected_epoch_len_stochastic"),
        ("ceil", "epoch_len_ceil_mmdet"),
        ("bags", "epoch_len_bags_code"),
    ],
)
def test_epoch_lengths(rounding: str, key: str) -> None:
    sampler = RepeatFactor(STATS, t=T, rounding=rounding)
    assert sampler.expected_length() == pytest.approx(TOY["rfs"][key], abs=1e-6)
    if rounding != "stochastic":
        assert len(sampler.epoch(0, generator(0, "order"))) == TOY["rfs"][key]


def test_power_one() -> None:
    toy = TOY["rfs_power1_stepwise"]
    np.testing.assert_allclose(repeat_factors(STATS, T, 1.0)[0], toy["r_c"], atol=1e-6)
    assert counted(RepeatFactor(STATS, t=T, power=1.0, rounding="ceil")) == toy["ceil_r_I"]


def test_bags_keeps_the_original_beside_its_copies() -> None:
    assert counted(RepeatFactor(STATS, t=T, rounding="bags")) == [1] * 6 + [3, 3, 3, 3]


@pytest.mark.parametrize(("t", "power"), [(T, 0.5), (0.9, 0.5), (T, 1.0), (0.07, 2.0)])
def test_stochastic_length_is_within_three_sigma(t: float, power: float) -> None:
    sampler = RepeatFactor(STATS, t=t, power=power)
    r_image = repeat_factors(STATS, t, power)[1]
    frac = np.mod(r_image, 1.0)
    assert sampler.expected_length() == pytest.approx(r_image.sum())
    epochs = 1000
    lengths = [len(sampler.epoch(e, generator(1, "order", step=e))) for e in range(epochs)]
    sigma = math.sqrt((frac * (1 - frac)).sum() / epochs)
    assert abs(np.mean(lengths) - r_image.sum()) <= 3 * sigma
    assert (len(set(lengths)) > 1) == (sigma > 0)  # drawn anew each epoch


def test_an_epoch_is_a_function_of_its_address() -> None:
    for sampler in (RepeatFactor(STATS, t=T), Shuffle(STATS)):
        first, again, second = (sampler.epoch(0, generator(3, "order", step=e)) for e in (0, 0, 1))
        assert first.tolist() == again.tolist() != second.tolist()


def test_shuffle_shows_each_image_once() -> None:
    order = Shuffle(STATS).epoch(0, generator(0, "order"))
    assert sorted(order.tolist()) == list(range(10)) != order.tolist()
    assert Shuffle(STATS).expected_length() == 10


def test_threshold_in_images() -> None:
    by_share, by_images = (RepeatFactor(STATS, t=t, rounding="ceil") for t in (0.4, {"images": 4}))
    assert counted(by_share) == counted(by_images)
    made, options = resolve(part("samplers:RepeatFactor", t={"images": 4}, rounding="ceil"))
    assert counted(made(STATS, **options)) == counted(by_share)


def test_a_small_threshold_repeats_nothing() -> None:
    for rounding in ("stochastic", "ceil", "bags"):
        assert counted(RepeatFactor(STATS, t=1e-9, rounding=rounding)) == [1] * 10


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=30),
    st.floats(1e-4, 1.0),
    st.sampled_from(["stochastic", "ceil", "bags"]),
)
def test_every_image_is_shown_and_more_with_a_larger_threshold(
    images: list[list[int]], t: float, rounding: str
) -> None:
    stats = ClassStatistics.from_labels(images, 6)
    sampler = RepeatFactor(stats, t=t, rounding=rounding)
    shown = np.bincount(sampler.epoch(0, generator(0, "order")), minlength=len(images))
    assert len(shown) == len(images)
    assert (shown >= 1).all()
    assert RepeatFactor(stats, t=2 * t, rounding=rounding).expected_length() >= sampler.expected_length()
    r_image = repeat_factors(stats, t, 0.5)[1]
    assert (abs(shown - r_image) <= (2 if rounding == "bags" else 1)).all()


def detectron2_repeat_factors(images: list[list[int]], t: float) -> list[float]:
    """detectron2's definition in its words: f(c) is the share of images that contain c; r(c) = max(1, sqrt(t / f(c)));
    r(I) = max over the categories of I, and 1 for an image that has none."""
    frequency: dict[int, int] = defaultdict(int)
    for image in images:
        for category in {*image}:
            frequency[category] += 1
    factor = {c: max(1.0, math.sqrt(t / (n / len(images)))) for c, n in frequency.items()}
    return [max({factor[c] for c in {*image}}, default=1.0) for image in images]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=5), min_size=1, max_size=40), st.floats(1e-4, 1.0))
def test_repeat_factors_are_those_of_detectron2(images: list[list[int]], t: float) -> None:
    stats = ClassStatistics.from_labels(images, 10)
    wanted = detectron2_repeat_factors(images, t)
    np.testing.assert_allclose(repeat_factors(stats, t)[1], wanted, rtol=1e-12)
    assert RepeatFactor(stats, t=t).expected_length() == pytest.approx(sum(wanted))
    copies = np.bincount(RepeatFactor(stats, t=t).epoch(0, generator(0, "order")), minlength=len(images))
    assert ((np.floor(wanted) <= copies) & (copies <= np.floor(wanted) + 1)).all()


@pytest.mark.parametrize(
    "wrong", [{"rounding": "floor"}, {"t": 0.0}, {"t": math.nan}, {"t": {"img": 5}}, {"power": -1.0}]
)
def test_refusals(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        RepeatFactor(STATS, **wrong)
