"""Who works on a stage. Separate from the store because mutual exclusion is a subject of its own.

The lease files of a folder are numbered: lease.1, lease.2, ... Only the highest counts. It is free once its owner has
written "released" into it, or is dead; a taker creates the next number, which only one can do.
A file that is renamed or deleted could be confused with its successor by a slow taker; a number cannot.

Dead: on the owner's machine, no process with its pid and start time; seen from elsewhere, the file has not changed for
max(3 beats, 90 s) of the OBSERVER's monotonic clock, so that the clocks of two hosts are never compared.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from bench.errors import parsed
from bench.store import below
from bench.store.disk import create_exclusive, make_folder, read_bytes, remove
from bench.store.form import is_number

BEAT_SECONDS = 5.0
# NFS clients may show a file up to 60 s late (acregmax, nfs(5)); one beat and a margin come on top.
PATIENCE_SECONDS = 90.0
LOOK_SECONDS = 0.2  # between two checks while waiting
HIDDEN = "hidden"
_RELEASED = -1
_WIDTH = 12  # digits of the counter, fixed so that a beat overwrites it in place


@dataclass(frozen=True)
class LeaseInfo:
    """A lease file's content: its owner; `number` counts the owners so far."""

    number: int
    host: str
    machine: str
    pid: int
    start: str
    token: str
    every: float
    since: str
    beat: int


class Observer:
    """Decides whether the owner of a lease is alive; remembers when it saw a file change.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Path, tuple[bytes, float]] = {}

    def live(self, folder: Path) -> LeaseInfo | None:
        """The live owner of a folder, or None. A foreign one counts as alive until it has been watched long enough.

        A file that cannot be read as a lease has an unknown owner (pid 0), watched as long.
        """
        number, path = _highest(folder)
        if path is None:
            return None
        raw = _read(path)
        info = _parse(raw, number)
        if info is None:
            return self._by_counter(path, raw, _unknown(number))
        if info.beat == _RELEASED:
            return None
        if _is_ours(info):
            start = process_start(info.pid)
            if start != HIDDEN:
                return info if start == info.start else None
        return self._by_counter(path, raw, info)

    def watch(self, folder: Path, stop: Callable[[], bool] = lambda: False) -> LeaseInfo | None:
        """`live`, made certain: waits until a foreign owner's counter changes (alive: one beat) or it counts as dead.

        Args:
            folder: of the lease.
            stop: called a few times per second; True ends the wait, and the owner counts as alive.
        """
        first = now = self.live(folder)
        while first is not None and not stop() and not (_is_ours(first) and process_start(first.pid) != HIDDEN):
            time.sleep(LOOK_SECONDS)
            now = self.live(folder)
            if now is None or (now.number, now.beat) != (first.number, first.beat):
                break
        return now

    def release_dead(self, folder: Path) -> None:
        """Release the lease of an owner on another host that this observer has found dead, so that the next taker need
        not watch it again. Does nothing without one; a live owner keeps its lease.

        Raises:
            UserError: the folder cannot be written.
        """
        if any(path.parent == folder for path in self._seen):
            number, path = _highest(folder)
            info = _parse(_read(path), number) if path is not None else None
            if info is not None and info.beat != _RELEASED and (lease := acquire(folder, self)) is not None:
                lease.release()

    def _by_counter(self, path: Path, raw: bytes, info: LeaseInfo) -> LeaseInfo | None:
        now = self._clock()
        before = self._seen.get(path)
        if before is None or before[0] != raw:
            self._seen[path] = (raw, now)
            return info
        return info if now - before[1] <= max(3 * info.every, PATIENCE_SECONDS) else None


class Lease:
    """The right to work on one folder; a context manager. `lost` is set once another process has taken it over.

    A daemon thread raises the counter. In a forked process it does nothing.
    """

    def __init__(self, folder: Path, info: LeaseInfo) -> None:
        self.folder, self.info = folder, info
        self._path = _path(folder, info.number)
        self._lost = self._released = False
        self._beat = 0
        self._process = os.getpid()
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._file = below.opened(self._path, os.O_RDWR)
        thread = threading.Thread(target=self._beats, name=f"lease {folder.name[:8]}", daemon=True)
        thread.start()

    @property
    def lost(self) -> bool:
        """Whether another process has taken the folder over; reads the disk."""
        if not self._lost and not self._released:
            number, _ = _highest(self.folder)
            self._lost = number != self.info.number
        return self._lost

    @property
    def held(self) -> bool:
        """Whether this process may work on the folder."""
        return not self._released and os.getpid() == self._process and not self.lost

    def beat(self) -> None:
        """Raise the counter once. Written through the open file, which is never a successor's."""
        with self._guard:
            if not self._released and os.getpid() == self._process:
                self._beat += 1
                self._write(self._beat)

    def release(self) -> None:
        """Write "released". Does nothing to a lease that was taken over."""
        if os.getpid() != self._process:
            return
        self._stop.set()
        with self._guard:
            if not self._released:
                self._released = True
                with contextlib.suppress(OSError):  # disk full or gone: the lease is free once this process has ended
                    self._write(_RELEASED)
                os.close(self._file)

    def _write(self, counter: int) -> None:
        os.pwrite(self._file, f"{counter:>{_WIDTH}}".encode(), len(_HEAD))
        os.fsync(self._file)

    def _beats(self) -> None:
        while not self._stop.wait(self.info.every) and not self.lost:
            with contextlib.suppress(OSError):  # no network: continue; a successor's number shows a loss
                self.beat()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def acquire(folder: Path, observer: Observer, every: float = BEAT_SECONDS) -> Lease | None:
    """Take the lease of a folder without waiting; None where a live owner holds it or another taker was faster.

    Raises:
        UserError: the folder cannot be written.
    """
    make_folder(folder)
    number, _ = _highest(folder)
    if observer.live(folder) is not None:
        return None
    info = LeaseInfo(
        number=number + 1,
        host=host(),
        machine=machine(),
        pid=os.getpid(),
        start=process_start(os.getpid()) or "",
        token=secrets.token_hex(16),
        every=every,
        since=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        beat=0,
    )
    path = _path(folder, info.number)
    if not create_exclusive(path, _format(info)):
        return None
    # A taker that slept since it listed the files may have made an outdated (and swept) number: it withdraws.
    if _highest(folder)[0] != info.number:
        remove(path)
        return None
    for old in folder.glob("lease.*"):
        if _number(old) is not None and (_number(old) or 0) < info.number:
            remove(old)
    return Lease(folder, info)


