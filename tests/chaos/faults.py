"""Faults that need no cluster: what is done to drivers, jobs, files and the disk. Separate from cluster_faults.py.

A fault is a generator: it yields while there is nothing alive to strike, or while it goes on, and returns what it hit,
in words; None where nothing was hit after all. Its `finally` undoes what a person would undo (frees the disk).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from bench.store.lease import LeaseInfo, process_start
from tests.chaos.scene import BALLAST, Scene
from tests.tiny_suite import ROOT, flip_bit

Fault = Generator[None, None, str | None]
Injector = Callable[[Scene, random.Random], Fault]
HOLD = """
import sys, time
from pathlib import Path
from bench.store.lease import Observer, acquire
if acquire(Path(sys.argv[1]), Observer()) is not None:
    print("held", flush=True)
    time.sleep(600)
"""


def kill_driver(scene: Scene, rng: random.Random) -> Fault:
    while not (alive := scene.alive):
        yield
    driver = rng.choice(alive)
    driver.kill()
    return f"driver {driver.pid}" if driver.wait() == -signal.SIGKILL else None


def kill_job(scene: Scene, rng: random.Random) -> Fault:
    while (owner := _victim(scene, rng)) is None:
        yield
    return _killed(scene, [owner])


def kill_both(scene: Scene, rng: random.Random) -> Fault:
    while not scene.alive or not (owners := scene.owners()):
        yield
    drivers = scene.alive
    for driver in drivers:
        driver.kill()
    hit = _killed(scene, list(owners.values()))
    struck = [str(driver.pid) for driver in drivers if driver.wait() == -signal.SIGKILL]
    return f"driver {', '.join(struck)} and {hit}" if struck and hit else None


def interrupt(scene: Scene, rng: random.Random) -> Fault:
    """As a terminal does: the whole process group hears it."""
    while not scene.alive or scene.fraction() == 0 and not scene.owners():  # noqa: RUF021
        yield  # one that is still importing ends at once, as any Python does
    driver = rng.choice(scene.alive)
    with suppress(ProcessLookupError):
        os.killpg(driver.pid, signal.SIGINT)
    while driver.poll() is None:
        yield
    return f"driver {driver.pid}, ended with {driver.returncode}" if driver.returncode == 130 else None


def truncate_checkpoint(scene: Scene, rng: random.Random) -> Fault:
    return (yield from _damage(scene, rng, "truncated", lambda path: os.truncate(path, path.stat().st_size // 2)))


def flip_checkpoint(scene: Scene, rng: random.Random) -> Fault:
    return (yield from _damage(scene, rng, "with a flipped bit", flip_bit))


def _damage(scene: Scene, rng: random.Random, how: str, change: Callable[[Path], None]) -> Fault:
    """The job is killed, and the checkpoint it would go on from is damaged before anybody reads it."""
    while True:
        candidates = [(key, owner) for key, owner in sorted(scene.owners().items()) if _checkpoints(scene, key)]
        for key, owner in rng.sample(candidates, len(candidates)):
            driver_held = [driver for driver in scene.alive if _signal(driver.pid, signal.SIGSTOP)]
            try:
                hit = _killed(scene, [owner])
                newest = _checkpoints(scene, key)
                if hit and newest and scene.store.done(key) is None:
                    change(newest[-1])
                    return f"{hit}; {newest[-1].name} {how}"
            finally:
                for driver in driver_held:
                    _signal(driver.pid, signal.SIGCONT)
        yield


def _checkpoints(scene: Scene, key: str) -> list[Path]:
    """With their checksums; oldest first."""
    found = [path for folder in scene.store.attempts(key) for path in folder.glob("checkpoint-*.safetensors")]
    whole = [path for path in found if path.with_name(path.name + ".sha256").exists()]
    return sorted(whole, key=lambda path: int(path.stem.split("-")[1]))


def lease_here(scene: Scene, rng: random.Random) -> Fault:
    return (yield from _leave_lease(scene, rng, {}))


def lease_elsewhere(scene: Scene, rng: random.Random) -> Fault:
    """Whose host is gone: nobody can ask after its process, its counter stands still."""
    return (yield from _leave_lease(scene, rng, {"BENCH_HOST": "a-dead-host"}))


def _leave_lease(scene: Scene, rng: random.Random, more: Mapping[str, str]) -> Fault:
    """A real process takes the lease of a stage that is not done, and is killed."""
    while not scene.alive or not scene.store.keys():
        yield
    free = [key for key in scene.plan.stages if key not in scene.done() and scene.store.running(key) is None]
    for key in rng.sample(free, len(free)):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(scene.root.resolve() / key)], cwd=ROOT,
            env={**scene.surroundings, **more}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert holder.stdout is not None
        with holder, holder.stdout:
            held = holder.stdout.readline() == "held\n"
            holder.kill()
        if held and scene.store.done(key) is None:
            return f"lease of {scene.plan.stages[key].kind} {key[:6]} held by dead process {holder.pid}"
    return None


def cut_events(scene: Scene, rng: random.Random) -> Fault:
    """The last line of a live attempt's event file loses its end, as after a power cut; its writer goes on, or dies."""
    while True:
        for key, owner in sorted(scene.owners().items()):
            attempts = scene.store.attempts(key)
            path = attempts[-1] / "events.jsonl" if attempts else None
            if path is None or not path.exists() or path.stat().st_size < 40:
                continue
            text = path.read_bytes()
            last = text.rstrip(b"\n").rfind(b"\n") + 1
            os.truncate(path, rng.randrange(last + 1, len(text) - 1))
            also = f"; {_killed(scene, [owner])}" if rng.random() < 0.5 else ""
            return f"{key[:6]}/attempts/{path.parent.name}/{path.name} cut from {len(text)} bytes{also}"
        yield


