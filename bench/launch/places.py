"""The launcher or the queue that a kind names. Separate from launcher.py, which the files of the places import, because
this one imports them, by name and when asked for.
"""

from __future__ import annotations

import importlib

from bench.launch.launcher import Launcher, NoAnswer, Queue
from bench.launch.submitted import Submitted, by_kind
from bench.launchers import facts_of
from bench.plan.planning import Plan
from bench.store.store import Store
from bench.suite.clusters import Cluster


def launcher_of(plan: Plan, store: Store, cluster: Cluster, where: str, limit: int | None) -> Launcher:
    """The launcher of a cluster.

    Args:
        plan: what is wanted.
        store: where it goes.
        cluster: the settings.
        where: the file they are from, for messages.
        limit: jobs at a time (--jobs).

    Raises:
        UserError: this machine lacks what the suite's machine section asks for.
    """
    module = importlib.import_module(facts_of(cluster.kind).module)
    launcher: Launcher = module.launcher(plan, store, cluster, where, limit)
    return launcher


def queue_of(kind: str) -> Queue:
    """The queue of a kind of launcher whose jobs outlive their driver.

    Raises:
        NoAnswer: this version has no such launcher, so that its jobs cannot be asked for.
    """
    facts = facts_of(kind)
    if not facts.module:
        raise NoAnswer(f"no launcher of kind {kind}")
    queue: Queue = importlib.import_module(facts.module).queue()
    return queue


def alive(notes: list[Submitted]) -> list[Submitted]:
    """The jobs that are queued or run under the names they were given: an id may have gone to somebody else's.

    Raises:
        NoAnswer: a queue that some of them are in does not answer here.
    """
    seen = {kind: queue_of(kind).ask(jobs) for kind, jobs in by_kind(notes).items()}
    found = [(note, seen[note.kind].get(note.id)) for note in notes]
    return [note for note, entry in found if entry is not None and entry.phase != "ended"]
