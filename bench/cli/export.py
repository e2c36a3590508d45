"""`export`: a suite's results as one file that others can read, or its detections for other tools. Separate from
report.py, whose files are for people.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from bench.cli import trials
from bench.cli.intervals import with_intervals
from bench.cli.open import config_text, open_suite
from bench.cli.options import DEFAULT_STORE, DataPath, Only, Preset, Seeds, Sets, StoreOption, SuitePath, reachable
from bench.cli.say import count, listed, say, size
from bench.cli.tables import Forms, absent, label, write_report
from bench.errors import UserError
from bench.plan import planning
from bench.plan.planning import Plan
from bench.store.existing import existing
from bench.store.pack import is_export, write_zip
from bench.store.store import Store
from bench.suite.suite import Suite
from reports.load import load

MOST_NAMED = 8


def command(
    suite: SuitePath,
    out: Annotated[
        Path, typer.Argument(callback=reachable, show_default=False, help="The zip to write; with coco, a folder.")
    ],
    store: StoreOption = DEFAULT_STORE,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="Detections, proposals and val's annotations as well.")
    ] = False,
    form: Annotated[
        Literal["zip", "coco"], typer.Option("--format", help="zip: for `report` and `merge`. coco: COCO results JSON.")
    ] = "zip",
    force: Annotated[bool, typer.Option("--force", help="Replace OUT even where it is no export.")] = False,
    preset: Preset = None, data: DataPath = None, sets: Sets = None, only: Only = None, seeds: Seeds = None,
) -> None:  # fmt: skip
    """Write a suite's results into one zip that is read anywhere, without its data, its file or its weights.

    In it: the record of each row and seed, what figures and intervals are made from, the report, what everything ran on
    and the stages that it was made from. Unpacked it is a small store. Its bytes do not depend on the time.

        python -m bench export suites/table1.yaml table1.zip

        python -m bench report table1.zip          anywhere: the table, and the files of the report beside the zip

        python -m bench merge store table1.zip     into a store of one's own

    For other evaluators and viewers (lvis, pycocotools, TIDE, FiftyOne), a folder with the detections of each row and
    seed as a COCO results file, and the val annotations that they go with:

        python -m bench export suites/table1.yaml results --format coco --only BAGS --seeds 1
    """
    loaded = open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    opened, searched = existing(store), None
    if loaded.sections.search is not None:
        searched = loaded
    plan, console = trials.plan_of(loaded, opened) if searched else planning.make(loaded), Console()
    if form == "coco":
        if predictions:
            raise UserError(
                "COCO results are detections", where="--predictions", hint="leave it out with --format coco"
            )
        export_coco(plan, opened, out, console, force=force)
    else:
        export(plan, opened, out, console, predictions=predictions, force=force, searched=searched)


def export(
    plan: Plan, store: Store, out: Path, console: Console, *, predictions: bool, force: bool,
    searched: Suite | None = None,
) -> None:  # fmt: skip
    """`bench export SUITE OUT.zip`.

    Args:
        plan: of its rows. store: where they are.
        out: the zip.
        console: what is written is said there.
        predictions: whether detections go with it. force: replace what is no export too.
        searched: the suite of a search, whose rows those of the plan are.

    Raises:
        UserError: no row is done; OUT is there and no export; a file of the store was changed.
    """
    from reports.exports.shown import Shown
    from reports.exports.write import exported

    if out.is_dir():
        raise UserError("this is a folder", where=str(out), hint=f"name a file in it: {out}/{label(plan)}.zip")
    if out.suffix != ".zip":  # by which `report` and `merge` know it
        raise UserError("an export is a zip", where=str(out), allowed="a name that ends in .zip")
    if out.exists() and not force and not is_export(out):
        raise UserError("this file is there and is no export", where=str(out), hint="name another one, or --force")
    shown = Shown.of(plan, absent(plan, store, None), config_text(plan.suite))
    results = load(store, plan)
    if not results:
        hint = f"where each row stands: {plan.suite.command('status', store.root)}"
        raise UserError("no row has a result yet", where=plan.suite.heading, hint=hint)
    results = with_intervals(plan, store, results, console)
    with tempfile.TemporaryDirectory(prefix="bench-export-") as folder:
        quiet, forms = Console(quiet=True), Forms(html=True)
        if searched is not None:
            written = trials.write(searched, store, quiet, Path(folder), forms)
        else:
            written = write_report(plan, store, results, quiet, Path(folder), forms)
        files = exported(store, shown, label(plan), predictions=predictions, report=written)
        write_zip(out, files)
    rows = len({result.record.row for result in results})
    what = f"{count(rows, 'row')}, {count(len(results), 'result')}, {count(len(files), 'file')}"
    say(console, f"wrote {out}: {what}, {size(out.stat().st_size / 1e6, tenths=True)}")
    if shown.skipped:
        say(console, f"  without a result: {listed(list(shown.skipped), MOST_NAMED)}")
    say(console, f"  read it anywhere: python -m bench report {out}")


def export_coco(plan: Plan, store: Store, out: Path, console: Console, *, force: bool) -> None:
    """`bench export SUITE FOLDER --format coco`.

    Raises:
        UserError: no row has detections; the folder holds something else; a file of the store was changed.
    """
    from reports.exports.coco import INDEX, check_folder, write_coco

    if not force:
        check_folder(out)
    results = load(store, plan)
    told: list[str] = []
    lacking = write_coco(store, plan.rows, results, out, told.append) if results else []
    if len(results) == len(lacking):
        what = "the detections of no row are in the store" if results else "no row has a result yet"
        hint = f"where each row stands: {plan.suite.command('status', store.root)}"
        raise UserError(what, where=plan.suite.heading, hint=hint)
    for line in told:
        say(console, line)
    if lacking:
        say(console, f"without detections in the store: {listed(lacking, MOST_NAMED)}")
    say(
        console, f"in {out}; {INDEX} says which file goes with which val. AP here is by LVIS' rules: evaluate with lvis"
    )
