"""`stop` and `retry`: what a user wants of stages that are at work or have failed. Separate from the loop that runs
them, which may be anywhere, or nowhere: both work without a driver, and tell one where there is one (bench/orders.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from rich.console import Console

from bench import orders, submitted
from bench import plan as planning
from bench.launchers.ended import ENDED
from bench.launchers.slurm import cancel
from bench.launchers.watch import NoAnswer, Watcher, named
from bench.lease import LeaseInfo, host, machine
from bench.plan import Plan
from bench.store import Store
from bench.submission import cluster_option
from bench.submitted import Submitted
from bench.terminal.progress import Ticks, name_of

PATIENCE_SECONDS = 60.0  # a step over 16 pictures of 800 px takes a second on a GPU; then its checkpoint is written
LOOK_SECONDS = 0.2
LINES = 20  # of a list


@dataclass
class Told:
    """Who was told to stop.

    Attributes:
        here: stages at work on this machine, with their processes' leases.
        jobs: of the cluster.
        away: stages at work on other hosts, or for other users: their drivers are told.
        unheard: jobs that may be queued or run, but no Slurm answers here.
    """

    here: dict[str, LeaseInfo] = field(default_factory=dict)
    jobs: list[Submitted] = field(default_factory=list)
    away: dict[str, LeaseInfo] = field(default_factory=dict)
    unheard: list[Submitted] = field(default_factory=list)


def stop(plan: Plan, store: Store, keys: Collection[str]) -> Told:
    """Tell whoever works on these stages to save and end, and drivers not to start them again in this run.

    A process that makes several stages in one pass ends whole; its driver goes on with the others.
    """
    done = planning.all_fresh(plan, store)
    wanted = [key for key in keys if key not in done]
    told = Told()
    if not wanted or not store.root.exists():
        return told
    orders.give(store.root, "stop", wanted)
    notes = submitted.of(store.root, wanted)
    try:
        told.jobs = alive(notes)
        hidden = [i for job in _begun(store, wanted) for i in named(job.name)]  # their driver was killed just then
        heard = cancel([*(job.id for job in told.jobs), *hidden])
    except NoAnswer:
        heard = False
    if not heard:
        told.jobs, told.unheard = [], notes
    in_jobs = {key for job in told.jobs for key in job.keys}
    for key in wanted:
        owner = store.running(key)
        if owner is None or key in in_jobs:
            continue
        told.away[key] = owner
        if owner.host == host() and owner.machine == machine() and owner.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(owner.pid, signal.SIGTERM)
                told.here[key] = told.away.pop(key)
    return told


def alive(notes: list[Submitted]) -> list[Submitted]:
    """The jobs that are queued or run under the names they were given: an id may have gone to somebody else's.

    Raises:
        NoAnswer: no Slurm answers here.
    """
    if not notes:
        return []
    seen = Watcher().ask({note.id: note.name for note in notes})
    return [note for note in notes if (job := seen.get(note.id)) is not None and job.state not in ENDED]


def _begun(store: Store, keys: Collection[str]) -> list[Submitted]:
    """One job of each submission of these stages that was cut short."""
    found = submitted.begun(store.root).values()
    return [jobs[0] for jobs in found if any(set(keys).intersection(job.keys) for job in jobs)]


def also_queued(plan: Plan, store: Store, keys: Collection[str]) -> list[str]:
    """What a run on this machine says first: that jobs for the same wait in a queue, or may, where no Slurm answers."""
    notes, how = submitted.of(store.root, keys), "are"
    try:
        notes = alive(notes)
    except NoAnswer:
        how = "may be"
    if not notes:
        return []
    ids = [note.id for note in notes]
    shown = ", ".join([*ids[:LINES], f"{len(ids) - LINES} more"] if len(ids) > LINES else ids)
    return [
        f"{len(ids)} job{'s' * (len(ids) > 1)} for the same {how} in the queue of Slurm: {shown}",
        "  nothing is done twice: whoever comes first makes a stage, and a job that finds all of it done ends at once",
        f"  watch them instead: {plan.suite.command('run', store.root, *cluster_option(notes))}",
        f"  take them out:      {plan.suite.command('stop', store.root)}",
    ]


def show_stop(plan: Plan, store: Store, keys: Collection[str], console: Console) -> None:
    """`stop`: do it, say who was told, and wait until what runs here has saved."""
    if planning.all_fresh(plan, store).issuperset(keys):
        _say(console, "nothing to stop: all of it is done")
        return
    told = stop(plan, store, keys)
    beside = {key for key in plan.stages if key not in set(keys) and _same_process(store, key, told)}
    for key in told.here:
        _say(console, f"told to save and end: {name_of(plan, key)}  process {told.here[key].pid}")
    for key in beside:
        _say(console, f"  made in the same pass, and stopped with it: {name_of(plan, key)}")
    for job in told.jobs:
        _say(
            console, f"cancelled: job {job.id}  ({planning.describe(plan, [k for k in job.keys if k in plan.stages])})"
        )
    for key, owner in told.away.items():
        hint = f"process {owner.pid} on {owner.host}: its run is told; if that is gone, kill it there"
        _say(console, f"not ours to stop: {name_of(plan, key)}  {hint}")
    if told.unheard:
        ids = " ".join(job.id for job in told.unheard)
        _say(console, f"no Slurm answers here, and jobs may be queued or at work: stop again later, or scancel {ids}")
    ticks = Ticks(store)
    end = time.monotonic() + PATIENCE_SECONDS
    left = dict(told.here)
    while left and time.monotonic() < end:
        for key in [key for key, info in left.items() if not _at_work(store, key, info)]:
            del left[key]
            tick = ticks.of(key)
            state = "done" if store.done(key) else f"saved at step {tick.step}" if tick else "stopped"
            _say(console, f"{state}: {name_of(plan, key)}")
        time.sleep(LOOK_SECONDS if left else 0)
    for key in left:
        _say(console, f"still saving: {name_of(plan, key)}; see: {plan.suite.command('status', store.root)}")
    if not (told.here or told.jobs or told.away or told.unheard):
        _say(console, "nothing of it runs here; a run at work starts nothing more of it")
    _say(console, f"continue: {plan.suite.command('run', store.root, *cluster_option(told.jobs))}")


def _at_work(store: Store, key: str, info: LeaseInfo) -> bool:
    now = store.running(key)
    return now is not None and now.token == info.token


def _same_process(store: Store, key: str, told: Told) -> bool:
    owner = store.running(key) if told.here else None
    return owner is not None and (owner.pid, owner.start) in {(i.pid, i.start) for i in told.here.values()}


def retry(plan: Plan, store: Store, keys: Collection[str]) -> dict[str, str]:
    """Forget that stages failed: their notes are put aside, and a run at work counts their tries from zero.

    Returns:
        Key -> the error that was forgotten.
    """
    found = {key: note.error for key in keys if (note := store.failure(key)) is not None and store.running(key) is None}
    if found or any(submitted.of(store.root, keys, ended=True)):
        orders.give(store.root, "retry", keys)
    for key in found:
        store.forgive(key)
    return found


def show_retry(plan: Plan, store: Store, keys: Collection[str], console: Console) -> None:
    """`retry`: do it, and say what the next run will do."""
    found = retry(plan, store, keys)
    for key, error in list(found.items())[:LINES]:
        saved = any(next(folder.glob("checkpoint-*"), None) for folder in store.attempts(key))
        then = "continues from its checkpoint" if saved else "begins anew"
        _say(console, f"forgotten: {name_of(plan, key)}  {error.splitlines()[0]}  ({then})")
    if len(found) > LINES:
        _say(console, f"forgotten: ... and {len(found) - LINES} more")
    if not found:
        _say(console, "no failure is noted; what was killed or lost continues by itself with the next run")
    again = plan.suite.command("run", store.root, *cluster_option(submitted.of(store.root, keys, ended=True)))
    if found:
        count = "1 stage" if len(found) == 1 else f"{len(found)} stages"
        _say(console, f"{count} of {planning.describe(plan, list(found))}: a run at work tries again at once; else")
    _say(console, f"  {again}")


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
