"""`report`: the table and the figures of what is done, and of a search what it found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.cli import trials
from bench.cli.intervals import with_intervals
from bench.cli.open import open_suite
from bench.cli.options import DEFAULT_STORE, Against, DataPath, Only, Out, Preset, Seeds, Sets, StoreOption, SuitePath
from bench.cli.tables import absent, write_report
from bench.cli.wanted import reported, seen
from bench.errors import UserError
from bench.plan import planning
from bench.store.existing import existing
from bench.store.store import Store
from bench.suite.suite import Suite
from reports.load import load


def command(
    suite: SuitePath, store: StoreOption = DEFAULT_STORE, preset: Preset = None, data: DataPath = None,
    sets: Sets = None, only: Only = None, seeds: Seeds = None,
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
    html: Annotated[bool, typer.Option("--html", help="Also report.html, all of it in one file.")] = False,
    images: Annotated[
        bool, typer.Option("--images", help="With --html: also images.html, boxes and detections of val images.")
    ] = False,
    most_images: Annotated[
        int, typer.Option(min=1, help="With --images: at most so many of each val; all bins take turns.")
    ] = 300,
    out: Out = None,
) -> None:  # fmt: skip
    """Write the table (text, Markdown, LaTeX, CSV) and the figures from what is done. Runs nothing."""
    if html and (as_json or official):
        other = "--json" if as_json else "--official"
        raise UserError(f"{other} writes no report", where="--html", hint=f"leave {other} out")
    if images and not html:
        raise UserError("the images stand beside report.html", where="--images", hint="--html --images")
    most = most_images if images else None
    loaded = open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds, against=against)
    opened = existing(store)
    if loaded.sections.search is not None:
        if not (official or as_json):
            trials.write(loaded, opened, Console(), out, html=html, images=most)
            return
        loaded = reported(loaded, seen(loaded, opened)).suite
    if official:
        from bench.cli import official as crosscheck

        found = crosscheck.compare(planning.make(loaded), opened)
        raise typer.Exit(0 if crosscheck.show(found, Console()) else 1)
    if as_json:
        typer.echo(json.dumps(to_json(loaded, store), indent=1))
    else:
        named = tuple(name.strip() for name in columns.split(",")) if columns else ()
        report(loaded, store, Console(), out, intervals=intervals, columns=named, html=html, images=most)


def report(
    suite: Suite, store_path: Path, console: Console, out: Path | None, *, intervals: bool | None = None,
    columns: Sequence[str] = (), html: bool = False, images: int | None = None,
) -> None:  # fmt: skip
    """`bench report`."""
    plan, store = planning.make(suite), Store(store_path)
    rows = with_intervals(plan, store, load(store, plan), console, wanted=intervals)
    write_report(plan, store, rows, console, out, columns=columns, html=html, images=images)


def to_json(suite: Suite, store_path: Path) -> list[dict[str, Any]]:
    """What `report --json` prints."""
    from reports.tables import to_json

    plan, store = planning.make(suite), Store(store_path)
    rows = with_intervals(plan, store, load(store, plan), Console(stderr=True), wanted=False)
    return to_json(
        rows, compare_with=suite.sections.compare_with, order=[row.label for row in suite.rows],
        skipped=absent(plan, store, None), against=suite.controls,
    )  # fmt: skip
