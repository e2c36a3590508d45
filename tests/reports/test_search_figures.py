"""Each figure of a search, read back from its Axes, and the axes and importances that they stand on."""

from __future__ import annotations

import itertools
import math

import optuna
import pytest
from made_searches import (
    BAGS,
    BETA,
    EDGES,
    LR,
    STEPS,
    TAU,
    conditional,
    found_of,
    one_dimension,
    space_of,
    trial,
    two_objectives,
    view_of,
    with_rungs,
)
from matplotlib.axes import Axes

from bench.search.study import Study
from bench.search.view import View
from bench.suite.search import Dimension, Search
from reports.figures.canvas import Drawing
from reports.search.searched import Searched
from reports.search.space_figures import contour, curves, importance, slices
from reports.search.trial_figures import history, intermediate, pareto
from reports.settings import round_numbers


def drawn(drawing: Drawing | str) -> Drawing:
    assert isinstance(drawing, Drawing), drawing
    drawing.figure.canvas.draw()
    return drawing


def points(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    return {
        str(line.get_label()): list(zip(map(float, line.get_xdata()), map(float, line.get_ydata()), strict=True))  # type: ignore[arg-type]
        for line in axes.lines
    }


def check_apart(drawing: Drawing) -> None:
    """Nothing lies on anything else, and all is inside of the figure."""
    figure = drawing.figure
    figure.canvas.draw()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [legend.get_window_extent() for legend in figure.legends]
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]  # type: ignore[union-attr,arg-type]
    assert all(figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 for box in boxes)  # type: ignore[union-attr]
    for axes in figure.axes:
        ticks = [t.get_window_extent() for t in axes.get_xticklabels() if t.get_text() and not t.get_rotation()]
        assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(ticks))


# -- figures


def test_history() -> None:
    drawing = drawn(history(found_of(with_rungs())))
    (axes,) = drawing.figure.axes
    lines = points(axes)
    assert lines["complete"] == [(0, 24.0), (2, 23.0)]
    assert lines["pruned, at its last rung"] == [(1, 11.0), (3, 17.0)]
    assert lines["best so far"] == [(0, 24.0), (2, 24.0), (4, 24.0)]
    assert lines["winner"] == [(0, 24.0)]
    assert axes.get_ylabel() == "box AP on tune (points)"
    assert "without a value: 1 running" in drawing.figure.get_supxlabel().replace("\n", " ")
    assert drawing.lines[3] == (3, "pruned", None, 17.0)
    check_apart(drawing)


def test_the_best_so_far_never_falls() -> None:
    (axes,) = drawn(history(found_of(one_dimension()))).figure.axes
    assert [y for _, y in points(axes)["best so far"]] == [23.0, 23.0, 24.5, 24.5, 24.5]


def test_a_slice_for_each_dimension_of_those_that_have_it() -> None:
    drawing = drawn(slices(found_of(conditional())))
    panels = {axes.get_xlabel(): axes for axes in drawing.figure.axes}
    assert set(panels) == {"row", "beta, log axis", "tau", "trainable", "schedule.lr, log axis", "schedule.steps"}
    assert set(points(panels["tau"])) - {"winner"} == {"tau-norm"}
    assert {x for x, _ in points(panels["trainable"])["BAGS"]} == {0.0, 1.0}
    assert [tick.get_text() for tick in panels["trainable"].get_xticklabels()] == ["classifier", "head"]
    assert min(x for x, _ in points(panels["schedule.lr, log axis"])["BAGS"]) >= math.log10(0.002)
    assert len(points(panels["schedule.steps"])["BAGS"]) == 12
    check_apart(drawing)
    (alone,) = drawn(slices(found_of(one_dimension()))).figure.axes
    assert points(alone)["untouched row"][0][0] == math.log10(8.0)
    assert points(alone)["winner"] == [(math.log10(2.0), 24.5)]


def test_names_on_an_axis_find_room() -> None:
    names = tuple(f"a long name, number {i}" for i in range(6))
    view = view_of([trial(i, {"beta": 1.0 + i, "trainable": name}, 20.0 + i) for i, name in enumerate(names)],
                   space_of({"beta": BETA, "trainable": Dimension(choices=names)}))  # fmt: skip
    check_apart(drawn(slices(Searched(view, [], [], "made", {}, {}, EDGES))))


