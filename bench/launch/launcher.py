"""The two ports of a place where jobs run: `Launcher`, which the loop (bench/launch/loop.py) drives, and `Queue`, which
commands query without a driver. Separate so that launchers do not import the loop, nor commands the launchers.

The file of a place (bench/launchers.py names it) has two functions at most:

    launcher(plan, store, cluster, where, limit) -> Launcher
    queue() -> Queue, where jobs outlive their driver
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from bench.launch.submitted import Submitted
from bench.plan.jobs import JobPlan
from bench.run.job import Outcome
from bench.tracking.curves import Tracking

Status = Literal[
    "PENDING",
    "REQUEUED",  # pending again, under its old id
    "PREEMPTED",  # probably pending again: see bench/launch/slurm/slurm.py
    "RUNNING",
    "COMPLETED",
    "FAILED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "CANCELLED",
    "LOST",  # its queue no longer lists it, and it left no result
]
ACTIVE: frozenset[Status] = frozenset({"PENDING", "REQUEUED", "PREEMPTED", "RUNNING"})


@dataclass(frozen=True)
class Handle:
    """A submitted job.

    Attributes:
        id: given by the launcher.
        job: what it does; of another suite's job, the part that is in this plan.
        log: file with what it printed on stderr.
        own: whether it was submitted for this suite; another suite's job is waited for, never cancelled.
    """

    id: str
    job: JobPlan
    log: str = ""
    own: bool = True


@dataclass(frozen=True)
class JobState:
    """The state of a job.

    Attributes:
        status: see `Status`.
        reason: why it waits, in the queue's words.
        host: where it runs.
        outcomes: of its stages; None where the job did not report them.
        text: what ended it, in words, where it did not report that.
        hint: what to do about that; of a waiting job, where waiting alone may not help.
        again: whether submitting it again may succeed.
        blocked: cancelled because a job that it waited for failed.
        over: PREEMPTED finally.
        doubtful: probably ended, not certain yet: nothing is to wait for it.
    """

    status: Status
    reason: str = ""
    host: str = ""
    outcomes: Mapping[str, Outcome] | None = None
    text: str = ""
    hint: str = ""
    again: bool = False
    blocked: bool = False
    over: bool = False
    doubtful: bool = False

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.status in ACTIVE and not self.over


class Launcher(Protocol):
    """A place where jobs run.

    Attributes:
        takes_dependencies: whether it takes jobs that wait for others.
        outlives_driver: whether its jobs go on without the driver.
        slots: jobs at a time, for estimates.
        max_retries: how often a job that was killed is submitted again.
        pause_s: seconds before the first time; doubles.
        tracking: the server to which jobs send their curves.
    """

    takes_dependencies: bool
    outlives_driver: bool
    max_retries: int
    pause_s: float
    tracking: Tracking | None

    @property
    def slots(self) -> int: ...

    def check(self, jobs: Sequence[JobPlan]) -> None:
        """Raise a UserError for what would certainly fail, before anything is submitted."""

    def free_slots(self) -> int:
        """How many more jobs it takes now."""

    def submitting(self) -> AbstractContextManager[bool]:
        """The right to submit: False while another driver of this store does."""

    def adopt(self, keys: Collection[str], known: Collection[Handle]) -> list[Handle]:
        """Queued or running jobs of other drivers, past or active, that make some of these stages."""

    def submit(self, jobs: Sequence[JobPlan], after: Sequence[Handle]) -> list[Handle]:
        """Submit jobs that all wait for the same others; returns those that were accepted."""

    def poll(self, handles: Sequence[Handle]) -> Mapping[Handle, JobState]:
        """The states of jobs; may be a few seconds old."""

    def news(self) -> list[str]:
        """Messages for the user since the last call."""

    def cancel(self, handles: Sequence[Handle]) -> None:
        """Ask jobs to save and end; may be called again and again."""

    def close(self, *, clean: bool) -> None:
        """The loop is over; `clean`: nothing failed, so that the logs can be removed."""


Phase = Literal["waiting", "running", "ending", "ended"]


@dataclass(frozen=True)
class QueueEntry:
    """A queue's entry for a job.

    Attributes:
        state: in the queue's own terms, for display and for the launcher of this queue.
        reason: why it waits, or ended, in the queue's words.
        host: where it runs or ran.
        restarts: how often the queue has restarted it.
        exit_status: as wait(2) gives it; None where it is not known.
        phase: what `state` means. "ending": the queue is still cleaning up after it.
    """

    state: str
    reason: str = ""
    host: str = ""
    restarts: int = 0
    exit_status: int | None = None
    phase: Phase = "running"

    @property
    def signal(self) -> int:
        """The signal that ended it, as reported by the queue or by a shell (128 + n); 0 without one."""
        status = self.exit_status or 0
        by_shell = (status >> 8) - 128
        return status & 0x7F or (by_shell if 0 < by_shell <= signal.SIGRTMAX else 0)  # 255 is an exit code

    @property
    def exit_code(self) -> int:
        return (self.exit_status or 0) >> 8


class NoAnswer(Exception):
    """A queue did not answer: nothing is known of its jobs."""


class Queue(Protocol):
    """What commands need of a queue about jobs that any driver has submitted, perhaps long ago.

    A job is identified by its id and its name, which no other submission has: ids may be reused.
    """

    def ask(self, notes: Sequence[Submitted]) -> Mapping[str, QueueEntry | None]:
        """The entries of these jobs, by id; None where the queue has none.

        Raises:
            NoAnswer: it cannot be reached.
        """

    def named(self, name: str) -> list[str]:
        """Ids of the jobs of one submission, by its name: its driver may have died before it recorded them.

        Raises:
            NoAnswer: it cannot be reached.
        """

    def cancel(self, ids: Sequence[str]) -> bool:
        """Ask jobs to save and end, those that have not ended. False where the queue cannot be reached."""
