"""A job in a real Slurm whose time is up: told before its limit, preempted, cancelled, without scontrol, too often."""

from __future__ import annotations

import datetime
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import submitit
from tiny_suite import ROOT, bring, copied, key_of, tiny, wait_for

from bench.launch.slurm.requeue import SlurmRequeue
from bench.lineage import asides_of
from bench.plan import planning
from bench.plan.planning import Plan
from bench.run.job import Job, Outcome, Requeue
from bench.store.events import read_events
from bench.store.store import Store
from bench.suite.suite import Suite
from tests.cluster.slurm_up import Slurm

pytestmark = pytest.mark.slow

STEPS = 200  # about 15 s of training: time enough to be told in
PAUSE_S = 20.0


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Plan, Path]:
    """A training that nobody disturbed, and its data."""
    suite = tiny(f"schedule.steps={STEPS}", only="baseline")
    plan, root = planning.make(suite), tmp_path_factory.mktemp("undisturbed") / "store"
    wanted = {key for key, stage in plan.stages.items() if stage.kind in ("data", "train")}
    outcomes = bring(suite, root, only=wanted.__contains__)
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    return suite, plan, root


class Trained:
    """The same training as a Slurm job, from the same data."""

    def __init__(self, slurm: Slurm, baseline: tuple[Suite, Plan, Path], folder: Path) -> None:
        self.slurm, (self.suite, self.plan, self.undisturbed), self.folder = slurm, baseline, folder
        self.key = key_of(self.plan, "baseline")
        data = {key for key, stage in self.plan.stages.items() if stage.kind == "data"}
        self.store = Store(copied(self.undisturbed, folder / "store", data))
        self.store.add(self.plan.stages[self.key])
        self.id = ""

    def job(self, requeue: Requeue | None) -> Job:
        told = asides_of(*self.plan.stages.values())
        return Job(str(self.store.root), ((self.key,),), self.suite.sections.machine, requeue=requeue, asides=told)

    def submit(self, requeue: Requeue | None, setup: tuple[str, ...] = ()) -> submitit.Job[dict[str, Outcome]]:
        """Through submitit, as the launcher does: its signal handlers are there before ours."""
        executor = submitit.AutoExecutor(folder=self.folder / "jobs", cluster="slurm")
        executor.update_parameters(timeout_min=5, slurm_signal_delay_s=60, slurm_setup=list(setup), cpus_per_task=1)
        job = executor.submit(self.job(requeue))
        self.id = job.job_id
        return job

    def trains(self) -> bool:
        """Whether a checkpoint lies there, and the training goes on."""
        return any(self.store.folder(self.key).glob("attempts/*/checkpoint-*.sha256"))

    def shown(self) -> dict[str, str]:
        """What Slurm says of the job."""
        line = self.slurm.command("scontrol", "show", "job", "--oneliner", self.id)
        return dict(word.split("=", 1) for word in line.split() if "=" in word)

    def state(self) -> str:
        return self.shown()["JobState"]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of that name, of all attempts."""
        found = [read_events(path / "events.jsonl")[0] for path in self.store.attempts(self.key)]
        return [event for events in found for event in events if event["event"] == name]

    def first_steps(self) -> list[int]:
        """The step that each attempt began with."""
        paths = self.store.attempts(self.key)
        told = [[e for e in read_events(path / "events.jsonl")[0] if e["event"] == "progress"] for path in paths]
        return [int(events[0]["step"]) for events in told if events]

    def check_continued(self, statuses: list[str]) -> None:
        """It ended as if nobody had disturbed it, and did nothing twice."""
        done, expected = self.store.done(self.key), Store(self.undisturbed).done(self.key)
        assert done is not None
        assert expected is not None
        wait_for(lambda: len(self.events("end")) == len(statuses), "its last event, which follows `done`")
        assert done.digest == expected.digest, "other bits than undisturbed"
        assert [event["status"] for event in self.events("end")] == statuses
        assert self.first_steps()[-1] > 5, "it began from the start again"
        assert done.environment["slurm"]["restarts"] == str(len(statuses) - 1)
        assert done.environment["slurm"]["job"] == self.id


@pytest.fixture
def trained(
    slurm: Slurm, baseline: tuple[Suite, Plan, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Trained:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Trained(slurm, baseline, tmp_path)


def result(job: submitit.Job[dict[str, Outcome]]) -> Path:
    return Path(job.paths.result_pickle)


def soon(trained: Trained) -> None:
    """Shorten the wait of a requeued job; not to nothing: slurmd ends a job that starts in the second in which its old
    credential was revoked ("Job credential revoked", 22.05)."""
    trained.slurm.command("scontrol", "update", f"JobId={trained.id}", "StartTime=now+2")


def test_usr2_saves_and_puts_the_same_job_back(trained: Trained) -> None:
    job = trained.submit(SlurmRequeue(3, PAUSE_S))
    wait_for(trained.trains, "a checkpoint")
    told = datetime.datetime.now()
    trained.slurm.command("scancel", "--signal=USR2", trained.id)
    wait_for(lambda: trained.state() == "PENDING", "the job to be queued again")
    begin = datetime.datetime.fromisoformat(trained.shown()["StartTime"])
    assert (begin - told).total_seconds() > PAUSE_S - 2, "the pause was not taken over"
    assert not result(job).exists(), "a driver would take the job for ended"
    assert trained.store.running(trained.key) is None, "the lease was not released"
    soon(trained)
    wait_for(lambda: result(job).exists(), "the result")
    assert job.result() == {trained.key: Outcome("done")}
    trained.check_continued(["KILLED", "FINISHED"])
    assert f"requeued as job {trained.id}, restart 1; in 20 s" in Path(job.paths.stderr).read_text()


def test_scancel_saves_and_ends(trained: Trained) -> None:
    job = trained.submit(SlurmRequeue(3))
    wait_for(trained.trains, "a checkpoint")
    trained.slurm.command("scancel", trained.id)
    wait_for(lambda: trained.state() == "CANCELLED", "the end of the job")
    assert result(job).exists(), "it had the time to say how it ended"
    assert [event["status"] for event in trained.events("end")] == ["KILLED"]
    assert trained.shown()["Restarts"] == "0"
    assert trained.store.done(trained.key) is None


def test_a_job_goes_back_so_often_and_no_more(trained: Trained) -> None:
    job = trained.submit(SlurmRequeue(0))
    wait_for(trained.trains, "a checkpoint")
    trained.slurm.command("scancel", "--signal=USR2", trained.id)
    wait_for(lambda: result(job).exists(), "the result")
    outcome = job.result()[trained.key]
    assert outcome.state == "stopped"
    assert f"job {trained.id} has been requeued 0 times, max_retries is 0" in outcome.message
    wait_for(lambda: trained.state() == "COMPLETED", "the end of the job")


def test_a_job_that_gets_further_goes_back_as_often_as_it_takes(trained: Trained) -> None:
    """More time limits than max_retries, and nobody who watches."""
    job = trained.submit(SlurmRequeue(1))
    for restarts in (1, 2):
        step = trained.store.saved(trained.key)
        wait_for(lambda before=step: trained.store.saved(trained.key) > before, "a checkpoint")
        trained.slurm.command("scancel", "--signal=USR2", trained.id)
        wait_for(lambda: trained.state() == "PENDING", "the job to be queued again")
        assert trained.shown()["Restarts"] == str(restarts)
        soon(trained)
    wait_for(lambda: result(job).exists(), "the result")
    trained.check_continued(["KILLED", "KILLED", "FINISHED"])


def test_a_node_without_scontrol(trained: Trained) -> None:
    """The job ends with what it has, and whoever watches submits it again."""
    tools = trained.folder / "tools"
    tools.mkdir()
    for name in ("sh", "srun", "env"):
        (tools / name).symlink_to(str(shutil.which(name)))
    job = trained.submit(SlurmRequeue(3), setup=(f"export PATH={tools}",))
    wait_for(trained.trains, "a checkpoint")
    trained.slurm.command("scancel", "--signal=USR2", trained.id)
    wait_for(lambda: result(job).exists(), "the result")
    outcome = job.result()[trained.key]
    assert outcome.state == "stopped"
    assert "it was not requeued: scontrol requeue:" in outcome.message
    assert "not found" in outcome.message
    again = trained.submit(SlurmRequeue(3))
    wait_for(lambda: result(again).exists(), "the result of the second submission")
    assert again.result() == {trained.key: Outcome("done")}
    assert trained.first_steps()[-1] > 5


PLAIN = """\
import sys
from bench.run.job import Job
from bench.launch.slurm.requeue import SlurmRequeue
from bench.spec import Machine
if __name__ == "__main__":
    store, key, machine = sys.argv[1:]
    print(Job(store, ((key,),), Machine.model_validate_json(machine), requeue=SlurmRequeue(3))())
