"""A job by itself: what it imports, what it takes for done, and that it never runs what is finished."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tiny_suite import ROOT, Undisturbed, attempts, copied, key_of, work

from bench.lineage import read_stage, sources
from bench.run.job import Job, Outcome
from bench.run.work import StopFlag
from bench.store.store import Store

LEAN = """
import json, sys
from bench.run.job import Job
from bench.spec import Machine
if __name__ == "__main__":
    store, machine, *keys = sys.argv[1:]
    outcomes = Job(store, tuple((key,) for key in keys), Machine.model_validate_json(machine))()
    drivers = ("mlflow", "optuna", "pandas", "matplotlib", "seaborn", "submitit", "rich", "typer")
    print(json.dumps([[outcome.state for outcome in outcomes.values()], [n for n in drivers if n in sys.modules]]))
"""


def test_a_job_needs_neither_mlflow_nor_pandas(smoke: Undisturbed, tmp_path: Path) -> None:
    """Train, predict and evaluate on a lean node: the driver's libraries stay unimported."""
    keys = [key_of(smoke.plan, "baseline", kind) for kind in ("train", "predict", "evaluate")]
    root = copied(smoke.root, tmp_path / "store", {k for k, s in smoke.plan.stages.items() if s.kind == "data"})
    for key in keys:
        Store(root).add(smoke.plan.stages[key])
    script = tmp_path / "lean.py"
    script.write_text(LEAN)
    machine = smoke.suite.sections.machine.model_dump_json()
    ran = subprocess.run(
        [sys.executable, str(script), str(root), machine, *keys], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    states, heavy = json.loads(ran.stdout.splitlines()[-1])
    assert states == ["done"] * 3
    assert heavy == []
    for key in keys:
        done, expected = Store(root).done(key), Store(smoke.root).done(key)
        assert done is not None
        assert expected is not None
        assert done.digest == expected.digest


def test_what_is_done_is_not_run(smoke: Undisturbed) -> None:
    before = attempts(smoke.plan, smoke.root)
    units = [(key,) for key in smoke.plan.stages]
    outcomes = work(smoke.root, smoke.suite, *units)
    assert outcomes == dict.fromkeys(smoke.plan.stages, Outcome("done"))
    assert attempts(smoke.plan, smoke.root) == before


def test_a_stopped_job_begins_nothing_more(smoke: Undisturbed, tmp_path: Path) -> None:
    key = key_of(smoke.plan, "baseline", "evaluate")
    root = copied(smoke.root, tmp_path / "store", set(smoke.plan.stages) - {key})
    Store(root).add(smoke.plan.stages[key])

    class Asked(StopFlag):
        def __bool__(self) -> bool:
            return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.run.job.StopFlag", Asked)
        assert work(root, smoke.suite, (key,)) == {key: Outcome("stopped")}
    assert Store(root).attempts(key) == []


def test_a_job_in_a_thread_does_without_signals(smoke: Undisturbed) -> None:
    key = key_of(smoke.plan, "baseline")
    found: list[dict[str, Outcome]] = []
    job = Job(str(smoke.root), ((key,),), smoke.suite.sections.machine)
    thread = threading.Thread(target=lambda: found.append(job()))
    thread.start()
    thread.join()
    assert found == [{key: Outcome("done")}]


def test_sources_are_the_whole_lineage(smoke: Undisturbed) -> None:
    key = key_of(smoke.plan, "BAGS", "evaluate")
    found = {stage.key: direct for stage, direct in sources(read_stage(Store(smoke.root).load, key))}
    head, base = key_of(smoke.plan, "BAGS"), key_of(smoke.plan, "baseline")
    data = {k for k, stage in smoke.plan.stages.items() if stage.kind == "data"}
    assert set(found) == data | {head, base, key_of(smoke.plan, "BAGS", "predict")}
    assert {k for k, direct in found.items() if direct} == data | {key_of(smoke.plan, "BAGS", "predict")}


def test_a_stage_that_nobody_wrote_down(smoke: Undisturbed, tmp_path: Path) -> None:
    outcomes = work(tmp_path / "empty", smoke.suite, ("0" * 64,))
    assert outcomes["0" * 64].state == "failed"
    assert outcomes["0" * 64].code == 2
    assert "no stage 000000000000 in this store" in outcomes["0" * 64].message
