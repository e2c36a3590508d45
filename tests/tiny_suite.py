"""suites/smoke.yaml, cut down, and ways to bring a store to it. Shared by end-to-end, fault and run tests.

Stages are known by what they compute, so every test compares its store with the one undisturbed run of the session.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.cli.open import open_suite
from bench.launch.submission import Dependencies
from bench.lineage import asides_of
from bench.plan import planning
from bench.plan.jobs import make_jobs
from bench.plan.planning import Plan
from bench.run.job import Job, Outcome
from bench.run.work import StopFlag, signals_restored
from bench.store.store import Store
from bench.suite.suite import Suite

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ROOT / "suites" / "smoke.yaml"
STEPS, HEAD_STEPS, CHECKPOINT_EVERY = 24, 16, 5
SETS = (
    "data.classes=8",
    "data.size=64",
    "data.max_instances=30",
    "data.val_instances=2",
    "input.min_size=64",
    "input.max_size=64",
    f"schedule.steps={STEPS}",
    "schedule.warmup=5",
    f"schedule.checkpoint_every={CHECKPOINT_EVERY}",
    f"stages.classifier_only.steps={HEAD_STEPS}",
    "rows.x2.schedule.steps=12",
)
HEADS = ("cls-retrain", "re-weight-cls", "BAGS")
PATIENCE = 300.0  # seconds until a condition that must come is given up; a loaded machine is slow, not broken


@dataclass(frozen=True)
class Undisturbed:
    """A store that a user's command made and nobody disturbed, and what the command printed."""

    suite: Suite
    plan: Plan
    root: Path
    output: str

    def digests(self) -> dict[str, str | None]:
        return digests(self.plan, self.root)


class StopAt(StopFlag):
    """A stop flag that is raised when it is looked at for the n-th time (once a step)."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    def check(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.reached()
        super().check()

    def reached(self) -> None:
        """Raise it, as a request does."""
        self.receive([])


@functools.cache
def undisturbed_run(folder: Path) -> Undisturbed:
    """The one undisturbed run of a test session, below its base folder; also where the session's job files go.

    The processes that share a session's tests share it: the first one makes it while the others wait.
    """
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # of this process alone: tests watch what comes into it
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    root, output = folder / "undisturbed", folder / "undisturbed.txt"
    with (folder / "undisturbed.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not output.exists():
            ended = drive(root)
            assert ended.returncode == 0, ended.stdout + ended.stderr
            output.write_text(ended.stdout)
    suite = tiny()
    return Undisturbed(suite, planning.make(suite), root, output.read_text())


def tiny(*sets: str, only: str | None = None, path: Path = SMOKE) -> Suite:
    """The suite, with more overrides."""
    return open_suite(path, sets=[*SETS, *sets], only=only)


def arguments(store: Path, *more: str, path: Path = SMOKE) -> list[str]:
    """`python -m bench run` of the tiny suite."""
    sets = [word for text in SETS for word in ("--set", text)]
    return [sys.executable, "-m", "bench", "run", str(path), "--store", str(store), *sets, *more]


def environment() -> dict[str, str]:
    """Of a driver: one thread, and jobs where the session's XDG_CACHE_HOME says."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def drive(store: Path, *more: str, path: Path = SMOKE) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = arguments(store, *more, path=path)
    return subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=2 * PATIENCE, check=False
    )


def start(store: Path, *more: str, path: Path = SMOKE) -> subprocess.Popen[str]:
    """Start the command in a process group of its own, as a shell does."""
    command = arguments(store, *more, path=path)
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def wait_for(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Poll until it holds."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"waited {patience:.0f} s for {what}"
        time.sleep(0.05)


def bring(
    suite: Suite, root: Path, *, fuse: bool = True, only: Callable[[str], bool] | None = None
) -> dict[str, Outcome]:
    """Bring a store to a suite with jobs in this process; the outcome of every stage that was tried.

    Stages that failed or were stopped are not tried again. `only`: the keys that may run.
    """
    plan, store = planning.make(suite), Store(root)
    dependencies = Dependencies(plan)
    for stage in plan.stages.values():
        store.add(stage)
    outcomes: dict[str, Outcome] = {}
    for _ in range(50):
        done = {key for key, stage in plan.stages.items() if planning.fresh(stage, store)}
        over = {key for key, outcome in outcomes.items() if outcome.state in ("failed", "stopped")}
        missing = {key for key in plan.stages if key not in done | over and (only is None or only(key))}
        todo = make_jobs(plan, missing, planning.learned(plan, store), fuse=fuse, done=done)
        ready = [job for job in todo if dependencies.below(job) <= done]
        if not ready:
            return outcomes
        for job in ready:
            outcomes |= work(root, suite, *job.units)
    raise AssertionError(f"does not end: {outcomes}")


def work(root: Path, suite: Suite, *units: tuple[str, ...]) -> dict[str, Outcome]:
    """One job in this process, whose signal handlers come back afterwards."""
    with signals_restored():
        told = asides_of(*planning.make(suite).stages.values())
        return Job(str(root), units, suite.sections.machine, asides=told)()


def key_of(plan: Plan, label: str, kind: str = "train") -> str:
    """The stage of a row: its model ("train" or "patch"), its predict or its evaluate stage."""
    row = next(row for row in plan.rows if row.label == label)
    assert row.evaluate is not None
    predict = row.evaluate.inputs["predict"]
    model = predict.inputs["model"]
    return {"evaluate": row.evaluate, "predict": predict, model.kind: model}[kind].key


def digests(plan: Plan, root: Path) -> dict[str, str | None]:
    """What each stage of a plan holds; None where it is not done or does not have the digests it names."""
    store = Store(root)
    found = {key: store.done(key) if store.verify(key) else None for key in plan.stages}
    return {key: done.digest if done else None for key, done in found.items()}


def attempts(plan: Plan, root: Path) -> dict[str, tuple[str, ...]]:
    """The attempts of each stage, by number, inode and time (a folder that was made anew is another one).

    The inode alone does not say it: a file system may give that of a deleted folder to the next one.
    """
    found = {k: [(p.name, p.stat()) for p in Store(root).attempts(k)] for k in plan.stages}
    return {k: tuple(f"{name}:{stat.st_ino}:{stat.st_mtime_ns}" for name, stat in each) for k, each in found.items()}


def copied(source: Path, target: Path, keep: Mapping[str, object] | set[str]) -> Path:
    """A store with some of another's stages."""
    target.mkdir()
    for key in keep:
        shutil.copytree(source / key, target / key)
    return target


def data_keys(plan: Plan) -> set[str]:
    """The splits: a training waits for that of val too, without which it would serve no row."""
    return {key for key, stage in plan.stages.items() if stage.kind == "data"}


def below(plan: Plan, *keys: str) -> set[str]:
    """The stages themselves and all that is made from them."""
    found = set(keys)
    for key, stage in plan.stages.items():  # inputs come before consumers
        if any(source.key in found for source in stage.inputs.values()):
            found.add(key)
    return found


def flip_bit(path: Path) -> None:
    """One bit in the middle of a file, whose size stays."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))
