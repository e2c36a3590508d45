"""Join stores: what is done in one is copied into another. Separate from the store, which knows only itself.

A stage is copied as it is made: under its lease, into an attempt of its own, `done` last. So it appears whole or not at
all, an interrupted merge is repeated, and jobs may work on the store meanwhile. Nothing is linked, since files of two
stores may have two owners, and nothing that is done is replaced.
"""

from __future__ import annotations

import contextlib
import graphlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.key import digest
from bench.store import below, roots
from bench.store.disk import disk_errors, make_folder, read_bytes, remove, write_atomic, write_json
from bench.store.done import Done, outputs_of, read_done
from bench.store.excerpt import KEPT_BESIDE
from bench.store.lease import Lease
from bench.store.store import Attempt, Store

ANOTHER = "another result of it is here, which is kept"
PIECE = 1 << 20  # bytes copied at a time


@dataclass(frozen=True)
class Left:
    """A stage that was not copied, its kind (empty where that cannot be read), and why."""

    key: str
    kind: str
    why: str


@dataclass
class Merged:
    """What a merge did: keys that came, keys whose result was there already, what was left, roots that were new."""

    came: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)


class _LeftError(Exception):
    """Why a stage is left."""


def merge(into: Store, source: Store, told: Callable[[int, int], None] = lambda done, of: None) -> Merged:
    """Copy all that is done in a store, and whole, into another.

    Args:
        into: is written to; what is done there stays as it is.
        source: only read. Of an unpacked export, what the export left out makes a stage not whole.
        told: how many stages of how many have been looked at.

    Raises:
        UserError: a root of either cannot be read, or `into` cannot be written. What was copied so far is whole.
    """
    found = Merged()
    needed = source.roots()
    into.check_writable()
    # First: `gc` leaves it alone from now on.
    found.roots = [root.name for root in needed if roots.join(into.root, root)]
    values = {key: _readable(source, key) for key in source.keys()}  # noqa: SIM118 (a method, not a mapping)
    made_here, told_here = _made_from(into), set[str]()
    for number, key in enumerate(_inputs_first(values), 1):
        value = values[key]
        try:
            if value is None:
                raise _LeftError("its stage.json cannot be read, or is not what its key names")
            came = _bring(into, source, key, value, made_here, partial(_tell, into, key, values, told_here))
            (found.came if came else found.there).append(key)
        except _LeftError as why:
            found.left.append(Left(key, value["kind"] if value else "", str(why)))
        told(number, len(values))
    return found


def _readable(store: Store, key: str) -> dict[str, Any] | None:
    """The stage.json of a key where it is that of the key: whoever may write to a store may write another one."""
    with contextlib.suppress(UserError, KeyError, TypeError, RecursionError, ValueError):
        value = store.load(key)
        if digest({name: value[name] for name in ("kind", "version", "spec", "inputs")}) == key:
            return value
    return None


def _inputs_first(values: dict[str, dict[str, Any] | None]) -> Iterator[str]:
    """The keys, a stage's inputs before it: keys are digests, so that there is no circle."""
    graph = {
        key: [k for k in value["inputs"].values() if k in values] if value else [] for key, value in values.items()
    }
    yield from graphlib.TopologicalSorter(graph).static_order()


def _made_from(store: Store) -> dict[str, set[str]]:
    """Key -> the results of it (`Done.digest`) that stages which are done in a store were made from."""
    found: dict[str, set[str]] = {}
    for key in store.keys():  # noqa: SIM118
        done = store.done(key)
        if done is not None:
            _note(found, _inputs(store, key), done)
    return found


def _note(found: dict[str, set[str]], inputs: dict[str, str], done: Done) -> None:
    for name, result in done.inputs.items():
        if name in inputs:
            found.setdefault(inputs[name], set()).add(result)


def _inputs(store: Store, key: str) -> dict[str, str]:
    with contextlib.suppress(UserError):
        return dict(store.load(key)["inputs"])
    return {}


