"""`run`: bring the store to what a suite asks for, then print its table."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Collection
from pathlib import Path

import typer
from rich.console import Console

from bench.cli import sync
from bench.cli.open import blamed_on, check_negatives_early, check_weights_early, open_suite
from bench.cli.options import (
    DEFAULT_STORE,
    ClusterName,
    DataPath,
    Detach,
    Fuse,
    Jobs,
    KeepGoing,
    Only,
    Out,
    Preset,
    Seeds,
    Sets,
    StoreOption,
    SuitePath,
    TrackingUri,
)
from bench.cli.overview import compare
from bench.cli.progress import Display
from bench.cli.report import is_reported, label, note_reported, print_table, write_report
from bench.cli.say import count, listed, say
from bench.environment import masked
from bench.errors import UserError, show
from bench.launch import loop as launch
from bench.launch import submitted
from bench.launch.launcher import Launcher, NoAnswer
from bench.launch.loop import Ended
from bench.launch.places import alive, launcher_of
from bench.launch.requests import Requests
from bench.launch.submission import cluster_option
from bench.launch.submitted import Submitted
from bench.launchers import facts_of, options_that_outlive
from bench.plan import planning
from bench.plan.planning import Plan
from bench.store.store import Store
from bench.suite import clusters
from bench.suite.suite import Suite
from bench.tracking.curves import Tracking
from bench.tracking.mirror import is_served
from reports.load import changed, load

INTERRUPTED = 130  # exit code
MANY = 20  # rows, or job ids, of a list that are spelt out


def command(
    suite: SuitePath, store: StoreOption = DEFAULT_STORE, preset: Preset = None, data: DataPath = None,
    sets: Sets = None, only: Only = None, seeds: Seeds = None, jobs: Jobs = None, fuse: Fuse = True,
    keep_going: KeepGoing = True,
    cluster: ClusterName = "local",
    detach: Detach = False,
    tracking_uri: TrackingUri = None,
    out: Out = None,
) -> None:  # fmt: skip
    """Bring the store to what the suite asks for, then print its table.

    Run it again: only what is missing runs. Ctrl-C saves and stops; kill -9 loses at most the steps since the last
    checkpoint. On a cluster Ctrl-C leaves: the jobs go on (`bench stop` ends them). Exit code: 0 all done or submitted,
    1 some row failed, 2 your mistake, 130 interrupted.
    """
    loaded = open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    check_negatives_early(loaded)
    code = run(
        loaded, store, Console(), jobs=jobs, fuse=fuse, keep_going=keep_going, tracking_uri=tracking_uri, out=out,
        again=shlex.join(["python", "-m", "bench", *map(masked, sys.argv[1:])]), cluster=cluster, detach=detach,
    )  # fmt: skip
    raise typer.Exit(code)


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
    plan, store = planning.make(suite), Store(store_path)
    requests = Requests(store.root)  # a stop that is asked for while this begins counts
    launcher = _launcher(suite, plan, store, cluster, jobs, detach=detach)
    launcher.tracking = _tracking(suite, plan, tracking_uri)
    check_weights_early(suite, plan, store)
    if store.root.exists():  # before anything is found to be done: `gc` leaves it alone from now on
        with contextlib.suppress(UserError):  # a store that may only be read serves as long as nothing is missing
            _register(plan, store)
    for line in _discard_changed(plan, store):
        say(console, line)
    view = compare(plan, store, launcher.slots, fuse=fuse)
    view.print_headline(console)
    ended = Ended({}, False)
    if view.missing:
        store.check_writable()
        launcher.check(view.jobs)
        _register(plan, store)
        for line in [] if launcher.outlives_driver else also_queued(plan, store, view.missing):
            say(console, line)
        sync.prepare(store, suite, tracking_uri, console)
        try:
            with Display(plan, store, console) as display:
                ended = launch.run(
                    plan, store, launcher, fuse=fuse, keep_going=keep_going, show=display.show, detach=detach,
                    requests=requests,
                )  # fmt: skip
        except KeyboardInterrupt:  # the second one
            say(console, "ended without waiting: a job that could not save loses the steps since its last checkpoint")
            say(console, f"  how they are: {suite.command('status', store.root)}")
            say(console, f"  continue:     {again or suite.command('run', store.root)}")
            return INTERRUPTED
    try:
        if detach and ended.left:
            pass  # there is no table yet
        elif view.missing or not is_reported(plan, store, out):
            results = load(store, plan)
            notice = sync.mirror(plan, store, results, tracking_uri, console).notice
            sync.print_notice(notice, console)
            files = write_report(plan, store, results, console, out, failed=ended)
            if sync.attach(plan, store, console, tracking_uri, files) and not notice:
                note_reported(plan, store, out)
        else:
            print_table(plan, store, load(store, plan), console)
        for line in _what_next(ended, plan, store, launcher, again or suite.command("run", store.root)):
            say(console, line)
    finally:  # a disk that is full for a stage is so for its report
        for mistake in dict.fromkeys(outcome.message for outcome in ended.failed.values() if outcome.code == 2):
            show(mistake)
    return ended.code


def _discard_changed(plan: Plan, store: Store) -> list[str]:
    """Have results made again whose files were changed since they were written; what a row's number is made of is
    checked by the job that reads it."""
    return [
        f"{planning.describe(plan, [key])}: {plan.stages[key].kind} {key[:6]}: {what}; it is made again"
        for key, what in changed(store, plan).items()
        if store.discard(key)
    ]


def _register(plan: Plan, store: Store) -> None:
    """Note what this suite needs, and for which rows."""
    rows = {key: labels[0] for key, labels in plan.needed_by.items()}
    store.register_root(label(plan), plan.suite.path.resolve(), list(plan.stages), rows)


def _launcher(suite: Suite, plan: Plan, store: Store, name: str, jobs: int | None, *, detach: bool) -> Launcher:
    cluster = clusters.read(name)
    with blamed_on(suite):
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
        words = [word for word in shlex.split(again) if word != "--detach"]
        many = "1 job in the queue goes" if len(ids) == 1 else f"{len(ids)} jobs in the queue go"
        return [
            f"{many} on without this terminal: {listed(ids, MANY)}",
            f"  how they are: {suite.command('status', store.root)}",
            f"  stop them:    {suite.command('stop', store.root)}",
            f"  watch, submit again what was killed, and print the table: {shlex.join(words)}",
        ]
    lines = []
    if ended.failed:
        labels = planning.labels(plan, list(ended.failed))
        lines += [
            f"failed: {listed(labels, MANY)} ({len(labels)} of {len(plan.suite.rows)} rows)",
            f"  what was said: {suite.command('logs', store.root, labels[0])}",
            f"  try again:     {again}",
        ]
    how = "interrupted; what is still in the queue goes on" if launcher.outlives_driver else "saved"
    return [*lines, f"{how}. Continue: {again}"] if ended.interrupted else lines


def also_queued(plan: Plan, store: Store, keys: Collection[str]) -> list[str]:
    """What a run on this machine prints first: that jobs for the same wait in a queue, or may, where that does not
    answer."""
    found: list[Submitted] = []
    lines = []
    for kind, notes in submitted.by_kind(submitted.of(store.root, keys)).items():
        try:
            jobs, how = alive(notes), "are"
        except NoAnswer:
            jobs, how = notes, "may be"
        if jobs:
            ids = [note.id for note in jobs]
            queue = facts_of(kind).title
            lines.append(f"{count(len(ids), 'job')} for the same {how} in the queue of {queue}: {listed(ids, MANY)}")
            found += jobs
    if not found:
        return []
    return [
        *lines,
        "  nothing is done twice: whoever comes first makes a stage, and a job that finds all of it done ends at once",
        f"  watch them instead: {plan.suite.command('run', store.root, *cluster_option(found))}",
        f"  take them out:      {plan.suite.command('stop', store.root)}",
    ]
