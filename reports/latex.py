r"""A Table for a paper: booktabs, the columns that are asked for, a short caption, and the protocol in another file.
Separate from render.py, whose forms have all columns and all footnotes.

A column is named after its metric: `AP1` is ours, `dAP1` the difference from the baseline, `cAP1` that from a row's
control, `pAP1` the published figure. A difference has its interval where there is one, else its spread, and is bold
where it is certain (reports/differences.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, groupby, pairwise

from bench.errors import printable, unknown
from reports.figures.canvas import bins_of
from reports.footnotes import MARK
from reports.render import Column, format_cell, notes_under, reasons, row_name, value_text
from reports.stats import Cell
from reports.tables import Line, Table

BLOCKS = {"": "own", "d": "delta", "c": "against", "p": "paper"}  # prefix of a name -> block
WIDE = 7  # columns of numbers; more go over both columns of a page (table*)
ESCAPED = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
           "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$",
           "Δ": r"$\Delta$", "†": r"\textdagger{}", "<": r"\textless{}", ">": r"\textgreater{}"}  # fmt: skip


def to_latex(table: Table, names: Sequence[str] = (), label: str = "results") -> str:
    r"""The file table.tex, to be read by \input; its first lines say which packages it needs.

    Args:
        table: any.
        names: of the columns, in order; (): AP, the bins, the differences of AP, and the same of the published block.
        label: of \label{tab:...}.

    Raises:
        UserError: no such column.
    """
    columns = chosen(table, names)
    blocks = [(block, len(list(of))) for block, of in groupby(columns, key=lambda column: column[0])]
    star = "*" if len(columns) > WIDE else ""
    lines = [
        r"% Needs \usepackage{booktabs}. The protocol is in table_protocol.tex, for an appendix.",
        rf"\begin{{table{star}}}", r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\begin{{tabular}}{{@{{}}l{'r' * len(columns)}@{{}}}}", r"\toprule",
    ]  # fmt: skip
    if len(blocks) > 1:
        spans = [rf"\multicolumn{{{count}}}{{c}}{{{_title(table, block)}}}" for block, count in blocks]
        lines.append(" & ".join(["", *spans]) + r" \\")
        ends = list(accumulate((count for _, count in blocks), initial=1))
        lines.append(" ".join(rf"\cmidrule(lr){{{a + 1}-{b}}}" for a, b in pairwise(ends)))
    lines.append(" & ".join(["", *(tex(metric) for _, metric in columns)]) + r" \\")
    lines.append(r"\midrule")
    for line in table.lines:
        lines.append(" & ".join([tex(row_name(line)), *(_cell(table, line, c) for c in columns)]) + r" \\")
    lines += [
        r"\bottomrule", r"\end{tabular}", rf"\caption{{{' '.join(map(tex, _caption(table, columns)))}}}",
        rf"\label{{tab:{_plain(label)}}}", rf"\end{{table{star}}}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def to_protocol(table: Table) -> str:
    """The file table_protocol.tex: what stands below the table in its other forms, a paragraph each."""
    notes = [*table.certain_notes, *reasons(table), *notes_under(table)]
    said = [tex(note if note.endswith(".") else f"{note}.") for note in notes]
    return "\n\n".join([r"% To be read by \input.", *said]) + "\n"


def chosen(table: Table, names: Sequence[str]) -> list[Column]:
    """The columns by these names; see `to_latex`. One that no row has is a column of dashes.

    Raises:
        UserError: no such column.
    """
    have = {f"{prefix}{metric}": (block, metric) for prefix, block in BLOCKS.items() for metric in table.metrics}
    for name in names:
        if name not in have:
            raise unknown("column", name, have, where="columns")
    if names:
        return [have[name] for name in names]
    bins = bins_of(_filled(table, "own"))
    found: list[Column] = [("own", metric) for metric in bins]
    found += [(block, "AP") for block in ("delta", "against") if "AP" in _filled(table, block)]
    return found + [("paper", metric) for metric in table.paper_metrics if metric in bins]


def _filled(table: Table, block: str) -> list[str]:
    return [metric for metric in table.metrics if any(line.cell(block, metric).n for line in table.lines)]


def _cell(table: Table, line: Line, column: Column) -> str:
    block, metric = column
    one = table.certain.get(block, {}).get(line.row, {}).get(metric)
    if one is None or one.interval is None:
        return tex(value_text(line, column))
    mean = format_cell(Cell(one.cell.mean, None, one.cell.n), signed=True)
    ends = f"[{one.interval.low:+.1f}, {one.interval.high:+.1f}]"
    strong = rf"\textbf{{{mean}}}" if one.certain else mean
    return f"{strong} {ends}"


def _caption(table: Table, columns: Sequence[Column]) -> list[str]:
    seeds = sorted({len(line.seeds) for line in table.lines if line.seeds})
    over = (
        f", mean ± sample standard deviation over {seeds[-1]} seeds" if seeds and seeds[-1] > 1 else ", one run a row"
    )
    said = [f"{table.title}: box AP (points){over}."]
    if any(table.certain.get(block) for block, _ in columns):
        said.append("Differences have 95 % intervals; bold: without 0 after Holm's correction over the rows.")
    if any(block == "paper" for block, _ in columns):
        said.append("Published figures were measured under another protocol.")
    said += [f"{note}." for note in table.footnotes if note.startswith(MARK)]
    if any(line.skipped for line in table.lines):
        said.append("*: no result.")
    return said


def _title(table: Table, block: str) -> str:
    if block == "delta":
        return rf"$\Delta$ {tex(table.baseline or '')}"
    if block == "against":
        return rf"$\Delta$ {tex(table.controls[0] if len(table.controls) == 1 else 'control')}"
    return {"own": "ours", "paper": "published"}[block]


def _plain(label: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in label).strip("-") or "results"


def tex(text: str) -> str:
    """A text as TeX prints it."""
    return "".join(ESCAPED.get(character, character) for character in printable(text))