def _bring(
    into: Store, source: Store, key: str, value: dict[str, Any], made_here: dict[str, set[str]],
    tell: Callable[[], None],
) -> bool:  # fmt: skip
    """Copy one stage; False where its result is there already. `tell`: see `_tell`.

    Raises:
        _LeftError: it stays where it is.
    """
    done = source.done(key)
    if done is None:
        raise _LeftError(_why_not_done(source, key))
    if (own := into.done(key)) is not None:
        if own.digest == done.digest:
            tell()
            return False
        raise _LeftError(ANOTHER)
    if made_here.get(key, {done.digest}) != {done.digest}:
        raise _LeftError("a stage here was made from another result of it")
    for name, source_key in value["inputs"].items():
        held = into.done(source_key)
        if held is not None and done.inputs.get(name) != held.digest:
            raise _LeftError(f"made from another result of its input {name} than the one here")
    lease = into.acquire(key)
    if lease is None:
        raise _LeftError("at work here")
    with lease:
        tell()
        if into.done(key) is None:
            _copy(into, source, key, done, lease)
    _note(made_here, value["inputs"], done)
    return True


def _why_not_done(store: Store, key: str) -> str:
    if read_done(store.folder(key) / "done") is not None:
        return "not whole: files of it are missing or cut short (an export leaves weights and images out)"
    if store.running(key) is not None:
        return "at work there"
    return "failed there" if store.failure(key) is not None else "not finished there"


def _tell(into: Store, key: str, values: dict[str, dict[str, Any] | None], told: set[str]) -> None:
    """Have the stage.json of a stage, and of all below it, in a store: a result is read along its lineage, also where
    what it was made from stays behind (weights, of an export). `told`: those that are there.

    Raises:
        _LeftError: one of them is in neither store.
    """
    if key in told:
        return
    own = _readable(into, key)
    value = own or values.get(key)
    if value is None:
        raise _LeftError("its lineage is not whole: the stage.json of a stage below it is missing or was changed")
    for below_it in value["inputs"].values():
        _tell(into, below_it, values, told)
    if own is None:
        path = into.folder(key) / "stage.json"
        make_folder(path.parent)
        write_json(path, {**value, "aside": {}})  # paths of another machine; whoever runs it here names its own
    told.add(key)


def _copy(into: Store, source: Store, key: str, done: Done, lease: Lease) -> None:
    attempt = into.begin(key, lease)
    try:
        for name, sha256 in done.digests.items():
            if _copy_file(outputs_of(source.folder(key), done.attempt) / name, attempt.outputs / name) != sha256:
                raise _LeftError(f"{name} is not what was written: its sha256 differs")
    except FileNotFoundError:
        remove(attempt.folder)
        raise _LeftError("a file of it has vanished") from None
    except _LeftError:
        remove(attempt.folder)
        raise
    _copy_beside(source, key, attempt, into)
    into.finish(
        attempt, inputs=done.inputs, seconds=done.seconds, environment=done.environment, extra=done.extra,
        finished=done.finished,
    )  # fmt: skip


def _copy_beside(source: Store, key: str, attempt: Attempt, into: Store) -> None:
    """The events of all its attempts, in one file, and what a report has kept of it."""
    events = b""
    with contextlib.suppress(OSError):
        for folder in source.attempts(key):
            with contextlib.suppress(FileNotFoundError):
                events += read_bytes(folder / "events.jsonl")
        for path in sorted(source.folder(key).iterdir()):
            if KEPT_BESIDE.fullmatch(path.name):
                write_atomic(into.folder(key) / path.name, read_bytes(path))
    write_atomic(attempt.folder / "events.jsonl", events)


def _copy_file(source: Path, target: Path) -> str:
    """Copy a file; its sha256 (hex)."""
    seen = hashlib.sha256()
    with disk_errors(source), os.fdopen(below.opened(source, os.O_RDONLY), "rb") as file, disk_errors(target):
        make_folder(target.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(below.opened(target, flags), "wb") as copy:
            while piece := file.read(PIECE):
                seen.update(piece)
                copy.write(piece)
    return seen.hexdigest()
