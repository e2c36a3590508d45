"""`stop` and `retry`: what a user wants of stages that are at work or have failed. Separate from the loop that runs
them, which may be anywhere, or nowhere: both work without a driver, and leave a request for one
(bench/launch/requests.py).
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from rich.console import Console

from bench.cli.open import open_suite
from bench.cli.options import DEFAULT_STORE, DataPath, MaybeStage, Only, Preset, Seeds, Sets, StoreOption, SuitePath
from bench.cli.progress import Ticks, name_of
from bench.cli.say import say
from bench.cli.selection import chosen, needed_alone
from bench.cli.wanted import wanted
from bench.launch import requests as orders
from bench.launch import submitted
from bench.launch.launcher import NoAnswer
from bench.launch.places import alive, queue_of
from bench.launch.submission import cluster_option
from bench.launch.submitted import Submitted
from bench.launchers import facts_of
from bench.plan import planning
from bench.plan.planning import Plan
from bench.store import own
from bench.store.existing import not_another
from bench.store.lease import LeaseInfo
from bench.store.store import Store

PATIENCE_SECONDS = 60.0  # a step over 16 images of 800 px takes a second on a GPU; then its checkpoint is written
LOOK_SECONDS = 0.2
LINES = 20  # of a list


def stop_command(
    suite: SuitePath, stage: MaybeStage = None, store: StoreOption = DEFAULT_STORE, preset: Preset = None,
    data: DataPath = None, sets: Sets = None, only: Only = None, seeds: Seeds = None,
) -> None:  # fmt: skip
    """Ask running jobs to save and end; nothing is lost, and `run` continues.

    With a row: what it alone needs. Stages that other rows wait for are stopped by their key.
    """
    loaded = open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    opened = not_another(store)
    plan = wanted(loaded, store)
    show_stop(plan, opened, needed_alone(plan, stage), Console())


def retry_command(
    suite: SuitePath, stage: MaybeStage = None, store: StoreOption = DEFAULT_STORE, preset: Preset = None,
    data: DataPath = None, sets: Sets = None, only: Only = None, seeds: Seeds = None,
) -> None:  # fmt: skip
    """Clear the failures of stages, so that a run that is at work tries them again at once. Starts nothing itself.

    Without a run at work it is not needed: the next `run` tries again whatever has failed.
    """
    loaded = open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    opened = not_another(store)
    plan = wanted(loaded, store)
    show_retry(plan, opened, chosen(plan, stage), Console())


@dataclass
class StopReport:
    """What `stop` has reached.

    Attributes:
        signalled: stages at work on this machine, with their processes' leases.
        cancelled: jobs of a queue.
        foreign: jobs of a queue that this user has not submitted, or not with this cache folder.
        elsewhere: stages at work on other hosts, or in processes that are none of this user's jobs: their drivers read
            the request.
        unanswered: jobs that may be queued or run, but their queue does not answer here.
    """

    signalled: dict[str, LeaseInfo] = field(default_factory=dict)
    cancelled: list[Submitted] = field(default_factory=list)
    foreign: list[Submitted] = field(default_factory=list)
    elsewhere: dict[str, LeaseInfo] = field(default_factory=dict)
    unanswered: list[Submitted] = field(default_factory=list)


def stop(plan: Plan, store: Store, keys: Collection[str]) -> StopReport:
    """Ask whoever works on these stages to save and end, and drivers not to start them again in this run.

    A process that makes several stages in one pass ends whole; its driver goes on with the others.
    """
    done = planning.all_fresh(plan, store)
    wanted = [key for key in keys if key not in done]
    report = StopReport()
    if not wanted or not store.root.exists():
        return report
    orders.request(store.root, "stop", wanted)
    notes = submitted.by_kind(submitted.of(store.root, wanted))
    begun = submitted.by_kind(_begun(store, wanted))
    for kind in sorted(notes.keys() | begun.keys()):
        jobs = _cancel(kind, notes.get(kind, []), begun.get(kind, []))
        report.cancelled += [job for job in jobs or [] if submitted.is_own(job)]
        report.foreign += [job for job in jobs or [] if not submitted.is_own(job)]
        report.unanswered += notes.get(kind, []) if jobs is None else []
    in_jobs = {key for job in report.cancelled for key in job.keys}
    for key in wanted:
        owner = store.running(key)
        if owner is None or key in in_jobs:
            continue
        reached = report.signalled if own.signal_own(owner, store.root, key) else report.elsewhere
        reached[key] = owner
    return report


def _cancel(kind: str, notes: list[Submitted], begun: list[Submitted]) -> list[Submitted] | None:
    """Cancel this user's jobs of one queue, those also whose driver was killed while it submitted them. All that were
    noted and had not ended, also others'; None where the queue does not answer."""
    try:
        queue, jobs = queue_of(kind), alive(notes)
        mine = [job.id for job in jobs if submitted.is_own(job)]
        hidden = [i for job in begun if own.folder_of(job.name) is not None for i in queue.named(job.name)]
        return jobs if queue.cancel([*mine, *hidden]) else None
    except NoAnswer:
        return None


