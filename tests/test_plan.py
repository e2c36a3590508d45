"""What is shared, what one pass makes, what rides with what, what is stale."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from bench.cli.open import open_suite
from bench.launch.submission import Dependencies
from bench.lineage import N_POST_HOC
from bench.plan import planning
from bench.plan.cost import Estimate
from bench.plan.jobs import JobPlan, fused_groups, make_jobs
from bench.plan.planning import Plan
from bench.stage import walk
from tests.conftest import Write
from tests.planned import COST, FUSED, SEVEN, FakeStore, job_with, model, named, plan_of, predict
from tests.test_imports import loaded


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seven") / "seven.yaml"
    path.write_text(SEVEN)
    return path


@pytest.fixture(scope="module")
def plan(seven: Path) -> Plan:
    return plan_of(seven)


@pytest.fixture
def full(plan: Plan) -> FakeStore:
    """Everything is done."""
    store = FakeStore()
    for stage in plan.stages.values():
        store.finish(stage)
    return store


# -- sharing


def test_seven_rows_share_a_baseline_and_data(plan: Plan) -> None:
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
    three = planning.make(open_suite(plan.suite.path, seeds="1,2,3"))
    assert len(three.stages) == 3 * len(plan.stages)
    assert len(three.rows) == 21
    assert three.needed_by[model(three, "RFS").key] == ("RFS",)


def test_only_says_what_it_pulls_in(plan: Plan) -> None:
    assert planning.pulled_in(planning.make(open_suite(plan.suite.path, only="BAGS"))) == ["baseline"]
    assert planning.pulled_in(planning.make(open_suite(plan.suite.path, only="RFS"))) == []


# -- jobs


def test_classifiers_over_one_frozen_trunk_are_fused(plan: Plan) -> None:
    groups = fused_groups(plan, plan.stages)
    assert [[plan.needed_by[key][0] for key in group] for group in groups] == [list(FUSED)]


@pytest.mark.parametrize("own", ["lr: 0.03", "steps: 50", "decay: none", "warmup: 7", "clip: null"])
def test_heads_over_one_trunk_may_differ_in_their_schedules(seven: Path, write: Write, own: str) -> None:
    text = SEVEN.replace("BAGS:          {method: bags,", f"BAGS:          {{method: bags, schedule: {{{own}}},")
    other = plan_of(write(text))
    assert model(other, "BAGS") != model(plan_of(seven), "BAGS")
    assert [[other.needed_by[k][0] for k in g] for g in fused_groups(other, other.stages)] == [list(FUSED)]


@pytest.mark.parametrize("own", ["batch: 8", "epochs: 3"])
def test_heads_that_see_other_batches_are_not_fused(write: Write, own: str) -> None:
    text = SEVEN.replace("BAGS:          {method: bags,", f"BAGS:          {{method: bags, schedule: {{{own}}},")
    other = plan_of(write(text))
    groups = fused_groups(other, other.stages)
    assert [[other.needed_by[key][0] for key in group] for group in groups] == [["cls-retrain", "re-weight-cls"]]


def test_jobs_of_seven_rows(plan: Plan) -> None:
    jobs = make_jobs(plan, set(plan.stages), Estimate(COST))
    assert sorted(key for job in jobs for key in job.keys) == sorted(plan.stages)
    chains = {label: named(plan, job_with(jobs, model(plan, label).key)) for label in ("baseline", "RFS", "BAGS")}
    assert chains["RFS"] == [["train RFS"], ["predict RFS"], ["evaluate RFS"]]
    assert chains["baseline"] == [
        ["train baseline"], ["patch tau-norm"], ["predict baseline", "predict tau-norm"], ["evaluate baseline"],
        ["evaluate tau-norm"],
    ]  # fmt: skip
    assert chains["BAGS"][:2] == [sorted(f"{kind} {label}" for label in FUSED) for kind in ("train", "predict")]
    assert chains["BAGS"][2:] == [[f"evaluate {label}"] for label in FUSED]
    assert len(jobs) == 5  # data, baseline, x2, RFS, the fused one


def test_within_a_job_what_is_made_comes_before_what_needs_it(plan: Plan) -> None:
    for job in make_jobs(plan, set(plan.stages), Estimate(COST)):
        seen: set[str] = set()
        for unit in job.units:
            for key in unit:
                inside = {i.key for i in plan.stages[key].inputs.values()} & set(job.keys)
                assert inside <= seen | ({key} if plan.stages[key].kind == "data" else set())
            seen |= set(unit)


def test_val_is_made_before_train_so_that_predictions_ride_in_their_training_s_job(plan: Plan) -> None:
    data = next(job for job in make_jobs(plan, set(plan.stages), Estimate(COST)) if job.units[0][0] in plan.stages
                and plan.stages[job.units[0][0]].kind == "data")  # fmt: skip
    assert [plan.stages[key].spec["split"] for key in data.keys] == ["val", "train"]
    missing = set(plan.stages) - set(data.keys)  # train is there: so is val, and nothing waits for it elsewhere
    base = next(job for job in make_jobs(plan, missing, Estimate(COST), done=set(data.keys))
                if model(plan, "baseline").key in job.keys)  # fmt: skip
    assert "predict" in {plan.stages[key].kind for key in base.keys}


def test_without_fusing_each_training_is_a_job(plan: Plan) -> None:
    jobs = make_jobs(plan, set(plan.stages), Estimate(COST), fuse=False)
    assert all(len(unit) == 1 for job in jobs for unit in job.units)
    assert len(jobs) == 7


def test_what_a_finished_model_lacks_is_one_job(plan: Plan) -> None:
    base = model(plan, "baseline")
    tail = [key for key, stage in plan.stages.items() if stage.kind in ("predict", "evaluate")]
    missing = {key for key in tail if plan.needed_by[key] == ("baseline",)}
    missing |= {key for key in plan.stages if plan.needed_by[key] == ("tau-norm",)}
    jobs = make_jobs(plan, missing, Estimate(COST))
    assert len(jobs) == 1
    assert {plan.needed_by[key][0] for key in jobs[0].keys} == {"baseline", "tau-norm"}
    assert is_ready(jobs[0], plan, {base.key} | {k for k, s in plan.stages.items() if s.kind == "data"})
    assert ["predict baseline", "predict tau-norm"] in named(plan, jobs[0])


def test_a_job_is_ready_when_all_it_reads_from_outside_is_done(plan: Plan) -> None:
    jobs = make_jobs(plan, set(plan.stages), Estimate(COST))
    data = {key for key, stage in plan.stages.items() if stage.kind == "data"}
    base = model(plan, "baseline").key
    ready_at_once = [job for job in jobs if is_ready(job, plan, ())]
    assert [set(job.keys) for job in ready_at_once] == [data]
    assert {model(plan, label).key for label in ("baseline", "RFS")} == {
        job.units[0][0] for job in jobs if is_ready(job, plan, data) and set(job.keys) != data
    }
    fused = job_with(jobs, model(plan, "BAGS").key)
    assert is_ready(fused, plan, data | {base})
    assert not is_ready(fused, plan, {base})  # its data is gone


def test_the_job_that_others_wait_for_comes_first(plan: Plan) -> None:
    missing = {key for key, stage in plan.stages.items() if stage.kind != "data"}
    jobs = make_jobs(plan, missing, Estimate(COST))
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


# -- which jobs wait for which


def is_ready(job: JobPlan, plan: Plan, done: Collection[str]) -> bool:
    """Whether a driver would submit it."""
    return Dependencies(plan).below(job) <= set(done)


def run_all(plan: Plan, start: Callable[[list[JobPlan]], JobPlan], failing: Collection[str] = ()) -> set[str]:
    """Do as the launcher does, one job at a time; what is done in the end. `start` chooses among ready jobs."""
    done: set[str] = set()
    failed: set[str] = set()
    while True:
        missing = set(plan.stages) - done - failed
        waiting = make_jobs(plan, missing, Estimate(COST), done=done)
        assert sorted(key for job in waiting for key in job.keys) == sorted(missing)
        ready = [job for job in waiting if is_ready(job, plan, done)]
        if not ready:
            return done
        for unit in start(ready).units:
            for key in unit:
                there = all(source.key in done for source in plan.stages[key].inputs.values())
                if key in failing:
                    failed.add(key)
                elif there:
                    done.add(key)


CROSSED = '''
"""Recipes whose stages need each other across jobs."""

from typing import ClassVar, Literal

from bench.method import Builder, Method, part
from bench.stage import Stage


class Crossed(Method):
    """Means of one model, used by another."""

    name: ClassVar[str] = "crossed"
    how: Literal["expert", "late", "sibling", "back"] = "expert"

    def plan(self, b: Builder) -> Stage:
        base = b.train()
        head = b.train(init=base, keep_classifier=False, trainable=("classifier",))
        means = part("ncm:ClassMeans", tap="box_features_pre_relu")
        expert = b.train(init=base, keep_classifier=True, classifier=near(b.fit(means, model=base)))
        if self.how == "expert":
            return expert
        if self.how == "late":  # a patch of the baseline that waits for the expert
            return b.wrap(base, near(b.fit(means, model=expert)))
        sibling = b.train(
            init=base, keep_classifier=False, trainable=("classifier",), classifier=near(b.fit(means, model=head))
        )
        if self.how == "sibling":  # a head that waits for a head of the same trunk
            return sibling
        return b.wrap(head, near(b.fit(means, model=sibling)))


def near(means):
    return part("ncm:NearestMean", means=means, tap="box_features_pre_relu", inner=part("softmax:Softmax"))
'''
CROSSED_ROWS = """\
  expert:        {method: crossed, how: expert}
  late:          {method: crossed, how: late}
  sibling:       {method: crossed, how: sibling}
  back:          {method: crossed, how: back}
