"""What the boxes of each instance bin are taken for: a grid for each row. Separate from errors.py, which draws what
each kind of error costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reports.figures.canvas import Drawing, bin_names, blank, finish
from reports.figures.lettering import INCH, fitted
from reports.figures.scene import Scene
from reports.load import RowResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("row", "bin", "taken_for", "count", "percent")
MOST_ROWS = 12
A_LINE, PANEL_IN = 4, 2.1  # panels; inches of one
DARK = 55  # percent; above it a number is white
SAID = (
    "Of the val boxes of a bin (line), the percentage that a detection of their own class finds, or that is taken for a"
    " class of a bin (column), or missed; the diagonal has both: found, and taken for another class of the same bin."
)


def confusion(scene: Scene) -> Drawing | None:
    """A panel for each row: bins of the boxes x bins of what they are taken for, percent of the bin's boxes, the counts
    of all seeds together (bench/evaluation/error_kinds.py, at IoU 0.5).

    Returns:
        None where no row has its errors.
    """
    found = {label: table for label, group in scene.groups.items() if (table := counts(group)) is not None}
    if not found:
        return None
    drawn, caption = list(found)[:MOST_ROWS], scene.caption
    if len(drawn) < len(found):
        caption += f" {len(drawn)} of {len(found)} rows, the first of the suite; all are in confusion.csv."
    columns = min(len(drawn), A_LINE)
    deep = -(-len(drawn) // columns)
    size = next(iter(found.values())).shape[0]
    names = bin_names(scene.edges)[: size - 1]
    figure, every = blank(1.1 + PANEL_IN * columns, 0.7 + 2.0 * deep, deep, columns)
    for spare in every[len(drawn) :]:
        spare.remove()
    for place, (label, axes) in enumerate(zip(drawn, every, strict=False)):
        _grid(axes, percent(found[label]))
        axes.set_title(fitted(label, 9, PANEL_IN * INCH - 14, lines=2), fontsize=9)
        axes.set_yticks(range(size - 1), names if place % columns == 0 else [""] * (size - 1), fontsize=8)
        last = place + columns >= len(drawn)
        shown = [*names, "missed"] if last else [""] * size
        axes.set_xticks(range(size), shown, rotation=55, ha="right", rotation_mode="anchor", fontsize=8)
        if place % columns == 0:
            axes.set_ylabel("training instances\nof the box's class", fontsize=8)
        if last:
            axes.set_xlabel("taken for a class with", fontsize=8)
    lines = [
        (label, names[i], "missed" if j == size - 1 else names[j], int(table[i, j]), float(percent(table)[i, j]))
        for label, table in found.items()
        for i in range(size - 1)
        for j in range(size)
        if table[i].sum()
    ]
    return Drawing(finish(figure, {}, f"{caption} {SAID}".strip(), scene.title), COLUMNS, tuple(lines))


def counts(group: Sequence[RowResult]) -> NDArray[np.int64] | None:
    """The confusion of all seeds of a row, added up; None where none has it."""
    tables = [np.array(result.errors.confusion, np.int64) for result in group if result.errors is not None]
    return np.sum(tables, axis=0) if tables else None


def percent(table: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each line of boxes, in percent; a bin without boxes is NaN. The last line (background) is left out."""
    boxes = table[:-1].astype(np.float64)
    whole = boxes.sum(1, keepdims=True)
    return np.where(whole > 0, 100 * boxes / np.maximum(whole, 1), np.nan)


def _grid(axes: Axes, values: NDArray[np.float64]) -> None:
    axes.imshow(np.nan_to_num(values), cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (y, x), value in np.ndenumerate(values):
        text = "-" if np.isnan(value) else f"{value:.0f}"
        axes.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if value > DARK else "0.15")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
