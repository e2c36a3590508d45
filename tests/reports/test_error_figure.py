"""Error kinds of rows as a figure and as long tables."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from bench.evaluation.error_kinds import Costs, Counts, Group
from reports.figures.errors import confusion_csv, error_costs, to_csv
from reports.figures.scene import Scene
from reports.load import Errors, RowResult
from tests.reports.made_records import made


def group(classification: float | None, unfound: int = 0) -> Group:
    """Two classes, five boxes; 7 classification errors, 3 of them to a more frequent bin and 4 to the same."""
    none = classification is None
    costs = Costs(classification, *[None if none else 0.01] * 5, None if none else 0.2, None if none else 0.3)
    return Group(2, unfound, 5, 3, None if none else 0.5, Counts(7, 1, 2, 3, 4, 2, 4, 3, 0), costs)


def row(label: str, seed: int, rare: float | None) -> RowResult:
    """Of the rarest bin one class is not found, and at seed 1 neither."""
    groups = {"AP": group(0.25), "AP1": group(rare, unfound=1 + seed), "AP2": group(0.1), "APr": group(rare)}
    return replace(made(label, seed, AP=20.0), errors=Errors(groups, ((5, 1, 2), (0, 6, 1), (3, 9, 0))))


ROWS = [row("baseline", 0, 0.4), row("baseline", 1, 0.5), row("BAGS", 0, None), made("no predictions", AP=1.0)]


def test_costs_are_means_over_seeds_in_points() -> None:
    drawing = error_costs(Scene(ROWS, caption="made.", edges=(10,)))
    assert drawing is not None
    found = {line[:3]: line[3:] for line in drawing.lines}
    assert found["baseline", "AP1", "classification"] == (pytest.approx(45), pytest.approx(50**0.5), 2)
    assert found["BAGS", "AP1", "classification"] == (None, None, 0)
    assert found["BAGS", "AP", "missed"] == (1.0, None, 1)
    assert {name for _, name, _ in found} == {"AP", "AP1", "AP2"}  # r/c/f are in the table
    assert not any(label == "no predictions" for label, *_ in found)
    panels = drawing.figure.axes
    assert [axes.get_title() for axes in panels] == [
        "all classes\n(2 classes)", "1-9 training instances\n(2 classes)", "10+ training instances\n(2 classes)"
    ]  # fmt: skip
    assert [axes.get_xlabel() for axes in panels] == ["cost in AP50 (points)", "", ""]
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == ["baseline", "BAGS"]
    assert [text.get_text() for text in panels[1].texts] == ["45.0", *["1.0"] * 5, "1.5", *["-"] * 6, "1"]
    assert panels[1].get_xticklabels()[-1].get_text() == "unfound classes"
    assert found["baseline", "AP1", "classes_unfound"] == (1.5, pytest.approx(0.5**0.5), 2)


def test_without_errors_there_is_no_figure() -> None:
    assert error_costs(Scene([made("baseline", AP=20.0)])) is None
    assert to_csv([made("baseline", AP=20.0)]).count("\n") == 1


def test_every_seed_stands_in_the_table() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(ROWS))))
    one = next(x for x in lines if (x["row"], x["seed"], x["group"], x["kind"]) == ("baseline", "1", "AP1", "missed"))
    assert one == {
        "row": "baseline", "seed": "1", "group": "AP1", "kind": "missed", "count": "2", "cost": "1", "classes": "2",
        "classes_unfound": "2", "boxes": "5", "found": "3", "ap50": "50",
    }  # fmt: skip
    of = {x["kind"]: (x["count"], x["cost"]) for x in lines if (x["row"], x["group"]) == ("BAGS", "APr")}
    assert of["to_more_frequent"] == ("3", "")
    assert of["false_positives"] == ("", "")
    assert of["classification"] == ("7", "")


def test_what_boxes_are_taken_for() -> None:
    lines = confusion_csv(ROWS[:1]).splitlines()
    assert lines[0] == "row,seed,bin,taken_for,count"
    assert lines[1:] == [
        "baseline,0,1,1,5", "baseline,0,1,2,1", "baseline,0,1,missed,2", "baseline,0,2,1,0", "baseline,0,2,2,6",
        "baseline,0,2,missed,1", "baseline,0,background,1,3", "baseline,0,background,2,9",
    ]  # fmt: skip
