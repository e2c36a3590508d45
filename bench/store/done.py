"""The `done` file: its value, its format, and whether the outputs match. Separate from the store, which writes it.

The file carries a checksum of itself; one that is empty, truncated, edited or corrupt parses to None.
"""

from __future__ import annotations

import datetime
import errno
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.errors import parsed
from bench.key import digest
from bench.store.below import is_real_folder
from bench.store.disk import disk_errors, json_bytes, read_bytes, sha256_of


@dataclass(frozen=True)
class Done:
    """A finished stage.

    Attributes:
        attempt: the attempt that won.
        digests: file (relative to the outputs) -> sha256.
        inputs: input name -> `Done.digest` of the input stage that this was made from.
        seconds: how long the winning attempt took.
        finished: ISO time, UTC.
        environment: what ran where.
        extra: further values of the stage kind (not its outputs).
        sizes: file -> bytes; lets a reader see a truncated file without hashing it.
    """

    attempt: int
    digests: Mapping[str, str]
    inputs: Mapping[str, str]
    seconds: float
    finished: str
    environment: Mapping[str, Any]
    extra: Mapping[str, Any]
    sizes: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Identity of the content: sha256 over the digests. Consumers compare it to see whether they are stale."""
        return digest(self.digests)


_FIELDS = {f.name for f in fields(Done)}
_CHECKSUM_LINE = re.compile(rb'^ "checksum": "[0-9a-f]{64}",\n', re.MULTILINE)


def outputs_of(folder: Path, attempt: int) -> Path:
    """Where an attempt's finished outputs lie, below the stage's folder."""
    return folder / "attempts" / str(attempt) / "outputs"


def names_of(outputs: Path) -> list[str]:
    """All files below, relative, sorted; links are none."""
    found = (path for path in outputs.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(path.relative_to(outputs).as_posix() for path in found)


def digests_of(outputs: Path) -> dict[str, str]:
    """File -> sha256 of all files below."""
    return {name: sha256_of(outputs / name) for name in names_of(outputs)}


def size_of(path: Path | str) -> int | None:
    """Bytes of a file, None where there is none; of a link too."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def holds(folder: Path, done: Done) -> bool:
    """Whether every output of a done stage exists in its size."""
    attempts = f"{folder}/attempts"  # strings: Path objects took half the time of `status`
    outputs = f"{attempts}/{done.attempt}/outputs"
    if not all(is_real_folder(path) for path in (folder, attempts, f"{attempts}/{done.attempt}", outputs)):
        return False
    return all(size_of(f"{outputs}/{name}") == size for name, size in done.sizes.items())


def format_done(done: Done) -> bytes:
    """The content of the file."""
    body = {f.name: getattr(done, f.name) for f in fields(done)}
    return json_bytes({**body, "checksum": _checksum(body)})


def read_done(path: Path | str) -> Done | None:
    """The Done of a file; None for one that is not there, or not what `format_done` wrote.

    Raises:
        UserError: it may not be read.
    """
    try:
        with disk_errors(Path(path)):
            raw = read_bytes(Path(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:  # a folder, a pipe
            return None
        raise
    return parse_done(raw)


def parse_done(raw: bytes) -> Done | None:
    """The Done of a file's bytes; None for anything that is not what `format_done` wrote."""
    try:
        value = parsed(raw)
    except ValueError:
        return None
    if not isinstance(value, dict) or set(value) != _FIELDS | {"checksum"}:
        return None
    checksum = value.pop("checksum")
    # The checksum is over the bytes without its own line; re-encoding the JSON took most of the reading time.
    if checksum != hashlib.sha256(_CHECKSUM_LINE.sub(b"", raw, count=1)).hexdigest():
        return None
    return Done(**value) if _is_well_formed(value) else None


def _is_well_formed(value: Mapping[str, Any]) -> bool:
    """Whether the fields are what they should be. The checksum tells nothing of who wrote them, and the attempt and the
    names of files become paths."""
    attempt, seconds = value["attempt"], value["seconds"]
    digests, sizes = value["digests"], value["sizes"]
    return (
        type(attempt) is int
        and attempt > 0
        and isinstance(seconds, int | float)
        and isinstance(value["finished"], str)
        and all(isinstance(value[name], dict) for name in ("digests", "inputs", "environment", "extra", "sizes"))
        and all(type(size) is int for size in sizes.values())
        and all(isinstance(text, str) for text in (*digests.values(), *value["inputs"].values()))
        and not any(name.startswith("/") or ".." in name.split("/") for name in (*digests, *sizes))
    )


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json_bytes(body)).hexdigest()


def now() -> str:
    """ISO time, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
