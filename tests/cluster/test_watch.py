"""What Slurm says of real jobs, and what it means: pending, requeued, preempted, killed, cancelled, gone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.launch.launcher import Handle, JobState, NoAnswer, QueueEntry
from bench.launch.slurm.ended import LOST_SECONDS, PREEMPTED_SECONDS, REPORT_SECONDS, UNASKED, Judge
from bench.launch.slurm.watch import SlurmQueue, entry
from bench.launch.submitted import Submitted
from bench.plan.jobs import JobPlan
from bench.run.job import Outcome
from bench.store.store import Store
from tests.cluster.conftest import deaf
from tests.cluster.slurm_up import Slurm

KEY = "a" * 64
PATIENCE = 90.0


class Clock:
    """Seconds that pass when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def sbatch(slurm: Slurm) -> Callable[..., str]:
    """`sbatch(name, script, *options)`: the id of a job."""

    def submit(name: str, script: str, *options: str) -> str:
        words = ("sbatch", "--parsable", "--output=/dev/null", f"--job-name={name}", *options, f"--wrap={script}")
        return slurm.command(*words).strip()

    return submit


def until(
    names: dict[str, str], wanted: Callable[[dict[str, QueueEntry | None]], bool]
) -> dict[str, QueueEntry | None]:
    slurm, end = SlurmQueue(), time.monotonic() + PATIENCE
    while not wanted(seen := slurm.ask(notes(names))):
        assert time.monotonic() < end, seen
        time.sleep(0.2)
    return seen


def notes(names: dict[str, str]) -> list[Submitted]:
    """What was noted of jobs: id -> name."""
    return [Submitted(job_id, name, "suite.yaml", (), 0.0, "host", "/l", "/r") for job_id, name in names.items()]


def state_of(seen: dict[str, QueueEntry | None], job_id: str) -> str:
    found = seen[job_id]
    return found.state if found else "unknown"


def test_jobs_that_end_and_jobs_that_wait(sbatch: Callable[..., str]) -> None:
    """One look at a queue with a job of each kind."""
    well, killed = sbatch("well", "true"), sbatch("killed", "srun bash -c 'kill -9 $$'")
    wrong, held = sbatch("wrong", "exit 3"), sbatch("held", "true", "--hold")
    child = sbatch("child", "true", f"--dependency=afterok:{wrong}", "--kill-on-invalid-dep=yes")
    array = sbatch("array", "sleep 60", "--array=0-1%1")
    names = {well: "well", killed: "killed", wrong: "wrong", held: "held", child: "child"}
    names |= {f"{array}_0": "array", f"{array}_1": "array"}
    ended = {well: "COMPLETED", killed: "FAILED", wrong: "FAILED", child: "CANCELLED", f"{array}_0": "RUNNING"}
    seen = until(names, lambda seen: all(state_of(seen, job) == state for job, state in ended.items()))
    found = {job: one for job, one in seen.items() if one is not None}
    assert (found[killed].signal, found[wrong].signal, found[well].signal) == (9, 0, 0)
    assert found[wrong].exit_code == 3
    assert found[child].reason == "DependencyNeverSatisfied"
    assert (found[held].state, found[held].reason) == ("PENDING", "JobHeldUser")
    assert (found[f"{array}_1"].state, found[f"{array}_1"].reason) == ("PENDING", "JobArrayTaskLimit")
    assert found[f"{array}_0"].host


def test_an_id_under_another_name_is_another_job(sbatch: Callable[..., str]) -> None:
    """Ids come again after a cluster was set up anew: what is told of the later job is not told of ours."""
    job = sbatch("theirs", "true")
    assert until({job: "theirs"}, lambda seen: state_of(seen, job) == "COMPLETED")
    assert SlurmQueue().ask(notes({job: "ours"})) == {job: None}
    assert SlurmQueue().ask(notes({"1": "ours", job: "theirs"}))["1"] is None


def test_a_requeued_job_waits_again(slurm: Slurm, sbatch: Callable[..., str], judge: Judge) -> None:
    job = sbatch("back", "sleep 60")
    until({job: "back"}, lambda seen: state_of(seen, job) == "RUNNING")
    slurm.command("scontrol", "requeue", job)
    seen = until({job: "back"}, lambda seen: state_of(seen, job) == "PENDING")[job]
    state = judge.state(handle(job), note(job), seen)
    assert (state.status, state.active) == ("REQUEUED", True)


@pytest.mark.slow
def test_preempted_where_slurm_requeues_and_where_it_cancels(
    slurm: Slurm, sbatch: Callable[..., str], judge: Judge, clock: Clock
) -> None:
    again, gone = sbatch("again", "sleep 300", "-c2"), sbatch("gone", "sleep 300", "-c4", "--partition=spot")
    names = {again: "again", gone: "gone"}
    until(names, lambda seen: all(state_of(seen, job) == "RUNNING" for job in names))
    sbatch("higher", "sleep 300", "-c6", "--partition=high")
    seen = until(names, lambda seen: state_of(seen, again) == "PENDING" and state_of(seen, gone) == "PREEMPTED")
    assert judge.state(handle(again), note(again), seen[again]).status == "REQUEUED"
    first = judge.state(handle(gone), note(gone), seen[gone])
    assert (first.status, first.active) == ("PREEMPTED", True)
    clock.now += PREEMPTED_SECONDS
    last = judge.state(handle(gone), note(gone), seen[gone])
    assert (last.status, last.active, last.again) == ("PREEMPTED", False, True)


