"""Intervals and Holm's correction by hand (quantiles from a table of Student's t), and how they are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reports.differences import Difference, certain, to_csv
from reports.intervals import Floats, Interval, few, holm, interval, of_difference, of_images, of_row
from reports.load import RowResult
from reports.render import to_markdown, to_text
from reports.stats import Cell, p_text
from reports.tables import table, to_json
from reports.tracked import numbers
from tests.reports.made_records import made, made_draws, without_blocks

T2, T1, Z = 4.30265, 12.7062, 1.95996  # 97.5 % of Student's t with 2 and 1 degrees of freedom, and of the normal


def varied(draws: Sequence[Floats]) -> list[Floats]:
    """Bootstrap and jackknife say the same."""
    return [of_images(of, without_blocks(of)) for of in draws]


def test_the_variance_of_images_is_the_mean_of_two_estimates() -> None:
    """Draws 1 and 3 have the sample variance 2. Without a block 4.9, 5 and 5.4 (mean 5.1): 2 / 3 of 0.14. A place
    without a number is left out."""
    draws, without = np.array([1.0, np.nan, 3.0]), np.array([4.9, 5.0, np.nan, 5.4])
    apart = of_images(draws, without)
    assert (apart**2).sum() == pytest.approx((2 + 0.28 / 3) / 2)
    found = interval([5.0], [apart])
    assert found is not None
    assert found.high == pytest.approx(5 + Z * ((2 + 0.28 / 3) / 2) ** 0.5, 1e-5)
    assert not len(of_images(draws, np.array([np.nan, 4.0])))


def test_one_seed_knows_the_images_alone() -> None:
    """Draws 1 and 3: sample variance 2."""
    found = interval([5.0], varied([np.array([1.0, 3.0])]))
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(5 - Z * 2**0.5, 1e-5), pytest.approx(5 + Z * 2**0.5, 1e-5))
    assert found.p == pytest.approx(4.07e-4, abs=1e-6)  # two-sided, of 5 / sqrt 2 = 3.5355 standard errors


def test_seeds_with_a_val_of_their_own_are_students_interval() -> None:
    """Values 1, 2, 3: s^2 = 1. Draws that are independent add nothing: their spread is in s^2 already."""
    rng = np.random.default_rng(0)
    for draws in ([np.zeros(1000)] * 3, [rng.normal(0, 1, 20_000) for _ in range(3)]):
        found = interval([1.0, 2.0, 3.0], varied(draws), shared=False)
        assert found is not None
        assert found.high - 2 == pytest.approx(T2 / 3**0.5, 1e-5)
        assert found.low + found.high == pytest.approx(4)
    exact = interval([1.0, 2.0, 3.0], varied([np.zeros(1000)] * 3))
    assert exact is not None
    assert exact.high == pytest.approx(2 + T2 / 3**0.5, 1e-5)
    assert exact.p == pytest.approx(0.074180, abs=1e-5)  # t = 3.4641, 2 degrees of freedom


def test_images_that_seeds_share_vary_once_more() -> None:
    """Draws -1 and 1 of all seeds at once: variance 2 of their mean. Values 0, 0, 0, 0, 5: s^2 / 5 = 1. Together 3, of
    4 * (3 / 1)^2 = 36 degrees of freedom, of which the 97.5 % point is 2.02809; the seeds alone have 2.776 * 1. Of two
    seeds, 0 and 2, s^2 / 2 = 1 as well, and Student's 12.7 of these alone is wider than any sum."""
    shared = np.array([-1.0, 1.0])
    five, two = interval([0.0, 0.0, 0.0, 0.0, 5.0], varied([shared] * 5)), interval([0.0, 2.0], varied([shared] * 2))
    assert five is not None
    assert two is not None
    assert five.high == pytest.approx(1 + 2.02809 * 3**0.5, 1e-5)
    assert two.high == pytest.approx(1 + T1, 1e-5)


