"""The store: one folder per key, the only record of what has been done; shared by jobs, planner and reports.

    <root>/<key>/stage.json              what it computes
                 lease.<n>               who works on it (bench/store/lease.py)
                 attempts/<n>/           events.jsonl, checkpoints, failed.json, outputs.tmp -> outputs
                 done                    names the winning attempt and the digests of its outputs
    <root>/roots/<name>.json             which suite needs which keys

`done` is written last and by one attempt alone. Half-written or inconsistent files are treated as missing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.stage import Stage
from bench.store import below, roots
from bench.store.disk import (
    create_exclusive,
    disk_errors,
    make_folder,
    read_bytes,
    read_json,
    remove,
    rename,
    sweep_temporaries,
    sync_files,
    sync_folder,
    write_atomic,
    write_json,
)
from bench.store.done import Done, digests_of, format_done, holds, names_of, now, outputs_of, read_done, size_of
from bench.store.events import Events
from bench.store.form import is_key, is_number, is_stage
from bench.store.lease import BEAT_SECONDS, Lease, LeaseInfo, Observer, acquire
from bench.store.roots import Root, TableRow


@dataclass(frozen=True)
class Attempt:
    """One try at a stage. Write results below `outputs` (outputs.tmp until `finish`), anything else below `folder`.

    `lease`: None in a process whose job's first process holds the lease.
    """

    key: str
    number: int
    folder: Path
    lease: Lease | None

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs.tmp"

    @cached_property
    def events(self) -> Events:
        return Events(self.folder / "events.jsonl")


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed, and when (ISO time, UTC)."""

    attempt: int
    error: str
    time: str


