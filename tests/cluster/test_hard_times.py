"""What a cluster does to its users: jobs that look dead, limits, answers that get lost, drivers that are killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.cli import stop as control
from bench.errors import UserError
from bench.launch import requests, submitted
from bench.launch.launcher import Handle
from bench.launch.loop import Progress
from bench.launch.slurm.ended import Judge
from bench.launch.slurm.slurm import Slurm as Launcher
from bench.launch.slurm.watch import entry
from bench.launch.submitted import Submitted
from bench.plan import planning
from bench.plan.jobs import JobPlan, make_jobs
from bench.plan.planning import Plan
from bench.store.store import Store
from bench.suite.clusters import Cluster
from tests.cluster.conftest import HOLD, SETTINGS, Planned, Queue, deaf, drive
from tests.cluster.slurm_up import Slurm
from tests.conftest import ROOT, Bench

pytestmark = pytest.mark.slow


def test_nothing_waits_for_a_job_that_looks_dead(slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path) -> None:
    """Preempted, and perhaps for good: what waited for it is not submitted, and cancelled, at every look."""
    plan, seen_at = planned(), []

    def preempt(progress: Progress) -> None:
        states = [state.status for state in progress.states.values()]
        if "RUNNING" in states and not seen_at:
            slurm.command("sbatch", "-p", "high", "-c6", "-o", os.devnull, "--wrap", "sleep 60")
            seen_at.append(float("inf"))
        if "PREEMPTED" in states:
            seen_at[0] = min(seen_at[0], time.monotonic())
        if seen_at and time.monotonic() > seen_at[0] + 7 and not progress.stopping:
            os.kill(os.getpid(), signal.SIGINT)

    drive(plan, tmp_path / "store", "partition: spot\nsetup: ['sleep 60']\n", show=preempt)
    states = list(queue().values())
    assert states.count("PREEMPTED") == 1
    assert states.count("CANCELLED") == 2, "children, each once"


SEEDS = ("seeds=[0,1,2,3,4]", "data.seed=0")  # one data set, five baselines: an array


def in_place_of(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program of Slurm's that goes wrong once: `script` runs in place of its first call; $REAL is the real one."""
    real = shutil.which(program)
    (folder / "bin").mkdir()
    path = folder / "bin" / program
    path.write_text(
        f"#!/bin/sh\nREAL={real}\n"
        'case "$*" in *--test-only*) exec $REAL "$@";; esac\n'
        f'[ -e {path}.once ] && exec $REAL "$@"\ntouch {path}.once\n{script}\n'
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def test_an_answer_of_sbatch_that_gets_lost(
    slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy slurmctld has taken the job, and sbatch says that it has not."""
    in_place_of(
        "sbatch", tmp_path, monkeypatch,
        '$REAL "$@" >/dev/null; echo "sbatch: error: Socket timed out on send/recv operation" >&2; exit 1',
    )  # fmt: skip
    plan, root, said = planned(), tmp_path / "store", []
    left = drive(plan, root, HOLD, detach=True, show=lambda progress: said.extend(progress.notes)).left
    states = queue()
    assert {job for job, state in states.items() if state == "PENDING"} == {handle.id for handle in left}
    assert sorted(states.values()) == ["CANCELLED", *["PENDING"] * len(left)]
    assert "Slurm takes no job now: sbatch: error: Socket timed out" in said[0]
    assert not submitted.begun(root)


def test_a_driver_that_is_killed_while_it_submits(
    slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_place_of("sbatch", tmp_path, monkeypatch, '$REAL "$@"; kill -9 $PPID')
    plan, root = planned(), tmp_path / "store"
    (tmp_path / "cluster.yaml").write_text(SETTINGS + HOLD)
    words = ["run", "tiny.yaml", "--cluster", "cluster.yaml", "--detach"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-m", "bench", *words], cwd=tmp_path, env=environment, check=False)
    assert run.returncode == -signal.SIGKILL
    assert (list(queue().values()), list((root / "submitted").glob("*.json"))) == (["PENDING"], [])
    left = {handle.id for handle in drive(plan, root, HOLD, detach=True).left}
    assert {job for job, state in queue().items() if state == "PENDING"} == left


def test_a_driver_that_is_killed_before_it_has_noted_all(
    slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path
) -> None:
    """The jobs are whole, but nobody knows the ids: the next run takes them up."""
    plan, root = planned("", *SEEDS), tmp_path / "store"
    left = {handle.id for handle in drive(plan, root, HOLD, detach=True).left}
    notes = submitted.of(root, list(plan.stages))
    array = [note for note in notes if "_" in note.id]
    submitted.begin(root, [replace(note, id="", log=str(Path(note.log).parent)) for note in array])
    for note in array[1:]:
        (root / "submitted" / f"{note.id}.json").unlink()
    assert {handle.id for handle in drive(plan, root, HOLD, detach=True).left} == left == set(queue())
    assert submitted.of(root, list(plan.stages)) == notes


def test_a_cluster_that_takes_small_arrays_only(
    slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a limit on queued jobs: five together are refused, two and two and one are not."""
    in_place_of(
        "sbatch", tmp_path, monkeypatch,
        f'rm {tmp_path}/bin/sbatch.once; '
        'for word; do if [ -f "$word" ] && grep -q "array=0-[2-9]" "$word"; then '
        'echo "sbatch: error: AssocMaxSubmitJobLimit" >&2; '
        'echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, '
        "user's size and/or time limits)\" >&2; exit 1; fi; done; exec $REAL \"$@\"",
    )  # fmt: skip
    plan, root = planned("", *SEEDS), tmp_path / "store"
    left = [handle.id for handle in drive(plan, root, HOLD, detach=True).left]
    assert set(queue()) == set(left)
    baselines = [job for job in left if "_" in job]
    assert len({job.split("_")[0] for job in baselines}) == 2
    assert len(baselines) == 4


def test_scancel_that_nobody_hears(
    slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = 'echo "scancel: error: Unable to contact slurm controller (connect failure)" >&2; exit 1'
    in_place_of("scancel", tmp_path, monkeypatch, lost)
    plan, root = planned(), tmp_path / "store"

    def show(progress: Progress) -> None:
        if progress.running and not (tmp_path / "bin" / "scancel.once").exists():
            requests.request(root, "stop", plan.stages)

    drive(plan, root, HOLD, show=show)
    assert set(queue().values()) == {"CANCELLED"}


def test_a_driver_that_sleeps_while_it_submits(
    slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-Z: the others are told whom they wait for."""
    monkeypatch.setattr("bench.launch.slurm.slurm.SILENT_S", 1.0)
    in_place_of("sbatch", tmp_path, monkeypatch, 'kill -STOP $PPID; exec $REAL "$@"')
    plan, root, said = planned(), tmp_path / "store", []
    (tmp_path / "cluster.yaml").write_text(SETTINGS + HOLD)
    words = ["run", "tiny.yaml", "--cluster", "cluster.yaml", "--detach"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    other = subprocess.Popen([sys.executable, "-m", "bench", *words], cwd=tmp_path, env=environment)
    end = time.monotonic() + 60
    try:
        while not list((root / "submitted" / "begun").glob("*.json")):
            assert other.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)

        def show(progress: Progress) -> None:
            said.extend(progress.notes)
            if progress.notes:
                other.send_signal(signal.SIGCONT)

        left = {handle.id for handle in drive(plan, root, HOLD, detach=True, show=show).left}
    finally:
        other.send_signal(signal.SIGCONT)
        other.wait(60)
    assert f"process {other.pid} on " in said[0]
    assert set(queue()) == left, "submitted twice"


def test_stop_says_when_nobody_hears_it(
    slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """What is queued while slurmctld is away is not taken for stopped. Nor what a killed driver has not noted."""
    plan, store = planned(), Store(tmp_path / "store")
    drive(plan, store.root, HOLD, detach=True)
    note = submitted.of(store.root, list(plan.stages))[-1]
    submitted.begin(store.root, [replace(note, id="", log=str(Path(note.log).parent))])
    with monkeypatch.context() as away:
        away.setenv("SLURM_CONF", str(deaf(slurm, tmp_path)))
        control.show_stop(plan, store, list(plan.stages), Console(width=200))
        assert f"scancel {' '.join(sorted(queue_ids(store, plan)))}" in capsys.readouterr().out
    (store.root / "submitted" / f"{note.id}.json").unlink()
    control.show_stop(plan, store, list(plan.stages), Console(width=200))
    assert set(queue().values()) == {"CANCELLED"}


def queue_ids(store: Store, plan: Plan) -> list[str]:
    return [note.id for note in submitted.of(store.root, list(plan.stages))]


def test_a_run_here_beside_queued_jobs(
    slurm: Slurm, queue: Queue, planned: Planned, call: Bench, tmp_path: Path
) -> None:
    """They are told of; once all is done they end at once and well, and so do those that wait for them."""
    drive(planned(), tmp_path / "store", HOLD, detach=True)
    jobs = sorted(queue())
    ran = call("run", "tiny.yaml")
    assert ran.code == 0, ran
    assert f"{len(jobs)} jobs for the same are in the queue of Slurm: {', '.join(jobs)}" in ran.out
    assert "watch them instead: python -m bench run tiny.yaml --cluster " in ran.out
    slurm.command("scontrol", "release", *jobs)
    end = time.monotonic() + 60
    while set(queue().values()) != {"COMPLETED"}:
        assert time.monotonic() < end, queue()
        time.sleep(0.2)
    seconds = slurm.command("squeue", "-h", "--states=all", "-j", ",".join(jobs), "-O", "TimeUsed")
    assert set(seconds.split()) <= {f"0:{n:02}" for n in range(10)}


# -- waiting


@pytest.mark.parametrize(
    ("more", "command", "words"),
    [
        (HOLD, "", "PENDING (JobHeldUser): it is held; release it: scontrol release JOB"),
        (
            "partition: spot\n",
            "",
            "stop it, change time_min",
        ),
        ("setup: ['sleep 60']\n", "requeuehold", "held state): Slurm or its administrator holds it, "),
    ],
)
def test_a_job_that_would_wait_for_ever(
    slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path, more: str, command: str, words: str
) -> None:
    """What it waits for, and what to do, is said; once."""
    said: list[str] = []
    hit: list[str] = []
    end = time.monotonic() + 60

    def show(progress: Progress) -> None:
        said[:] = progress.notes
        running = [handle.id for handle, state in progress.states.items() if state.status == "RUNNING"]
        if command and running and not hit:
            hit.extend(running)
            slurm.command("scontrol", command, running[0])
        if (said or time.monotonic() > end) and not progress.stopping:
            os.kill(os.getpid(), signal.SIGINT)

    slurm.command("scontrol", "update", "PartitionName=spot", "MaxTime=1")
    try:
        drive(planned(), tmp_path / "store", more, show=show)
    finally:
        slurm.command("scontrol", "update", "PartitionName=spot", "MaxTime=INFINITE")
    assert len(said) == 1, said
    assert words in said[0]
    assert "{" not in said[0]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("QOSMaxWallDurationPerJobLimit", "time_min"),
        ("QOSMaxGRESPerJob", "gpus, cpus or mem_gb"),
        ("AssocGrpCPUMinutesLimit", "budget of time"),
        ("QOSMaxJobsPerUserLimit", "it starts when other jobs have ended"),
        ("BadConstraints", "no node is as it asks for"),
        ("launch failed requeued held", "could not be started"),
        ("Priority", ""),
        ("Resources", ""),
        ("Dependency", ""),
        ("JobArrayTaskLimit", ""),
        ("BeginTime", ""),
    ],
)
def test_reasons_in_words(tmp_path: Path, reason: str, words: str) -> None:
    """Of limits that need accounting, and of failures of nodes, which no cluster here has."""
    judge = Judge(Store(tmp_path / "store"), "my.yaml")
    job = Submitted("1", "name", "suite.yaml", (("a" * 64,),), 0.0, "host", "/l", "/r")
    hint = judge.state(Handle("1", JobPlan(job.units)), job, entry("PENDING", reason)).hint
    assert words in hint if words else hint == ""


# -- what is asked for


def test_a_limit_below_the_time_to_save_is_refused(slurm: Slurm, planned: Planned, tmp_path: Path) -> None:
    """Slurm would tell such a job to save as soon as it begins."""
    plan = planned()
    store = Store(tmp_path / "store")
    short = Cluster(kind="slurm", time_min=30, signal_delay_s=90, stages={"data": {"time_min": 1}})
    made = Launcher(plan, store, short, "my.yaml")
    jobs = make_jobs(plan, set(plan.stages), planning.learned(plan, store))
    with pytest.raises(UserError, match="time_min: 1 is not more than signal_delay_s: 90"):
        made.check(jobs)
