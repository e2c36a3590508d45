"""Suites in a real Slurm: the plan's jobs with the plan's dependencies, and whatever dies on the way."""

from __future__ import annotations

import os
import re
import signal
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from bench.launch import submitted
from bench.launch.debug import Debug
from bench.launch.loop import Progress, run
from bench.launch.submitted import Submitted
from bench.plan import planning
from bench.plan.jobs import JobPlan, make_jobs
from bench.plan.planning import Plan
from bench.stage import walk
from bench.store.store import Store
from bench.suite.clusters import Cluster
from tests.cluster.conftest import HOLD, SETTINGS, Planned, Queue, deaf, drive
from tests.cluster.slurm_up import Slurm
from tests.conftest import TINY, Bench

SEEDS = ("seeds=[0,1,2]", "data.seed=0")  # one data set, three baselines: equal jobs
SLOWER = ("schedule.steps=40",)  # time enough to be killed in
RFS = "  RFS: {method: rfs, cluster: {time_min: 20}}\n"
SMALL_DETR = "{width: 16, heads: 2, decoder: 2, ffn: 32, queries: 20}"
DETR = f"  DETR: {{method: baseline, detector: {{engine: detr, detr: {SMALL_DETR}}}}}\n"


def jobs_of(plan: Plan, root: Path) -> list[JobPlan]:
    return make_jobs(plan, set(plan.stages), planning.learned(plan, Store(root)))


def notes(plan: Plan, root: Path) -> list[Submitted]:
    return submitted.of(root, list(plan.stages), ended=True)


def digests(plan: Plan, root: Path) -> dict[str, str | None]:
    store = Store(root)
    return {key: done.digest if (done := store.done(key)) else None for key in plan.stages}


def undisturbed(plan: Plan, root: Path) -> dict[str, str | None]:
    """What the same plan gives in this very process."""
    store = Store(root)
    debug = Debug(plan, store, Cluster(kind="debug", max_retries=0, pause_s=0))
    ended = run(plan, store, debug, fuse=True, keep_going=True, show=lambda progress: None)
    assert ended.code == 0, ended.failed
    return digests(plan, root)


@pytest.mark.slow
def test_jobs_and_dependencies_are_those_of_the_plan(
    slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path
) -> None:
    """Counted in Slurm, not in our notes; jobs that are alike make an array with its cap."""
    plan, root = planned(RFS, *SEEDS), tmp_path / "store"
    ended = drive(plan, root, HOLD + "array_parallelism: 2\n", detach=True)
    jobs, known = jobs_of(plan, root), {note.units: note for note in notes(plan, root)}
    assert set(known) == {job.units for job in jobs}
    assert len(queue()) == len(jobs) == len(ended.left)
    maker = {key: known[job.units].id for job in jobs for key in job.keys}
    for job in jobs:
        inputs = {i.key for key in job.keys for i in plan.stages[key].inputs.values()} - set(job.keys)
        below = {s.key for i in inputs for s in walk(*plan.stages[i].inputs.values())}
        wanted = {maker[key] for key in inputs} - {maker[key] for key in below}  # who waits for B need not for B's A
        one = slurm.command("scontrol", "--oneliner", "show", "job", known[job.units].id)
        told = re.search(r"Dependency=(\S+)", one)
        assert told is not None
        ids = set(re.findall(r"(\d+(?:_\d+)?)(?=[(:,]|$)", told[1])) if told[1] != "(null)" else set()
        assert ids == wanted, one
    arrays = {note.id.split("_")[0] for note in known.values() if "_" in note.id}
    assert len(arrays) == 2  # baselines; RFS, of another time limit. Heads wait for baselines of their own: no array
    shown = slurm.command("scontrol", "--oneliner", "show", "job", next(iter(arrays)))
    assert "ArrayTaskThrottle=2" in shown
    limits = {slurm.command("squeue", "-h", "-j", note.id, "-o", "%l").strip() for note in known.values()}
    assert limits == {"30:00", "20:00"}


@pytest.mark.slow
def test_files_that_run_code_are_the_users_own(slurm: Slurm, planned: Planned, tmp_path: Path) -> None:
    plan, root = planned(), tmp_path / "store"
    drive(plan, root, HOLD, detach=True)
    folders = {Path(note.log).parent for note in notes(plan, root)}
    assert len(folders) == len({note.name for note in notes(plan, root)})  # a fresh one for each submission
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    assert not list(root.rglob("*.pkl"))


