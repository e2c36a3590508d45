"""Two hosts, one store: nothing is trained twice, the dead are replaced, the living never, whatever their clocks say.

A host is a process with a name of its own (BENCH_HOST): only the counter in a lease tells such processes of each other,
as it does on a network disk. The patience of 90 s is cut to 10 s here, and the beat to 0.5 s.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_suite import ROOT, bring, copied, key_of, tiny, wait_for

import bench.store.lease
from bench.launch import loop as launch
from bench.launch.debug import Debug
from bench.plan import planning
from bench.run.work import signals_restored
from bench.store.events import read_events
from bench.store.store import Store
from bench.suite.clusters import Cluster

pytestmark = pytest.mark.slow

PATIENCE_S, BEAT_S = 10.0, 0.5
SUITE = tiny("schedule.steps=150", only="baseline")  # longer than a host takes to start
PLAN = planning.make(SUITE)
HOST = """
import json, sys, time
from pathlib import Path
import bench.store.lease, bench.store.store
from bench.run.job import Job
from bench.spec import Machine
root, key, machine, patience, beat, clock = sys.argv[1:]
bench.store.lease.PATIENCE_SECONDS = float(patience)
bench.store.store.Store.__init__.__kwdefaults__["beat"] = float(beat)
now = time.time
time.time = lambda: now() + float(clock)  # this host's wall clock is wrong
if __name__ == "__main__":
    told = {path.parent.name: json.loads(path.read_text())["aside"] for path in Path(root).glob("*/stage.json")}
    job = Job(root, ((key,),), Machine.model_validate_json(machine), asides=told)
    while True:
        outcome = job()[key]
        print(outcome.state, flush=True)
        if outcome.state != "busy":
            break
        time.sleep(0.2)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data and the training, made in this process."""
    root = tmp_path_factory.mktemp("undisturbed") / "store"
    outcomes = bring(SUITE, root, only=lambda key: PLAN.stages[key].kind in ("data", "train"))
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    return root


class Hosts:
    """A store with the data of a training, and hosts that want to make it."""

    def __init__(self, undisturbed: Path, folder: Path) -> None:
        self.undisturbed, self.key = undisturbed, key_of(PLAN, "baseline")
        data = {key for key, stage in PLAN.stages.items() if stage.kind == "data"}
        self.data = data
        self.store = Store(copied(undisturbed, folder / "store", data))
        self.store.add(PLAN.stages[self.key])
        self.script = folder / "host.py"
        self.script.write_text(HOST)

    @contextmanager
    def host(self, name: str, clock_s: float = 0.0) -> Iterator[subprocess.Popen[str]]:
        machine = SUITE.sections.machine.model_dump_json()
        words = [self.store.root, self.key, machine, PATIENCE_S, BEAT_S, clock_s]
        process = subprocess.Popen(
            [sys.executable, str(self.script), *map(str, words)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "BENCH_HOST": name},
        )  # fmt: skip
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def trained_to(self, step: int) -> bool:
        return any(
            event.get("step", 0) >= step
            for path in self.store.attempts(self.key)
            for event in read_events(path / "events.jsonl")[0]
        )

    def check(self, attempts: int) -> None:
        done = self.store.done(self.key)
        assert done is not None
        expected = Store(self.undisturbed).done(self.key)
        assert expected is not None
        assert done.digest == expected.digest
        assert len(self.store.attempts(self.key)) == attempts


@pytest.fixture
def hosts(undisturbed: Path, tmp_path: Path) -> Hosts:
    return Hosts(undisturbed, tmp_path)


@pytest.mark.parametrize("clock_s", [-7200.0, 0.0, 7200.0])
def test_a_stage_is_trained_by_one_of_them(hosts: Hosts, clock_s: float) -> None:
    """Both want it all the time; the second one's clock is two hours off."""
    with hosts.host("node-a") as a, hosts.host("node-b", clock_s) as b:
        said = [process.communicate(timeout=300)[0].split() for process in (a, b)]
    assert [words[-1] for words in said] == ["done", "done"]
    assert "busy" in said[0] + said[1], "they never met"
    hosts.check(attempts=1)


def test_a_dead_hosts_work_is_taken_over_in_bounded_time(hosts: Hosts) -> None:
    with hosts.host("node-a") as a:
        wait_for(lambda: hosts.trained_to(7), "some steps")
        with hosts.host("node-b", clock_s=7200.0) as b:
            assert b.stdout is not None
            assert b.stdout.readline() == "busy\n"
            a.kill()
            a.wait()
            killed = time.monotonic()
            wait_for(lambda: len(hosts.store.attempts(hosts.key)) == 2, "the other host")
            took = time.monotonic() - killed
            assert b.communicate(timeout=300)[0].split()[-1] == "done"
    assert PATIENCE_S - 2 * BEAT_S < took < PATIENCE_S + 30.0, "bounded by the patience, and not before it"
    hosts.check(attempts=2)


def test_a_dead_host_is_watched_once(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the driver, which then takes the lease and lets it go: the job on its node need not watch as long again."""
    with hosts.host("node-a") as a:
        wait_for(lambda: hosts.trained_to(7), "some steps")
        a.kill()
        a.wait()
    monkeypatch.setattr(bench.store.lease, "PATIENCE_SECONDS", 2.0)
    plan = planning.make(SUITE)
    plan = replace(plan, stages={key: plan.stages[key] for key in (*hosts.data, hosts.key)}, rows=())
    debug = Debug(PLAN, hosts.store, Cluster(kind="debug", max_retries=0, pause_s=0))
    with signals_restored():
        ended = launch.run(plan, hosts.store, debug, fuse=True, keep_going=True, show=lambda progress: None)
    assert ended.code == 0, ended.failed
    owners = [path.name for path in hosts.store.folder(hosts.key).glob("lease.*")]
    assert owners == ["lease.3"], "1 of the dead host, 2 of the driver, 3 of the job"
    hosts.check(attempts=2)


def test_a_host_that_slept_too_long_does_not_undo_its_successor(hosts: Hosts) -> None:
    """Suspended, or cut off from the disk, for longer than the patience: to the other it is dead. It wakes up."""
    with hosts.host("node-a") as a:
        wait_for(lambda: hosts.trained_to(7), "some steps")
        a.send_signal(signal.SIGSTOP)
        with hosts.host("node-b") as b:
            assert b.communicate(timeout=300)[0].split()[-1] == "done"
        first = hosts.store.done(hosts.key)
        a.send_signal(signal.SIGCONT)
        assert a.communicate(timeout=300)[0].split() == ["done"], "its stage is done, by somebody else"
    assert hosts.store.done(hosts.key) == first
    hosts.check(attempts=2)
