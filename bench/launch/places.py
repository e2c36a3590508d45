"""The launcher or the queue that a kind names. Separate from launcher.py, which the files of the places import, because
this one imports them, by name and when asked for.
"""

from __future__ import annotations

import importlib

from bench.launch.launcher import Launcher, NoAnswer, Queue
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
