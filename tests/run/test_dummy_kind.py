"""A kind of stage is one entry of KINDS and one file: planner, jobs, store and terminal take it as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console

from bench.cli.open import open_suite
from bench.cli.overview import overview
from bench.lineage import fresh
from bench.plan import planning
from bench.plan.jobs import make_jobs
from bench.plan.planning import Plan
from bench.run.checkpoint import read_tensors
from bench.stage import KINDS
from bench.store.store import Store
from bench.suite import clusters
from tests.conftest import TINY
from tests.run.census_kind import ENTRY
from tests.tiny_suite import bring

METHOD = '''
"""A training that draws images of classes as often as a stage of a new kind says."""

from typing import ClassVar

from bench.method import Builder, Method, part
from bench.stage import Stage


class Counted(Method):
    """Train on a sampler that reads a census."""

    name: ClassVar[str] = "counted"

    def plan(self, b: Builder) -> Stage:
        census = Stage("census", {"what": "boxes", "times": 2}, {"data": b.data("train")})
        return b.train(sampler=part("PATH:ByCensus", counts=census))
'''
SAMPLER = '''
"""Shows each image once; says what it was handed."""

import numpy as np

VERSION = 1


class ByCensus:
    """In order."""

    def __init__(self, stats, *, counts):
        assert counts["counts"].tolist() == [2.0 * n for n in stats.instance_counts], "the tensors of the census"
        self._images = stats.num_images

    def epoch(self, e, rng):
        return np.arange(self._images)
'''


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plan:
    monkeypatch.setitem(KINDS, "census", ENTRY)
    (tmp_path / "sampler.py").write_text(SAMPLER)
    (tmp_path / "counted.py").write_text(METHOD.replace("PATH", str(tmp_path / "sampler.py")))
    text = TINY.replace("BAGS: {method: bags, beta: 8}", "counted: {method: counted}")
    (tmp_path / "tiny.yaml").write_text(text + "methods_path: counted.py\n")
    return planning.make(open_suite(tmp_path / "tiny.yaml"))


def the(plan: Plan, kind: str) -> str:
    (found,) = (key for key, stage in plan.stages.items() if stage.kind == kind)
    return found


def test_it_is_planned_in_a_job_of_its_own_before_what_reads_it(plan: Plan) -> None:
    census = the(plan, "census")
    (reader,) = plan.consumers(census)
    assert reader.kind == "train"
    jobs = make_jobs(plan, plan.stages, planning.learned(plan, Store(Path("nowhere"))))
    assert [job.units for job in jobs if census in job.keys] == [((census,),)]
    assert not any({census, reader.key} <= set(job.keys) for job in jobs)


def test_it_runs_and_hands_its_tensors_to_a_part(plan: Plan, tmp_path: Path) -> None:
    root = tmp_path / "store"
    outcomes = bring(plan.suite, root)
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    store, census = Store(root), plan.stages[the(plan, "census")]
    counts = read_tensors(store.output(census.key) / "census.safetensors")["counts"]
    assert counts.sum() > 0
    assert torch.equal(counts, counts.round())
    assert store.load(census.key)["version"] == 3
    assert fresh(census, store.done)
    assert planning.states(plan, store) == dict.fromkeys(plan.stages, "done")


def test_the_terminal_shows_it(plan: Plan, tmp_path: Path) -> None:
    console = Console(width=200, record=True)
    view = overview(plan.suite, tmp_path / "store")
    view.print(console)
    shown = console.export_text()
    assert "census" in shown
    assert {one["kind"] for one in view.to_json()["stages"]} == {"data", "census", "train", "predict", "evaluate"}


def test_a_cluster_s_file_may_name_it(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("kind: slurm\nstages:\n  census: {mem_gb: 3}\n")
    assert clusters.read(str(tmp_path / "mine.yaml")).of({"census"}).mem_gb == 3
