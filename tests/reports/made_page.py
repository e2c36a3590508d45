"""Pages of made rows for the tests: a plan whose stages count as done, rows with intervals and kinds of errors; and how
a page is read without a browser.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from bench.cli.open import open_suite
from bench.evaluation.error_kinds import Costs, Counts, Group
from bench.plan import planning
from bench.record import PerClass
from bench.store.store import Store
from reports.load import Errors, RowResult
from reports.page.content import page_of
from reports.page.images import Browser
from reports.page.render import Page
from reports.search.report import SearchReport
from reports.write import write
from tests.done_store import quick
from tests.reports.made_records import COUNTS, made, made_draws

SUITE = """\
preset: cpu
seeds: [1, 2]
against: cls-retrain
rows:
  baseline:    {method: baseline, against: null}
  BAGS:        {method: bags, beta: 8}
  cls-retrain: {method: cls_retrain}
"""
VOID = frozenset(("meta", "link", "input", "br", "img", "hr"))
VALUES = {
    "baseline": {"AP": 20.0, "AP50": 31.0, "AP1": 1.0, "AP4": 50.0},
    "BAGS": {"AP": 23.0, "AP50": 35.25, "AP1": 11.0, "AP4": 46.0},
    "cls-retrain": {"AP": 21.0, "AP50": None, "AP1": 2.0, "AP4": 51.0},
}
KINDS = Counts(7, 1, 2, 3, 4, 2, 4, 3, 0)
ERRORS = Errors(
    {
        name: Group(3, 1, 9, 5, 0.5, KINDS, Costs(0.25, 0.1, 0.02, 0.0, 0.05, cost, 0.2, 0.3))
        for name, cost in (("AP", 0.125), ("AP1", None), ("AP4", 0.01))
    },
    ((5, 1), (3, 0)),
)  # fmt: skip


def result(label: str, seed: int, names: Sequence[str] = ("cat", "dog", "elk", "fox", "gnu", "hen")) -> RowResult:
    """With draws of sd 0.1, its errors, and AP of the classes: 10 x the id + the seed, none of the third; counts of
    more classes than six begin again."""
    counts = list(itertools.islice(itertools.cycle(COUNTS), len(names)))
    values = VALUES.get(label, {"AP": 5.0, "AP1": 0.5, "AP4": 9.0})
    row = made(label, seed, norms=[1.0] * (len(names) + 1), counts=counts, **values)
    ap = tuple(None if i == 3 else 10.0 * i + seed for i in range(1, len(names) + 1))
    classes = PerClass(
        category_ids=tuple(range(1, len(names) + 1)), names=tuple(names), instance_counts=tuple(counts), ap=ap, ap50=ap
    )
    rng = np.random.default_rng(seed + 10 * sum(map(ord, label)))
    drawn = {name: value + 0.1 * rng.normal(size=400) for name, value in values.items() if value is not None}
    draws = made_draws(drawn, dict.fromkeys(drawn, 90), "v")
    record = row.record.model_copy(update={"per_class": classes})
    return replace(RowResult.of(record, row.weight_norms), draws=draws, errors=ERRORS)


def made_page(
    folder: Path,
    rows: Sequence[RowResult] | None = None,
    title: str = "",
    browser: Browser | None = None,
    search: SearchReport | None = None,
) -> Page:
    """The page of the suite above, by default of all its rows and seeds; `folder` must be empty."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mine.yaml"
    path.write_text(SUITE)
    suite = open_suite(path)
    plan, store = planning.make(suite), Store(folder / "store")
    quick(store, plan.stages.values(), {"host": "h"})
    found = [result(row.label, row.seed) for row in plan.rows] if rows is None else list(rows)
    order = [row.label for row in suite.rows]
    written = write(
        found, folder / "report", title or suite.heading, order=order, edges=suite.sections.test.bins,
        planned=plan.rows, against=suite.controls, skipped={"left out": f"because {title}"} if title else None,
    )  # fmt: skip
    return page_of(found, written, plan, store, made_by=(f"made by: {title}",), browser=browser, search=search)


@dataclass
class Element:
    """A tag that was opened, what stands in it as text, and its ancestors' names."""

    tag: str
    attributes: dict[str, str]
    inside: tuple[str, ...]
    text: str = ""


@dataclass
class Reader(HTMLParser):
    """All elements of a page, in order; and what is wrong with its nesting."""

    elements: list[Element] = field(default_factory=list)
    open: list[Element] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        self.wrong += [f"{tag}: {name} twice" for name in names if names.count(name) > 1]
        element = Element(tag, {name: value or "" for name, value in attrs}, tuple(one.tag for one in self.open))
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1].tag != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def all(self, tag: str) -> list[Element]:
        return [element for element in self.elements if element.tag == tag]


def read(text: str) -> Reader:
    """A page, parsed; every tag must be closed."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.wrong
    assert not [element.tag for element in reader.open]
    return reader
