"""Where boxes are lost: what share of them the proposals reach, beside what the detections find. Separate from
more_metrics.py, which has the same numbers of every seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.evaluation.recall import BUDGETS, told_apart
from reports.figures.canvas import Drawing, bins_of, blank, finish, handles, numbers, over, palette, tidy
from reports.figures.lettering import at_ticks, inches
from reports.figures.scene import Scene
from reports.load import RowResult
from reports.stats import Cell, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 20
FOUND = "AR_detections"
# Hollow, from few proposals to many; detections are filled.
MARKERS = {"AR@100": "^", "AR@300": "s", "AR@1000": "o", FOUND: "D"}
SAID = (
    "Recall, mean over IoU 0.50 to 0.95: hollow, of the best proposals of an image, whatever the class (detr: of the"
    " boxes that enter the last layer); filled, of detections of the right class, whose boxes are refined. What lies"
    " between is lost, or gained, behind the proposals."
)


def recall_dots(scene: Scene) -> Drawing | None:
    """A panel for all classes and for each bin, a line for each row: the mean over seeds of AR of the best 100, 300 and
    1,000 proposals, as far as images have so many, and of detections.

    Returns:
        None where no row has the recall of its proposals.
    """
    groups = {label: [r for r in group if _most(r)] for label, group in scene.groups.items()}
    shown = {label: group for label, group in groups.items() if group}
    if not shown:
        return None
    first = next(iter(shown.values()))[0].more
    assert first is not None
    names = bins_of(first.calibration)
    cells = {
        (label, name, metric): summarise(of_result(result, name)[metric] for result in group)
        for label, group in shown.items()
        for name in names
        for metric in MARKERS
    }
    most = max(_most(result) for group in shown.values() for result in group)
    drawn, caption = list(shown)[:MOST_ROWS], scene.caption
    if len(drawn) < len(shown):
        caption += f" {len(drawn)} of {len(shown)} rows, the first of the suite; all are in more_metrics.csv."
    distinct = [f"AR@{n}" for n in told_apart(most)]
    if most < BUDGETS[-1]:
        caption += f" No image has more than {most} proposals."
    ticks = at_ticks(drawn)
    figure, every = blank(inches(ticks) + 0.5 + 2.1 * len(names), 1.0 + 0.22 * len(drawn), 1, len(names))
    for place, (name, axes) in enumerate(zip(names, every, strict=True)):
        _panel(axes, [{m: cells[label, name, m] for m in (*distinct, FOUND)} for label in drawn])
        axes.set_yticks(range(len(drawn)), ticks if place == 0 else [""] * len(drawn), fontsize=8)
        axes.set_title(over(name, scene.edges) or name, fontsize=9)
        axes.set_xlabel("recall (points)", fontsize=8)
    lines = [(label, name, metric, *numbers(cell)) for (label, name, metric), cell in cells.items()]
    return Drawing(
        finish(figure, handles(every[0]), f"{caption} {SAID}".strip(), scene.title),
        ("row", "group", "metric", "mean", "sd", "n"),
        tuple(lines),
    )


def of_result(result: RowResult, name: str) -> dict[str, float | None]:
    """Metric -> recall of a group in points."""
    assert result.more is not None
    assert result.more.recall is not None
    found = result.more.recall.groups[name]
    values = dict(zip(MARKERS, (*found.proposals, found.detections), strict=True))
    return {metric: None if value is None else 100 * value for metric, value in values.items()}


def _most(result: RowResult) -> int:
    """Proposals of the image that has most; 0 where they are not known."""
    return 0 if result.more is None or result.more.recall is None else result.more.recall.most


def _panel(axes: Axes, lines: Sequence[Mapping[str, Cell]]) -> None:
    """A grey bar between what the most proposals reach and what detections find, and a mark for each metric."""
    for y, line in enumerate(lines):
        ends = [cell.mean for cell in list(line.values())[-2:] if cell.mean is not None]
        if len(ends) == 2:
            axes.plot(ends, [y, y], color="0.75", linewidth=2.2, solid_capstyle="butt", zorder=1)
    for metric in lines[0]:
        places = [(x, y) for y, line in enumerate(lines) if (x := line[metric].mean) is not None]
        filled = metric == FOUND  # below the hollow marks, which show it through
        axes.scatter(
            [x for x, _ in places], [y for _, y in places], s=22 if filled else 40, marker=MARKERS[metric],
            facecolors=[palette()[0]] if filled else "none", edgecolors="0.15",
            linewidths=0.5 if filled else 0.9, zorder=2 if filled else 3, label="detections" if filled else metric,
        )  # fmt: skip
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7)
    tidy(axes, "x")
