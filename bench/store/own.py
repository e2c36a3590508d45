"""What is this user's own: notes in a folder that nobody else can write to. Separate from the store because that may
be a group's: what stands in it decides neither whom a command signals nor what it cancels.

    <cache>/longtail-bench/processes/<pid>-<start>   a process that works on stages: command line, store, keys
                           submitted/<name>          a submission: the folder of its job files
                           submitted/<name>-<id>     a job of it
                           jobs, code                bench/launch/job_files.py, bench/run/snapshot.py
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import stat
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from bench.errors import UserError, parsed
from bench.store.lease import LeaseInfo, host, machine, process_start

UNUSED_DAYS = 90  # of a mark of a submission: longer than any queue holds a job
HINT = "set XDG_CACHE_HOME to a folder of yours"
_PROCESSES, _SUBMITTED = "processes", "submitted"


def cache() -> Path:
    """The cache folder of this product, below the user's."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longtail-bench"


def private(*names: str) -> Path:
    """A folder below the cache that its owner alone can enter, as are all between; made if missing.

    Raises:
        UserError: it cannot be made, or is another user's, or a link.
    """
    folder = cache()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for path in (folder, *(folder.joinpath(*names[: n + 1]) for n in range(len(names)))):
            path.mkdir(mode=0o700, exist_ok=True)
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise UserError("this must be a folder of yours, and is not", where=str(path), hint=HINT)
            if stat.S_IMODE(found.st_mode) != 0o700:
                path.chmod(0o700)
    except OSError as error:
        raise UserError(f"cannot be made: {error.strerror}", where=str(folder.joinpath(*names)), hint=HINT) from None
    return folder.joinpath(*names)


# -- processes


@contextlib.contextmanager
def working(store: Path, keys: Collection[str]) -> Iterator[None]:
    """Note that this process works on these stages, while it does: `signal_own` ends no other. Without the note (the
    folder cannot be written) it can be stopped by its driver, or by hand."""
    pid = os.getpid()
    path: Path | None = None
    with contextlib.suppress(UserError, OSError, RuntimeError):  # RuntimeError: no home
        folder = private(_PROCESSES)
        _forget_ended(folder)
        path = folder / f"{pid}-{process_start(pid)}"
        note = {"machine": machine(), "command": _command(pid), "store": os.path.realpath(store), "keys": sorted(keys)}
        path.write_text(json.dumps(note))
    try:
        yield
    finally:
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()


def signal_own(owner: LeaseInfo, store: Path, key: str) -> bool:
    """Ask the owner of a stage's lease to save and end, if it is a process of this user's own jobs at work on that
    stage. A lease is a file of the store and may name any process: what counts is the process's own note.
    """
    if owner.host != host() or owner.machine != machine() or owner.pid <= 1:
        return False
    with contextlib.suppress(UserError, OSError, RuntimeError, ValueError, TypeError):
        note = parsed((private(_PROCESSES) / f"{int(owner.pid)}-{int(owner.start)}").read_text())
        if note["store"] != os.path.realpath(store) or key not in note["keys"] or note["machine"] != machine():
            return False
        descriptor = os.pidfd_open(owner.pid) if hasattr(os, "pidfd_open") else None
        try:  # through the descriptor it is this process and no later one of its number
            if process_start(owner.pid) != owner.start or _command(owner.pid) != note["command"]:
                return False
            if descriptor is None:
                os.kill(owner.pid, signal.SIGTERM)
            else:
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            return True
        finally:
            if descriptor is not None:
                os.close(descriptor)
    return False


def _command(pid: int) -> str:
    """sha256 of the command line of a process, which may hold a password; empty where it cannot be read."""
    import psutil

    try:
        return hashlib.sha256("\0".join(psutil.Process(pid).cmdline()).encode("utf-8", "replace")).hexdigest()
    except psutil.Error:
        return ""


def _forget_ended(folder: Path) -> None:
    """Remove the notes of processes of this machine that were killed."""
    for path in folder.iterdir():
        pid, _, start = path.name.partition("-")
        with contextlib.suppress(OSError, ValueError):
            note: dict[str, Any] = parsed(path.read_text())
            if note.get("machine") == machine() and process_start(int(pid)) != start:
                path.unlink()


# -- submissions


def note_submission(name: str, folder: str) -> None:
    """Note that a submission of this name is this user's, and the folder of its job files.

    Raises:
        UserError: the note cannot be written.
    """
    marks = private(_SUBMITTED)
    try:
        (marks / _file(name)).write_text(folder)
        for path in marks.iterdir():
            if time.time() - path.stat().st_mtime > UNUSED_DAYS * 86400:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(marks), hint=HINT) from error


def note_job(name: str, job_id: str) -> None:
    """Note that a job of this user's submission got this id.

    Raises:
        UserError: the note cannot be written.
    """
    marks = private(_SUBMITTED)
    try:
        (marks / f"{_file(name)}-{_file(job_id)}").write_text(job_id)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(marks), hint=HINT) from error


def folder_of(name: str) -> str | None:
    """The folder of job files of this user's submission; None for a name that this user has not submitted."""
    with contextlib.suppress(UserError, OSError, RuntimeError):
        return (private(_SUBMITTED) / _file(name)).read_text()
    return None


def is_own(name: str, job_id: str) -> bool:
    """Whether this user has submitted the job of this name and id."""
    with contextlib.suppress(UserError, OSError, RuntimeError):
        return (private(_SUBMITTED) / f"{_file(name)}-{_file(job_id)}").is_file()
    return False


def jobs_of(name: str) -> list[str]:
    """The ids of the jobs of this user's submission."""
    with contextlib.suppress(UserError, OSError, RuntimeError):
        return sorted(path.read_text() for path in private(_SUBMITTED).glob(f"{_file(name)}-*"))
    return []


def _file(text: str) -> str:
    """Names come from files of the store as well: none of them is part of a path."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:24]
