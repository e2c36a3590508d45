"""Files that are whole or absent. Separate because the store, the leases and the checkpoints share these few steps.

A file is written under a temporary name, fsynced and renamed; one that only the first writer may make is linked into
place. All of it happens below descriptors of folders, so that no link in a store is followed (bench/store/below.py).
Errors of the disk (full, read-only, not permitted) become a UserError that names the path and the bytes needed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.errors import UserError, parsed
from bench.store import below

# No write here pauses this long between two blocks; an older temporary file has no writer left.
STALE_SECONDS = 600.0
_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EROFS: "the file system is read-only", errno.EACCES: "no permission"}
_REFUSED[errno.EPERM] = _REFUSED[errno.EACCES]
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
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
        if error.errno == errno.EISDIR:
            raise UserError("a folder stands where a file should be", where=str(path)) from error
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the whole new one, also after a power cut. A link of that
    name is replaced, not followed.

    Raises:
        UserError: see `disk_errors`; no partial file is left. Or a link where a folder of a store should be.
    """
    with disk_errors(path, len(data)), below.parent(path) as (at, name):
        temporary = _temporary(at, name, data)
        try:
            os.replace(temporary, name, src_dir_fd=at, dst_dir_fd=at)
        except BaseException:
            _unlink(at, temporary)
            raise
        _sync(at)


def put(path: Path, data: bytes) -> None:
    """`write_atomic` for what people ask for (reports): outside a store a link of theirs is followed, and stays.

    Raises:
        UserError: as `write_atomic`.
    """
    write_atomic(path if below.is_guarded(path) else Path(os.path.realpath(path)), data)


def create_exclusive(path: Path, data: bytes) -> bool:
    """Make a file, whole, if it does not exist: True for exactly one of all callers on all hosts.

    Raises:
        UserError: as `write_atomic`.
    """
    with disk_errors(path, len(data)), below.parent(path) as (at, name):
        temporary = _temporary(at, name, data)
        try:
            try:
                os.link(temporary, name, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
                made = True
            except FileExistsError:
                # An NFS client may send link twice and get EEXIST for its own success; the link count shows that.
                made = os.stat(temporary, dir_fd=at, follow_symlinks=False).st_nlink == 2
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                made = _create_without_links(at, name, data)
        finally:
            _unlink(at, temporary)
        if made:
            _sync(at)
        return made


def _create_without_links(at: int, name: str, data: bytes) -> bool:
    """O_EXCL for file systems without hard links; readers may see the file half-written for a moment."""
    try:
        descriptor = os.open(name, _NEW, 0o666, dir_fd=at)
    except FileExistsError:
        return False
    try:
        _write_all(descriptor, data)
    except BaseException:
        _unlink(at, name)
        raise
    finally:
        os.close(descriptor)
    return True


def _temporary(at: int, name: str, data: bytes) -> str:
    temporary = f"{name}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
    descriptor = os.open(temporary, _NEW, 0o666, dir_fd=at)
    try:
        _write_all(descriptor, data)
    except BaseException:
        _unlink(at, temporary)
        raise
    finally:
        os.close(descriptor)
    return temporary


def _unlink(at: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=at)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def rename(source: Path, target: Path) -> None:
    """os.replace within a store: no link on the way to either is followed, and neither is one of these names.

    Raises:
        OSError: as os.replace.
        UserError: a link where a folder of a store should be.
    """
    with below.parent(source) as (at, name), below.parent(target) as (to, new):
        os.replace(name, new, src_dir_fd=at, dst_dir_fd=to)


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
    """The JSON of a file, or None where it is missing, half-written or not JSON; UserError where it may not be read, or
    is a link in a store."""
    try:
        with disk_errors(path):
            return parsed(read_bytes(path))
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:  # a folder, a pipe
            return None
        raise


def read_bytes(path: Path | str) -> bytes:
    """The content of a regular file, which in a store must not be a link.

    Raises:
        OSError: it cannot be read; also of a folder, a pipe or a device.
        UserError: it is a link, or below one.
    """
    with os.fdopen(below.opened(Path(path), os.O_RDONLY), "rb") as file:
        return file.read()


def make_folder(path: Path) -> None:
    """mkdir -p, with a UserError for errors of the disk and for links on the way through a store."""
    with disk_errors(path), below.folder(path, make=True):
        pass


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that a rename in it outlives a power cut."""
    with below.folder(folder) as descriptor:
        _sync(descriptor)


def _sync(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EACCES, errno.ENOTSUP):  # some network file systems
            raise


def sync_files(folder: Path) -> None:
    """fsync every file and folder below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise below.refused(path)
        if path.is_file():
            descriptor = below.opened(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def sha256_of(path: Path) -> str:
    """sha256 (hex) of a file's content."""
    with os.fdopen(below.opened(path, os.O_RDONLY), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(path: Path) -> int:
    """Free bytes for a user on the disk that holds a path (or its nearest existing parent)."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def sweep_temporaries(folder: Path) -> None:
    """Remove temporary files without a writer."""
    for path in stale_temporaries(folder):
        remove(path)


def stale_temporaries(folder: Path) -> list[Path]:
    """Temporary files without a writer: untouched for `STALE_SECONDS` of the disk's clock, since a host whose clock is
    ahead would remove files that others are writing."""
    found = list(folder.glob("*.tmp-*")) if below.is_real_folder(folder) or not below.is_guarded(folder) else []
    old = []
    with contextlib.suppress(OSError, UserError):
        now = _disk_time(folder) if found else 0.0
        for path in found:
            with contextlib.suppress(OSError):
                if now - path.lstat().st_mtime > STALE_SECONDS:
                    old.append(path)
    return old


def _disk_time(folder: Path) -> float:
    """The time by the clock that stamps the files of a folder, often a file server's."""
    probe = folder / f"probe.tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        descriptor = below.opened(probe, _NEW)
        try:
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
    finally:
        remove(probe)


def remove(path: Path) -> None:
    """A file or a folder with all in it, a link alone and never what it leads to; no error for what does not exist or
    cannot be removed, or lies behind a link of a store."""
    with contextlib.suppress(OSError, UserError), below.parent(path) as (at, name):
        if stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            shutil.rmtree(name, ignore_errors=True, dir_fd=at)
        else:
            os.unlink(name, dir_fd=at)


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
