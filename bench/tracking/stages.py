"""A stage as a run of MLflow, in an experiment of its own beside the suite's: settings, curves, status. Separate from
rows.py, whose runs are results, and from track.py, which opens MLflow; jobs need no more than this.

Of an attempt's events (bench/store/events.py) it reads `start`, `metrics` (step, values) and `end` (status FINISHED,
FAILED or KILLED, error); others, as `progress`, are for the driver only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import parsed
from bench.key import canonical
from bench.stage import Stage
from bench.store.events import read_events
from bench.store.store import Store
from bench.tracking.mirror import COMMIT, OWN, Mirror, opened, turn

TEXT = 5000  # characters of a tag; a parameter may have 6000
READ, LINES, LAST, ENDED = f"{OWN}read", f"{OWN}lines", f"{OWN}last", f"{OWN}ended"
WHAT, ATTEMPTS, ERROR = "bench.what", "bench.attempts", "bench.error"
NOTE = "mlflow.note.content"
WAITING = "WAITING"  # no status of MLflow: the stage has not begun


def experiment_of(suite: str) -> str:
    """Name of the experiment of a suite's stages; the suite's own has rows and seeds."""
    return f"{suite}: stages"


@dataclass(frozen=True)
class Whose:
    """What a stage is made for, as readers look for it.

    Attributes:
        name: of its run, e.g. "train baseline +5 seed 0".
        rows: labels of the rows that need it, in the table's order.
        method: of the first of them.
        seeds: of these rows.
    """

    name: str
    rows: tuple[str, ...] = ()
    method: str = ""
    seeds: tuple[int, ...] = ()

    @property
    def tags(self) -> dict[str, str]:
        """row: the first; rows: all; seed: "0", or "0, 1" of one that seeds share."""
        found = {"row": self.rows[0] if self.rows else "", "rows": ", ".join(self.rows), "method": self.method}
        found["seed"] = ", ".join(map(str, self.seeds))
        return {name: value[:TEXT] for name, value in found.items() if value}


@dataclass(frozen=True)
class TrackedStage:
    """A stage, as input of the tracker.

    Attributes:
        key: its key; becomes the tag `bench.key`.
        kind: "train", "predict", ...
        whose: what it is made for.
        events: the attempts' events.jsonl, oldest attempt first; each lies in its attempt's folder.
        done: the stage is done in the store.
        alive: its lease has a live owner.
        failure: why the newest attempt failed, if recorded.
        params: settings to show, nested or flat.
        tags: facts to show that are known when it is done (seconds, host).
    """

    key: str
    kind: str
    whose: Whose
    events: tuple[Path, ...]
    done: bool
    alive: bool
    failure: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def tracked(store: Store, stage: Stage, whose: Whose) -> TrackedStage:
    """The present state of a stage in the store."""
    done, failure, attempts = store.done(stage.key), store.failure(stage.key), store.attempts(stage.key)
    newest = failure is not None and bool(attempts) and failure.attempt == int(attempts[-1].name)
    facts = {"seconds": f"{done.seconds:.1f}", "finished": done.finished, **done.environment} if done else {}
    return TrackedStage(
        key=stage.key,
        kind=stage.kind,
        whose=whose,
        events=tuple(folder / "events.jsonl" for folder in attempts),
        done=done is not None,
        alive=store.running(stage.key) is not None,
        failure=failure.error if failure and newest else None,
        params=stage.spec,
        tags={f"bench.{name}": str(value)[:TEXT] for name, value in facts.items()} | _commit(facts),
    )


def _commit(facts: Mapping[str, Any]) -> dict[str, str]:
    """The commit where MLflow's pages show one: column Version."""
    return {COMMIT: str(facts["commit"])} if facts.get("commit") else {}


def follow(store_root: Path, uri: str, suite: str, stage: TrackedStage) -> None:
    """Send a job's own stage to a server while it works: the same run as a sync finds or makes.

    Args:
        store_root: folder of the store.
        uri: of a server (`bench.tracking.mirror.is_served`): jobs leave databases to the driver.
        suite: its name.
        stage: its present state.

    Raises:
        Exception: whatever a tracker that fails may raise.
    """
    with turn(store_root):
        sync_stage(opened(store_root, uri, experiment_of(suite), suite, [stage.key]), stage)


def sync_stage(mirror: Mirror, stage: TrackedStage) -> str:
    """Update one stage; returns its status, WAITING where it has not begun."""
    if not stage.events and not stage.done:
        return WAITING
    run = mirror.find(stage.key)
    read: dict[str, list[int]] = parsed(run.data.tags.get(READ, "{}")) if run else {}
    news = {path.parent.name: read_events(path, read.get(path.parent.name, [0, 0])[1]) for path in stage.events}
    events = [event for found, _ in news.values() for event in found if _is_event(event)]
    if run is None:
        start = float(events[0]["time"]) if events else time.time()
        run = mirror.create(stage.key, stage.whose.name, start, {WHAT: "stage", "stage": stage.kind})
    curves = [event for event in events if event["event"] == "metrics"]
    for attempt, (found, end) in news.items():
        read[attempt] = [read.get(attempt, [0, 0])[0] + len(found), end]
    # Logged first, counted after: if a driver dies in between, the same values are logged again, which MLflow drops.
    counted = {READ: json.dumps(read), LINES: str(sum(lines for lines, _ in read.values()))}
    newest = {ATTEMPTS: str(len(stage.events))}
    if run.data.tags.get(ATTEMPTS) != newest[ATTEMPTS]:
        newest |= {ENDED: "", ERROR: ""}  # a new attempt: reset the end of the one before
    newest |= _ends(list(news.values())[-1][0]) if news else {}
    newest |= {ERROR: stage.failure[:TEXT]} if stage.failure else {}
    mirror.write(
        run,
        params={} if run.data.params else flat(stage.params),
        values=[(n, v, e["time"], e["step"]) for e in curves for n, v in e["values"].items()],
        tags={**counted, **newest, **stage.tags, **stage.whose.tags},
    )
    status, when = _status(stage, {**run.data.tags, **newest})
    mirror.finish(run, status, when)
    return status


def overall(statuses: Sequence[str]) -> str:
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
            tags |= {ENDED: str(event.get("status", "")), ERROR: str(event.get("error") or "")[:TEXT]}
        tags[LAST] = str(event["time"])
    return tags


def _status(stage: TrackedStage, tags: Mapping[str, str]) -> tuple[str, float]:
    """True status and its time. The store decides done and alive; a stage that is neither failed or was killed."""
    last = float(tags.get(LAST, 0)) or time.time()
    if stage.done:
        return "FINISHED", last
    if stage.alive:
        return "RUNNING", last
    # An attempt that wrote FINISHED without a done stage was killed between the two.
    failed = stage.failure is not None or tags.get(ENDED) == "FAILED"
    return ("FAILED" if failed else "KILLED"), last


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names; lists stay whole."""
    value = canonical(value) if not prefix else value
    if not isinstance(value, Mapping) or not value:
        return {prefix: value} if prefix else {}
    dotted = {name: f"{prefix}.{name}" if prefix else str(name) for name in value}
    return {k: v for name, inner in value.items() for k, v in flat(inner, dotted[name]).items()}
