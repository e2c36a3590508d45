"""What was submitted to a cluster: store/submitted/<job id>.json. Separate from the launcher because `run`, `status`,
`logs` and `stop` find queued jobs here without the driver that submitted them.

A file is no proof that a job is alive: its queue is queried for that, and the store for what is done. Nor is it proof
of who submitted it (see `is_own`). `name` is
the job's name in its queue and holds a random token: a later job with the same id has another name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bench.store import own
from bench.store.disk import make_folder, read_json, write_json

FOLDER = "submitted"
BEGUN = "begun"  # its subfolder: submissions whose ids are not known yet


@dataclass(frozen=True)
class Submitted:
    """One job.

    Attributes:
        id: as its queue shows it, e.g. 4711 or 4711_3.
        name: its name in that queue, with a token that no other submission has.
        suite: the suite file that it was submitted for.
        units: the keys that it makes, see bench.plan.JobPlan.
        time: seconds since the epoch, by the driver's clock.
        host: where the driver ran.
        log: file with what the job printed on stderr; stdout lies beside it as .out.
        report: file with how its stages ended, once it has ended by itself.
        after: ids of the jobs it waits for.
        asked: resources, see bench.suite.clusters.Resources.
        snapshot: folder of the code that it runs.
        ended: how it ended, once a driver has seen that; "" while it may be alive.
        cluster: the file of its cluster, absolute.
        kind: of the launcher, see bench/launchers.py. Files without it are from when there was one kind of queue.
    """

    id: str
    name: str
    suite: str
    units: tuple[tuple[str, ...], ...]
    time: float
    host: str
    log: str
    report: str
    after: tuple[str, ...] = ()
    asked: Mapping[str, Any] = field(default_factory=dict)
    snapshot: str = ""
    ended: str = ""
    cluster: str = ""
    kind: str = "slurm"

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for unit in self.units for key in unit)


def by_kind(jobs: Iterable[Submitted]) -> dict[str, list[Submitted]]:
    """Jobs by the kind of queue that they are in."""
    found: dict[str, list[Submitted]] = {}
    for job in jobs:
        found.setdefault(job.kind, []).append(job)
    return found


def folder(root: Path) -> Path:
    """The folder of a store's files."""
    return root / FOLDER


def write(root: Path, job: Submitted) -> None:
    """Record a job of this user.

    Raises:
        UserError: the disk refuses it.
    """
    own.note_job(job.name, job.id)
    _write(root, job)


def is_own(job: Submitted) -> bool:
    """Whether this user has submitted it. Its file lies in the store, where others may have written it: only such jobs
    are cancelled, and only their files are removed."""
    return own.is_own(job.name, job.id)


def _write(root: Path, job: Submitted) -> None:
    make_folder(folder(root))
    write_json(folder(root) / f"{job.id}.json", asdict(job))


def begin(root: Path, jobs: Sequence[Submitted]) -> Path:
    """Record jobs that are about to be submitted under one name, without ids, in the order of their array: if the
    driver is killed now, the next one finds them by their name. Returns the file, to be removed afterwards.

    Raises:
        UserError: it cannot be written.
    """
    own.note_submission(jobs[0].name, jobs[0].log)
    path = folder(root) / BEGUN / f"{jobs[0].name}.json"
    make_folder(path.parent)
    write_json(path, [asdict(job) for job in jobs])
    return path


def begun(root: Path) -> dict[Path, list[Submitted]]:
    """What `begin` has recorded and no driver has completed, by file."""
    found = {path: read_json(path) for path in (folder(root) / BEGUN).glob("*.json")}
    jobs = {path: [_parsed(job) for job in value] for path, value in found.items() if isinstance(value, list)}
    return {path: [job for job in known if job is not None] for path, known in jobs.items() if all(known)}


def end(root: Path, job: Submitted, status: str) -> None:
    """Record that a job has ended, unless its id belongs to another one now."""
    known = read(root, job.id)
    if known is not None and known.name == job.name and not known.ended:
        _write(root, replace(job, ended=status))


def read(root: Path, job_id: str) -> Submitted | None:
    """The record of one job; None without one."""
    return _parsed(read_json(folder(root) / f"{job_id}.json"))


def _parsed(found: object) -> Submitted | None:
    if not isinstance(found, dict):
        return None
    names = {f.name for f in fields(Submitted)}
    values = {name: value for name, value in found.items() if name in names}
    with contextlib.suppress(TypeError, KeyError):
        values["units"] = tuple(tuple(unit) for unit in values["units"])
        values["after"] = tuple(values.get("after", ()))
        return Submitted(**values)
    return None


def of(root: Path, keys: Collection[str], *, ended: bool = False) -> list[Submitted]:
    """The jobs that make some of these stages, oldest first. `ended`: those too that are known to have ended."""
    wanted = set(keys)
    paths = folder(root).glob("*.json")
    found = [job for path in paths if (job := read(root, path.stem)) is not None]
    mine = [job for job in found if wanted.intersection(job.keys) and (ended or not job.ended)]
    return sorted(mine, key=lambda job: (job.time, job.id))
