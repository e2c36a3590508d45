"""A training computes what it computed when its numbers were written down."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from tests.golden import losses


@functools.cache
def current() -> dict[str, Any]:
    return losses.current()


def test_the_same_images_are_trained_on() -> None:
    assert current()["data"] == losses.recorded()["data"]


@pytest.mark.parametrize("label", losses.ROWS)
def test_ten_steps_and_the_weights_after_them(label: str) -> None:
    was, now = losses.recorded()[label], current()[label]
    assert len(was["losses"]) == losses.STEPS
    wrong = [(what, d) for what, d in losses.differences(was, now, label) if d > losses.TOLERANCE]
    assert not wrong, wrong[:5]


def test_the_rates_are_those_of_the_schedule() -> None:
    """Worked out by hand: warm-up from 0.1 over 4 steps, counted from 1, times half a cosine over 10 steps at 0.05."""
    rates = [step["lr"] for step in losses.recorded()["baseline"]["losses"]]
    assert rates[0] == pytest.approx(0.05 * (0.1 + 0.9 / 4))
    assert rates[5] == pytest.approx(0.05 / 2)
    assert losses.recorded()["cls-retrain"]["losses"][5]["lr"] == pytest.approx(0.2 * 0.1)


def test_a_number_that_is_gone_or_new_is_a_difference() -> None:
    was = {"a": [{"x": 1.0}], "b": 2.0}
    assert list(losses.differences(was, {"a": [{"x": 1.1}], "c": 2.0})) == [
        ("a step 1 x", pytest.approx(0.1)),
        ("b", float("inf")),
        ("c", float("inf")),
    ]
