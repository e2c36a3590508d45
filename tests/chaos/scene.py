"""One run's surroundings: a store of its own, drivers, and (in Slurm) a cluster of its own. Separate from the faults,
which are done to it, and from the checks, which look at what is left.

A cluster a run, not one for all: preempting, or ending slurmd, hits every job of a cluster, and a fault counts only
where it was meant to strike.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psutil
import yaml

from bench.launch import submitted
from bench.launch.submitted import Submitted
from bench.plan import planning
from bench.plan.planning import Plan
from bench.store.lease import LeaseInfo, process_start
from bench.store.store import Store
from tests.chaos.kinds import Drawn
from tests.cluster.slurm_up import Slurm, start, stop
from tests.tiny_suite import ROOT, SMOKE, arguments, drive, environment, tiny


@dataclass(frozen=True)
class Played:
    """What every run is to fulfil: the rows of a suite, with the sizes of tests/tiny_suite.py and these."""

    path: Path
    rows: str
    sets: tuple[str, ...]
    disk_mb: int = 48  # of the small disk that fills: the store takes about 7, enough beside it for two more attempts

    @property
    def options(self) -> tuple[str, ...]:
        return ("--only", self.rows, *(word for text in self.sets for word in ("--set", text)))


# About 8 s of one core for the baseline and 1 s for the two classifiers that are trained together (0.065 s and 5 ms a
# step, EPYC Zen 5); a checkpoint about twice a second.
PLAYED = {
    "smoke": Played(
        SMOKE, "baseline,cls-retrain,re-weight-cls,tau-norm",
        ("schedule.steps=120", "stages.classifier_only.steps=200", "schedule.checkpoint_every=8"),
    ),
    # Three trainings one after another, each from the one before; the last looks at a teacher.
    "stepwise": Played(
        Path(__file__).with_name("stepwise.yaml"), "baseline,step-wise",
        ("schedule.steps=60", "schedule.checkpoint_every=8"),
    ),
    # A pre-training whose losses have a state of their own, and the detector from it.
    "drcl": Played(
        Path(__file__).with_name("drcl.yaml"), "baseline,2DRCL", ("schedule.steps=60", "schedule.checkpoint_every=8"),
        disk_mb=250,  # a checkpoint takes 16: slow copy, projectors, decoder
    ),
    # Two engines one after another, and two classifiers in one pass that each match for themselves.
    "detr": Played(
        Path(__file__).with_name("detr.yaml"), "baseline,cls-retrain,BAGS",
        ("schedule.steps=60", "schedule.checkpoint_every=8"), disk_mb=250,
    ),
}  # fmt: skip
CHOICE = "BENCH_CHAOS_SUITE"  # name of one of them
CLUSTER = {"kind": "slurm", "time_min": 30, "signal_delay_s": 30, "pause_s": 1, "mem_gb": 1.0}


def played() -> Played:
    """The chosen one."""
    return PLAYED[os.environ.get(CHOICE, "smoke")]


@cache
def wanted() -> Plan:
    """The plan that every run is to fulfil."""
    return planning.make(tiny(*played().sets, only=played().rows, path=played().path))


def undisturbed(folder: Path) -> Path:
    """The store of the run that nobody disturbs; made once."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    ended = drive(folder / "undisturbed", *played().options, path=played().path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder / "undisturbed"


