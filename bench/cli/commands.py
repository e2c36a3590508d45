"""What each command does. Separate from cli.py, which parses: these functions join the floors, and tests call them.

Imports of torch, mlflow and matplotlib are inside the functions that need them.
"""

from __future__ import annotations

import contextlib
import importlib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape

from bench.cli import plan as overviews
from bench.cli import stop as control
from bench.cli.plan import Overview
from bench.cli.why import explain
from bench.data.formats import FORMATS
from bench.engines.facts import check, facts
from bench.errors import UserError, show
from bench.key import canonical, digest, plain
from bench.launch.launcher import Launcher
from bench.launch.local import Slots
from bench.launch.loop import Ended
from bench.launch.places import launcher_of
from bench.launch.requests import Requests
from bench.launchers import LAUNCHERS, options_that_outlive
from bench.plan import planning
from bench.plan.planning import Plan
from bench.spec import FolderData
from bench.stage import walk
from bench.store.disk import write_atomic
from bench.store.store import Store
from bench.suite import clusters
from bench.suite import suite as suites
from bench.suite.clusters import Cluster
from bench.suite.suite import Suite
from bench.tracking import track
from bench.tracking.curves import Tracking
from bench.tracking.mirror import is_served
from bench.tracking.track import SyncCount
from reports.load import RowResult, load

MANY = 20  # job ids that a line shows
REPORTED = ".told"  # in a report's folder: the results that report and MLflow show, see `_is_reported`


def open_suite(
    path: Path,
    *,
    preset: str | None = None,
    data: str | None = None,
    sets: Sequence[str] | None = None,
    only: str | None = None,
    seeds: str | None = None,
) -> Suite:
    """Load a suite with the options of the command line.

    Raises:
        UserError: anything wrong with file or options, or what can be seen to be missing without starting anything.
    """
    from reports import paper

    numbers: list[int] = []
    for text in _words(seeds):
        if not text.isdigit():
            raise UserError(f"'{text}' is not a seed", where="--seeds", allowed="non-negative integers, e.g. 1,2,3")
        numbers.append(int(text))
    source = suites.Source(_fingerprint, lambda name: facts(name).version)
    suite = suites.load(
        path, source=source, preset=preset, data=data, sets=sets or [], only=_words(only), seeds=numbers
    )
    with _blamed_on(suite):
        check(suite.sections.detector)
        if suite.sections.compare_with is not None:
            paper.published(suite.sections.compare_with)
    return suite


def run(
    suite: Suite,
    store_path: Path,
    console: Console,
    *,
    jobs: int | None = None,
    fuse: bool = True,
    keep_going: bool = True,
    tracking_uri: str | None = None,
    out: Path | None = None,
    again: str | None = None,
    cluster: str = "local",
    detach: bool = False,
) -> int:
    """`bench run`; returns the exit code. `again`: the command that continues, shown after an interruption."""
    from bench.cli.progress import Display
    from bench.launch import loop as launch

    plan, store = planning.make(suite), Store(store_path)
    requests = Requests(store.root)  # a stop that is asked for while this begins counts
    launcher = _launcher(suite, plan, store, cluster, jobs, detach=detach)
    launcher.tracking = _tracking(suite, plan, tracking_uri)
    _check_weights_early(suite, plan, store)
    if store.root.exists():  # before anything is found to be done: `gc` leaves it alone from now on
        with contextlib.suppress(UserError):  # a store that may only be read serves as long as nothing is missing
            _register(plan, store)
    view = overviews.compare(plan, store, launcher.slots, fuse=fuse)
    for line in view.headline():
        console.print(escape(line), highlight=False, soft_wrap=True)
    ended = Ended({}, False)
    if view.missing:
        store.check_writable()
        launcher.check(view.jobs)
        _register(plan, store)
        for line in [] if launcher.outlives_driver else control.also_queued(plan, store, view.missing):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        _prepare_tracking(store, suite, tracking_uri, console)
        with Display(plan, store, console) as display:
            ended = launch.run(
                plan, store, launcher, fuse=fuse, keep_going=keep_going, show=display.show, detach=detach,
                requests=requests,
            )  # fmt: skip
    try:
        if detach and ended.left:
            pass  # there is no table yet
        elif view.missing or not _is_reported(plan, store, out):
            results = load(store, plan)
            notice = _mirror(plan, store, results, tracking_uri).notice
            _print_notice(notice, console)
            files = write_report(plan, store, results, console, out, failed=ended)
            if _attach(plan, store, console, tracking_uri, files) and not notice:
                _note_reported(plan, store, out)
        else:
            print_table(plan, store, load(store, plan), console)
        for line in _what_next(ended, plan, store, launcher, again or suite.command("run", store.root)):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    finally:  # a disk that is full for a stage is so for its report
        for mistake in dict.fromkeys(outcome.message for outcome in ended.failed.values() if outcome.code == 2):
            show(mistake)
    return ended.code


