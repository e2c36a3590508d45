"""Jobs in the driver's own process, one after another. Separate because nothing is submitted: `breakpoint()` works."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from bench.launch.launcher import Handle, JobState, Launcher
from bench.launch.submission import asides
from bench.plan.jobs import JobPlan
from bench.plan.planning import Plan
from bench.run.job import Job, Outcome
from bench.run.work import signals_restored
from bench.store.store import Store
from bench.suite.clusters import Cluster
from bench.tracking.curves import Tracking


def launcher(plan: Plan, store: Store, cluster: Cluster, where: str, limit: int | None) -> Launcher:
    """See bench/launch/launcher.py."""
    return Debug(plan, store, cluster)


class Debug:
    """A launcher: `submit` returns when the job is done."""

    takes_dependencies = outlives_driver = False
    slots = 1

    def __init__(self, plan: Plan, store: Store, cluster: Cluster) -> None:
        self._plan, self._store, self._machine = plan, store, plan.suite.sections.machine
        self.max_retries, self.pause_s = cluster.max_retries, cluster.pause_s
        self.tracking: Tracking | None = None
        self._outcomes: dict[Handle, Mapping[str, Outcome]] = {}

    def check(self, jobs: Sequence[JobPlan]) -> None:
        """Nothing that could be missing."""

    def free_slots(self) -> int:
        return 0 if self._outcomes else 1

    def submitting(self) -> AbstractContextManager[bool]:
        return nullcontext(True)

    def adopt(self, keys: Collection[str], known: Collection[Handle]) -> list[Handle]:
        return []

    def submit(self, jobs: Sequence[JobPlan], after: Sequence[Handle]) -> list[Handle]:
        assert not after, "a job in this process cannot wait"
        taken = list(jobs[: self.free_slots()])
        handles = [Handle(str(os.getpid()), job) for job in taken]
        for handle in handles:
            machine = self._machine.model_copy(update={"tasks": 1})  # only this process
            told = asides(self._plan, handle.job)
            call = Job(str(self._store.root.resolve()), handle.job.units, machine, asides=told)
            with signals_restored():
                self._outcomes[handle] = outcomes = call()
            if any(outcome.state == "stopped" for outcome in outcomes.values()):
                signal.raise_signal(signal.SIGINT)  # the Ctrl-C was meant for the driver as well
        return handles

    def poll(self, handles: Sequence[Handle]) -> Mapping[Handle, JobState]:
        return {handle: JobState("COMPLETED", outcomes=self._outcomes.pop(handle)) for handle in handles}

    def news(self) -> list[str]:
        return []

    def cancel(self, handles: Sequence[Handle]) -> None:
        """Whatever was submitted has ended."""

    def close(self, *, clean: bool) -> None:
        """No files."""
