"""Metrics over a setting, read back from their Axes; and what a setting is on an axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
from made_records import made
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bench.plan.planning import RowPlan
from reports.figures.canvas import Drawing
from reports.figures.lines import lines, points
from reports.figures.scene import Scene
from reports.figures.sweep import sweep
from reports.load import RowResult
from reports.settings import ABSENT, scale, setting, text


def heads(values: list[Any], method: str = "bags", name: str = "beta", **more: Any) -> list[RowResult]:
    """AP is 20 + 2 * position of the value + seed."""
    return [
        made(f"{method} {value} {more}", seed, method=method, settings={name: value, **more}, AP=20.0 + 2 * i + seed)
        for i, value in enumerate(values)
        for seed in (0, 1)
    ]


def drawn(rows: Sequence[RowResult], x: str, metrics: Sequence[str], caption: str = "", **more: Any) -> Drawing:
    drawing = sweep(Scene(rows, caption=caption), x, metrics, **more)
    assert drawing is not None
    return drawing


def named(axes: Axes) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in axes.lines if not str(line.get_label()).startswith("_")}


def ticks(axes: Axes) -> list[str]:
    return [tick.get_text() for tick in axes.get_xticklabels()]


def test_numbers_lie_where_they_are_in_ascending_order() -> None:
    drawing = drawn(heads([8, 0.5, 2]), "beta", ["AP"], caption="suite s")
    (axes,) = drawing.figure.axes
    (line,) = named(axes).values()
    assert list(line.get_xdata()) == [0.5, 2, 8]
    assert list(line.get_ydata()) == [22.5, 24.5, 20.5]
    assert axes.get_xscale() == "linear"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("beta of bags", "box AP (points)")
    assert drawing.figure.get_supxlabel() == "suite s"
    assert not drawing.figure.legends  # one line needs none
    assert drawing.columns == ("row", "beta", "line", "metric", "mean", "sd", "n")
    assert drawing.lines[0] == ("bags 8 {}", "8", "beta", "AP", 20.5, pytest.approx(0.5**0.5), 2)


def test_error_bars_are_one_sd() -> None:
    (axes,) = drawn(heads([1, 2]), "beta", ["AP"]).figure.axes
    (container,) = (c for c in axes.containers if getattr(c, "has_yerr", False))
    (low, high) = container.lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((20.5 - 0.5**0.5, 20.5 + 0.5**0.5))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.1, 1], "linear"),
        ([0.1, 5.0], "log"),  # a factor of 50
        ([0, 0.1, 5.0], "symlog"),
        ([-1, 0.1, 5.0], "linear"),
        ([0.005, 0.01, 0.2], "log"),  # a factor of 40, and two marks on one another
        ([0.9, 0.99, 0.999, 1], "labels"),  # not parted by a log axis either
        ([-1, 0.1, 0.1001, 5.0], "labels"),
        ([0, 0.5, 1, 16], "linear"),
        ([1, 2, "n"], "labels"),
        ([True, False], "labels"),
        ([1.0, math.inf], "labels"),
        ([0], "linear"),
    ],
)
def test_what_kind_of_axis(values: list[Any], kind: str) -> None:
    assert scale(values).kind == kind
    (axes,) = drawn(heads(values), "beta", ["AP"]).figure.axes
    assert axes.get_xscale() == ("linear" if kind == "labels" else kind)
    low, high = axes.get_xlim()
    assert all(low < x < high for x in scale(values).positions.values())


def test_words_are_spaced_equally_in_row_order() -> None:
    (axes,) = drawn(heads([0.5, 1, 8, "n", "all"]), "beta", ["AP"]).figure.axes
    (line,) = named(axes).values()
    assert list(line.get_xdata()) == [0, 1, 2, 3, 4]
    assert ticks(axes) == ["0.5", "1", "8", "n", "all"]


def test_crowded_numbers_are_spaced_equally_and_ascend() -> None:
    (axes,) = drawn(heads([1, 0.9, 0.999, 0.99]), "beta", ["AP"]).figure.axes
    (line,) = named(axes).values()
    assert list(line.get_xdata()) == [0, 1, 2, 3]
    assert list(line.get_ydata()) == [22.5, 26.5, 24.5, 20.5]
    assert ticks(axes) == ["0.9", "0.99", "0.999", "1"]


def test_ticks_make_room_for_one_another() -> None:
    (axes,) = drawn(heads([0, 0.5, 1, 1.5, 16]), "beta", ["AP", "AP1"]).figure.axes[:1]
    axes.figure.canvas.draw()
    assert ticks(axes) == ["0", "1", "16"]
    boxes = [tick.get_window_extent() for tick in axes.get_xticklabels()]
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_a_line_for_each_value_of_other_settings_or_method() -> None:
    rows = heads([1, 2], background="kept") + heads([1, 2], background="scaled") + heads([1, 2], method="other")
    drawing = drawn(rows, "beta", ["AP", "AP1"], by=["background"])
    assert list(named(drawing.figure.axes[0])) == ["background kept", "background scaled", "no background"]
    assert drawing.figure.legends[0].get_texts()[2].get_text() == "no background"
    both = drawn(rows, "beta", ["AP"], by=["method", "background"])
    assert list(named(both.figure.axes[0])) == [
        "bags, background kept", "bags, background scaled", "other, no background"
    ]  # fmt: skip
    lengths = heads([{"lr": lr, "steps": n} for lr in (0.1, 0.2) for n in (4, 12)], name="schedule")
    assert list(named(drawn(lengths, "schedule.lr", ["AP"], by=["schedule.steps"]).figure.axes[0])) == [
        "steps 4", "steps 12"
    ]  # fmt: skip


def test_rows_at_one_x_are_split_by_what_else_differs() -> None:
    rows = heads([1, 2, 3], background="kept") + heads([1, 2, 3], background="scaled")
    rows += heads([3], method="select", rule="paper")
    (axes,) = drawn(rows, "beta", ["AP"]).figure.axes
    assert {name: list(line.get_xdata()) for name, line in named(axes).items()} == {
        "background kept": [1, 2, 3],
        "background scaled": [1, 2, 3],
        "select 3 {'rule': 'paper'}": [3],  # alone: by its label
    }
    assert [line.get_linestyle() for line in named(axes).values()] == ["-", "--", "None"], "a point alone has no line"
    (axes,) = drawn(rows[:6] + rows[-2:], "beta", ["AP"]).figure.axes
    assert list(named(axes)) == ["beta", "select 3 {'rule': 'paper'}"]
    lengths = heads([{"lr": lr, "steps": n} for lr in (0.1, 0.2) for n in (4, 12)], name="schedule")
    assert list(named(drawn(lengths, "schedule.lr", ["AP"]).figure.axes[0])) == ["steps 4", "steps 12"]


def test_rows_without_the_setting_are_dashed_lines_where_they_are_named() -> None:
    rows = [made("baseline", AP=17.0, AP1=None), *heads([1, 2])]
    labels = ["baseline", *dict.fromkeys(r.record.row for r in rows[1:])]
    drawing = drawn(rows, "beta", ["AP", "AP1"], labels=labels)
    line = named(drawing.figure.axes[0])["baseline"]
    assert set(line.get_ydata()) == {17.0}
    assert line.get_linestyle() == "--"
    assert "baseline" not in named(drawing.figure.axes[1])  # no AP1
    assert ("baseline", None, "reference", "AP", 17.0, None, 1) in drawing.lines
    assert ("baseline", None, "reference", "AP1", None, None, 0) in drawing.lines
    assert "baseline" not in named(drawn(rows, "beta", ["AP"]).figure.axes[0])
    beside = drawn(rows, "beta", ["AP"], labels=["baseline"])  # only references are named: beside the whole sweep
    assert list(named(beside.figure.axes[0])) == ["beta", "baseline"]
    assert list(named(beside.figure.axes[0])["beta"].get_xdata()) == [1, 2]


def test_a_missing_number_breaks_the_line_and_leaves_a_dash() -> None:
    rows = [r for r in heads([1, 2, 3, 4]) if r.record.settings["beta"] != 2]
    planned = [RowPlan("bags 2", 0, "bags", {"beta": 2}, None), RowPlan("bags 9", 0, "bags", {"beta": 9}, None)]
    drawing = drawn(rows, "beta", ["AP"], planned=planned)
    (axes,) = drawing.figure.axes
    (line,) = named(axes).values()
    assert list(line.get_xdata()) == [1, 2, 3, 4, 9]
    assert [math.isnan(y) for y in line.get_ydata()] == [False, True, False, False, True]
    assert [(t.get_text(), t.xy[0]) for t in axes.texts] == [("-", 2.0), ("-", 9.0)]  # type: ignore[attr-defined]
    assert axes.get_xlim()[1] > 9
    assert ("bags 2", "2", "beta", "AP", None, None, 0) in drawing.lines


def test_nested_settings() -> None:
    rows = heads([{"lr": 0.02}, {"lr": 0.2}, {"steps": 9}], name="schedule")
    (axes,) = drawn(rows, "schedule.lr", ["AP"]).figure.axes
    assert list(next(iter(named(axes).values())).get_xdata()) == [0.02, 0.2]  # steps 9 has no lr of its own
    assert setting({"a": {"float": "inf"}}, "a") == math.inf  # as a record writes it
    assert setting({"a": 1}, "a.b") is ABSENT
    assert setting({"a": None}, "a") is None


def test_settings_as_text() -> None:
    values = [None, True, 8, 0.02, "all", {"images": 57}, [1, 2.5]]
    assert [text(value) for value in values] == ["none", "true", "8", "0.02", "all", "images 57", "1, 2.5"]


def test_small_differences_look_small() -> None:
    rows = [made(f"b{b}", settings={"beta": b}, AP=20.0 + b / 1000) for b in (1, 2)]
    low, high = drawn(rows, "beta", ["AP"]).figure.axes[0].get_ylim()
    assert high - low >= 1.0


def test_whiskers_below_zero_are_not_cut() -> None:
    """AP 0.1, 0.3, 0.5 and AP 0, 0, 0.9: one sd reaches down to 0.3 - 0.52."""
    rows = [made("b1", seed, settings={"beta": 1}, AP=ap) for seed, ap in enumerate((0.0, 0.0, 0.9))]
    rows += [made("b2", seed, settings={"beta": 2}, AP=ap) for seed, ap in enumerate((0.1, 0.3, 0.5))]
    low, high = drawn(rows, "beta", ["AP"]).figure.axes[0].get_ylim()
    assert low < 0.3 - 0.519
    assert high > 0.3 + 0.519


def test_a_line_beside_single_rows_is_named_by_what_it_has_not_of_them() -> None:
    own = [made(f"tau={tau}", method="tau_norm", settings={"tau": tau, "background": "scaled"}) for tau in (0.5, 1.0)]
    kept = made("kept", method="tau_norm", settings={"tau": 1.0, "background": "kept"})
    other = made("select", method="tau_norm_select", settings={"tau": 1.0, "rule": "paper"})
    found = lines(points([*own, kept, other], "tau"), "tau", ())
    names = {name: [point.row for point in line] for name, line in found.items()}
    assert names == {"background scaled": ["tau=0.5", "tau=1.0"], "kept": ["kept"], "select": ["select"]}
    by = lines(points([*own, kept], "tau"), "tau", ("method",))
    assert list(by) == ["tau_norm", "kept"]


def test_no_row_has_the_setting() -> None:
    assert sweep(Scene(heads([1])), "tau", ["AP"]) is None


def test_panels_do_not_lie_on_one_another() -> None:
    rows = heads([1, 2, 300], background="kept") + heads([1, 2, 300], background="scaled")
    figure = drawn(rows, "beta", ["AP", "AP1", "AP2", "AP3", "ACC"], by=["background"], caption="run " * 90).figure
    figure.canvas.draw()
    assert len(figure.axes) == 5
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [figure.legends[0].get_window_extent()]
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert all(figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 for box in boxes)


def test_an_axis_that_is_not_to_scale_says_so() -> None:
    """ "n" is no number, so 0, 1, 4 and 16 stand at equal steps beside it; 0, 1 and 2 have those steps."""
    said = drawn(heads([0, 1, 4, 16, "n"]), "beta", ["AP"]).figure.get_supxlabel()
    assert said == "The axis is not to scale: values of beta stand at equal steps."
    assert drawn(heads([0, 1, 2, "n"]), "beta", ["AP"]).figure.get_supxlabel() == ""
    assert drawn(heads(["all", "none"]), "beta", ["AP"]).figure.get_supxlabel() == ""
    assert drawn(heads([1, 100]), "beta", ["AP"]).figure.get_supxlabel() == ""  # a log axis, named so