def test_a_contour_between_enough_points() -> None:
    found = found_of(conditional(), {"schedule.steps": 0.5, "row": 0.3, "schedule.lr": 0.2})
    drawing = drawn(contour(found))
    axes, bar = drawing.figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("schedule.steps", "schedule.lr, log axis")
    assert bar.get_ylabel() == "box AP on tune (points)"
    caption = drawing.figure.get_supxlabel().replace("\n", " ")
    assert "Interpolated between the complete trials of tau" in caption  # -norm: 13 of them, 12 of BAGS
    assert len(drawing.lines) == 13
    check_apart(drawing)


def two_numbers(values: list[tuple[float, float]]) -> View:
    trials = [trial(i, {"beta": b, "schedule.lr": lr}, 20.0 + i) for i, (b, lr) in enumerate(values)]
    return view_of(trials, space_of({"beta": BETA, "schedule.lr": LR}))


@pytest.mark.parametrize(
    ("values", "filled"),
    [
        ([(1.0 + i, 0.01 * (1 + i * 7 % 5)) for i in range(9)], False),  # few
        ([(2.0**i, 0.003 * 1.4**i) for i in range(-1, 5) for _ in (0, 1)], False),  # on a line, twice each
        ([(2.0 ** (i / 4), 0.003 * 1.2**i) for i in range(12)], False),  # on a line
        ([(1.0 + i, 0.01 * (1 + i * 7 % 5)) for i in range(12)], True),
    ],
)
def test_too_few_points_or_on_a_line_are_not_interpolated(values: list[tuple[float, float]], filled: bool) -> None:
    caption = drawn(contour(found_of(two_numbers(values)))).figure.get_supxlabel().replace("\n", " ")
    assert ("Interpolated" in caption) == filled
    assert ("too few, or too much in line, to interpolate" in caption) != filled


def test_importances_as_bars() -> None:
    drawing = drawn(importance(found_of(conditional(), {"schedule.lr": 0.75, "tau": 0.25})))
    (axes,) = drawing.figure.axes
    assert [bar.get_width() for bar in axes.patches] == [75.0, 25.0]  # type: ignore[attr-defined]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["schedule.lr", "tau"]
    assert (
        importance(found_of(conditional())) == "too few complete trials, or none better than the others by its settings"
    )
    assert importance(found_of(one_dimension(), {"beta": 1.0})) == "there is one dimension"
    check_apart(drawing)


def test_a_front_is_joined_and_the_dominated_are_grey() -> None:
    drawing = drawn(pareto(found_of(two_objectives())))
    lines = points(drawing.figure.axes[0])
    assert lines["Pareto front"] == [(7.0, 31.0), (8.0, 30.0), (10.0, 29.0)]
    assert lines["dominated"] == [(7.5, 29.5), (6.0, 28.0)]
    assert sorted(lines["finals"]) == lines["Pareto front"]
    assert [text.get_text() for text in drawing.figure.axes[0].texts] == ["2", "0", "1"]
    assert drawing.columns == ("trial", "AP1", "AP4", "on the front")
    assert pareto(found_of(one_dimension())) == "the search has one objective"
    check_apart(drawing)


def test_a_line_over_the_rungs_for_each_trial() -> None:
    drawing = drawn(intermediate(found_of(with_rungs())))
    (axes,) = drawing.figure.axes
    ends = [list(map(float, line.get_ydata())) for line in axes.lines if len(line.get_xdata()) > 1]  # type: ignore[arg-type]
    assert ends == [[15.0, 21.0, 24.0], [14.0, 20.0, 23.0], [14.0, 17.0]]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["100", "300", "end"]
    legend = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert legend == ["winner", "complete", "pruned", "running"]
    assert (0, "complete", 100, 15.0) in drawing.lines
    assert (0, "complete", None, 24.0) in drawing.lines
    assert intermediate(found_of(one_dimension())) == "the search has no rungs"
    check_apart(drawing)


