"""What a plan costs: declared, measured, of passes that several share, and how to find out."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from bench.cli.open import open_suite
from bench.cli.overview import Overview, compare
from bench.cli.status import show
from bench.plan import cost, forecast, planning
from bench.plan.cost import Estimate, Peak
from bench.plan.planning import Plan
from bench.stage import rung
from bench.store.store import Store
from bench.suite.sections import Cost
from tests.conftest import Write
from tests.planned import COST, FUSED, SEVEN, FakeStore, model, plan_of, predict


@pytest.fixture
def plan(write: Write) -> Plan:
    return plan_of(write(SEVEN, "seven.yaml"))


@pytest.fixture
def full(plan: Plan) -> FakeStore:
    store = FakeStore()
    for stage in plan.stages.values():
        store.finish(stage)
    return store


def without(store: FakeStore, plan: Plan, *labels: str) -> FakeStore:
    for label in labels:
        del store.finished[model(plan, label).key]
    return store


# -- seconds


def test_declared_cost(plan: Plan) -> None:
    estimate = Estimate(COST)
    assert estimate(model(plan, "baseline")) == pytest.approx(900 * 0.2)
    assert estimate(model(plan, "BAGS")) == pytest.approx(1337 * 0.05)
    assert sum(estimate(s) or 0 for s in plan.stages.values() if s.kind == "data") == pytest.approx(20)
    assert Estimate(Cost())(model(plan, "baseline")) is None


def test_measured_cost_comes_before_the_declared_one(plan: Plan, full: FakeStore) -> None:
    full.finish(model(plan, "baseline"), seconds=900 * 0.5)
    full.finish(model(plan, "RFS"), seconds=900 * 0.7)
    estimate = planning.learned(plan, without(full, plan, "x2", "BAGS"))
    assert estimate(model(plan, "x2")) == pytest.approx(900 * 0.6)
    assert estimate(model(plan, "BAGS")) == pytest.approx(10.0)  # 10 s each took its siblings


def test_what_is_declared_is_scaled_to_the_machine_of_the_store(plan: Plan) -> None:
    """Declared are 180 s of the baseline, which took 450: the heads' 1337 steps of 0.05 s take 2.5 times as long."""
    store = FakeStore()
    store.finish(model(plan, "baseline").inputs["train"])
    store.finish(model(plan, "baseline"), seconds=450.0)
    estimate = cost.learned(plan.stages.values(), COST, store)
    assert estimate.pace == pytest.approx(2.5)
    assert estimate(model(plan, "BAGS")) == pytest.approx(1337 * 0.05 * 2.5)
    assert estimate(predict(plan, "BAGS")) == pytest.approx(estimate.pace * (COST.predict or 0))


def test_a_short_training_does_not_tell_how_fast_a_machine_is(write: Write) -> None:
    plan = plan_of(write(SEVEN.replace("schedule: {steps: 900,", "schedule: {steps: 20,")))
    store = FakeStore()
    store.finish(model(plan, "baseline").inputs["train"])
    store.finish(model(plan, "baseline"), seconds=30.0)  # of it 26 are imports
    assert cost.learned(plan.stages.values(), COST, store).pace == 1.0


def test_a_long_run_weighs_more_than_a_short_one(write: Write) -> None:
    plan = plan_of(write(SEVEN.replace("schedule: {steps: 900}}", "schedule: {steps: 100}}")))
    store = FakeStore()
    for stage in plan.stages.values():
        store.finish(stage)
    store.finish(model(plan, "baseline"), seconds=900.0)
    store.finish(model(plan, "x2"), seconds=300.0)
    estimate = planning.learned(plan, without(store, plan, "RFS"))
    assert estimate(model(plan, "RFS")) == pytest.approx(900 * 1200 / 1000)


def test_seconds_a_step_do_not_price_an_epoch(write: Write) -> None:
    other = plan_of(write(SEVEN.replace("schedule: {steps: 900,", "schedule: {epochs: 12,")))
    assert Estimate(COST)(model(other, "baseline")) is None
    store = FakeStore()
    for stage in other.stages.values():
        store.finish(stage, seconds=120.0)
    estimate = planning.learned(other, without(store, other, "RFS"))
    assert estimate(model(other, "RFS")) == pytest.approx(120.0)


