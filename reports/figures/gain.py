"""Cost against gain: what the trainings of a row take, and what it gains on the row it is compared with. Separate from
cost.py, which shows each training of a row."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports.figures.canvas import Drawing, blank, finish, numbers, over, tidy
from reports.figures.named_points import named_points
from reports.figures.scene import Scene
from reports.load import RowResult
from reports.stats import Cell, bases_of, differences, summarise

COLUMNS = ("row", "base", "minutes", "minutes_sd", "seeds_timed", "metric", "difference", "sd", "seeds")
METRICS = ("AP", "AP1")
WIDTH_IN, HEIGHT_IN = 4.9, 3.8


def gain(scene: Scene) -> Drawing | None:
    """A point for each row: minutes of all trainings of its chain across (those that it shares with other rows too),
    the difference from the baseline upwards; one panel for AP, one for AP1.

    Returns:
        None where no row has both.
    """
    groups = scene.groups
    bases = bases_of(groups)
    taken = {label: minutes(group) for label, group in groups.items()}
    cells = {label: differences(groups[label], groups[base]) for label, base in bases.items() if label != base}
    found = {
        metric: {label: (taken[label], own[metric]) for label, own in cells.items() if taken[label].n and metric in own}
        for metric in METRICS
    }
    shown = {metric: at for metric, of in found.items() if (at := {k: v for k, v in of.items() if v[1].n})}
    if not shown:
        return None
    figure, every = blank(0.3 + WIDTH_IN * len(shown), HEIGHT_IN, 1, len(shown))
    for axes, (metric, at) in zip(every, shown.items(), strict=True):
        axes.axhline(0, color="0.4", linewidth=0.8, zorder=1)
        named_points(axes, at, (WIDTH_IN - 0.7, HEIGHT_IN - 0.8), least=(0.0, -math.inf))
        axes.set_title("\n".join(filter(None, (f"Δ{metric}", over(metric, scene.edges)))), fontsize=9)
        axes.set_xlabel("minutes of all trainings of the row")
        tidy(axes)
    every[0].set_ylabel("difference from the baseline (points)")
    lines = tuple(
        (label, bases[label], *numbers(time), metric, *numbers(cell))
        for metric, at in shown.items()
        for label, (time, cell) in at.items()
    )
    bases_shown = list(dict.fromkeys(bases[label] for at in shown.values() for label in at))
    costs = ", ".join(f"{base} {taken[base].mean:.1f}" for base in bases_shown if taken[base].mean is not None)
    said = f"Minutes of the baseline: {costs or '-'}."
    return Drawing(finish(figure, {}, f"{scene.caption} {said}".strip(), scene.title), COLUMNS, lines)


def minutes(group: Sequence[RowResult]) -> Cell:
    """Of all trainings of a row's chain, over its seeds; a seed of which one training has no time is left out."""
    return summarise(_minutes(result) for result in group)


def _minutes(result: RowResult) -> float | None:
    seconds = [one.seconds for one in result.trainings]
    known = [second for second in seconds if second is not None]
    return sum(known) / 60 if seconds and len(known) == len(seconds) else None
