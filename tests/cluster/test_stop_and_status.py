"""`status`, `logs`, `stop` and `retry` of jobs in a real Slurm, with and without their driver. Nothing starts here."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from bench.cli import logs
from bench.cli import overview as overviews
from bench.cli import stop as control
from bench.cli.standing import StatusTable
from bench.launch import requests as orders
from bench.launch import submitted
from bench.launch.loop import Progress
from bench.launch.requests import Requests
from bench.launch.submitted import Submitted
from bench.store.store import Store
from tests.cluster.conftest import HOLD, Planned, Queue, drive
from tests.cluster.slurm_up import Slurm
from tests.planned import model
from tests.tiny_suite import wait_for

pytestmark = pytest.mark.slow


def test_without_a_driver(
    slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was detached is seen to be queued, its job is named, and `stop` takes it out of the queue."""
    plan, store = planned(), Store(tmp_path / "store")
    drive(plan, store.root, HOLD, detach=True)
    key = model(plan, "baseline").key
    job = submitted.of(store.root, [key])[0].id
    board = StatusTable(overviews.compare(plan, store, None))
    assert set(board.states.values()) == {"queued"}
    assert (board.of(key).job, board.of(key).error.split(":")[0]) == (job, "pending")
    logs.show(plan, store, key, Console(width=200))
    assert f"submitted as job {job}" in capsys.readouterr().out

    report = control.stop(plan, store, list(plan.stages))
    assert {note.id for note in report.cancelled} == set(queue())
    assert set(queue().values()) == {"CANCELLED"}
    assert set(StatusTable(overviews.compare(plan, store, None)).states.values()) == {"missing"}


def test_a_driver_that_watches_ends_as_if_interrupted(
    slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path
) -> None:
    """It submits nothing of it again, and nothing counts as failed."""
    plan, store = planned(), Store(tmp_path / "store")
    turns = []

    def show(progress: Progress) -> None:
        turns.append(len(progress.running))
        if turns.count(turns[-1]) == 2 and progress.running:
            control.stop(plan, store, list(plan.stages))

    ended = drive(plan, store.root, HOLD, show=show)
    assert (ended.failed, ended.code) == ({}, 130)
    assert set(queue().values()) == {"CANCELLED"}


def test_a_driver_that_has_only_begun_is_asked_too(
    slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path
) -> None:
    """It reads what was asked since its command began, and finds jobs that are about to go."""
    plan, store = planned(), Store(tmp_path / "store")
    drive(plan, store.root, detach=True)
    wait_for(lambda: "RUNNING" in queue().values(), "a job that runs")
    began = Requests(store.root)
    orders.request(store.root, "stop", list(plan.stages))
    ended = drive(plan, store.root, requests=began)
    assert (ended.failed, ended.code) == ({}, 130)


def test_of_a_cancelled_job_one_stage_is_named(slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path) -> None:
    """The one that was at work, not what waited for it in the same job."""
    plan, store = planned("", "schedule.steps=4000", "seeds=[0]"), Store(tmp_path / "store")
    key = model(plan, "baseline").key
    hit: list[str] = []

    def cancel(progress: Progress) -> None:
        if not hit and store.running(key) and list(store.folder(key).glob("attempts/*/checkpoint-*")):
            hit.append(next(handle.id for handle in progress.running if key in handle.job.keys))
            slurm.command("scancel", hit[0])

    ended = drive(plan, store.root, show=cancel)
    assert {key: outcome.message.splitlines()[0] for key, outcome in ended.failed.items()} == {key: "it was cancelled"}
    assert ended.code == 1


def test_a_note_whose_id_belongs_to_somebody_else(slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path) -> None:
    """Ids come again: a job of another name is not ours to cancel."""
    plan, store = planned(), Store(tmp_path / "store")
    other = slurm.command("sbatch", "--hold", "--parsable", "--job-name=theirs", "--wrap=true").strip()
    key = model(plan, "baseline").key
    submitted.write(store.root, Submitted(other, "ours-00", "s", ((key,),), 0.0, "h", "/l", "/r"))
    assert StatusTable(overviews.compare(plan, store, None)).states[key] == "missing"
    assert control.stop(plan, store, [key]).cancelled == []
    assert queue() == {other: "PENDING"}
