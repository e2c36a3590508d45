"""The report of a plan: which rows have no number and why, where it goes, and whether it is up to date. Separate from
reports/, which makes tables and figures of results, and from report.py, which is the command.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

import bench
from bench.cli.images import write_images
from bench.cli.open import config_text
from bench.cli.say import say
from bench.environment import masked, source
from bench.errors import MOST_WHAT, UserError, printable
from bench.key import digest
from bench.launch.loop import Ended
from bench.plan import planning
from bench.plan.planning import Plan
from bench.stage import walk
from bench.store.disk import put, write_atomic
from bench.store.store import Store
from bench.suite.catalogue import figure_files
from bench.suite.suite import Suite
from reports.load import RowResult

if TYPE_CHECKING:
    from reports.search.report import SearchReport

MOST_PRINTED = 200  # rows of a table on the terminal; the files have all
PAGE = "report.html"
REPORTED = ".told"  # in a report's folder: the results that report and MLflow show, see `is_reported`


def label(plan: Plan) -> str:
    """The name of what is asked for: the suite's, and six digits where options make it another table."""
    if not plan.suite.changed:
        return plan.suite.name
    return f"{plan.suite.name}-{digest([row.evaluate.key if row.evaluate else row.skipped for row in plan.rows])[:6]}"


def default_report_folder(store: Store, plan: Plan) -> Path:
    """Where a report goes unless another folder is given."""
    return store.root / "reports" / label(plan)


@dataclass(frozen=True)
class Forms:
    """What a report is written as beside its tables and figures.

    Attributes:
        columns: of table.tex; (): the suite's.
        html: report.html too.
        images: with so many images of each val beside it; None: without.
        pdf: figures as PDF too.
        against: the control that was asked for; None: the suite's.
        intervals: as they were asked for; None: as is usual.
    """

    columns: tuple[str, ...] = ()
    html: bool = False
    images: int | None = None
    pdf: bool = False
    against: str | None = None
    intervals: bool | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """The words of a command line that asks for the same."""
        words = ["--against", self.against] if self.against is not None else []
        words += ["--columns", ",".join(self.columns)] if self.columns else []
        words += [f"--{name}" for name in ("html", "pdf") if getattr(self, name)]
        if self.images is not None:
            words += ["--images", "--most-images", str(self.images)]
        if self.intervals is not None:
            words.append("--intervals" if self.intervals else "--no-intervals")
        return tuple(words)

    @property
    def formats(self) -> tuple[str, ...]:
        """Of the figures."""
        from reports.figures.canvas import FORMATS

        return (*FORMATS, "pdf") if self.pdf else FORMATS


USUAL = Forms()


def write_report(
    plan: Plan,
    store: Store,
    results: Sequence[RowResult],
    console: Console,
    out: Path | None,
    forms: Forms = USUAL,
    *,
    failed: Ended | None = None,
    search: SearchReport | None = None,
) -> tuple[Path, ...]:
    """Write the report of what is done, and print the table; the files. `search`: what was written of a search, which
    the page shows too."""
    from reports.sheets import with_sheets
    from reports.write import write, writing

    suite, folder = plan.suite, out or default_report_folder(store, plan)
    columns, made = forms.columns or suite.sections.columns, made_by(suite, store, forms)
    config = config_text(replace(suite, sections=suite.sections.model_copy(update={"columns": columns})))
    if any(figure.kind == "contact_sheet" for figure in suite.sections.figures):
        results = with_sheets(store, plan.stages, results)
    written = write(
        results, folder, suite.heading, suite.sections.compare_with, order=[row.label for row in suite.rows],
        skipped=absent(plan, store, failed), edges=suite.sections.test.bins, wanted=suite.sections.figures,
        planned=plan.rows, beside={"suite.yaml": config, "made_by.txt": made},
        against=suite.controls, columns=columns,
        own_figures=figure_files(suite.figures_path), formats=forms.formats,
    )  # fmt: skip
    if forms.html:
        from reports.page.content import page_of
        from reports.page.render import render

        browser = None
        if forms.images is not None:
            browser, untold = write_images(plan, store, results, folder, console, forms.images)
            written = replace(written, lacking=(*written.lacking, *untold))
        page = page_of(results, written, plan, store, made_by=made.splitlines(), browser=browser, search=search)
        with writing(folder):
            put(folder / PAGE, render(page).encode())
        pages = (folder / PAGE, *([folder / browser.page] if browser else []))
        written = replace(written, files=(*written.files, *pages))
    print_table(plan, store, results, console, failed=failed)
    for line in (*written.lacking, f"report: {folder}  ({written.spoken()})"):
        say(console, line)
    return written.files


