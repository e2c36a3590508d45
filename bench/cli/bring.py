"""Bring the store to a plan from a terminal: what `run` and each round of `search` do. Separate from run.py, which is
the command: its options, its table, what comes next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, RenderableType

from bench.cli import sync
from bench.cli.intervals import with_intervals
from bench.cli.open import blamed_on, check_weights_early
from bench.cli.overview import compare
from bench.cli.progress import Display
from bench.cli.say import count, listed, say
from bench.cli.tables import is_reported, label, note_reported, print_table, write_report
from bench.cli.tracked import live, whose
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

MANY = 20  # rows, or job ids, of a list that are spelt out


@dataclass(frozen=True)
class How:
    """The options of a command that say how jobs run."""

    console: Console
    jobs: int | None = None
    fuse: bool = True
    keep_going: bool = True
    tracking_uri: str | None = None
    cluster: str = "local"
    detach: bool = False


class Bringing:
    """A plan beside its store, checked as far as nothing has to be started.

    Args:
        plan: what is wanted.
        store: what there is.
        how: how jobs run.
        requests: of users, from when the command began: a stop that is asked for meanwhile counts.
        held: stages beside the plan's that the command needs, which `gc` leaves alone.

    Raises:
        UserError: what `plan` needs is not there; this machine or cluster lacks what the suite asks for.
    """

    def __init__(self, plan: Plan, store: Store, how: How, requests: Requests, *, held: Collection[str] = ()) -> None:
        suite = plan.suite
        self._plan, self._store, self._how, self._requests, self._held = plan, store, how, requests, held
        self.launcher = _launcher(suite, plan, store, how.cluster, how.jobs, detach=how.detach)
        self.launcher.tracking = _tracking(suite, plan, how.tracking_uri)
        check_weights_early(suite, plan, store)
        if store.root.exists():  # before anything is found to be done: `gc` leaves it alone from now on
            with contextlib.suppress(UserError):  # a store that may only be read serves as long as nothing is missing
                _register(plan, store, held)
        for line in _discard_changed(plan, store):
            say(how.console, line)
        self.view = compare(plan, store, self.launcher.slots, fuse=how.fuse)

    def bring(self, above: Callable[[], RenderableType | None] | None = None) -> Ended:
        """Make what is missing. `above`: what is drawn above its progress.

        Raises:
            UserError: the store cannot be written, or the cluster refuses a job.
            KeyboardInterrupt: the second one.
        """
        plan, store, how = self._plan, self._store, self._how
        store.check_writable()
        self.launcher.check(self.view.jobs)
        _register(plan, store, self._held)
        for line in [] if self.launcher.outlives_driver else also_queued(plan, store, self.view.missing):
            say(how.console, line)
        sync.prepare(store, plan.suite, how.tracking_uri, how.console)
        with self._live(), Display(plan, store, how.console, above) as display:
            return launch.run(
                plan, store, self.launcher, fuse=how.fuse, keep_going=how.keep_going, show=display.show,
                detach=how.detach, requests=self._requests,
            )  # fmt: skip

    @contextlib.contextmanager
    def _live(self) -> Iterator[None]:
        """The curves of what works on this machine are in the store's MLflow meanwhile."""
        how = self._how
        if self.launcher.outlives_driver or self.launcher.tracking is not None:
            yield
            return
        with live(self._plan, self._store, how.tracking_uri) as curves:
            yield
        sync.print_notice(curves.notice, how.console)


def report_all(
    plan: Plan, store: Store, console: Console, uri: str | None, out: Path | None, *, ended: Ended, anew: bool
) -> None:
    """Report and MLflow, where they do not show what is done (or `anew`), and the table."""
    if not anew and is_reported(plan, store, out):
        print_table(plan, store, with_intervals(plan, store, load(store, plan), console, wanted=False), console)
        return
    results = with_intervals(plan, store, load(store, plan), console)
    notice = sync.mirror(plan, store, results, uri, console).notice
    sync.print_notice(notice, console)
    files = write_report(plan, store, results, console, out, failed=ended)
    if sync.attach(plan, store, console, uri, files) and not notice:
        note_reported(plan, store, out)


def say_left(console: Console, suite: Suite, store: Store, again: str) -> None:
    """What is printed after a second Ctrl-C."""
    say(console, "ended without waiting: a job that could not save loses the steps since its last checkpoint")
    say(console, f"  how they are: {suite.command('status', store.root)}")
    say(console, f"  continue:     {again}")


def show_mistakes(ended: Ended) -> None:
    """The messages of stages that failed by a user's mistake, each once."""
    for mistake in dict.fromkeys(outcome.message for outcome in ended.failed.values() if outcome.code == 2):
        show(mistake)


def _discard_changed(plan: Plan, store: Store) -> list[str]:
    """Have results made again whose files were changed since they were written; what a row's number is made of is
    checked by the job that reads it."""
    return [
        f"{planning.describe(plan, [key])}: {plan.stages[key].kind} {key[:6]}: {what}; it is made again"
        for key, what in changed(store, plan).items()
        if store.discard(key)
    ]


def _register(plan: Plan, store: Store, held: Collection[str]) -> None:
    """Note what this suite needs, and for which rows."""
    rows = {key: labels[0] for key, labels in plan.needed_by.items()}
    table = [noted for row in plan.rows if (noted := row.noted) is not None]
    keys = list({**dict.fromkeys(held), **plan.stages})
    store.register_root(label(plan), plan.suite.path.resolve(), keys, rows, table)


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
    return Tracking(uri, suite.name, whose(plan))


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
        f"  watch them instead: {plan.suite.command(plan.suite.verb, store.root, *cluster_option(found))}",
        f"  take them out:      {plan.suite.command('stop', store.root)}",
    ]