def host() -> str:
    """This host's name; BENCH_HOST overrides it."""
    return os.environ.get("BENCH_HOST") or socket.gethostname()


@functools.cache
def machine() -> str:
    """What a pid is relative to: the boot and the pid namespace (two containers may share a host name)."""
    with contextlib.suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    return ""


def process_start(pid: int) -> str | None:
    """When a process started, in a form to compare; None where it does not run (a zombie of the OS does not).

    HIDDEN where it runs but is another user's and /proc is mounted with hidepid.
    """
    if machine():
        # Clock ticks since boot: unlike psutil's create_time, no step of the wall clock moves them.
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return HIDDEN if _another_users(pid) else None
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    except psutil.NoSuchProcess:
        return None


def _another_users(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return False


_HEAD = b'{"beat":'


def _format(info: LeaseInfo) -> bytes:
    rest = {name: value for name, value in vars(info).items() if name not in ("beat", "number")}
    return _HEAD + f"{info.beat:>{_WIDTH}}, ".encode() + json.dumps(rest)[1:].encode() + b"\n"


def _parse(raw: bytes, number: int) -> LeaseInfo | None:
    try:
        info = LeaseInfo(number=number, **parsed(raw))
    except (ValueError, TypeError):
        return None
    texts = (info.host, info.machine, info.start, info.token, info.since)
    whole = type(info.pid) is int and type(info.beat) is int and isinstance(info.every, int | float)
    return info if whole and all(isinstance(text, str) for text in texts) else None


def _is_ours(info: LeaseInfo) -> bool:
    """Whether its owner is, or was, a process of this machine."""
    return info.host == host() and info.machine == machine()


def _unknown(number: int) -> LeaseInfo:
    return LeaseInfo(number, "unknown", "", 0, "", "", BEAT_SECONDS, "", 0)


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except FileNotFoundError:  # swept by a successor since the listing
        return b""
    except OSError as error:
        if error.errno == errno.EINVAL:  # a folder, a pipe: whoever made it is unknown
            return b""
        raise


def _path(folder: Path, number: int) -> Path:
    return folder / f"lease.{number}"


def _number(path: Path) -> int | None:
    text = path.name.removeprefix("lease.")
    return int(text) if is_number(text) else None


def _highest(folder: Path) -> tuple[int, Path | None]:
    numbers = [n for path in folder.glob("lease.*") if (n := _number(path)) is not None]
    return (max(numbers), _path(folder, max(numbers))) if numbers else (0, None)
