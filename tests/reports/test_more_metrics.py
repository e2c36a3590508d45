"""Calibration, recall and pooled AP of rows: the long table and the two figures."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from reports.figures.calibration import calibration_curves
from reports.figures.recall import recall_dots
from reports.figures.scene import Scene
from reports.load import RowResult
from reports.more_metrics import to_csv, to_markdown
from tests.reports.made_records import made, made_more


def row(label: str, seed: int = 0, *, reached: float = 0.6, found: float = 0.3, most: int = 60) -> RowResult:
    return replace(made(label, seed, AP=20.0), more=made_more(reached=reached, found=found, most=most))


def without_proposals(label: str) -> RowResult:
    result = row(label)
    assert result.more is not None
    return replace(result, more=replace(result.more, recall=None))


def test_the_long_table() -> None:
    rows = [row("baseline", 1), row("baseline", 0), without_proposals("=1+1"), made("none", AP=1.0)]
    lines = list(csv.DictReader(io.StringIO(to_csv(rows))))
    found = {(x["row"], x["seed"], x["group"], x["metric"]): (x["value"], x["count"]) for x in lines}
    assert found["baseline", "1", "AP", "ECE"] == ("6.25", "40")
    assert found["baseline", "1", "AP", "mean_score"] == ("20", "40")
    assert found["baseline", "1", "AP", "true_positives"] == ("13.75", "40")
    assert found["baseline", "0", "AP1", "AR@300"] == ("60", "8")
    assert found["baseline", "0", "AP1", "AR_detections"] == ("30", "8")
    assert found["baseline", "0", "AP1", "AP_pool"] == ("12.5", "8")
    assert found["baseline", "0", "AP1", "AP_fixed"] == ("37.5", "8")
    assert found["baseline", "0", "AP2", "ECE"] == found["baseline", "0", "AP2", "AP_pool"] == ("", "0")
    assert {metric for label, _, _, metric in found if label == "'=1+1"} == {
        "ECE", "mean_score", "true_positives", "AP_pool", "AP_fixed"
    }  # fmt: skip
    assert not any(label == "none" for label, *_ in found)
    notes = {x["metric"]: x["note"] for x in lines if (x["row"], x["group"]) == ("baseline", "AP")}
    assert notes["AR@100"] == "no image has more than 60"
    assert notes["AP_fixed"].startswith("the best 10000 of a class among the 300 that an image has at most; ")
    assert notes["AP_fixed"].endswith("what these crowd out is lacking")


def test_the_short_table_is_of_all_classes_over_seeds() -> None:
    rows = [row("=1+1|", 0, reached=0.5), row("=1+1|", 1, reached=0.7), without_proposals("old"), made("none", AP=1.0)]
    lines = to_markdown(rows).splitlines()
    assert lines[:4] == ["", "## Beside AP", "", "| row | AP_fixed | AP_pool | ECE | AR@100 |"]  # 60 proposals an image
    assert lines[5:7] == [
        r"| =1+1\| | 50.0 ± 0.0 | 25.0 ± 0.0 | 6.2 ± 0.0 | 60.0 ± 14.1 |", "| old | 50.0 | 25.0 | 6.2 | - |",
    ]  # fmt: skip
    assert "| AR@100 | AR@300 |" in to_markdown([row("x", most=300)])
    assert to_markdown([made("none", AP=1.0)]) == ""


def test_reliability_is_drawn_per_bin_with_its_ece() -> None:
    rows = [row("baseline"), row("BAGS"), made("none", AP=1.0)]
    drawing = calibration_curves(Scene(rows, edges=(10,), caption="made."))
    assert drawing is not None
    assert drawing.lines[:3] == (
        ("baseline", "AP", 1, pytest.approx(5), pytest.approx(2.5), 20),
        ("baseline", "AP", 2, pytest.approx(35), pytest.approx(25), 20),
        ("baseline", "AP1", 1, pytest.approx(5), pytest.approx(2.5), 20),
    )
    panels = drawing.figure.axes
    titles = ["all classes", "1-9 training instances", "10+ training instances"]
    assert [axes.get_title() for axes in panels] == titles
    diagonal, first, second = panels[1].get_lines()
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
    assert diagonal.get_linestyle() == "--"
    assert list(first.get_xdata()) == pytest.approx([5, 35])
    assert list(first.get_ydata()) == pytest.approx([2.5, 25])
    assert first.get_marker() != second.get_marker()  # readable in grey
    assert first.get_linestyle() != second.get_linestyle()
    legends = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in panels]
    assert legends == [["6.2", "6.2"], ["6.2", "6.2"], ["-", "-"]]
    assert [text.get_text() for text in drawing.figure.legends[0].get_texts()] == ["baseline", "BAGS"]
    # A panel in which a row has no detection is as large as the others, and no legend lies on curves.
    drawing.figure.draw_without_rendering()
    widths = [axes.get_position().width for axes in panels]
    assert min(widths) == pytest.approx(max(widths), rel=0.02)
    assert min(widths) > 0.2
    for axes in panels:
        assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0


def test_recall_is_a_mean_over_seeds_beside_that_of_detections() -> None:
    rows = [row("baseline", 0, reached=0.5), row("baseline", 1, reached=0.7), row("BAGS"), without_proposals("old")]
    drawing = recall_dots(Scene(rows, edges=(10,), caption="made."))
    assert drawing is not None
    found = {line[:3]: line[3:] for line in drawing.lines}
    assert found["baseline", "AP1", "AR@1000"] == (pytest.approx(60), pytest.approx(200**0.5), 2)
    assert found["baseline", "AP1", "AR_detections"] == (pytest.approx(30), pytest.approx(0), 2)
    assert found["BAGS", "AP2", "AR@100"] == (None, None, 0)
    assert not any(label == "old" for label, *_ in found)
    assert [text.get_text() for text in drawing.figure.legends[0].get_texts()] == ["AR@100", "detections"]
    assert "No image has more than 60 proposals." in drawing.figure.get_supxlabel().replace("\n", " ")
    marks = drawing.figure.axes[1].collections
    assert [tuple(map(tuple, one.get_offsets())) for one in marks] == [
        ((pytest.approx(60), 0), (pytest.approx(60), 1)), ((pytest.approx(30), 0), (pytest.approx(30), 1)),
    ]  # fmt: skip


@pytest.mark.parametrize(("most", "shown"), [(100, 1), (101, 2), (300, 2), (301, 3), (1000, 3)])
def test_budgets_that_no_image_can_spend_are_not_drawn(most: int, shown: int) -> None:
    drawing = recall_dots(Scene([row("baseline", most=most)]))
    assert drawing is not None
    assert len(drawing.figure.legends[0].get_texts()) == shown + 1


def test_without_them_there_is_no_figure() -> None:
    rows = [made("baseline", AP=20.0)]
    assert calibration_curves(Scene(rows)) is None
    assert recall_dots(Scene(rows)) is None
    assert recall_dots(Scene([without_proposals("old")])) is None
    assert to_csv(rows).count("\n") == 1
