"""What a tracker shows of a row beside mean and sd over its seeds: intervals, and differences from the baseline and
from its control. Separate from differences.py, whose words and files are for a report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.differences import SHOWN
from reports.intervals import Interval, of_difference, of_row
from reports.load import RowResult
from reports.stats import bases_of, by_row, differences


def numbers(rows: Sequence[RowResult], order: Sequence[str], against: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """label -> name -> points.

    `AP_low` and `AP_high` are the ends of the 95 % interval of AP (reports/intervals.py); `dAP`, `dAP_sd`, `dAP_low`,
    `dAP_high` mean, sd over seeds and interval of the difference from the baseline; `cAP` ... from the control. What is
    not known has no name here.

    Args:
        rows: one result per row and seed.
        order: labels in suite order.
        against: label -> label of its control.
    """
    groups = by_row(rows, order)
    bases = {"d": bases_of(groups), "c": against}
    found: dict[str, dict[str, float]] = {}
    for label, group in groups.items():
        own: dict[str, float] = {}
        for metric in SHOWN:
            own |= _ends(metric, of_row(group, metric))
            for letter, base_of in bases.items():
                base = base_of.get(label, label)
                if base != label and base in groups:
                    own |= _difference(f"{letter}{metric}", group, groups[base], metric)
        found[label] = own
    return found


def _difference(name: str, group: Sequence[RowResult], base: Sequence[RowResult], metric: str) -> dict[str, float]:
    cell = differences(group, base).get(metric)
    if cell is None or cell.mean is None:
        return {}
    found = {name: cell.mean} | ({f"{name}_sd": cell.sd} if cell.sd is not None else {})
    return found | _ends(name, of_difference(group, base, metric))


def _ends(name: str, interval: Interval | None) -> dict[str, float]:
    return {} if interval is None else {f"{name}_low": interval.low, f"{name}_high": interval.high}