def test_seeds_that_agree_by_luck_are_not_surer_than_their_images() -> None:
    """2.0 and 2.001, each on a val of its own whose draws have variance 16 / 3, so that of the mean half of it."""
    far = [np.array([-2.0, 2.0, -2.0, 2.0]), np.array([-2.0, -2.0, 2.0, 2.0])]  # independent of one another
    found = interval([2.0, 2.001], varied(far), shared=False)
    assert found is not None
    assert found.high == pytest.approx(2.0005 + Z * (16 / 3 / 2) ** 0.5, 1e-4)
    assert found.p == pytest.approx(0.2206, abs=1e-4)  # of 2.0005 / 1.633 standard errors; Student's is 0.00016
    sure = interval([20.0, 20.2], varied(far), shared=False)
    assert sure is not None
    assert sure.p == pytest.approx(0.00317, abs=1e-5)  # Student's of 20.1 / 0.1 with 1 degree; the normal one is 1e-34


def test_vals_of_their_own_may_have_more_images_or_fewer() -> None:
    """Two seeds agree on 4; variances 2 and 1 of their images, on two and on three places: of the mean (2 + 1) / 4."""
    apart = [np.array([1.0, -1.0]), np.array([0.6, -0.8, 0.0])]
    found = interval([4.0, 4.0], apart, shared=False)
    assert found is not None
    assert found.high == pytest.approx(4 + Z * 0.75**0.5, 1e-5)


def test_what_does_not_vary_has_no_interval() -> None:
    assert interval([], varied([])) is None
    assert interval([1.0], varied([np.full(9, 2.0)])) is None
    assert interval([1.0], varied([np.full(9, np.nan)])) is None
    assert interval([1.0, 1.0], varied([np.zeros(9)] * 2)) is None


def test_a_draw_without_a_box_is_left_out() -> None:
    whole, part = (
        interval([5.0], varied([np.array([1.0, 3.0])])),
        interval([5.0], varied([np.array([1.0, np.nan, 3.0])])),
    )
    assert whole == part


