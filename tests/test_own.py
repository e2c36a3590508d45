"""Whom a command signals and what it cancels: only what this user's own notes name, whatever a store says."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli import stop as control
from bench.cli.open import open_suite
from bench.errors import UserError
from bench.launch import submitted
from bench.launch.submitted import Submitted
from bench.plan import planning
from bench.plan.planning import Plan
from bench.store import own
from bench.store.lease import LeaseInfo, host, machine, process_start
from bench.store.store import Store
from tests.conftest import ROOT, Write
from tests.planned import model

JOB = """
import pathlib, sys, time
from bench.store.own import working
with working(pathlib.Path(sys.argv[1]), sys.argv[2:]):
    print("at work", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def plan(write: Write, surroundings: None) -> Plan:
    return planning.make(open_suite(write()))


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this user that has nothing to do with any store."""
    process = subprocess.Popen(["sleep", "300"])
    yield process
    process.kill()
    process.wait()


def lease_of(folder: Path, pid: int) -> None:
    """A lease file that names a process, as anybody who may write to the store can write it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    content = {
        "beat": 5, "host": socket.gethostname(), "machine": f"{boot} {os.readlink('/proc/self/ns/pid')}", "pid": pid,
        "start": start, "token": "t", "every": 5.0, "since": "x",
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lease.99").write_text(json.dumps(content))


def test_a_lease_that_names_any_process(plan: Plan, tmp_path: Path, bystander: subprocess.Popen[bytes]) -> None:
    store, key = Store(tmp_path / "store"), model(plan, "baseline").key
    lease_of(store.folder(key), bystander.pid)
    owner = store.running(key)
    assert owner is not None
    assert owner.pid == bystander.pid, "the store says that it works on the stage"
    report = control.stop(plan, store, [key])
    assert (list(report.signalled), list(report.elsewhere)) == ([], [key])
    time.sleep(0.2)
    assert bystander.poll() is None


def test_a_job_is_signalled_for_its_own_store_and_stages(tmp_path: Path, surroundings: None) -> None:
    """Another stage, another store, another start: a job of this user that the lease has no business to name."""
    words = [sys.executable, "-c", JOB, str(tmp_path / "store"), "ab" * 32]
    job = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert job.stdout is not None
    assert job.stdout.readline() == "at work\n"
    start = process_start(job.pid)
    assert start is not None
    info = LeaseInfo(1, host(), machine(), job.pid, start, "t", 5.0, "", 0)
    assert not own.signal_own(info, tmp_path / "store", "cd" * 32)
    assert not own.signal_own(info, tmp_path / "other", "ab" * 32)
    for strange in ({"start": "17"}, {"start": "../x"}, {"machine": "m"}, {"host": "h"}, {"pid": 0}, {"pid": 1}):
        assert not own.signal_own(LeaseInfo(**(vars(info) | strange)), tmp_path / "store", "ab" * 32)
    assert job.poll() is None
    assert own.signal_own(info, tmp_path / "store", "ab" * 32)
    assert job.wait(30) == -15
    assert not own.signal_own(info, tmp_path / "store", "ab" * 32), "it has ended"
    with own.working(tmp_path, []):
        (left,) = (own.cache() / "processes").iterdir()
    assert left.name == f"{os.getpid()}-{process_start(os.getpid())}", "the note of what was killed is removed"
    assert list((own.cache() / "processes").iterdir()) == []


def test_a_job_of_a_queue_is_own_if_this_user_has_noted_it(tmp_path: Path, surroundings: None) -> None:
    job = Submitted("4711", "suite-0a", "s", (("ab" * 32,),), 0.0, "h", str(tmp_path / "jobs"), "/r")
    assert not submitted.is_own(job)
    submitted.begin(tmp_path, [job])
    assert own.folder_of("suite-0a") == str(tmp_path / "jobs")
    submitted.write(tmp_path, job)
    assert submitted.is_own(job)
    for other in ({"id": "4712"}, {"name": "suite-0b"}, {"name": "../../x"}, {"id": "--user=me"}):
        assert not submitted.is_own(Submitted(**(vars(job) | other)))
    theirs = Submitted(**(vars(job) | {"id": "99"}))
    (tmp_path / "submitted" / "99.json").write_text(json.dumps(vars(theirs)))
    submitted.end(tmp_path, theirs, "COMPLETED")
    assert not submitted.is_own(theirs), "to see how it ended makes it nobody's own"


def test_the_folder_is_for_its_owner_alone(tmp_path: Path, surroundings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o002)
    try:
        folder = own.private("jobs")
    finally:
        os.umask(before)
    for path in (folder, folder.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "longtail-bench").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="must be a folder of yours"):
        own.private("jobs")
    assert list((tmp_path / "elsewhere").iterdir()) == []