@pytest.mark.slow
def test_a_later_run_submits_nothing_twice(slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path) -> None:
    """Nor one of another suite that shares the queued stages."""
    plan, root = planned(), tmp_path / "store"
    first = {handle.id for handle in drive(plan, root, HOLD, detach=True).left}
    assert {handle.id for handle in drive(plan, root, HOLD, detach=True).left} == first
    assert set(queue()) == first
    more = planned(RFS)
    second = {handle.id for handle in drive(more, root, HOLD, detach=True).left}
    assert first < second
    assert len(second) == len(jobs_of(more, root))


def test_a_suite_gives_the_same_bits_in_slurm(slurm: Slurm, planned: Planned, tmp_path: Path) -> None:
    """Submitted by a driver that leaves at once, watched by the next one."""
    plan, root = planned(), tmp_path / "store"
    drive(plan, root, detach=True)
    assert drive(plan, root).code == 0
    assert digests(plan, root) == undisturbed(plan, tmp_path / "here")
    assert len(notes(plan, root)) == len(jobs_of(plan, tmp_path / "empty"))
    assert {note.ended for note in notes(plan, root)} <= {"COMPLETED", ""}  # "": done before anybody looked
    environment = Store(root).done(plan.rows[0].evaluate.key).environment  # type: ignore[union-attr]
    assert environment["slurm"]["job"] in {note.id for note in notes(plan, root)}


def test_a_deformable_detr_gives_the_same_bits_in_slurm(slurm: Slurm, planned: Planned, tmp_path: Path) -> None:
    """Beside the other engine's baseline in one array job."""
    plan, root = planned(DETR), tmp_path / "store"
    assert drive(plan, root).code == 0
    assert digests(plan, root) == undisturbed(plan, tmp_path / "here")


@pytest.mark.slow
def test_a_killed_job_is_submitted_again_with_its_children(slurm: Slurm, planned: Planned, tmp_path: Path) -> None:
    plan, root = planned("", *SLOWER), tmp_path / "store"
    key = next(key for key, stage in plan.stages.items() if stage.kind == "train" and stage.spec["phase"] == 0)
    hit: list[int] = []
    said: list[str] = []

    def kill(progress: Progress) -> None:
        said[:] = progress.notes
        owner = Store(root).running(key)
        if not hit and owner and list(Store(root).folder(key).glob("attempts/*/checkpoint-*")):
            hit.append(owner.pid)
            with suppress(ProcessLookupError):
                os.kill(owner.pid, signal.SIGKILL)

    assert drive(plan, root, show=kill).code == 0
    assert hit
    assert digests(plan, root) == undisturbed(plan, tmp_path / "here")
    ended = [note.ended for note in notes(plan, root)]
    assert ended.count("FAILED") == 1
    assert ended.count("CANCELLED") == 1  # the head that waited for it: cancelled by Slurm, submitted again
    assert len(ended) == len(jobs_of(plan, tmp_path / "empty")) + 2
    assert "its process was killed" in said[0]
    assert "again in 1 s (1 of 3)" in said[0]


@pytest.mark.slow
def test_what_can_never_work_is_not_tried_again(slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path) -> None:
    """A loss that is not finite: one attempt, its children cancelled and not left pending."""
    plan, root = planned("", "schedule.lr=1e30"), tmp_path / "store"
    ended = drive(plan, root)
    assert ended.code == 1
    assert ["diverged" in outcome.message for outcome in ended.failed.values()] == [True]
    assert len(notes(plan, root)) == len(jobs_of(plan, root))
    assert sorted(queue().values()) == ["CANCELLED", "COMPLETED", "FAILED"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "tries", "message"),
    [
        ("kill -9 $$", 3, "was killed on {node} (signal 9), 3 times"),
        ("exit 7", 1, "it ended on {node} with exit code 7 and could not say why"),
    ],
)
def test_jobs_that_end_before_they_begin(
    slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path, line: str, tries: int, message: str
) -> None:
    """Killed: again, so many times. An environment that does not work: told at once, with the log."""
    plan, root = planned(), tmp_path / "store"
    ended = drive(plan, root, f"max_retries: 2\nsetup: ['{line}']\n")
    node = slurm.command("sinfo", "-h", "-p", "debug", "-o", "%n").strip()
    said = {outcome.message.splitlines()[0] for outcome in ended.failed.values()}
    assert ended.code == 1
    assert all(message.format(node=node) in text for text in said), said
    states = list(queue().values())
    assert states.count("FAILED") == tries
    assert states.count("CANCELLED") == len(states) - tries  # children, each time; none is left pending


