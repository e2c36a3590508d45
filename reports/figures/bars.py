"""Bars: metrics of rows side by side; the AP of every instance bin is one such figure. Separate from the other kinds of
figures, which have an axis of numbers.

Up to ten rows: one group per metric, one bar per row. More rows than the palette has colours: one panel per metric,
one horizontal bar per row, since nineteen hatchings cannot be told apart in a legend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reports.figures.canvas import Drawing, blank, finish, handles, numbers, over, palette, tidy, unit
from reports.figures.lettering import at_ticks, inches
from reports.figures.scene import Scene
from reports.intervals import Interval, of_row
from reports.load import RowResult
from reports.stats import MISSING, Cell, baseline_of, by_engine, metrics_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_GROUPED = 10  # rows: the colours of the palette
MOST_SHOWN = 40  # rows in panels: beyond, nobody reads them, and a figure takes minutes
MOST_PRINTED = 30  # bars in a grouped figure that have their value above them
PANELS_A_LINE = 5

# Of the bars of a row, so that they can be told apart in print without colours; the first row's are plain. Lines only:
# a pattern of dots has 300 kB in an svg.
HATCHES = ("", "///", "---", "\\\\\\", "|||", "xxx", "+++", "//////", "------", "||||||")
WITH_INTERVAL = (
    "Lines: 95 % interval of the value over {over}, where enough val images show the classes; compare rows by their "
    "paired differences, which are surer."
)

Cells = Mapping[str, Mapping[str, Cell]]  # row -> metric -> Cell
Ends = tuple[float, float] | None
AllEnds = Mapping[str, Mapping[str, Ends]]  # row -> metric -> Ends
Spans = Mapping[str, Mapping[str, Interval]]  # row -> metric -> of its mean


def ap_by_bin(scene: Scene) -> Drawing:
    """AP of each bin of training instances and of all classes."""
    return bars(scene, [*(f"AP{i + 1}" for i in range(len(scene.edges) + 1)), "AP"])


def bars(scene: Scene, metrics: Sequence[str]) -> Drawing:
    """Means over seeds as bars, with their 95 % intervals where all rows have draws and one can be told, else 1 sd; the
    caption says which, and which metrics have none. A missing metric leaves
    a gap with a '-' in it: it cannot be read as 0. `metrics`: one group, or panel, for each."""
    every, caption = scene.groups, scene.caption
    groups = {label: every[label] for label in _shown(every)}
    cells = {label: metrics_of(group) for label, group in groups.items()}
    if len(groups) < len(every):
        caption += f" {len(groups)} of {len(every)} rows, the first of the suite; all are in the table's files."
    spans = intervals(groups, metrics)
    several = any(len(group) > 1 for group in groups.values())
    if spans is not None and not any(spans.values()):  # val shows too little: what seeds say is all there is
        spans = None
        caption += " There is no interval over val images, which are too few"
        caption += ". Lines: one sample standard deviation over seeds." if several else ": no value is exact."
    elif spans is not None:
        over_what = "val images and seeds" if several else "val images"
        caption += f" {WITH_INTERVAL.format(over=over_what)}"
        shown = [m for m in metrics if any(of.get(m, MISSING).mean is not None for of in cells.values())]
        bare = [m for m in shown if not any(m in of for of in spans.values())]
        caption += f" No interval of {', '.join(bare)}: without a line, not without an error." if bare else ""
    base = baseline_of(groups) if len(by_engine(groups)) == 1 else None  # no engine is measured by another's baseline
    return of_cells(replace(scene, caption=caption.strip()), cells, metrics, baseline=base, spans=spans)


def intervals(groups: Mapping[str, Sequence[RowResult]], metrics: Sequence[str]) -> Spans | None:
    """Those of each row's mean that there are; None where a row lacks draws: marks of two meanings are not mixed."""
    if any(result.draws is None for group in groups.values() for result in group):
        return None
    found = {label: {metric: of_row(group, metric) for metric in metrics} for label, group in groups.items()}
    return {label: {metric: one for metric, one in of.items() if one is not None} for label, of in found.items()}