methods_path: crossed.py
"""


@pytest.fixture
def crossed(write: Write) -> Plan:
    write(CROSSED, "crossed.py")
    return plan_of(write(SEVEN + CROSSED_ROWS))


@pytest.mark.parametrize("choose", [0, -1], ids=["first", "last"])
def test_no_two_jobs_wait_for_each_other(crossed: Plan, choose: int) -> None:
    assert run_all(crossed, lambda ready: ready[choose]) == set(crossed.stages)


def test_what_waits_for_more_does_not_ride(crossed: Plan) -> None:
    """A patch of the baseline that needs another model must not hold up the baseline's own job."""
    jobs = make_jobs(crossed, set(crossed.stages), Estimate(COST))
    data = {key for key, stage in crossed.stages.items() if stage.kind == "data"}
    base = model(crossed, "baseline").key
    assert is_ready(job_with(jobs, base), crossed, data)
    assert "fit expert" in [unit[0] for unit in named(crossed, job_with(jobs, base))]
    assert job_with(jobs, model(crossed, "late").key) is not job_with(jobs, base)
    heads = job_with(jobs, model(crossed, "BAGS").key)
    assert model(crossed, "sibling").key not in heads.keys
    assert is_ready(heads, crossed, data | {base})


def test_what_starts_from_a_training_need_not_wait_for_what_rides_with_it(plan: Plan) -> None:
    """The launcher asks again while the baseline's job goes on with its predictions."""
    jobs = make_jobs(plan, set(plan.stages), Estimate(COST))
    base = model(plan, "baseline").key
    running = set(job_with(jobs, base).keys)
    done = {key for key, stage in plan.stages.items() if stage.kind == "data"} | {base}
    rest = make_jobs(plan, set(plan.stages) - done - running, Estimate(COST), done=done)
    first = [set(job.units[0]) for job in rest if is_ready(job, plan, done)]
    heads = {model(plan, label).key for label in FUSED}
    assert all(unit in first for unit in ({model(plan, "x2").key}, {model(plan, "RFS").key}, heads))
    assert len(first) == 3


