"""`sync`: a suite's stages, rows and report in MLflow. Separate because `run` does the same at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench.cli.intervals import with_intervals
from bench.cli.open import open_suite
from bench.cli.options import DEFAULT_STORE, DataPath, Only, Preset, Seeds, Sets, StoreOption, SuitePath, TrackingUri
from bench.cli.say import count, say
from bench.cli.tables import REPORTED, default_report_folder
from bench.cli.tracked import rows_of, whose
from bench.cli.wanted import wanted
from bench.environment import masked
from bench.errors import UserError
from bench.plan.planning import Plan
from bench.store.existing import existing
from bench.store.store import Store
from bench.suite.suite import Suite
from bench.tracking import track
from bench.tracking.stages import tracked
from bench.tracking.track import SyncCount
from reports.load import RowResult, load

FEW, MANY = (
    50,
    500,
)  # stages and rows: a second or two, for which no bar is drawn; half a minute, of which logs are told


def command(
    suite: SuitePath, store: StoreOption = DEFAULT_STORE, preset: Preset = None, data: DataPath = None,
    sets: Sets = None, only: Only = None, seeds: Seeds = None, tracking_uri: TrackingUri = None,
) -> None:  # fmt: skip
    """Bring what a suite's stages have logged into MLflow; may be repeated. (`run` does it at its end.)"""
    loaded = open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    existing(store)
    sync(loaded, store, Console(), tracking_uri)


def sync(suite: Suite, store_path: Path, console: Console, tracking_uri: str | None) -> None:
    """`bench sync`: mirror the suite's stages and rows in MLflow, and the report that `run` has written.

    Raises:
        UserError: the tracker fails.
    """
    plan, store = wanted(suite, store_path), Store(store_path)
    results = with_intervals(plan, store, load(store, plan), console, wanted=False)
    new = mirror(plan, store, results, tracking_uri, console)
    if new.notice:
        hint = f"then: {suite.command('sync', store.root, *tracking_option(tracking_uri))}"
        raise UserError(new.notice, where=masked(tracking_uri or str(store.root)), hint=hint)
    folder = default_report_folder(store, plan)
    files = (path for path in folder.glob("*") if path.is_file() and not path.is_symlink() and path.name != REPORTED)
    attach(plan, store, console, tracking_uri, tuple(sorted(files)))
    say(console, f"MLflow: {new.runs} new runs, {new.values} new values")


def tracking_option(uri: str | None) -> list[str]:
    """The words of a command line that name the tracker."""
    return [] if uri is None else ["--tracking-uri", uri]


def mirror(plan: Plan, store: Store, results: Sequence[RowResult], uri: str | None, console: Console) -> SyncCount:
    """Bring stages and rows into MLflow; what was new, or why that was not possible."""
    told = whose(plan)
    stages = [tracked(store, stage, told[key]) for key, stage in plan.stages.items()]
    rows = rows_of(plan, store, results)
    total = len(stages) + len(rows.rows)
    if total > MANY and not console.is_terminal:
        say(console, f"MLflow: {count(len(stages), 'stage')} and {count(len(rows.rows), 'row')} are brought up to date")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("MLflow", total=total, visible=total > FEW)
        return track.sync(store.root, uri, plan.suite.name, stages, rows, lambda done: bar.update(task, completed=done))


def attach(plan: Plan, store: Store, console: Console, uri: str | None, files: tuple[Path, ...]) -> bool:
    """Tables and figures, for those who look at MLflow alone; whether that was possible."""
    name = plan.suite.name
    notice = track.attach(store.root, uri, name, files) if files else None
    print_notice(notice, console)
    return not notice


def prepare(store: Store, suite: Suite, uri: str | None, console: Console) -> None:
    """Before jobs log: see `track.prepare`."""
    print_notice(track.prepare(store.root, uri, suite.name), console)


def print_notice(notice: str | None, console: Console) -> None:
    """Why MLflow was not brought up to date."""
    if notice:
        say(console, f"MLflow: {notice}")