def _register(plan: Plan, store: Store) -> None:
    """Note what this suite needs, and for which rows."""
    rows = {key: labels[0] for key, labels in plan.needed_by.items()}
    store.register_root(overviews.label(plan), plan.suite.path.resolve(), list(plan.stages), rows)


def _launcher(suite: Suite, plan: Plan, store: Store, name: str, jobs: int | None, *, detach: bool) -> Launcher:
    cluster = clusters.read(name)
    with _blamed_on(suite):
        launcher = launcher_of(plan, store, cluster, str(clusters.path_of(name)), jobs)
    if detach and not launcher.outlives_driver:
        hint = f"run it in the background instead: nohup, tmux; or {options_that_outlive()}"
        raise UserError(f"jobs of kind {cluster.kind} end with their driver", where="--detach", hint=hint)
    return launcher


def _tracking(suite: Suite, plan: Plan, uri: str | None) -> Tracking | None:
    """The server that jobs send their curves to themselves."""
    if uri is None or not is_served(uri):
        return None
    return Tracking(uri, suite.name, {key: planning.describe(plan, [key]) for key in plan.stages})


def _what_next(ended: Ended, plan: Plan, store: Store, launcher: Launcher, again: str) -> list[str]:
    """What failed, what goes on without us, and how to come back to it."""
    suite = plan.suite
    if ended.left:
        ids = [handle.id for handle in ended.left]
        shown = ", ".join([*ids[:MANY], f"{len(ids) - MANY} more"] if len(ids) > MANY else ids)
        words = [word for word in shlex.split(again) if word != "--detach"]
        many = "1 job in the queue goes" if len(ids) == 1 else f"{len(ids)} jobs in the queue go"
        return [
            f"{many} on without this terminal: {shown}",
            f"  how they are: {suite.command('status', store.root)}",
            f"  stop them:    {suite.command('stop', store.root)}",
            f"  watch, submit again what was killed, and print the table: {shlex.join(words)}",
        ]
    lines = []
    if ended.failed:
        labels = planning.labels(plan, list(ended.failed))
        shown = ", ".join([*labels[:MANY], f"{len(labels) - MANY} more"] if len(labels) > MANY else labels)
        lines += [
            f"failed: {shown} ({len(labels)} of {len(plan.suite.rows)} rows)",
            f"  what was said: {suite.command('logs', store.root, labels[0])}",
            f"  try again:     {again}",
        ]
    how = "interrupted; what is still in the queue goes on" if launcher.outlives_driver else "saved"
    return [*lines, f"{how}. Continue: {again}"] if ended.interrupted else lines


def overview(
    suite: Suite, store_path: Path, *, jobs: int | None = None, fuse: bool = True, cluster: Cluster | None = None
) -> Overview:
    """What `plan` and `status` show; on a machine without the GPUs that jobs use the slots are not known."""
    slots = jobs
    if cluster is not None and LAUNCHERS[cluster.kind].asks_resources:
        slots = min(jobs or cluster.array_parallelism, cluster.array_parallelism)
    else:
        with contextlib.suppress(UserError):  # a login node; `run` refuses there
            slots = Slots(suite.sections.machine, jobs).count
    return overviews.compare(planning.make(suite), Store(store_path), slots, fuse=fuse)


def why(suite: Suite, store_path: Path, word: str, console: Console) -> None:
    """`bench why`."""
    plan = planning.make(suite)
    explain(plan, Store(store_path), overviews.find(plan, word), console)


