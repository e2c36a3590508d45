"""MLflow as a mirror of the store. Separate because nothing reads back from MLflow and a job needs no mlflow: jobs
append events to their own files, and the driver imports new ones into MLflow at any time. Only to a server may a job
send its own stage itself (stages.py, `follow`); a later sync finds the same run and adds nothing.

A suite has two experiments: `table1` with the suite, its rows and seeds (rows.py), `table1: stages` with its stages
(stages.py); docs/tracking.md has the layout. Every run has the tag `bench.key`; a second sync of the same files adds
nothing. A broken or missing tracker causes a notice and never stops a run. The drivers of one store exclude each other
(a lock file).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.key import digest
from bench.store.disk import read_bytes
from bench.tracking import views
from bench.tracking.migrate import bring_over
from bench.tracking.mirror import (
    OWN,
    Mirror,
    connect,
    experiment_id,
    half_migrated,
    notice,
    opened,
    tracker_errors,
    turn,
)
from bench.tracking.rows import TrackedRows, sync_rows
from bench.tracking.stages import NOTE, WHAT, TrackedStage, experiment_of, overall, sync_stage

REPORT = f"{OWN}report"
# A new database takes 3-7 s (feasibility of MLflow 3.17 on two busy cores); the wait for another host's is twice that.
TRIES, PAUSE_S = 3, 5.0
KIND = "mlflow.experimentKind"
ABOUT = "Rows and seeds of a suite. Its stages and their curves: experiment {stages}. Layout: docs/tracking.md."
ABOUT_STAGES = "Stages of suite {suite}; the curves are in those of kind train. Layout: docs/tracking.md."


@dataclass(frozen=True)
class SyncCount:
    """What a sync added: runs created, metric values logged; `notice`: the reason where it failed."""

    runs: int = 0
    values: int = 0
    notice: str | None = None


def prepare(store_root: Path, uri: str | None, experiment: str) -> str | None:
    """Create database, migrations and experiments before any job starts; returns a notice where that failed.

    Concurrent migrations of one sqlite break it ("duplicate column name"), hence here and locked. A new database is
    put there whole. Where two hosts share no lock (a file system without flock) and an old one is migrated, the slower
    one waits and finds it done.
    """
    said = None
    for tries in range(TRIES):
        try:
            with turn(store_root):
                client = connect(store_root, uri)
                for name in (experiment, experiment_of(experiment)):
                    experiment_id(client, store_root, uri, name)
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
    suite: str,
    stages: Sequence[TrackedStage],
    rows: TrackedRows,
    progress: Callable[[int], None] = lambda done: None,
) -> SyncCount:
    """Import what is new of stages and rows. Idempotent; never raises for a tracker that fails.

    Args:
        store_root: folder of the store.
        uri: tracking uri, None for the store's own sqlite.
        suite: its name, and that of its experiment.
        stages: all stages of the suite, begun or not; they determine the status of the suite's run.
        rows: the rows that have a record.
        progress: is told how many stages and rows are brought up to date; the first time takes some twenty
            milliseconds for each.
    """
    try:
        with turn(store_root):
            of_stages = opened(store_root, uri, experiment_of(suite), _source(suite))
            of_rows = opened(store_root, uri, suite, _source(suite))
            statuses = []
            for stage in stages:
                statuses.append(sync_stage(of_stages, stage))
                progress(len(statuses))
            sync_rows(of_rows, of_stages, rows, overall(statuses), lambda done: progress(len(stages) + done))
            _describe(of_rows, of_stages, suite, rows)
            bring_over(of_rows, of_stages, suite)
            return SyncCount(of_rows.created + of_stages.created, of_rows.logged + of_stages.logged)
    except ImportError as error:
        return SyncCount(notice=f"no MLflow ({error}): events stay in the store")
    except tracker_errors() as error:
        return SyncCount(notice=notice(error))


def sync_stages(store_root: Path, uri: str | None, suite: str, stages: Sequence[TrackedStage]) -> str | None:
    """Import what is new of some stages, while others work; a notice where the tracker fails."""
    try:
        with turn(store_root):
            keys = [stage.key for stage in stages]
            of_stages = opened(store_root, uri, experiment_of(suite), _source(suite), keys)
            for stage in stages:
                sync_stage(of_stages, stage)
            _describe_stages(of_stages, suite)
    except ImportError as error:
        return f"no MLflow ({error})"
    except tracker_errors() as error:
        return notice(error)
    return None


def attach(store_root: Path, uri: str | None, suite: str, files: Sequence[Path]) -> str | None:
    """Attach tables, figures and page to the suite's run, where they differ from those there.

    Returns:
        A notice where the tracker fails. A suite without a finished row has no run, and none is made.
    """
    try:
        with turn(store_root):
            key = f"suite/{suite}"
            mirror = opened(store_root, uri, suite, _source(suite), [key])
            run = mirror.find(key)
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


def _source(suite: str) -> str:
    """What is shown as the source of a suite's runs."""
    return f"{suite}.yaml"


def _describe(of_rows: Mirror, of_stages: Mirror, suite: str, rows: TrackedRows) -> None:
    """What the experiments are, and which columns their tables have."""
    _describe_stages(of_stages, suite)
    metrics = {name for row in rows.rows for name, value in row.record.metrics.items() if value is not None}
    metrics |= {name for found in rows.more.values() for name in found}
    about = {NOTE: ABOUT.format(stages=experiment_of(suite)), WHAT: "suite", KIND: "custom_model_development"}
    of_rows.describe(about | views.of_rows(metrics, of_rows.tags, time.time()) if rows.rows else about)


def _describe_stages(of_stages: Mirror, suite: str) -> None:
    about = {NOTE: ABOUT_STAGES.format(suite=suite), WHAT: "stages", KIND: "custom_model_development"}
    of_stages.describe(about | views.of_stages(of_stages.tags, time.time()))