def test_a_curve_has_the_form_of_figures_4_and_5() -> None:
    (drawing,) = curves(found_of(one_dimension())).values()
    figure = drawn(drawing).figure
    assert [axes.get_ylabel() for axes in figure.axes] == [
        f"box {metric} on tune (points)" for metric in ("AP", "AP1", "AP2", "AP3", "AP4")
    ]
    assert figure.axes[1].get_title() == "1-9 training instances"
    (line,) = (line for line in figure.axes[0].lines if line.get_label() == "beta")
    assert list(line.get_xdata()) == [0.5, 2.0, 8.0, 32.0]
    assert list(line.get_ydata()) == [20.0, 24.5, 23.0, 22.25]
    assert line.get_linestyle() == "-"
    assert figure.axes[0].get_xscale() == "log"
    caption = figure.get_supxlabel().replace("\n", " ")
    assert "measured on `tune`, 356 of the training images" in caption
    assert "no trial was measured on val" in caption
    assert "The winner is trial 2: beta=2." in caption
    assert [text.get_text() for text in figure.axes[4].texts] == ["-"] * 4  # AP4 is missing
    check_apart(drawn(drawing))


def test_trials_that_differ_in_more_are_not_joined() -> None:
    found = found_of(two_numbers([(1.0, 0.01), (2.0, 0.02), (4.0, 0.01), (2.0, 0.05)]))
    both = curves(found)
    assert list(both) == ["beta", "schedule.lr"]
    axes = drawn(both["schedule.lr"]).figure.axes[0]
    (line,) = (line for line in axes.lines if line.get_label() == "schedule.lr")
    assert line.get_linestyle() == "None"
    assert sorted(zip(line.get_xdata(), line.get_ydata(), strict=True)) == [
        (0.01, 20.0), (0.01, 22.0), (0.02, 21.0), (0.05, 23.0)
    ]  # fmt: skip
    assert curves(found_of(conditional())) == {"": "4 dimensions of numbers vary over 2 rows"}


def test_two_rows_over_one_setting_are_two_lines() -> None:
    space = space_of({"schedule.lr": LR}, (BAGS, TAU))
    trials = [
        trial(i, {"row": ("BAGS", "tau-norm")[i % 2], "schedule.lr": 0.01 * (1 + i // 2)}, 20.0 + i) for i in range(6)
    ]
    (drawing,) = curves(found_of(view_of(trials, space))).values()
    lines = points(drawn(drawing).figure.axes[0])
    assert lines["row BAGS"] == [(0.01, 20.0), (0.02, 22.0), (0.03, 24.0)]
    assert lines["row tau-norm"] == [(0.01, 21.0), (0.02, 23.0), (0.03, 25.0)]


# -- what they stand on


def test_round_numbers_for_an_axis() -> None:
    assert list(round_numbers(0.5, 32, log=True)) == ["0.5", "1", "2", "5", "10", "20"]
    assert list(round_numbers(1e-6, 1, log=True)) == ["1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1", "1"]
    assert list(round_numbers(1e-9, 1e3, log=True)) == ["1e-09", "1e-07", "1e-05", "0.001", "0.1", "10", "1000"]
    assert list(round_numbers(3, 4, log=True)) == ["3", "3.2", "3.4", "3.6", "3.8", "4"]
    assert list(round_numbers(-1, 1, log=False)) == ["-1", "-0.5", "0", "0.5", "1"]


def test_importances_are_of_what_the_best_trials_share() -> None:
    """The best trials lie at one rate and at any length, the worst at one length: PED-ANOVA minimises by itself."""
    space = space_of({"schedule.lr": LR, "schedule.steps": STEPS})
    search = Search(space=dict(space.dimensions), sampler="random", trials=60, round=60)
    study = Study(optuna.create_study(direction="maximize"), "made", search, space)
    assert study.importances() == {}
    for one in study.round():
        rate, steps = (float(str(one.chosen[name])) for name in space.dimensions)
        near = abs(math.log10(rate / 0.02)) < 0.2
        study.complete(one.number, [30.0 + steps / 1e6 if near else 20.0 + min(steps, 600.0) / 100])
        if one.number == 2:
            assert study.importances() == {}  # three trials say nothing
    found = study.importances()
    assert list(found) == ["schedule.lr", "schedule.steps"]
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["schedule.lr"] > 0.5
    assert study.importances() == found
