"""kill -9 and Ctrl-C of drivers and jobs: the same command again ends with the bits of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tiny_suite import (
    Undisturbed,
    attempts,
    bring,
    copied,
    digests,
    drive,
    key_of,
    start,
    tiny,
    wait_for,
)

from bench.plan import planning
from bench.plan.planning import Plan
from bench.store.store import Store

ROWS = "baseline,cls-retrain,BAGS"
Starter = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def plan() -> Plan:
    return planning.make(tiny(only=ROWS))


@pytest.fixture
def root(smoke: Undisturbed, plan: Plan, tmp_path: Path) -> Path:
    """A store in which only the data is done."""
    return copied(smoke.root, tmp_path / "store", {k for k, stage in plan.stages.items() if stage.kind == "data"})


@pytest.fixture
def begin() -> Iterator[Starter]:
    """Start drivers; whatever is left of them and of their jobs is gone after the test."""
    drivers: list[subprocess.Popen[str]] = []

    def begin(root: Path) -> subprocess.Popen[str]:
        drivers.append(start(root, "--only", ROWS))
        return drivers[-1]

    yield begin
    for driver in drivers:
        with suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()


def pid_of(root: Path, key: str) -> int | None:
    owner = Store(root).running(key)
    return owner.pid if owner else None


def wait_until_trained(plan: Plan, root: Path, key: str) -> None:
    """Until a first checkpoint lies there (or, on a machine that stutters, the stage is done already)."""
    wait_for(lambda: Store(root).saved(key) > 0 or Store(root).done(key) is not None, "a checkpoint")


def check_complete(smoke: Undisturbed, plan: Plan, root: Path) -> None:
    expected = smoke.digests()
    assert digests(plan, root) == {key: expected[key] for key in plan.stages}


def killed(pid: int | None) -> bool:
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


@pytest.mark.slow
def test_a_driver_dies_and_its_jobs_go_on(smoke: Undisturbed, plan: Plan, root: Path, begin: Starter) -> None:
    """The next driver finds them by their leases: nothing is begun a second time."""
    key = key_of(plan, "baseline")
    driver = begin(root)
    wait_until_trained(plan, root, key)
    pid = pid_of(root, key)
    driver.kill()
    driver.wait()
    assert Store(root).done(key) is not None or pid_of(root, key) == pid
    again = drive(root, "--only", ROWS)
    assert again.returncode == 0, again.stdout + again.stderr
    check_complete(smoke, plan, root)
    assert {len(found) for found in attempts(plan, root).values()} == {1}


@pytest.mark.slow
def test_a_job_dies_and_later_the_machine(smoke: Undisturbed, plan: Plan, root: Path, begin: Starter) -> None:
    """The driver names the stage and the way on; then driver and jobs die at once, in the heads; then it ends."""
    key = key_of(plan, "baseline")
    driver = begin(root)
    wait_until_trained(plan, root, key)
    hit = killed(pid_of(root, key))
    output, _ = driver.communicate()
    assert "Traceback" not in output
    if hit and Store(root).done(key) is None:
        assert driver.returncode == 1, output
        assert "its process was killed" in output
        assert "run the same command again" in output
        assert Store(root).saved(key) > 0

    driver = begin(root)
    wait_until_trained(plan, root, key_of(plan, "BAGS"))
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not any(Store(root).running(key) for key in plan.stages), "dead owners to be seen as dead", 5)
    before = {k: found for k, found in attempts(plan, root).items() if Store(root).done(k)}
    assert key in before

    again = drive(root, "--only", ROWS)
    assert again.returncode == 0, again.stdout + again.stderr
    check_complete(smoke, plan, root)
    after = attempts(plan, root)
    assert {k: after[k] for k in before} == before
    assert len(after[key]) <= 2


def test_ctrl_c_saves_and_says_how_to_continue(smoke: Undisturbed, plan: Plan, root: Path, begin: Starter) -> None:
    key = key_of(plan, "baseline")
    driver = begin(root)
    wait_until_trained(plan, root, key)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the driver, submitit's controllers and the jobs
    output, _ = driver.communicate()
    assert driver.returncode == 130, output
    assert "Traceback" not in output
    last = output.splitlines()[-1]
    assert last.startswith("saved. Continue: python -m bench run ")
    assert f"--only {ROWS}" in last
    assert str(root) in last
    assert not any(Store(root).running(k) for k in plan.stages)
    assert not any(Store(root).failure(k) for k in plan.stages)
    step = Store(root).saved(key)
    bring(tiny(only=ROWS), root)
    check_complete(smoke, plan, root)
    assert step > 0


@pytest.mark.slow
def test_ctrl_c_while_jobs_are_still_importing(plan: Plan, root: Path, begin: Starter) -> None:
    """They hold no lease yet, so nobody is told; they must not go on for hours nevertheless."""
    jobs = Path(os.environ["XDG_CACHE_HOME"]) / "longtail-bench" / "jobs"
    before = set(jobs.glob("*/*_submitted.pkl"))
    driver = begin(root)
    wait_for(lambda: bool(set(jobs.glob("*/*_submitted.pkl")) - before), "a job")
    os.killpg(driver.pid, signal.SIGINT)
    output, _ = driver.communicate()
    assert driver.returncode == 130, output
    assert "Traceback" not in output
    assert Store(root).done(key_of(plan, "BAGS")) is None
    assert not any(Store(root).running(k) for k in plan.stages)
