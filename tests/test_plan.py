"""What is shared, what is fused, what rides with what, what is stale, what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench import commands
from bench import plan as planning
from bench.plan import Estimate, JobPlan, Plan
from bench.stage import Stage, walk
from bench.suite import Cost
from tests.conftest import ROOT, Write

COST = Cost(train_step=0.2, classifier_step=0.05, data=20.0, predict=15.0, evaluate=5.0, start=6.0)
FUSED = ("cls-retrain", "re-weight-cls", "BAGS")


@dataclass
class Finished:
    digest: str
    inputs: Mapping[str, str]
    seconds: float = 10.0


@dataclass
class FakeStore:
    """A store that says what a test tells it (bench.plan.StoreView)."""

    finished: dict[str, Finished] = field(default_factory=dict)
    at_work: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)

    def done(self, key: str) -> Finished | None:
        return self.finished.get(key)

    def running(self, key: str) -> object | None:
        return key if key in self.at_work else None

    def failure(self, key: str) -> object | None:
        return key if key in self.failed else None

    def attempts(self, key: str) -> list[Path]:
        return [Path("1")] if key in self.tried else []

    def finish(self, stage: Stage, content: str = "", seconds: float = 10.0) -> None:
        inputs = {name: self.finished[source.key].digest for name, source in stage.inputs.items()}
        self.finished[stage.key] = Finished(content or stage.key, inputs, seconds)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planning.make(commands.open_suite(ROOT / "suites" / "table1.yaml"))


@pytest.fixture
def full(plan: Plan) -> FakeStore:
    """Everything is done."""
    store = FakeStore()
    for stage in plan.stages.values():
        store.finish(stage)
    return store


def model(plan: Plan, label: str) -> Stage:
    row = next(row for row in plan.rows if row.label == label)
    assert row.evaluate is not None
    return row.evaluate.inputs["predict"].inputs["model"]


def named(plan: Plan, job: JobPlan) -> list[tuple[str, ...]]:
    """The units of a job as kinds with the first row that needs them."""
    return [tuple(f"{plan.stages[k].kind} {plan.needed_by[k][0]}" for k in unit) for unit in job.units]


def job_with(jobs: list[JobPlan], key: str) -> JobPlan:
    found = [job for job in jobs if key in job.keys]
    assert len(found) == 1
    return found[0]


# -- sharing


def test_table1_shares_its_baseline_and_its_data(plan: Plan) -> None:
    kinds = [stage.kind for stage in plan.stages.values()]
    assert [kinds.count(kind) for kind in ("data", "train", "patch", "predict", "evaluate")] == [2, 6, 1, 7, 7]
    # 7 rows x (2 data + train + predict + evaluate), and for five of them a second training or a patch.
    assert plan.unshared == 7 * 5 + 5
    assert plan.needed_by[model(plan, "baseline").key] == ("baseline", "x2", *FUSED[:2], "tau-norm", "BAGS")
    assert plan.needed_by[model(plan, "RFS").key] == ("RFS",)


def test_inputs_come_before_consumers(plan: Plan) -> None:
    order = list(plan.stages)
    for key, stage in plan.stages.items():
        assert all(order.index(source.key) < order.index(key) for source in stage.inputs.values())
        assert all(key in {i.key for i in other.inputs.values()} for other in plan.consumers(key))


def test_seeds_multiply(plan: Plan) -> None:
    three = planning.make(commands.open_suite(ROOT / "suites" / "table1.yaml", seeds="1,2,3"))
    assert len(three.stages) == 3 * len(plan.stages)
    assert len(three.rows) == 21
    assert three.needed_by[model(three, "RFS").key] == ("RFS",)


def test_only_says_what_it_pulls_in(plan: Plan) -> None:
    assert planning.pulled_in(planning.make(commands.open_suite(plan.suite.path, only="BAGS"))) == ["baseline"]
    assert planning.pulled_in(planning.make(commands.open_suite(plan.suite.path, only="RFS"))) == []


# -- jobs


def test_classifiers_over_one_frozen_trunk_are_fused(plan: Plan) -> None:
    groups = planning.fused_groups(plan, plan.stages)
    assert [[plan.needed_by[key][0] for key in group] for group in groups] == [list(FUSED)]


def test_what_differs_in_more_than_the_classifier_is_not_fused(write: Write) -> None:
    text = (ROOT / "suites" / "table1.yaml").read_text()
    text = text.replace("BAGS:          {method: bags,", "BAGS:          {method: bags, schedule: {lr: 0.03},")
    other = planning.make(commands.open_suite(write(text)))
    groups = planning.fused_groups(other, other.stages)
    assert [[other.needed_by[key][0] for key in group] for group in groups] == [["cls-retrain", "re-weight-cls"]]


def test_jobs_of_table1(plan: Plan) -> None:
    jobs = planning.jobs(plan, set(plan.stages), Estimate(COST))
    assert sorted(key for job in jobs for key in job.keys) == sorted(plan.stages)
    chains = {label: named(plan, job_with(jobs, model(plan, label).key)) for label in ("baseline", "RFS", "BAGS")}
    assert chains["RFS"] == [("train RFS",), ("predict RFS",), ("evaluate RFS",)]
    assert chains["baseline"] == [
        ("train baseline",), ("predict baseline",), ("evaluate baseline",),
        ("patch tau-norm",), ("predict tau-norm",), ("evaluate tau-norm",),
    ]  # fmt: skip
    assert sorted(chains["BAGS"][0]) == sorted(f"train {label}" for label in FUSED)
    assert sorted(unit[0] for unit in chains["BAGS"][1:]) == sorted(
        f"{kind} {label}" for label in FUSED for kind in ("predict", "evaluate")
    )
    assert len(jobs) == 5  # data, baseline, x2, RFS, the fused one


def test_within_a_job_what_is_made_comes_before_what_needs_it(plan: Plan) -> None:
    for job in planning.jobs(plan, set(plan.stages), Estimate(COST)):
        seen: set[str] = set()
        for unit in job.units:
            for key in unit:
                inside = {i.key for i in plan.stages[key].inputs.values()} & set(job.keys)
                assert inside <= seen | ({key} if plan.stages[key].kind == "data" else set())
            seen |= set(unit)


def test_without_fusing_each_training_is_a_job(plan: Plan) -> None:
    jobs = planning.jobs(plan, set(plan.stages), Estimate(COST), fuse=False)
    assert all(len(unit) == 1 for job in jobs for unit in job.units)
    assert len(jobs) == 7


def test_what_a_finished_model_lacks_is_one_job(plan: Plan) -> None:
    base = model(plan, "baseline")
    tail = [key for key, stage in plan.stages.items() if stage.kind in ("predict", "evaluate")]
    missing = {key for key in tail if plan.needed_by[key] == ("baseline",)}
    missing |= {key for key in plan.stages if plan.needed_by[key] == ("tau-norm",)}
    jobs = planning.jobs(plan, missing, Estimate(COST))
    assert len(jobs) == 1
    assert {plan.needed_by[key][0] for key in jobs[0].keys} == {"baseline", "tau-norm"}
    assert planning.ready(jobs[0], plan, {base.key} | {k for k, s in plan.stages.items() if s.kind == "data"})


def test_a_job_is_ready_when_all_it_reads_from_outside_is_done(plan: Plan) -> None:
    jobs = planning.jobs(plan, set(plan.stages), Estimate(COST))
    data = {key for key, stage in plan.stages.items() if stage.kind == "data"}
    base = model(plan, "baseline").key
    ready_at_once = [job for job in jobs if planning.ready(job, plan, ())]
    assert [set(job.keys) for job in ready_at_once] == [data]
    assert {model(plan, label).key for label in ("baseline", "RFS")} == {
        job.units[0][0] for job in jobs if planning.ready(job, plan, data) and set(job.keys) != data
    }
    fused = job_with(jobs, model(plan, "BAGS").key)
    assert planning.ready(fused, plan, data | {base})
    assert not planning.ready(fused, plan, {base})  # its data is gone


def test_the_job_that_others_wait_for_comes_first(plan: Plan) -> None:
    missing = {key for key, stage in plan.stages.items() if stage.kind != "data"}
    jobs = planning.jobs(plan, missing, Estimate(COST))
    order = [plan.needed_by[job.units[0][0]][0] for job in jobs]
    assert order.index("baseline") < order.index("RFS")  # as long, but x2 and the fused job start from it


# -- what is done


def test_done_running_failed_partial_missing(plan: Plan, full: FakeStore) -> None:
    assert set(planning.states(plan, full).values()) == {"done"}
    keys = [model(plan, label).key for label in ("baseline", "x2", "RFS", "BAGS")]
    for key in keys:
        del full.finished[key]
    full.at_work, full.failed, full.tried = {keys[0]}, {keys[1]}, {keys[1], keys[2]}
    found = planning.states(plan, full)
    assert [found[key] for key in keys] == ["running", "failed", "partial", "missing"]


def test_a_stage_made_from_other_inputs_is_stale(plan: Plan, full: FakeStore) -> None:
    base, bags = model(plan, "baseline"), model(plan, "BAGS")
    full.finish(base, "another content")
    assert planning.fresh(base, full)
    stale = {key for key in plan.stages if not planning.fresh(plan.stages[key], full)}
    assert stale == {s.key for s in plan.consumers(base.key)}
    full.finish(bags)
    assert planning.fresh(bags, full)


def test_a_stage_whose_input_is_gone_is_not_stale(plan: Plan, full: FakeStore) -> None:
    base = model(plan, "baseline")
    del full.finished[base.key]
    assert {key for key in plan.stages if not planning.fresh(plan.stages[key], full)} == {base.key}
    full.finish(base)  # redone with the digest that its consumers were made from: nothing else runs
    assert all(planning.fresh(stage, full) for stage in plan.stages.values())


# -- cost


def test_declared_cost(plan: Plan) -> None:
    estimate = Estimate(COST)
    assert estimate(model(plan, "baseline")) == pytest.approx(900 * 0.2)
    assert estimate(model(plan, "BAGS")) == pytest.approx(1337 * 0.05)
    assert sum(estimate(s) or 0 for s in plan.stages.values() if s.kind == "data") == pytest.approx(20)
    assert Estimate(Cost())(model(plan, "baseline")) is None


def test_measured_cost_comes_before_the_declared_one(plan: Plan, full: FakeStore) -> None:
    full.finish(model(plan, "baseline"), seconds=900 * 0.5)
    full.finish(model(plan, "RFS"), seconds=900 * 0.7)
    for label in ("x2", "BAGS"):
        del full.finished[model(plan, label).key]
    estimate = planning.learned(plan, full)
    assert estimate(model(plan, "x2")) == pytest.approx(900 * 0.6)
    assert estimate(model(plan, "BAGS")) == pytest.approx(10.0)  # 10 s each took its siblings


def test_seconds_a_step_do_not_price_an_epoch(write: Write) -> None:
    text = (ROOT / "suites" / "table1.yaml").read_text().replace("schedule: {steps: 900", "schedule: {epochs: 12")
    other = planning.make(commands.open_suite(write(text)))
    assert Estimate(COST)(model(other, "baseline")) is None
    store = FakeStore()
    for stage in other.stages.values():
        store.finish(stage, seconds=120.0)
    del store.finished[model(other, "RFS").key]
    assert planning.learned(other, store)(model(other, "RFS")) == pytest.approx(120.0)


def test_fusing_and_a_second_process_cost_less(plan: Plan) -> None:
    missing, estimate = set(plan.stages), Estimate(COST)
    wall = {
        (slots, fuse): planning.wall_seconds(plan, missing, estimate, slots, fuse=fuse)
        for slots in (1, 2, 8)
        for fuse in (True, False)
    }
    path = planning.critical_path(plan, missing, estimate)
    values = {k: v for k, v in wall.items() if v is not None}
    assert len(values) == 6
    assert path is not None
    assert all(values[slots, True] < values[slots, False] for slots in (1, 2))
    assert values[1, True] > values[2, True] >= values[8, True] > path
    # One process, by hand: data 20; 3 x 900 steps; one pass of 1337; 1 patch; 7 x (15 + 5); 5 starts.
    assert values[1, True] == pytest.approx(20 + 3 * 180 + 1337 * 0.05 + 0.1 + 7 * 20 + 5 * 6)
    # Data (its longer split), baseline, x2 (as long as a fused pass and more), predict, evaluate.
    assert path == pytest.approx(18 + 180 + 180 + 15 + 5)


def test_nothing_missing_costs_nothing(plan: Plan) -> None:
    estimate = Estimate(Cost())
    assert planning.wall_seconds(plan, set(), estimate, 2) == 0
    assert planning.critical_path(plan, set(), estimate) == 0
    assert planning.wall_seconds(plan, set(plan.stages), estimate, 2) is None
    assert planning.critical_path(plan, set(plan.stages), estimate) is None


def test_describe_lists_rows_in_the_table_s_order(plan: Plan) -> None:
    keys = [model(plan, "BAGS").key, model(plan, "RFS").key]
    assert planning.describe(plan, keys) == "RFS, BAGS"


@pytest.mark.parametrize(
    ("label", "shared"), [("baseline", False), ("RFS", False), ("tau-norm", False), ("x2", True), ("BAGS", True)]
)
def test_a_rows_own_schedule_changes_its_last_training_and_no_other(label: str, shared: bool) -> None:
    """Also of a row that is one training, or a patch of one: a setting is never ignored in silence."""
    sets = [f"rows.{label}.schedule.steps=7"]
    row = next(
        r
        for r in planning.make(commands.open_suite(ROOT / "suites" / "table1.yaml", sets=sets)).rows
        if r.label == label
    )
    assert row.evaluate is not None
    trainings = [stage for stage in walk(row.evaluate) if stage.kind == "train"]
    assert trainings[-1].spec["schedule"]["steps"] == 7
    assert [stage.spec["schedule"]["steps"] for stage in trainings[:-1]] == ([900] if shared else [])
