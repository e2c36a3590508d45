"""Start jobs on this machine and watch them. Separate because it is the only file that speaks to submitit.

submitit's local executor has neither a queue nor GPU slots (it starts 500 processes at once, all on GPU 0); the queue
here respects the cores and GPUs there are. The driver holds nothing that matters: kill it, and the jobs go on; start it
again, and it finds them by their leases.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import plan as planning
from bench.errors import UserError
from bench.lease import machine
from bench.plan import JobPlan, Plan
from bench.run.job import Job, Outcome
from bench.run.work import quiet_threads
from bench.spec import Machine
from bench.store import Store

POLL_SECONDS = 0.5
A_YEAR_MIN = 525_600  # submitit's local executor wants a time limit; a local job has none


@dataclass
class Running:
    """A submitted job and its place."""

    job: JobPlan
    handle: Any  # submitit.LocalJob
    slot: int


@dataclass
class Progress:
    """What a display is shown: the plan's states and what runs here. `elsewhere`: stages held by another run."""

    plan: Plan
    done: set[str]
    running: list[Running]
    failed: dict[str, Outcome]
    elsewhere: set[str]
    slots: int
    stopping: bool = False


@dataclass(frozen=True)
class Ended:
    """How a run ended: what failed (with codes), and whether it was interrupted."""

    failed: dict[str, Outcome]
    interrupted: bool

    @property
    def code(self) -> int:
        if any(outcome.code == 2 for outcome in self.failed.values()):
            return 2
        return 130 if self.interrupted else 1 if self.failed else 0


@dataclass
class Slots:
    """How many processes this machine takes: one a GPU where jobs use GPUs, else the cores divided by threads."""

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

    @property
    def count(self) -> int:
        here = len(self.gpus) or max(1, len(os.sched_getaffinity(0)) // self.machine.threads)
        return min(here, self.limit) if self.limit else here


def visible_gpus() -> list[int]:
    """Indices of the GPUs that jobs may use, found without torch; empty without a driver."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [int(part) for part in chosen.split(",") if part.strip().isdigit()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return list(range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines())))


def run(
    plan: Plan, store: Store, slots: Slots, *, fuse: bool, keep_going: bool, show: Callable[[Progress], None]
) -> Ended:
    """Bring the store to the plan's state.

    Args:
        plan: what is wanted.
        store: what there is.
        slots: how many jobs at a time.
        fuse: train classifiers over one trunk in one pass.
        keep_going: go on with other rows when a stage fails.
        show: called about twice a second.

    Raises:
        UserError: the store cannot be written.
    """
    for stage in plan.stages.values():
        store.add(stage)
    quiet_threads(slots.machine.threads)
    loop = _Loop(plan, store, slots, fuse, keep_going)
    with _interruptible() as interrupted:
        while loop.turn(stopping=bool(interrupted)):
            show(loop.progress)
            time.sleep(POLL_SECONDS)
        show(loop.progress)
    if not loop.progress.failed:  # the logs of jobs that went well are of no use to anybody
        shutil.rmtree(loop.folder, ignore_errors=True)
    return Ended(loop.progress.failed, bool(interrupted))


class _Loop:
    """One turn: gather what ended, compare with the store, start what is ready."""

    def __init__(self, plan: Plan, store: Store, slots: Slots, fuse: bool, keep_going: bool) -> None:
        self.plan, self.store, self.slots, self.fuse, self.keep_going = plan, store, slots, fuse, keep_going
        self.estimate = planning.learned(plan, store)
        self.progress = Progress(plan, set(), [], {}, set(), slots.count)
        self.folder = _job_folder()

    def turn(self, *, stopping: bool) -> bool:
        """False once there is nothing left to wait for."""
        p = self.progress
        for running in [r for r in p.running if r.handle.done()]:
            p.running.remove(running)
            self._gather(running)
        p.done = {key for key, stage in self.plan.stages.items() if planning.fresh(stage, self.store)}
        claimed = {key for running in p.running for key in running.job.keys}
        missing = {key for key in self.plan.stages if key not in p.done and key not in claimed}
        p.failed = {key: outcome for key, outcome in p.failed.items() if key not in p.done}
        p.elsewhere = {key for key in missing if self.store.running(key) is not None}
        stopping = stopping or bool(p.failed and not self.keep_going)
        if stopping:
            p.stopping = True
            _ask_to_stop(self.store, claimed)  # every turn: a job that is still importing holds no lease yet
            return bool(p.running)
        todo = missing - p.elsewhere - set(p.failed)
        waiting = planning.jobs(self.plan, todo, self.estimate, fuse=self.fuse, done=p.done)
        for job in waiting:
            if len(p.running) < self.slots.count and planning.ready(job, self.plan, p.done):
                p.running.append(self._submit(job))
        return bool(p.running or p.elsewhere)

    def _submit(self, job: JobPlan) -> Running:
        import submitit

        slot = min(set(range(self.slots.count)) - {r.slot for r in self.progress.running})
        executor = submitit.LocalExecutor(folder=self.folder)
        gpus = {"gpus_per_node": 1, "visible_gpus": [self.slots.gpus[slot]]} if self.slots.gpus else {}
        executor.update_parameters(timeout_min=A_YEAR_MIN, **gpus)
        cores = len(os.sched_getaffinity(0))
        call = Job(str(self.store.root.resolve()), job.units, self.slots.machine, processes=cores)
        with _interrupts_held_back():
            return Running(job, executor.submit(call), slot)

    def _gather(self, running: Running) -> None:
        if running.handle.paths.result_pickle.exists():
            error = running.handle.exception()
            outcomes: dict[str, Outcome] = {} if error else running.handle.result()
            text = str(error) if error else ""
        else:
            outcomes, text = {}, "its process was killed"
        for key in running.job.keys:
            outcome = outcomes.get(key)
            if outcome is None:
                if not planning.fresh(self.plan.stages[key], self.store) and not _waits(
                    self.plan, key, outcomes, running.job
                ):
                    hint = f"run the same command again: it continues; log: {running.handle.paths.stderr}"
                    self.progress.failed[key] = Outcome("failed", f"{text}\n  {hint}", 1)
            elif outcome.state == "failed":
                self.progress.failed[key] = outcome


def _waits(plan: Plan, key: str, outcomes: dict[str, Outcome], job: JobPlan) -> bool:
    """Whether a stage of a killed job was still waiting for another stage of it: only the first one is to be named."""
    own = set(job.keys)
    return any(
        i.key in own and outcomes.get(i.key, Outcome("waiting")).state != "done"
        for i in plan.stages[key].inputs.values()
    )


def _ask_to_stop(store: Store, keys: set[str]) -> None:
    """SIGTERM to our own processes that hold our stages; they save and end. Other runs' and hosts' go on."""
    import psutil

    ours = {process.pid for process in psutil.Process().children(recursive=True)}
    owners = {info.pid for key in keys if (info := store.running(key)) is not None and info.machine == machine()}
    for pid in owners & ours:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)


def _job_folder() -> Path:
    """Where submitit's pickles lie: the user's own folder, never the shared store (a pickle runs code)."""
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
def _interrupts_held_back() -> Iterator[None]:
    """Start children deaf to Ctrl-C (they inherit the signal mask): submitit's controller would kill the job before it
    has saved. The job itself listens again (`StopFlag.install`); what comes meanwhile reaches us afterwards."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """The list fills on Ctrl-C or SIGTERM; a second Ctrl-C ends the driver at once (jobs still save)."""
    seen: list[int] = []

    def note(number: int, _frame: object) -> None:
        seen.append(number)
        if len(seen) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
