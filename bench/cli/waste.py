"""What no suite needs any more, and how it is deleted. Separate from the store, which never deletes what is done.

A stage is needed if a root (store/roots: the suites that were run) or a queued job reaches it. A run that starts
meanwhile loses nothing: it registers its root before it adds stages, and a stage is deleted in this order: take its
lease, move its folder aside in one rename, look at the roots AGAIN, and put it back if it is needed by now. Whoever
registers later finds it missing and makes it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import UserError, unknown
from bench.launch import submitted
from bench.lineage import reached
from bench.run.snapshot import UNUSED_DAYS
from bench.store import below
from bench.store.disk import (
    STALE_SECONDS,
    bytes_below,
    disk_errors,
    make_folder,
    read_json,
    remove,
    rename,
    stale_temporaries,
)  # fmt: skip
from bench.store.lease import Lease
from bench.store.roots import Root
from bench.store.store import Store

TRASH = "trash"
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Waste:
    """A stage that nobody needs. `rows`: `suite: row` it was made for, where that is known."""

    key: str
    kind: str
    rows: str
    bytes: int


@dataclass(frozen=True)
class Need:
    """A root beside the store: what it reaches, and bytes of that. `own`: bytes that no other root reaches."""

    root: Root
    keys: frozenset[str]
    bytes: int
    own: int
    gone: bool  # its suite file is not there (on this machine)


@dataclass
class Found:
    """What `gc` would do.

    Attributes:
        needs: all roots that are kept.
        forgotten: roots that are to go.
        waste: stages that can go.
        at_work: stages that nobody needs and somebody works on.
        leftovers: key -> files that this finished stage does not need.
        temporaries: files without a writer.
        extra_bytes: of leftovers and temporaries.
    """

    needs: list[Need]
    forgotten: list[Root]
    waste: list[Waste]
    at_work: list[str]
    leftovers: dict[str, list[Path]] = field(default_factory=dict)
    temporaries: list[Path] = field(default_factory=list)
    extra_bytes: int = 0

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.waste) + self.extra_bytes


@dataclass
class Freed:
    """What was done: bytes, stages, and the stages that were kept after all."""

    bytes: int = 0
    stages: int = 0
    kept: int = 0


def look(store: Store, forget: Sequence[str] = ()) -> Found:
    """What is in the store and what of it nobody needs. Changes nothing.

    Args:
        store: the store.
        forget: roots that count no longer, by name or by the name of their file.

    Raises:
        UserError: a root that cannot be read or is not there, or one to be forgotten whose stages are at work; a store
            in which no suite was ever registered.
    """
    roots = store.roots()
    if not (store.root / "roots").is_dir():
        what = "no suite was ever registered in this store, so that nothing is known to be needed"
        raise UserError(what, where=str(store.root), hint="run a suite on it first")
    forgotten = _forgotten(roots, forget)
    kept = [root for root in roots if root not in forgotten]
    there = sorted({path.name for path in store.root.iterdir() if _is_stage(path)} | set(store.keys()))
    sizes = {key: bytes_below(store.folder(key)) for key in there}
    reach = {root.file: _reached(store, root.keys) for root in kept}
    needed = set().union(*reach.values()) | _reached(store, _queued(store))
    free = [key for key in there if key not in needed]
    at_work = [key for key in free if store.running(key) is not None]
    for root in forgotten:
        busy = [key for key in at_work if key in root.keys]
        if busy:
            hint = "stop it first: python -m bench stop SUITE"
            raise UserError(f"{len(busy)} of its stages are at work", where=f"--forget {root.file}", hint=hint)
    made = {key: f"{root.name}: {row}" for root in roots for key, row in root.rows.items()}
    waste = [Waste(key, _kind(store, key), made.get(key, "-"), sizes[key]) for key in free if key not in set(at_work)]
    found = Found([_need(root, reach, sizes) for root in kept], forgotten, waste, at_work)
    mine = [key for key in there if key in needed]
    found.leftovers = {key: paths for key in mine if (paths := _leftovers(store, key))}
    found.temporaries = _temporaries(store, mine)
    extra = [*found.temporaries, *(path for paths in found.leftovers.values() for path in paths)]
    found.extra_bytes = sum(map(bytes_below, extra))
    return found


def sweep(store: Store, found: Found) -> Freed:
    """Delete what `look` found, each stage only if it is still not needed and nobody works on it."""
    for root in found.forgotten:
        remove(store.root / "roots" / f"{root.file}.json")
    freed = Freed()
    for path in found.temporaries:
        freed.bytes += bytes_below(path)
        remove(path)
    for key in found.leftovers:
        lease = store.acquire(key)
        if lease is not None:
            with lease:
                for path in _leftovers(store, key, lease):  # what it is by now
                    freed.bytes += bytes_below(path)
                    remove(path)
    needed = Needed(store)
    for one in found.waste:
        if delete(store, one.key, needed):
            freed.bytes, freed.stages = freed.bytes + one.bytes, freed.stages + 1
        else:
            freed.kept += 1
    with contextlib.suppress(OSError, UserError):
        below.remove_empty(store.root / TRASH)
    return freed


def delete(store: Store, key: str, needed: Needed) -> bool:
    """Delete one stage as the head of this file says; False where somebody needs it or works on it."""
    if key in needed:
        return False
    lease = store.acquire(key)
    if lease is None:
        return False
    folder, aside = store.folder(key), store.root / TRASH / f"{key}-{secrets.token_hex(4)}"
    with lease:
        if not lease.held:
            return False
        make_folder(aside.parent)
        with disk_errors(folder):
            rename(folder, aside)
        if key in needed:
            with contextlib.suppress(OSError):  # its new owner has begun anew: he makes it again
                rename(aside, folder)
                return False
    remove(aside)
    return True


class Needed:
    """`key in needed`: as the roots and the queue are at this moment. What has not changed is not read again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stamp: object = None
        self._keys: set[str] = set()

    def __contains__(self, key: str) -> bool:
        stamp = [_stamps(self._store.root / "roots"), _stamps(submitted.folder(self._store.root))]
        if stamp != self._stamp:
            wanted = {key for root in self._store.roots() for key in root.keys} | _queued(self._store)
            self._keys = _reached(self._store, wanted)
            self._stamp = stamp
        return key in self._keys


