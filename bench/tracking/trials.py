"""A search in MLflow: one run, its trials nested below it. Separate from track.py, which mirrors stages and rows: a
trial is neither, and what is known of it comes from the search, not from the store.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.tracking.mirror import Mirror, notice, opened, tracker_errors, turn
from bench.tracking.rows import PARENT
from bench.tracking.stages import NOTE, WHAT

# MLflow has no state for a trial that ended early; the tag `optuna.state` has Optuna's own.
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "running": "RUNNING"}
STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "running": "RUNNING"}


@dataclass(frozen=True)
class TrackedTrial:
    """One trial, as input of the tracker.

    Attributes:
        number: Optuna's.
        state: complete, pruned, failed or running.
        params: its settings.
        values: objective -> value, with the name of the split: "tune AP".
        rungs: step -> the first objective there.
        why: it failed.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    values: Mapping[str, float] = field(default_factory=dict)
    rungs: Mapping[int, float] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class TrackedSearch:
    """A search, as input of the tracker.

    Attributes:
        name: of the study.
        objective: the first, which rungs are measured by.
        params: what is searched, and how.
        trials: all of them.
        ended: whether its budget is spent.
        note: shown on its page.
        tags: of the search and each trial.
    """

    name: str
    objective: str
    params: Mapping[str, Any]
    trials: Sequence[TrackedTrial]
    ended: bool
    note: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


def sync(store_root: Path, uri: str | None, experiment: str, search: TrackedSearch) -> str | None:
    """Bring a search and its trials into MLflow, as far as they are not there; a notice where the tracker fails."""
    try:
        with turn(store_root):
            mirror = opened(store_root, uri, experiment, f"{experiment}.yaml")
            _write(mirror, search)
    except ImportError:
        return None  # `track.prepare` has said so
    except tracker_errors() as error:
        return notice(error)
    return None


def _write(mirror: Mirror, search: TrackedSearch) -> None:
    key, now = f"search/{search.name}", time.time()
    top = mirror.find(key) or mirror.create(key, search.name, now, {WHAT: "search", **search.tags})
    ended = {state: sum(trial.state == state for trial in search.trials) for state in ("complete", "pruned", "failed")}
    changed = {name: float(value) for name, value in ended.items() if top.data.metrics.get(name) != value}
    mirror.write(
        top, params=search.params, values=[(name, value, now, 0) for name, value in changed.items()],
        tags={NOTE: search.note} if search.note else {},
    )  # fmt: skip
    for trial in search.trials:
        _write_trial(mirror, search, trial, top.info.run_id, now)
    mirror.finish(top, "FINISHED" if search.ended else "RUNNING", now)


def _write_trial(mirror: Mirror, search: TrackedSearch, trial: TrackedTrial, parent: str, now: float) -> None:
    key = f"search/{search.name}/{trial.number}"
    run = mirror.find(key)
    if run is not None and run.data.tags.get("optuna.state") == STATES[trial.state] != "RUNNING":
        return
    if run is None:
        tags = {WHAT: "trial", PARENT: parent, "optuna.number": str(trial.number), **search.tags}
        run = mirror.create(key, f"trial {trial.number}", now, tags)
    curve = [(f"rung {search.objective}", value, now, step) for step, value in sorted(trial.rungs.items())]
    tags = {"optuna.state": STATES[trial.state]} | ({"bench.error": trial.why[:5000]} if trial.why else {})
    values = [(name, value, now, 0) for name, value in trial.values.items()]
    mirror.write(run, params=trial.params, values=[*curve, *values], tags=tags)
    mirror.finish(run, STATUS[trial.state], now)
