"""Rows of two engines in one table: compared each with the baseline of its engine, and the engines' orders with each
other."""

from __future__ import annotations

import pytest

from reports import engines
from reports.load import RowResult
from reports.stats import bases_of, by_row, differences
from reports.tables import table, to_json
from tests.reports.made_records import made

D2 = {"engine": "detectron2", "engine_version": "1"}
OWN = {"detector": {"engine": "detectron2"}}


def rows() -> list[RowResult]:
    """Gains +2, +1, -1 on one engine; +3, -1, -2 on the other, whose baseline is worse."""
    found = []
    for label, method, ap, other in (
        ("baseline", "baseline", 20.0, 10.0), ("RFS", "rfs", 22.0, 13.0), ("BAGS", "bags", 21.0, 9.0),
        ("tau", "tau_norm", 19.0, 8.0),
    ):  # fmt: skip
        found += [
            made(label, method=method, AP=ap),
            made(f"{label} d2", method=method, AP=other, protocol=D2, settings=OWN),
        ]
    return [*found, made("only here", method="x2", AP=30.0)]


def test_a_row_is_compared_with_the_baseline_of_its_engine() -> None:
    groups = by_row(rows())
    assert bases_of(groups) == {
        **dict.fromkeys(("baseline", "RFS", "BAGS", "tau", "only here"), "baseline"),
        **dict.fromkeys(("baseline d2", "RFS d2", "BAGS d2", "tau d2"), "baseline d2"),
    }
    assert differences(groups["RFS d2"], groups["baseline"]) == {}
    deltas = {line["row"]: line["delta"].get("AP", {}).get("mean") for line in to_json(rows())}
    assert (deltas["RFS"], deltas["RFS d2"], deltas["tau d2"]) == (2.0, 3.0, -2.0)
    made_table = table(rows(), suite="engines")
    assert {line.row: line.delta == {} for line in made_table.lines}["baseline d2"]
    assert "on engine detectron2, so compared with baseline d2: RFS d2, BAGS d2, tau d2" in made_table.footnotes


def test_without_a_baseline_of_its_own_it_has_no_difference() -> None:
    alone = [made("baseline", AP=20.0), made("RFS d2", method="rfs", AP=13.0, protocol=D2, settings=OWN)]
    made_table = table(alone, suite="engines")
    assert {line.row: line.delta for line in made_table.lines}["RFS d2"] == {}
    assert "on engine detectron2, so without a difference from baseline: RFS d2" in made_table.footnotes


def test_how_far_two_engines_agree() -> None:
    """20 22 21 19 and 10 13 9 8: of the six pairs one (baseline and BAGS) is turned round, so tau = (5 - 1) / 6."""
    (found,) = engines.sentences(by_row(rows()))
    assert found.startswith("order by AP of the 4 rows that torchvision and detectron2 have: Kendall tau-b +0.67 (")
    assert found.endswith("Gain over the own baseline of another sign: BAGS +1.0, BAGS d2 -1.0")


@pytest.mark.parametrize("kept", [2, 4])
def test_two_rows_are_no_order(kept: int) -> None:
    assert not list(engines.sentences(by_row(rows()[:kept])))


def test_rows_with_other_settings_are_no_pair() -> None:
    both = rows()
    both[3] = made("RFS d2", method="rfs", AP=13.0, protocol=D2, settings={**OWN, "t": 0.5})
    (found,) = engines.sentences(by_row(both))
    assert "of the 3 rows" in found
