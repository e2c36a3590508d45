"""The product's code as it was when a job was submitted. Separate because a queued job starts hours later, and must not
run what its user has edited meanwhile.

    <cache>/longtail-bench/code/<digest>/bench, methods    the copy, first on the job's PYTHONPATH
                                         snapshot.json     written last: whole, and from which commit
                                         stores/<n>        the stores whose jobs use it

The copy is named by its content and the commit, so that a hundred jobs share one. It is in the user's own folder
(0700), beside the job files: write access there means running code as the user. Parts outside the product are not
copied; see bench/run/external_parts.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from bench.environment import ORIGIN, TREE, source
from bench.store.disk import disk_errors, read_json
from bench.store.own import cache, private

PACKAGES = ("bench", "methods")
CACHE_HINT = (
    "free some space there, or set XDG_CACHE_HOME to another folder of yours"  # if the user's folder cannot be written
)
# Longer than any queue or time limit known to us; a job touches its copy at each stage.
UNUSED_DAYS = 30
_NAME = 16  # digits of the digest


def take(store: Path) -> Path:
    """Copy the product, unless the copy exists, and remove old copies.

    Args:
        store: whose jobs will use it; its submitted/*.json say for how long.

    Returns:
        The folder to put first on a job's PYTHONPATH; see `variables`.

    Raises:
        UserError: the user's cache folder cannot be written.
    """
    if (TREE / ORIGIN).is_file():  # this is itself a copy: a job that submits jobs
        return TREE
    files = _files(TREE)
    origin = source(TREE)
    name = _digest(files, origin)[:_NAME]
    folder = cache() / "code" / name
    with disk_errors(folder, sum(map(len, files.values())), CACHE_HINT):
        private("code", name)
        with contextlib.suppress(FileNotFoundError):
            os.utime(folder / ORIGIN)  # first of all, so that no other run removes it as unused
        for path, content in files.items():
            _put(folder / path, content)
        place = str(store.resolve())
        _put(folder / "stores" / hashlib.sha256(place.encode()).hexdigest()[:_NAME], place.encode())
        _put(folder / ORIGIN, json.dumps({**origin, "taken": time.time()}, indent=1).encode(), always=True)
    tidy(folder.parent)
    return folder


def variables(code: Path, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment variables with which Python imports a copy, whatever the working folder holds.

    `python -m` puts the working folder before PYTHONPATH, usually the checkout: hence PYTHONSAFEPATH.
    """
    before = (os.environ if environment is None else environment).get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(code), *([before] if before else [])]), "PYTHONSAFEPATH": "1"}


def in_use() -> None:
    """Mark the copy that this job runs from as used; no effect elsewhere."""
    with contextlib.suppress(OSError):
        os.utime(TREE / ORIGIN)


def tidy(folder: Path | None = None) -> list[Path]:
    """Remove the copies that no job has used for `UNUSED_DAYS` and that no submitted job waits for.

    Args:
        folder: where they lie, by default the user's.

    Returns:
        What was removed.
    """
    removed = []
    for copy in sorted((folder or cache() / "code").glob("*")):
        with contextlib.suppress(OSError):
            mark = copy / ORIGIN
            last = (mark if mark.exists() else copy).stat().st_mtime
            if time.time() - last > UNUSED_DAYS * 86400 and not _is_awaited(copy):
                shutil.rmtree(copy, ignore_errors=True)
                removed.append(copy)
    return removed


def _is_awaited(copy: Path) -> bool:
    """Whether a submitted job that has not ended names this copy."""
    for note in (copy / "stores").glob("*"):
        for path in (Path(note.read_text()) / "submitted").glob("*.json"):  # bench/launch/submitted.py
            job = read_json(path)
            if isinstance(job, dict) and job.get("snapshot") == str(copy) and not job.get("ended"):
                return True
    return False


def _files(root: Path) -> dict[str, bytes]:
    """Content by name of all that belongs to the product; not the files that editors and Python leave behind."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            name = path.relative_to(root)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
            if not hidden and path.is_file() and not path.name.endswith(("~", ".pyc")):
                found[name.as_posix()] = path.read_bytes()
    return found


def _digest(files: Mapping[str, bytes], origin: Mapping[str, str | None]) -> str:
    total = hashlib.sha256(json.dumps(dict(origin), sort_keys=True).encode())
    for name, content in sorted(files.items()):
        total.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def _put(path: Path, content: bytes, *, always: bool = False) -> None:
    """Write a file unless it has this content; concurrent readers and writers see it whole or not at all."""
    with contextlib.suppress(FileNotFoundError):
        if not always and path.read_bytes() == content:
            return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(content)
        temporary.chmod(0o400)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
