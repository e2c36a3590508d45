"""A network disk that shows late what a node has written there."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path

from tiny_suite import tiny

from bench.launch import loop as launch
from bench.launch.debug import Debug
from bench.launch.launcher import Handle
from bench.launch.loop import Progress
from bench.plan import planning
from bench.plan.jobs import JobPlan, make_jobs
from bench.store.store import Store
from bench.suite.clusters import Cluster


class Late(Debug):
    """Real jobs, whose `done` files the driver sees a second after they have ended, as over NFS."""

    outlives_driver = True
    hidden: dict[Path, float]
    submitted = 0

    def submit(self, jobs: Sequence[JobPlan], after: Sequence[Handle]) -> list[Handle]:
        handles = super().submit(jobs, after)
        self.submitted += len(handles)
        for handle in handles:
            self._hide(handle.job.keys)
        return handles

    def _hide(self, keys: Collection[str]) -> None:
        for key in keys:
            path = self._store.folder(key) / "done"
            path.rename(path.with_name("late"))
            self.hidden[path] = time.monotonic() + 1.0

    def show(self, progress: Progress) -> None:
        for path in [path for path, at in self.hidden.items() if time.monotonic() > at]:
            path.with_name("late").rename(path)
            del self.hidden[path]


def test_what_a_job_has_reported_done_is_not_submitted_again(tmp_path: Path, surroundings: None) -> None:
    plan, store = planning.make(tiny(only="baseline")), Store(tmp_path / "store")
    late = Late(plan, store, Cluster(kind="debug", pause_s=5.0))
    late.hidden = {}
    ended = launch.run(plan, store, late, fuse=True, keep_going=True, show=late.show)
    assert ended.code == 0, ended.failed
    assert late.submitted == len(make_jobs(plan, set(plan.stages), planning.learned(plan, Store(tmp_path / "no"))))
