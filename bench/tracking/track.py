"""MLflow as a mirror of the store. Separate because nothing reads back from MLflow and a job needs no mlflow: jobs
append events to their own files, and the driver imports new ones into MLflow at any time. Only to a server may a job
send its own stage itself (`follow`); a later sync finds the same run and adds nothing.

Of an attempt's events (bench/store/events.py) it reads `start`, `metrics` (step, values) and `end` (status FINISHED,
FAILED or KILLED, error); others, as `progress`, are for the driver only.

In MLflow there is one run per stage; one run per suite, with tables and figures of its report, below it one per row
(mean and sd over seeds), below that one per seed. Every run has the tag `bench.key`; a second sync of the same files
adds nothing. A broken or missing tracker causes a notice and never stops a run. The drivers of one store exclude each
other (a lock file).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import cell_text, parsed
from bench.key import canonical, digest
from bench.record import PerClass, Record
from bench.stage import Stage
from bench.store.disk import read_bytes
from bench.store.events import read_events
from bench.store.store import Store
from bench.tracking.mirror import (
    FILED,
    Mirror,
    connect,
    experiment_id,
    half_migrated,
    is_served,
    legal,
    notice,
    tracker_errors,
    turn,
)
from bench.tracking.place import is_of_store

TEXT = 5000  # characters of a tag; a parameter may have 6000
READ, LINES, REPORT = "bench.read", "bench.lines", "bench.report"
WAITING = "WAITING"  # no status of MLflow: the stage has not begun
# A new database takes 3-7 s (feasibility of MLflow 3.17 on two busy cores); the wait for another host's is twice that.
TRIES, PAUSE_S = 3, 5.0
PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"


@dataclass(frozen=True)
class TrackedStage:
    """A stage, as input of the tracker.

    Attributes:
        key: its key; becomes the tag `bench.key`.
        kind: "train", "predict", ...
        label: its name for readers, e.g. the rows that need it.
        events: the attempts' events.jsonl, oldest attempt first; each lies in its attempt's folder.
        done: the stage is done in the store.
        alive: its lease has a live owner.
        failure: why the newest attempt failed, if recorded.
        params: settings to show, nested or flat.
        tags: facts to show that are known when it is done (seconds, host).
    """

    key: str
    kind: str
    label: str
    events: tuple[Path, ...]
    done: bool
    alive: bool
    failure: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def tracked(store: Store, stage: Stage, label: str) -> TrackedStage:
    """The present state of a stage in the store."""
    done, failure, attempts = store.done(stage.key), store.failure(stage.key), store.attempts(stage.key)
    newest = failure is not None and bool(attempts) and failure.attempt == int(attempts[-1].name)
    facts = {"seconds": f"{done.seconds:.1f}", "finished": done.finished, **done.environment} if done else {}
    return TrackedStage(
        key=stage.key,
        kind=stage.kind,
        label=label,
        events=tuple(folder / "events.jsonl" for folder in attempts),
        done=done is not None,
        alive=store.running(stage.key) is not None,
        failure=failure.error if failure and newest else None,
        params=stage.spec,
        tags={f"bench.{name}": str(value)[:TEXT] for name, value in facts.items()},
    )


@dataclass(frozen=True)
class TrackedRow:
    """One row and seed that has a record, and files to attach beside record.json and per_class.csv."""

    record: Record
    artifacts: tuple[Path, ...] = ()


@dataclass(frozen=True)
class SyncCount:
    """What a sync added: runs created, metric values logged; `notice`: the reason where it failed."""

    runs: int = 0
    values: int = 0
    notice: str | None = None


def prepare(store_root: Path, uri: str | None, experiment: str) -> str | None:
    """Create database, migrations and experiment before any job starts; returns a notice where that failed.

    Concurrent migrations of one sqlite break it ("duplicate column name"), hence here and locked. A new database is
    put there whole. Where two hosts share no lock (a file system without flock) and an old one is migrated, the slower
    one waits and finds it done.
    """
    said = None
    for tries in range(TRIES):
        try:
            with turn(store_root):
                client = connect(store_root, uri)
                experiment_id(client, store_root, uri, experiment)
                return None
        except ImportError as error:
            return f"no MLflow ({error}): events stay in the store; install mlflow and run again to import them"
        except half_migrated() as error:
            said = notice(error)
        except tracker_errors() as error:
            return notice(error)
        if tries + 1 < TRIES:
            time.sleep(PAUSE_S)
    return said


def sync(
    store_root: Path,
    uri: str | None,
    experiment: str,
    stages: Sequence[TrackedStage],
    rows: Sequence[TrackedRow],
    progress: Callable[[int], None] = lambda done: None,
) -> SyncCount:
    """Import what is new of stages and rows. Idempotent; never raises for a tracker that fails.

    Args:
        store_root: folder of the store.
        uri: tracking uri, None for the store's own sqlite.
        experiment: name of the MLflow experiment.
        stages: all stages of the suite, begun or not; they determine the status of the suite's run.
        rows: the rows that have a record.
        progress: is told how many stages and rows are brought up to date; the first time takes some twenty
            milliseconds for each.
    """
    try:
        with turn(store_root):
            client = connect(store_root, uri)
            number, own = experiment_id(client, store_root, uri, experiment), is_of_store(store_root, uri)
            mirror = Mirror(client, number, shared=is_served(uri), store_root=store_root if own else None)
            statuses = []
            for stage in stages:
                statuses.append(_sync_stage(mirror, stage))
                progress(len(statuses))
            _sync_rows(mirror, rows, _overall(statuses), lambda done: progress(len(stages) + done))
            return SyncCount(mirror.created, mirror.logged)
    except ImportError as error:
        return SyncCount(notice=f"no MLflow ({error}): events stay in the store")
    except tracker_errors() as error:
        return SyncCount(notice=notice(error))


def attach(store_root: Path, uri: str | None, experiment: str, suite: str, files: Sequence[Path]) -> str | None:
    """Attach tables and figures to the suite's run, where they differ from those there.

    Returns:
        A notice where the tracker fails. A suite without a finished row has no run, and none is made.
    """
    try:
        with turn(store_root):
            client = connect(store_root, uri)
            number, own = experiment_id(client, store_root, uri, experiment), is_of_store(store_root, uri)
            mirror = Mirror(client, number, f"suite/{suite}", store_root=store_root if own else None)
            run = mirror.find(f"suite/{suite}")
            contents = {file.name: read_bytes(file) for file in files}
            total = digest([[name, hashlib.sha256(content).hexdigest()] for name, content in contents.items()])
            if run is not None and run.data.tags.get(REPORT) != total:
                for name, content in contents.items():
                    mirror.file(run, f"report/{name}", content)
                mirror.write(run, tags={REPORT: total})
    except ImportError:
        pass  # `sync` has reported it
    except tracker_errors() as error:
        return notice(error)
    return None


def follow(store_root: Path, uri: str, experiment: str, stage: TrackedStage) -> None:
    """Send a job's own stage to a server while it works: the same run as `sync` finds or makes.

    Args:
        store_root: folder of the store.
        uri: of a server (`bench.tracking.mirror.is_served`): jobs leave databases to the driver.
        experiment: name of the MLflow experiment.
        stage: its present state.

    Raises:
        Exception: whatever a tracker that fails may raise.
    """
    with turn(store_root):
        client = connect(store_root, uri)
        mirror = Mirror(client, experiment_id(client, store_root, uri, experiment), stage.key, shared=True)
        _sync_stage(mirror, stage)


# ---- stages


def _sync_stage(mirror: Mirror, stage: TrackedStage) -> str:
    """Update one stage; returns its status, WAITING where it has not begun."""
    if not stage.events and not stage.done:
        return WAITING
    run = mirror.find(stage.key)
    read: dict[str, list[int]] = parsed(run.data.tags.get(READ, "{}")) if run else {}
    news = {path.parent.name: read_events(path, read.get(path.parent.name, [0, 0])[1]) for path in stage.events}
    events = [event for found, _ in news.values() for event in found if _is_event(event)]
    if run is None:
        start = float(events[0]["time"]) if events else time.time()
        tags = {"bench.kind": stage.kind, "bench.what": "stage"}
        run = mirror.create(stage.key, f"{stage.kind} {stage.label} {stage.key[:6]}", start, tags)
    curves = [event for event in events if event["event"] == "metrics"]
    for attempt, (found, end) in news.items():
        read[attempt] = [read.get(attempt, [0, 0])[0] + len(found), end]
    # Logged first, counted after: if a driver dies in between, the same values are logged again, which MLflow drops.
    counted = {READ: json.dumps(read), LINES: str(sum(lines for lines, _ in read.values()))}
    newest = {"bench.attempts": str(len(stage.events))}
    if run.data.tags.get("bench.attempts") != newest["bench.attempts"]:
        newest |= {
            "bench.ended": "",
            "bench.error": "",
        }  # a new attempt: reset the end of the one before
    newest |= _ends(list(news.values())[-1][0]) if news else {}
    newest |= {"bench.error": stage.failure[:TEXT]} if stage.failure else {}
    mirror.write(
        run,
        params={} if run.data.params else _flat(stage.params),
        values=[(n, v, e["time"], e["step"]) for e in curves for n, v in e["values"].items()],
        tags={**counted, **newest, **stage.tags},
    )
    status, when = _status(stage, {**run.data.tags, **newest})
    mirror.finish(run, status, when)
    return status


def _overall(statuses: Sequence[str]) -> str:
    """RUNNING while a stage runs; else the status of its worst stage; stages that will not begin: it was stopped."""
    found = set(statuses)
    if "RUNNING" in found:
        return "RUNNING"
    return "FAILED" if "FAILED" in found else "KILLED" if found & {"KILLED", WAITING} else "FINISHED"


def _is_event(event: Any) -> bool:
    if not isinstance(event, dict) or not isinstance(event.get("time"), int | float):
        return False
    if event.get("event") == "metrics":
        return "step" in event and isinstance(event.get("values"), dict)
    return event.get("event") in ("start", "end")


def _ends(events: Sequence[Any]) -> dict[str, str]:
    """The state of an attempt, kept as tags since a later sync does not read its lines again."""
    tags: dict[str, str] = {}
    for event in filter(_is_event, events):
        if event["event"] == "end":
            tags |= {"bench.ended": str(event.get("status", "")), "bench.error": str(event.get("error") or "")[:TEXT]}
        tags["bench.last"] = str(event["time"])
    return tags


def _status(stage: TrackedStage, tags: Mapping[str, str]) -> tuple[str, float]:
    """True status and its time. The store decides done and alive; a stage that is neither failed or was killed."""
    last = float(tags.get("bench.last", 0)) or time.time()
    if stage.done:
        return "FINISHED", last
    if stage.alive:
        return "RUNNING", last
    # An attempt that wrote FINISHED without a done stage was killed between the two.
    failed = stage.failure is not None or tags.get("bench.ended") == "FAILED"
    return ("FAILED" if failed else "KILLED"), last


# ---- rows


def _sync_rows(mirror: Mirror, rows: Sequence[TrackedRow], suite_status: str, progress: Callable[[int], None]) -> None:
    done = 0
    suites: dict[str, dict[str, list[TrackedRow]]] = {}
    for row in rows:
        record = row.record
        # Other settings under the same label are another experiment: another run.
        identity = f"{record.row}/{digest([record.method, record.settings])[:12]}"
        suites.setdefault(record.suite, {}).setdefault(identity, []).append(row)
    for suite, groups in suites.items():
        now = time.time()
        top = mirror.find(f"suite/{suite}") or mirror.create(f"suite/{suite}", suite, now, {"bench.what": "suite"})
        for identity, group in groups.items():
            record, key = group[0].record, f"suite/{suite}/{identity}"
            tags = {"bench.what": "row", PARENT: top.info.run_id} | _mark(record)
            params = {"method": record.method, **_flat(record.settings)}
            run = mirror.find(key) or mirror.create(key, record.row, now, tags)
            for row in group:
                _sync_seed(mirror, row, run.info.run_id, key)
                done += 1
                progress(done)
            means = _means(group)
            changed = {name: value for name, value in means.items() if run.data.metrics.get(name) != value}
            entries = [(name, value, now, len(group)) for name, value in changed.items()]
            mirror.write(run, params=params, values=entries)
            mirror.finish(run, "FINISHED", now)
        _summary(mirror, top, groups)
        mirror.finish(top, suite_status, now)


def _sync_seed(mirror: Mirror, row: TrackedRow, parent: str, parent_key: str) -> None:
    record = row.record
    content = record.model_dump(mode="json")
    key = f"{parent_key}/seed{record.seed}/{record.evaluate_key[:12]}"
    run = mirror.find(key)
    if run is None:
        tags = {"bench.what": "seed", PARENT: parent} | _mark(record)
        run = mirror.create(key, f"{record.row} seed {record.seed}", time.time(), tags)
    if FILED not in run.data.tags:
        now = time.time()
        protocol = {f"protocol.{name}": value for name, value in _flat(content["protocol"]).items()}
        mirror.file(run, "record.json", json.dumps(content, indent=2).encode())
        if record.per_class is not None:
            mirror.file(run, "per_class.csv", per_class_csv(record.per_class).encode())
        for path in row.artifacts:
            mirror.file(run, path.name, read_bytes(path))
        mirror.write(
            run,
            params={"method": record.method, "seed": record.seed, **_flat(record.settings), **protocol},
            values=[(name, value, now, 0) for name, value in record.metrics.items() if value is not None],
            tags={FILED: "yes"},
        )
    mirror.finish(run, "FINISHED", time.time())


def _mark(record: Record) -> dict[str, str]:
    """What its method wants to be said of it."""
    return {"bench.mark": record.mark} if record.mark else {}


def per_class_csv(per_class: PerClass) -> str:
    """One line per class: category id, name, training instances, AP and AP50 in points (empty: no ground truth)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = per_class.model_dump() | {"names": tuple(map(cell_text, per_class.names))}
    writer.writerow(columns)
    writer.writerows(["" if value is None else value for value in line] for line in zip(*columns.values(), strict=True))
    return out.getvalue()


