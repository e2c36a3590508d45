"""What a stage's code receives: its spec, its inputs' folders, where to write, whether to stop. Separate from job.py
(which takes leases and decides) because every stage kind imports it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.lineage import submitted_stage
from bench.run import memory
from bench.run.world import SINGLE, World
from bench.spec import Machine
from bench.stage import Stage
from bench.store.store import Attempt, Store

if TYPE_CHECKING:
    from bench.detection.contract import Detector

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP)


class Stopped(Exception):
    """The job was asked to stop and has saved what it needs to continue."""


class StopFlag:
    """Set by a signal; stages check it once per step. `signals`: those received, in order."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.signals: list[int] = []

    def install(self) -> None:
        """Handle the stop signals in this process (main thread only)."""
        for number in STOP_SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup: SIGHUP is to stay ignored
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # the driver starts jobs with Ctrl-C blocked

    def _note(self, number: int, _frame: object) -> None:
        self.signals.append(number)
        self._event.set()

    def receive(self, signals: Sequence[int]) -> None:
        """Add the signals of another process of this job, which stop all of them."""
        self.signals += [number for number in signals if number not in self.signals]
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Stopped` if a stop was asked for."""
        if self:
            raise Stopped


@contextlib.contextmanager
def signals_restored() -> Iterator[None]:
    """Restore the signal handlers after a job that ran within another program's process: a job replaces them."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Work:
    """One stage in execution.

    Attributes:
        store: where stages live.
        key: of this stage.
        attempt: where this attempt writes (`attempt.outputs`) and logs (`attempt.events`).
        machine: threads, device, precision of this job.
        stop: the stop flag of the process.
        inputs: input name -> digest of its content when this attempt began.
        asides: of the job, see bench.lineage.asides_of.
        world: the processes of this job, of which only the first writes.
        processes: how many processes the stage may use for itself (to make data).
        own_seconds: of a pass that makes several stages: time spent on this one alone.
        observe: of a training: called before the first step with the detector, and with the teachers by the names of
            inputs (for the contract check: not all of them is in files).
        workers: threads that made its batches (bench/run/loading.py); None: it makes none.
        begun: steps that others had done (earlier attempts, or a rung), and `total` steps in all; set by `progress`
            where the stage has not.
    """

    store: Store
    key: str
    attempt: Attempt
    machine: Machine
    stop: StopFlag
    inputs: Mapping[str, str] = field(default_factory=dict)
    asides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    world: World = SINGLE
    processes: int = 1
    own_seconds: float = 0.0
    observe: Callable[[Detector, Mapping[str, Detector]], None] | None = None
    workers: int | None = None
    begun: int = 0
    total: int = 0
    _last: float = 0.0

    @cached_property
    def stage(self) -> Stage:
        """The stage as it was submitted, with all below it."""
        return submitted_stage(self.store.load, self.key, self.asides)

    @property
    def spec(self) -> Mapping[str, Any]:
        """Of the stage; typed: `spec_of(work.stage, TrainSpec)`."""
        return self.stage.spec

    def input_key(self, name: str) -> str:
        return self.stage.inputs[name].key

    def input(self, name: str) -> Path:
        """The output folder of an input stage."""
        return self.store.output(self.input_key(name))

    @property
    def out(self) -> Path:
        return self.attempt.outputs

    def progress(self, step: int, total: int, *, every: float = 1.0, **values: float) -> None:
        """Report progress to the driver; at most one line per `every` seconds."""
        if not self.total:
            self.begun, self.total = step - 1, total
        now = time.monotonic()
        if self.world.first and (now - self._last >= every or step >= total):
            self._last = now
            self.attempt.events.write("progress", step=step, total=total, values=values, **memory.peak())

    def metrics(self, step: int, **values: float) -> None:
        """A point of a curve (MLflow)."""
        if self.world.first:
            self.attempt.events.write("metrics", step=step, values=values)


def device_of(machine: Machine) -> str:
    """The torch device string of a job; `auto` is CUDA where there is one."""
    import torch

    return machine.device if machine.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def quiet_threads(threads: int) -> None:
    """Set the threads of this process; waiting ones sleep (two spinning OpenMP threads on busy cores were 3-20 times
    slower on the prototype's machine)."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