"""


def test_a_preemption_that_says_term_alone(trained: Trained) -> None:
    """Where a cluster sends no user signal before it takes the node, nothing but PreemptTime tells it from scancel."""
    script = trained.folder / "plain.py"
    script.write_text(PLAIN)
    machine = trained.suite.sections.machine.model_dump_json()
    words = ["srun", "--overlap", sys.executable, "-u", str(script), str(trained.store.root), trained.key, machine]
    cpus = "6"  # all of the node
    trained.id = trained.slurm.command(
        "sbatch", "--parsable", "-c", cpus, "-t", "5", "--open-mode=append", "-o", str(trained.folder / "log"),
        "--wrap", f"export SRUN_CPUS_PER_TASK={cpus}; {shlex.join(words)}",
    ).strip()  # fmt: skip
    wait_for(trained.trains, "a checkpoint")
    urgent = trained.slurm.command(
        "sbatch", "--parsable", "-p", "high", "-c", cpus, "-t", "1", "-o", os.devnull, "--wrap", "sleep 1"
    ).strip()
    wait_for(lambda: "requeued as job" in (trained.folder / "log").read_text(), "the job to give way")
    wait_for(
        lambda: trained.slurm.command("squeue", "-h", "-t", "all", "-j", urgent, "-o", "%T").strip() == "COMPLETED",
        "urgent",
    )
    wait_for(lambda: trained.store.done(trained.key) is not None, "the training")
    trained.check_continued(["KILLED", "FINISHED"])