def test_counted_pictures_price_an_epoch_in_steps(write: Write, tmp_path: Path) -> None:
    other = plan_of(write(SEVEN.replace("schedule: {steps: 900,", "schedule: {epochs: 12,")))
    store = FakeStore(folder=tmp_path)
    for stage in other.stages.values():
        if stage.kind == "data":
            store.finish(stage)
            (tmp_path / stage.key).mkdir()
            counts = {"instances": [3, 5], "images": [2, 2], "num_images": 1600}
            (tmp_path / stage.key / "counts.json").write_text(json.dumps(counts))
    estimate = planning.learned(Plan(other.suite, other.rows, other.stages, other.needed_by, 0), store)
    estimate.cost = COST
    assert estimate(model(other, "baseline")) == pytest.approx(12 * 100 * 0.2)


def test_a_pre_training_costs_its_views_and_what_it_leaves_out_costs_nothing(write: Write) -> None:
    rows = """
  HCL:   {method: drcl, local: 0, semantic: 0, appearance: 0}
  2DRCL: {method: drcl}
  again: {method: drcl, boxes: 6}
"""
    plan = plan_of(
        write(SEVEN.partition("rows:")[0].replace("stages:", "stages:\n  pretrain: {steps: 100}") + "rows:" + rows)
    )
    first = {row: model(plan, row).inputs["init"] for row in ("HCL", "2DRCL", "again")}
    assert Estimate(COST)(first["2DRCL"]) == pytest.approx(100 * 0.2 * (1 + 2 * 0.65))  # as declared, with two views
    estimate = Estimate(COST)
    store = FakeStore()
    store.finish(first["2DRCL"].inputs["train"])
    store.finish(first["2DRCL"], seconds=90.0)
    estimate.learn(first["2DRCL"], store.finished[first["2DRCL"].key])
    assert estimate(first["again"]) == pytest.approx(90.0)
    assert estimate(model(plan, "2DRCL")) == pytest.approx(900 * 0.2)  # the detector's own steps tell nothing of these
    assert estimate(first["HCL"]) == pytest.approx(100 * 0.2 * (1 + 2 * 0.65))  # nor do those of other components


def test_of_a_pass_each_stage_has_its_own_price(plan: Plan, full: FakeStore) -> None:
    """A pass of 70 s: 40 s for the trunk, 10 s for each of three heads."""
    for label in FUSED:
        full.finish(model(plan, label), seconds=70.0, fused=3, shared_seconds=40.0, own_seconds=10.0, part=1.0)
    estimate = planning.learned(plan, full)
    heads = [model(plan, label) for label in FUSED]
    assert estimate(heads[0]) == pytest.approx(50.0)
    assert estimate.unit(heads) == pytest.approx(70.0)
    assert estimate.unit(heads[:2]) == pytest.approx(60.0)


def test_a_resumed_stage_tells_what_it_did_itself(plan: Plan, full: FakeStore) -> None:
    store = without(full, plan, "RFS", "x2")
    store.finish(model(plan, "baseline"), seconds=45.0, shared_seconds=45.0, own_seconds=0.0, part=0.25)
    assert planning.learned(plan, store)(model(plan, "RFS")) == pytest.approx(180.0)


def test_a_rung_costs_its_own_steps(plan: Plan, full: FakeStore) -> None:
    """And tells what a step takes, also where it continued from a shorter one: 50 of its 150 steps in 20 s."""
    head = model(plan, "BAGS")
    assert Estimate(COST)(rung(model(plan, "baseline"), 300)) == pytest.approx(300 * 0.2)
    assert Estimate(COST)(rung(head, 100)) == pytest.approx(100 * 0.05)
    store, early = without(full, plan, "baseline", "RFS", "x2"), rung(model(plan, "RFS"), 150)
    store.finish(early, seconds=20.0, shared_seconds=20.0, own_seconds=0.0, part=1 / 3)
    estimate = planning.learned(plan, store)
    assert estimate(model(plan, "RFS")) == pytest.approx(900 * 20 / 50)
    assert estimate(early) == pytest.approx(150 * 20 / 50)