@pytest.mark.slow
def test_fail_fast_cancels_what_waits(slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path) -> None:
    held = "  RFS: {method: rfs, cluster: {sbatch: {hold: true}}}\n"
    plan, root = planned(held, "schedule.lr=1e30"), tmp_path / "store"
    ended = drive(plan, root, keep_going=False)
    assert ended.code == 1
    assert not ended.left
    assert "PENDING" not in queue().values()


@pytest.mark.slow
def test_a_cancelled_job_is_left_to_the_next_run(slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path) -> None:
    plan, root = planned(), tmp_path / "store"
    hit: list[str] = []

    def cancel(progress: Progress) -> None:
        if progress.running and not hit:
            hit.append(progress.running[0].id)
            slurm.command("scancel", hit[0])

    ended = drive(plan, root, HOLD, show=cancel)
    assert ended.code == 1
    assert [outcome.message.splitlines()[0] for outcome in ended.failed.values()] == ["it was cancelled"] * 2
    assert set(queue().values()) == {"CANCELLED"}
    again = drive(plan, root, HOLD, detach=True)
    assert len(again.left) == len(jobs_of(plan, root))
    assert hit[0] not in {handle.id for handle in again.left}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_the_jobs_alone(
    slurm: Slurm, queue: Queue, planned: Planned, tmp_path: Path, number: int
) -> None:
    plan, root = planned(), tmp_path / "store"

    def interrupt(progress: Progress) -> None:
        if progress.running and not progress.stopping:
            os.kill(os.getpid(), number)

    ended = drive(plan, root, HOLD, show=interrupt)
    assert (ended.code, ended.interrupted) == (130, True)
    assert set(queue().values()) == {"PENDING"}
    assert {handle.id for handle in ended.left} == set(queue())


# -- refusals, before anything is submitted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("partition: debgu\n", "no partition 'debgu'. Did you mean 'debug'? Legal: debug, high, spot"),
        ("cpus: 900\n", "Slurm refuses such a job: "),
        ("gpus: 4\n", "Slurm refuses such a job: "),
        ("sbatch: {nonsense: 3}\n", "unrecognized option"),
    ],
)
def test_what_slurm_would_refuse_is_refused_at_once(
    slurm: Slurm, queue: Queue, call: Bench, tmp_path: Path, more: str, message: str
) -> None:
    ran = refused(call, tmp_path, more)
    assert message in ran
    assert "cluster.yaml" in ran
    assert not queue()


@pytest.mark.slow
def test_what_is_shipped_suits_a_cluster_without_gpus(slurm: Slurm, queue: Queue, call: Bench, tmp_path: Path) -> None:
    """And the file for GPUs is refused there at once."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    refusal = call("run", "tiny.yaml", "--cluster", "slurm_gpu")
    assert (refusal.code, "Slurm refuses such a job" in refusal.err) == (2, True), refusal
    assert not queue()
    taken = call("run", "tiny.yaml", "--cluster", "slurm", "--detach")
    assert taken.code == 0, taken
    assert len(queue()) > 1


@pytest.mark.slow
def test_no_slurm_on_this_machine(
    surroundings: None, call: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no sbatch on this machine" in refused(call, tmp_path)


@pytest.mark.slow
def test_no_slurmctld(slurm: Slurm, call: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(deaf(slurm, tmp_path)))
    assert "Slurm does not answer" in refused(call, tmp_path)


@pytest.mark.slow
def test_a_store_that_cannot_be_written(slurm: Slurm, queue: Queue, call: Bench, tmp_path: Path) -> None:
    assert "/sys/store" in refused(call, tmp_path, store="/sys/store")
    assert not queue()


def refused(call: Bench, tmp_path: Path, more: str = "", store: str = "store") -> str:
    """What `run` says; it exits with 2 and leaves no note of a job."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "cluster.yaml").write_text(SETTINGS + more)
    ran = call("run", "tiny.yaml", "--cluster", "cluster.yaml", "--store", store)
    assert ran.code == 2, ran
    assert "Traceback" not in ran.err
    assert ran.err.count("error:") == 1
    assert not list(tmp_path.glob("store/submitted/*.json"))
    return str(ran.err)
