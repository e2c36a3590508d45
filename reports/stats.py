"""Mean, standard deviation and paired differences over seeds. Separate from the tables that print them, since the
JSON, the figures and the tracker's parent runs need the same numbers.

A missing value (None) is left out and n says how many values were there; nothing is ever filled in with 0.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reports.load import RowResult


@dataclass(frozen=True)
class Cell:
    """A metric of one row over its seeds.

    Attributes:
        mean: mean of the values that exist, None where none does.
        sd: sample standard deviation (n - 1), None where n < 2.
        n: how many seeds have the value.
    """

    mean: float | None
    sd: float | None
    n: int


MISSING = Cell(None, None, 0)


def summarise(values: Iterable[float | None]) -> Cell:
    """Mean and sample sd of the values that exist."""
    present = [value for value in values if value is not None]
    if not present:
        return MISSING
    sd = statistics.stdev(present) if len(present) > 1 else None
    return Cell(statistics.fmean(present), sd, len(present))


def by_row(rows: Iterable[RowResult], order: Sequence[str] = ()) -> dict[str, list[RowResult]]:
    """Results grouped by row label, each group by ascending seed.

    Args:
        rows: one result a row and seed.
        order: labels in the order of the suite; labels it lacks follow in order of appearance.
    """
    groups: dict[str, list[RowResult]] = {label: [] for label in order}
    for result in rows:
        groups.setdefault(result.record.row, []).append(result)
    return {label: sorted(group, key=lambda r: r.record.seed) for label, group in groups.items() if group}


def metrics_of(group: Sequence[RowResult]) -> dict[str, Cell]:
    """Metric name -> Cell over the seeds of one row."""
    names = dict.fromkeys(name for result in group for name in result.record.metrics)
    return {name: summarise(result.record.metrics.get(name) for result in group) for name in names}


def baseline_of(groups: Mapping[str, Sequence[RowResult]]) -> str | None:
    """Label of the row the others are compared with: 'baseline', else the first row of that method."""
    if "baseline" in groups:
        return "baseline"
    return next((label for label, group in groups.items() if group[0].record.method == "baseline"), None)


def differences(group: Sequence[RowResult], baseline: Sequence[RowResult]) -> dict[str, Cell]:
    """Metric name -> Cell of (row - baseline), paired by seed: only seeds that both have, with both values."""
    base = {result.record.seed: result.record.metrics for result in baseline}
    pairs = [(result.record.metrics, base[result.record.seed]) for result in group if result.record.seed in base]
    names = dict.fromkeys(name for ours, _ in pairs for name in ours)
    return {name: summarise(_minus(ours.get(name), theirs.get(name)) for ours, theirs in pairs) for name in names}


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