def test_a_rung_of_epochs_costs_its_own_epochs(write: Write, tmp_path: Path) -> None:
    other = plan_of(write(SEVEN.replace("schedule: {steps: 900,", "schedule: {epochs: 12,")))
    whole, store = model(other, "baseline"), FakeStore(folder=tmp_path)
    store.finish(whole.inputs["train"])
    store.finish(whole, seconds=120.0)
    estimate = planning.learned(other, store)
    assert estimate(rung(whole, 3)) == pytest.approx(30.0)
    counted = Estimate(COST, images={whole.inputs["train"].key: 1600})
    assert counted(rung(whole, 3)) == pytest.approx(3 * 100 * 0.2)


def test_a_short_probe_of_another_suite_teaches(plan: Plan, write: Write) -> None:
    """Its stages have other keys; what a step takes does not depend on the length."""
    store = FakeStore()
    probe = plan_of(plan.suite.path, "schedule.steps=20", only="RFS")
    for stage in probe.stages.values():
        store.finish(stage, seconds=8.0)
    assert model(probe, "RFS").key not in plan.stages
    assert planning.learned(plan, store)(model(plan, "baseline")) == pytest.approx(900 * 8 / 20)
    other = plan_of(plan.suite.path, "schedule.batch=8")
    assert planning.learned(other, store)(model(other, "baseline")) == pytest.approx(900 * 0.18)  # the preset's