def _means(group: Sequence[TrackedRow]) -> dict[str, float]:
    """metric -> mean, metric_sd -> sample sd (two seeds or more), metric_n -> seeds that have it."""
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for row in group for name in row.record.metrics):
        values = [v for row in group if (v := row.record.metrics.get(name)) is not None]
        if values:
            found[name], found[f"{name}_n"] = statistics.fmean(values), float(len(values))
        if len(values) > 1:
            found[f"{name}_sd"] = statistics.stdev(values)
    return found


def _summary(mirror: Mirror, top: Any, groups: Mapping[str, Sequence[TrackedRow]]) -> None:
    """The suite's run shows its table as a note and every row's mean AP and AP1 as metrics."""
    lines = ["| row | seeds | AP | AP1 |", "|---|---|---|---|"]
    metrics: dict[str, float] = {}
    for group in groups.values():
        means, label = _means(group), group[0].record.row
        shown = [f"{means[name]:.1f}" if name in means else "-" for name in ("AP", "AP1")]
        said = f" ({group[0].record.mark})" if group[0].record.mark else ""
        lines.append(f"| {label}{said} | {len(group)} | {shown[0]} | {shown[1]} |")
        metrics |= {f"{_one_word(label)}/{n}": v for n, v in means.items() if n in ("AP", "AP_sd", "AP1", "AP1_sd")}
    now = time.time()
    changed = {name: value for name, value in metrics.items() if top.data.metrics.get(name) != value}
    entries = [(name, value, now, 0) for name, value in changed.items()]
    mirror.write(top, values=entries, tags={NOTE: "\n".join(lines)[:TEXT]})


def _one_word(label: str) -> str:
    """A label as one part of a metric's path."""
    return legal(label).replace("/", "_").strip(". ") or "row"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names; lists stay whole."""
    value = canonical(value) if not prefix else value
    if not isinstance(value, Mapping) or not value:
        return {prefix: value} if prefix else {}
    dotted = {name: f"{prefix}.{name}" if prefix else str(name) for name in value}
    return {k: v for name, inner in value.items() for k, v in _flat(inner, dotted[name]).items()}
