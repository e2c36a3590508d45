"""AP of each class against its training instances, with a smooth curve for each row."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reports.figures.canvas import Drawing, blank, finish, handles, palette, tidy
from reports.figures.scene import Scene
from reports.footnotes import some_rows
from reports.load import RowResult
from reports.stats import baseline_of

Floats = NDArray[np.float64]
COLUMNS = ("row", "seed", "class_id", "class", "instances", "AP")
MOST = 4  # rows whose clouds of points can be told apart
BANDWIDTH = 0.2  # standard deviation of the kernel, in decades of instances
STEPS = 120  # places of a curve
MARKERS, STYLES = "o^sD", ("-", "--", "-.", ":")


def per_class(scene: Scene, *, labels: Sequence[str] = ()) -> Drawing | None:
    """A mark for each class (and seed) of a row, its AP above its training instances, and for each row the mean of its
    marks nearby: weighted by a normal density over log10 of the instances (Nadaraya and Watson, 1964), BANDWIDTH wide.

    Args:
        labels: rows to draw; () takes the baseline and the next ones, MOST in all.

    Returns:
        None where no row has AP per class.
    """
    groups = {label: group for label, group in scene.groups.items() if any(_points(r) for r in group)}
    start = baseline_of(groups)
    usual = sorted(groups, key=lambda label: label != start)
    drawn = [label for label in (labels or usual) if label in groups][:MOST]
    if not drawn:
        return None
    figure, (axes,) = blank(8.0, 4.0)
    for index, label in enumerate(drawn):
        points = np.array([point for result in groups[label] for point in _points(result)], np.float64)
        colour = palette()[index % 10]
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=13,
            marker=MARKERS[index % 4],
            color=colour,
            alpha=0.35,
            linewidths=0.3,
            edgecolors="0.15",
        )
        xs, ys = smooth(points)
        axes.plot(xs, ys, STYLES[index % 4], color=colour, linewidth=1.9, label=label)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("training instances of the class")
    axes.set_ylabel("box AP of the class (points)")
    for edge in scene.edges:
        axes.axvline(edge, color="0.45", linestyle=(0, (4, 3)), linewidth=0.8, zorder=1)
    tidy(axes)
    left_out = [label for label in groups if label not in drawn]
    more = f" Not drawn: {some_rows(left_out)}." if left_out else ""
    said = f"A mark: one class of one seed. Curves: mean of the marks nearby (kernel of {BANDWIDTH} decades)."
    lines = tuple(line for label in drawn for result in groups[label] for line in _lines(result))
    caption = f"{scene.caption} {said} Dashed: edges of the bins.{more}".strip()
    return Drawing(finish(figure, handles(axes), caption, scene.title), COLUMNS, lines)


def smooth(points: Floats) -> tuple[Floats, Floats]:
    """(instances, mean AP nearby) at STEPS places, evenly apart on a log axis, of (instances, AP) pairs, N x 2."""
    at = np.log10(np.maximum(points[:, 0], 1.0))
    places = np.linspace(at.min(), at.max(), STEPS)
    # The largest exponent of a place is 0, so that no sum of weights is.
    apart = -0.5 * ((places[:, None] - at[None]) / BANDWIDTH) ** 2
    weights = np.exp(apart - apart.max(1, keepdims=True))
    return 10.0**places, weights @ points[:, 1] / weights.sum(1)


def _points(result: RowResult) -> list[tuple[float, float]]:
    """(training instances, AP points) of the classes that val shows; a class without instances stands at 1."""
    pairs = zip(result.instance_counts, result.per_class_ap, strict=False)
    return [(float(max(count, 1)), ap) for count, ap in pairs if ap is not None and not math.isnan(ap)]


def _lines(result: RowResult) -> list[tuple[object, ...]]:
    classes = result.record.per_class
    if classes is None:
        return []
    every = zip(classes.category_ids, classes.names, result.instance_counts, result.per_class_ap, strict=True)
    return [(result.record.row, result.record.seed, i, name, n, ap) for i, name, n, ap in every if ap is not None]
