"""Seeded random kills of the whole smoke suite, by name only:

    python -m pytest -m slow tests/faults/test_chaos.py

BENCH_CHAOS_KILLS (default 10) and BENCH_CHAOS_SEED (default 0) say how often, and which moments and victims.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from tiny_suite import Undisturbed, attempts, digests, drive, start

from bench.store import Store

KILLS = int(os.environ.get("BENCH_CHAOS_KILLS", "10"))
SEED = int(os.environ.get("BENCH_CHAOS_SEED", "0"))
LONGEST_S = 25.0  # between two kills; the whole suite takes about 30 s on two free cores
VICTIMS = ("driver", "job", "driver and jobs", "Ctrl-C", "any process")


@pytest.mark.slow
def test_the_suite_ends_with_the_same_bits_whatever_is_killed(smoke: Undisturbed, tmp_path: Path) -> None:
    root, rng = tmp_path / "store", random.Random(SEED)
    held: dict[str, tuple[str, ...]] = {}
    for _ in range(KILLS):
        moment, victim = rng.uniform(0.5, LONGEST_S), rng.choice(VICTIMS)
        with driver_of(root) as driver:
            with suppress(subprocess.TimeoutExpired):
                driver.wait(moment)
            print(f"{moment:.1f} s: {victim}; {strike(driver, victim, smoke, root, rng)}", flush=True)
            with suppress(subprocess.TimeoutExpired):
                driver.wait(rng.uniform(0.0, 10.0))
        now = attempts(smoke.plan, root)
        assert {key: now[key] for key in held} == held, "a stage that was done was begun again"
        held = {key: found for key, found in now.items() if Store(root).done(key)}
        print(f"  {len(held)} of {len(smoke.plan.stages)} stages done", flush=True)
        if len(held) == len(smoke.plan.stages):  # a finished store cannot be hurt: from the start again
            assert digests(smoke.plan, root) == smoke.digests()
            root, held = root.with_name(root.name + "-again"), {}
    ended = drive(root)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert digests(smoke.plan, root) == smoke.digests()
    assert all(f"\n{row.label} " in ended.stdout for row in smoke.plan.rows)


@contextmanager
def driver_of(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A driver; half-dead process groups may go on into the next round, as they do in life."""
    driver = start(root)
    try:
        yield driver
    finally:
        driver.kill()
        driver.wait()


def strike(driver: subprocess.Popen[str], victim: str, smoke: Undisturbed, root: Path, rng: random.Random) -> str:
    """Kill something; what was hit."""
    store = Store(root)
    owners = sorted({owner.pid for key in smoke.plan.stages if (owner := store.running(key))})
    if victim == "Ctrl-C":
        with suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGINT)
        time.sleep(0.2)
        return "asked"
    with suppress(psutil.NoSuchProcess):
        everybody = [process.pid for process in psutil.Process(driver.pid).children(recursive=True)]
        chosen = {
            "driver": [driver.pid],
            "job": [rng.choice(owners)] if owners else [],
            "driver and jobs": [driver.pid, *owners],
            "any process": [rng.choice(everybody)] if everybody else [],
        }[victim]
        for pid in chosen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return f"{len(chosen)} killed"
    return "it had ended"
