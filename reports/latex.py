r"""A Table for a paper: booktabs, the columns that are asked for, a short caption, and the protocol in another file.
Separate from render.py, whose forms have all columns and all footnotes.

A column is named after its metric: `AP1` is ours, `dAP1` the difference from the baseline, `cAP1` that from a row's
control, `pAP1` the published figure. A difference has its interval where there is one, else its spread, and is bold
where it is certain (reports/differences.py). How wide it comes out is estimated, so that it fits a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise

from bench.errors import printable, unknown
from reports.differences import MODELS
from reports.figures.canvas import bins_of
from reports.footnotes import MARK, some_rows
from reports.render import Column, format_cell, notes_under, reasons, row_name, value_text
from reports.stats import Cell
from reports.tables import Line, Table

BLOCKS = {"": "own", "d": "delta", "c": "against", "p": "paper"}  # prefix of a name -> block
# Points: the text of LaTeX's article in two columns on letter paper, and one of them (CVPR's have 496 and 237).
PAGE, COLUMN = 469.0, 229.0
# Type, its size (as wide as 9 and 8 points of Computer Modern are, whose small sizes are wider), space between columns.
SIZES = ((r"\small", 9.25, 4.0), (r"\footnotesize", 8.5, 3.0))  # smaller is not read
BESIDE = 8.0  # \scriptsize: spreads and intervals
# Widths in Computer Modern Roman, in its size.
NARROW, HYPHEN, DIGIT, SIGN, SMALL, CAPITAL, BOLD = 0.28, 0.33, 0.5, 0.78, 0.52, 0.75, 1.15
LATIN = 0x17F  # the last of Unicode's Latin letters that pdfLaTeX composes
ESCAPED = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
           "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$",
           "Δ": r"$\Delta$", "†": r"\textdagger{}", "<": r"\textless{}", ">": r"\textgreater{}",
           "|": r"\textbar{}", "`": r"\textasciigrave{}"}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A cell: its number, what stands beside it in small type (spread or interval), and whether it is bold."""

    number: str
    beside: str = ""
    strong: bool = False

    def tex(self) -> str:
        """As TeX prints it."""
        number = rf"\textbf{{{_minus(self.number)}}}" if self.strong else _minus(self.number)
        return f"{number} {{\\scriptsize {_minus(self.beside)}}}" if self.beside else number

    def points(self, size: float) -> float:
        """Its width, estimated."""
        number = _ems(_wide(self.number)) * (BOLD if self.strong else 1.0) * size
        return number + (0.33 * size + _ems(_wide(self.beside)) * BESIDE if self.beside else 0.0)