def test_holm_by_hand() -> None:
    """0.01 * 4 = 0.04; 0.02 * 3 = 0.06; 0.021 * 2 = 0.042, but not below the one before; 0.9."""
    found = holm({"c": 0.021, "a": 0.01, "d": 0.9, "b": 0.02})
    assert found == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.9})
    assert holm({"a": 0.7, "b": 0.6}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


# -- rows


def drawn(row: RowResult, images: int = 90, **draws: list[float]) -> RowResult:
    values = {name: np.array(of) for name, of in draws.items()}
    return replace(row, draws=made_draws(values, dict.fromkeys(draws, images), row.record.protocol.val_digest))


def rows() -> list[RowResult]:
    """Of +6 with a sd of sqrt 2, and +1 with one of sqrt 8; the draws of AP1 are of 12 images."""
    base = drawn(made("baseline", AP=20.0, AP1=0.5), AP=[19.0, 21.0], AP1=[0.0, 1.0])
    good = drawn(made("BAGS", AP=26.0, AP1=9.0), AP=[24.0, 28.0], AP1=[8.0, 9.0])
    weak = drawn(made("RFS", AP=21.0, AP1=0.5), AP=[18.0, 24.0], AP1=[0.0, 1.0])
    thin = [replace(row, draws=replace(row.draws, images={"AP": 90, "AP1": 12})) for row in (base, good, weak)]  # type: ignore[type-var]
    return [*thin, made("new", AP=22.0)]


def test_a_tracker_shows_ends_and_differences() -> None:
    """By hand: of BAGS' draws 24 and 28 the sd is sqrt 8, of its differences 5 and 7 it is sqrt 2; 1.95996 of each. AP1
    is seen on too few images; "new" has no draws, so its difference alone; RFS has BAGS as its control."""
    found = numbers(rows(), ["baseline", "RFS"], {"RFS": "BAGS"})
    assert list(found) == ["baseline", "RFS", "BAGS", "new"]
    assert found["baseline"] == pytest.approx({"AP_low": 20 - 2.771808, "AP_high": 20 + 2.771808})
    assert found["BAGS"] == pytest.approx({
        "AP_low": 26 - 5.543616, "AP_high": 26 + 5.543616, "dAP": 6.0, "dAP_low": 6 - 2.771808,
        "dAP_high": 6 + 2.771808, "dAP1": 8.5,
    })  # fmt: skip
    assert found["new"] == {"dAP": 2.0}
    assert {name: value for name, value in found["RFS"].items() if name.startswith("c")} == pytest.approx(
        {"cAP": -5.0, "cAP_low": -5 - 2.771808, "cAP_high": -5 + 2.771808, "cAP1": -8.5}
    )


def test_differences_are_paired_by_draw() -> None:
    """BAGS less baseline: 5 and 7 on the two draws, so a standard error of sqrt 2; its own AP has one of sqrt 8."""
    base, good, *_ = rows()
    apart, own = of_difference([good], [base], "AP"), of_row([good], "AP")
    assert apart is not None
    assert own is not None
    assert (apart.low, apart.high) == (pytest.approx(6 - Z * 2**0.5, 1e-5), pytest.approx(6 + Z * 2**0.5, 1e-5))
    assert own.high == pytest.approx(26 + Z * 8**0.5, 1e-5)
    assert of_difference([good], [base], "AP1") is None
    assert of_row([made("new", AP=1.0)], "AP") is None
    assert few(rows(), ["AP", "AP1", "APr"]) == {"AP1": (12, 12)}


def test_one_seed_of_few_images_takes_the_interval_and_that_is_said() -> None:
    """AP1 is shown by 91, 29 and 93 images: the second seed has too few, so that no row has an interval."""
    found = []
    for seed, images in enumerate((91, 29, 93)):
        for label, ap in (("baseline", 20.0), ("BAGS", 26.0)):
            row = drawn(made(label, seed, AP=ap, AP1=5.0 + seed), AP=[ap, ap + 2], AP1=[4.0, 6.0])
            assert row.draws is not None
            found.append(replace(row, draws=replace(row.draws, images={"AP": 99, "AP1": images})))
    assert of_row(found[1::2], "AP1") is None
    text = " ".join(to_text(table(found, suite="made")).split())
    assert "val images show a class of it: AP1 (29 to 93 images, by seed)" in text


def test_a_difference_that_nothing_moves_has_a_reason_said_once() -> None:
    """`same` is the baseline in every draw, its control too; `new` has no draws, which is another reason."""
    base, good, weak, new = rows()
    same = drawn(made("same", AP=20.0, AP1=0.5), images=99, AP=[19.0, 21.0], AP1=[0.0, 1.0])
    text = " ".join(to_text(table([base, good, weak, new, same], suite="made", against={"same": "baseline"})).split())
    assert text.count("no interval, as the difference is the same whichever val images are drawn: same (AP)") == 1
    assert "nothing is known of other val images for it or for what it is compared with: new (AP)" in text


def test_certain_is_what_holm_leaves() -> None:
    found = certain(rows())["delta"]
    assert set(found) == {"BAGS", "RFS", "new"}
    assert found["BAGS"]["AP"].certain
    assert found["BAGS"]["AP"].holm == pytest.approx(2 * 2.2090e-05, rel=1e-3)  # of two: 6 / sqrt 2 standard errors
    assert not found["RFS"]["AP"].certain
    assert found["new"]["AP"].interval is None
    assert found["BAGS"]["AP1"].interval is None
    assert certain([made("baseline", AP=20.0), made("BAGS", AP=26.0)]) == {}


def test_a_verdict_does_not_contradict_the_interval_beside_it() -> None:
    """Of p 0.03 twice: both intervals are without 0, and Holm's 0.06 is not certain."""
    cell = Cell(2.0, None, 1)
    without = Interval(0.2, 3.8, 0.03)
    assert Difference("b", cell, without, 0.06).verdict == "without 0, but not after Holm"
    assert Difference("b", cell, Interval(-3.8, -0.2, 0.03), 0.06).verdict == "without 0, but not after Holm"
    assert Difference("b", cell, without, 0.04).verdict == "certain"
    assert Difference("b", cell, Interval(-0.1, 4.1, 0.06), 0.06).verdict == "not told apart from 0"
    assert Difference("b", cell, None, None).verdict == "no interval"


def test_rows_of_one_seed_among_others_are_for_these_models() -> None:
    several = [
        drawn(made(label, seed, AP=ap + seed), AP=[ap, ap + 2], images=99)
        for seed in (0, 1)
        for label, ap in (("baseline", 20.0), ("BAGS", 26.0))
    ]
    text = " ".join(
        to_text(table([*several, drawn(made("x2", AP=21.0), AP=[20.0, 23.0], images=99)], suite="s")).split()
    )
    assert "of one seed, and so for these models alone: x2" in text
    assert "for these models" not in " ".join(to_text(table(several, suite="s")).split())


def test_a_far_tail_is_not_printed_as_a_number() -> None:
    assert [p_text(p) for p in (6.9e-26, 0.00099, 0.001, 0.019)] == ["p < 0.001", "p < 0.001", "p = 0.001", "p = 0.019"]


def test_how_it_is_shown() -> None:
    shown = table(rows(), suite="made")
    text = to_text(shown)
    assert "BAGS  +6.0 [+3.2, +8.8]!" in text
    assert "RFS    +1.0 [-4.5, +6.5]" in text
    assert "AP1 (12 images)" in text
    note = " ".join(text.split())
    assert "95 % interval over val images, for these models: one seed knows no other training" in note
    assert "Holm's correction over at most 2 rows; each metric by itself, at 5 %" in note
    markdown = to_markdown(shown)
    assert "**+6.0** [+3.2, +8.8]" in markdown
    assert "| +1.0 [-4.5, +6.5]" in markdown
    entry: dict[str, Any] = {line["row"]: line for line in json.loads(json.dumps(to_json(rows())))}
    of_ap = next(one for one in entry["BAGS"]["intervals"] if one["metric"] == "AP")
    assert (of_ap["base"], of_ap["low"]) == ("baseline", pytest.approx(6 - Z * 2**0.5, 1e-5))
    assert "intervals" not in entry["baseline"]
    lines = to_csv(rows(), (), certain(rows())).splitlines()
    assert lines[0].startswith("row,metric,seeds,value,low,high,base,difference")
    assert "BAGS,AP,1,26,20.4564,31.5436,baseline,6,3.22819,8.77181,2.20905e-05,4.4181e-05,2" in lines
    assert "new,AP,1,22,,,baseline,2,,,,,2" in lines


def test_without_draws_nothing_is_said_of_intervals() -> None:
    text = to_text(table([made("baseline", AP=20.0), made("BAGS", AP=26.0)], suite="made"))
    assert "interval" not in text
    assert "Holm" not in text


def test_a_control_has_a_block_and_a_correction_of_its_own() -> None:
    """BAGS less RFS: 6 and 4 on the two draws: 5 with a standard error of sqrt 2; of one row, p stays as it is."""
    found = certain(rows(), against={"BAGS": "RFS", "RFS": "gone"})
    one = found["against"]["BAGS"]["AP"]
    assert set(found["against"]) == {"BAGS"}
    assert one.interval is not None
    assert (one.base, one.interval.low) == ("RFS", pytest.approx(5 - Z * 2**0.5, 1e-5))
    assert one.holm == one.interval.p == pytest.approx(4.07e-4, abs=1e-6)
    text = to_text(table(rows(), suite="made", against={"BAGS": "RFS"}))
    assert "BAGS  +5.0 [+2.2, +7.8]!" in text
    assert "Holm's correction over at most 2 rows and 1 row with a control; each metric" in " ".join(text.split())
    lines = to_csv(rows(), (), found).splitlines()
    assert [line.split(",")[6] for line in lines if line.startswith("BAGS,AP,")] == ["baseline", "RFS"]
