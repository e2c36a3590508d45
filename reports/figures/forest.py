"""A figure of the differences with their intervals, a panel for each metric. Separate from differences.py, which makes
the numbers and draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.differences import CERTAIN, OPEN, SHOWN, UNCORRECTED, UNKNOWN, Found, tried
from reports.figures.canvas import DEFAULT_EDGES, Drawing, blank, finish, handles, over, tidy
from reports.figures.lettering import at_ticks, inches

COLUMNS = ("row", "metric", "base", "difference", "low", "high", "p", "p_holm", "verdict")
MOST_ROWS = 40
GREY = "0.45"  # told from black, and read, on paper and without colours
STYLES: dict[str, dict[str, Any]] = {
    CERTAIN: {"fmt": "o", "color": "black", "markerfacecolor": "black", "linewidth": 1.4},
    UNCORRECTED: {"fmt": "o", "color": "black", "markerfacecolor": "white", "linewidth": 1.4},
    OPEN: {"fmt": "D", "color": GREY, "markerfacecolor": "white", "linewidth": 0.9},
}


def forest(found: Found, *, edges: Sequence[int] = DEFAULT_EDGES, caption: str = "") -> Drawing | None:
    """Rows below one another, the difference (AP points) as a point with its 95 % interval; filled and black where it
    is certain, hollow where only the interval by itself is without 0, hollow and grey where it is not; a cross where
    there is no interval. A metric without any has no panel.

    Returns:
        None where no row has an interval.
    """
    metrics = [metric for metric in SHOWN if tried(found, metric)]
    if not metrics:
        return None
    labels = [label for label, of in found.items() if any(metric in of for metric in metrics)]
    drawn = labels[:MOST_ROWS]
    if len(drawn) < len(labels):
        caption += f" {len(drawn)} of {len(labels)} rows, the first of the suite; all are in the table below."
    ticks = at_ticks(drawn)
    figure, every = blank(inches(ticks) + 0.5 + 1.75 * len(metrics), 1.0 + 0.24 * len(drawn), 1, len(metrics))
    legend: dict[str, Any] = {}
    for place, (metric, axes) in enumerate(zip(metrics, every, strict=True)):
        axes.axvline(0, color="0.2", linewidth=0.8)
        for y, label in enumerate(drawn):
            one = found[label].get(metric)
            if one is None or one.cell.mean is None:
                continue
            if one.interval is None:
                axes.plot([one.cell.mean], [y], "x", color=GREY, markersize=4.5, linestyle="none", label=UNKNOWN)
                continue
            ends = [[one.cell.mean - one.interval.low], [one.interval.high - one.cell.mean]]
            axes.errorbar(
                [one.cell.mean], [y], xerr=ends, markersize=4.5, capsize=2.5, label=one.verdict, **STYLES[one.verdict]
            )
        axes.set_yticks(range(len(drawn)), ticks if place == 0 else [""] * len(drawn), fontsize=8)
        axes.set_ylim(len(drawn) - 0.5, -0.5)
        axes.set_title("\n".join(filter(None, (f"Δ{metric}", over(metric, edges)))), fontsize=9)
        axes.tick_params(axis="x", labelsize=8)
        tidy(axes, "x")
        legend |= handles(axes)
    shown = {name: legend[name] for name in (CERTAIN, UNCORRECTED, OPEN, UNKNOWN) if name in legend}
    lines = [
        (label, metric, one.base, one.cell.mean, *((one.interval.low, one.interval.high, one.interval.p)
         if one.interval else (None,) * 3), one.holm, one.verdict)
        for label, of in found.items()
        for metric, one in of.items()
    ]  # fmt: skip
    return Drawing(finish(figure, shown, caption.strip(), None), COLUMNS, tuple(lines))
