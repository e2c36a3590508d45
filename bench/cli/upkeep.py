"""What `plan`, `status`, `logs`, `stop`, `retry` and `gc` do with their arguments. Separate from commands.py, which is
about what is run and reported: these look at what there is to do, after what is at work, and after the store.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.cli import gc as waste
from bench.cli import logs as files
from bench.cli import plan as overviews
from bench.cli import status as standings
from bench.cli import stop as control
from bench.cli.commands import overview
from bench.cli.plan import Overview
from bench.errors import UserError
from bench.launch import submission, submitted
from bench.launch.launcher import NoAnswer
from bench.launch.submission import Submissions
from bench.plan import planning
from bench.store.store import Store
from bench.suite import clusters
from bench.suite.clusters import Cluster
from bench.suite.suite import Suite


def plan(view: Overview, console: Console, cluster: str | None, start: str) -> None:
    """`bench plan`; `start`: the command that runs it."""
    view.print(console)
    verb = "start it" if view.missing else "nothing to do; the table"
    if cluster is not None and view.missing:
        settings = clusters.read(cluster)
        found = submissions(view, settings)
        submission.show(view.plan, found, settings, cluster, console)
        verb = verb if found.jobs else "watch it"
    console.print(f"{verb}: {start}", highlight=False, markup=False, soft_wrap=True)


def plan_json(view: Overview, cluster: str | None) -> dict[str, Any]:
    """What `plan --json` prints; with a cluster, what would be submitted as well."""
    if cluster is None:
        return view.to_json()
    found = submissions(view, clusters.read(cluster))
    return view.to_json() | {"cluster": cluster, "submissions": submission.to_json(found)}


def submissions(view: Overview, cluster: Cluster) -> Submissions:
    """The jobs that `run --cluster` would submit now."""
    notes = submitted.by_kind(submitted.of(view.store.root, view.missing)).get(cluster.kind, [])
    try:
        queued, sure = control.alive(notes), True
    except NoAnswer:
        queued, sure = notes, False
    made_by = {key: note.id for note in queued for key in note.keys}
    done = view.plan.stages.keys() - view.missing
    mine = {key for key in view.missing if key not in made_by and view.states[key] != "running"}
    jobs = planning.jobs(view.plan, mine, view.estimate, fuse=view.fuse, done=done, made_by=made_by)
    return replace(submission.submissions(view.plan, cluster, jobs, done, queued), sure=sure)


def status(suite: Suite, store_path: Path, console: Console, *, fuse: bool = True, watch: bool = False) -> None:
    """`bench status`; `watch`: redrawn until all is done."""
    view = _with_slots_of_its_jobs(overview(suite, store_path, fuse=fuse))
    if not watch:
        standings.show(view, console)
        return
    standings.watch(lambda: overviews.compare(view.plan, view.store, view.slots, fuse=fuse), console)


def status_json(suite: Suite, store_path: Path) -> dict[str, Any]:
    """What `status --json` prints."""
    return standings.StatusTable(_with_slots_of_its_jobs(overview(suite, store_path))).to_json()


def _with_slots_of_its_jobs(view: Overview) -> Overview:
    """While jobs of it wait or run on a cluster, the rest takes as long as there, not as on this machine."""
    notes = [note for note in submitted.of(view.store.root, view.missing) if note.cluster]
    with contextlib.suppress(UserError):  # the file has gone, or is broken by now
        return replace(view, slots=clusters.read(notes[-1].cluster).array_parallelism) if notes else view
    return view


def stop(suite: Suite, store_path: Path, word: str | None, console: Console) -> None:
    """`bench stop`: of a row, the stages that no other row needs."""
    plan = planning.make(suite)
    control.show_stop(plan, Store(store_path), overviews.needed_alone(plan, word), console)


def retry(suite: Suite, store_path: Path, word: str | None, console: Console) -> None:
    """`bench retry`."""
    plan = planning.make(suite)
    control.show_retry(plan, Store(store_path), overviews.chosen(plan, word), console)


def gc(store_path: Path, forget: Sequence[str], console: Console, confirm: Callable[[], bool]) -> None:
    """`bench gc`: show what can go, and let it go if that is confirmed."""
    store = Store(store_path)
    found = waste.look(store, forget)
    waste.show(found, console)
    if not (found.waste or found.leftovers or found.temporaries or found.forgotten):
        if found.needs:
            console.print("of a suite that nobody needs any more: gc --forget NAME", highlight=False, soft_wrap=True)
        return
    if not confirm():
        console.print("nothing was deleted", highlight=False)
        return
    freed = waste.sweep(store, found)
    kept = f"; {freed.kept} were kept, since they are needed or at work by now" if freed.kept else ""
    console.print(f"freed {freed.bytes / 1e6:.1f} MB, {freed.stages} stages{kept}", highlight=False, soft_wrap=True)


def logs(suite: Suite, store_path: Path, word: str, console: Console, *, follow: bool, lines: int) -> None:
    """`bench logs`: of a row, the stage of it that is at work, has failed, or ran last."""
    plan, store = planning.make(suite), Store(store_path)
    key = files.newest(plan, store, overviews.chosen(plan, word))
    if follow:
        files.follow(plan, store, key, console, lines)
    else:
        files.show(plan, store, key, console, lines)
