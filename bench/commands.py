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

from bench import cluster as clusters
from bench import control
from bench import plan as planning
from bench import suite as suites
from bench.cluster import Cluster
from bench.disk import write_atomic
from bench.engines.facts import check, facts
from bench.errors import UserError, show
from bench.key import canonical, digest, plain
from bench.launch import Ended
from bench.launchers.contract import Launcher
from bench.launchers.local import Slots
from bench.mirror import is_served
from bench.orders import Orders
from bench.plan import Plan
from bench.run.curves import Tracking
from bench.spec import FolderData
from bench.stage import walk
from bench.store import Store
from bench.suite import Suite
from bench.terminal import overview as overviews
from bench.terminal.overview import Overview
from bench.terminal.why import explain

MANY = 20  # job ids that a line shows
TOLD = ".told"  # in a report's folder: what report and MLflow were told of, see `_told`


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
    from bench import launch
    from bench.terminal.progress import Display

    plan = planning.make(suite)
    store = Store(store_path)
    orders = Orders(store.root)  # to be told to stop while we begin is to be told
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
        for line in [] if launcher.survives else control.also_queued(plan, store, view.missing):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        _prepare_tracking(store, suite, tracking_uri, console)
        with Display(plan, store, console) as display:
            ended = launch.run(
                plan, store, launcher, fuse=fuse, keep_going=keep_going, show=display.show, detach=detach,
                orders=orders,
            )  # fmt: skip
    try:
        if detach and ended.left:
            pass  # there is no table yet
        elif view.missing or not _told(plan, store, out):
            synced = sync(suite, store_path, console, tracking_uri)
            files = report(suite, store_path, console, out, failed=ended)
            if _attach(suite, store, console, tracking_uri, files) and synced:
                _note_told(plan, store, out)
        else:
            print_table(plan, store, console)
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
    from bench import launch

    cluster = clusters.read(name)
    with _blamed_on(suite):
        launcher = launch.launcher_for(cluster, str(clusters.path_of(name)), plan, store, jobs)
    if detach and not launcher.survives:
        hint = "run it in the background instead: nohup, tmux; or --cluster slurm"
        raise UserError(f"jobs of kind {cluster.kind} end with their driver", where="--detach", hint=hint)
    return launcher


def _tracking(suite: Suite, plan: Plan, uri: str | None) -> Tracking | None:
    """The server that jobs bring their curves to themselves."""
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
    how = "interrupted; what is still in the queue goes on" if launcher.survives else "saved"
    return [*lines, f"{how}. Continue: {again}"] if ended.interrupted else lines


def overview(
    suite: Suite, store_path: Path, *, jobs: int | None = None, fuse: bool = True, cluster: Cluster | None = None
) -> Overview:
    """What `plan` and `status` show; on a machine without the GPUs that jobs use the slots are not known."""
    slots = jobs
    if cluster is not None and cluster.kind == "slurm":
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