def made_by(suite: Suite, store: Store, forms: Forms) -> str:
    """What made a report: the command as it was typed, the one that makes the report again, version and commit. (The
    settings are in suite.yaml beside it.) Nothing that gives access is in it, see `masked`."""
    typed = shlex.join(["python", "-m", "bench", *map(masked, sys.argv[1:])])
    return made_by_lines(typed, suite.command("report", store.root, *forms.options))


def made_by_lines(typed: str, again: str, *more: str) -> str:
    """made_by.txt: the command as it was typed, the one that makes it again, this version and commit, more lines."""
    found = source()
    changes = f", with changes (sha256 of the difference {found['dirty']})" if found["dirty"] else ""
    lines = [
        f"made by:       {typed}",
        f"made again by: {again}",
        f"version:       longtail-bench {bench.__version__}",
        f"commit:        {found['commit'] or 'unknown'}{changes}",
        *more,
    ]
    return "".join(f"{printable(line)}\n" for line in lines)


def print_table(
    plan: Plan, store: Store, results: Sequence[RowResult], console: Console, *, failed: Ended | None = None
) -> None:
    """The table on the terminal; without a result of any row, one line that says so."""
    from reports.render import WIDTH, to_text
    from reports.tables import table

    if not results and not (failed and failed.failed):
        status = plan.suite.command("status", store.root)
        say(console, f"{plan.suite.heading}: no row has a result yet; where each stands: {status}")
        return
    content = table(
        results, suite=plan.suite.heading, compare_with=plan.suite.sections.compare_with,
        order=[row.label for row in plan.suite.rows], skipped=absent(plan, store, failed), against=plan.suite.controls,
    )  # fmt: skip
    width = console.width if console.is_terminal else WIDTH
    say(console, to_text(content, width, MOST_PRINTED))


def is_reported(plan: Plan, store: Store, out: Path | None) -> bool:
    """Whether report and MLflow show what is done now, as the suite asks for it now. They do not after a driver was
    killed while its jobs went on, where the disk was full or the tracker away when they were to be brought up to date,
    or after somebody has named another figure."""
    folder = out or default_report_folder(store, plan)
    with contextlib.suppress(OSError):
        return (folder / "table.txt").exists() and (folder / REPORTED).read_text() == _outcome(plan, store)
    return False


def note_reported(plan: Plan, store: Store, out: Path | None) -> None:
    with contextlib.suppress(UserError):  # the next run writes the report once more
        folder = out or default_report_folder(store, plan)
        write_atomic(folder / REPORTED, _outcome(plan, store).encode())


def _outcome(plan: Plan, store: Store) -> str:
    """A digest of what every stage holds, and by which attempt, and of what a report shows of it."""
    found = ((key, store.done(key)) for key in plan.stages)
    stages = [[key, done.attempt, done.digest] if done else [key] for key, done in found]
    drawn = [file.read_text(errors="replace") for file in figure_files(plan.suite.figures_path).values()]
    return digest([stages, config_text(plan.suite), drawn])


def absent(plan: Plan, store: Store, failed: Ended | None) -> dict[str, str]:
    """Why a row has no number: skipped, failed (with the error), or not run."""
    reasons: dict[str, str] = {}
    for row in plan.rows:
        if row.skipped:
            reasons[row.label] = row.skipped
        elif row.evaluate is not None and not planning.fresh(row.evaluate, store):
            keys = [stage.key for stage in walk(row.evaluate)]
            errors = [failed.failed[k].message for k in keys if failed and k in failed.failed]
            notes = [note.error for k in keys if (note := store.failure(k)) is not None]
            first = (errors or notes or ["not run"])[0].splitlines()[0]
            reasons[row.label] = first if first == "not run" else f"failed: {printable(first, MOST_WHAT)}"
    return reasons
