"""A report as one HTML file that needs nothing else: no network, no server, and no script to be read.

Separate from what stands in it (reports/page/content.py): `render` takes a `Page`, plain values, and returns text.
Texts may hold anything; all are `printable` and escaped, and the page's policy forbids every script, style and address
but its own.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.errors import printable
from reports.page.inline_svg import inlined, width_of
from reports.page.lineage_graph import Box, drawn

HALF_SHEET = 800.0  # points of a figure that can still be read on half the width of A4 landscape
TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Column:
    """Of a `Grid`.

    Attributes:
        name: header.
        number: right-aligned, and sorted by the values of its entries; else by their text.
        block: which choice of `Grid.blocks` shows it; "" is always shown.
        extra: shown only with the choice of all columns.
        code: its texts are commands.
        about: what the header means, longer.
    """

    name: str
    number: bool = True
    block: str = ""
    extra: bool = False
    code: bool = False
    about: str = ""


@dataclass(frozen=True)
class Entry:
    """A cell: its text, the value that it is sorted by (None: missing, always last), and whether it is certain."""

    text: str
    value: float | None = None
    strong: bool = False


@dataclass(frozen=True)
class Grid:
    """A table that can be sorted and filtered.

    Attributes:
        name: its id in the page.
        caption: what it holds.
        columns: the first is the header of each line.
        lines: an entry for each column.
        anchors: ids of the lines, or empty.
        blocks: (name, what it is called, whether it is shown at first) of the columns that can be chosen.
        links: address of each line's header in the image browser, "" for none; or empty.
        file: name and text of its CSV; None without one.
        plain: a heading says the same as the caption, and it is too short to be sorted and filtered.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    lines: tuple[tuple[Entry, ...], ...]
    anchors: tuple[str, ...] = ()
    blocks: tuple[tuple[str, str, bool], ...] = ()
    file: tuple[str, str] | None = None
    links: tuple[str, ...] = ()
    plain: bool = False

    @property
    def meanings(self) -> str:
        """What headers mean, as text: not everybody has a pointer to rest on one. Differences of a metric are told by
        the metric."""
        told = {column.about for column in self.columns if column.block in ("", "own")}
        return "; ".join(
            f"{column.name} = {column.about}"
            for column in self.columns
            if column.about and (column.block in ("", "own") or column.about not in told)
        )


@dataclass(frozen=True)
class Drawing:
    """A figure: its id, heading, caption, an SVG as matplotlib writes it, and its CSV."""

    name: str
    title: str
    caption: str
    svg: bytes
    csv: str

    @property
    def wide(self) -> bool:
        """Whether it needs the whole width of a sheet."""
        return width_of(self.svg) > HALF_SHEET


@dataclass(frozen=True)
class SearchPart:
    """What the page of a search has more.

    Attributes:
        parts: (title, table or None, sentences): what was searched, what was gained, how far the trials flatter it.
        trials: all of them; None where there is none.
        figures: over the trials; lacking: a sentence for each that there is not.
    """

    parts: tuple[tuple[str, Grid | None, tuple[str, ...]], ...]
    trials: Grid | None
    figures: tuple[Drawing, ...]
    lacking: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One stage in the list of a lineage: what it is, the first digits of its key, the line of it in the plan's table
    ("" where it has none), and what it is made from."""

    what: str
    key: str
    anchor: str
    made_from: str


@dataclass(frozen=True)
class Chain:
    """What a row's model is made of: the graph of its first seed, and of each seed the list."""

    row: str
    seed: int
    boxes: tuple[Box, ...]
    seeds: tuple[tuple[int, tuple[Step, ...]], ...]


@dataclass(frozen=True)
class Page:
    """All that stands in a report, in the order of the page. Texts are as they are, not escaped.

    Attributes:
        title: heading of the suite.
        summary: sentences, a paragraph each.
        table: the table of the suite; table_notes: what its marks mean.
        differences: with their intervals; None where there is none to show. forest: the same as a figure.
        difference_notes: what the intervals are of, or why there is none.
        beside: AP-fixed, AP-pool, ECE and recall of proposals; None where they were not made.
        errors: cost of each kind of error; None where they were not made.
        figures: those of the report; lacking: a sentence for each that the suite asks for and has not.
        per_class: AP by class; None without any.
        cost: what the plan takes, in sentences; stages: its stages.
        conditions: protocol, environment and where rows differ in them.
        chains: the lineage of the rows; untold: how many rows were left out.
        commands: what makes each number; made_by: what made the report.
        images: address of the image browser; "" without one.
        search: what was searched and found; None for a suite without a search.
    """

    title: str
    summary: tuple[str, ...]
    table: Grid
    table_notes: tuple[str, ...]
    differences: Grid | None
    forest: Drawing | None
    difference_notes: tuple[str, ...]
    beside: Grid | None
    errors: Grid | None
    figures: tuple[Drawing, ...]
    lacking: tuple[str, ...]
    per_class: Grid | None
    cost: tuple[str, ...]
    stages: Grid
    conditions: tuple[str, ...]
    chains: tuple[Chain, ...]
    untold: int
    commands: Grid
    made_by: tuple[str, ...]
    images: str = ""
    search: SearchPart | None = None


def render(page: Page) -> str:
    """The whole file; the same page gives the same bytes.

    Raises:
        xml.etree.ElementTree.ParseError: a figure that is no SVG.
    """
    return filled("page", page=page)


def filled(name: str, **values: object) -> str:
    """NAME.html with NAME.css and NAME.js of our templates in it, and these values."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_shown, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"figure": _figure, "graph": _graph, "download": _download}
    style, script = (_inserted(TEMPLATES / f"{name}.{suffix}") for suffix in ("css", "js"))
    return environment.get_template(f"{name}.html").render(
        values, style=Markup(style), script=Markup(script), style_digest=digest(style), script_digest=digest(script)
    )


def _inserted(path: Path) -> str:
    """A file of ours as it stands between its tags: a digest is of exactly that."""
    return f"\n{path.read_text(encoding='utf-8')}"


def digest(text: str) -> str:
    """How a policy names a script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _shown(value: object) -> object:
    """Whatever a template writes: texts of others without what a terminal or a reader's eye would obey."""
    return printable(value) if type(value) is str else value


def _figure(drawing: Drawing) -> Markup:
    return Markup(inlined(drawing.svg, f"svg-{drawing.name}", printable(drawing.title), f"said-{drawing.name}"))


def _graph(chain: Chain) -> Markup:
    shown = [Box(box.kind, box.key, printable(box.name), box.inputs) for box in chain.boxes]
    label = printable(f"Stages of {chain.row} at seed {chain.seed}, as listed below")
    return Markup(drawn(shown, label))


def _download(text: str) -> str:
    """An address that is the file itself."""
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