def config_text(suite: Suite) -> str:
    """The whole configuration, defaults filled in, as YAML that can be run again."""
    sections = suite.sections.model_dump(mode="json")
    rows = {row.label: {"method": row.method.name, **plain(canonical(row.settings))} for row in suite.rows}
    for row in suite.rows:
        if row.schedule is not None:
            rows[row.label]["schedule"] = dict(row.schedule)
        if row.cluster is not None:
            rows[row.label]["cluster"] = plain(canonical(row.cluster))
    paths = [str(path.resolve()) for path in suite.methods_path]
    more = {"methods_path": paths} if paths else {}
    text: str = yaml.safe_dump({**sections, **more, "rows": rows}, sort_keys=False, allow_unicode=True, width=120)
    return text


def report(suite: Suite, store_path: Path, console: Console, out: Path | None) -> None:
    """`bench report`."""
    plan, store = planning.make(suite), Store(store_path)
    write_report(plan, store, load(store, plan), console, out)


def write_report(
    plan: Plan,
    store: Store,
    results: Sequence[RowResult],
    console: Console,
    out: Path | None,
    *,
    failed: Ended | None = None,
) -> tuple[Path, ...]:
    """Write the report of what is done, and print the table; the files."""
    from reports.write import write

    suite, folder = plan.suite, out or overviews.default_report_folder(store, plan)
    written = write(
        results, folder, suite.heading, suite.sections.compare_with, order=[row.label for row in suite.rows],
        skipped=_absent(plan, store, failed), edges=suite.sections.test.bins, wanted=suite.sections.figures,
        planned=plan.rows,
    )  # fmt: skip
    print_table(plan, store, results, console, failed=failed)
    for line in (*written.lacking, f"report: {folder}  ({written.spoken()})"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return written.files


def print_table(
    plan: Plan, store: Store, results: Sequence[RowResult], console: Console, *, failed: Ended | None = None
) -> None:
    """The table on the terminal."""
    from reports.render import WIDTH, to_text
    from reports.tables import table

    content = table(
        results, suite=plan.suite.heading, compare_with=plan.suite.sections.compare_with,
        order=[row.label for row in plan.suite.rows], skipped=_absent(plan, store, failed),
    )  # fmt: skip
    width = console.width if console.is_terminal else WIDTH
    console.print(to_text(content, width), highlight=False, markup=False, soft_wrap=True)


def report_json(suite: Suite, store_path: Path) -> list[dict[str, Any]]:
    """What `report --json` prints."""
    from reports.tables import to_json

    plan, store = planning.make(suite), Store(store_path)
    return to_json(
        load(store, plan), compare_with=suite.sections.compare_with, order=[row.label for row in suite.rows],
        skipped=_absent(plan, store, None),
    )  # fmt: skip


def official(suite: Suite, store_path: Path, console: Console) -> int:
    """`report --official`: 0 if the official evaluator gives the same numbers, 1 if not."""
    from bench.cli import official as crosscheck

    return 0 if crosscheck.show(crosscheck.compare(planning.make(suite), Store(store_path)), console) else 1


def sync(suite: Suite, store_path: Path, console: Console, tracking_uri: str | None) -> None:
    """`bench sync`: mirror the suite's stages and rows in MLflow, and the report that `run` has written.

    Raises:
        UserError: the tracker fails.
    """
    plan, store = planning.make(suite), Store(store_path)
    count = _mirror(plan, store, load(store, plan), tracking_uri)
    if count.notice:
        hint = "then: python -m bench sync SUITE"
        raise UserError(count.notice, where=tracking_uri or str(store.root), hint=hint)
    folder = overviews.default_report_folder(store, plan)
    files = (path for path in folder.glob("*") if path.is_file() and path.name != REPORTED)
    _attach(plan, store, console, tracking_uri, tuple(sorted(files)))
    console.print(f"MLflow: {count.runs} new runs, {count.values} new values", highlight=False)


def _mirror(plan: Plan, store: Store, results: Sequence[RowResult], uri: str | None) -> SyncCount:
    """Bring stages and rows into MLflow; what was new, or why that was not possible."""
    stages = [track.tracked(store, stage, planning.describe(plan, [key])) for key, stage in plan.stages.items()]
    rows = [track.TrackedRow(r.record, (store.output(r.record.evaluate_key) / "result.json",)) for r in results]
    return track.sync(store.root, uri, plan.suite.name, stages, rows)


def _attach(plan: Plan, store: Store, console: Console, uri: str | None, files: tuple[Path, ...]) -> bool:
    """Tables and figures, for those who look at MLflow alone; whether that was possible."""
    name = plan.suite.name
    notice = track.attach(store.root, uri, name, name, files) if files else None
    _print_notice(notice, console)
    return not notice


def _print_notice(notice: str | None, console: Console) -> None:
    if notice:
        console.print(f"MLflow: {notice}", highlight=False, markup=False, soft_wrap=True)


def data_check(path: Path, train: str, val: str, images: str, form: str, console: Console) -> int:
    """`bench data check`: 0 clean or warnings only, 1 with errors."""
    from bench.data.check import check as check_data

    read = [name for name, known in FORMATS.items() if not known.generated]
    if form not in read:
        raise UserError(f"'{form}' is no format", where="--format", allowed=", ".join(read))
    findings = check_data(str(path), train, val, images, form)
    for f in findings:
        colour = "bold red" if f.severity == "error" else "yellow"
        console.print(
            f"[{colour}]{f.severity}[/] {escape(f.where)}: {escape(f.kind)} ({f.count})",
            highlight=False,
            soft_wrap=True,
        )
        for example in f.examples:
            console.print(f"    {escape(str(example))}", highlight=False, soft_wrap=True)
        console.print(f"    {escape(f.advice)}", style="dim", highlight=False, soft_wrap=True)
    errors = sum(f.severity == "error" for f in findings)
    console.print(f"{errors} errors, {len(findings) - errors} warnings", highlight=False)
    return 1 if errors else 0


def _is_reported(plan: Plan, store: Store, out: Path | None) -> bool:
    """Whether report and MLflow show what is done now. They do not after a driver was killed while its jobs went on,
    nor where the disk was full or the tracker away when they were to be brought up to date."""
    folder = out or overviews.default_report_folder(store, plan)
    with contextlib.suppress(OSError):
        return (folder / "table.txt").exists() and (folder / REPORTED).read_text() == _outcome(plan, store)
    return False


def _note_reported(plan: Plan, store: Store, out: Path | None) -> None:
    with contextlib.suppress(UserError):  # the next run writes the report once more
        folder = out or overviews.default_report_folder(store, plan)
        write_atomic(folder / REPORTED, _outcome(plan, store).encode())


def _outcome(plan: Plan, store: Store) -> str:
    """A digest of what every stage holds, and by which attempt."""
    found = ((key, store.done(key)) for key in plan.stages)
    return digest([[key, done.attempt, done.digest] if done else [key] for key, done in found])


def _absent(plan: Plan, store: Store, failed: Ended | None) -> dict[str, str]:
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
            reasons[row.label] = first if first == "not run" else f"failed: {first}"
    return reasons


def _prepare_tracking(store: Store, suite: Suite, uri: str | None, console: Console) -> None:
    _print_notice(track.prepare(store.root, uri, suite.name), console)


def _check_weights_early(suite: Suite, plan: Plan, store: Store) -> None:
    """A weights file that cannot be read is refused before anything starts, or is written."""
    path = suite.weights_file
    if path is None:
        return
    done = planning.all_fresh(plan, store)
    if any(stage.spec.get("weights") for key, stage in plan.stages.items() if key not in done):
        with _blamed_on(suite):
            importlib.import_module(facts(suite.sections.detector.engine).module).read_weights(str(path))


@contextlib.contextmanager
def _blamed_on(suite: Suite) -> Iterator[None]:
    """Give an error whose `where` is a setting, `detector.trunk`, the suite's file and line as well."""
    try:
        yield
    except UserError as error:
        where = f"{suite.document.where(*error.where.split('.'))} {error.where}"
        raise UserError(error.what, where=where, allowed=error.allowed, hint=error.hint) from None


def _fingerprint(data: FolderData, split: str) -> str:
    return str(importlib.import_module(FORMATS[data.name].module).fingerprint(data, split))


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()] if text else []
