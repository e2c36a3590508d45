"""The gain of a search: the winner less the untouched default on val, with its interval. Separate from the search's
report, since the terminal says it too.

The interval is that of every difference of a table, over val images and seeds (reports/intervals.py); where the draws
of val are not kept, Student's, 95 %, of the differences paired by seed, n - 1 degrees of freedom. Only what lies wholly
on one side of zero is called real. The winner was chosen on other images, so no choice of the search is in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reports.differences import MODELS
from reports.intervals import LEVEL, of_difference
from reports.load import RowResult
from reports.render import format_cell
from reports.stats import MISSING, Cell, differences, metrics_of


@dataclass(frozen=True)
class Gain:
    """What a search has gained in one metric.

    Attributes:
        metric: its name.
        default, winner: Cells over the seeds of each, as in the table.
        difference: winner - default over the seeds that both have, on the same val.
        low, high: ends of the interval; None where nothing tells it.
        images: it is over val images too.
        same: both are one evaluation at every such seed: the winner is the default.
    """

    metric: str
    default: Cell
    winner: Cell
    difference: Cell
    low: float | None
    high: float | None
    same: bool = False
    images: bool = False

    @property
    def is_real(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def interval(self) -> str:
        """ "-0.2 to +2.8", or "-"."""
        if self.low is None or self.high is None:
            return "-"
        return f"{signed(self.low)} to {signed(self.high)}"

    def spoken(self, mark: str = "") -> str:
        """One sentence. `mark`: of a search on val (View.mark), which stands in place of a verdict."""
        if self.same:
            text = f"{self.metric}: the winner is the default, nothing was gained"
            return f"{text}; {mark}" if mark else text
        if self.difference.mean is None:
            return f"{self.metric} -: no seed has both rows on the same val{f'; {mark}' if mark else ''}"
        gained = f"{self.metric} {signed(self.difference.mean)}"
        if self.low is None:
            return f"{gained}: one seed, no interval{f'; {mark}' if mark else ''}"
        verdict = "not distinguishable from zero"
        if self.is_real:
            verdict = "a real gain" if self.difference.mean > 0 else "a real loss"
            verdict += f", {MODELS}" if self.difference.n == 1 else ""
        seeds = f"{self.difference.n} seeds" if self.difference.n > 1 else "one seed"
        over = f"val images and {seeds}" if self.images else seeds
        return f"{gained} (95 % interval over {over} {self.interval()}): {mark or verdict}"


def gain(winner: Sequence[RowResult], default: Sequence[RowResult], metric: str) -> Gain:
    """The gain of one row over another.

    Args:
        winner, default: the results of each, one per seed.
        metric: a column of the table.
    """
    difference = differences(winner, default).get(metric, MISSING)
    over_images = of_difference(winner, default, metric)
    low, high = interval(difference) if over_images is None else (over_images.low, over_images.high)
    own, base = (metrics_of(rows).get(metric, MISSING) for rows in (winner, default))
    return Gain(metric, base, own, difference, low, high, _same(winner, default), over_images is not None)


def interval(cell: Cell) -> tuple[float | None, float | None]:
    """Ends of Student's interval of a mean; None where there is no spread to tell it by."""
    if cell.mean is None or cell.sd is None:
        return None, None
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, cell.n - 1)) * cell.sd / math.sqrt(cell.n)
    return cell.mean - half, cell.mean + half


def signed(value: float) -> str:
    """+1.3; a value that one decimal would show as zero by its first digit, +0.03: it may be an end of an interval."""
    if round(value, 1) == 0 and value != 0:
        return f"{value:+.1g}" if abs(value) >= 1e-3 else ("+0.0" if value > 0 else "-0.0")
    return f"{value:+.1f}" if value else "0.0"


def shown(cell: Cell, seeds: int) -> str:
    """A Cell of a row of `seeds` seeds; those that lack the value are told."""
    return format_cell(cell) + (f" (n={cell.n})" if 0 < cell.n < seeds else "")


def _same(winner: Sequence[RowResult], default: Sequence[RowResult]) -> bool:
    base = {result.record.seed: result.record.evaluate_key for result in default}
    pairs = [(r.record.evaluate_key, base[r.record.seed]) for r in winner if r.record.seed in base]
    return bool(pairs) and all(own == other for own, other in pairs)
