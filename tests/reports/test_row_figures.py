"""Figures of a point, curve or grid for each row: head against tail, AP by class, confusion, losses, cost and gain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reports.figures.bars import ap_by_bin, bars
from reports.figures.classes import per_class, smooth
from reports.figures.confusion import confusion, counts, percent
from reports.figures.curves import averaged, curves
from reports.figures.gain import gain
from reports.figures.named_points import PLACES, places
from reports.figures.scene import Scene
from reports.figures.tradeoff import front, tradeoff
from reports.load import Errors, RowResult
from reports.trainings import Training
from tests.reports.made_records import made, made_draws

# Of COUNTS (5, 2000, 50, 300, 1, 150): tail are the classes with 5, 50 and 1 instances.
AP = (9.0, 60.0, 21.0, 40.0, 0.0, None)


def classed(label: str, seed: int = 0, tail: float = 0.0, **metrics: float) -> RowResult:
    """AP of the classes as above, `tail` points more for that with 50 instances."""
    values = [None if ap is None else ap + (tail if j == 2 else 0.0) for j, ap in enumerate(AP)]
    return replace(made(label, seed, **metrics), per_class_ap=values)


def of_engine(engine: str, label: str, tail: float, head: float) -> RowResult:
    """A row with one number for all classes of the tail, and AP of the head."""
    method = "baseline" if label.startswith("baseline") else None
    own = made(label, method=method, protocol={"engine": engine}, AP=head, AP4=head)
    return replace(own, per_class_ap=[tail] * len(AP))


def training(number: int, steps: int, losses: dict[int, float], seconds: float | None = 60.0) -> Training:
    return Training(number, (1,), {step: {"loss": loss} for step, loss in losses.items()}, False, steps, seconds)


def test_the_tail_is_the_mean_over_the_classes_of_the_two_rarest_bins() -> None:
    """(9 + 21 + 0) / 3 = 10; a class that val does not show counts nowhere. 3 points more of one class: 11."""
    rows = [classed("baseline", AP4=60.0), classed("A", tail=3.0, AP4=58.0), classed("B", tail=-3.0, AP4=57.0)]
    drawing = tradeoff(Scene(rows, order=("baseline", "A", "B")))
    assert drawing is not None
    assert drawing.lines == (
        ("baseline", 10.0, None, 60.0, None, 1, "yes"),
        ("A", 11.0, None, 58.0, None, 1, "yes"),
        ("B", 9.0, None, 57.0, None, 1, "no"),
    )
    (axes,) = drawing.figure.axes
    front_line = axes.lines[0]
    assert list(front_line.get_xdata()) == [58.0, 60.0]
    assert list(front_line.get_ydata()) == [11.0, 10.0]
    assert "1-99 training instances" in axes.get_ylabel()
    assert "1000+" in axes.get_xlabel()
    assert {text.get_text() for text in axes.texts} == {"baseline", "A", "B"}
    assert drawing.figure.get_supxlabel().endswith("Hollow: baseline.")


def test_each_engine_has_a_front_and_a_baseline_of_its_own() -> None:
    """Another engine's row above all of them takes nobody from the front."""
    rows = [of_engine("torchvision", "baseline", 10.0, 60.0), of_engine("torchvision", "A", 9.0, 58.0)]
    others = [of_engine("detectron2", "baseline d2", 20.0, 70.0), of_engine("detectron2", "B", 21.0, 65.0)]
    drawing = tradeoff(Scene([*rows, *others]))
    assert drawing is not None
    assert {line[0]: line[-1] for line in drawing.lines} == {
        "baseline": "yes", "A": "no", "baseline d2": "yes", "B": "yes",
    }  # fmt: skip
    said = drawing.figure.get_supxlabel()
    assert "no other of its engine beats in both" in said
    assert said.endswith("Hollow: baseline, baseline d2.")


def test_rows_without_head_or_tail_have_no_point() -> None:
    assert tradeoff(Scene([made("A", AP4=50.0)])) is None  # no AP per class
    assert tradeoff(Scene([classed("A", AP=50.0)])) is None


def test_equal_points_are_both_on_the_front() -> None:
    assert front({"a": (1.0, 2.0), "b": (1.0, 2.0), "c": (0.0, 3.0), "d": (1.0, 1.0)}) == ["c", "a", "b"]


def test_a_name_goes_where_nothing_is() -> None:
    """The neighbour stands up and to the right, where a name goes first; below it is free."""
    found = places({"first": (100.0, 100.0), "second": (112.0, 108.0)}, (300.0, 200.0))
    assert PLACES[found["first"]][:2] == (0.6, -0.6)
    assert PLACES[found["second"]][:2] == (0.6, 0.6)
    (at_the_edge,) = places({"a long name": (299.0, 199.0)}, (300.0, 200.0)).values()
    assert PLACES[at_the_edge][:2] == (-0.6, -0.6)


