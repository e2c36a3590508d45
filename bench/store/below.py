"""Opening files below a store without following links. Separate because all that writes, renames and removes goes
through these few steps.

Whoever may write to a store may put a link in it: `trash` to a folder whose content would be deleted, a table to a file
that would be overwritten. So below the root of a store a path is walked folder by folder through descriptors
(O_NOFOLLOW), and what is done is done in the last one: a link that is put there meanwhile is not followed either. The
root itself, and all that leads to it, may be links. Paths outside every store are the user's own and are opened as
they are.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bench.errors import UserError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ROOTS: set[str] = set()  # of the stores that this process has opened


def guard(root: Path) -> None:
    """From now on no link below this folder is followed."""
    _ROOTS.update((os.path.abspath(root), os.path.realpath(root)))


def is_guarded(path: Path) -> bool:
    """Whether a path lies below a store's root."""
    return bool(_parts(path)[1])


def refused(path: Path | str) -> UserError:
    """The error for a link in a store."""
    return UserError(
        "this is a link, and nothing in a store is followed out of it", where=str(path),
        hint="look where it leads and who made it; then remove the link, or move what it leads to into its place",
    )  # fmt: skip


@contextlib.contextmanager
def folder(path: Path, *, make: bool = False) -> Iterator[int]:
    """A descriptor of a folder. `make`: it, and those on the way to it, are made where they are missing.

    Raises:
        OSError: it is not there, or is no folder.
        UserError: it, or a folder between the store's root and it, is a link.
    """
    root, names = _parts(path)
    if make:
        os.makedirs(root, exist_ok=True)
    descriptor = os.open(root, _FOLDER)
    try:
        for position, name in enumerate(names):
            above = descriptor
            try:
                descriptor = _enter(above, name, make)
            except OSError as error:
                at = os.path.join(root, *names[: position + 1])
                if error.errno in (errno.ELOOP, errno.ENOTDIR) and os.path.islink(at):
                    raise refused(at) from None
                raise OSError(error.errno, error.strerror, at) from None
            os.close(above)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def parent(path: Path) -> Iterator[tuple[int, str]]:
    """A descriptor of the folder that holds a path, and the path's name in it: for `dir_fd=`. Raises as `folder`."""
    with folder(path.parent) as descriptor:
        yield descriptor, path.name


def opened(path: Path, flags: int, mode: int = 0o666) -> int:
    """A descriptor of a file, which must be a regular one: neither a link nor, e.g., a pipe that would never end.

    Raises:
        OSError: it cannot be opened.
        UserError: it, or a folder below the store's root on the way to it, is a link.
    """
    with parent(path) as (at, name):
        try:
            descriptor = os.open(name, flags | os.O_CLOEXEC | os.O_NONBLOCK | _nofollow(path), mode, dir_fd=at)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise refused(path) from None
            raise OSError(error.errno, error.strerror, str(path)) from None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def make(path: Path) -> None:
    """mkdir of one folder, with the errors of `parent`."""
    with parent(path) as (at, name):
        os.mkdir(name, dir_fd=at)


def remove_empty(path: Path) -> None:
    """rmdir, with the errors of `parent`."""
    with parent(path) as (at, name):
        os.rmdir(name, dir_fd=at)


def is_real_folder(path: Path | str) -> bool:
    """Whether there is a folder of this name which is no link."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _enter(above: int, name: str, make: bool) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
    except FileNotFoundError:
        if not make:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=above)
    return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)


def _nofollow(path: Path) -> int:
    return os.O_NOFOLLOW if is_guarded(path) else 0


def _parts(path: Path) -> tuple[str, list[str]]:
    """The root of the store that holds a path, and the names from there on; of another path itself, and none."""
    text = os.path.abspath(path)
    for root in _ROOTS:
        if text == root or text.startswith(root if root.endswith("/") else root + "/"):
            return root, [name for name in text[len(root) :].split("/") if name]
    return text, []
