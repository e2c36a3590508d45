"""Another engine is an entry in ENGINES and a package: planned, priced, trained, predicted, evaluated like the first.

It has other parameter groups, another trunk, and detections without NMS (examples/own_engine).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from bench.cli.open import open_suite
from bench.cli.overview import compare
from bench.engines.facts import ENGINES
from bench.errors import UserError
from bench.lineage import trains_classifier_only, trunk_of
from bench.plan import planning
from bench.plan.cost import Estimate
from bench.plan.jobs import make_jobs
from bench.plan.planning import Plan
from bench.run.checkpoint import read_tensors
from bench.run.model import load_model, state_of
from bench.store.store import Store
from bench.suite.sections import Cost
from tests.engines.own_engine import GRID, SIDE, detector
from tests.tiny_suite import bring, key_of, work

METHOD = """
from bench.method import Method

class Decoder(Method):
    name = "decoder"

    def plan(self, b):
        return b.train(init=b.train(), keep_classifier=True, trainable=("decoder",))
"""
SUITE = """
preset: cpu
methods_path: decoder.py
detector: {engine: grid, trunk: cells, roi: {class_agnostic: true, width: 16}}
data: {classes: 8, size: 64, objects: 6, max_instances: 30, val_instances: 2}
input: {min_size: 64, max_size: 64}
schedule: {steps: 6, batch: 4, lr: 0.02, warmup: 2}
stages: {second: {steps: 3}, classifier_only: {steps: 4}}
test: {bins: [5, 10, 20], max_detections: 20}
rows:
  baseline:    {method: baseline}
  cls-retrain: {method: cls_retrain}
  BAGS:        {method: bags}
  decoder:     {method: decoder}
  "tau={tau}": {method: tau_norm, each: {tau: [0, 0.25, 0.5, 0.75, 1]}}
  NCM:         {method: ncm}
"""
FEATURES, CLASSES = 16, 8
LAST = (CLASSES + 1) * (FEATURES + 1)
BELOW = (3 * 8 * 8 + 1) * 12 + (12 + 1) * 16 + (16 + 1) * 4


@dataclass(frozen=True)
class Made:
    path: Path
    plan: Plan
    store: Store


@pytest.fixture(scope="module", autouse=True)
def entry() -> Iterator[None]:
    """The one entry."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, GRID.name, GRID)  # type: ignore[arg-type]
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("grid")
    (folder / "decoder.py").write_text(METHOD)
    (folder / "grid.yaml").write_text(SUITE)
    suite = open_suite(folder / "grid.yaml")
    plan, store = planning.make(suite), Store(folder / "store")
    outcomes = bring(suite, store.root)
    assert {outcome.state for outcome in outcomes.values()} == {"done"}, outcomes
    return Made(folder / "grid.yaml", plan, store)


def test_a_stage_that_trains_the_decoder_is_no_classifier_only_stage(made: Made) -> None:
    stages = {label: made.plan.stages[key_of(made.plan, label)] for label in ("decoder", "BAGS", "cls-retrain")}
    assert not trains_classifier_only(stages["decoder"])
    assert trunk_of(stages["decoder"]) == stages["decoder"]
    assert stages["decoder"].spec["schedule"]["steps"] == 3  # stages.second
    assert trains_classifier_only(stages["BAGS"])
    jobs = make_jobs(made.plan, set(made.plan.stages), planning.learned(made.plan, made.store), fuse=True)
    trained = [unit for job in jobs for unit in job.units if made.plan.stages[unit[0]].kind == "train"]
    assert {stages["BAGS"].key, stages["cls-retrain"].key} in [set(unit) for unit in trained]
    assert (stages["decoder"].key,) in trained


def test_each_training_moves_what_it_names(made: Made) -> None:
    base = state_of(made.store, made.plan.stages[key_of(made.plan, "baseline")])
    own = made.store.output(key_of(made.plan, "decoder")) / "model.safetensors"
    assert {name.partition(".")[0] for name in read_tensors(own)} == {"decoder"}
    for label, moves in (("decoder", {"decoder"}), ("cls-retrain", {"classifier"})):
        state = state_of(made.store, made.plan.stages[key_of(made.plan, label)])
        assert {name.partition(".")[0] for name in base if not torch.equal(base[name], state[name])} == moves


def test_boxes_are_those_of_the_engine(made: Made) -> None:
    """Without NMS each image has all that may be kept; tau 0 changes no score."""
    predict = key_of(made.plan, "baseline", "predict")
    assert made.plan.stages[predict].spec["postprocess"] == 3
    found = read_tensors(made.store.output(predict) / "detections.safetensors")
    assert set(found["image"].bincount().tolist()) == {20}
    places = read_tensors(made.store.output(predict) / "proposals.safetensors")
    assert set(places["image"].bincount().tolist()) == {SIDE**2}
    same = read_tensors(made.store.output(key_of(made.plan, "tau=0", "predict")) / "detections.safetensors")
    other = read_tensors(made.store.output(key_of(made.plan, "tau=1", "predict")) / "detections.safetensors")
    assert torch.equal(found["boxes"], same["boxes"])
    assert not torch.equal(found["scores"], other["scores"])


def test_over_kept_features_no_detector_is_built(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    (kept,) = (stage for stage in made.plan.stages.values() if stage.kind == "features")
    assert json.loads((made.store.output(kept.key) / "features.json").read_text())["skipped"] is None
    key = key_of(made.plan, "tau=1", "predict")
    before = read_tensors(made.store.output(key) / "detections.safetensors")
    made.store.discard(key)
    monkeypatch.delattr(detector, "build")
    assert work(made.store.root, made.plan.suite, (key,))[key].state == "done"
    after = read_tensors(made.store.output(key) / "detections.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_every_row_has_a_result_or_a_reason(made: Made) -> None:
    skipped = {row.label: row.skipped for row in made.plan.rows if row.evaluate is None}
    assert skipped == {"NCM": "engine 'grid' lacks box_features_pre_relu, roi_map"}
    for row in made.plan.rows:
        if row.evaluate is not None:
            result = json.loads((made.store.output(row.evaluate.key) / "result.json").read_text())
            assert (result["protocol"]["engine"], result["protocol"]["trunk"]) == ("grid", "cells")
            assert result["metrics"]["ACC"] > 90  # 64 queries an image, nearly all of them background


def test_its_own_numbers_price_it(made: Made) -> None:
    estimate, plan = Estimate(Cost()), made.plan
    stage = {label: plan.stages[key_of(plan, label)] for label in ("baseline", "BAGS")}
    assert estimate.megabytes(stage["baseline"]) == 4 * (BELOW + LAST) / 1e6
    assert estimate.megabytes(stage["BAGS"]) == 4 * LAST / 1e6
    assert sum(p.numel() for _, p in load_model(made.store, stage["baseline"]).named_parameters()) == BELOW + LAST
    (kept,) = (one for one in plan.stages.values() if one.kind == "features")
    images = CLASSES * 2 / 6
    assert estimate.megabytes(kept) == pytest.approx(images * 64 * (4 * (4 + 4 + FEATURES) + 8) / 1e6)
    lines = compare(plan, Store(made.path.parent / "none"), 2).headline()
    assert any("disk: about" in line for line in lines)


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ("detector.roi.class_agnostic=false", "a grid has one box for all classes. Legal: true"),
        ("detector.trunk=small", "no trunk 'small'. Legal: cells"),
    ],
)
def test_it_refuses_what_it_cannot_build(made: Made, sets: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        open_suite(made.path, sets=[sets])
    assert words in str(refused.value)
    assert refused.value.where == f"--set {sets.split('=')[0]}"
