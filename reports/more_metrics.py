"""What predictions say beside AP, as one long table and as a short one. Separate from predictions.py, which makes it,
and from the figures of calibration and recall.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from bench.errors import cell_text
from bench.evaluation.calibration import BINS
from bench.evaluation.pooled import PER_CLASS
from bench.evaluation.recall import BUDGETS, told_apart
from reports.load import MoreMetrics, RowResult
from reports.render import format_cell, markdown
from reports.stats import Cell, by_row, summarise

ALL = "AP"  # the group of all classes
BESIDE = ("AP_fixed", "AP_pool", "ECE")  # of a table
FIELDS = ("row", "seed", "group", "metric", "value", "count", "note")


def to_csv(rows: Sequence[RowResult], order: Sequence[str] = ()) -> str:
    """Every seed by itself, in points (x 100), empty where there is nothing to measure; groups are all classes (AP),
    bins of training instances (AP1, ...) and r/c/f (APr, ...).

    ECE, mean_score and true_positives count judged detections; AR@100, AR@300, AR@1000 (proposals), AR_detections,
    AP_pool and AP_fixed count boxes.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    for label, group in by_row(rows, order).items():
        for result in group:
            if result.more is not None:
                writer.writerows((cell_text(label), result.record.seed, *line) for line in _lines(result.more))
    return out.getvalue()


def grid(rows: Sequence[RowResult], order: Sequence[str] = ()) -> tuple[tuple[str, ...], dict[str, list[Cell]]]:
    """Names of columns, and label of a row -> its cells over all classes and seeds, in points; rows that have none are
    left out, and so are budgets of proposals that repeat a smaller one."""
    most = max((r.more.recall.most for r in rows if r.more is not None and r.more.recall is not None), default=0)
    names = (*BESIDE, *(f"AR@{budget}" for budget in told_apart(most)))
    found = {}
    for label, group in by_row(rows, order).items():
        seen = [_of_all(result.more) for result in group if result.more is not None]
        if seen:
            found[label] = [summarise(values) for values in zip(*seen, strict=True)][: len(names)]
    return names, found


def to_markdown(rows: Sequence[RowResult], order: Sequence[str] = ()) -> str:
    """A section of table.md: what predictions say beside AP; nothing where it was not made."""
    names, found = grid(rows, order)
    if not found:
        return ""
    lines = ["| row | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    lines += [f"| {markdown(label)} | " + " | ".join(map(format_cell, cells)) + " |" for label, cells in found.items()]
    note = "- points, all classes; by bin, and what each counts: more_metrics.csv, docs/reading-results.md"
    return "\n".join(["", "## Beside AP", "", *lines, "", note, ""])


def _of_all(more: MoreMetrics) -> list[float | None]:
    """AP-fixed, AP-pool, ECE and AR at each budget, in points."""
    pool, unknown = more.pooled[ALL], (None,) * len(BUDGETS)
    reached = unknown if more.recall is None else more.recall.groups[ALL].proposals
    fractions = (pool.fixed, pool.pool, more.calibration[ALL].ece, *reached)
    return [None if value is None else 100 * value for value in fractions]


def _lines(more: MoreMetrics) -> Iterator[tuple[str, str, str, int, str]]:
    """Group, metric, value, count, note."""
    stored = f"the best {PER_CLASS} of a class among the {more.stored} that an image has at most"
    for name, found in more.calibration.items():
        yield name, "ECE", points(found.ece), found.count, f"{BINS} bins of equal mass"
        yield name, "mean_score", points(found.score), found.count, ""
        yield name, "true_positives", points(found.right), found.count, "IoU 0.5"
        if more.recall is not None:
            reached, most = more.recall.groups[name], more.recall.most
            for budget, value in zip(BUDGETS, reached.proposals, strict=True):
                few = f"no image has more than {most}" if most < budget else ""
                yield name, f"AR@{budget}", points(value), reached.boxes, few
            yield name, "AR_detections", points(reached.detections), reached.boxes, "of the right class"
        pool = more.pooled[name]
        yield name, "AP_pool", points(pool.pool), pool.boxes, stored
        yield name, "AP_fixed", points(pool.fixed), pool.boxes, f"{stored}; what these crowd out is lacking"


def points(fraction: float | None) -> str:
    """0.25 -> 25; nothing for None."""
    return "" if fraction is None else f"{100 * fraction:.6g}"
