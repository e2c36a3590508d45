"""What several places need to make a job of a JobPlan. Separate so that they do not know one another.

submitit's pickles lie in the user's own folder: a pickle runs code when it is read, so it never lies in a shared store.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.errors import UserError
from bench.plan import JobPlan
from bench.run.curves import Tracking
from bench.spec import Machine
from bench.stage import KINDS
from bench.store import Store


def job_folder() -> Path:
    """A fresh folder, for its owner only.

    Raises:
        UserError: it cannot be made.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longtail-bench" / "jobs"
    try:
        base.mkdir(parents=True, mode=0o700, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{time.strftime('%Y%m%d-%H%M%S')}-", dir=base))
    except OSError as error:
        raise UserError(
            f"cannot be made: {error.strerror}", where=str(base), hint="set XDG_CACHE_HOME to a folder of yours"
        ) from None
    base.chmod(0o700)
    return folder


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Submit whole, and start children deaf to Ctrl-C and to a terminal that closes (they inherit the signal mask):
    submitit's controller would kill the job before it has saved. The job itself listens again (`StopFlag.install`);
    what comes meanwhile reaches us afterwards."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})


def on_tasks(machine: Machine, job: JobPlan, store: Store) -> Machine:
    """The machine of one job: several processes train together, but none of the other kinds."""
    if machine.tasks > 1 and not any(KINDS[store.load(key)["kind"]].processes for key in job.keys):
        return machine.model_copy(update={"tasks": 1})
    return machine


def told(tracking: Tracking | None, job: JobPlan) -> Tracking | None:
    """The tracking of one job: of thousands of labels, its own."""
    if tracking is None:
        return None
    return replace(tracking, labels={key: tracking.labels[key] for key in job.keys if key in tracking.labels})
