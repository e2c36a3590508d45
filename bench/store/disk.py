"""Files that are whole or absent. Separate because the store, the leases and the checkpoints share these few steps.

A file is written under a temporary name, fsynced and renamed; one that only the first writer may make is linked into
place. Errors of the disk (full, read-only, not permitted) become a UserError that names the path and the bytes needed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.errors import UserError

# No write here pauses this long between two blocks; an older temporary file has no writer left.
STALE_SECONDS = 600.0
_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EROFS: "the file system is read-only", errno.EACCES: "no permission"}
_REFUSED[errno.EPERM] = _REFUSED[errno.EACCES]
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@contextlib.contextmanager
def disk_errors(path: Path, need: int | None = None, hint: str = "") -> Iterator[None]:
    """Turn errors of the disk into a UserError.

    Args:
        path: what is being written.
        need: bytes it takes, where known.
        hint: what to do about it, where the path is not in the store.

    Raises:
        UserError: full disk or quota, read-only file system, no permission, a file where a folder should be.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            about = f"; needs about {_size(need)}" if need else ""
            what = f"no space left on the disk: free space {_size(free_bytes(path))}{about}"
            hint = hint or "free some space, or move the store to a larger disk; what is finished stays valid"
            raise UserError(what, where=str(path), hint=hint) from error
        if error.errno in _REFUSED:
            what = f"the disk refuses it: {_REFUSED[error.errno]}"
            hint = hint or "choose a store that you may read and write"
            raise UserError(what, where=str(path), hint=hint) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise UserError("a file stands where a folder should be", where=str(path)) from error
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the whole new one, also after a power cut.

    Raises:
        UserError: see `disk_errors`; no partial file is left.
    """
    with disk_errors(path, len(data)):
        temporary = _temporary(path, data)
        try:
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def create_exclusive(path: Path, data: bytes) -> bool:
    """Make a file, whole, if it does not exist: True for exactly one of all callers on all hosts.

    Raises:
        UserError: see `disk_errors`.
    """
    with disk_errors(path, len(data)):
        temporary = _temporary(path, data)
        try:
            try:
                os.link(temporary, path)
                made = True
            except FileExistsError:
                # An NFS client may send link twice and get EEXIST for its own success; the link count shows that.
                made = os.stat(temporary).st_nlink == 2
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                made = _create_without_links(path, data)
        finally:
            temporary.unlink(missing_ok=True)
        if made:
            sync_folder(path.parent)
        return made


def _create_without_links(path: Path, data: bytes) -> bool:
    """O_EXCL for file systems without hard links; readers may see the file half-written for a moment."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    try:
        _write_all(descriptor, data)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return True


def _temporary(path: Path, data: bytes) -> Path:
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _write_all(descriptor, data)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return temporary


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of readable JSON."""
    write_atomic(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Readable JSON with sorted keys, as bytes; numpy and torch scalars become numbers, other objects their text."""
    plain = json.loads(json.dumps(value, default=plain_value))  # makes all names strings, which alone can be sorted
    return (json.dumps(plain, indent=1, sort_keys=True) + "\n").encode()


def plain_value(value: Any) -> Any:
    """`default=` of json.dumps."""
    return value.item() if hasattr(value, "item") else str(value)


def read_json(path: Path) -> Any:
    """The JSON of a file, or None where it is missing, half-written or not JSON; UserError where it may not be read."""
    try:
        with disk_errors(path):
            return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def make_folder(path: Path) -> None:
    """mkdir -p, with a UserError for errors of the disk."""
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that a rename in it outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EACCES, errno.ENOTSUP):  # some network file systems
            raise
    finally:
        os.close(descriptor)


def sync_files(folder: Path) -> None:
    """fsync every file and folder below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def sha256_of(path: Path) -> str:
    """sha256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(path: Path) -> int:
    """Free bytes for a user on the disk that holds a path (or its nearest existing parent)."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def sweep_temporaries(folder: Path) -> None:
    """Remove temporary files without a writer."""
    for path in stale_temporaries(folder):
        with contextlib.suppress(OSError):
            path.unlink()


def stale_temporaries(folder: Path) -> list[Path]:
    """Temporary files without a writer: untouched for `STALE_SECONDS` of the disk's clock, since a host whose clock is
    ahead would remove files that others are writing."""
    found = list(folder.glob("*.tmp-*"))
    old = []
    with contextlib.suppress(OSError):
        now = _disk_time(folder) if found else 0.0
        for path in found:
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > STALE_SECONDS:
                    old.append(path)
    return old


def _disk_time(folder: Path) -> float:
    """The time by the clock that stamps the files of a folder, often a file server's."""
    probe = folder / f"probe.tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        probe.write_bytes(b"")
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """A file or a folder with all in it; no error for what does not exist or cannot be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def bytes_below(path: Path) -> int:
    """Bytes of a file, or of all files below a folder. Files that vanish meanwhile count 0."""
    with contextlib.suppress(OSError):
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(f"{folder}/{name}").st_size
    return total


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
