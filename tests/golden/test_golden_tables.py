"""Rendered tables are those that are written down; whoever changes one looks at it and updates the files."""

from __future__ import annotations

import csv
import json

from tests.golden import tables


def test_tables_are_rendered_as_written_down() -> None:
    assert not list(tables.complaints()), "look at them, then: python -m tests.golden.tables --update"


def test_what_is_written_down_has_what_a_table_can_have() -> None:
    """By hand: BAGS over cls-retrain is 30.5 - 28.0; the baseline's AP1 0.25; what is missing is never 0."""
    text = {name: (tables.FOLDER / name).read_text(encoding="utf-8") for name in tables.FORMS}
    lines = {row["row"]: row for row in json.loads(text["table.json"])}
    assert lines["BAGS"]["metrics"]["AP"]["mean"] == 30.5
    assert lines["baseline"]["metrics"]["AP1"]["mean"] == 0.25
    assert lines[tables.HOSTILE]["metrics"].get("AP1", {"mean": None})["mean"] is None
    with (tables.FOLDER / "intervals.csv").open(encoding="utf-8") as file:
        found = [line for line in csv.DictReader(file) if (line["row"], line["metric"]) == ("BAGS", "AP")]
    assert [(line["base"], line["difference"]) for line in found] == [("baseline", "5"), ("cls-retrain", "2.5")]
    with (tables.FOLDER / "results.csv").open(encoding="utf-8") as file:
        rows = {line["row"] for line in csv.DictReader(file)}
    # A spreadsheet takes it for text, not for a formula.
    assert "'" + tables.HOSTILE.replace("\N{RIGHT-TO-LEFT OVERRIDE}", r"\u202e") in rows
    for name in ("table.txt", "table.md", "table.tex"):
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text[name], name
    assert "<b>" not in text["table.md"].replace(r"\<b>", "")
    assert r"golden \<tables> & \$all\$" in text["table.md"]
    assert "no space left" in text["table.txt"]