def of_cells(
    scene: Scene, cells: Cells, metrics: Sequence[str], *, baseline: str | None = None, spans: Spans | None = None
) -> Drawing:
    """Bars of what was summarised already; `baseline`: the row whose value is dashed in panels; `spans`: what lines
    show in place of 1 sd."""
    ends = {r: {m: _ends(cell, None if spans is None else spans[r].get(m), spans is None) for m, cell in of.items()}
            for r, of in cells.items()}  # fmt: skip
    caption = scene.caption
    if len(cells) > MOST_GROUPED:
        figure = _panels(cells, ends, metrics, scene.edges, baseline)
        legend: dict[str, Any] = {}
        caption += f" Dashed: {baseline}." if baseline else ""
    else:
        figure = _grouped(cells, ends, metrics, scene.edges)
        legend = handles(figure.axes[0])
    columns = ("row", "metric", "mean", "sd", "n", *(() if spans is None else ("low", "high")))
    lines = [
        (r, m, *numbers(of.get(m, MISSING)), *(() if spans is None else ends[r].get(m) or (None, None)))
        for r, of in cells.items()
        for m in metrics
    ]
    return Drawing(finish(figure, legend, caption, scene.title), columns, tuple(lines))


def _ends(cell: Cell, span: Interval | None, by_sd: bool) -> Ends:
    """Where a line of a bar begins and ends; None: it has none."""
    if cell.mean is None:
        return None
    if by_sd:
        return (cell.mean - cell.sd, cell.mean + cell.sd) if cell.sd else None
    return None if span is None else (span.low, span.high)


def _shown(groups: Mapping[str, Sequence[RowResult]]) -> list[str]:
    """The rows that are drawn: the first ones, and the baseline wherever it stands."""
    labels, start = list(groups), baseline_of(groups)
    first = labels[:MOST_SHOWN]
    return first if start is None or start in first else [start, *first[:-1]]


def _grouped(cells: Cells, ends: AllEnds, metrics: Sequence[str], edges: Sequence[int]) -> Figure:
    printed = len(cells) * len(metrics) <= MOST_PRINTED
    inches = 0.3 if printed else 0.15  # a bar: a value needs 0.27 at 7 points, a bar's own error bar less
    width_in = max(7.5, 1.2 + len(metrics) * (len(cells) + 1.5) * inches)
    figure, (axes,) = blank(width_in, 3.6)
    bar = 0.84 / max(1, len(cells))
    for r, (label, own) in enumerate(cells.items()):
        offset = (r - (len(cells) - 1) / 2) * bar
        of_metrics = [own.get(metric, MISSING) for metric in metrics]
        of_ends = [ends[label].get(metric) for metric in metrics]
        _row(axes, of_metrics, of_ends, offset, bar, r, label)
        if printed:
            _values(axes, of_metrics, of_ends, offset)
    if len(metrics) > 1 and "AP" in (metrics[0], metrics[-1]):  # the mean over all classes stands apart from its parts
        axes.axvline(len(metrics) - 1.5 if metrics[-1] == "AP" else 0.5, color="0.6", linewidth=0.8)
    texts = [(metric, over(metric, edges)) for metric in metrics]
    axes.set_xticks(range(len(metrics)), [_wrapped(*text) for text in texts])
    axes.set_xlim(-0.5, len(metrics) - 0.5)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(unit(metrics))
    tidy(axes)
    return figure


def _row(
    axes: Axes, cells: Sequence[Cell], ends: Sequence[Ends], offset: float, bar: float, number: int, label: str
) -> None:
    present = [(x + offset, cell.mean) for x, cell in enumerate(cells) if cell.mean is not None]
    axes.bar(
        [x for x, _ in present], [mean for _, mean in present], bar * 0.92, color=palette()[number], label=label,
        linewidth=0, hatch=HATCHES[number], edgecolor="white",
    )  # fmt: skip
    spread = [(x + offset, c.mean, e) for x, (c, e) in enumerate(zip(cells, ends, strict=True)) if c.mean and e]
    if spread:
        axes.errorbar(
            [x for x, _, _ in spread], [mean for _, mean, _ in spread], _to_sides(spread), fmt="none", ecolor="0.15",
            elinewidth=0.9, capsize=1.5,
        )  # fmt: skip
    for x, cell in enumerate(cells):
        if cell.mean is None:
            axes.text(x + offset, 0, "-", ha="center", va="bottom", fontsize=8, color="0.3")


