"""`report --official`: the same detections through the official `lvis` package. Separate because it needs that package,
which a run never imports; it compares and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from bench.cli.say import cell
from bench.data.split import open_split
from bench.errors import UserError
from bench.evaluation import official
from bench.evaluation.stored import DETECTIONS, read_detections
from bench.plan.planning import Plan, fresh
from bench.record import Result, format_metric, loads, points
from bench.run.evaluate import RESULT
from bench.store.store import Store

SHOWN = ("AP", "AP50", "AP75", "APr", "APc", "APf")
TOLERANCE = 1e-7  # points; the parity tests hold fractions to 1e-9


@dataclass(frozen=True)
class Compared:
    """One row and seed: points of both evaluators, and the largest difference over all AP metrics."""

    row: str
    seed: int
    ours: dict[str, float | None]
    official: dict[str, float | None]

    @property
    def worst(self) -> float:
        pairs = [(self.ours.get(name), value) for name, value in self.official.items()]
        if any((a is None) != (b is None) for a, b in pairs):
            return float("inf")
        return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def compare(plan: Plan, store: Store) -> list[Compared]:
    """Evaluate every finished row again with the official package.

    Raises:
        UserError: the package is missing (extra `official`), or a file in the store was changed.
    """
    found = []
    for row in plan.rows:
        if row.evaluate is None or not fresh(row.evaluate, store):
            continue
        predict, val = row.evaluate.inputs["predict"], row.evaluate.inputs["val"]
        for stage in (predict, val):
            if not store.verify(stage.key):
                where, hint = str(store.output(stage.key)), "run the suite again: what was changed is made anew"
                raise UserError("a file is not what was written: its sha256 differs", where=where, hint=hint)
        split = open_split(store.output(val.key), None)
        path = store.output(predict.key) / DETECTIONS
        bins = tuple(int(edge) for edge in row.evaluate.spec["bins"])
        again = official.evaluate_boxes(
            split.lvis_json(),
            read_detections(split, store.read(predict.key, DETECTIONS), str(path)),
            bins,
            int(row.evaluate.spec["max_detections"]),
        )
        path = store.output(row.evaluate.key) / RESULT
        ours = loads(Result, store.read(row.evaluate.key, RESULT), str(path)).metrics
        found.append(Compared(row.label, row.seed, ours, points(again.metrics())))
    return found


def show(compared: list[Compared], console: Console) -> bool:
    """Print both evaluators side by side; True if they agree."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("row", "seed", "evaluator", *SHOWN, "largest difference"):
        table.add_column(name, justify="left" if name in ("row", "evaluator") else "right")
    for c in compared:
        table.add_row(
            cell(c.row), str(c.seed), "ours", *(format_metric(c.ours.get(n)) for n in SHOWN), f"{c.worst:.1e}"
        )
        table.add_row("", "", "official", *(format_metric(c.official.get(n)) for n in SHOWN), "")
    console.print(table)
    agree = all(c.worst <= TOLERANCE for c in compared)
    verdict = "agree" if agree else "DIFFER"
    console.print(f"faster-coco-eval and lvis {verdict} on {len(compared)} results (tolerance {TOLERANCE:g} points)")
    return agree
