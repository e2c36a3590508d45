"""Which differences from the baseline or a control are real: each with its interval, and corrected for how many rows
were tried.
Separate from tables.py, which has one cell per column, and from intervals.py, which knows one difference at a time.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import cell_text
from reports.intervals import (
    FEWEST_IMAGES,
    LEVEL,
    Interval,
    few,
    holm,
    none_why,
    of_difference,
    of_row,
)
from reports.load import RowResult
from reports.stats import Cell, bases_of, by_row, differences, metrics_of

SHOWN = ("AP", "AP1", "AP2", "AP3", "AP4", "APr", "APc", "APf")
MODELS = "for these models"  # what an interval of one seed is for
WHYS = {
    "alike": "the difference is the same whichever val images are drawn",
    "undrawn": "nothing is known of other val images for it or for what it is compared with",
}
CERTAIN, UNCORRECTED, OPEN, UNKNOWN = "certain", "without 0, but not after Holm", "not told apart from 0", "no interval"
FIELDS = ("row", "metric", "seeds", "value", "low", "high", "base", "difference", "difference_low", "difference_high",
          "p", "p_holm", "rows_tried")  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """Of a row from the row it is compared with, in points.

    Attributes:
        base: label of that row.
        cell: mean and sd over seeds.
        interval: None where there is none.
        holm: p corrected over all rows with an interval; None without one.
    """

    base: str
    cell: Cell
    interval: Interval | None
    holm: float | None

    @property
    def certain(self) -> bool:
        """The interval is without 0, and stays so when all rows are looked at together."""
        return self.interval is not None and self.holm is not None and self.holm <= 1 - LEVEL

    @property
    def verdict(self) -> str:
        """CERTAIN, UNCORRECTED (the interval is without 0, but 0 comes back with Holm's correction), OPEN, UNKNOWN."""
        if self.interval is None:
            return UNKNOWN
        without_0 = self.interval.low > 0 or self.interval.high < 0
        return CERTAIN if self.certain else UNCORRECTED if without_0 else OPEN

    def plain(self, metric: str) -> dict[str, Any]:
        """For JSON."""
        low, high = _ends(self.interval)
        p = None if self.interval is None else self.interval.p
        found = {"metric": metric, "base": self.base, "difference": self.cell.mean, "low": low, "high": high}
        return found | {"p": p, "p_holm": self.holm}


Found = Mapping[str, Mapping[str, Difference]]  # row -> metric -> Difference
Blocks = Mapping[str, Found]  # delta: from the baseline; against: from a control


def certain(rows: Sequence[RowResult], order: Sequence[str] = (), against: Mapping[str, str] | None = None) -> Blocks:
    """The differences from the baseline (or that of a row's engine) and from controls, of every row that has one to be
    compared with. Holm's correction is over the rows of each.

    Args:
        rows: one result per row and seed.
        order: labels in suite order.
        against: label -> label of the row that it has to beat.

    Returns:
        Empty where no row has draws.
    """
    if not any(row.draws is not None for row in rows):
        return {}
    groups = by_row(rows, order)
    return {"delta": between(groups, bases_of(groups)), "against": between(groups, against or {})}


def between(groups: Mapping[str, Sequence[RowResult]], bases: Mapping[str, str]) -> Found:
    """The differences of some groups of results from others, paired by seed; Holm's correction is over all of them.

    Args:
        groups: name -> results, one per seed.
        bases: name -> name of the group that it is compared with; other groups have no difference.
    """
    cells = {
        label: (bases[label], differences(group, groups[bases[label]]))
        for label, group in groups.items()
        if bases.get(label, label) != label and bases[label] in groups
    }
    found: dict[str, dict[str, Difference]] = {label: {} for label in cells}
    for metric in SHOWN:
        ends = {label: of_difference(groups[label], groups[base], metric) for label, (base, _) in cells.items()}
        corrected = holm({label: one.p for label, one in ends.items() if one is not None})
        for label, (base, own) in cells.items():
            if metric in own and own[metric].n:
                found[label][metric] = Difference(base, own[metric], ends[label], corrected.get(label))
    return found


def tried(found: Found, metric: str) -> int:
    """How many rows have an interval of a metric: over so many Holm's correction is."""
    return sum(metric in of and of[metric].interval is not None for of in found.values())


def caption(rows: Sequence[RowResult], blocks: Blocks) -> tuple[str, ...]:
    """What intervals are of, and where there is none."""
    if not any(blocks.values()):
        return ()
    notes = []
    most = {block: max(tried(found, metric) for metric in SHOWN) for block, found in blocks.items()}
    ends = {"delta": "", "against": " with a control"}
    over_rows = [f"{number} row{'s' * (number > 1)}{ends[block]}" for block, number in most.items() if number]
    if over_rows:
        seeds = max(len(group) for group in by_row(rows).values())
        over = (
            f"val images and {seeds} seeds" if seeds > 1 else f"val images, {MODELS}: one seed knows no other training"
        )
        what = f"[low, high]: 95 % interval over {over} (bootstrap and jackknife, paired)"
        holm_over = f"Holm's correction over at most {' and '.join(over_rows)}; each metric by itself, at 5 %"
        notes = [f"{what}; bold or !: certain, which is without 0 after {holm_over}"]
        one = of_one_seed(blocks) if seeds > 1 else []
        notes += [f"of one seed, and so {MODELS} alone: {', '.join(one)}"] if one else []
    groups, bare = by_row(rows), dict[str, dict[str, None]]()
    for found in blocks.values():
        for why, of in without(groups, found).items():
            listed = (f"{label} ({', '.join(metrics)})" for label, metrics in of.items())
            bare.setdefault(why, {}).update(dict.fromkeys(listed))
    notes += [f"no interval, as {text}: {', '.join(bare[why])}" for why, text in WHYS.items() if why in bare]
    return (*notes, *too_few(rows))


def of_one_seed(blocks: Blocks) -> list[str]:
    """Rows with an interval that knows no other training."""
    ones = ((label, one) for found in blocks.values() for label, of in found.items() for one in of.values())
    return list(dict.fromkeys(label for label, one in ones if one.interval is not None and one.cell.n == 1))


def without(groups: Mapping[str, Sequence[RowResult]], found: Found) -> dict[str, dict[str, list[str]]]:
    """Why (of WHYS, and "few") -> row -> metrics whose difference has no interval for it."""
    whys: dict[str, dict[str, list[str]]] = {}
    for label, of in found.items():
        for metric, one in of.items():
            if one.interval is None:
                why = none_why(groups[label], groups[one.base], metric)
                whys.setdefault(why, {}).setdefault(label, []).append(metric)
    return whys


def too_few(rows: Sequence[RowResult]) -> list[str]:
    """Which metrics are shown by too few images, as notes; none where none is."""
    found = few(rows, SHOWN)
    why = f"no interval, as fewer than {FEWEST_IMAGES} val images show a class of it"
    return [f"{why}: {', '.join(map(_counted, found.items()))}"] if found else []


def _counted(one: tuple[str, tuple[int, int]]) -> str:
    metric, (fewest, most) = one
    return f"{metric} ({most} images)" if fewest == most else f"{metric} ({fewest} to {most} images, by seed)"


def to_csv(rows: Sequence[RowResult], order: Sequence[str], blocks: Blocks) -> str:
    """Long form, six digits; an empty field is no value. A line for each row and metric, with its difference from the
    baseline, and one more where the row has a control, with that from it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    for label, group in by_row(rows, order).items():
        own = metrics_of(group)
        for metric in (name for name in SHOWN if name in own and own[name].n):
            numbers = [own[metric].mean, *_ends(of_row(group, metric))]
            first = [cell_text(label), metric, str(own[metric].n), *_written(numbers)]
            apart = [_further(found, label, metric) for found in blocks.values()]
            for further in [one for one in apart if one is not None] or [("",) * 7]:
                writer.writerow([*first, *further])
    return out.getvalue()


def _further(found: Found, label: str, metric: str) -> tuple[str, ...] | None:
    """The columns of a difference; None where there is none."""
    one = found.get(label, {}).get(metric)
    if one is None:
        return None
    p = None if one.interval is None else one.interval.p
    numbers = [one.cell.mean, *_ends(one.interval), p, one.holm]
    return cell_text(one.base), *_written(numbers), str(tried(found, metric))


def _ends(one: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if one is None else (one.low, one.high)


def _written(values: Sequence[float | None]) -> list[str]:
    return ["" if value is None else f"{value:.6g}" for value in values]
