"""Suites that are only planned, and a store that says what a test tells it. Shared by the tests of plan and cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.cli.open import open_suite
from bench.plan import planning
from bench.plan.jobs import JobPlan
from bench.plan.planning import Plan
from bench.stage import Stage
from bench.suite.sections import Cost

COST = Cost(train_step=0.2, classifier_step=0.05, data=20.0, predict=15.0, evaluate=5.0, start=6.0)
FUSED = ("cls-retrain", "re-weight-cls", "BAGS")
# Seven rows, each a mechanism of its own.
SEVEN = """\
preset: cpu
schedule: {steps: 900, batch: 16, lr: 0.06}
stages:
  second: {steps: 300, lr: 0.02}
  classifier_only: {steps: 1337, lr: 0.02}
seeds: [0]
rows:
  baseline:      {method: baseline}
  x2:            {method: x2, schedule: {steps: 900}}
  RFS:           {method: rfs, t: {images: 57}, rounding: stochastic}
  cls-retrain:   {method: cls_retrain, keep_classifier: true}
  re-weight-cls: {method: reweight, trainable: classifier, clip: [0.01, 5]}
  tau-norm:      {method: tau_norm, tau: 1.0, background: scaled}
  BAGS:          {method: bags, beta: 8}
"""


@dataclass
class Finished:
    """bench.plan.cost.Finished."""

    digest: str
    inputs: Mapping[str, str]
    seconds: float = 10.0
    extra: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=lambda: {"file": 2_000_000})


@dataclass
class FakeStore:
    """bench.plan.planning.StoreView."""

    finished: dict[str, Finished] = field(default_factory=dict)
    at_work: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)
    stages: dict[str, Stage] = field(default_factory=dict)
    folder: Path = Path("/nowhere")

    def done(self, key: str) -> Finished | None:
        return self.finished.get(key)

    def running(self, key: str) -> object | None:
        return key if key in self.at_work else None

    def failure(self, key: str) -> object | None:
        return key if key in self.failed else None

    def attempts(self, key: str) -> list[Path]:
        return [Path("1")] if key in self.tried else []

    def keys(self) -> list[str]:
        return sorted(self.stages)

    def load(self, key: str) -> dict[str, Any]:
        return self.stages[key].to_json()

    def output(self, key: str) -> Path:
        return self.folder / key

    def finish(self, stage: Stage, content: str = "", seconds: float = 10.0, **extra: float) -> None:
        inputs = {name: self.finished[source.key].digest for name, source in stage.inputs.items()}
        self.finished[stage.key] = Finished(content or stage.key, inputs, seconds, extra)
        self.stages[stage.key] = stage


def plan_of(path: Path, *sets: str, only: str | None = None) -> Plan:
    """The plan of a suite file."""
    return planning.make(open_suite(path, sets=sets, only=only))


def model(plan: Plan, label: str) -> Stage:
    """The stage whose model a row evaluates."""
    return predict(plan, label).inputs["model"]


def predict(plan: Plan, label: str) -> Stage:
    """The predict stage of a row."""
    row = next(row for row in plan.rows if row.label == label)
    assert row.evaluate is not None
    return row.evaluate.inputs["predict"]


def named(plan: Plan, job: JobPlan) -> list[list[str]]:
    """The units of a job as kinds with the first row that needs them, sorted inside a unit."""
    return [sorted(f"{plan.stages[k].kind} {plan.needed_by[k][0]}" for k in unit) for unit in job.units]


def job_with(jobs: list[JobPlan], key: str) -> JobPlan:
    """The one job that makes a stage."""
    found = [job for job in jobs if key in job.keys]
    assert len(found) == 1
    return found[0]
