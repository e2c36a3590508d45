"""`report`: the table and the figures of what is done, and of a search what it found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.cli import compare as comparing
from bench.cli import travelled, trials
from bench.cli.intervals import with_intervals
from bench.cli.open import open_suite
from bench.cli.options import DEFAULT_STORE, Against, DataPath, Only, Out, Preset, Seeds, Sets, StoreOption
from bench.cli.say import say
from bench.cli.tables import USUAL, Forms, absent, print_table, write_report
from bench.cli.wanted import reported, seen
from bench.errors import UserError
from bench.plan import planning
from bench.store.existing import existing
from bench.store.store import Store
from bench.suite.suite import Suite
from reports.load import load
from reports.page import MOST_IMAGES

Source = Annotated[Path, typer.Argument(help="Suite file, e.g. suites/table1.yaml, or an export.", show_default=False)]
Other = Annotated[
    Path | None, typer.Argument(metavar="[B]", help="With --compare: what SUITE is compared with.", show_default=False)
]


def command(
    suite: Source, other: Other = None, store: StoreOption = DEFAULT_STORE, preset: Preset = None,
    data: DataPath = None, sets: Sets = None, only: Only = None, seeds: Seeds = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: [{row, seeds, metrics, protocol}].")] = False,
    official: Annotated[bool, typer.Option("--official", help="Check AP against the official lvis package.")] = False,
    intervals: Annotated[
        bool | None,
        typer.Option(help="Intervals, kinds of errors, more metrics (default: of up to 100 evaluations)."),
    ] = None,
    against: Against = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns of table.tex, e.g. AP,AP1,dAP1,cAP1 (docs/results.md).", metavar="A,B")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Two sources side by side, and what differs in their protocols.")
    ] = False,
    html: Annotated[bool, typer.Option("--html", help="Also report.html, all of it in one file.")] = False,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also a PDF of every figure, without its caption.")] = False,
    images: Annotated[
        bool, typer.Option("--images", help="With --html: also images.html, boxes and detections of val images.")
    ] = False,
    most_images: Annotated[
        int, typer.Option(min=1, help="With --images: at most so many of each val; all bins take turns.")
    ] = MOST_IMAGES,
    out: Out = None,
) -> None:  # fmt: skip
    """Write the table (text, Markdown, LaTeX, CSV) and the figures from what is done. Runs nothing.

    In place of a suite's file it takes what `export` has written, a zip or the folder that it was unpacked into, and
    needs neither the data nor the suite:

        python -m bench report table1.zip

    `A B --compare` puts two of them side by side, or two stores (by their folders): what differs in data, settings,
    versions and machines, then each row of both with its difference and, where both have intervals, how sure it is:

        python -m bench report before.zip suites/table1.yaml --compare --out compared
    """
    named = _named(columns)
    of_suite = {"--preset": preset, "--data": data, "--set": sets, "--only": only, "--seeds": seeds}
    of_page = {"--official": official, "--html": html, "--images": images}

    def opened(path: Path) -> Suite:
        return open_suite(path, preset=preset, data=data, sets=sets, only=only, seeds=seeds, against=against)

    if compare or other is not None:
        of_table = {**of_page, "--pdf": pdf, "--columns": columns, "--against": against}
        of_table["--intervals"] = intervals is not None
        comparing.check(suite, other, asked=compare, refused=given(of_table))
        sources = comparing.Sources(store, opened, given(of_suite))
        return comparing.compare(suite, other or suite, sources, Console(), out, as_json=as_json)
    if (html or pdf) and (as_json or official):
        without = "--json" if as_json else "--official"
        where = "--html" if html else "--pdf"
        raise UserError(f"{without} writes no report", where=where, hint=f"leave {without} out")
    if travelled.is_travelled(suite):
        travelled.check(suite, given({**of_suite, **of_page}))
        wanted = Forms(named, pdf=pdf, against=against, intervals=intervals)
        return travelled.report(suite, Console(), out, wanted, as_json=as_json)
    if images and not html:
        raise UserError("the images stand beside report.html", where="--images", hint="--html --images")
    forms = Forms(named, html, most_images if images else None, pdf, against, intervals)
    _report(opened(suite), store, out, forms, as_json=as_json, official=official)


def _named(columns: str | None) -> tuple[str, ...]:
    """The columns of --columns. Which there are is known with the table."""
    names = [] if columns is None else [name.strip() for name in columns.split(",")]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or "" in names:
        what = "a column without a name" if "" in names else f"column '{twice}' is named twice"
        raise UserError(what, where="--columns", allowed="names between commas: AP,AP1,dAP1,cAP1")
    return tuple(names)


def given(options: Mapping[str, object]) -> tuple[str, ...]:
    """The names of the options that have a value."""
    return tuple(name for name, value in options.items() if value)


def _report(
    loaded: Suite, store: Path, out: Path | None, forms: Forms, *, as_json: bool, official: bool
) -> None:  # fmt: skip
    opened = existing(store)
    if loaded.sections.search is not None:
        if not (official or as_json):
            trials.write(loaded, opened, Console(), out, forms)
            return
        loaded = reported(loaded, seen(loaded, opened)).suite
    if official:
        from bench.cli import official as crosscheck

        found = crosscheck.compare(planning.make(loaded), opened)
        raise typer.Exit(0 if crosscheck.show(found, Console()) else 1)
    if as_json:
        typer.echo(json.dumps(to_json(loaded, store), indent=1))
    else:
        report(loaded, store, Console(), out, forms)


def report(suite: Suite, store_path: Path, console: Console, out: Path | None, forms: Forms = USUAL) -> None:
    """`bench report`. Without a result of any row nothing is written."""
    plan, store = planning.make(suite), Store(store_path)
    results = load(store, plan)
    if not results:  # a folder of empty tables would only look like results
        print_table(plan, store, results, console)
        say(console, f"nothing was written; run it: {suite.command(suite.verb, store.root)}")
        return
    rows = with_intervals(plan, store, results, console, wanted=forms.intervals, options=forms.options)
    write_report(plan, store, rows, console, out, forms)


def to_json(suite: Suite, store_path: Path) -> list[dict[str, Any]]:
    """What `report --json` prints."""
    from reports.tables import to_json

    plan, store = planning.make(suite), Store(store_path)
    rows = with_intervals(plan, store, load(store, plan), Console(stderr=True), wanted=False)
    return to_json(
        rows, compare_with=suite.sections.compare_with, order=[row.label for row in suite.rows],
        skipped=absent(plan, store, None), against=suite.controls,
    )  # fmt: skip
