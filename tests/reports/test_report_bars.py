"""Bars and the AP of every instance bin, read back from their Axes."""

from __future__ import annotations

import pytest
from made_records import made

from reports.figures.bars import ap_by_bin, bars
from reports.figures.scene import Scene
from reports.load import RowResult


def results(labels: tuple[str, ...] = ("baseline", "BAGS", "NCM-fc"), seeds: int = 2) -> list[RowResult]:
    """AP 20 + row + seed; the third row has no AP1."""
    return [
        made(label, seed, AP=20.0 + r + seed, AP1=None if r == 2 else 5.0, AP2=1.0, AP3=2.0, AP4=50.0)
        for r, label in enumerate(labels)
        for seed in range(seeds)
    ]


def test_bins_are_named_in_training_instances() -> None:
    figure = ap_by_bin(Scene(results(), caption="suite table1", title="Bins")).figure
    (axes,) = figure.axes
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    assert ticks[0] == "AP1: 1-9\ntraining instances"
    assert ticks[-1] == "AP: all classes"
    assert axes.get_ylabel() == "box AP (points)"
    assert figure.get_supxlabel() == "suite table1"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["baseline", "BAGS", "NCM-fc"]
    assert figure.legends[0].get_title().get_text() == "Bins"


def test_a_bin_of_one_count_is_one_number() -> None:
    (axes,) = ap_by_bin(Scene(results(), edges=(1, 2, 10))).figure.axes
    assert [tick.get_text().splitlines()[0] for tick in axes.get_xticklabels()][1:4] == [
        "AP2: 1",
        "AP3: 2-9",
        "AP4: 10+",
    ]


def test_bars_are_the_means_and_a_missing_one_is_a_dash() -> None:
    drawing = ap_by_bin(Scene(results()))
    (axes,) = drawing.figure.axes
    drawn = [container for container in axes.containers if hasattr(container, "patches")]
    heights = [[patch.get_height() for patch in container.patches] for container in drawn]
    assert heights[0] == pytest.approx([5.0, 1.0, 2.0, 50.0, 20.5])
    assert heights[2] == pytest.approx([1.0, 2.0, 50.0, 22.5])  # no bar for AP1
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("-") == 1
    assert sorted(text for text in texts if text != "-") == sorted(
        [*["5.0"] * 2, *["1.0", "2.0", "50.0"] * 3, "20.5", "21.5", "22.5"]
    )
    assert ("NCM-fc", "AP1", None, None, 0) in drawing.lines
    assert ("BAGS", "AP", 21.5, pytest.approx(0.5**0.5), 2) in drawing.lines
    assert len(drawing.lines) == 3 * 5


def test_error_bars_are_one_sd_over_seeds() -> None:
    (axes,) = ap_by_bin(Scene(results())).figure.axes
    errors = [container for container in axes.containers if getattr(container, "has_yerr", False)]
    (low, high) = errors[0].lines[2][0].get_segments()[-1][:, 1]
    assert (low, high) == pytest.approx((20.5 - 0.5**0.5, 20.5 + 0.5**0.5))
    (alone,) = ap_by_bin(Scene(results(seeds=1))).figure.axes
    assert not [c for c in alone.containers if getattr(c, "has_yerr", False)]


def test_many_bars_have_no_numbers_above_them() -> None:
    (axes,) = ap_by_bin(Scene(results(tuple(f"row{i}" for i in range(10))))).figure.axes
    assert [text.get_text() for text in axes.texts] == ["-"]


def test_more_rows_than_colours_lie_in_panels() -> None:
    labels = ("baseline", *(f"row{i}" for i in range(1, 15)))
    drawing = bars(Scene(results(labels), caption="what was run."), ["AP1", "AP"])
    left, right = drawing.figure.axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == list(labels)
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first row is at the top
    assert [patch.get_width() for patch in right.patches] == pytest.approx([20.5 + r for r in range(15)])
    assert [(p.get_y() + p.get_height() / 2) for p in left.patches] == pytest.approx([0, 1, *range(3, 15)])
    assert [text.get_text().strip() for text in left.texts].count("-") == 1
    dashed = [line.get_xdata()[0] for line in right.lines if line.get_linestyle() == "--"]
    assert dashed == [20.5]  # the baseline
    assert drawing.figure.get_supxlabel() == "what was run. Dashed: baseline."
    assert [axes.get_title() for axes in (left, right)] == ["AP1\n1-9 training instances", "AP\nall classes"]
    assert not drawing.figure.legends


def test_no_engine_is_measured_by_the_baseline_of_another() -> None:
    rows = [made("baseline", AP=20.0), *(made(f"row{i}", AP=1.0, protocol={"engine": "detr"}) for i in range(14))]
    drawing = bars(Scene(rows, caption="what was run."), ["AP"])
    assert not [line for line in drawing.figure.axes[0].lines if line.get_linestyle() == "--"]
    assert drawing.figure.get_supxlabel() == "what was run."


def test_panels_that_have_no_metric_are_removed() -> None:
    rows = [made(f"row{i}", AP=1.0) for i in range(12)]
    assert len(bars(Scene(rows), ["AP", "AP50", "AP75", "APr", "APc", "APf", "ACC"]).figure.axes) == 7


@pytest.mark.parametrize("rows", [3, 10, 15])
def test_everything_is_on_the_paper_and_no_label_on_another(rows: int) -> None:
    labels = tuple(f"a-row-of-some-length {i}" for i in range(rows))
    figure = ap_by_bin(Scene(results(labels), caption="what was run; " * 30, title="A title")).figure
    figure.canvas.draw()
    paper = figure.bbox
    boxes = [legend.get_window_extent() for legend in figure.legends]
    boxes += [axes.get_tightbbox() for axes in figure.axes]
    boxes.append(figure._supxlabel.get_window_extent())  # type: ignore[attr-defined]
    for box in boxes:
        assert paper.x0 - 1 <= box.x0 <= box.x1 <= paper.x1 + 1
        assert paper.y0 - 1 <= box.y0 <= box.y1 <= paper.y1 + 1
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert min(axes.get_window_extent().height for axes in figure.axes) > 150
