"""Whether scores are chances: a reliability diagram for all classes and for each instance bin. Separate from
more_metrics.py, whose table has one number where this has a curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.evaluation.calibration import Calibration
from reports.figures.canvas import EDGE, Drawing, bins_of, blank, finish, handles, over, palette, tidy
from reports.figures.scene import Scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 6  # of more the curves cannot be told apart
MARKERS, STYLES = ("o", "s", "^", "D", "v", "P"), ("-", "--", "-.", ":")
TICKS = (0, 1, 5, 10, 25, 50, 100)
SAID = (
    "Judged detections in 15 bins of equal mass by score: mean score and share of true positives at IoU 0.5, on axes of"
    " square roots. Dashed: a score that is the chance to be right; below it a row is overconfident. ECE in points."
)


def calibration_curves(scene: Scene) -> Drawing | None:
    """A panel for all classes and for each bin, a line for each row, its ECE below the panel. Of several seeds of
    a row the first is drawn.

    Returns:
        None where no row has its calibration.
    """
    firsts = {label: group[0].more for label, group in scene.groups.items()}
    caption = scene.caption
    shown = {label: more.calibration for label, more in firsts.items() if more is not None}
    if not shown:
        return None
    names = bins_of(next(iter(shown.values())))
    drawn = list(shown)[:MOST_ROWS]
    if len(drawn) < len(shown):
        caption += (
            f" {len(drawn)} of {len(shown)} rows, the first of the suite; all are in the figure's CSV, and `rows`"
        )
        caption += " of the figure names those to draw."
    figure, every = blank(2.8 * len(names), 3.1, 1, len(names))
    end = max((100 * max(b.score, b.right) for of in shown.values() for n in names for b in of[n].bins), default=100.0)
    for place, (name, axes) in enumerate(zip(names, every, strict=True)):
        _panel(axes, {label: shown[label][name] for label in drawn}, end)
        axes.set_title(over(name, scene.edges) or name, fontsize=9)
        axes.set_xlabel("mean score (%)", fontsize=8)
        if place == 0:
            axes.set_ylabel("true positives (%)", fontsize=8)
    lines = [
        (label, name, number, 100 * b.score, 100 * b.right, b.count)
        for label, of in shown.items()
        for name in names
        for number, b in enumerate(of[name].bins, start=1)
    ]
    return Drawing(
        finish(figure, handles(every[0]), f"{caption} {SAID}".strip(), scene.title),
        ("row", "group", "bin", "mean_score", "true_positives", "count"),
        tuple(lines),
    )


def _panel(axes: Axes, of_rows: Mapping[str, Calibration], end: float) -> None:
    """One group of classes. A row without detections keeps its place in the order of looks, and has no line."""
    for axis in ("x", "y"):
        getattr(axes, f"set_{axis}scale")("function", functions=(_root, np.square))
        getattr(axes, f"set_{axis}lim")(0, 1.04 * end)
        getattr(axes, f"set_{axis}ticks")([t for t in TICKS if t <= end], [str(t) for t in TICKS if t <= end])
    axes.plot([0, end], [0, end], linestyle=(0, (4, 3)), color="0.6", linewidth=0.9, zorder=1)
    looks = zip(cycle(palette()), cycle(MARKERS), cycle(STYLES), strict=False)
    for (label, found), (colour, marker, style) in zip(of_rows.items(), looks, strict=False):
        (line,) = axes.plot(
            [100 * b.score for b in found.bins], [100 * b.right for b in found.bins], label=label, color=colour,
            marker=marker, linestyle=style, markersize=3.5, linewidth=1.1, clip_on=False, zorder=2, **EDGE,
        )  # fmt: skip
        line.set_in_layout(
            bool(found.bins)
        )  # where an empty one lies is the figure's corner, and panels would make room
    lines = handles(axes)
    texts = ["-" if found.ece is None else f"{100 * found.ece:.1f}" for found in of_rows.values()]
    axes.legend(
        [lines[label] for label in of_rows], texts, title="ECE", fontsize=6.5, title_fontsize=7, frameon=False,
        loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, columnspacing=1.2, handlelength=2.6, borderpad=0.1,
    )  # fmt: skip
    axes.tick_params(labelsize=7)
    axes.set_aspect("equal")
    tidy(axes)


def _root(values: Any) -> Any:
    """The square root; of what lies below 0, beyond the axes, it is 0."""
    return np.sqrt(np.maximum(values, 0.0))