def report(
    suite: Suite, store_path: Path, console: Console, out: Path | None, *, failed: Ended | None = None
) -> tuple[Path, ...]:
    """Write the report of what is done, and print the table; the files."""
    from reports.load import load
    from reports.write import write

    plan, store = planning.make(suite), Store(store_path)
    folder = out or overviews.default_report_folder(store, plan)
    written = write(
        load(store, plan), folder, suite.heading, suite.sections.compare_with,
        order=[row.label for row in suite.rows], skipped=_absent(plan, store, failed), edges=suite.sections.test.bins,
        wanted=suite.sections.figures, planned=plan.rows,
    )  # fmt: skip
    print_table(plan, store, console, failed=failed)
    for line in (*written.lacking, f"report: {folder}  ({written.spoken()})"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return written.files


def print_table(plan: Plan, store: Store, console: Console, *, failed: Ended | None = None) -> None:
    """The table on the terminal."""
    from reports.load import load
    from reports.render import WIDTH, to_text
    from reports.tables import table

    content = table(
        load(store, plan), suite=plan.suite.heading, compare_with=plan.suite.sections.compare_with,
        order=[row.label for row in plan.suite.rows], skipped=_absent(plan, store, failed),
    )  # fmt: skip
    width = console.width if console.is_terminal else WIDTH
    console.print(to_text(content, width), highlight=False, markup=False, soft_wrap=True)


def report_json(suite: Suite, store_path: Path) -> list[dict[str, Any]]:
    """What `report --json` prints."""
    from reports.load import load
    from reports.tables import to_json

    plan, store = planning.make(suite), Store(store_path)
    return to_json(
        load(store, plan), compare_with=suite.sections.compare_with, order=[row.label for row in suite.rows],
        skipped=_absent(plan, store, None),
    )  # fmt: skip


def official(suite: Suite, store_path: Path, console: Console) -> int:
    """`report --official`: 0 if the official evaluator gives the same numbers, 1 if not."""
    from bench import crosscheck

    return 0 if crosscheck.show(crosscheck.compare(planning.make(suite), Store(store_path)), console) else 1


def sync(suite: Suite, store_path: Path, console: Console, tracking_uri: str | None, *, strict: bool = False) -> bool:
    """Mirror the suite's stages and rows in MLflow; whether that was possible. `strict` makes a failing tracker the
    user's error."""
    from bench import track
    from reports.load import load

    plan, store = planning.make(suite), Store(store_path)
    stages = [track.tracked(store, stage, planning.describe(plan, [key])) for key, stage in plan.stages.items()]
    results = load(store, plan)
    rows = [track.TrackedRow(r.record, (store.output(r.record.evaluate_key) / "result.json",)) for r in results]
    count = track.sync(store.root, tracking_uri, suite.name, stages, rows)
    if strict and not count.notice:  # `run` is about to write its report
        folder = overviews.default_report_folder(store, plan)
        files = (path for path in folder.glob("*") if path.is_file() and path.name != TOLD)
        _attach(suite, store, console, tracking_uri, tuple(sorted(files)))
    if count.notice:
        if strict:
            raise UserError(
                count.notice, where=tracking_uri or str(store.root), hint="then: python -m bench sync SUITE"
            )
        console.print(f"MLflow: {count.notice}", highlight=False, markup=False, soft_wrap=True)
    elif strict:
        console.print(f"MLflow: {count.runs} new runs, {count.values} new values", highlight=False)
    return not count.notice


def _attach(suite: Suite, store: Store, console: Console, tracking_uri: str | None, files: tuple[Path, ...]) -> bool:
    """Tables and figures, for those who look at MLflow alone; whether that was possible."""
    from bench import track

    notice = track.attach(store.root, tracking_uri, suite.name, suite.name, files) if files else None
    if notice:
        console.print(f"MLflow: {notice}", highlight=False, markup=False, soft_wrap=True)
    return not notice


def data_check(path: Path, train: str, val: str, images: str, form: str, console: Console) -> int:
    """`bench data check`: 0 clean or warnings only, 1 with errors."""
    from bench.data.check import check as check_data

    if form not in ("lvis", "coco"):
        raise UserError(f"'{form}' is no format", where="--format", allowed="lvis, coco")
    findings = check_data(str(path), train, val, images, "lvis" if form == "lvis" else "coco")
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


def _told(plan: Plan, store: Store, out: Path | None) -> bool:
    """Whether report and MLflow tell of what is done now. They do not after a driver was killed while its jobs went on,
    nor where the disk was full or the tracker away when they were to be told."""
    folder = out or overviews.default_report_folder(store, plan)
    with contextlib.suppress(OSError):
        return (folder / "table.txt").exists() and (folder / TOLD).read_text() == _outcome(plan, store)
    return False


def _note_told(plan: Plan, store: Store, out: Path | None) -> None:
    with contextlib.suppress(UserError):  # the next run tells once more
        folder = out or overviews.default_report_folder(store, plan)
        write_atomic(folder / TOLD, _outcome(plan, store).encode())


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
    from bench import track

    notice = track.prepare(store.root, uri, suite.name)
    if notice:
        console.print(f"MLflow: {notice}", highlight=False, markup=False, soft_wrap=True)


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
    reader = importlib.import_module(f"bench.data.{data.name}")
    return str(reader.fingerprint(data, split))


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()] if text else []
