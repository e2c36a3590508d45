"""Metrics over a setting of the rows: beta of BAGS (Figure 4 of arXiv 2006.10408), tau, a learning rate. Separate from
the other figures since it alone reads settings.

One panel per metric. The value axes do not begin at 0: what a setting changes is often a point or two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reports.figures.canvas import EDGE, Drawing, blank, calm, finish, handles, numbers, over, palette, tidy
from reports.figures.lettering import inches
from reports.figures.lines import Point, lines, points
from reports.figures.scene import Scene
from reports.settings import ABSENT, Scale, scale, text
from reports.stats import MISSING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bench.plan.planning import RowPlan

PANELS_A_LINE = 3
MARGIN = 0.07  # of the x axis on either side: marks that are set aside stay inside
MARKERS = "os^DvPX"
ASIDE, WIDEST = 2.5, 8.0  # points between the marks of two lines at one x; between those of the outermost


@dataclass(frozen=True)
class Look:
    """How a line is drawn: its name, the numbers of its colour and of its mark, how far it is set aside (points), and
    matplotlib's style of the line itself ("": by its mark)."""

    name: str
    colour: int
    mark: int
    shift: float
    line: str = ""


def sweep(
    scene: Scene,
    x: str,
    metrics: Sequence[str],
    *,
    by: Sequence[str] = (),
    labels: Sequence[str] = (),
    planned: Sequence[RowPlan] = (),
    where: Scale | None = None,
    joined: bool = True,
    split: str = "",
) -> Drawing | None:
    """Means over seeds against a setting, with 1 sd; a missing one breaks the line and leaves a '-' at its place.

    Args:
        x: the setting, dotted where it is nested (schedule.lr).
        metrics: one panel for each.
        by: settings, or "method": one line for each combination of their values (`reports.figures.lines`).
        labels: rows to draw; of these, rows without the setting are dashed horizontal lines. () takes all that have it;
            rows that all lack it are lines beside all that have it.
        planned: the suite's rows, so that one without a result keeps its place.
        where: of the axis, where the values do not tell it (`reports.settings.scale`).
        joined: whether a line joins the points: not where they differ in more than the setting.
        split: what was measured, for the value axes, where that is not val alone.

    Returns:
        None where no row has the setting.
    """
    chosen = points(scene.rows, x, labels=labels, planned=planned, order=scene.order)
    swept = [point for point in chosen if point.x is not ABSENT]
    if not swept:
        return None
    drawn = dict(sorted(lines(swept, x, by).items(), key=lambda line: len(line[1]) == 1))  # single points last
    apart = f" Marks at one {x} are set apart." if len(drawn) > 1 else ""
    where = where or scale([point.x for point in swept])
    columns = min(len(metrics), PANELS_A_LINE)
    deep = -(-len(metrics) // columns)
    panel = (6.6, 3.3) if columns == 1 else (3.7, 2.7)
    figure, every = blank(max(6.6, panel[0] * columns), panel[1] * deep, deep, columns)
    legend: dict[str, Any] = {}
    for metric, axes in zip(metrics, every, strict=False):
        for look, line in zip(_looks(drawn, by), drawn.values(), strict=True):
            _line(axes, line, metric, where, look if joined else replace(look, line="none"))
        _references(axes, [point for point in chosen if point.x is ABSENT], metric)
        _dress(axes, f"{metric} on {split}" if split else metric, over(metric, scene.edges), panel[0], where)
        axes.set_xlabel(_axis_name(x, by, swept, where), fontsize=9)
        legend |= handles(axes)
    for spare in every[len(metrics) :]:
        spare.remove()
    of = {point.row: name for name, line in drawn.items() for point in line}
    table = [
        (p.row, None if p.x is ABSENT else text(p.x), of.get(p.row, "reference"), m, *numbers(p.cells.get(m, MISSING)))
        for p in chosen
        for m in metrics
    ]
    apart += f" The axis is not to scale: values of {x} stand at equal steps." if where.unequal else ""
    finish(figure, legend if len(legend) > 1 else {}, (scene.caption + apart).strip(), scene.title)
    return Drawing(figure, ("row", x, "line", "metric", "mean", "sd", "n"), tuple(table))


def _looks(drawn: Mapping[str, Sequence[Point]], by: Sequence[str]) -> list[Look]:
    """Lines of several points lie around their x, single points right of them. Where lines differ in two settings the
    first has the colours and the second the marks."""
    pairs = [tuple(name.split(", ", 1)) if len(by) == 2 and ", " in name else (name, name) for name in drawn]
    firsts, seconds = (list(dict.fromkeys(pair[i] for pair in pairs)) for i in (0, 1))
    step = min(ASIDE, WIDEST / max(1, len(drawn) - 1))
    middle = (max(1, sum(len(line) > 1 for line in drawn.values())) - 1) / 2
    return [
        Look(name, firsts.index(first), seconds.index(second), step * (index - middle))
        for index, (name, (first, second)) in enumerate(zip(drawn, pairs, strict=True))
    ]


def _line(axes: Axes, points: Sequence[Point], metric: str, where: Scale, look: Look) -> None:
    at = sorted(points, key=lambda point: where.positions[text(point.x)])
    placed = [(where.positions[text(point.x)], point.cells.get(metric, MISSING)) for point in at]
    colour = palette()[look.colour % 10]
    line = look.line or ("-", "--", "-.")[look.mark % 3] if len(at) > 1 else "none"  # nothing to join: a mark alone
    means = [math.nan if cell.mean is None else cell.mean for _, cell in placed]  # NaN: matplotlib breaks the line
    drawn: list[Any] = axes.plot(
        [x for x, _ in placed], means, marker=MARKERS[look.mark % len(MARKERS)], markersize=5, linewidth=1.4,
        color=colour, linestyle=line, label=look.name, **EDGE,
    )  # fmt: skip
    spread = [(x, cell.mean, cell.sd) for x, cell in placed if cell.mean is not None and cell.sd]
    if spread:
        _, caps, bars = axes.errorbar(
            [x for x, _, _ in spread], [mean for _, mean, _ in spread], [sd for _, _, sd in spread],
            fmt="none", ecolor=colour, elinewidth=1.0, capsize=2.5,
        )  # fmt: skip
        drawn += [*caps, *bars]
    for x, cell in placed:
        if cell.mean is None:
            axes.annotate(
                "-", (x, 0.0), xycoords=("data", "axes fraction"), xytext=(2 * look.shift, 1), ha="center", va="bottom",
                textcoords="offset points", fontsize=14, fontweight="bold", color=colour,
            )  # fmt: skip
    _move(drawn, look.shift)


def _move(drawn: Sequence[Any], points: float) -> None:
    """Set marks aside on paper, so that the error bars of two lines can be seen at one x; their data stay exact."""
    from matplotlib.transforms import ScaledTranslation

    for artist in drawn:
        aside = ScaledTranslation(points / 72, 0, artist.get_figure().dpi_scale_trans)
        artist.set_transform(artist.get_transform() + aside)


def _references(axes: Axes, points: Sequence[Point], metric: str) -> None:
    for index, point in enumerate(points):
        mean = point.cells.get(metric, MISSING).mean
        if mean is not None:
            gaps = ((5, 2), (2, 2), (7, 2, 2, 2), (1, 1))[index % 4]
            axes.axhline(mean, color=("0.25", "0.5")[index % 2], linestyle=(0, gaps), linewidth=1.2, label=point.row)


def _dress(axes: Axes, metric: str, classes: str, width_in: float, where: Scale) -> None:
    if where.kind == "log":
        axes.set_xscale("log")
    elif where.kind == "symlog":
        axes.set_xscale("symlog", linthresh=where.smallest, linscale=0.5)
    _limits_and_ticks(axes, where, width_in)
    calm(axes)
    axes.set_ylabel(f"{'' if metric.startswith('ACC') else 'box '}{metric} (points)", fontsize=9)
    axes.set_title(classes, fontsize=9)
    axes.tick_params(labelsize=8)
    tidy(axes)


def _limits_and_ticks(axes: Axes, where: Scale, width_in: float) -> None:
    """All places of the axis, also of a value without a number; ticks at the values as far as their texts find room."""
    from matplotlib.ticker import NullLocator

    named = sorted((x, name) for name, x in (where.ticks or where.positions).items())
    on_paper = axes.xaxis.get_transform().transform([x for x, _ in named])
    ends = axes.xaxis.get_transform().transform(sorted([*where.positions.values(), *where.ticks.values()]))
    span = (ends[-1] - ends[0]) or 1.0
    margins = [ends[0] - MARGIN * span, ends[-1] + MARGIN * span]
    axes.set_xlim(*axes.xaxis.get_transform().inverted().transform(margins))
    inch = (width_in - 0.9) / ((1 + 2 * MARGIN) * span)
    shown: list[int] = []
    for i, (_, name) in enumerate(named):
        # half of each of two texts, and a gap
        needed = (inches([name]) + inches([named[shown[-1]][1]])) / 2 + 0.05 if shown else 0.0
        if not shown or (on_paper[i] - on_paper[shown[-1]]) * inch >= needed or where.kind == "labels":
            shown.append(i)
    axes.set_xticks([named[i][0] for i in shown], [named[i][1] for i in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    widest = inches(name for _, name in named)
    if where.kind == "labels" and len(named) * (widest + 0.04) > width_in - 0.9:
        for label in axes.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")


def _axis_name(x: str, by: Sequence[str], points: Sequence[Point], where: Scale) -> str:
    methods = list(dict.fromkeys(point.method for point in points))
    of = "" if "method" in by or len(methods) > 2 else f" of {', '.join(methods)}"  # a legend names them
    return f"{x}{of}{', log axis' if where.kind in ('log', 'symlog') else ''}"
