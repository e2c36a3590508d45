"""What would fail only once jobs have waited in a queue is refused before anything is submitted: no right to write, no
space, in the store and in the user's own folder. (Partition, size, no Slurm: test_slurm_run.py.)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import HOLD, SETTINGS, Queue
from tests.cluster.slurm_up import Slurm
from tests.conftest import ROOT, TINY, Bench, Ran

Mounted = Callable[[str], Path]
WORDS = ("run", "tiny.yaml", "--cluster", "cluster.yaml", "--detach")


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "cluster.yaml").write_text(SETTINGS + HOLD)


def refused(ran: Ran, queue: Queue, *words: str) -> None:
    """One message, exit code 2, no traceback, nothing in the queue."""
    assert ran.code == 2, ran
    assert "Traceback" not in ran.out + ran.err
    assert ran.err.count("error:") == 1, ran.err
    for word in words:
        assert word in ran.err, ran.err
    assert not queue()


def full(mounted: Mounted, kilobytes: int, free: int) -> Path:
    """A small disk of which so many kilobytes are free."""
    disk = mounted(f"size={kilobytes}k")
    (disk / "filled").write_bytes(b"x" * 1024 * (kilobytes - free))
    return disk


def test_a_store_without_a_right_to_write(slurm: Slurm, queue: Queue, call: Bench, mounted: Mounted) -> None:
    disk = mounted("size=1m,ro")
    refused(call(*WORDS, "--store", str(disk)), queue, str(disk), "read-only", "choose a store")


@pytest.mark.parametrize("free", [0, 32], ids=["for the first byte", "for the list of stages"])
def test_a_store_without_space(slurm: Slurm, queue: Queue, call: Bench, mounted: Mounted, free: int) -> None:
    disk = full(mounted, 64, free)
    refused(call(*WORDS, "--store", str(disk / "store")), queue, str(disk), "no space left on the disk", "free space")


def test_a_folder_for_jobs_without_a_right_to_write(
    slurm: Slurm, queue: Queue, call: Bench, mounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = mounted("size=1m,ro")
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
    refused(call(*WORDS), queue, str(disk), "ead-only", "XDG_CACHE_HOME")


@pytest.mark.parametrize("free", [0, 64], ids=["for the first byte", "for the copy of the code"])
def test_a_folder_for_jobs_without_space(
    slurm: Slurm, queue: Queue, call: Bench, mounted: Mounted, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    disk = full(mounted, 128, free)
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
    refused(call(*WORDS), queue, str(disk), "no space left on the disk", "XDG_CACHE_HOME")


@pytest.mark.parametrize("pages", [0, 1])
def test_a_folder_for_jobs_without_space_for_their_pickles(
    slurm: Slurm, queue: Queue, call: Bench, mounted: Mounted, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    """The code is there from an earlier run, and the disk has filled up since."""
    disk = mounted("size=8m")
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
    assert call(*WORDS, "--only", "baseline").code == 0
    slurm.quiet()
    before = set(queue())
    room = os.statvfs(disk)
    (disk / "filled").write_bytes(b"x" * (room.f_bavail - pages) * room.f_frsize)
    ran = call(*WORDS)
    assert (ran.code, ran.err.count("error:"), set(queue())) == (2, 1, before), ran
    assert "no space left on the disk" in ran.err
    assert "XDG_CACHE_HOME" in ran.err
    assert "Traceback" not in ran.err


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="bench-open-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("mine", ["jobs", "store"])
def test_a_user_without_the_right(slurm: Slurm, queue: Queue, open_folder: Path, mine: str) -> None:
    """The store, or the folder for jobs, is another user's; root may write anywhere, so this is an ordinary one."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become another user")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    look = f"import typer; open({str(ROOT / 'bench' / '__init__.py')!r})"
    if subprocess.run([*nobody, sys.executable, "-c", look], capture_output=True, cwd="/").returncode:
        pytest.skip("another user cannot read this checkout or its environment")
    for name in ("jobs", "store"):
        (open_folder / name).mkdir()
    os.chown(open_folder / mine, 65534, 65534)
    for name, text in (("tiny.yaml", TINY), ("cluster.yaml", SETTINGS + HOLD)):
        (open_folder / name).write_text(text)
    untraced = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }  # its file is ours
    environment = {
        **untraced, "PYTHONPATH": str(ROOT), "HOME": str(open_folder), "USER": "nobody", "LOGNAME": "nobody",
        "XDG_CACHE_HOME": str(open_folder / "jobs"), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    ended = subprocess.run(
        [*nobody, sys.executable, "-m", "bench", *WORDS], cwd=open_folder, env=environment, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    other = "jobs" if mine == "store" else "store"
    ran = Ran(ended.returncode, ended.stdout, ended.stderr)
    refused(ran, queue, str(open_folder / other) if other == "jobs" else "store", "ermission")


def test_an_account_is_not_checked_where_nobody_keeps_accounts(slurm: Slurm, queue: Queue, call: Bench) -> None:
    """Slurm without an accounting database takes any name, and so do we: nobody could say which are right."""
    Path("cluster.yaml").write_text(SETTINGS + HOLD + "account: nobodys\n")
    assert call(*WORDS).code == 0
    assert queue()
    told = slurm.command("squeue", "-h", "-o", "%a").split()
    assert set(told) == {"nobodys"}
