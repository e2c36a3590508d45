"""A queue that is not Slurm, in one file: what bench/launch/launcher.py asks of a place where jobs run, and no more.

The queue is a folder with a file per job. It has one worker, which takes the next job whenever a driver looks: so jobs
wait as long as nobody does, and run in the process of the driver that watches.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.launch import submitted
from bench.launch.launcher import Handle, JobState, Launcher, NoAnswer, Phase, Queue, QueueEntry, Status
from bench.launch.submission import asides, needs
from bench.launch.submitted import Submitted
from bench.launchers import LauncherFacts
from bench.plan.jobs import JobPlan
from bench.plan.planning import Plan
from bench.run.job import Job, Outcome
from bench.run.work import signals_restored
from bench.store.lease import host
from bench.store.store import Store
from bench.suite.clusters import Cluster
from bench.tracking.curves import Tracking

FACTS = LauncherFacts(
    kind="shelf", module="tests.second_queue", title="Shelf", outlives_driver=True, asks_resources=True,
    cancel_command="shelf withdraw",
)  # fmt: skip
MEANS: Mapping[str, tuple[Phase, Status]] = {
    "Laid": ("waiting", "PENDING"),
    "Made": ("ended", "COMPLETED"),
    "Withdrawn": ("ended", "CANCELLED"),
}


def launcher(plan: Plan, store: Store, cluster: Cluster, where: str, limit: int | None) -> Launcher:
    return Shelf(plan, store, cluster, where)


def queue() -> Queue:
    return ShelfQueue(Path(os.environ["SHELF"]))


class ShelfQueue:
    """A Queue."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def jobs(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        if not self.folder.is_dir():
            raise NoAnswer("the folder is away")
        for path in sorted(self.folder.glob("*.json")):
            yield path, json.loads(path.read_text())

    def ask(self, notes: Sequence[Submitted]) -> Mapping[str, QueueEntry | None]:
        known = {(path.stem, job["name"]): job for path, job in self.jobs()}
        found = {note.id: known.get((note.id, note.name)) for note in notes}
        return {
            job_id: QueueEntry(job["state"], "below others", phase=MEANS[job["state"]][0]) if job else None
            for job_id, job in found.items()
        }

    def named(self, name: str) -> list[str]:
        return [path.stem for path, job in self.jobs() if job["name"] == name]

    def cancel(self, ids: Sequence[str]) -> bool:
        for path, job in self.jobs():
            if path.stem in ids and job["state"] == "Laid":
                path.write_text(json.dumps(job | {"state": "Withdrawn"}))
        return True


class Shelf:
    """A Launcher."""

    takes_dependencies = outlives_driver = True

    def __init__(self, plan: Plan, store: Store, cluster: Cluster, where: str) -> None:
        self._plan, self._store, self._cluster, self._where = plan, store, cluster, where
        self._queue = ShelfQueue(Path(os.environ["SHELF"]))
        self._notes: dict[Handle, Submitted] = {}
        self.slots = cluster.array_parallelism
        self.max_retries, self.pause_s = cluster.max_retries, cluster.pause_s
        self.tracking: Tracking | None = None

    def check(self, jobs: Sequence[JobPlan]) -> None: ...

    def free_slots(self) -> int:
        return 100

    def submitting(self) -> AbstractContextManager[bool]:
        return nullcontext(True)

    def adopt(self, keys: Collection[str], known: Collection[Handle]) -> list[Handle]:
        ids = {handle.id for handle in known}
        notes = [note for note in submitted.of(self._store.root, keys) if note.id not in ids]
        entries = self._queue.ask(notes)
        for note in notes:
            entry = entries[note.id]
            if entry is None or entry.phase == "ended":
                submitted.end(self._store.root, note, "LOST" if entry is None else MEANS[entry.state][1])
        return [self._handle(note) for note in notes if (e := entries[note.id]) is not None and e.phase == "waiting"]

    def submit(self, jobs: Sequence[JobPlan], after: Sequence[Handle]) -> list[Handle]:
        return [self._submit(job, [handle.id for handle in after]) for job in jobs]

    def _submit(self, job: JobPlan, after: list[str]) -> Handle:
        job_id, cluster = f"S{len(list(self._queue.jobs())) + 1}", str(Path(self._where).resolve())
        asked = needs(self._plan, self._cluster, job).model_dump(mode="json")
        note = Submitted(
            job_id, f"{self._plan.suite.name}-{job_id}", str(self._plan.suite.path.resolve()), job.units, time.time(),
            host(), "", "", tuple(after), asked, cluster=cluster, kind=self._cluster.kind,
        )  # fmt: skip
        entry = {"name": note.name, "state": "Laid", "after": after, "units": job.units}
        (self._queue.folder / f"{job_id}.json").write_text(json.dumps(entry))
        submitted.write(self._store.root, note)
        return self._handle(note)

    def _handle(self, note: Submitted) -> Handle:
        handle = Handle(note.id, JobPlan(note.units))
        self._notes[handle] = note
        return handle

    def poll(self, handles: Sequence[Handle]) -> Mapping[Handle, JobState]:
        self._work()
        jobs = {path.stem: job for path, job in self._queue.jobs()}
        states = {handle: self._state(jobs[handle.id]) for handle in handles}
        for handle, state in states.items():
            if not state.active:
                submitted.end(self._store.root, self._notes[handle], state.status)
        return states

    def _work(self) -> None:
        """The worker takes one job of those whose parents are made."""
        made = {path.stem for path, job in self._queue.jobs() if job["state"] == "Made"}
        for path, job in self._queue.jobs():
            if job["state"] == "Laid" and made.issuperset(job["after"]):
                units = tuple(tuple(unit) for unit in job["units"])
                with signals_restored():
                    machine = self._plan.suite.sections.machine
                    told = asides(self._plan, JobPlan(units))
                    outcomes = Job(str(self._store.root.resolve()), units, machine, asides=told)()
                ended = {key: asdict(outcome) for key, outcome in outcomes.items()}
                path.write_text(json.dumps(job | {"state": "Made", "outcomes": ended}))
                return

    @staticmethod
    def _state(job: Mapping[str, Any]) -> JobState:
        outcomes = {key: Outcome(**outcome) for key, outcome in job.get("outcomes", {}).items()}
        return JobState(MEANS[job["state"]][1], outcomes=outcomes or None)

    def news(self) -> list[str]:
        return []

    def cancel(self, handles: Sequence[Handle]) -> None:
        self._queue.cancel([handle.id for handle in handles])

    def close(self, *, clean: bool) -> None: ...
