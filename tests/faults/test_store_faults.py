"""What disks and kills do to the store: full, read-only, kill -9 in the middle of every step. The disks are real."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from bench.errors import UserError
from bench.run.checkpoint import newest, save, write_tensors
from bench.stage import Stage
from bench.store import disk
from bench.store.events import read_events
from bench.store.store import Store

ROOT = Path(__file__).resolve().parents[2]
STAGE = Stage("patch", {"a": 1})
KEY = STAGE.key


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 64 kB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"may not mount a tmpfs: {made.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def read_only(mount: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)


def fill(folder: Path) -> None:
    with (folder / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)


def check_full(error: UserError, where: Path) -> None:
    assert error.exit_code == 2
    assert "no space left" in error.what
    assert "free space 0.0 kB" in error.what
    assert error.where.startswith(str(where))
    assert "free some space" in error.hint


def test_full_disk_on_every_write(small_disk: Path) -> None:
    store = Store(small_disk / "store")
    store.add(STAGE)
    lease = store.acquire(KEY)
    assert lease is not None
    attempt = store.begin(KEY, lease)
    (attempt.outputs / "model.bin").write_bytes(b"w" * 100)
    attempt.events.write("start")
    fill(small_disk)
    other = Stage("patch", {"a": 2, "long": "x" * 5000})
    for write in (
        lambda: store.add(other),
        lambda: store.register_root("suite", "s.yaml", [KEY]),
        lambda: store.fail(attempt, "x" * 5000),
        lambda: attempt.events.write("step", text="x" * 5000),
        lambda: store.finish(attempt, inputs={}, seconds=1, environment={"x": "y" * 5000}, extra={}),
        store.check_writable,
    ):
        with pytest.raises(UserError) as caught:
            write()
        check_full(caught.value, small_disk)
    assert store.done(KEY) is None
    assert not list(store.root.rglob("*.tmp-*")), "partial files are removed"
    assert [e["event"] for e in read_events(attempt.events.path)[0]] == ["start"]
    assert attempt.events.path.stat().st_size < 200, "the half line is cut off again"
    lease.release()  # writes in place: needs no room
    assert store.running(KEY) is None

    (small_disk / "ballast").unlink()
    lease = store.acquire(KEY)
    assert lease is not None
    with lease:
        again = store.begin(KEY, lease)
        (again.outputs / "model.bin").write_bytes(b"w" * 100)
        assert store.finish(again, inputs={}, seconds=1, environment={}, extra={})
    assert store.verify(KEY)


def test_full_disk_while_saving_keeps_the_older_checkpoints(small_disk: Path) -> None:
    for step in (1, 2):
        save(small_disk, step, {"x": torch.full((4000,), float(step))}, {})
    for write in (
        lambda: save(small_disk, 3, {"x": torch.zeros(12000)}, {}),
        lambda: write_tensors(small_disk / "weights", {"x": torch.zeros(12000)}),
    ):
        with pytest.raises(UserError, match=r"needs about \d+\.\d kB"):
            write()
    assert sorted(p.name for p in small_disk.glob("*.safetensors")) == [
        "checkpoint-1.safetensors",
        "checkpoint-2.safetensors",
    ]
    assert not list(small_disk.glob("*.tmp-*"))
    found = newest([small_disk])
    assert found is not None
    assert found[0] == 2


def test_read_only_disk_refuses_writes_and_can_be_read(small_disk: Path) -> None:
    store = Store(small_disk / "store")
    store.add(STAGE)
    lease = store.acquire(KEY)
    assert lease is not None
    with lease:
        attempt = store.begin(KEY, lease)
        (attempt.outputs / "a").write_text("a")
        assert store.finish(attempt, inputs={}, seconds=1, environment={}, extra={})
    read_only(small_disk)
    reader = Store(small_disk / "store")
    reader.add(STAGE)  # nothing to write
    assert reader.verify(KEY)
    assert reader.running(KEY) is None
    for write in (
        lambda: reader.add(Stage("patch", {"a": 2})),
        lambda: reader.acquire(KEY),
        lambda: reader.discard(KEY),
        lambda: reader.register_root("suite", "s.yaml", []),
        reader.check_writable,
        Store(small_disk / "new").check_writable,
        lambda: save(small_disk, 1, {}, {}),
    ):
        with pytest.raises(UserError, match="read-only") as caught:
            write()
        assert str(small_disk) in caught.value.where


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_refused_writes_without_a_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(descriptor: int, data: object) -> int:
        raise OSError(code, os.strerror(code))

    store = Store(tmp_path / "store")
    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(UserError) as caught:
        store.add(STAGE)
    monkeypatch.undo()
    assert caught.value.exit_code == 2
    assert not list(tmp_path.rglob("*.tmp-*"))
    assert store.keys() == []


@pytest.mark.parametrize("mode", [0o555, 0o700])
def test_no_permission(mode: int) -> None:
    """Another user's store, by a real other user where the tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name))
        store.add(STAGE)
        store.folder(KEY).chmod(mode)
        store.root.chmod(mode)
        if os.getuid() != 0:
            if mode == 0o700:
                store.root.chmod(0o755)
                pytest.skip("needs a second user")
            _refused_everywhere(store.root, mode)
        else:
            child = os.fork()
            if child == 0:
                os.setuid(65534)
                try:
                    _refused_everywhere(store.root, mode)
                except BaseException as error:
                    os.write(2, repr(error).encode())
                    os._exit(1)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        store.root.chmod(0o755)
        store.folder(KEY).chmod(0o755)