def _to_sides(spread: Sequence[tuple[float, float, tuple[float, float]]]) -> list[list[float]]:
    """Below and above each mean, as matplotlib takes them. An interval of AP may end below 0; a bar does not."""
    return [[mean - max(low, 0.0) for _, mean, (low, _) in spread], [high - mean for _, mean, (_, high) in spread]]


def _values(axes: Axes, cells: Sequence[Cell], ends: Sequence[Ends], offset: float) -> None:
    for x, (cell, end) in enumerate(zip(cells, ends, strict=True)):
        if cell.mean is not None:
            axes.annotate(
                f"{cell.mean:.1f}", (x + offset, end[1] if end else cell.mean), xytext=(0, 2),
                textcoords="offset points", ha="center", va="bottom", fontsize=7, color="0.3",
            )  # fmt: skip


def _panels(cells: Cells, ends: AllEnds, metrics: Sequence[str], edges: Sequence[int], baseline: str | None) -> Figure:
    columns = min(len(metrics), PANELS_A_LINE)
    deep = -(-len(metrics) // columns)
    names = at_ticks(cells)
    label_in = inches(names)
    figure, every = blank(max(6.0, label_in + 0.6 + 1.75 * columns), deep * (0.75 + 0.19 * len(cells)), deep, columns)
    for spare in every[len(metrics) :]:
        spare.remove()
    for number, (metric, axes) in enumerate(zip(metrics, every, strict=False)):
        of_rows = [of_row.get(metric, MISSING) for of_row in cells.values()]
        _lying(axes, of_rows, [of.get(metric) for of in ends.values()])
        start = cells[baseline].get(metric, MISSING).mean if baseline else None
        if start is not None:
            axes.axvline(start, color="0.35", linestyle=(0, (3, 2)), linewidth=0.9)
        axes.set_yticks(range(len(cells)), names if number % columns == 0 else [""] * len(cells), fontsize=8)
        axes.set_ylim(len(cells) - 0.4, -0.6)
        axes.set_title("\n".join(filter(None, (metric, over(metric, edges)))), fontsize=9)
        axes.set_xlabel(unit([metric]).replace(" of the classifier", ""), fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.tick_params(axis="y", length=0)
        tidy(axes, "x")
    return figure


def _lying(axes: Axes, cells: Sequence[Cell], ends: Sequence[Ends]) -> None:
    """One horizontal bar per row, its value behind its end."""
    present = [(y, c.mean, e) for y, (c, e) in enumerate(zip(cells, ends, strict=True)) if c.mean is not None]
    axes.barh([y for y, _, _ in present], [mean for _, mean, _ in present], 0.72, color=palette()[0], linewidth=0)
    spread = [(y, mean, end) for y, mean, end in present if end]
    if spread:
        axes.errorbar(
            [mean for _, mean, _ in spread], [y for y, _, _ in spread], xerr=_to_sides(spread), fmt="none",
            ecolor="0.15", elinewidth=0.9, capsize=1.5,
        )  # fmt: skip
    far = [end[1] if end else mean for _, mean, end in present]
    axes.set_xlim(0, 1.3 * max([*far, 1.0]))  # room for the longest bar's value
    for (y, mean, _), end in zip(present, far, strict=True):
        axes.annotate(
            f"{mean:.1f}", (end, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7, color="0.2",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
    for y, cell in enumerate(cells):
        if cell.mean is None:
            axes.text(0, y, " -", va="center", fontsize=8, color="0.3")


def _wrapped(metric: str, classes: str) -> str:
    """ "AP1: 1-9" over "training instances"; "AP: all classes"."""
    name, _, rest = classes.partition(" ")
    if rest == "training instances":
        return f"{metric}: {name}\n{rest}"
    return f"{metric}: {classes}" if classes else metric
