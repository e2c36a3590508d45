"""A real Slurm for the session, and suites small enough to be run in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.cli.open import open_suite
from bench.launch import loop as launch
from bench.launch.loop import Ended, Progress
from bench.launch.requests import Requests
from bench.launch.slurm.slurm import Slurm as Launcher
from bench.plan import planning
from bench.plan.planning import Plan
from bench.store.store import Store
from bench.suite.clusters import read
from tests.cluster.slurm_up import Slurm, Unavailable, start, stop
from tests.conftest import TINY

SETTINGS = """\
kind: slurm
time_min: 30
signal_delay_s: 30
pause_s: 1
"""
HOLD = "sbatch: {hold: true}\n"  # submitted, but nothing starts
Planned = Callable[..., Plan]
Queue = Callable[[], dict[str, str]]


@pytest.fixture(scope="session")
def started() -> Iterator[Slurm]:
    folder = Path(tempfile.mkdtemp(prefix="bench-slurm-"))
    folder.chmod(0o755)  # munged wants a folder that all may enter
    try:
        yield (running := start(folder))
        stop(running)
    except Unavailable as error:
        if "BENCH_REQUIRE_SLURM" in os.environ:  # where nobody would notice that they are skipped
            raise
        pytest.skip(str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def slurm(started: Slurm, surroundings: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """The cluster, empty before and after a test; commands of this process find it."""
    for name, value in started.environment.items():
        monkeypatch.setenv(name, value)
    started.quiet()
    yield started
    started.quiet()


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    """The plan of the tiny suite with more rows and overrides."""

    def make(rows: str = "", *sets: str) -> Plan:
        path = tmp_path / "tiny.yaml"
        path.write_text(TINY + rows)
        return planning.make(open_suite(path, sets=sets))

    return make


def launcher(plan: Plan, root: Path, more: str = "") -> Launcher:
    """Slurm with some settings, as `--cluster FILE`."""
    path = root.parent / "cluster.yaml"
    path.write_text(SETTINGS + more)
    return Launcher(plan, Store(root), read(str(path)), str(path))


def drive(
    plan: Plan, root: Path, more: str = "", *, show: Callable[[Progress], None] | None = None,
    keep_going: bool = True, detach: bool = False, requests: Requests | None = None,
) -> Ended:  # fmt: skip
    """What `run` does between its headline and its table, in this process. `show` is called at every turn."""
    made = launcher(plan, root, more)
    return launch.run(
        plan, Store(root), made, fuse=True, keep_going=keep_going, detach=detach, requests=requests,
        show=show or (lambda progress: None),
    )  # fmt: skip


@pytest.fixture
def queue(slurm: Slurm) -> Queue:
    """`queue()`: job id -> state, of all jobs of this test that Slurm remembers."""

    def look() -> dict[str, str]:
        told = slurm.command("squeue", "-h", "-r", "--states=all", "-o", "%i %T")
        return dict(line.split() for line in told.splitlines())

    before = set(look())
    return lambda: {job: state for job, state in look().items() if job not in before}


def deaf(slurm: Slurm, folder: Path) -> Path:
    """A configuration after which no slurmctld is to be reached."""
    text = (slurm.folder / "etc" / "slurm.conf").read_text()
    port = next(line for line in text.splitlines() if line.startswith("SlurmctldPort="))
    (folder / "slurm.conf").write_text(text.replace(port, "SlurmctldPort=1\nMessageTimeout=2"))
    return folder / "slurm.conf"
