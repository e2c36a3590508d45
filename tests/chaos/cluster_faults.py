"""What Slurm does to jobs, and what happens to Slurm. Separate from faults.py, whose faults need no cluster."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bench.store.lease import process_start
from tests.chaos.faults import Fault, Injector
from tests.chaos.scene import Scene
from tests.cluster.slurm_up import daemon_pid, start_daemon

AWAY_S = (3.0, 12.0)  # how long a daemon is gone
SETTLED_S = 10.0  # a job is COMPLETING before it is TIMEOUT
SEEN_S = 60.0  # how long Slurm is watched for what it does of a preemption; GraceTime is 10 s


def scancel(scene: Scene, rng: random.Random) -> Fault:
    while not (running := _running(scene)):
        yield
    job = rng.choice(running)
    assert scene.slurm is not None
    scene.slurm.command("scancel", job)
    return f"job {job}"


def requeue(scene: Scene, rng: random.Random) -> Fault:
    assert scene.slurm is not None
    while True:
        for job in rng.sample(running := _running(scene), len(running)):
            with suppress(AssertionError):  # it has just ended
                scene.slurm.command("scontrol", "requeue", job)
                return f"job {job}"
        yield


def limit_told(scene: Scene, rng: random.Random) -> Fault:
    """Slurm does it: the time limit of the cluster file is a minute. Hit: a job has put itself back."""
    while not (said := [line for note in scene.jobs() for line in _lines(note.log) if line.startswith("requeued as")]):
        yield
    return said[0]


def limit_deaf(scene: Scene, rng: random.Random) -> Fault:
    """A job hangs (it is stopped, and stopped again whenever Slurm wakes it) until Slurm ends it for its limit. Where
    something else ends it first, another one hangs."""
    while True:
        while not (owners := scene.owners()):
            yield
        owner = rng.choice(sorted(owners.items()))[1]
        since, held = time.monotonic(), 0.0
        while process_start(owner.pid) == owner.start:
            with suppress(ProcessLookupError):
                os.kill(owner.pid, signal.SIGSTOP)
            held = time.monotonic() - since
            yield
        end = time.monotonic() + SETTLED_S
        while time.monotonic() < end:
            if any("TIMEOUT" in (note.ended, _state(scene, note.id)) for note in scene.jobs()):
                return f"job process {owner.pid} hung for {held:.0f} s and was killed for its time limit"
            yield


def preempt(scene: Scene, rng: random.Random) -> Fault:
    """A job of the partition `high` that wants the whole node."""
    assert scene.slurm is not None
    while not (running := _running(scene)):
        yield
    before = {job: _restarts(scene, job) for job in running}
    other = scene.slurm.command(
        "sbatch", "--parsable", "--partition=high", "--exclusive", "--job-name=more-important", "--time=1",
        "--output=/dev/null", "--wrap=sleep 2",
    ).strip()  # fmt: skip
    end = time.monotonic() + SEEN_S
    try:
        while time.monotonic() < end:
            hit = [job for job in running if _state(scene, job) == "PREEMPTED" or _restarts(scene, job) > before[job]]
            if hit:
                return f"job {', '.join(hit)} by job {other}"
            yield
    finally:
        scene.slurm.command("scancel", "--quiet", other, check=False)
    return None


def restart_node(scene: Scene, rng: random.Random) -> Fault:
    return (yield from _restart(scene, rng, "slurmd"))


def restart_controller(scene: Scene, rng: random.Random) -> Fault:
    return (yield from _restart(scene, rng, "slurmctld"))


def _restart(scene: Scene, rng: random.Random, name: str) -> Fault:
    """Ended (asked to, or killed) while jobs of the run are queued or at work; started again some seconds later."""
    slurm = scene.slurm
    assert slurm is not None
    while not (jobs := scene.queue()) or (pid := daemon_pid(slurm, name)) is None:
        yield
    number = rng.choice((signal.SIGTERM, signal.SIGKILL))
    os.kill(pid, number)
    since, away = time.monotonic(), rng.uniform(*AWAY_S)
    try:
        while daemon_pid(slurm, name) is not None or time.monotonic() < since + away:
            yield
    finally:
        while daemon_pid(slurm, name) is not None:
            time.sleep(0.1)
        start_daemon(slurm, name)
    return f"{name} by {signal.Signals(number).name}, away for {time.monotonic() - since:.0f} s; jobs {' '.join(jobs)}"


def _running(scene: Scene) -> list[str]:
    """Jobs whose process works on a stage: one that is being started is no job yet to be told anything."""
    if not scene.owners():
        return []
    own = {note.id for note in scene.jobs()}
    return sorted(job for job, state in scene.queue().items() if state == "RUNNING" and job in own)


def _shown(scene: Scene, job: str) -> dict[str, str]:
    assert scene.slurm is not None
    with suppress(subprocess.TimeoutExpired):
        line = scene.slurm.command("scontrol", "--oneliner", "show", "job", job, check=False)
        return dict(word.split("=", 1) for word in line.split() if "=" in word)
    return {}


def _state(scene: Scene, job: str) -> str:
    return _shown(scene, job).get("JobState", "")


def _restarts(scene: Scene, job: str) -> int:
    return int(_shown(scene, job).get("Restarts", "0"))


def _lines(path: str) -> list[str]:
    with suppress(OSError):
        return Path(path).read_text(errors="replace").splitlines()
    return []


CLUSTER_FAULTS: Mapping[str, Injector] = {
    "scancel": scancel,
    "scontrol requeue": requeue,
    "time limit, told": limit_told,
    "time limit, deaf": limit_deaf,
    "preempted, requeued": preempt,
    "preempted, cancelled": preempt,
    "slurmd restarted": restart_node,
    "slurmctld restarted": restart_controller,
}
