"""`logs`, and what a run's exit code says: real runs of a tiny suite, one that fails and one that is stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from bench.cli import logs
from bench.cli.open import open_suite
from bench.launch import submitted
from bench.launch.submitted import Submitted
from bench.plan import planning
from bench.plan.planning import Plan
from bench.store.store import Store
from tests import done_store
from tests.conftest import ROOT, TINY, Bench, Ran, Write
from tests.planned import model

PATIENCE = 600.0  # seconds; a loaded machine is slow, not broken
FAILING = TINY.replace("beta: 8}", "beta: 8, schedule: {lr: 1.0e+30}}")
LONG = TINY.replace("{steps: 3,", "{steps: 100000,")


@pytest.fixture
def plan(write: Write) -> Plan:
    return planning.make(open_suite(write()))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def console() -> Console:
    return Console(width=200)


# -- files that are there


def test_an_attempts_files_are_those_of_its_start_event(
    plan: Plan, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = model(plan, "BAGS")
    out, err = tmp_path / "1_0_log.out", tmp_path / "1_0_log.err"
    out.write_text("".join(f"line {i}\n" for i in range(500)))
    err.write_text("Traceback [bold]not markup[/]\n")
    attempt = done_store.begin(store, stage)
    attempt.events.write("start", key=stage.key, pid=1, out=str(out), err=str(err))
    attempt.events.write("metrics", step=2, values={"loss": 7.5})
    attempt.events.write("progress", step=2, total=9, values={"loss": 1.25})
    logs.show(plan, store, stage.key, console(), lines=3)
    text = said(capsys)
    assert "attempt 1  running on" in text
    assert "progress 2/9 loss=1.25" in text
    assert "7.5" not in text  # a curve is not a log
    assert "line 499\n" in text
    assert "line 496" not in text
    assert "[bold]not markup[/]" in text
    done_store.end(attempt)


def test_files_of_a_cluster_are_those_of_its_job(plan: Plan, store: Store, tmp_path: Path) -> None:
    """Under srun a process writes into pipes: the note of the job names the file."""
    stage = model(plan, "BAGS")
    attempt = done_store.begin(store, stage)
    attempt.events.write("start", key=stage.key)
    done_store.end(attempt)
    log = str(tmp_path / "77_0_log.err")
    submitted.write(store.root, Submitted("77", "n", "s", ((stage.key,),), 0.0, "h", log, "/r", ended="FAILED"))
    found = logs.files(store, stage.key)
    assert found is not None
    assert (str(found.err), str(found.out)) == (log, log.replace(".err", ".out"))


def test_of_a_row_the_stage_that_matters(plan: Plan, store: Store) -> None:
    keys = list(plan.stages)
    assert logs.newest(plan, store, keys) == keys[0]
    first, second, third = list(plan.stages.values())[:3]
    done_store.finish(store, [first, second])
    attempt = done_store.begin(store, third)
    store.fail(attempt, "no")
    done_store.end(attempt)
    assert logs.newest(plan, store, keys) == third.key
    with done_store.hold(store, first.key):
        assert logs.newest(plan, store, keys) == first.key


def test_a_stage_that_never_ran(plan: Plan, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    logs.show(plan, store, model(plan, "BAGS").key, console())
    assert "has not been started yet" in said(capsys)


@contextmanager
def following(plan: Plan, store: Store, key: str) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=logs.follow, args=(plan, store, key, console(), 5), daemon=True)
    thread.start()
    yield thread
    thread.join(60)
    assert not thread.is_alive()


def test_follow_goes_on_until_the_attempt_ends(
    plan: Plan, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = model(plan, "BAGS")
    out = tmp_path / "o"
    out.write_text("first\n")
    attempt = done_store.begin(store, stage)
    attempt.events.write("start", key=stage.key, out=str(out), err=str(out))
    with following(plan, store, stage.key) as thread, out.open("a") as file:
        time.sleep(0.5)
        file.write("second\nhalf a li")
        file.flush()
        time.sleep(1.2)
        assert thread.is_alive()
        file.write("ne\n")
        file.flush()
        attempt.events.write("end", status="KILLED", error="stopped")
        done_store.end(attempt)
    text = said(capsys)
    for line in ("first", "second", "half a line", "end status=KILLED error=stopped"):
        assert line in text.splitlines() or f" {line}\n" in text
    assert "half a li\n" not in text


def test_follow_waits_for_a_queued_stage(plan: Plan, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    stage = model(plan, "BAGS")
    store.add(stage)
    with following(plan, store, stage.key):
        time.sleep(0.8)
        attempt = done_store.begin(store, stage)
        attempt.events.write("start", key=stage.key)
        attempt.events.write("end", status="FAILED", error="no")
        time.sleep(1.0)
        done_store.end(attempt)
    text = said(capsys)
    assert "waiting for it to begin" in text
    assert "end status=FAILED error=no" in text


# -- real runs


@pytest.mark.slow
def test_a_row_that_fails(bench: Bench, write: Write, tmp_path: Path) -> None:
    """Exit code 1 and the row's name; its log is kept; `retry` forgets; a good run is 0, and its logs go."""
    suite = write(FAILING)
    ran = bench("run", suite, timeout=PATIENCE)
    assert ran.code == 1, ran.out + ran.err
    assert any("FAILED train    BAGS" in line and "diverged" in line for line in ran.out.splitlines())
    assert ran.out.splitlines()[-3:] == [
        "failed: BAGS (1 of 2 rows)",
        f"  what was said: python -m bench logs {suite} BAGS",
        f"  try again:     python -m bench run {suite}",
    ]
    said = bench("logs", suite, "BAGS")
    assert said.code == 0
    assert "end status=FAILED" in said.out
    path = next(line for line in said.out.splitlines() if line.startswith("-- stdout: ")).removeprefix("-- stdout: ")
    assert Path(path).is_relative_to(tmp_path / "cache")
    assert "submitit INFO" in said.out
    stages = json.loads(bench("status", suite, "--json").out)["stages"]
    assert [stage["rows"] for stage in stages if stage["state"] == "failed"] == [["BAGS"]]
    assert "cleared: train    BAGS" in bench("retry", suite).out
    assert not [s for s in json.loads(bench("status", suite, "--json").out)["stages"] if s["state"] == "failed"]
    assert bench("run", suite, "--set", "rows.BAGS.beat=1").code == 2
    good = bench("run", write(), timeout=PATIENCE)
    assert good.code == 0, good.out + good.err
    assert "logs of such runs are removed" in bench("logs", write(), "BAGS").out
    swept = bench("gc", "--yes")
    assert "free: tiny: BAGS  1 train, 1 predict, 1 evaluate" in swept.out
    assert bench("run", write()).code == 0


def test_stop_ends_the_run_too_and_nothing_is_lost(bench: Bench, write: Write, tmp_path: Path) -> None:
    suite = write(LONG)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "bench", "run", str(suite)]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(words, **pipe, text=True, cwd=tmp_path, env=environment) as run:
        stage = _running(bench, suite)
        stopped = bench("stop", suite)
        output, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 130, output
    assert "saved. Continue: python -m bench run" in output
    assert "saved at step" in stopped.out
    after = next(s for s in json.loads(bench("status", suite, "--json").out)["stages"] if s["key"] == stage["key"])
    assert (after["state"], after["attempt"]) == ("partial", 1)
    assert after["step"] >= stage["step"]
    assert list((tmp_path / "store" / stage["key"] / "attempts" / "1").glob("checkpoint-*"))


def _running(bench: Bench, suite: Path) -> dict[str, object]:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answer: Ran = bench("status", suite, "--json")
        for stage in json.loads(answer.out)["stages"]:
            if stage["kind"] == "train" and stage["state"] == "running" and stage["step"]:
                return dict(stage)
        time.sleep(1.0)
    raise AssertionError("never began")