def test_a_stage_that_cannot_be_read_teaches_nothing(plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.add(model(plan, "RFS"))  # without the stages below it
    (tmp_path / "store" / ("0" * 64)).mkdir()
    (tmp_path / "store" / ("0" * 64) / "stage.json").write_text("{")
    assert planning.learned(plan, store)(model(plan, "baseline")) == pytest.approx(900 * 0.18)


def test_fusing_and_a_second_process_cost_less(plan: Plan) -> None:
    missing, estimate = set(plan.stages), Estimate(COST)
    wall = {
        (slots, fuse): forecast.wall_seconds(plan, missing, estimate, slots, fuse=fuse) or 0.0
        for slots in (1, 2, 8)
        for fuse in (True, False)
    }
    path = forecast.critical_path(plan, missing, estimate)
    assert path is not None
    assert all(wall[slots, True] < wall[slots, False] for slots in (1, 2))
    assert wall[1, True] > wall[2, True] >= wall[8, True] > path
    # One process, by hand: data 20; 3 x 900 steps; one pass of 1337; 1 patch; 7 evaluations; 5 starts; predictions in
    # four passes (baseline with tau-norm, x2, RFS, the heads).
    assert wall[1, True] == pytest.approx(20 + 3 * 180 + 1337 * 0.05 + 0.1 + 4 * 15 + 7 * 5 + 5 * 6)
    # Data (its longer split), baseline, x2 (as long as a fused pass and more), predict, evaluate.
    assert path == pytest.approx(18 + 180 + 180 + 15 + 5)


def test_nothing_missing_costs_nothing(plan: Plan) -> None:
    estimate = Estimate(Cost())
    assert forecast.wall_seconds(plan, set(), estimate, 2) == 0
    assert forecast.critical_path(plan, set(), estimate) == 0
    assert forecast.wall_seconds(plan, set(plan.stages), estimate, 2) is None
    assert forecast.critical_path(plan, set(plan.stages), estimate) is None


def test_trainings_with_and_without_sharing_and_fusing(plan: Plan) -> None:
    together = forecast.passes(plan, Estimate(COST))
    # baseline, x2, RFS and one pass of three heads; singly, 6 rows train the baseline and 4 of them go on from it.
    assert (together.passes, together.singly) == (4, 11)
    assert together.seconds == pytest.approx(3 * 180 + 1337 * 0.05)
    assert together.singly_seconds == pytest.approx(8 * 180 + 3 * 1337 * 0.05)
    apart = forecast.passes(plan, Estimate(COST), fuse=False)
    assert (apart.passes, apart.singly) == (6, 11)
    assert forecast.passes(plan, Estimate(Cost())).seconds is None
    assert forecast.passes(plan, Estimate(COST), "predict").passes == 4


# -- memory


def test_memory_is_that_of_the_hungriest_stage(plan: Plan) -> None:
    """As declared; then as stages of the same shape took it, of before that was recorded not at all."""
    store, declared = FakeStore(), COST.model_copy(update={"host_mb": 700.0, "gpu_mb": 90.0})
    assert forecast.peak(plan, plan.stages, Estimate(COST)) is None
    assert forecast.peak(plan, plan.stages, Estimate(declared)) == Peak(700.0, 90.0)
    store.finish(model(plan, "baseline").inputs["train"])
    store.finish(model(plan, "baseline"), host_mb=1200.0, gpu_mb=3000.5)
    estimate = cost.learned(plan.stages.values(), declared, store)
    assert estimate.peak(model(plan, "x2")) == Peak(1200.0, 3000.5)
    assert estimate.peak(model(plan, "BAGS")) == Peak(700.0, 90.0)
    assert forecast.peak(plan, plan.stages, estimate) == Peak(1200.0, 3000.5)
    store.finish(model(plan, "baseline"), host_mb="much", gpu_mb=-1)
    assert cost.learned(plan.stages.values(), declared, store).peak(model(plan, "x2")) == Peak(700.0, 90.0)


# -- disk


def test_disk_of_what_is_there_and_of_what_will_be(plan: Plan, full: FakeStore) -> None:
    missing = {model(plan, "x2").key}
    estimate = planning.learned(plan, full)
    done = {key: full.finished[key] for key in plan.stages if key not in missing}
    found = forecast.disk(plan, estimate, done)
    assert found.there == pytest.approx(2.0 * (len(plan.stages) - 1))
    assert found.to_come == pytest.approx(2.0)
    assert found.unknown == 0


def test_sizes_that_nobody_has_measured_are_reckoned(plan: Plan) -> None:
    """Against what the CPU preset was seen to write: 4.2 MB a detector, 44 KB a classifier, 88 MB of pictures."""
    estimate = Estimate(COST)
    assert estimate.megabytes(model(plan, "baseline")) == pytest.approx(4.2, rel=0.15)
    assert estimate.megabytes(model(plan, "BAGS")) == pytest.approx(0.042, rel=0.3)
    train = next(s for s in plan.stages.values() if s.kind == "data" and s.spec["split"] == "train")
    assert estimate.megabytes(train) == pytest.approx(1783 * 128 * 128 * 3 / 1e6, rel=0.05)
    assert estimate.megabytes(predict(plan, "BAGS")) == pytest.approx(123 * (300 * 28 + 64 * 24) / 1e6, rel=0.1)


def test_a_rung_keeps_its_momentum(plan: Plan, full: FakeStore) -> None:
    """As large as its weights. What whole trainings take says nothing of it."""
    whole, estimate = model(plan, "baseline"), Estimate(COST)
    assert estimate.megabytes(rung(whole, 9)) == pytest.approx(2 * (estimate.megabytes(whole) or 0))
    assert planning.learned(plan, full).megabytes(rung(whole, 9)) == pytest.approx(2 * 4.2, rel=0.15)


# -- a probe


@pytest.fixture
def unknown(write: Write) -> Plan:
    """A suite whose preset declares no cost."""
    text = SEVEN.replace("seeds: [0]", "seeds: [3, 4]\ncost: {train_step: null, classifier_step: null, data: null}")
    return plan_of(write(text, "unknown.yaml"))


def test_a_probe_is_one_short_run(unknown: Plan) -> None:
    words = forecast.probe(unknown, set(unknown.stages), planning.learned(unknown, FakeStore()))
    assert words is not None
    assert words[:6] == ["python", "-m", "bench", "run", str(unknown.suite.path), "--only"]
    assert words[6] == "cls-retrain"  # the first row with a whole training and one over a frozen trunk
    assert shlex.join(words[7:]) == ("--seeds 3 --set schedule.steps=20 --set stages.classifier_only.steps=20")


def test_after_its_probe_a_suite_can_be_estimated(unknown: Plan) -> None:
    words = forecast.probe(unknown, set(unknown.stages), planning.learned(unknown, FakeStore())) or []
    sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    store = FakeStore()
    probe = open_suite(unknown.suite.path, sets=sets, only=words[6], seeds=words[8])
    for stage in planning.make(probe).stages.values():
        steps = stage.spec["schedule"]["steps"] if stage.kind == "train" else 0
        assert steps in (0, 20)
        store.finish(stage, seconds=6.0)
    estimate = planning.learned(unknown, store)
    assert forecast.probe(unknown, set(unknown.stages), estimate) is None
    assert forecast.wall_seconds(unknown, set(unknown.stages), estimate, 2) is not None
    assert estimate(model(unknown, "x2")) == pytest.approx(900 * 6 / 20)


def test_no_probe_where_all_is_known(plan: Plan) -> None:
    assert forecast.probe(plan, set(plan.stages), Estimate(COST)) is None


# -- what is said


def view(plan: Plan, tmp_path: Path) -> Overview:
    return compare(plan, Store(tmp_path / "store"), 2)


def test_the_headline_says_it(plan: Plan, tmp_path: Path) -> None:
    lines = view(plan, tmp_path).headline()
    assert "trainings: 4 in " in lines[1]
    assert "(rows run singly: 11 in " in lines[1]
    assert "disk: about 1" in lines[1]
    assert "predictions: 7 in 4 passes over val" in lines[3]
    assert all(len(line) < 160 for line in lines)


def test_the_headline_names_the_probe(unknown: Plan, tmp_path: Path) -> None:
    lines = view(unknown, tmp_path).headline()
    assert "time unknown" in lines[0]
    assert any("python -m bench run" in line and "--only cls-retrain" in line for line in lines)
    assert view(unknown, tmp_path).to_json()["probe"] is not None


def test_the_headline_names_what_is_kept(write: Write, tmp_path: Path) -> None:
    text = SEVEN + '  "tau={tau}": {method: tau_norm, each: {tau: [0, 0.2, 0.4, 0.6]}}\n'
    lines = view(plan_of(write(text)), tmp_path).headline()
    kept = next(line for line in lines if "features of val" in line)
    assert "5 post-hoc rows" in kept
    assert kept.endswith("4.3 MB")  # 123 pictures x 64 proposals x (128 features + 2 boxes) floats


def test_json_holds_all_of_it(plan: Plan, tmp_path: Path) -> None:
    said = view(plan, tmp_path).to_json()
    assert said["trainings"]["passes"] == 4
    # 2.5 s each, declared for 123 images; the preset's val set has 20 x 80 / 13 = 123.08.
    seconds = [pytest.approx(n * 2.5 * 1600 / 13 / 123, abs=0.001) for n in (4, 7)]
    assert said["predictions"] == {"passes": 4, "seconds": seconds[0], "singly": 7, "singly_seconds": seconds[1]}
    assert said["disk_mb"]["to_come"] > 100
    assert said["memory_mb"] == {"host": 1100.0, "gpu": 0.0}  # the preset's
    assert view(plan, tmp_path).headline()[1].endswith("; memory: 1100 MB a job")
    assert said["probe"] is None
    assert said["seconds"] > said["critical_path_seconds"] > 0
    assert all(stage["mb"] > 0 for stage in said["stages"])


def test_fifteen_rows_of_21_seeds_stay_a_page(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SEVEN + '  "beta={beta}": {method: bags, each: {beta: [0, 1, 2, 3, 4, 5, 6, 7]}}\n'
    suite = open_suite(write(text), seeds=",".join(str(i) for i in range(21)))
    plan = planning.make(suite)
    console = Console(width=120)
    view(plan, tmp_path).print(console)
    lines = capsys.readouterr().out.splitlines()
    assert len(plan.stages) > 900
    assert len(lines) < 80
    assert any(line.startswith("train") and "21 missing" in line and "baseline" in line for line in lines)
    show(view(plan, tmp_path), console)
    assert len(capsys.readouterr().out.splitlines()) < 60