@pytest.mark.parametrize("label", ["BAGS", "x2", "tau-norm", "cls-retrain"])
def test_a_stage_that_fails_holds_nothing_up_but_its_row(plan: Plan, label: str) -> None:
    """Also where its job was killed before the predictions of the others: they must not wait for it."""
    bad = model(plan, label).key
    done = run_all(plan, lambda ready: ready[0], {bad})
    lost = {bad, predict(plan, label).key} | {s.key for s in plan.consumers(predict(plan, label).key)}
    assert set(plan.stages) - done == lost
    heads = {model(plan, name).key for name in FUSED}
    tails = {key for key, s in plan.stages.items() if s.kind in ("predict", "evaluate") and key not in lost}
    there = set(plan.stages) - tails - {bad}
    waiting = make_jobs(plan, tails, Estimate(COST), done=there)
    assert all(is_ready(job, plan, there) for job in waiting)
    assert heads <= there | {bad}


# -- predictions of one trunk, and features


def test_post_hoc_chains_ride_in_order(write: Write) -> None:
    rows = "  NCM: {method: ncm}\n  select: {method: tau_norm_select}\n"
    other = plan_of(write(SEVEN + rows))
    jobs = make_jobs(other, set(other.stages), Estimate(COST))
    chain = named(other, job_with(jobs, model(other, "baseline").key))
    assert chain[:3] == [["train baseline"], ["fit NCM"], ["patch tau-norm"]]
    assert chain[5] == ["predict NCM", "predict baseline", "predict select", "predict tau-norm"]
    assert [unit[0].split()[0] for unit in chain[6:]] == ["evaluate"] * 4
    base_done = {key for key, s in other.stages.items() if s.kind == "data"} | {model(other, "baseline").key}
    later = make_jobs(other, set(job_with(jobs, model(other, "NCM").key).keys) - base_done, Estimate(COST))
    assert [named(other, job) for job in later] == [chain[1:]]