def fill_disk(scene: Scene, rng: random.Random) -> Fault:
    """All that is left of the store's small disk is taken; freed some seconds later, or when the drivers have ended."""
    while not scene.owners():
        yield
    ballast, end = scene.root / BALLAST, time.monotonic() + rng.uniform(2.0, 15.0)
    drivers, wait_for_driver, scene.full = scene.alive, rng.random() < 0.5, True
    try:
        while _take_all(ballast) and (
            any(driver.poll() is None for driver in drivers) if wait_for_driver else time.monotonic() < end
        ):
            yield
        left = os.statvfs(scene.root).f_bavail
    finally:
        ballast.unlink(missing_ok=True)
    freed = "freed when the driver had ended" if wait_for_driver else "freed while the driver worked"
    return f"{left} blocks left; {freed}"


def _take_all(ballast: Path) -> bool:
    """Also what was freed since. Always true."""
    with suppress(OSError), ballast.open("ab", buffering=0) as file:
        for size in (2**20, 4096):
            with suppress(OSError):
                while file.write(b"\0" * size) == size:
                    pass
    return True


def second_driver(scene: Scene, rng: random.Random) -> Fault:
    while not scene.alive or len(scene.done()) == len(scene.plan.stages):
        yield
    first, second = scene.alive[0], scene.run()
    yield
    both = first.poll() is None and second.poll() is None
    return f"drivers {first.pid} and {second.pid}" if both else None


def _victim(scene: Scene, rng: random.Random) -> LeaseInfo | None:
    owners = sorted(scene.owners().items())
    return rng.choice(owners)[1] if owners else None


def _killed(scene: Scene, owners: Sequence[LeaseInfo]) -> str:
    """kill -9, and wait until they are gone; who it was, "" where nobody was left to kill."""
    hit = {owner.pid: owner for owner in owners if _signal(owner.pid, signal.SIGKILL)}
    end = time.monotonic() + 10
    while time.monotonic() < end and any(process_start(pid) == owner.start for pid, owner in hit.items()):
        time.sleep(0.01)
    return f"job process {', '.join(map(str, hit))}" if hit else ""


def _signal(pid: int, number: int) -> bool:
    with suppress(ProcessLookupError, psutil.Error):
        os.kill(pid, number)
        return True
    return False


FAULTS: Mapping[str, Injector] = {
    "driver killed": kill_driver,
    "job killed": kill_job,
    "driver and jobs killed": kill_both,
    "Ctrl-C": interrupt,
    "checkpoint truncated": truncate_checkpoint,
    "checkpoint with a flipped bit": flip_checkpoint,
    "lease of a dead process": lease_here,
    "lease of a dead host": lease_elsewhere,
    "event log cut": cut_events,
    "disk full": fill_disk,
    "two drivers": second_driver,
}
