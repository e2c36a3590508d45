"""What a cluster does to its users: jobs that look dead, limits, answers that get lost, drivers that are killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from bench.launch import Progress
from tests.cluster.conftest import Planned, Queue, drive
from tests.cluster.slurm_up import Slurm


def test_nothing_waits_for_a_job_that_looks_dead(slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path) -> None:
    """Preempted, and perhaps for good: what waited for it is not submitted, and cancelled, at every look."""
    plan, seen_at = planned(), []

    def preempt(progress: Progress) -> None:
        states = [state.status for state in progress.states.values()]
        if "RUNNING" in states and not seen_at:
            slurm.command("sbatch", "-p", "high", "-c6", "-o", os.devnull, "--wrap", "sleep 60")
            seen_at.append(float("inf"))
        if "PREEMPTED" in states:
            seen_at[0] = min(seen_at[0], time.monotonic())
        if seen_at and time.monotonic() > seen_at[0] + 7 and not progress.stopping:
            os.kill(os.getpid(), signal.SIGINT)

    drive(plan, tmp_path / "store", "partition: spot\nsetup: ['sleep 60']\n", show=preempt)
    states = list(queue().values())
    assert states.count("PREEMPTED") == 1
    assert states.count("CANCELLED") == 2, "children, each once"