def test_other_thresholds_are_another_pass(plan: Plan, seven: Path) -> None:
    other = plan_of(seven, "test.score_threshold=0.05")
    joined = Plan(plan.suite, (*plan.rows, *other.rows), {**plan.stages, **other.stages}, plan.needed_by, 0)
    groups = fused_groups(joined, joined.stages, "predict")
    assert sorted(len(group) for group in groups) == [2, 2, 3, 3]


def sweep(points: int) -> str:
    return SEVEN + f'  "tau={{tau}}": {{method: tau_norm, each: {{tau: {[i / 100 for i in range(points)]}}}}}\n'


@pytest.mark.parametrize("points", [N_POST_HOC - 2, N_POST_HOC - 1])
def test_a_sweep_of_post_hoc_rows_keeps_the_trunk_s_features(write: Write, points: int) -> None:
    other = plan_of(write(sweep(points)))
    kept = [stage for stage in other.stages.values() if stage.kind == "features"]
    if points + 1 < N_POST_HOC:  # tau-norm is a row of its own
        assert kept == []
        return
    (stage,) = kept
    assert stage.inputs["model"] == model(other, "baseline")
    assert stage.spec["taps"] == ["box_features"]
    assert stage.key not in {source.key for s in other.stages.values() for source in s.inputs.values()}
    assert other.needed_by[stage.key] == ("tau-norm", *(f"tau={i / 100:g}" for i in range(points)))
    job = job_with(make_jobs(other, set(other.stages), Estimate(COST)), stage.key)
    kinds = [other.stages[unit[0]].kind for unit in job.units]
    assert kinds.index("patch") < kinds.index("features") < kinds.index("predict")
    assert kinds.count("predict") == 1


def test_features_hold_the_taps_that_are_named(write: Write) -> None:
    other = plan_of(write(sweep(4) + "  NCM: {method: ncm}\n"))
    (stage,) = [stage for stage in other.stages.values() if stage.kind == "features"]
    assert stage.spec["taps"] == ["box_features", "box_features_pre_relu"]


def test_features_beyond_the_bound_are_not_planned_and_it_is_said(write: Write) -> None:
    other = plan_of(write(sweep(5)), "machine.features_mb=1")
    assert not [stage for stage in other.stages.values() if stage.kind == "features"]
    assert len(other.notes) == 1
    assert "machine.features_mb is 1" in other.notes[0]


# -- quick


def test_a_plan_of_24_heads_is_quick_and_needs_no_torch(write: Write, tmp_path: Path) -> None:
    values = [i / 2 for i in range(24)]
    path = write(SEVEN + f'  "beta={{beta}}": {{method: bags, each: {{beta: {values}}}}}\n')
    begun = time.process_time()
    other = plan_of(path)
    groups = fused_groups(other, other.stages)
    assert time.process_time() - begun < 1.0
    assert [len(group) for group in groups] == [24 + len(FUSED) - 1]  # beta=8 is the row BAGS
    code, modules = loaded(["plan", str(path)], tmp_path)
    assert code == 0
    assert "torch" not in modules


def test_describe_lists_rows_in_the_table_s_order(plan: Plan) -> None:
    keys = [model(plan, "BAGS").key, model(plan, "RFS").key]
    assert planning.describe(plan, keys) == "RFS, BAGS"


@pytest.mark.parametrize(
    ("label", "shared"), [("baseline", False), ("RFS", False), ("tau-norm", False), ("x2", True), ("BAGS", True)]
)
def test_a_rows_own_schedule_changes_its_last_training_and_no_other(seven: Path, label: str, shared: bool) -> None:
    """Also of a row that is one training, or a patch of one: a setting is never ignored in silence."""
    row = next(r for r in plan_of(seven, f"rows.{label}.schedule.steps=7").rows if r.label == label)
    assert row.evaluate is not None
    trainings = [stage for stage in walk(row.evaluate) if stage.kind == "train"]
    assert trainings[-1].spec["schedule"]["steps"] == 7
    assert [stage.spec["schedule"]["steps"] for stage in trainings[:-1]] == ([900] if shared else [])