def _stamps(folder: Path) -> list[tuple[str, int, int]]:
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        found = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(".json")]
        return sorted((name, stat.st_mtime_ns, stat.st_ino) for name, stat in found)
    return []


def _reached(store: Store, keys: Collection[str]) -> set[str]:
    """These keys and all below them. A root names all it needs; this is a second lock."""
    return reached(keys, lambda key: _inputs(store, key))


def _inputs(store: Store, key: str) -> list[str]:
    below = _stage(store, key).get("inputs")
    return [str(source) for source in below.values()] if isinstance(below, dict) else []


def _stage(store: Store, key: str) -> dict[str, object]:
    value = read_json(store.folder(key) / "stage.json")
    return value if isinstance(value, dict) else {}


def _kind(store: Store, key: str) -> str:
    return str(_stage(store, key).get("kind", "unknown"))


def _queued(store: Store) -> set[str]:
    """Keys of jobs that may be in a queue and have something to do there. Nobody may have seen how a job ended."""
    paths = submitted.folder(store.root).glob("*.json")
    notes = [note for path in paths if (note := submitted.read(store.root, path.stem)) is not None]
    young = time.time() - 86400 * UNUSED_DAYS
    waiting = [note.keys for note in notes if not note.ended and note.time > young]
    return {key for keys in waiting for key in keys if any(store.done(other) is None for other in keys)}


def _is_stage(path: Path) -> bool:
    return bool(_KEY.fullmatch(path.name)) and below.is_real_folder(path)


def _forgotten(roots: Sequence[Root], forget: Sequence[str]) -> list[Root]:
    found = []
    for name in forget:
        hits = [root for root in roots if root.file == name] or [root for root in roots if root.name == name]
        if len(hits) != 1:
            if hits:
                files = ", ".join(root.file for root in hits)
                raise UserError(f"{len(hits)} suites are called '{name}'", where="--forget", allowed=files)
            raise unknown("root", name, [root.file for root in roots], where="--forget")
        found += hits
    return found


def _need(root: Root, reach: dict[str, set[str]], sizes: dict[str, int]) -> Need:
    keys = reach[root.file]
    others = set().union(*(found for file, found in reach.items() if file != root.file))
    total = sum(sizes.get(key, 0) for key in keys)
    own = sum(sizes.get(key, 0) for key in keys - others)
    return Need(root, frozenset(keys), total, own, not Path(root.suite).exists())


def _leftovers(store: Store, key: str, lease: Lease | None = None) -> list[Path]:
    """See `Store.leftovers`; nothing where somebody (without our lease: anybody) works on it."""
    done = store.done(key)
    busy = store.running(key) is not None if lease is None else not lease.held
    return [] if done is None or busy else store.leftovers(key, done.attempt)


def _temporaries(store: Store, keys: Sequence[str]) -> list[Path]:
    folders = [store.root, store.root / "roots", submitted.folder(store.root)]
    folders += [folder for key in keys for folder in (store.folder(key), *store.attempts(key))]
    found = [path for folder in folders for path in stale_temporaries(folder)]
    found += [path for path in store.root.glob("probe.*") if _old(path)]
    return found + [path for path in _in_trash(store) if _old(path)]  # of a gc that was killed


def _in_trash(store: Store) -> list[Path]:
    """What lies in the folder of what is being deleted, which may have been made into a link elsewhere."""
    trash = store.root / TRASH
    return list(trash.glob("*")) if below.is_real_folder(trash) else []


def _old(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - path.lstat().st_ctime > STALE_SECONDS  # a rename leaves the times of the content alone
    return False
