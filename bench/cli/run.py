"""`run`: bring the store to what a suite asks for, then print its table."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import typer
from rich.console import Console

from bench.cli.bring import MANY, Bringing, How, report_all, say_left, show_mistakes
from bench.cli.open import check_negatives_early, open_suite
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
from bench.cli.say import listed, say
from bench.cli.sync import tracking_option
from bench.environment import masked
from bench.errors import UserError
from bench.launch.launcher import Launcher
from bench.launch.loop import Ended
from bench.launch.requests import Requests
from bench.plan import planning
from bench.plan.planning import Plan
from bench.store.store import Store
from bench.suite.suite import Suite

INTERRUPTED = 130  # exit code


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
    if loaded.sections.search is not None:
        raise UserError(
            "this suite is a search", where=f"{loaded.document.where('search')} search",
            hint=f"{loaded.command('search', store)}; its rows as they are: add --set search=null",
        )  # fmt: skip
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
    how = How(console, jobs, fuse, keep_going, tracking_uri, cluster, detach)
    bringing = Bringing(plan, store, how, Requests(store.root))
    view = bringing.view
    view.print_headline(console)
    again = again or suite.command("run", store.root, *tracking_option(tracking_uri))
    ended = Ended({}, False)
    if view.missing:
        try:
            ended = bringing.bring()
        except KeyboardInterrupt:  # the second one
            say_left(console, suite, store, again)
            return INTERRUPTED
    try:
        if detach and ended.left:
            pass  # there is no table yet
        else:
            report_all(plan, store, console, tracking_uri, out, ended=ended, anew=bool(view.missing))
        for line in _what_next(ended, plan, store, bringing.launcher, again):
            say(console, line)
    finally:  # a disk that is full for a stage is so for its report
        show_mistakes(ended)
    return ended.code


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
