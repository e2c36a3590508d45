"""A Table as terminal text, Markdown or CSV. Separate from reports/tables.py, which decides what is in it, and from
latex.py, whose table is for a paper.

A missing value is `-` in every form (empty in CSV beside n = 0); a published figure stands under a heading of its own.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.errors import cell_text, printable
from reports.agreement import sentences
from reports.differences import SHOWN, Difference, tried
from reports.footnotes import MARK
from reports.stats import Cell
from reports.tables import WANTED, Line, Table

if TYPE_CHECKING:
    from rich.table import Table as Grid

Column = tuple[str, str]  # (block, metric), block one of own, delta, against, paper
Value = str | int | float | None
WIDTH = 110  # characters; terminals of 100-120 are common


def to_text(table: Table, width: int = WIDTH, most: int | None = None) -> str:
    """For a terminal: the most wanted columns that fit, what was left out, the footnotes; `most`: rows at most."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Grid

    columns, left_out = _fitting(table, width)
    grid = Grid(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    grid.add_column("row", overflow="fold", max_width=_label_width(table, width))
    for block, metric in columns:
        grid.add_column(column_name(block, metric, "\n"), justify="right", no_wrap=True)
    for line in table.lines[:most]:
        grid.add_row(row_name(line), *(value_text(line, column) for column in columns))
    out = io.StringIO()
    # A cut number is a wrong number: rather a wider line than "30…".
    width = max(width, grid.__rich_measure__(Console(width=1000), Console(width=1000).options).maximum)
    console = Console(file=out, width=width, color_system=None, highlight=False, markup=False, emoji=False)
    console.print(printable(table.title))
    console.print(grid)
    for block, found in table.certain.items():
        if any(tried(found, metric) for metric in SHOWN):
            console.print(_certain_grid(table, block, width, most))
    for note in table.certain_notes:
        console.print(printable(note), soft_wrap=False)
    notes = [*reasons(table), *notes_under(table)]
    notes += [f"not shown here, but in the CSV and Markdown: {', '.join(left_out)}"] if left_out else []
    if most is not None and len(table.lines) > most:
        notes.insert(0, f"and {len(table.lines) - most} more rows: see table.txt of the report")
    for note in notes:
        console.print(printable(note), soft_wrap=False)
    return "\n".join(text.rstrip() for text in out.getvalue().splitlines()) + "\n"


def to_markdown(table: Table) -> str:
    """All own metrics, the published block, the differences from the baseline and from controls, the footnotes."""
    parts = [f"# {markdown(table.title)}\n", _markdown_grid(table, _all_columns(table))]
    parts += [f"- {markdown(note.removeprefix('* '))}" for note in (*reasons(table), *notes_under(table))]
    if table.baseline and any(line.delta for line in table.lines):
        wanted = [m for m in table.metrics if any(line.cell("delta", m).n for line in table.lines)]
        parts += [f"\n## Difference from {markdown(table.baseline)}, paired by seed\n"]
        parts += [_markdown_grid(table, [("delta", metric) for metric in wanted])]
        parts += [f"- {markdown(note)}" for note in table.certain_notes]
    if table.controls:
        of = markdown(table.controls[0]) if len(table.controls) == 1 else "the control of each row"
        wanted = [m for m in table.metrics if any(line.cell("against", m).n for line in table.lines)]
        parts += [f"\n## Difference from {of}, paired by seed\n"]
        parts += [_markdown_grid(table, [("against", metric) for metric in wanted])]
    return "\n".join(parts) + "\n"


def to_csv(table: Table) -> str:
    """Everything, as `flat` has it; text so that a spreadsheet takes it as text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names, lines = flat(table)
    writer.writerow(names)
    for line in lines:
        writer.writerow([cell_text(value) if isinstance(value, str) else value for value in line])
    return out.getvalue()


def flat(table: Table) -> tuple[list[str], list[list[Value]]]:
    """Names of columns and lines of values, in six digits: metric, metric_sd, metric_n, delta_metric (with _sd, _n),
    paper_metric; where rows have a control, its label and against_metric (with _sd, _n)."""
    blocks: list[Column] = [("own", m) for m in table.metrics] + [("delta", m) for m in table.metrics]
    blocks += [("against", m) for m in table.metrics] if table.controls else []
    names = [f"{'' if b == 'own' else f'{b}_'}{m}{end}" for b, m in blocks for end in ("", "_sd", "_n")]
    marked = any(line.mark for line in table.lines)
    names = [*(["mark"] if marked else []), *(["control"] if table.controls else []), *names]
    lines: list[list[Value]] = []
    for line in table.lines:
        figures = [value for column in blocks for value in _values(line.cell(*column))]
        more = [*([line.mark] if marked else []), *([line.control or ""] if table.controls else [])]
        texts = [line.row, " ".join(map(str, line.seeds)), line.skipped or "", *more]
        lines.append([*texts, *figures, *(_rounded(line.paper.get(metric)) for metric in table.paper_metrics)])
    return ["row", "seeds", "skipped", *names, *(f"paper_{m}" for m in table.paper_metrics)], lines


def _values(cell: Cell) -> tuple[Value, Value, Value]:
    return _rounded(cell.mean), _rounded(cell.sd), cell.n


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)


def format_cell(cell: Cell, *, signed: bool = False) -> str:
    """`24.8`, `24.8 ± 0.4`, `+1.2`, or `-` for a value that is missing. AP points, one decimal."""
    if cell.mean is None:
        return "-"
    rounded = round(cell.mean, 1) + 0.0  # no "-0.0"
    mean = f"{rounded:+.1f}" if signed and rounded else f"{rounded:.1f}"
    return mean if cell.sd is None else f"{mean} ± {cell.sd:.1f}"


def format_ends(one: Difference | None) -> str:
    """` [+4.1, +9.3]`, or nothing for a difference without an interval."""
    return "" if one is None or one.interval is None else f" [{one.interval.low:+.1f}, {one.interval.high:+.1f}]"


def _emphasised(table: Table, line: Line, column: Column) -> str:
    """For Markdown: a difference with its interval, bold where it is certain."""
    block, metric = column
    text = value_text(line, column)
    one = table.certain.get(block, {}).get(line.row, {}).get(metric)
    if one is None:
        return text
    return (f"**{text}**" if one.certain else text) + format_ends(one)


def _certain_grid(table: Table, block: str, width: int, most: int | None) -> Grid:
    """Differences of a block with their intervals, as many metrics as fit; ! where one is certain."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as Grid

    found = table.certain[block]
    rows = [line for line in table.lines if found.get(line.row)][:most]
    cells = {
        column_name(block, metric, " "): [_certain_value(found[line.row].get(metric)) for line in rows]
        for metric in SHOWN
        if tried(found, metric)
    }
    grid = Grid(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    grid.add_column("row", overflow="fold", max_width=_label_width(table, width))
    used, shown = _label_width(table, width), list[str]()
    for heading, texts in cells.items():
        used += 2 + max(map(len, [*texts, heading]))
        if shown and used > width:
            break
        shown.append(heading)
        grid.add_column(heading, justify="right", no_wrap=True)
    for place, line in enumerate(rows):
        grid.add_row(row_name(line), *(cells[heading][place] for heading in shown))
    return grid


def _certain_value(one: Difference | None) -> str:
    if one is None:
        return "-"
    mean = format_cell(Cell(one.cell.mean, None, one.cell.n), signed=True)
    return f"{mean}{format_ends(one)}{'!' if one.certain else ' '}"


def _fitting(table: Table, width: int) -> tuple[list[Column], list[str]]:
    """Columns by priority while they fit, in the order own, delta, against, paper; and the names of the others."""
    everything: list[Column] = [("own", m) for m in table.metrics]
    everything += [("delta", "AP")] if table.baseline and len(table.lines) > 1 else []
    everything += [("against", "AP")] if table.controls else []
    everything += _paper(table)
    full = [column for column in everything if any(line.cell(*column).n for line in table.lines)]
    used = _label_width(table, width)
    chosen: list[Column] = []
    for column in [c for c in WANTED if c in full] + [c for c in full if c not in WANTED]:
        needed = max(len(part) for part in column_name(*column, "\n").split("\n"))
        needed = 2 + max([needed, *(len(value_text(line, column)) for line in table.lines)])
        if chosen and used + needed > width:
            break
        used += needed
        chosen.append(column)
    # Values that no row has (masks, accuracy without a background score) are not worth a line in a terminal.
    left_out = [column_name(*column, " ") for column in full if column not in chosen]
    return [column for column in everything if column in chosen], left_out


def _label_width(table: Table, width: int) -> int:
    """A long label of a sweep goes over two lines rather than push AP off the screen."""
    longest = max((len(row_name(line)) for line in table.lines), default=3)
    return max(3, min(longest, max(20, width // 3)))


def column_name(block: str, metric: str, gap: str) -> str:
    """Header of a column; `gap` stands between its words."""
    control = f"Δ{metric}{gap}control"
    return {"own": metric, "delta": f"Δ{metric}", "against": control, "paper": f"paper{gap}{metric}"}[block]


def value_text(line: Line, column: Column) -> str:
    """A cell as it is printed; how many seeds it is of, where they are fewer than the row's."""
    block, metric = column
    if block == "paper":
        figure = line.paper.get(metric)
        return "-" if figure is None else f"{figure:.2f}"  # as published
    cell = line.cell(block, metric)
    fewer = f" (n={cell.n})" if 0 < cell.n < len(line.seeds) else ""
    return format_cell(cell, signed=block in ("delta", "against")) + fewer


def markdown(text: str) -> str:
    """A text that Markdown shows as it is: no table cell ends in it, nothing is emphasised, linked, set as a formula or
    taken for HTML."""
    for character in "\\|*`<$":
        text = text.replace(character, f"\\{character}")
    return printable(text).replace("](", r"]\(")


def row_name(line: Line) -> str:
    """The label, with a mark where something is said of the row below."""
    return " ".join([printable(line.row), *(["*"] if line.skipped else []), *([MARK] if line.mark else [])])


def _all_columns(table: Table) -> list[Column]:
    return [("own", metric) for metric in table.metrics] + _paper(table)


def _paper(table: Table) -> list[Column]:
    return [("paper", m) for m in table.paper_metrics if not m.startswith("ACC")]


def _markdown_grid(table: Table, columns: Sequence[Column]) -> str:
    rows = ["| row | seeds | " + " | ".join(column_name(*column, " ") for column in columns) + " |"]
    rows.append("|---|---|" + "---:|" * len(columns))
    for line in table.lines:
        seeds = str(len(line.seeds)) if line.seeds else "-"
        cells = [markdown(row_name(line)), seeds]
        cells += [_emphasised(table, line, c) for c in columns]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def reasons(table: Table) -> list[str]:
    """Why rows have no number."""
    found: dict[str, list[str]] = {}
    for line in table.lines:
        if line.skipped:
            found.setdefault(line.skipped, []).append(line.row)
    return [f"* {', '.join(labels)}: {reason}" for reason, labels in found.items()]


def notes_under(table: Table) -> list[str]:
    """All that stands under a table, but for why rows have no number."""
    return [*([table.caption] if table.caption else []), *map(sentences, table.agreements), *table.footnotes]
