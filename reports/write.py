"""Write a suite's whole report into a folder. Separate because it is the one function the command line calls."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UserError
from bench.spec import Figure
from bench.store.disk import make_folder, put
from reports import frames, more_metrics, parquet
from reports.differences import to_csv as intervals_to_csv
from reports.figures import errors as error_figure
from reports.figures import kinds as figures
from reports.figures.canvas import DEFAULT_EDGES, FORMATS
from reports.latex import to_latex, to_protocol
from reports.load import RowResult
from reports.render import to_csv, to_markdown, to_text
from reports.tables import Table, table, to_json

if TYPE_CHECKING:
    from bench.plan.planning import RowPlan


@dataclass(frozen=True)
class Written:
    """What `write` left in the folder.

    Attributes:
        files: tables first, then the figures in the suite's order.
        lacking: a sentence for each figure of the suite that cannot be drawn.
    """

    files: tuple[Path, ...]
    lacking: tuple[str, ...]

    def spoken(self) -> str:
        """table.txt .md .csv, sweep_beta.png .svg .csv"""
        return spoken(self.files)


@dataclass(frozen=True)
class Report(Written):
    """What `write` left, with what its files were written from.

    Attributes:
        table: of all tables.
        figures: with their captions.
    """

    table: Table
    figures: tuple[figures.Drawn, ...]


def spoken(files: Iterable[Path]) -> str:
    """table.txt .md .csv, sweep_beta.png .svg .csv"""
    suffixes: dict[str, list[str]] = {}
    for file in files:
        suffixes.setdefault(file.stem, []).append(file.suffix)
    return ", ".join(f"{stem}{' '.join(of)}" for stem, of in suffixes.items())


def write(
    rows: Sequence[RowResult],
    out: Path,
    suite: str,
    compare_with: str | None = None,
    *,
    order: Sequence[str] = (),
    skipped: Mapping[str, str] | None = None,
    edges: Sequence[int] = DEFAULT_EDGES,
    wanted: Sequence[Figure] = (),
    planned: Sequence[RowPlan] = (),
    beside: Mapping[str, str] | None = None,
    against: Mapping[str, str] | None = None,
    columns: Sequence[str] = (),
    own_figures: Mapping[str, Path] | None = None,
    formats: Sequence[str] = FORMATS,
) -> Report:
    """table.txt, .md, .tex, .csv, .json, .parquet; table_protocol.tex; results.csv, .parquet and per_class.csv
    (reports/frames.py); files of the caller; intervals, error_kinds, confusion, more_metrics.csv where made; figures as
    .png, .svg, .csv.

    Args:
        rows: one result per row and seed; with none, the tables are written and no figure.
        out: folder, made if missing.
        suite: name for titles and captions.
        compare_with: a published table, or None.
        order: labels in suite order.
        skipped: label -> reason.
        edges: edges of the instance bins.
        wanted: the suite's figures; () draws AP by bin, weight norms and error costs.
        planned: the suite's rows with their settings, done or not.
        beside: name -> text of more files to lay beside the tables.
        against: label -> label of the row that it has to beat.
        columns: of table.tex, see `reports.latex.to_latex`.
        own_figures: kind -> file, see `reports.figures.own`.
        formats: of figures.

    Raises:
        UserError: no such column, no such published table, or `out` cannot be written.
    """
    content = table(rows, suite=suite, compare_with=compare_with, order=order, skipped=skipped, against=against)
    plain = to_json(rows, compare_with=compare_with, order=order, skipped=skipped, against=against)
    texts: dict[str, str | bytes] = {
        "table.txt": to_text(content),
        "table.md": to_markdown(content) + more_metrics.to_markdown(rows, order),
        "table.tex": to_latex(content, columns, suite.split(":")[0]),
        "table_protocol.tex": to_protocol(content),
        "table.csv": to_csv(content),
        "table.json": json.dumps(plain, indent=1, allow_nan=False) + "\n",
        "table.parquet": parquet.of_table(content),
        "results.csv": frames.to_csv(row.record for row in rows),
        "results.parquet": parquet.of_results(row.record for row in rows),
        "per_class.csv": frames.per_class_to_csv(row.record for row in rows),
        **(beside or {}),
    }
    if content.certain or any(row.draws is not None for row in rows):
        texts["intervals.csv"] = intervals_to_csv(rows, order, content.certain)
    if any(row.errors is not None for row in rows):
        texts |= {"error_kinds.csv": error_figure.to_csv(rows, order)}
        texts |= {"confusion.csv": error_figure.confusion_csv(rows, order)}
    if any(row.more is not None for row in rows):
        texts |= {"more_metrics.csv": more_metrics.to_csv(rows, order)}
    with writing(out):
        make_folder(out)
        for name, text in texts.items():
            put(out / name, text if isinstance(text, bytes) else text.encode())
        drawn, lacking = figures.draw(
            rows, out, wanted, suite=suite, order=order, edges=edges, planned=planned, own=own_figures, formats=formats
        )  # fmt: skip
    files = (*(out / name for name in texts), *(file for one in drawn for file in one.files))
    return Report(files, tuple(lacking), content, tuple(drawn))


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Errors of the disk below a report's folder, as a UserError that names it."""
    try:
        yield
    except UserError as error:
        hint = error.hint or "--out FOLDER"
        raise UserError(f"cannot be written: {error.what}", where=error.where, hint=hint) from error
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror or error}", where=str(out), hint="--out FOLDER") from error
