"""What the loop of bench/launch.py asks of a place where jobs run. Separate so that the places do not know the loop."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from bench.plan import JobPlan
from bench.run.curves import Tracking
from bench.run.job import Outcome

Status = Literal[
    "PENDING",
    "REQUEUED",  # pending again, under its old id
    "PREEMPTED",  # pending again as far as one can tell: see bench/launchers/slurm.py
    "RUNNING",
    "COMPLETED",
    "FAILED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "CANCELLED",
    "LOST",  # nobody knows it any more, and it left no result
]
ACTIVE: frozenset[Status] = frozenset({"PENDING", "REQUEUED", "PREEMPTED", "RUNNING"})


@dataclass(frozen=True)
class Handle:
    """A submitted job.

    Attributes:
        id: what the place calls it.
        job: what it does; of a job that another suite submitted, the part that concerns this one.
        log: file with what it printed on stderr.
        own: whether it was submitted for this suite: another suite's job is waited for, never cancelled.
    """

    id: str
    job: JobPlan
    log: str = ""
    own: bool = True


@dataclass(frozen=True)
class JobState:
    """How a job is.

    Attributes:
        status: see `Status`.
        reason: why it waits, in the queue's words.
        host: where it runs.
        outcomes: what became of its stages; None where the job could not say.
        text: what ended it, in words, where it could not say.
        hint: what to do about that; of a job that waits, where waiting alone may not help.
        again: whether it may do better when it is simply submitted again.
        blocked: cancelled because a job that it waited for did not end well.
        over: PREEMPTED for good.
        doubtful: looks ended, which is not believed yet: nothing is to wait for it.
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
        chains: whether it takes jobs that wait for others.
        survives: whether its jobs go on without the driver.
        slots: jobs at a time, for estimates.
        max_retries: how often a job that was ended from outside is submitted again.
        pause_s: seconds before the first time; doubles.
        tracking: the server that jobs bring their curves to themselves.
    """

    chains: bool
    survives: bool
    max_retries: int
    pause_s: float
    tracking: Tracking | None

    @property
    def slots(self) -> int: ...

    def check(self, jobs: Sequence[JobPlan]) -> None:
        """Raise a UserError for what can be seen to fail, before anything is submitted."""

    def room(self) -> int:
        """How many more jobs it takes now."""

    def submitting(self) -> AbstractContextManager[bool]:
        """The right to submit: False while another driver of this store does."""

    def adopt(self, keys: Collection[str], known: Collection[Handle]) -> list[Handle]:
        """Jobs of other drivers, earlier or at work, that make some of these stages and are queued or running."""

    def submit(self, jobs: Sequence[JobPlan], after: Sequence[Handle]) -> list[Handle]:
        """Submit jobs that all wait for the same others; those that it took."""

    def poll(self, handles: Sequence[Handle]) -> Mapping[Handle, JobState]:
        """How jobs are. May be old by a few seconds."""

    def news(self) -> list[str]:
        """What there is to tell a user, once."""

    def cancel(self, handles: Sequence[Handle]) -> None:
        """Ask jobs to save and end; may be called again and again."""

    def close(self, *, clean: bool) -> None:
        """The loop is over; `clean`: nothing failed, so that nobody needs logs."""
