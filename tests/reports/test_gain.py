"""The gain of a search by hand, and against scipy's own interval of a paired test."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from made_records import made, made_draws
from made_searches import on_val
from scipy.stats import ttest_rel

from bench.search.view import MARK
from reports.gain import Gain, gain, signed
from reports.stats import Cell

# Differences 1, 2, 3: mean 2, sd 1. t(0.975, 2) = 4.3027, half the interval 4.3027 / sqrt(3) = 2.4841.
DEFAULT, WINNER = (20.0, 21.0, 25.0), (21.0, 23.0, 28.0)


def test_a_gain_by_hand() -> None:
    found = gain(on_val("w", WINNER), on_val("d", DEFAULT), "AP")
    assert found.default == Cell(22.0, pytest.approx(math.sqrt(7)), 3)
    assert found.winner.mean == pytest.approx(24.0)
    assert found.difference == Cell(2.0, 1.0, 3)
    assert (found.low, found.high) == (pytest.approx(-0.4841, abs=1e-4), pytest.approx(4.4841, abs=1e-4))
    assert not found.is_real
    assert found.spoken() == "AP +2.0 (95 % interval over 3 seeds -0.5 to +4.5): not distinguishable from zero"


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_is_that_of_a_paired_t_test(seed: int) -> None:
    draw = random.Random(seed)
    default = [20 + draw.gauss(0, 1) for _ in range(seed + 2)]
    winner = [value + draw.gauss(0.5, 0.3) for value in default]
    found = gain(on_val("w", winner), on_val("d", default), "AP")
    expected = ttest_rel(winner, default).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert found.is_real == bool(ttest_rel(winner, default).pvalue < 0.05)


def test_a_real_gain_and_a_real_loss_are_called_so() -> None:
    up = gain(on_val("w", (21.0, 22.1, 25.9)), on_val("d", DEFAULT), "AP")
    assert up.spoken() == "AP +1.0 (95 % interval over 3 seeds +0.8 to +1.2): a real gain"
    down = gain(on_val("d", DEFAULT), on_val("w", (21.0, 22.1, 25.9)), "AP")
    assert down.spoken() == "AP -1.0 (95 % interval over 3 seeds -1.2 to -0.8): a real loss"
    assert up.is_real
    assert down.is_real


def test_one_seed_has_no_interval() -> None:
    found = gain(on_val("w", WINNER[:1]), on_val("d", DEFAULT), "AP")
    assert (found.low, found.high, found.is_real) == (None, None, False)
    assert found.spoken() == "AP +1.0: one seed, no interval"
    assert found.interval() == "-"


def test_a_seed_counts_where_both_have_the_value_on_the_same_val() -> None:
    other = made("w", 2, protocol={"val_digest": "f" * 64}, key="w 2", AP=90.0)
    found = gain([*on_val("w", (21.0, 23.0)), other], on_val("d", DEFAULT), "AP")
    assert found.difference == Cell(1.5, pytest.approx(math.sqrt(0.5)), 2)
    missing = gain(on_val("w", (21.0, None, 28.0)), on_val("d", DEFAULT), "AP")
    assert missing.difference.n == 2
    assert "over 2 seeds" in missing.spoken()
    assert gain([other], on_val("d", DEFAULT), "AP").spoken() == "AP -: no seed has both rows on the same val"
    assert gain([], on_val("d", DEFAULT), "AP").spoken() == "AP -: no seed has both rows on the same val"
    assert gain(on_val("w", WINNER), on_val("d", DEFAULT), "AP1").spoken().startswith("AP1 -")


def test_a_winner_that_is_the_default() -> None:
    found = gain(on_val("d", DEFAULT), on_val("d", DEFAULT), "AP")
    assert found.same
    assert not found.is_real
    assert found.spoken() == "AP: the winner is the default, nothing was gained"


def test_equal_values_of_two_models_are_no_gain() -> None:
    found = gain(on_val("w", DEFAULT), on_val("d", DEFAULT), "AP")
    assert not found.same
    assert found.spoken() == "AP 0.0 (95 % interval over 3 seeds 0.0 to 0.0): not distinguishable from zero"


def test_of_a_search_on_val_nothing_is_called_real() -> None:
    real = Gain("AP", Cell(20.0, 1.0, 3), Cell(21.0, 1.0, 3), Cell(1.0, 0.1, 3), 0.8, 1.2)
    assert "real" in real.spoken()
    assert real.spoken(MARK) == f"AP +1.0 (95 % interval over 3 seeds +0.8 to +1.2): {MARK}"
    for rows in (on_val("w", WINNER[:1]), on_val("d", DEFAULT), []):
        assert gain(rows, on_val("d", DEFAULT), "AP").spoken(MARK).endswith(f"; {MARK}")


def test_no_end_of_an_interval_looks_like_zero() -> None:
    values = [1.25, 0.03, -0.04, 0.0004, -0.0004, 0.0, -0.06]
    assert [signed(value) for value in values] == ["+1.2", "+0.03", "-0.04", "+0.0", "-0.0", "0.0", "-0.1"]


def test_over_val_images_where_their_draws_are_kept() -> None:
    """One seed: 22 - 20, draws that differ by 1.9 and 2.1 in turn (sd 0.1): 2 +- 1.96 * 0.1."""
    rng = np.random.default_rng(0)
    common = 20.0 + rng.normal(0, 3, 400)
    default, winner = (
        replace(made(label, AP=ap, key=label), draws=made_draws({"AP": drawn}, {"AP": 99}, "v"))
        for label, ap, drawn in (("a", 20.0, common), ("b", 22.0, common + np.tile([1.9, 2.1], 200)))
    )
    found = gain([winner], [default], "AP")
    assert found.low == pytest.approx(2 - 1.96 * 0.1, abs=0.001)
    assert (
        found.spoken()
        == "AP +2.0 (95 % interval over val images and one seed +1.8 to +2.2): a real gain, for these models"
    )
    assert not gain([winner], [made("a", AP=20.0)], "AP").images