@dataclass
class Scene:
    """See the file's docstring.

    Attributes:
        drawn: what is to happen.
        folder: of this run.
        slurm: its cluster.
        drivers: all that were started, oldest first; their outputs lie in driver-N.log.
        full: whether the disk was full since the last driver began.
    """

    drawn: Drawn
    folder: Path
    slurm: Slurm | None = None
    drivers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    full: bool = False
    plan: Plan = field(default_factory=wanted)
    _cpu: dict[tuple[int, str], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.store = Store(self.root)
        if self.slurm is not None:
            (self.folder / "cluster.yaml").write_text(yaml.safe_dump(CLUSTER | self.drawn.settings))

    @property
    def root(self) -> Path:
        return self.folder / "store"

    @property
    def surroundings(self) -> dict[str, str]:
        """Of drivers and commands."""
        found = {**environment(), "XDG_CACHE_HOME": str(self.folder / "cache")}
        return found | (self.slurm.environment if self.slurm else {})

    # -- drivers

    def run(self) -> subprocess.Popen[bytes]:
        """Call `bench run` once more."""
        more = ("--cluster", str(self.folder / "cluster.yaml")) if self.slurm else ()
        with (self.folder / f"driver-{len(self.drivers)}.log").open("wb") as log:
            driver = subprocess.Popen(
                arguments(self.root, *played().options, *more, path=played().path), cwd=ROOT, env=self.surroundings,
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self.drivers.append(driver)
        return driver

    def output(self, number: int) -> str:
        return (self.folder / f"driver-{number}.log").read_text(errors="replace")

    def bench(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another command over this store: `status`, ..."""
        run = arguments(self.root, *played().options, path=played().path)
        command = [*run[:3], words[0], *run[4:], *words[1:]]
        return subprocess.run(
            command, cwd=ROOT, env=self.surroundings, capture_output=True, text=True, timeout=600, check=False
        )

    @property
    def alive(self) -> list[subprocess.Popen[bytes]]:
        """The drivers at work."""
        return [driver for driver in self.drivers if driver.poll() is None]

    # -- what there is

    def owners(self) -> dict[str, LeaseInfo]:
        """Stages at work, and the processes of this machine that work on them."""
        found = {key: self.store.running(key) for key in self.plan.stages}
        return {key: info for key, info in found.items() if info and process_start(info.pid) == info.start}

    def done(self) -> set[str]:
        return planning.all_fresh(self.plan, self.store)

    def fraction(self) -> float:
        """The share of all training steps that is done, by checkpoints."""
        done, ahead, total = self.done(), 0, 0
        for key, stage in self.plan.stages.items():
            if stage.kind == "train":
                steps = int(stage.spec["schedule"]["steps"])
                total += steps
                ahead += steps if key in done else Store(self.root).saved(key)
        return ahead / total

    def jobs(self) -> list[Submitted]:
        """Notes of all that was submitted."""
        return submitted.of(self.root, list(self.plan.stages), ended=True)

    def queue(self) -> dict[str, str]:
        """Job id -> state, of what Slurm has not seen the end of."""
        if self.slurm is None:
            return {}
        told = self.slurm.command("squeue", "-h", "-r", "-o", "%i %T", check=False)
        return dict(line.split()[:2] for line in told.splitlines() if re.match(r"\d+\S* \w+", line))

    def at_rest(self) -> bool:
        """Whether nobody works on the store."""
        return not self.alive and not self.owners() and not self.queue()

    # -- what it costs

    def measure(self) -> None:
        """Note the CPU time of drivers, their children and the owners of leases; called often, the last look counts."""
        pids = {owner.pid for owner in self.owners().values()}
        for driver in self.alive:
            with suppress(psutil.Error):
                pids |= {driver.pid, *(child.pid for child in psutil.Process(driver.pid).children(recursive=True))}
        for pid in pids:
            with suppress(psutil.Error):
                times = psutil.Process(pid).cpu_times()
                self._cpu[pid, process_start(pid) or ""] = times.user + times.system

    @property
    def cpu_seconds(self) -> float:
        return sum(self._cpu.values())

    def end(self) -> None:
        """End what is left of it, by pid."""
        left = [owner.pid for owner in self.owners().values()]
        for driver in self.alive:
            with suppress(psutil.Error):
                left += [driver.pid, *(child.pid for child in psutil.Process(driver.pid).children(recursive=True))]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for driver in self.drivers:
            driver.wait()


@contextmanager
def scene_of(drawn: Drawn, folder: Path) -> Iterator[Scene]:
    """A scene that is gone afterwards: no process, no mount."""
    slurm = None
    if drawn.place == "slurm":
        (folder / "slurm").mkdir(parents=True)
        folder.chmod(0o755)
        slurm = start(folder / "slurm")
    mounted = any(fault.kind == "disk full" for fault in drawn.faults) and mount(folder / "store")
    scene = Scene(drawn, folder, slurm)
    try:
        yield scene
    finally:
        scene.end()
        if slurm is not None:
            stop(slurm)
        if mounted:
            _unmount(folder / "store")


BALLAST = "somebody-elses.bin"  # what fills the disk


def mount(folder: Path) -> bool:
    """A small disk for the store; False where we may not."""
    folder.mkdir(parents=True, exist_ok=True)
    return _command("mount", "-t", "tmpfs", "-o", f"size={played().disk_mb}m", "bench-chaos", str(folder))


def _unmount(folder: Path) -> None:
    for _ in range(20):
        if _command("umount", str(folder)):
            return
        time.sleep(0.5)  # an orphan is still closing its files
    _command("umount", "--lazy", str(folder))


def _command(*words: str) -> bool:
    with suppress(OSError):
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    return False


def may_mount(folder: Path) -> bool:
    """Whether this machine lets us have a disk of our own to fill."""
    probe = folder / "probe"
    if not mount(probe):
        return False
    _unmount(probe)
    return True


def words(items: Sequence[str]) -> str:
    return ", ".join(items) or "-"