def _refused_everywhere(root: Path, mode: int) -> None:
    store = Store(root)
    uses: list[Callable[[], object]] = [lambda: store.acquire(KEY), store.check_writable]
    if mode == 0o700:
        uses += [lambda: store.load(KEY), lambda: store.done(KEY)]
    else:
        assert store.load(KEY) == STAGE.to_json()
    for use in uses:
        with pytest.raises(UserError, match="no permission"):
            use()


def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object, **_more: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    assert disk.create_exclusive(tmp_path / "a", b"one")
    assert not disk.create_exclusive(tmp_path / "a", b"two")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"one"


WORK = """
import sys, time
from pathlib import Path
from bench.stage import Stage
from bench.store.store import Store
store = Store(Path(sys.argv[1]), beat=0.01)
stage = Stage("patch", {"a": 1})
print("up", flush=True)
while True:
    store.add(stage)
    lease = store.acquire(stage.key)
    if lease is None:
        print("REFUSED", flush=True)
        break
    with lease:
        attempt = store.begin(stage.key, lease)
        attempt.events.write("start")
        for n in range(3):
            (attempt.outputs / f"file{n}").write_bytes(bytes([n]) * 20000)
        store.finish(attempt, inputs={}, seconds=0.0, environment={}, extra={})
    store.discard(stage.key)
"""


def test_kill_at_any_moment_leaves_a_store_that_goes_on(tmp_path: Path) -> None:
    chance = random.Random(0)
    store = Store(tmp_path / "store")
    states: set[tuple[bool, bool, bool]] = set()
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WORK, str(store.root)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "up\n"
            time.sleep(chance.uniform(0.0, 0.06))
            child.send_signal(signal.SIGKILL)
            assert child.stdout.read() == "", "the lease of the one killed before was not free at once"
        done = store.done(KEY)
        states.add((done is not None, store.running(KEY) is not None, len(store.attempts(KEY)) > 0))
        if done is not None:
            assert store.verify(KEY), "done is never ahead of its outputs"
            assert len(done.digests) == 3
        if (store.folder(KEY) / "stage.json").exists():
            assert store.load(KEY) == STAGE.to_json()
    assert not any(running for _, running, _ in states)
    assert any(tried for _, _, tried in states), "the kills came too early to say anything"
    store.add(STAGE)
    lease = store.acquire(KEY)
    assert lease is not None
    with lease:
        store.discard(KEY, lease=lease)
        attempt = store.begin(KEY, lease)
        (attempt.outputs / "file").write_text("x")
        assert store.finish(attempt, inputs={}, seconds=0, environment={}, extra={})
    assert store.verify(KEY)
    assert not list(store.folder(KEY).rglob("outputs.tmp"))


def test_a_store_may_move(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.add(STAGE)
    lease = store.acquire(KEY)
    assert lease is not None
    with lease:
        attempt = store.begin(KEY, lease)
        (attempt.outputs / "file").write_text("x")
        assert store.finish(attempt, inputs={}, seconds=0, environment={}, extra={})
    shutil.move(store.root, tmp_path / "elsewhere")
    assert Store(tmp_path / "elsewhere").verify(KEY)
