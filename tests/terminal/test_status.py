"""`status`, `stop` and `retry`: what is said comes from real stores, leases, event files and processes."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.cli import overview as overviews
from bench.cli import selection
from bench.cli import status as standings
from bench.cli import stop as control
from bench.cli.open import open_suite
from bench.cli.progress import Display
from bench.cli.standing import StatusTable
from bench.errors import UserError
from bench.launch import requests as orders
from bench.launch import submitted
from bench.launch.loop import Progress
from bench.launch.submission import cluster_option
from bench.launch.submitted import Submitted
from bench.plan import planning
from bench.plan.planning import Plan
from bench.stage import Stage
from bench.store import own
from bench.store.lease import host
from bench.store.store import Attempt, Store
from bench.suite.clusters import path_of
from tests import done_store
from tests.conftest import ROOT, TINY, Bench, Write
from tests.planned import model

SUITE = TINY + "  cls-retrain: {method: cls_retrain, keep_classifier: true}\n"


@pytest.fixture
def plan(write: Write) -> Plan:
    return planning.make(open_suite(write(SUITE)))


@pytest.fixture
def store(tmp_path: Path, plan: Plan) -> Store:
    """Data and baseline are done."""
    store = Store(tmp_path / "store")
    base = model(plan, "baseline")
    done_store.finish(store, [s for s in plan.stages.values() if s.kind == "data" or s is base], host_mb=321.4)
    return store


@pytest.fixture
def held() -> Iterator[list[Attempt]]:
    """Attempts whose leases end with the test."""
    found: list[Attempt] = []
    yield found
    for attempt in found:
        done_store.end(attempt)


def lines(plan: Plan, store: Store) -> list[str]:
    return [line.plain for line in StatusTable(overviews.compare(plan, store, 2)).lines()]


def line_with(plan: Plan, store: Store, stage: Stage) -> str:
    found = [line for line in lines(plan, store) if stage.key[:6] in line]
    assert len(found) == 1, lines(plan, store)
    return found[0]


def tried(store: Store, stage: Stage, error: str | None) -> Attempt:
    """An attempt that ended: failed, or (None) without a word."""
    attempt = done_store.begin(store, stage)
    attempt.events.write("start", key=stage.key, host="node3")
    attempt.events.write("progress", step=7, total=20, values={})
    if error is not None:
        store.fail(attempt, error)
        attempt.events.write("end", status="FAILED", error=error)
    done_store.end(attempt)
    return attempt


# -- what is said


def test_done_and_missing(plan: Plan, store: Store) -> None:
    assert re.search(r"^done +train +baseline +\w{6}  2 s  h  321 MB$", line_with(plan, store, model(plan, "baseline")))
    row = next(row for row in plan.rows if row.label == "BAGS")
    assert row.evaluate is not None
    assert re.search(r"^missing +evaluate +BAGS +\w{6}$", line_with(plan, store, row.evaluate))


def test_heads_of_one_pass_that_runs_are_one_line(plan: Plan, store: Store, held: list[Attempt]) -> None:
    heads = [model(plan, label) for label in ("BAGS", "cls-retrain")]
    for i, stage in enumerate(heads):
        held.append(done_store.begin(store, stage))
        for step in (10, 20 + i):
            held[-1].events.write("progress", step=step, total=100, values={"loss": 1.0}, host_mb=900.0, gpu_mb=50.0)
            time.sleep(0.1)
    found = [line for line in lines(plan, store) if line.startswith("running")]
    assert len(found) == 1
    assert " (+1 in the same pass) " in found[0]
    assert f":{os.getpid()}  step 20/100" in found[0]  # the one that has most left says when the pass ends
    assert "step/s" in found[0]
    assert "left" in found[0]
    assert "900 MB  50 MB on its card" in found[0]


def test_heads_that_two_processes_train_are_two_lines(plan: Plan, store: Store, held: list[Attempt]) -> None:
    held.append(done_store.begin(store, model(plan, "BAGS")))
    other = model(plan, "cls-retrain")
    store.add(other)
    with AnotherProcess(store, other):
        assert sum(line.startswith("running") for line in lines(plan, store)) == 2


class AnotherProcess:
    """A process that holds a stage's lease, and a progress line, until it is told to stop."""

    CODE = (
        "import sys, signal, threading, pathlib; from bench.store.store import Store;"
        "from bench.store.own import working;"
        "stop = threading.Event(); note = working(pathlib.Path(sys.argv[1]), [sys.argv[2]]); note.__enter__();"
        "signal.signal(signal.SIGTERM, lambda *_: stop.set()); store = Store(pathlib.Path(sys.argv[1]));"
        "lease = store.acquire(sys.argv[2]); attempt = store.begin(sys.argv[2], lease);"
        "attempt.events.write('progress', step=3, total=9, values={}); print('held', flush=True); stop.wait(60);"
        "attempt.events.write('end', status='KILLED', error='stopped'); lease.release()"
    )

    def __init__(self, store: Store, stage: Stage) -> None:
        self._words = [sys.executable, "-c", self.CODE, str(store.root), stage.key]

    def __enter__(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(self._words, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def test_failed_says_why_in_one_sentence(plan: Plan, store: Store) -> None:
    tried(store, model(plan, "BAGS"), "loss is not finite at step 7\n  hint: a smaller lr")
    line = line_with(plan, store, model(plan, "BAGS"))
    assert line.startswith("failed ")
    assert line.endswith("attempt 1  node3  step 7/20  loss is not finite at step 7")


def test_the_last_line_is_what_to_type_next(plan: Plan, store: Store, held: list[Attempt], tmp_path: Path) -> None:
    """The same table on the same cluster; nothing to add while something is at work."""
    where = f"tiny.yaml --store {store.root}".replace("tiny.yaml", str(plan.suite.path))
    assert lines(plan, store)[-1] == f"nothing of it is at work; go on: python -m bench run {where}"
    tried(store, model(plan, "BAGS"), "no")
    file = tmp_path / "mine.yaml"
    submitted.write(store.root, replace(note(plan, "BAGS", ended="FAILED"), cluster=str(file)))
    assert lines(plan, store)[-2:] == [
        f"BAGS failed: python -m bench logs {where} BAGS",
        f"try again: python -m bench run {where} --cluster {file}",
    ]
    store.clear_failures(model(plan, "BAGS").key)
    held.append(done_store.begin(store, model(plan, "BAGS")))
    assert lines(plan, store)[-1].startswith("waits ")
    done_store.end(held.pop())
    done_store.finish(store, [stage for stage in plan.stages.values() if store.done(stage.key) is None])
    assert lines(plan, store)[-1] == f"the table: python -m bench report {where}"
    assert lines(plan, Store(tmp_path / "none"))[-1].endswith(f"(there is no folder {tmp_path / 'none'} yet)")


def test_a_cluster_is_named_as_its_user_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given, name in ((path_of("slurm"), "slurm"), (tmp_path / "mine.yaml", "mine.yaml"), ("/c.yaml", "/c.yaml")):
        assert cluster_option([replace(EMPTY, cluster=str(given))]) == ("--cluster", name)
    assert cluster_option([EMPTY]) == cluster_option([]) == ()


def test_killed_without_a_word_is_told(plan: Plan, store: Store) -> None:
    tried(store, model(plan, "BAGS"), None)
    line = line_with(plan, store, model(plan, "BAGS"))
    assert line.startswith("partial ")
    assert "its process ended without a word after 20" in line


def note(plan: Plan, label: str, ended: str = "") -> Submitted:
    return Submitted("77_3", "n-00", "s", ((model(plan, label).key,),), time.time(), "h", "/l", "/r", ended=ended)


EMPTY = Submitted("1", "n", "s", (), 0.0, "h", "/l", "/r")


def test_queued_jobs_are_found_without_their_driver(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch, call: Bench
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # no squeue here
    submitted.write(store.root, note(plan, "BAGS"))
    line = line_with(plan, store, model(plan, "BAGS"))
    assert line.startswith("queued ")
    assert "job 77_3" in line
    (store.root / "c.yaml").write_text("kind: slurm\ntime_min: 30\nsignal_delay_s: 30\narray_parallelism: 17\n")
    submitted.write(store.root, replace(note(plan, "BAGS"), cluster=str(store.root / "c.yaml")))
    assert "with 17 jobs at a time" in call("status", plan.suite.path, "--store", store.root).out
    submitted.write(store.root, note(plan, "BAGS", ended="TIMEOUT"))
    assert line_with(plan, store, model(plan, "BAGS")).startswith("missing ")
    tried(store, model(plan, "BAGS"), None)
    assert line_with(plan, store, model(plan, "BAGS")).endswith("job 77_3 ended: TIMEOUT")


def test_json_has_every_stage(plan: Plan, store: Store, call: Bench) -> None:
    tried(store, model(plan, "BAGS"), "no")
    said = json.loads(call("status", plan.suite.path, "--store", store.root, "--json").out)
    stages = {stage["key"]: stage for stage in said["stages"]}
    assert set(stages) == set(plan.stages)
    assert said["done"] == 3
    bags = stages[model(plan, "BAGS").key]
    assert (bags["state"], bags["attempt"], bags["step"], bags["error"]) == ("failed", 1, 7, "no")
    base = stages[model(plan, "baseline").key]
    assert (base["state"], base["host"], base["seconds"], base["host_mb"]) == ("done", "h", 1.5, 321.4)


def test_a_long_suite_says_first_what_is_not_done(write: Write, tmp_path: Path) -> None:
    text = TINY + f'  "b{{beta}}": {{method: bags, each: {{beta: {[1 + i / 10 for i in range(80)]}}}}}\n'
    plan, store = planning.make(open_suite(write(text))), Store(tmp_path / "store")
    done_store.quick(store, [s for s in plan.stages.values() if s.kind != "evaluate"], {})
    evaluations = [s for s in plan.stages.values() if s.kind == "evaluate"]
    for stage in evaluations[:17]:
        tried(store, stage, "no")
    said = lines(plan, store)
    assert [line.split()[0] for line in said[1:17]] == ["failed"] * 16
    assert said[16] == "failed   ... and 2 more"
    assert said[17:20] == ["failed   evaluate     17", "missing  evaluate     64", "done     data          2"]


# -- why


def test_why_a_stage_is_not_done(plan: Plan, store: Store, call: Bench, held: list[Attempt]) -> None:
    def why() -> str:
        return call("why", plan.suite.path, "BAGS", "--store", store.root).out

    stage = model(plan, "BAGS")
    assert "made in one pass with that of cls-retrain" in why()
    tried(store, stage, "no")
    assert "last failure" in why()
    assert "attempt 1 ended before it was done" in why()
    held.append(done_store.begin(store, stage))
    assert f"attempt 2 runs on {host()}, process {os.getpid()}" in why()


def test_why_passes_over_a_stage_that_is_corrupt(plan: Plan, store: Store, call: Bench) -> None:
    """It may be another suite's, and is none of the answer."""
    (store.folder(model(plan, "baseline").key) / "stage.json").write_text('{"kind": "tra')
    said = call("why", plan.suite.path, "BAGS", "--store", store.root)
    assert said.code == 0, said.err
    assert "not reused: no train stage in this store is done" in said.out
    assert call("status", plan.suite.path, "--store", store.root).code == 0


def test_why_a_stage_that_was_done_is_made_again(plan: Plan, store: Store, call: Bench) -> None:
    stage, base = model(plan, "BAGS"), model(plan, "baseline")
    done_store.finish(store, [stage], fused=3)
    said = call("why", plan.suite.path, "BAGS", "--store", store.root).out
    assert "(attempt 1) on h, in one pass with 2 more" in said
    assert store.discard(base.key)
    attempt = done_store.begin(store, base)
    (attempt.outputs / "result.bin").write_bytes(b"another")
    store.finish(attempt, inputs={}, seconds=1.0, environment={}, extra={})
    done_store.end(attempt)
    said = call("why", plan.suite.path, "BAGS", "--store", store.root).out
    assert "its input init was made anew since" in said


# -- a login node


@pytest.mark.parametrize("command", ["plan", "status", "why"])
def test_a_machine_without_the_gpus_of_its_jobs(command: str, bench: Bench, write: Write) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        words = [command, write(), *(["BAGS"] if command == "why" else []), "--set", "machine.device=cuda"]
        said = bench(*words)
        run = bench("run", write(), "--set", "machine.device=cuda")
    finally:
        del os.environ["CUDA_VISIBLE_DEVICES"]
    assert said.code == 0, said.err
    assert ("slots unknown" in said.out) is (command != "why")
    assert run.code == 2
    assert "no GPU on this machine" in run.err


# -- --watch


def test_watch_ends_when_all_is_done(plan: Plan, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    todo = [stage for stage in plan.stages.values() if store.done(stage.key) is None]
    console = Console(width=200, force_terminal=False)
    watching = threading.Thread(target=standings.watch, args=(lambda: overviews.compare(plan, store, 2), console, 0.05))
    watching.start()
    done_store.finish(store, todo)
    watching.join(60)
    assert not watching.is_alive()
    assert f"{len(plan.stages)} done" in capsys.readouterr().out


def test_ctrl_c_leaves_watch(plan: Plan, store: Store) -> None:
    words = [sys.executable, "-m", "bench", "status", str(plan.suite.path), "--store", str(store.root), "--watch"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert "3 done" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        try:
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in error


# -- retry


def test_retry_clears_failures_and_asks_drivers(plan: Plan, store: Store, call: Bench) -> None:
    asked = orders.Requests(store.root)
    failed = tried(store, model(plan, "BAGS"), "loss is not finite\nmore")
    (failed.folder / "checkpoint-5.safetensors").write_bytes(b"x")
    said = call("retry", plan.suite.path, "BAGS", "--store", store.root)
    assert said.code == 0
    assert "loss is not finite  (continues from its checkpoint)" in said.out
    assert "python -m bench run" in said.out
    assert store.failure(model(plan, "BAGS").key) is None
    assert (failed.folder / "failed.forgiven.json").exists()
    request = asked.new()[0]
    assert (request.verb, model(plan, "BAGS").key in request.keys) == ("retry", True)
    assert "no failure is noted" in call("retry", plan.suite.path, "--store", store.root).out


def test_retry_of_one_row_leaves_the_others(plan: Plan, store: Store, call: Bench) -> None:
    for label in ("BAGS", "cls-retrain"):
        tried(store, model(plan, label), "no")
    call("retry", plan.suite.path, "BAGS", "--store", store.root)
    assert store.failure(model(plan, "cls-retrain").key) is not None
    assert call("retry", plan.suite.path, "nonsense", "--store", store.root).code == 2


# -- stop


def test_stop_asks_the_process_and_the_drivers(plan: Plan, store: Store, call: Bench) -> None:
    asked = orders.Requests(store.root)
    stage = model(plan, "BAGS")
    store.add(stage)
    with AnotherProcess(store, stage) as process:
        said = call("stop", plan.suite.path, "--store", store.root)
        assert process.wait(30) == 0
    assert said.code == 0
    assert f"asked to save and end: train    BAGS           {stage.key[:6]}  process {process.pid}" in said.out
    assert "saved at step 3" in said.out
    assert asked.new()[0].verb == "stop"
    assert "stopped" in line_with(plan, store, stage)


def test_to_stop_a_row_is_not_to_stop_what_others_wait_for(plan: Plan, store: Store) -> None:
    own = selection.needed_alone(plan, "BAGS")
    assert model(plan, "BAGS").key in own
    assert model(plan, "baseline").key not in own
    base = model(plan, "baseline").key
    assert selection.needed_alone(plan, base[:10]) == [base]  # by its key it is


def test_what_is_made_in_the_same_process_is_named(
    plan: Plan, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both heads are at work in a process of ours, here this one, which ends their leases when it is told to stop."""
    attempts = [done_store.begin(store, model(plan, label)) for label in ("BAGS", "cls-retrain")]
    before = signal.signal(signal.SIGTERM, lambda *_: [done_store.end(attempt) for attempt in attempts])
    try:
        with own.working(store.root, [attempt.key for attempt in attempts]):
            report = control.stop(plan, store, [model(plan, "BAGS").key])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert list(report.signalled) == [model(plan, "BAGS").key]
    assert store.running(model(plan, "cls-retrain").key) is None


def test_what_is_done_is_not_stopped(plan: Plan, store: Store) -> None:
    asked = orders.Requests(store.root)
    report = control.stop(plan, store, [model(plan, "baseline").key])
    assert report == control.StopReport()
    assert asked.new() == []


def test_all_is_done_already(plan: Plan, store: Store, call: Bench) -> None:
    asked = orders.Requests(store.root)
    said = call("stop", plan.suite.path, model(plan, "baseline").key[:12], "--store", store.root)
    assert (said.code, said.out) == (0, "nothing to stop: all of it is done\n")
    assert asked.new() == []


def test_requests_are_read_once_and_only_new_ones(tmp_path: Path) -> None:
    orders.request(tmp_path, "stop", ["a"])
    asked = orders.Requests(tmp_path)
    assert asked.new() == []
    orders.request(tmp_path, "stop", ["b"])
    orders.request(tmp_path, "retry", ["b", "c"])
    assert [(one.verb, sorted(one.keys)) for one in asked.new()] == [("stop", ["b"]), ("retry", ["b", "c"])]
    assert asked.new() == []


def test_a_word_that_means_nothing(plan: Plan) -> None:
    with pytest.raises(UserError, match="no stage begins with"):
        selection.chosen(plan, "nothing")
    assert selection.chosen(plan, None) == list(plan.stages)


def test_a_run_says_whom_it_waits_for(plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that another host holds and of which nothing is heard: not "starting"."""
    head = model(plan, "cls-retrain")
    store.add(head)
    monkeypatch.setenv("BENCH_HOST", "node-7")
    lease = store.acquire(head.key)
    assert lease is not None
    monkeypatch.delenv("BENCH_HOST")
    console = Console(file=io.StringIO(), width=200)
    with lease, Display(plan, store, console) as display:
        display.show(Progress(plan, set(), [], {}, {head.key}, 1))
    assert isinstance(console.file, io.StringIO)
    assert f"{head.key[:6]}  (another run does it, on node-7)" in console.file.getvalue()
