"""One run: call `bench run` as often as a user would, while faults strike, and look at what is left. Separate from the
command line, which does many of these at once and writes down what came of them.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import checks
from tests.chaos.cluster_faults import CLUSTER_FAULTS
from tests.chaos.faults import FAULTS
from tests.chaos.faults import Fault as Going
from tests.chaos.kinds import Drawn, Fault
from tests.chaos.scene import BALLAST, Scene, scene_of

LOOK_S = 0.2
MEASURE_EVERY = 5  # looks
MOST_CALLS = 8
A_CALL_S = 3600.0  # a driver that takes longer hangs; undisturbed it takes 15 s of two free cores
ENDING = threading.Event()  # somebody wants the whole command to end
ORPHANS_S = 900.0  # how long jobs that a dead driver left behind are waited for before the next call at most


@dataclass
class Injected:
    """What was hit, and when: the share of the training that was done, and seconds since the run began."""

    kind: str
    what: str
    fraction: float
    seconds: float


@dataclass
class Report:
    """What came of a run."""

    number: int
    place: str
    drawn: list[str]
    injected: list[Injected] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)
    again: int = 0
    retries: int = 0
    jobs: int = 0
    wall: float = 0.0
    cpu: float = 0.0
    failures: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def line(self) -> str:
        hit = "; ".join(f"{one.kind} ({one.what})" for one in self.injected) or "nothing was hit"
        end = "ok" if not self.failures else "FAILED: " + " | ".join(self.failures)
        return (
            f"run {self.number} {self.place}: {hit}; calls ended with {', '.join(map(str, self.codes))};"
            f" {self.again} attempts more than stages; {self.wall:.0f} s, {self.cpu:.0f} CPU s: {end}"
        )


def episode(drawn: Drawn, folder: Path, expected: Mapping[str, str | None], seed: int) -> Report:
    """Do one run; never raises for what goes wrong in it."""
    report = Report(drawn.number, drawn.place, [fault.kind for fault in drawn.faults])
    began = time.monotonic()
    try:
        with scene_of(drawn, folder) as scene:
            run = _Run(scene, report, random.Random(f"{seed} {drawn.number} victims"), began)
            try:
                run.go()
                report.failures += checks.all_of(scene, expected) if not report.failures else []
            finally:
                run.close()
                _count(scene, report)
    except Exception as error:  # also of the harness: it is in the report, with its place
        report.failures.append(f"{type(error).__name__}: {error} {traceback.format_exc().splitlines()[-3:-1]}")
    report.wall = time.monotonic() - began
    return report


class _Run:
    """Faults that wait, faults that go on, and the calls of `bench run`."""

    def __init__(self, scene: Scene, report: Report, rng: random.Random, began: float) -> None:
        self.scene, self.report, self.rng, self._began = scene, report, rng, began
        self._waiting = list(scene.drawn.faults)
        self._due: dict[Fault, float] = {}
        self._going: dict[Fault, Going] = {}
        self._held: dict[str, tuple[str, ...]] = {}
        self._looks = 0

    def go(self) -> None:
        for _ in range(MOST_CALLS):
            self._call()
            if self.report.failures:
                return
            if self.report.codes[-1] == 0:
                self._until(lambda: not self.scene.alive, A_CALL_S, "the other driver to end")
                break
            if (self.scene.root / BALLAST).exists():  # the message said that the disk is full
                self._until(lambda: not (self.scene.root / BALLAST).exists(), ORPHANS_S, "the disk to be freed")
            if self.rng.random() < 0.5:  # a user who comes back at once, or later
                with contextlib.suppress(TimeoutError):
                    self._until(lambda: not self.scene.owners(), ORPHANS_S, "jobs of a dead driver to end")
        else:
            self.report.failures.append(f"not done after {MOST_CALLS} calls: {self._tail()}")
        with contextlib.suppress(TimeoutError):
            self._until(self.scene.at_rest, 60.0, "rest")
        left = {**self.scene.owners(), **self.scene.queue()}
        self.report.failures += [f"still there after the end: {left}"] if left else []

    def _call(self) -> None:
        """One call of `bench run`, until it ends."""
        scene = self.scene
        scene.full = (scene.root / BALLAST).exists()
        driver, number = scene.run(), len(scene.drivers) - 1
        self._until(lambda: driver.poll() is not None, A_CALL_S, f"driver {number} to end")
        self.report.codes.append(driver.returncode)
        if driver.returncode not in (0, 1, 2, 130, -9):
            self.report.failures.append(f"driver {number} ended with {driver.returncode}: {self._tail()}")
        now = checks.held(scene.plan, scene.root)
        self.report.failures += checks.untouched(scene.plan, scene.root, self._held)
        self._held = now
        if driver.returncode >= 0 and not scene.full and scene.at_rest():
            self.report.failures += checks.mirrored(scene.plan, scene.root, ended=False)

    def _until(self, over: Any, patience: float, what: str) -> None:
        """Wait, striking meanwhile.

        Raises:
            TimeoutError: it does not come.
            InterruptedError: the whole command is to end.
        """
        end = time.monotonic() + patience
        while not over():
            if ENDING.is_set():
                raise InterruptedError("Ctrl-C")
            if time.monotonic() > end:
                raise TimeoutError(f"waited {patience:.0f} s for {what}")
            self._look()
            time.sleep(LOOK_S)

    def _look(self) -> None:
        self._looks += 1
        fraction, now = self.scene.fraction(), time.monotonic()
        if self._looks % MEASURE_EVERY == 0:
            self.scene.measure()
        for fault in list(self._waiting):
            if fraction >= fault.moment and now >= self._due.setdefault(fault, now + fault.delay):
                self._waiting.remove(fault)
                self._going[fault] = {**FAULTS, **CLUSTER_FAULTS}[fault.kind](self.scene, self.rng)
        for fault, going in list(self._going.items()):
            try:
                next(going)
            except StopIteration as stop:
                del self._going[fault]
                if stop.value is not None:
                    seconds = round(time.monotonic() - self._began, 1)
                    self.report.injected.append(Injected(fault.kind, str(stop.value), round(fraction, 2), seconds))

    def _tail(self) -> str:
        return self.scene.output(len(self.scene.drivers) - 1).strip()[-600:]

    def close(self) -> None:
        """Undo what faults have begun and not ended."""
        for going in self._going.values():
            going.close()


def _count(scene: Scene, report: Report) -> None:
    """Attempts of each kind of stage, what drivers submitted again by themselves, jobs, CPU time."""
    counted: Counter[str] = Counter()
    for key, stage in scene.plan.stages.items():
        counted[stage.kind] += len(scene.store.attempts(key))
    report.attempts = dict(counted)
    report.again = sum(counted.values()) - len(scene.plan.stages)
    report.retries = sum(scene.output(n).count("; again in ") for n in range(len(scene.drivers)))
    report.jobs = len(scene.jobs())
    report.cpu = round(scene.cpu_seconds, 1)
