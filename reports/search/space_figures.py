"""Figures over the dimensions of a search: slices, contour, importances, and metrics over a setting in the form of
Figures 4 and 5 of arXiv 2006.10408. Separate from those over its trials (reports/search/trial_figures.py). Each
returns the drawing, or why there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.search.view import Trial
from bench.suite.search import ROW, Dimension, Scalar
from reports.figures.canvas import EDGE, Drawing, blank, calm, finish, handles, palette, tidy
from reports.figures.lettering import inches
from reports.figures.scene import Scene
from reports.figures.sweep import MARGIN, sweep
from reports.load import RowResult
from reports.search.searched import Searched, chosen_text, is_numeric
from reports.search.trial_figures import axis_name, mark_size, stars
from reports.settings import ABSENT, Scale, round_numbers, setting, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

PANELS_A_LINE = 3
FEWEST = 10  # points of a contour between which values are interpolated
FLAT = 0.02  # breadth of a cloud of points to its length: below, they lie on a line
FEW = 7  # values that are written on an axis themselves
GAP_IN = 0.1  # from a name on an axis to the next
MOST_PANELS = 24


@dataclass(frozen=True)
class Place:
    """Where the values of a dimension lie on an axis: numbers at themselves, or at their logarithm; others one beside
    the other.

    Attributes:
        name: of the dimension.
        low, high: ends of the axis.
        ticks: text -> place.
        log: whether places are logarithms.
        choices: text -> place; empty for a range.
    """

    name: str
    low: float
    high: float
    ticks: Mapping[str, float]
    log: bool
    choices: Mapping[str, float]

    def of(self, value: Scalar) -> float:
        if self.choices:
            return self.choices[text(value)]
        assert isinstance(value, int | float)
        return math.log10(value) if self.log else float(value)

    def dress(self, axis: Axis, room: float) -> None:
        """Label and ticks; names that find no room beside one another on so many inches of room are turned."""
        needed = sum(inches([name]) + GAP_IN for name in self.choices)
        turned: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if needed > room else {}
        axis.set_ticks(list(self.ticks.values()), list(self.ticks), fontsize=8, **turned)
        axis.set_label_text(f"{self.name}{', log axis' if self.log else ''}", fontsize=9)

    def limits(self) -> tuple[float, float]:
        gap = MARGIN * ((self.high - self.low) or 1.0)
        return self.low - gap, self.high + gap


def place(name: str, dimension: Dimension) -> Place:
    """Of a dimension."""
    if dimension.choices:
        texts = {text(choice): float(i) for i, choice in enumerate(dimension.choices)}
        return Place(name, -0.4, len(texts) - 0.6, texts, False, texts)
    assert dimension.low is not None
    assert dimension.high is not None
    numbers = round_numbers(dimension.low, dimension.high, log=dimension.log)
    at = math.log10 if dimension.log else float
    ticks = {name: at(value) for name, value in numbers.items()}
    return Place(name, at(dimension.low), at(dimension.high), ticks, dimension.log, {})


def slices(found: Searched) -> Drawing | str:
    """The objective over each dimension, a panel each; trials that lack it are left out of its panel."""
    used = [name for name in found.dimensions if any(name in trial.chosen for trial in found.complete)]
    if not used:
        return "no trial is complete"
    if len(used) > MOST_PANELS:
        used = sorted(used, key=lambda name: -found.importances.get(name, 0.0))[:MOST_PANELS]
    columns = min(len(used), PANELS_A_LINE)
    deep = -(-len(used) // columns)
    panel = (6.6, 3.1) if columns == 1 else (3.5, 2.8)
    figure, every = blank(max(6.6, panel[0] * columns), panel[1] * deep, deep, columns)
    for spare in every[len(used) :]:
        spare.remove()
    legend: dict[str, Any] = {}
    table = []
    for number, (name, axes) in enumerate(zip(used, every, strict=False)):
        where = place(name, found.dimensions[name])
        having = [trial for trial in found.complete if name in trial.chosen]
        _slice(axes, found, having, where)
        where.dress(axes.xaxis, panel[0] - 0.9)
        axes.set_xlim(*where.limits())
        calm(axes)
        axes.set_ylabel(axis_name(found, found.objective) if number % columns == 0 else "", fontsize=9)
        axes.tick_params(axis="y", labelsize=8)
        tidy(axes)
        legend |= handles(axes)
        table += [(name, trial.number, text(trial.chosen[name]), trial.values[0]) for trial in having]
    pruned = len(found.of_state("pruned"))
    left_out = f" {pruned} pruned trials were not trained to their end and are left out." if pruned else ""
    finish(figure, legend, found.caption(f"Each mark is a complete trial.{left_out}"), None)
    return Drawing(figure, ("dimension", "trial", "value", found.objective), tuple(table))


def _slice(axes: Axes, found: Searched, having: Sequence[Trial], where: Place) -> None:
    """The marks of a panel, a colour for each row that trials start from."""
    for index, label in enumerate(found.rows):
        of = [trial for trial in having if found.view.row_of(trial) == label]
        if of:
            axes.plot(
                [where.of(t.chosen[where.name]) for t in of], [t.values[0] for t in of], marker="o", linestyle="none",
                markersize=mark_size(len(having)), color=palette()[index % 10], alpha=0.8, label=label, **EDGE,
            )  # fmt: skip
    best = [trial for trial in found.view.finals() if where.name in trial.chosen]
    stars(axes, found, [(where.of(t.chosen[where.name]), t.values[0]) for t in best])
    if (own := _untouched(found, where)) is not None:
        axes.axvline(own, color="0.35", linestyle=(0, (3, 2)), linewidth=1.0, label="untouched row")


def _untouched(found: Searched, where: Place) -> float | None:
    """Where the untouched row lies on an axis: if there is one row, it has the setting, and the axis has its value."""
    if len(found.rows) > 1:
        return None
    value = setting(found.view.space.rows[found.rows[0]].settings, where.name)
    if value is ABSENT or (where.choices and text(value) not in where.choices):
        return None
    if not where.choices and (not isinstance(value, int | float) or isinstance(value, bool)):
        return None
    if where.log and value <= 0:
        return None
    at = where.of(value)
    return at if where.low <= at <= where.high else None


def importance(found: Searched) -> Drawing | str:
    """The share of each dimension as a bar."""
    if len(found.dimensions) < 2:
        return "there is one dimension"
    if not found.importances:
        return "too few complete trials, or none better than the others by its settings"
    names = list(found.importances)
    figure, (axes,) = blank(6.6, 0.9 + 0.32 * len(names))
    axes.barh(
        range(len(names)), [100 * found.importances[name] for name in names], 0.7, color=palette()[0], linewidth=0
    )
    for y, name in enumerate(names):
        share = 100 * found.importances[name]
        axes.annotate(f"{share:.0f} %", (share, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 112)
    axes.set_xlabel(f"importance for {found.objective} on {found.view.measured_on} (%)", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    tidy(axes, "x")
    shows = (
        f"Share of each dimension in what parts the best of {len(found.complete)} complete trials from the others "
        "(PED-ANOVA, arXiv 2304.10255)."
    )
    finish(figure, {}, found.caption(shows), None)
    return Drawing(figure, ("dimension", "share"), tuple(found.importances.items()))


def contour(found: Searched) -> Drawing | str:
    """The objective over the two most important dimensions of numbers, interpolated where there are points enough."""
    numeric = found.numeric()
    names = [name for name in found.importances if name in numeric]
    names += [name for name in numeric if name not in names]
    if len(names) < 2:
        return "it needs two dimensions of numbers" if found.complete else "no trial is complete"
    label, having, (x, y) = _densest(found, names)
    if not having:
        return "no complete trial has two dimensions of numbers"
    across, up = (_as_numbers(place(name, found.dimensions[name]), found.dimensions[name]) for name in (x, y))
    points = _means((across.of(t.chosen[x]), up.of(t.chosen[y]), t.values[0]) for t in having)
    figure, (axes,) = blank(6.2, 4.2)
    filled = _filled(axes, points, across, up)
    if filled is None:
        coloured: Any = axes.scatter(
            [u for u, _, _ in points], [v for _, v, _ in points], s=45, c=[z for _, _, z in points], cmap="viridis",
            edgecolors="0.15", linewidths=0.5, zorder=3,
        )  # fmt: skip
    else:
        coloured = filled
        axes.plot(
            [u for u, _, _ in points], [v for _, v, _ in points], marker="o", linestyle="none", markersize=3.5,
            markerfacecolor="white", markeredgecolor="0.15", markeredgewidth=0.6, zorder=3,
        )  # fmt: skip
    across.dress(axes.xaxis, math.inf)
    up.dress(axes.yaxis, math.inf)
    axes.set_xlim(*across.limits())
    axes.set_ylim(*up.limits())
    best = [trial for trial in found.view.finals() if trial in having]
    stars(axes, found, [(across.of(t.chosen[x]), up.of(t.chosen[y])) for t in best])
    bar = figure.colorbar(coloured, ax=axes)
    bar.set_label(axis_name(found, found.objective), fontsize=9)
    bar.ax.tick_params(labelsize=8)
    whose = f" of {label}" if len(found.rows) > 1 else ""
    shows = f"Interpolated between the complete trials{whose}, the white marks."
    if filled is None:
        shows = f"Each mark is a complete trial{whose}; too few, or too much in line, to interpolate."
    finish(figure, handles(axes), found.caption(shows), None)
    lines = tuple((t.number, t.chosen[x], t.chosen[y], t.values[0]) for t in having)
    return Drawing(figure, ("trial", x, y, found.objective), lines)


def _densest(found: Searched, names: Sequence[str]) -> tuple[str, list[Trial], tuple[str, str]]:
    """The first pair of dimensions, by importance, that trials of one row have together; of rows, that with most."""
    pairs = [(a, b) for i, b in enumerate(names) for a in names[:i]]
    for pair in pairs:
        of = {
            label: [t for t in found.complete if found.view.row_of(t) == label and all(n in t.chosen for n in pair)]
            for label in found.rows
        }
        label, having = max(of.items(), key=lambda one: len(one[1]))
        if having:
            return label, having, pair
    return "", [], pairs[0]


def _as_numbers(where: Place, dimension: Dimension) -> Place:
    """Choices that are numbers lie where they are."""
    if not dimension.choices:
        return where
    values = sorted(float(choice) for choice in dimension.choices if isinstance(choice, int | float))
    ticks = {f"{value:g}": value for value in values}
    return replace(where, low=values[0], high=max(values[-1], values[0] + 1e-9), ticks=ticks, choices={})


def _means(points: Any) -> list[tuple[float, float, float]]:
    """One value for each place."""
    found: dict[tuple[float, float], list[float]] = {}
    for x, y, z in points:
        found.setdefault((x, y), []).append(z)
    return [(x, y, sum(zs) / len(zs)) for (x, y), zs in found.items()]


def _filled(axes: Axes, points: Sequence[tuple[float, float, float]], across: Place, up: Place) -> Any:
    """A filled contour between the points; None where there are too few, they lie on a line, or all are alike."""
    import numpy as np

    if len(points) < FEWEST:
        return None
    table = np.array(points)
    sides = np.array([across.high - across.low, up.high - up.low])
    shape = (table[:, :2] - table[:, :2].mean(axis=0)) / sides
    long, short = np.linalg.svd(shape, compute_uv=False)
    if short < FLAT * max(long, 1e-12) or np.ptp(table[:, 2]) < 1e-9:
        return None
    from matplotlib.tri import Triangulation

    triangles = Triangulation(shape[:, 0], shape[:, 1]).triangles  # of sides of one length: not of units
    mesh = Triangulation(table[:, 0], table[:, 1], triangles)
    return axes.tricontourf(mesh, table[:, 2], levels=9, cmap="viridis", alpha=0.9)


def curves(found: Searched) -> dict[str, Drawing | str]:
    """Dimension -> the metrics over it, as the sweep of a suite draws them: for each dimension of numbers where there
    is one row, else for the only one."""
    names = found.numeric()
    if not names:
        return {"": "no dimension has numbers alone"}
    if len(found.rows) > 1 and len(names) > 1:
        return {"": f"{len(names)} dimensions of numbers vary over {len(found.rows)} rows"}
    return {name: _curve(found, name) for name in names}


def _curve(found: Searched, name: str) -> Drawing | str:
    having = {f"trial {trial.number}": trial for trial in found.complete if name in trial.chosen}
    results = [_alone(found, having[r.record.row], r, name) for r in found.trials if r.record.row in having]
    if not results:
        return "no trial is complete"
    others = [other for other in found.dimensions if other not in (name, ROW)]
    metrics = ["AP", *(f"AP{i + 1}" for i in range(len(found.edges) + 1))]
    shows = "Each mark is a trial, with one sample standard deviation over its seeds where it has several."
    if others:
        shows += f" Not joined: {', '.join(others)} differ{'s' * (len(others) == 1)} between the trials too."
    if found.winner is not None and name in found.winner.chosen:
        shows += f" The winner is trial {found.winner.number}: {chosen_text(found.winner, 4)}."
    drawing = sweep(
        Scene(results, list(having), found.edges, found.caption(shows)), name, metrics,
        by=[ROW] if len(found.rows) > 1 else [], joined=not others, split=found.view.measured_on,
        where=_scale(found.dimensions[name], [trial.chosen[name] for trial in having.values()]),
    )  # fmt: skip
    return drawing or f"the records lack the setting {name}"


def _alone(found: Searched, trial: Trial, result: RowResult, name: str) -> RowResult:
    """With one setting alone, and the row that the trial starts from, by which lines are told apart."""
    settings: dict[str, Any] = {ROW: found.view.row_of(trial)}
    value = setting(result.record.settings, name)
    if value is not ABSENT:
        for word in reversed(name.split(".")):
            value = {word: value}
        settings |= value
    return replace(result, record=result.record.model_copy(update={"settings": settings}))


def _scale(dimension: Dimension, values: Sequence[Scalar]) -> Scale | None:
    """The axis of a range; None of choices, which lie as the sweep of a suite has them."""
    if not is_numeric(dimension) or dimension.choices:
        return None
    assert dimension.low is not None
    assert dimension.high is not None
    positions = {text(value): float(value) for value in values if isinstance(value, int | float)}
    numbers = round_numbers(dimension.low, dimension.high, log=dimension.log)
    few = dimension.values() is not None and len(positions) <= FEW
    return Scale(positions, "log" if dimension.log else "linear", ticks={} if few else numbers)