def test_a_node_that_fails(slurm: Slurm, sbatch: Callable[..., str], judge: Judge, node: str) -> None:
    job = sbatch("down", "sleep 300", "--no-requeue")
    until({job: "down"}, lambda seen: state_of(seen, job) == "RUNNING")
    slurm.command("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    seen = until({job: "down"}, lambda seen: state_of(seen, job) == "NODE_FAIL")[job]
    state = judge.state(handle(job), note(job), seen)
    assert (state.status, state.again, state.outcomes) == ("NODE_FAIL", True, None)


def test_slurmctld_that_is_away_says_nothing(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is lost because nobody answers."""
    monkeypatch.setenv("SLURM_CONF", str(deaf(slurm, tmp_path)))
    with pytest.raises(NoAnswer):
        SlurmQueue().ask(notes({"7": "mine"}))


@pytest.mark.slow
def test_a_job_that_does_not_listen_reaches_its_limit(sbatch: Callable[..., str], judge: Judge) -> None:
    """About 90 s: Slurm looks at limits every 30 s."""
    job = sbatch("long", "sleep 300", "--time=1")
    names = {job: "long"}
    end = time.monotonic() + 200
    while (seen := SlurmQueue().ask(notes(names))[job]) is None or seen.state != "TIMEOUT":
        assert time.monotonic() < end
        time.sleep(1)
    state = judge.state(handle(job), note(job, time_min=1), seen)
    assert (state.status, state.again) == ("TIMEOUT", True)
    assert "time limit of 1 min" in state.text
    assert "raise time_min in my.yaml" in state.hint


# -- what it means


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def judge(tmp_path: Path, clock: Clock) -> Judge:
    return Judge(Store(tmp_path / "store"), "my.yaml", clock)


@pytest.fixture
def node(slurm: Slurm) -> Iterator[str]:
    """The node's name; it is up again afterwards."""
    name = slurm.command("sinfo", "-h", "-o", "%n").split()[0]
    yield name
    slurm.command("scontrol", "update", f"NodeName={name}", "State=RESUME", check=False)
    end = time.monotonic() + PATIENCE
    while "idle" not in slurm.command("sinfo", "-h", "-p", "debug", "-o", "%T"):
        assert time.monotonic() < end
        time.sleep(0.2)


def handle(job_id: str) -> Handle:
    return Handle(job_id, JobPlan(((KEY,),)))


def note(job_id: str, report: Path = Path("/nonexistent/report.json"), **asked: float) -> Submitted:
    return Submitted(
        job_id, "name", "suite.yaml", ((KEY,),), 0.0, "host", "/nonexistent/log.err", str(report), (), asked
    )


def test_memory_is_never_tried_again(judge: Judge) -> None:
    state = judge.state(handle("1"), note("1", mem_gb=8.0), entry("OUT_OF_MEMORY", host="n1"))
    assert (state.status, state.again) == ("OUT_OF_MEMORY", False)
    assert "more memory than the 8 GB" in state.text
    assert "raise mem_gb in my.yaml" in state.hint


def test_unknown_to_slurm_is_lost_after_a_while(judge: Judge, clock: Clock) -> None:
    def look() -> JobState:
        return judge.state(handle("1"), note("1"), None)

    assert look().active
    clock.now += LOST_SECONDS - 1
    assert look().active
    clock.now += 1
    assert (look().status, look().again) == ("LOST", True)


def test_unknown_to_slurm_but_at_work_is_not_lost(tmp_path: Path, judge: Judge, clock: Clock) -> None:
    """slurmctld lost its state; the job beats on."""
    lease = Store(tmp_path / "store").acquire(KEY)
    assert lease is not None
    with lease:
        judge.state(handle("1"), note("1"), None)
        clock.now += 2 * LOST_SECONDS
        assert judge.state(handle("1"), note("1"), None).status == "RUNNING"
    assert judge.state(handle("1"), note("1"), None).active  # it has only just fallen silent
    clock.now += LOST_SECONDS
    assert judge.state(handle("1"), note("1"), None).status == "LOST"


def test_a_report_is_waited_for_then_given_up(tmp_path: Path, judge: Judge, clock: Clock) -> None:
    """A network disk shows it late; a job that left none is not waited for for ever."""
    report, ended = tmp_path / "report.json", entry("FAILED", exit_status=1 << 8)
    assert judge.state(handle("1"), note("1", report), ended).active
    clock.now += REPORT_SECONDS
    given_up = judge.state(handle("1"), note("1", report), ended)
    assert (given_up.status, given_up.again) == ("FAILED", False)
    assert "exit code 1" in given_up.text
    report.write_text(json.dumps({KEY: asdict(Outcome("failed", "no good", 1))}))
    assert judge.state(handle("1"), note("1", report), ended).outcomes == {KEY: Outcome("failed", "no good", 1)}


def test_before_slurm_has_answered_a_job_waits(judge: Judge) -> None:
    assert judge.state(handle("1"), note("1"), UNASKED).status == "PENDING"


def test_a_job_that_came_back_is_patiently_watched_anew(judge: Judge, clock: Clock) -> None:
    """Preempted twice, hours apart: the second time is not the end of the first one's patience."""
    preempted = entry("PREEMPTED")
    assert judge.state(handle("1"), note("1"), preempted).active
    judge.state(handle("1"), note("1"), entry("RUNNING"))
    clock.now += 10 * PREEMPTED_SECONDS
    assert judge.state(handle("1"), note("1"), preempted).active
    clock.now += PREEMPTED_SECONDS
    assert not judge.state(handle("1"), note("1"), preempted).active


@pytest.mark.parametrize(("code", "number"), [(255, 0), (137, 9), (140, 12), (3, 0)])
def test_a_shell_tells_signals_as_exit_codes(code: int, number: int) -> None:
    assert entry("FAILED", exit_status=code << 8).signal == number