def test_every_class_is_a_mark_and_the_curve_their_mean_nearby() -> None:
    rows = [classed(label, seed) for label in ("A", "baseline", "B", "C", "D") for seed in (0, 1)]
    drawing = per_class(Scene(rows))
    assert drawing is not None
    assert len(drawing.lines) == 4 * 2 * 5
    assert ("baseline", 1, 2, "b", 2000, 60.0) in drawing.lines
    (axes,) = drawing.figure.axes
    assert [text.get_text() for text in drawing.figure.legends[0].get_texts()] == ["baseline", "A", "B", "C"]
    assert axes.get_xscale() == "log"
    assert [len(marks.get_offsets()) for marks in axes.collections] == [10] * 4
    assert "Not drawn: D." in drawing.figure.get_supxlabel().replace("\n", " ")
    named = per_class(Scene(rows), labels=("D",))
    assert named is not None
    assert {line[0] for line in named.lines} == {"D"}
    assert per_class(Scene([made("A", AP=1.0)])) is None


def test_the_smooth_is_a_weighted_mean() -> None:
    """Two places a bandwidth of 0.2 decades apart: at the first, weights 1 and exp(-1/2)."""
    xs, ys = smooth(np.array([[1.0, 0.0], [10**0.2, 10.0]]))
    assert xs[0] == 1.0
    assert xs[-1] == pytest.approx(10**0.2)
    weight = np.exp(-0.5)
    assert ys[0] == pytest.approx(10 * weight / (1 + weight))
    assert ys[-1] == pytest.approx(10 / (1 + weight))
    # Far from everything it is the nearest value, never a division by nothing.
    _, far = smooth(np.array([[1.0, 5.0], [1e9, 7.0]]))
    assert far[0] == pytest.approx(5.0)
    assert not np.isnan(far).any()


def test_confusion_is_in_percent_of_the_boxes_of_all_seeds() -> None:
    table = ((1, 0, 1), (0, 6, 0), (4, 4, 0))
    rows = [replace(made("A", seed), errors=Errors({}, table)) for seed in (0, 1)]
    added = counts(rows)
    assert added is not None
    assert added.tolist() == [[2, 0, 2], [0, 12, 0], [8, 8, 0]]
    assert percent(added).tolist() == [[50.0, 0.0, 50.0], [0.0, 100.0, 0.0]]
    drawing = confusion(Scene(rows, edges=(10,)))
    assert drawing is not None
    assert drawing.lines[0] == ("A", "1-9", "1-9", 2, 50.0)
    assert ("A", "1-9", "missed", 2, 50.0) in drawing.lines
    assert len(drawing.lines) == 6
    (axes,) = drawing.figure.axes
    assert [text.get_text() for text in axes.texts] == ["50", "0", "50", "0", "100", "0"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1-9", "10+", "missed"]
    empty = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0]])
    assert np.isnan(percent(empty)[0]).all()
    assert confusion(Scene([made("A")])) is None


def test_losses_go_on_where_the_training_before_ended() -> None:
    chain = [training(1, 100, {10: 4.0, 100: 2.0}), training(2, 50, {25: 3.0, 50: 0.0})]
    drawing = curves(Scene([]), {"A": chain, "B": []})
    assert drawing is not None
    assert drawing.lines == (
        ("A", "training 1", 10, 10, 4.0), ("A", "training 1", 100, 100, 2.0), ("A", "training 2", 25, 125, 3.0),
    )  # fmt: skip
    (line,) = drawing.figure.axes[0].lines
    assert np.isnan(line.get_xdata()[2])  # a gap between two trainings
    assert curves(Scene([]), {"A": []}) is None


def test_losses_are_averaged_in_windows_of_equal_length() -> None:
    """Of 6 steps where the longest chain has 180: 60 * 6 / 180 = 2 windows of 3."""
    points = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 10.0), (6, 20.0)]
    assert averaged(points, 6, 180) == [(3, 2.0), (6, 15.0)]
    assert averaged(points, 6, 6) == points


def test_gain_stands_over_the_minutes_of_the_whole_chain() -> None:
    base, longer = training(1, 10, {}), training(2, 10, {}, seconds=180.0)
    rows = [
        replace(made(label, seed, AP=20.0 + r + seed * r, AP1=1.0), trainings=chain)
        for r, (label, chain) in enumerate({"baseline": (base,), "A": (base, longer)}.items())
        for seed in (0, 1)
    ]
    drawing = gain(Scene(rows))
    assert drawing is not None
    assert drawing.lines[0] == ("A", "baseline", 4.0, 0.0, 2, "AP", 1.5, pytest.approx(0.5**0.5), 2)
    assert drawing.lines[1][5:] == ("AP1", 0.0, 0.0, 2)
    assert drawing.figure.get_supxlabel().endswith("Minutes of the baseline: baseline 1.0.")
    unknown = [replace(row, trainings=(training(1, 10, {}, seconds=None),)) for row in rows]
    assert gain(Scene(unknown)) is None


