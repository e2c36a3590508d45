"""Means, spreads and paired differences; a missing value is never 0."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import made

from reports.stats import MISSING, baseline_of, by_row, differences, metrics_of, other_counts, other_val, summarise

POINTS = st.floats(0, 100, allow_nan=False)


def test_sample_standard_deviation_over_seeds() -> None:
    cell = metrics_of([made("a", seed, AP=value) for seed, value in enumerate((10.0, 12.0, 17.0))])["AP"]
    assert (cell.mean, cell.n) == (13.0, 3)
    assert cell.sd == pytest.approx(13**0.5)  # ((-3)^2 + (-1)^2 + 4^2) / (3 - 1)


def test_a_missing_value_lowers_n_and_nothing_else() -> None:
    group = [made("a", 0, AP1=4.0), made("a", 1, AP1=None), made("a", 2)]
    assert metrics_of(group)["AP1"] == summarise([4.0])
    assert summarise([4.0]).sd is None
    assert metrics_of([made("a", 0, AP1=None)])["AP1"] == MISSING


@given(st.lists(st.one_of(st.none(), POINTS), max_size=6))
def test_summarise_agrees_with_the_library(values: list[float | None]) -> None:
    present = [v for v in values if v is not None]
    cell = summarise(values)
    assert cell.n == len(present)
    assert (cell.mean is None) == (not present)
    if len(present) > 1:
        assert cell.sd == pytest.approx(statistics.stdev(present))


def test_differences_are_paired_by_seed() -> None:
    base = [made("baseline", 0, AP=10.0), made("baseline", 1, AP=20.0), made("baseline", 2, AP=None)]
    row = [made("x", 1, AP=23.0), made("x", 0, AP=11.0), made("x", 2, AP=50.0), made("x", 7, AP=99.0)]
    cell = differences(row, base)["AP"]
    assert (cell.mean, cell.n) == (2.0, 2)  # seeds 0 and 1: +1 and +3; not seed 2 (no baseline value) nor 7
    assert cell.sd == pytest.approx(2**0.5)


def test_rows_stay_in_suite_order_and_seeds_ascend() -> None:
    rows = [made("b", 2), made("a", 0), made("b", 1), made("new", 0)]
    groups = by_row(rows, ["a", "absent", "b"])
    assert list(groups) == ["a", "b", "new"]
    assert [r.record.seed for r in groups["b"]] == [1, 2]


def test_baseline_is_found_by_label_then_by_method() -> None:
    assert baseline_of(by_row([made("x"), made("baseline")])) == "baseline"
    assert baseline_of(by_row([made("x"), made("plain", method="baseline")])) == "plain"
    assert baseline_of(by_row([made("x")])) is None


def test_two_data_sets_are_never_subtracted() -> None:
    other = {"val_digest": "c" * 64}
    base = [made("baseline", 0, AP=10.0), made("baseline", 1, AP=20.0)]
    row = [made("x", 0, AP=11.0, protocol=other), made("x", 1, AP=25.0)]
    assert differences(row, base)["AP"] == summarise([5.0])  # seed 1 alone
    assert differences(row[:1], base) == {}
    assert other_val(row, base)
    assert not other_val(row[1:], base)


def test_a_bin_of_other_classes_has_no_difference() -> None:
    base = [made("baseline", AP=10.0, AP50=20.0, AP1=1.0, APr=2.0, ACC1=3.0, ACCbg=9.0)]
    row = [made("x", AP=11.0, AP50=22.0, AP1=9.0, APr=9.0, ACC1=9.0, ACCbg=8.0, counts=(7,) * 6)]
    found = differences(row, base)
    assert {name: cell.mean for name, cell in found.items() if cell.n} == {"AP": 1.0, "AP50": 2.0, "ACCbg": -1.0}
    assert other_counts(row, base)
    assert not other_val(row, base)