def _begun(store: Store, keys: Collection[str]) -> list[Submitted]:
    """One job of each submission of these stages that was cut short."""
    found = submitted.begun(store.root).values()
    return [jobs[0] for jobs in found if any(set(keys).intersection(job.keys) for job in jobs)]


def show_stop(plan: Plan, store: Store, keys: Collection[str], console: Console) -> None:
    """`stop`: do it, print what was reached, and wait until what runs here has saved."""
    if planning.all_fresh(plan, store).issuperset(keys):
        say(console, "nothing to stop: all of it is done")
        return
    report = stop(plan, store, keys)
    for line in _reached(plan, store, set(keys), report):
        say(console, line)
    ticks = Ticks(store)
    end = time.monotonic() + PATIENCE_SECONDS
    left = dict(report.signalled)
    while left and time.monotonic() < end:
        for key in [key for key, info in left.items() if not _at_work(store, key, info)]:
            del left[key]
            tick = ticks.of(key)
            state = "done" if store.done(key) else f"saved at step {tick.step}" if tick else "stopped"
            say(console, f"{state}: {name_of(plan, key)}")
        time.sleep(LOOK_SECONDS if left else 0)
    for key in left:
        say(console, f"still saving: {name_of(plan, key)}; see: {plan.suite.command('status', store.root)}")
    if report == StopReport():
        say(console, "none of its stages runs on this machine; a run of it elsewhere was asked to start no more")
    say(console, f"continue: {plan.suite.command(plan.suite.verb, store.root, *cluster_option(report.cancelled))}")


def _reached(plan: Plan, store: Store, keys: set[str], report: StopReport) -> list[str]:
    """Who was asked to end, and what is for the user to do."""
    beside = [key for key in plan.stages if key not in keys and _same_process(store, key, report)]
    lines = [
        f"asked to save and end: {name_of(plan, key)}  process {owner.pid}" for key, owner in report.signalled.items()
    ]
    lines += [f"  made in the same pass, and stopped with it: {name_of(plan, key)}" for key in beside]
    for job in report.cancelled:
        lines.append(
            f"cancelled: job {job.id}  ({planning.describe(plan, [key for key in job.keys if key in plan.stages])})"
        )
    for key, owner in report.elsewhere.items():
        hint = f"process {owner.pid} on {owner.host}: its run will end it; if that is gone, kill it there"
        lines.append(f"not ours to stop: {name_of(plan, key)}  {hint}")
    for job in report.foreign:
        command = facts_of(job.kind).cancel_command
        by_hand = f"; if it is yours: {command} {job.id}" if command and re.fullmatch(r"[\w.-]+", job.id) else ""
        lines.append(f"not cancelled: job {job.id}, since you have not submitted it from here{by_hand}")
    for kind, jobs in submitted.by_kind(report.unanswered).items():
        facts, ids = facts_of(kind), " ".join(job.id for job in jobs)
        by_hand = f", or {facts.cancel_command} {ids}" if facts.cancel_command else f" (jobs {ids})"
        lines.append(f"no {facts.title} answers here, and jobs may be queued or at work: stop again later{by_hand}")
    return lines


def _at_work(store: Store, key: str, info: LeaseInfo) -> bool:
    now = store.running(key)
    return now is not None and now.token == info.token


def _same_process(store: Store, key: str, report: StopReport) -> bool:
    owner = store.running(key) if report.signalled else None
    return owner is not None and (owner.pid, owner.start) in {(i.pid, i.start) for i in report.signalled.values()}


def retry(plan: Plan, store: Store, keys: Collection[str]) -> dict[str, str]:
    """Clear the failures of stages: their notes are put aside, and a run at work counts their tries from zero.

    Returns:
        Key -> the error that was cleared.
    """
    found = {key: note.error for key in keys if (note := store.failure(key)) is not None and store.running(key) is None}
    if found or any(submitted.of(store.root, keys, ended=True)):
        orders.request(store.root, "retry", keys)
    for key in found:
        store.clear_failures(key)
    return found


def show_retry(plan: Plan, store: Store, keys: Collection[str], console: Console) -> None:
    """`retry`: do it, and print what the next run will do."""
    found = retry(plan, store, keys)
    for key, error in list(found.items())[:LINES]:
        saved = any(next(folder.glob("checkpoint-*"), None) for folder in store.attempts(key))
        then = "continues from its checkpoint" if saved else "begins anew"
        say(console, f"cleared: {name_of(plan, key)}  {error.splitlines()[0]}  ({then})")
    if len(found) > LINES:
        say(console, f"cleared: ... and {len(found) - LINES} more")
    if not found:
        say(console, "no failure is noted; what was killed or lost continues by itself with the next run")
    again = plan.suite.command(plan.suite.verb, store.root, *cluster_option(submitted.of(store.root, keys, ended=True)))
    if found:
        count = "1 stage" if len(found) == 1 else f"{len(found)} stages"
        say(console, f"{count} of {planning.describe(plan, list(found))}: a run at work tries again at once; else")
    say(console, f"  {again}")
