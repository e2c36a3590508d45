"""A comparison as text, Markdown, CSV and JSON. Separate from what is in it. What is missing is `-`, in CSV nothing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from bench.errors import cell_text
from reports.compare.comparison import Comparison, Pair, cell_of
from reports.compare.protocols import GROUPS
from reports.differences import MODELS, SHOWN, WHYS, Difference, tried
from reports.footnotes import some_rows
from reports.render import WIDTH, format_cell, format_ends
from reports.stats import Cell

STEM = "compare"
MOST_ON_TERMINAL = 12  # lines of a group of differences; the files have all
FIELDS = (
    "row", "metric", "a", "a_sd", "a_n", "b", "b_sd", "b_n", "difference", "difference_sd", "difference_n", "low",
    "high", "p", "p_holm", "note",
)  # fmt: skip
TITLES = {"protocol": "Other protocol", "settings": "Other settings", "ran with": "Ran with something else"}


def to_text(found: Comparison, width: int = WIDTH) -> str:
    """For a terminal: what differs, then AP and as many metrics as fit."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Grid

    out = io.StringIO()
    metrics = [name for name in SHOWN if name in found.metrics]
    used = max((len(pair.row) for pair in found.pairs), default=3)
    grid = Grid(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    grid.add_column("row", overflow="fold")
    shown: list[list[str]] = []
    for metric in metrics:
        columns = [[text[i] for text in (_texts(pair, metric) for pair in found.pairs)] for i in range(3)]
        needed = sum(
            2 + max(map(len, [heading, *texts])) for heading, texts in zip(_headings(metric), columns, strict=True)
        )
        if shown and used + needed > width:
            break
        used += needed
        for heading in _headings(metric):
            grid.add_column(heading, justify="right", no_wrap=True)
        shown += columns
    for place, pair in enumerate(found.pairs):
        grid.add_row(pair.row, *(texts[place] for texts in shown))
    console = Console(file=out, width=max(width, used), color_system=None, highlight=False, markup=False, emoji=False)
    for line in _opening(found, most=MOST_ON_TERMINAL):
        console.print(line)
    console.print(grid)
    for note in (*_whys(found), *_legend(found)):
        console.print(note)
    left_out = metrics[len(shown) // 3 :]
    if left_out:
        console.print(f"not shown here, but in {STEM}.md: {', '.join(left_out)}")
    return "\n".join(text.rstrip() for text in out.getvalue().splitlines()) + "\n"


def to_markdown(found: Comparison) -> str:
    """All of it: what differs, then a table of each metric that has intervals, and the notes."""
    parts = ["# A beside B\n"]
    parts += [f"{'  ' * line.startswith('  ')}- {_escaped(line.strip())}" for line in _opening(found)]
    metrics = [name for name in SHOWN if name in found.metrics]
    heads = [heading for metric in metrics for heading in _headings(metric)]
    parts += ["", "| row | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for pair in found.pairs:
        texts = [text for metric in metrics for text in _texts(pair, metric, bold=True)]
        parts.append(f"| {_escaped(pair.row)} | " + " | ".join(texts) + " |")
    parts += ["", *(f"- {_escaped(note)}" for note in (*_whys(found), *_legend(found)))]
    return "\n".join(parts) + "\n"


def to_csv(found: Comparison) -> str:
    """A line per row and metric, all digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    for pair in found.pairs:
        for metric in found.metrics:
            one = pair.difference.get(metric)
            cells = (cell_of(pair, "a", metric), cell_of(pair, "b", metric), one.cell if one else Cell(None, None, 0))
            numbers: list[object] = [value for cell in cells for value in (cell.mean, cell.sd, cell.n)]
            ends = one.plain(metric) if one else {}
            numbers += [ends.get(name) for name in ("low", "high", "p", "p_holm")]
            writer.writerow([cell_text(pair.row), metric, *numbers, pair.why])
    return out.getvalue()


def to_json(found: Comparison) -> dict[str, Any]:
    """{a, b, differ: [{group, name, values: [{a, b, rows}]}], rows: [{row, seeds, metrics, why}], notes}; None where a
    value is missing."""
    differ = [
        {
            "group": one.group, "name": one.name,
            "values": [{"a": a, "b": b, "rows": list(rows)} for a, b, rows in one.values],
        }
        for one in found.differing
    ]  # fmt: skip
    rows = [
        {
            "row": pair.row,
            "seeds": dict(zip(("a", "b", "both"), map(list, pair.seeds), strict=True)),
            "metrics": {metric: _plain(pair, metric) for metric in found.metrics},
            "why": pair.why or None,
        }
        for pair in found.pairs
    ]
    return {"a": found.names[0], "b": found.names[1], "differ": differ, "rows": rows, "notes": list(found.notes)}


def files_of(found: Comparison) -> dict[str, str]:
    """Name -> text of the files of a comparison."""
    return {
        f"{STEM}.md": to_markdown(found),
        f"{STEM}.csv": to_csv(found),
        f"{STEM}.json": json.dumps(to_json(found), indent=1, allow_nan=False) + "\n",
    }


def _plain(pair: Pair, metric: str) -> dict[str, Any]:
    one = pair.difference.get(metric)
    cells = {"a": cell_of(pair, "a", metric), "b": cell_of(pair, "b", metric)}
    plain: dict[str, Any] = {name: {"mean": c.mean, "sd": c.sd, "n": c.n} for name, c in cells.items()}
    if one is None:
        return {**plain, "difference": None}
    ends = {name: value for name, value in one.plain(metric).items() if name in ("low", "high", "p", "p_holm")}
    return {**plain, "difference": {"mean": one.cell.mean, "sd": one.cell.sd, "n": one.cell.n, **ends}}


def _headings(metric: str) -> tuple[str, str, str]:
    return f"{metric} A", f"{metric} B", "B - A"


def _texts(pair: Pair, metric: str, *, bold: bool = False) -> tuple[str, str, str]:
    a, b = (format_cell(cell_of(pair, side, metric)) for side in "ab")
    return a, b, _difference(pair.difference.get(metric), bold)


def _difference(one: Difference | None, bold: bool) -> str:
    if one is None:
        return "-"
    text = format_cell(Cell(one.cell.mean, one.cell.sd if one.interval is None else None, one.cell.n), signed=True)
    if bold:
        return (f"**{text}**" if one.certain else text) + format_ends(one)
    return f"{text}{format_ends(one)}{'!' if one.certain else ' '}"


def _opening(found: Comparison, most: int | None = None) -> list[str]:
    lines = [f"{side}: {name}" for side, name in zip("AB", found.names, strict=True)]
    for group in GROUPS:
        of = [str(one) for one in found.differing if one.group == group]
        if of:
            lines += [f"{TITLES[group]}:", *(f"  {text}" for text in of[:most])]
            more = 0 if most is None else len(of) - most
            lines += [f"  and {more} more, see {STEM}.md"] if more > 0 else []
    if not found.differing and any(pair.seeds[0] and pair.seeds[1] for pair in found.pairs):
        lines.append("nothing differs in protocol, settings, versions or machine")
    return [*lines, *found.notes]


def _whys(found: Comparison) -> list[str]:
    of: dict[str, list[str]] = {}
    for pair in found.pairs:
        if pair.why and not pair.why.startswith("only in"):
            of.setdefault(pair.why, []).append(pair.row)
    return [f"{', '.join(rows)}: {why}" for why, rows in of.items()]


def _legend(found: Comparison) -> Sequence[str]:
    ones = [one for pair in found.pairs for one in pair.difference.values()]
    notes = []
    if any(one.interval for one in ones):
        rows = max(tried({pair.row: pair.difference for pair in found.pairs}, metric) for metric in SHOWN)
        what = (
            f"B - A [low, high]: 95 % interval over val images, and over seeds where there are several, else {MODELS}"
        )
        notes = [
            f"{what} (bootstrap and jackknife, paired); ! or bold: without 0 after Holm's correction over at most "
            f"{rows} row{'s' * (rows > 1)}; each metric by itself, at 5 %"
        ]
    elif ones:
        notes = ["B - A: paired by seed"]
    if found.undrawn:
        what = "no interval, as nothing was kept to make it from: `report` of the side that lacks it makes that"
        notes.append(f"{some_rows(found.undrawn)}: {what}")
    if found.alike:
        notes.append(f"{some_rows(found.alike)}: no interval where {WHYS['alike']}")
    return [*notes, *found.thin]


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("*", r"\*")
