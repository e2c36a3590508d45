"""What a job knows of Slurm without one: its id, its pauses, and that it leaves other people's allocations alone."""

from __future__ import annotations

import signal

import pytest

from bench.launch.slurm.requeue import LONGEST_PAUSE_S, SlurmRequeue, job_id, restart_count


@pytest.fixture(autouse=True)
def _no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


def test_pauses_double_up_to_an_hour() -> None:
    limits = SlurmRequeue(20, 30.0)
    assert [limits.pause(n) for n in range(4)] == [30.0, 60.0, 120.0, 240.0]
    assert limits.pause(19) == limits.pause(10_000) == LONGEST_PAUSE_S
    assert SlurmRequeue(3).pause(2) == 0.0


def test_a_task_of_an_array_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """The raw id of an array's last task is the id of the whole array: `scontrol requeue` would take all of it."""
    assert job_id() is None
    monkeypatch.setenv("SLURM_JOB_ID", "70")
    assert job_id() == "70"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    assert job_id() == "70_4"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert restart_count() == 2


def test_outside_slurm_nothing_is_requeued() -> None:
    assert not SlurmRequeue(3).time_is_up([signal.SIGUSR2])
    assert SlurmRequeue(3).put_back(further=False) == "not a Slurm job"


def test_who_cannot_be_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """Without scontrol USR2 alone tells that the time is up; TERM may be a person's, and Ctrl-C is."""
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert SlurmRequeue(3).time_is_up([signal.SIGUSR2])
    assert not SlurmRequeue(3).time_is_up([signal.SIGTERM])
    assert not SlurmRequeue(3).time_is_up([signal.SIGUSR2, signal.SIGINT])
    assert not SlurmRequeue(3).time_is_up([signal.SIGHUP])
    assert "scontrol requeue" in str(SlurmRequeue(3).put_back(further=False))