def test_bars_have_the_interval_of_their_mean() -> None:
    """One seed, normal: draws 19 and 21 have variance 2, so 20 - 1.96 * sqrt(2) to 20 + 1.96 * sqrt(2)."""
    drawn = made_draws({"AP": np.array([19.0, 21.0]), "AP1": np.array([0.0, 2.0])}, {"AP": 80, "AP1": 3}, "v")
    row = replace(made("A", AP=20.0, AP1=1.0), draws=drawn)
    drawing = ap_by_bin(Scene([row], edges=(10,)))
    assert drawing.columns == ("row", "metric", "mean", "sd", "n", "low", "high")
    half = 1.959964 * 2**0.5
    assert drawing.lines[-1] == ("A", "AP", 20.0, None, 1, pytest.approx(20 - half), pytest.approx(20 + half))
    assert drawing.lines[0] == ("A", "AP1", 1.0, None, 1, None, None)  # three images show its classes
    said = drawing.figure.get_supxlabel().replace("\n", " ")
    assert "95 % interval" in said
    assert said.endswith("No interval of AP1: without a line, not without an error.")
    (container,) = [c for c in drawing.figure.axes[0].containers if getattr(c, "has_yerr", False)]
    ((low, high),) = [segment[:, 1] for segment in container.lines[2][0].get_segments()]
    assert (low, high) == pytest.approx((20 - half, 20 + half))
    # A row without draws: the same kind of line for all.
    assert ap_by_bin(Scene([row, made("B", AP=1.0)], edges=(10,))).columns == ("row", "metric", "mean", "sd", "n")


def test_a_caption_explains_no_line_that_is_not_there() -> None:
    """Draws of three images tell no interval: of two seeds the lines are their spread, sqrt(2) about 21."""
    drawn = made_draws({"AP": np.array([19.0, 21.0])}, {"AP": 3}, "v")
    rows = [replace(made("A", seed, AP=20.0 + 2 * seed), draws=drawn) for seed in (0, 1)]
    alone = bars(Scene(rows[:1]), ["AP"]).figure
    assert "Lines:" not in alone.get_supxlabel()
    assert "no value is exact" in alone.get_supxlabel().replace("\n", " ")
    assert not [c for c in alone.axes[0].containers if getattr(c, "has_yerr", False)]
    figure = bars(Scene(rows), ["AP"]).figure
    assert "Lines: one sample standard deviation" in figure.get_supxlabel().replace("\n", " ")
    (container,) = [c for c in figure.axes[0].containers if getattr(c, "has_yerr", False)]
    ((low, high),) = [segment[:, 1] for segment in container.lines[2][0].get_segments()]
    assert (low, high) == pytest.approx((21 - 2**0.5, 21 + 2**0.5))


def test_axes_of_ap_and_of_minutes_begin_at_0() -> None:
    """Of 0.1, and of 0.4 and 1.4: with a margin below them axes began at -0.4."""
    rows = [of_engine("torchvision", label, tail, tail) for label, tail in (("baseline", 0.1), ("A", 0.4))]
    again = replace(made("A", 1, AP=1.4, AP4=1.4), per_class_ap=[1.4] * len(AP))
    drawing = tradeoff(Scene([*rows, again]))
    assert drawing is not None
    (axes,) = drawing.figure.axes
    assert (axes.get_xlim()[0], axes.get_ylim()[0]) == (0.0, 0.0)
    ends = [end for one in axes.collections for segment in one.get_segments() for end in segment.ravel()]
    assert min(ends) >= 0
    assert max(ends) == pytest.approx(0.9 + 0.5**0.5)


def test_marks_have_a_dark_edge() -> None:
    rows = [classed("baseline", AP4=60.0), classed("A", tail=3.0, AP4=58.0)]
    drawing = tradeoff(Scene(rows))
    assert drawing is not None
    marks = [line for line in drawing.figure.axes[0].lines if line.get_marker() not in ("None", "", "|", "_")]
    assert len(marks) == 2
    assert {mark.get_markeredgecolor() for mark in marks} == {"0.15"}


def test_bars_are_told_apart_without_colours() -> None:
    rows = [made(f"row{i}", AP=1.0, AP1=1.0) for i in range(10)]
    (axes,) = ap_by_bin(Scene(rows, edges=(10,))).figure.axes
    hatches = [container.patches[0].get_hatch() for container in axes.containers]
    assert len(set(hatches)) == 10