def to_latex(table: Table, names: Sequence[str] = (), label: str = "results") -> str:
    r"""The file table.tex, to be read by \input; its first lines say which packages it needs.

    Args:
        table: any.
        names: of the columns, in order; (): AP, the bins, the differences of AP, and the same of the published block.
        label: of \label{tab:...}.

    Raises:
        UserError: no such column.
    """
    columns, left_out = _that_fit(table, names)
    (style, _, space), width = _size(table, columns)
    blocks = [(block, len(list(of))) for block, of in groupby(columns, key=lambda column: column[0])]
    star = "*" if width > COLUMN else ""
    lines = [r"% Needs \usepackage{booktabs}. The protocol is in table_protocol.tex, for an appendix."]
    if strange := _strange(table):
        lines.append(f"% For LuaLaTeX or XeLaTeX with a font that has them; pdfLaTeX lacks: {strange}")
    if left_out:
        lines.append(
            f"% Left out, so that it fits: {' '.join(left_out)}. Columns are chosen by: bench report --columns"
        )
    if width > PAGE:
        lines.append(f"% About {width:.0f} pt wide, wider than a page: choose fewer with bench report --columns")
    lines += [
        rf"\begin{{table{star}}}", rf"\centering{style}\setlength{{\tabcolsep}}{{{space:g}pt}}",
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
        lines.append(" & ".join([tex(row_name(line)), *(_cell(table, line, c).tex() for c in columns)]) + r" \\")
    lines += [
        r"\bottomrule", r"\end{tabular}", rf"\caption{{{' '.join(map(tex, _caption(table, columns, label)))}}}",
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


def _that_fit(table: Table, names: Sequence[str]) -> tuple[list[Column], list[str]]:
    """The columns, and the names of those that the usual choice leaves out of a page: published bins, between the
    rarest and the most frequent first."""
    columns = chosen(table, names)
    published = [column for column in columns if column[0] == "paper"]
    spare = [] if names else list(dict.fromkeys((*published[2:-1], *published[1:][-1:], *published[1:2])))
    out: list[Column] = []
    fewer = columns
    while spare and _size(table, fewer)[1] > PAGE:
        out.append(spare.pop(0))
        fewer = [column for column in columns if column not in out]
    if _size(table, fewer)[1] > PAGE:  # in vain
        return columns, []
    return fewer, [f"p{metric}" for _, metric in sorted(out, key=lambda column: column[1])]


def _size(table: Table, columns: Sequence[Column]) -> tuple[tuple[str, float, float], float]:
    """The largest type in which it fits, else the smallest, and how wide the table is in it."""
    for style in SIZES:
        width = _points(table, columns, style[1], style[2])
        if width <= PAGE:
            break
    return style, width


def _points(table: Table, columns: Sequence[Column], size: float, space: float) -> float:
    """Width of the table, estimated."""
    wide = [
        max([_ems(metric) * size, *(_cell(table, line, (block, metric)).points(size) for line in table.lines)])
        for block, metric in columns
    ]
    total = (
        max((_ems(row_name(line)) * size for line in table.lines), default=0.0) + sum(wide) + 2 * space * len(columns)
    )
    at = 0
    for block, of in groupby(columns, key=lambda column: column[0]):
        number = len(list(of))
        title = _ems({"own": "ours", "paper": "published"}.get(block) or f"D {_whom(table, block)}") * size
        total += max(0.0, title - sum(wide[at : at + number]) - 2 * space * (number - 1))
        at += number
    return total


def _ems(text: str) -> float:
    """Width of a text in its size."""
    return sum(
        DIGIT if c.isdigit() else NARROW if c in ".,[]() " else HYPHEN if c == "-" else CAPITAL if c.isupper()
        else SMALL if c.isalpha() else SIGN
        for c in text
    )  # fmt: skip


def _cell(table: Table, line: Line, column: Column) -> Entry:
    block, metric = column
    one = table.certain.get(block, {}).get(line.row, {}).get(metric)
    if one is None or one.interval is None:
        number, _, spread = value_text(line, column).partition(" ")
        return Entry(number, spread.replace("± ", "±"))
    mean = format_cell(Cell(one.cell.mean, None, one.cell.n), signed=True)
    return Entry(mean, f"[{one.interval.low:.1f}, {one.interval.high:.1f}]", one.certain)


def _caption(table: Table, columns: Sequence[Column], label: str) -> list[str]:
    seeds = sorted({len(line.seeds) for line in table.lines if line.seeds})
    over = (
        f", mean ± sample standard deviation over {seeds[-1]} seeds" if seeds and seeds[-1] > 1 else ", one run a row"
    )
    title = table.title.removeprefix(label).removeprefix(": ")
    said = [*([title if title.endswith(".") else f"{title}."] if title else []), f"Box AP (points){over}."]
    if any(table.certain.get(block) for block, _ in columns):
        models = f", {MODELS}" if seeds and seeds[-1] == 1 else ""
        bold = "without 0 after Holm's correction over the rows, each metric by itself"
        said.append(f"Differences have 95 % intervals{models}; bold: {bold}.")
    if len(table.controls) > 1 and any(block == "against" for block, _ in columns):
        rows = {control: [line.row for line in table.lines if line.control == control] for control in table.controls}
        whose = "; ".join(f"{control} for {some_rows(of)}" for control, of in rows.items())
        said.append(f"The control is not the same for all rows: {whose}.")
    if any(block == "paper" for block, _ in columns):
        said.append("Published figures were measured under another protocol.")
    said += [f"{note}." for note in table.footnotes if note.startswith(MARK)]
    if any(line.skipped for line in table.lines):
        said.append("*: no result.")
    return said


def _title(table: Table, block: str) -> str:
    named = {"own": "ours", "paper": "published"}.get(block)
    return named or rf"$\Delta$ {tex(_whom(table, block))}"


def _whom(table: Table, block: str) -> str:
    """What a difference is from."""
    if block == "delta":
        return table.baseline or ""
    return table.controls[0] if len(table.controls) == 1 else "control"


def _plain(label: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in label).strip("-") or "results"


def _wide(text: str) -> str:
    """A number with the minus sign that it is printed with, which is wider than a hyphen."""
    return text.replace("-", "\N{MINUS SIGN}")


def _minus(text: str) -> str:
    """A number with its spread or interval, whose hyphens are minus signs; `-`, no number, is a dash."""
    return "--" if text == "-" else tex(text).replace("-", "$-$")


def _strange(table: Table) -> str:
    """Characters of names that pdfLaTeX does not know: those beyond the Latin letters."""
    texts = "".join([table.title, *(row_name(line) for line in table.lines)])
    return "".join(sorted({c for c in printable(texts) if ord(c) > LATIN and c not in ESCAPED}))


def tex(text: str) -> str:
    """A text as TeX prints it."""
    return "".join(ESCAPED.get(character, character) for character in printable(text))
