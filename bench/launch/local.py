"""Jobs on this machine, through submitit's local executor. Separate because that has neither a queue nor GPU slots (it
starts 500 processes at once, all on GPU 0); the queue here respects the cores and GPUs there are.

The driver holds no state: if it is killed, the jobs continue; a new driver finds them by their leases.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.launch.job_files import interrupts_held_back, job_folder
from bench.launch.launcher import Handle, JobState, Launcher
from bench.launch.sharing import refuse_together
from bench.launch.submission import asides, processes
from bench.launchers import options_that_outlive
from bench.plan.jobs import JobPlan
from bench.plan.planning import Plan
from bench.run.job import Job, Outcome
from bench.spec import Machine
from bench.store import own
from bench.store.store import Store
from bench.suite.clusters import Cluster
from bench.tracking.curves import Tracking

A_YEAR_MIN = 525_600  # submitit's local executor wants a time limit; a local job has none


@dataclass
class Slots:
    """How many processes this machine takes: one per GPU where jobs use GPUs, else the cores divided by threads.

    `limit`: jobs at a time (--jobs), of `machine.tasks` processes each.
    """

    machine: Machine
    limit: int | None = None
    gpus: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.machine.device != "cpu":
            self.gpus = visible_gpus()
        if self.machine.device == "cuda" and not self.gpus:
            raise UserError(
                "no GPU on this machine", where="machine.device", allowed="auto, cpu", hint="--set machine.device=cpu"
            )
        if self.gpus and self.machine.tasks > len(self.gpus):
            raise UserError(
                f"{self.machine.tasks} processes need a GPU each, and this machine has {len(self.gpus)}",
                where="machine.tasks", allowed=f"up to {len(self.gpus)}", hint="or --set machine.device=cpu",
            )  # fmt: skip

    @property
    def count(self) -> int:
        here = len(self.gpus) or max(1, len(os.sched_getaffinity(0)) // self.machine.threads)
        return min(here, self.limit * self.machine.tasks) if self.limit else here


def visible_gpus() -> list[int]:
    """Indices of the GPUs that jobs may use, found without torch; empty without a driver.

    Raises:
        UserError: CUDA_VISIBLE_DEVICES names them by UUID, which submitit's local executor cannot pass on.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        parts = [part.strip() for part in chosen.split(",") if part.strip()]
        strange = next((part for part in parts if not part.lstrip("-").isdigit()), None)
        if strange is not None:
            what = f"a queue on one machine knows GPUs by number, and this is {strange}"
            hint = f"or {options_that_outlive()}, or --cluster debug: one job at a time on what is visible"
            raise UserError(what, where="CUDA_VISIBLE_DEVICES", allowed="e.g. 0,1", hint=hint)
        return [int(part) for part in parts if part.isdigit()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return list(range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines())))


def launcher(plan: Plan, store: Store, cluster: Cluster, where: str, limit: int | None) -> Launcher:
    """See bench/launch/launcher.py.

    Raises:
        UserError: this machine lacks what the suite's machine section requests.
    """
    return Local(plan, store, Slots(plan.suite.sections.machine, limit), cluster)


class Local:
    """A launcher: processes of this machine, as many as there are slots."""

    takes_dependencies = outlives_driver = False

    def __init__(self, plan: Plan, store: Store, slots: Slots, cluster: Cluster) -> None:
        self._plan, self._store, self._slots = plan, store, slots
        self.max_retries, self.pause_s = cluster.max_retries, cluster.pause_s
        self.tracking: Tracking | None = None
        self._at_work: dict[Handle, tuple[Any, list[int]]] = {}  # submitit's job, its slots

    @property
    def slots(self) -> int:
        return self._slots.count

    @cached_property
    def _folder(self) -> Path:
        return job_folder()

    def check(self, jobs: Sequence[JobPlan]) -> None:
        """Nothing: `Slots` has checked the machine."""
        for key in (key for job in jobs for key in job.keys):
            refuse_together(self._plan.stages[key], self._slots.machine.tasks)

    def free_slots(self) -> int:
        limit = self._slots.limit
        return len(self._free()) if limit is None else max(0, min(len(self._free()), limit - len(self._at_work)))

    def _free(self) -> list[int]:
        taken = {slot for _, slots in self._at_work.values() for slot in slots}
        return [slot for slot in range(self._slots.count) if slot not in taken]

    def submitting(self) -> AbstractContextManager[bool]:
        return nullcontext(True)

    def adopt(self, keys: Collection[str], known: Collection[Handle]) -> list[Handle]:
        return []

    def submit(self, jobs: Sequence[JobPlan], after: Sequence[Handle]) -> list[Handle]:
        assert not after, "a local job cannot wait"
        handles = []
        for job in jobs:
            tasks = processes(self._plan, job, self._slots.machine.tasks)
            machine = self._slots.machine.model_copy(update={"tasks": tasks})
            slots = self._free()[: min(machine.tasks, self._slots.count)]
            if self.free_slots() and len(slots) == min(machine.tasks, self._slots.count):
                handles.append(self._submit(job, machine, slots))
        return handles

    def _submit(self, job: JobPlan, machine: Machine, slots: list[int]) -> Handle:
        import submitit

        executor = submitit.LocalExecutor(folder=self._folder)
        gpus = [self._slots.gpus[slot] for slot in slots] if self._slots.gpus else []
        more: dict[str, Any] = {"gpus_per_node": len(gpus), "visible_gpus": gpus} if gpus else {}
        more |= {"tasks_per_node": machine.tasks} if machine.tasks > 1 else {}
        executor.update_parameters(timeout_min=A_YEAR_MIN, **more)
        cores = len(os.sched_getaffinity(0))
        tracking = self.tracking.of(job.keys) if self.tracking else None
        root, told = str(self._store.root.resolve()), asides(self._plan, job)
        call = Job(root, job.units, machine, processes=cores, tracking=tracking, asides=told)
        with interrupts_held_back():
            started = executor.submit(call).task(0)  # of several processes the first one reports
            handle = Handle(str(started.job_id), job, str(started.paths.stderr))
            self._at_work[handle] = started, slots
        return handle

    def poll(self, handles: Sequence[Handle]) -> Mapping[Handle, JobState]:
        return {handle: self._state(handle) for handle in handles}

    def _state(self, handle: Handle) -> JobState:
        started, _ = self._at_work[handle]
        if not started.done():
            return JobState("RUNNING")
        del self._at_work[handle]
        hint = f"run the same command again: it continues; log: {handle.log}"
        if not started.paths.result_pickle.exists():
            return JobState("FAILED", text="its process was killed", hint=hint, again=True)
        error = started.exception()
        if error:
            return JobState("FAILED", text=str(error), hint=hint)
        outcomes: Mapping[str, Outcome] = started.result()
        return JobState("COMPLETED", outcomes=outcomes, hint=hint)

    def news(self) -> list[str]:
        return []

    def cancel(self, handles: Sequence[Handle]) -> None:
        """SIGTERM to this run's processes that hold these stages; they save and end. Other runs and hosts continue.

        A job that is still importing holds no lease yet: call it again.
        """
        import psutil

        ours = {process.pid for process in psutil.Process().children(recursive=True)}
        for key in (key for handle in handles for key in handle.job.keys):
            owner = self._store.running(key)
            if owner is not None and owner.pid in ours:
                own.signal_own(owner, self._store.root, key)

    def close(self, *, clean: bool) -> None:
        """Remove the logs of jobs that succeeded."""
        if clean and "_folder" in self.__dict__:
            shutil.rmtree(self._folder, ignore_errors=True)
