"""Which differences from the baseline are real: each with its interval, and corrected for how many rows were tried.
Separate from tables.py, which has one cell per column, and from intervals.py, which knows one difference at a time.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import cell_text
from bench.evaluation.resample import DRAWS
from reports.intervals import FEWEST_IMAGES, LEVEL, Interval, few, holm, of_difference, of_row
from reports.load import RowResult
from reports.stats import Cell, bases_of, by_row, differences, metrics_of

SHOWN = ("AP", "AP1", "AP2", "AP3", "AP4", "APr", "APc", "APf")
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

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        low, high = _ends(self.interval)
        p = None if self.interval is None else self.interval.p
        return {"base": self.base, "difference": self.cell.mean, "low": low, "high": high, "p": p, "p_holm": self.holm}


Found = Mapping[str, Mapping[str, Difference]]


def certain(rows: Sequence[RowResult], order: Sequence[str] = (), metrics: Sequence[str] = SHOWN) -> Found:
    """Row -> metric -> Difference, of every row that has one to be compared with; empty where no row has draws."""
    groups = by_row(rows, order)
    if not any(row.draws is not None for row in rows):
        return {}
    cells = {
        label: (base, differences(groups[label], groups[base]))
        for label, base in bases_of(groups).items()
        if label != base
    }
    found: dict[str, dict[str, Difference]] = {label: {} for label in cells}
    for metric in metrics:
        ends = {label: of_difference(groups[label], groups[base], metric) for label, (base, _) in cells.items()}
        corrected = holm({label: one.p for label, one in ends.items() if one is not None})
        for label, (base, own) in cells.items():
            if metric in own and own[metric].n:
                found[label][metric] = Difference(base, own[metric], ends[label], corrected.get(label))
    return found


def tried(found: Found, metric: str) -> int:
    """How many rows have an interval of a metric: over so many Holm's correction is."""
    return sum(metric in of and of[metric].interval is not None for of in found.values())


def caption(rows: Sequence[RowResult], found: Found) -> tuple[str, ...]:
    """What intervals are of, and where there is none."""
    if not found:
        return ()
    notes = []
    most = max(tried(found, metric) for metric in SHOWN)
    if most:
        seeds = max(len(group) for group in by_row(rows).values())
        over = f"val images and {seeds} seeds" if seeds > 1 else "val images; one seed knows no other training"
        what = f"[low, high]: 95 % interval over {over} ({DRAWS} draws of the images, paired)"
        notes = [f"{what}; bold or !: without 0 after Holm's correction over {most} rows"]
    thin = few(rows, SHOWN)
    if thin:
        listed = ", ".join(f"{metric} ({images} images)" for metric, images in thin.items())
        notes.append(f"no interval, as fewer than {FEWEST_IMAGES} val images show a class of it: {listed}")
    return tuple(notes)


def to_csv(rows: Sequence[RowResult], order: Sequence[str], found: Found) -> str:
    """Long form: a line for each row and metric, full digits; an empty field is no value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    groups = by_row(rows, order)
    for label, group in groups.items():
        own = metrics_of(group)
        for metric in (name for name in SHOWN if name in own and own[name].n):
            ends, apart = of_row(group, metric), found.get(label, {}).get(metric)
            numbers = [own[metric].mean, *_ends(ends)]
            if apart is None:
                further: list[float | str | None] = ["", *[None] * 6]
            else:
                p = None if apart.interval is None else apart.interval.p
                further = [
                    cell_text(apart.base),
                    apart.cell.mean,
                    *_ends(apart.interval),
                    p,
                    apart.holm,
                    str(tried(found, metric)),
                ]
            writer.writerow([cell_text(label), metric, own[metric].n, *_written(numbers), *_written(further)])
    return out.getvalue()


def _ends(one: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if one is None else (one.low, one.high)


def _written(values: Sequence[float | str | None]) -> Iterator[str]:
    for value in values:
        yield "" if value is None else value if isinstance(value, str) else f"{value:.6g}"
