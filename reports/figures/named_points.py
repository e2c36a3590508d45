"""Points with their names beside them, for figures of a point for each row. Separate from the kinds that use it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from reports.figures.canvas import EDGE, palette
from reports.figures.lettering import INCH, NAME_POINTS, fitted, width
from reports.stats import Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, bottom, right, top

HOLLOW = {**EDGE, "markeredgewidth": 1.0}
SIZE = 7.5  # of a name, points
MARKERS = "os^Dv<>Pp*"
GAP = 5.0  # from a point to its name, points
# Where a name may stand: (x, y) from the point in gaps, and its horizontal and vertical alignment; the first that
# covers least is taken. Corners come first: the other places lie on the lines of the point's own spread.
PLACES = (
    (0.6, 0.6, "left", "bottom"), (0.6, -0.6, "left", "top"), (-0.6, 0.6, "right", "bottom"),
    (-0.6, -0.6, "right", "top"), (1.2, 0, "left", "center"), (-1.2, 0, "right", "center"),
    (0, 1.2, "center", "bottom"), (0, -1.2, "center", "top"),
)  # fmt: skip


def named_points(
    axes: Axes,
    at: Mapping[str, tuple[Cell, Cell]],
    size_in: Point,
    hollow: Collection[str] = (),
    least: tuple[float, float] = (-math.inf, -math.inf),
) -> None:
    """A mark for each row with one sample standard deviation to each side, and its name beside it, where it covers
    least. Limits of the Axes are set here.

    Args:
        axes: without limits yet.
        at: row -> (x, y), both with a mean.
        size_in: width and height of the Axes in inches, about.
        hollow: labels of the rows whose marks are, the baselines.
        least: values that x and y never fall below: no axis and no line does.
    """
    points = {label: (x.mean or 0.0, y.mean or 0.0) for label, (x, y) in at.items()}
    for index, (label, (x, y)) in enumerate(at.items()):
        colour = palette()[index % 10]
        axes.errorbar(
            [points[label][0]], [points[label][1]], xerr=_sides(x, least[0]), yerr=_sides(y, least[1]),
            fmt=MARKERS[index % len(MARKERS)], markersize=6, color=colour, elinewidth=0.8, capsize=1.5, capthick=0.8,
            markerfacecolor="white" if label in hollow else colour, zorder=3, clip_on=False,
            **(HOLLOW if label in hollow else EDGE),
        )  # fmt: skip
    low_x, high_x = _limits([x for x, _ in at.values()], least[0])
    low_y, high_y = _limits([y for _, y in at.values()], least[1])
    axes.set_xlim(low_x, high_x)
    axes.set_ylim(low_y, high_y)
    wide, high = size_in[0] * INCH, size_in[1] * INCH
    across, up = wide / (high_x - low_x), high / (high_y - low_y)  # points of print of one on each axis
    drawn = {label: ((x - low_x) * across, (y - low_y) * up) for label, (x, y) in points.items()}
    spread = {label: ((x.sd or 0.0) * across, (y.sd or 0.0) * up) for label, (x, y) in at.items()}
    for label, place in places(drawn, (wide, high), spread).items():
        x_gap, y_gap, across_as, up_as = PLACES[place]
        axes.annotate(
            fitted(label, SIZE, NAME_POINTS), points[label], xytext=(x_gap * GAP, y_gap * GAP),
            textcoords="offset points", ha=across_as, va=up_as, fontsize=SIZE, color="0.1", zorder=4,
        )  # fmt: skip


def places(points: Mapping[str, Point], size: Point, spread: Mapping[str, Point] | None = None) -> dict[str, int]:
    """For each name, which of PLACES covers least of points, of the lines of their spread, of names placed before, and
    of what is outside.

    Args:
        points: name -> (x, y) in points of print, from the lower left corner.
        size: of the Axes, in points of print.
        spread: name -> length of the lines to each side, across and upwards.
    """
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in points.values()]
    for name, (wide, high) in (spread or {}).items():
        x, y = points[name]
        taken += [(x - wide, y - 1, x + wide, y + 1), (x - 1, y - high, x + 1, y + high)]
    found = {}
    for name, point in points.items():
        wide = min(width(name, SIZE), NAME_POINTS)
        boxes = [_box(wide, point, place) for place in range(len(PLACES))]
        costs = [sum(_common(box, other) for other in taken) + _outside(box, size) for box in boxes]
        found[name] = costs.index(min(costs))
        taken.append(boxes[found[name]])
    return found


def _box(wide: float, point: Point, place: int) -> Box:
    x_gap, y_gap, across, upright = PLACES[place]
    height = 1.3 * SIZE
    x = point[0] + x_gap * GAP - {"left": 0.0, "center": 0.5, "right": 1.0}[across] * wide
    y = point[1] + y_gap * GAP - {"bottom": 0.0, "center": 0.5, "top": 1.0}[upright] * height
    return x, y, x + wide, y + height


def _common(a: Box, b: Box) -> float:
    """Area that two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box: Box, size: Point) -> float:
    """Area of a box that is not on the Axes."""
    return (box[2] - box[0]) * (box[3] - box[1]) - _common(box, (0.0, 0.0, *size))


def _sides(cell: Cell, least: float) -> list[list[float]] | None:
    """One standard deviation below, as far as there is one, and above."""
    return [[min(cell.sd, max(0.0, (cell.mean or 0.0) - least))], [cell.sd]] if cell.sd else None


def _limits(cells: Sequence[Cell], least: float) -> Point:
    """Of an axis: the points with their lines and an eighth of the span to each side, 0.5 at least; not below what
    there can be."""
    low = min(max((cell.mean or 0.0) - (cell.sd or 0.0), least) for cell in cells)
    high = max((cell.mean or 0.0) + (cell.sd or 0.0) for cell in cells)
    margin = max((high - low) / 8, 0.5)
    return max(low - margin, least), high + margin