class Store:
    """The folder where stages live.

    Args:
        root: the folder; made when first written to.
        clock: monotonic seconds, to watch leases of other hosts with.
        beat: seconds between two heartbeats of this process's leases.

    Raises:
        UserError: `root` is not a folder. Every method that writes raises it for a full or read-only disk.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.monotonic, beat: float = BEAT_SECONDS) -> None:
        self.root = Path(root)
        below.guard(self.root)
        self._beat = beat
        self._observer = Observer(clock)
        self._cache: dict[str, tuple[tuple[int, int, int], Done | None]] = {}
        with disk_errors(self.root):
            there = next(path for path in (self.root, *self.root.parents) if path.exists())
        if not there.is_dir():
            raise UserError("the store must be a folder, but this is a file", where=str(there))

    def check_writable(self) -> None:
        """Refuse early: raise the UserError that the first write would raise."""
        make_folder(self.root)
        probe = self.root / f"probe.{os.getpid()}"
        write_atomic(probe, b"x" * 4096)
        remove(probe)

    # -- what stages there are

    def folder(self, key: str) -> Path:
        """The folder of a key, there or not."""
        if not is_key(key):
            raise UserError(f"'{str(key)[:80]}' is not the key of a stage", where=str(self.root))
        return self.root / key

    def add(self, stage: Stage) -> None:
        """Write a key's stage.json. Idempotent; `aside` (paths, threads) is updated."""
        path = self.folder(stage.key) / "stage.json"
        value = stage.to_json()
        if read_json(path) != value:
            make_folder(path.parent)
            write_json(path, value)

    def load(self, key: str) -> dict[str, Any]:
        """`Stage.to_json()` of a key.

        Raises:
            UserError: missing or corrupt.
        """
        path = self.folder(key) / "stage.json"
        value = read_json(path)
        if not isinstance(value, dict) or value.get("key") != key or not is_stage(value):
            what = "stage.json is corrupt" if path.exists() else f"no stage {key[:12]} in this store"
            raise UserError(what, where=str(path), hint="run the suite again: it writes its stages anew")
        return value

    def keys(self) -> list[str]:
        """All keys that were added, sorted."""
        found = (path.parent for path in self.root.glob("*/stage.json"))
        return sorted(folder.name for folder in found if is_key(folder.name) and not folder.is_symlink())

    def register_root(
        self, name: str, suite_path: Path | str, keys: Iterable[str], rows: Mapping[str, str] | None = None,
        table: Iterable[TableRow] | None = None,
    ) -> None:  # fmt: skip
        """Record that a suite needs these keys, before they are added and before `done` is read: for `gc`. Two
        suite files of one name are kept apart. `rows`, `table`: see `Root`."""
        roots.register(self.root, name, str(suite_path), tuple(keys), rows or {}, table)

    def roots(self) -> list[Root]:
        """All suites that were registered.

        Raises:
            UserError: a file below roots/ cannot be read as one: its keys are not known. Or roots/ is a link.
        """
        if (self.root / roots.FOLDER).is_symlink():
            raise below.refused(self.root / roots.FOLDER)
        return [roots.read(path) for path in sorted((self.root / roots.FOLDER).glob("*.json"))]

    # -- what is done

    def done(self, key: str) -> Done | None:
        """The record of a finished stage, or None. Cheap: reads `done` once per change, and checks sizes only.

        A corrupt `done`, or an output that is missing or of another size, is not done.
        """
        folder = self.folder(key)
        path = f"{folder}/done"
        try:
            stat = os.lstat(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:  # a link that leads to itself: whoever makes the stage is told
                return None
            with disk_errors(folder):
                raise error from None
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if key not in self._cache or self._cache[key][0] != stamp:
            self._cache[key] = (stamp, read_done(path))
        done = self._cache[key][1]
        return done if done is not None and holds(folder, done) else None

    def verify(self, key: str) -> bool:
        """Whether the stage is done and every output still has its digest. Reads all of it."""
        done = self.done(key)
        return done is not None and digests_of(outputs_of(self.folder(key), done.attempt)) == done.digests

    def read(self, key: str, name: str) -> bytes:
        """The content of an output of a finished stage, as it was written.

        Raises:
            UserError: not done, or the file was changed since.
        """
        path = self.output(key) / name
        with disk_errors(path):
            content = read_bytes(path)
        done = self.done(key)
        if done is None or done.digests.get(name) != hashlib.sha256(content).hexdigest():
            hint = "run the suite again: what was changed is made anew"
            raise UserError("the file is not what was written: its sha256 differs", where=str(path), hint=hint)
        return content

    def output(self, key: str) -> Path:
        """The folder of a finished stage's outputs.

        Raises:
            UserError: not done.
        """
        done = self.done(key)
        if done is None:
            hint = "run the suite that needs it"
            raise UserError(f"stage {key[:12]} is not done", where=str(self.folder(key)), hint=hint)
        return outputs_of(self.folder(key), done.attempt)

    def failure(self, key: str) -> Failure | None:
        """The latest failure since the stage was last done; None for a stage that is done."""
        attempts = self.attempts(key)
        if not attempts or self.done(key) is not None:
            return None
        for folder in reversed(attempts):
            if (folder / "discarded").exists():
                return None
            found = read_json(folder / "failed.json")
            if isinstance(found, dict):
                return Failure(int(folder.name), str(found.get("error")), str(found.get("time")))
        return None

    def attempts(self, key: str) -> list[Path]:
        """Folders of all attempts, newest last; a link is none."""
        folder = self.folder(key) / "attempts"
        try:
            names = filter(is_number, os.listdir(folder) if below.is_real_folder(folder) else [])
        except FileNotFoundError:
            return []
        found = (folder / name for name in sorted(names, key=int))
        return [path for path in found if below.is_real_folder(path)]

    def saved(self, key: str) -> int:
        """The step of the newest checkpoint of a stage (bench/run/checkpoint.py); 0 without one."""
        names = [path.stem for folder in self.attempts(key) for path in folder.glob("checkpoint-*.safetensors")]
        return max((int(name.split("-")[1]) for name in names if is_number(name.split("-")[1])), default=0)

    # -- work

    def running(self, key: str) -> LeaseInfo | None:
        """The live owner of a stage, or None."""
        return self._observer.live(self.folder(key))

    def watch(self, key: str, stop: Callable[[], bool] = lambda: False) -> LeaseInfo | None:
        """`running`, made certain by waiting where the owner is on another host: see `Observer.watch`."""
        return self._observer.watch(self.folder(key), stop)

    def release_dead_lease(self, key: str) -> None:
        """Release the lease of an owner on another host that was watched until it was found dead."""
        self._observer.release_dead(self.folder(key))

    def acquire(self, key: str) -> Lease | None:
        """Take the lease without waiting; None where a live owner holds it. Read `done` again once you hold it."""
        return acquire(self.folder(key), self._observer, self._beat)

    def begin(self, key: str, lease: Lease) -> Attempt:
        """Open a new attempt under a lease."""
        folder = self.folder(key)
        assert lease.folder == folder, f"lease of {lease.folder} used for {folder}"
        make_folder(folder / "attempts")
        number = max((int(path.name) for path in self.attempts(key)), default=0) + 1
        with disk_errors(folder):
            while True:
                try:
                    below.make(folder / "attempts" / str(number))
                    break
                except FileExistsError:  # by a process that has lost its lease without noticing yet
                    number += 1
            attempt = Attempt(key, number, folder / "attempts" / str(number), lease)
            below.make(attempt.outputs)
        for stale in (folder, *self.attempts(key)):
            sweep_temporaries(stale)
        return attempt

    def finish(
        self,
        attempt: Attempt,
        *,
        inputs: Mapping[str, str],
        seconds: float,
        environment: Mapping[str, Any],
        extra: Mapping[str, Any],
        finished: str = "",
    ) -> bool:
        """Turn the attempt's outputs into the stage's: sync, rename, hash, and `done` last.

        `finished`: when it was made (ISO time, UTC), where that was in another store; else now.

        Returns:
            True if this attempt won; False if another one had won (its outputs count, these are removed).

        Raises:
            UserError: it cannot be written; the stage stays not done.
        """
        folder = self.folder(attempt.key)
        outputs = outputs_of(folder, attempt.number)
        with disk_errors(attempt.folder):
            try:
                sync_files(attempt.outputs)
                rename(attempt.outputs, outputs)
                sync_folder(attempt.folder)
                digests = digests_of(outputs)
            except FileNotFoundError:
                if self.done(attempt.key) is not None:  # the winner has removed this attempt's files
                    return False
                raise
            done = Done(
                attempt=attempt.number,
                digests=digests,
                inputs=dict(inputs),
                seconds=seconds,
                finished=finished or now(),
                environment=dict(environment),
                extra=dict(extra),
                sizes={name: size_of(outputs / name) or 0 for name in names_of(outputs)},
            )
            while not create_exclusive(folder / "done", format_done(done)):
                if self.done(attempt.key) is not None:
                    remove(outputs)
                    return False
                self._move_broken_done(attempt.key)
        self._tidy(attempt.key, attempt.number)
        return True

    def fail(self, attempt: Attempt, error: str) -> None:
        """Record why an attempt failed. Does not release the lease."""
        write_json(attempt.folder / "failed.json", {"error": error, "time": now()})

    def clear_failures(self, key: str) -> None:
        """Clear the failures of all attempts; their files are kept as failed.forgiven.json."""
        for folder in self.attempts(key):
            with contextlib.suppress(FileNotFoundError), disk_errors(folder):
                rename(folder / "failed.json", folder / "failed.forgiven.json")

    def discard(self, key: str, stale: Done | None = None, lease: Lease | None = None) -> bool:
        """Make a stage not done (it is corrupt, or its inputs changed); its outputs are kept as outputs.discarded.

        Args:
            key: the stage.
            stale: discard only if the stage is still done by this attempt (it may have been redone meanwhile).
            lease: the caller's own lease on the stage; without one it is taken, and released, here.

        Returns:
            False, with nothing changed, where a live owner works on it or `stale` has been replaced.
        """
        if lease is not None:
            return lease.held and self._discard(key, stale)
        lease = self.acquire(key)
        if lease is None:
            return False
        with lease:
            return self._discard(key, stale)

    def _discard(self, key: str, stale: Done | None) -> bool:
        done = self.done(key)
        if stale is not None and done is not None and done.attempt != stale.attempt:
            return False
        if done is None:
            return True
        with disk_errors(self.folder(key)):
            attempt = self.folder(key) / "attempts" / str(done.attempt)
            rename(self.folder(key) / "done", attempt / "discarded")
            rename(attempt / "outputs", attempt / "outputs.discarded")
            sync_folder(self.folder(key))
        return True

    def _move_broken_done(self, key: str) -> None:
        path = self.folder(key) / "done"
        if not os.path.lexists(path) or self.done(key) is not None:
            return
        aside = path.with_name(f"done.broken-{time.time_ns()}")
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            rename(path, aside)
            # Two processes may do this at once: the slower one may have moved the faster one's good file.
            moved = read_done(aside)
            if moved is not None and holds(path.parent, moved):
                os.link(aside, path, follow_symlinks=False)

    def leftovers(self, key: str, winner: int) -> list[Path]:
        """Files that a stage done by its attempt `winner` does not need: checkpoints, partial and discarded outputs."""
        found: list[Path] = []
        for folder in self.attempts(key):
            names = ("outputs.tmp", "outputs.discarded", "outputs") if int(folder.name) != winner else ()
            found += [*folder.glob("checkpoint-*"), *(folder / name for name in names if (folder / name).exists())]
        return found

    def _tidy(self, key: str, winner: int) -> None:
        """Remove a done stage's checkpoints, partial outputs and temporary files."""
        for path in self.leftovers(key, winner):
            remove(path)
        sweep_temporaries(self.folder(key))
