"""Published figures to compare with. Separate because they are somebody else's: they are read, shown in a column of
their own beside the protocol they were measured under, and never enter a statistic of ours.

A file of published/ is a CSV: first `# field: text` lines (title and protocol), then `row`, one column per metric in
AP points (empty: not published), and `source`.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError, unknown

FOLDER = Path(__file__).resolve().parent / "published"


@dataclass(frozen=True)
class Published:
    """One published table.

    Attributes:
        name: file name without suffix, as `compare_with` names it.
        title: paper and table.
        protocol: field -> text (data, detector, evaluator, max_detections, score_threshold, seeds).
        rows: row label -> metric -> value in points; a metric that was not published is absent.
        sources: row label -> where the figures stand.
    """

    name: str
    title: str
    protocol: Mapping[str, str]
    rows: Mapping[str, Mapping[str, float]]
    sources: Mapping[str, str]

    def of(self, row: str) -> Mapping[str, float]:
        """Figures of one row; case does not matter, a row the paper lacks has none."""
        folded = {label.casefold(): figures for label, figures in self.rows.items()}
        return folded.get(row.casefold(), {})


def names() -> list[str]:
    """The legal values of `compare_with`."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def published(name: str) -> Published:
    """Load one table of published figures.

    Raises:
        UserError: no such table (lists what exists), or a cell that is not a number.
    """
    if name not in names():
        raise unknown("published table", name, names(), where="compare_with", hint=f"add {FOLDER.name}/{name}.csv")
    path = FOLDER / f"{name}.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    head = [line[1:].strip().partition(":") for line in lines if line.startswith("#")]
    protocol = {field.strip(): text.strip() for field, _, text in head}
    rows: dict[str, dict[str, float]] = {}
    sources: dict[str, str] = {}
    for line in csv.DictReader(line for line in lines if not line.startswith("#")):
        label, sources[line["row"]] = line["row"], line["source"]
        cells = {metric: text for metric, text in line.items() if metric not in ("row", "source") and text}
        try:
            rows[label] = {metric: float(text) for metric, text in cells.items()}
        except ValueError as error:
            raise UserError(f"row '{label}': {error}", where=str(path), allowed="numbers or empty cells") from None
    return Published(name, protocol.pop("title", name), protocol, rows, sources)
