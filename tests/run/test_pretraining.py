"""Pre-training: a training by other losses on views, whose slow copy, queue and projectors go on through it; what the
detector takes over; several processes; a collapse.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from processes import Processes

from bench.lineage import asides_of
from bench.plan import planning
from bench.plan.planning import Plan
from bench.run import checkpoint, job
from bench.run.checkpoint import read_tensors
from bench.run.job import Job, Outcome
from bench.run.learner import EXAMPLES
from bench.run.model import TRAIN_INFO, WEIGHTS, state_of
from bench.run.work import signals_restored
from bench.stage import Stage
from bench.store.events import read_events
from bench.store.store import Store
from bench.suite.suite import Suite
from tests.tiny_suite import SMOKE, StopAt, Undisturbed, copied, key_of, tiny

STEPS = 8
ROWS = """rows:
  baseline: {method: baseline}
  x2:       {method: x2, schedule: {steps: 12}}
  byol:     {method: drcl, t: {images: 8}}
  infonce:
    {method: drcl, t: {images: 8}, contrast: infonce, queue: 10, norm: layer, proposals: rpn, transfer: [backbone]}
  one:      {method: drcl, holistic: 0, semantic: 0, appearance: 0, rebalance: null, proposals: random}
  soco:     {method: soco}
  aligned:  {method: aligndet, norm: layer}
"""
ALONE = "fpn.layer_blocks.1"  # the level that the RPN alone reads: no box feature is made of it
SEVERAL = ("detector.norm=group", "schedule.batch=5", "input.scale_jitter=[0.4, 1.0]")


def suite_of(folder: Path, *sets: str) -> Suite:
    above = SMOKE.read_text().split("rows:")[0]
    assert "stages:\n" in above
    file = folder / "pretraining.yaml"
    file.write_text(above.replace("stages:\n", f"stages:\n  pretrain: {{steps: {STEPS}}}\n") + ROWS)
    return tiny(*sets, path=file)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return planning.make(suite_of(tmp_path_factory.mktemp("pretraining")))


@pytest.fixture(scope="module")
def store(smoke: Undisturbed, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = {k for k, s in plan.stages.items() if s.kind == "data"} | {key_of(plan, "baseline")}
    return Store(copied(smoke.root, tmp_path_factory.mktemp("pretrained") / "store", made))


def before(plan: Plan, row: str) -> Stage:
    return plan.stages[key_of(plan, row)].inputs["init"]


def train(store: Store, plan: Plan, stage: Stage) -> Outcome:
    store.add(stage)
    with signals_restored():
        one = Job(str(store.root), ((stage.key,),), plan.suite.sections.machine, asides=asides_of(stage))
        return one()[stage.key]


def curve(store: Store, stage: Stage) -> list[dict[str, float]]:
    events = read_events(store.attempts(stage.key)[-1] / "events.jsonl")[0]
    return [one["values"] for one in events if one["event"] == "metrics"]


LOSSES = {
    "byol": {"holistic", "local", "semantic", "appearance"}, "infonce": {"holistic", "local", "semantic", "appearance"},
    "one": {"local"}, "soco": {"local"},
    "aligned": {"box_contrast", "loss_objectness", "loss_rpn_box_reg", "loss_box_reg"},
}  # fmt: skip


@pytest.mark.parametrize("row", list(LOSSES))
def test_only_these_losses_are_trained_and_what_they_show_is_in_the_curves(row: str, store: Store, plan: Plan) -> None:
    stage = before(plan, row)
    outcome = train(store, plan, stage)
    assert outcome.state == "done", outcome
    for values in curve(store, stage):
        assert sum(values[name] for name in LOSSES[row]) == pytest.approx(values["loss"], rel=1e-5)
        shown = values.keys() - LOSSES[row] - {"loss", "lr"}
        looked = {"local"} & LOSSES[row] | {"holistic"} & LOSSES[row]
        assert {name.removeprefix("shown/") for name in shown} == (
            {"box_uniformity"} if row == "aligned"
            else {"momentum"} | {f"{what}_{of}" for what in looked for of in ("alignment", "uniformity")}
        )  # fmt: skip
        assert all(name.startswith("shown/") for name in shown)
    if row != "aligned":
        assert curve(store, stage)[0]["shown/momentum"] == pytest.approx(0.99, abs=1e-3)
        assert curve(store, stage)[-1]["shown/momentum"] > 0.999


def test_what_is_not_trained_stays_as_the_seed_made_it(store: Store, plan: Plan) -> None:
    """All is stored, since no stage before holds it; RPN and heads are those that the baseline began with."""
    stage = before(plan, "byol")
    assert train(store, plan, stage).state == "done"
    assert train(store, plan, before(plan, "soco")).state == "done"
    mine, other = (read_tensors(store.output(one.key) / WEIGHTS) for one in (stage, before(plan, "soco")))
    assert mine.keys() == state_of(store, plan.stages[key_of(plan, "baseline")]).keys()
    for name, tensor in mine.items():
        fixed = name.split(".")[0] in ("rpn", "box_regressor", "classifier") or name.startswith(ALONE)
        if fixed or tensor.is_floating_point():
            assert torch.equal(tensor, other[name]) == fixed, name


@pytest.mark.parametrize(("row", "groups"), [("byol", {"backbone", "fpn", "box_head"}), ("infonce", {"backbone"})])
def test_the_detector_takes_these_groups_and_says_what_is_new(
    row: str, groups: set[str], store: Store, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.run import loop

    stage = plan.stages[key_of(plan, row)]
    assert train(store, plan, before(plan, row)).state == "done"
    began: dict[str, torch.Tensor] = {}

    def look(lead: object, detector: torch.nn.Module, *args: object, **more: object) -> None:
        began.update({name: tensor.clone() for name, tensor in detector.state_dict().items()})
        raise ValueError("seen")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", look)
        assert train(store, plan, stage).state == "failed"
    source = read_tensors(store.output(before(plan, row).key) / WEIGHTS)
    for name, tensor in began.items():
        group = name.split(".")[0]
        trained = group in ("backbone", "fpn", "box_head") and not name.startswith(ALONE)
        if group in groups:
            assert torch.equal(tensor, source[name]), name
        elif trained and tensor.is_floating_point():
            assert not torch.equal(tensor, source[name]), name
    assert train(store, plan, stage).state == "done"
    new = json.loads(store.read(stage.key, TRAIN_INFO))["reinitialised"]
    assert {name.split(".")[0] for name in new} == {"fpn", "rpn", "box_head", "box_regressor", "classifier"} - groups


@pytest.mark.parametrize("stop", [0, 2, STEPS - 1])
@pytest.mark.parametrize("row", ["infonce", "aligned"])
def test_stopped_and_resumed_it_has_the_same_bits(
    row: str, stop: int, store: Store, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = before(plan, row)
    assert train(store, plan, stage).state == "done"
    made = {source.key for source in stage.inputs.values()}
    again = Store(copied(store.root, tmp_path / "again", made))
    with monkeypatch.context() as patch:
        patch.setattr(job, "StopFlag", lambda: StopAt(stop + 1))
        assert train(again, plan, stage).state == "stopped"
    found = checkpoint.newest(again.attempts(stage.key))
    assert found is not None
    carried = {name.split(".")[1] for name in found[1] if name.startswith("loss/0.")}
    slow = {"target", "project", "project_slow"}
    assert carried == (slow if row == "aligned" else slow | {"predict", "queue"})
    assert train(again, plan, stage).state == "done"
    one, other = again.done(stage.key), store.done(stage.key)
    assert one is not None
    assert other is not None
    assert one.digests == other.digests
    assert (EXAMPLES in one.digests) == (row == "infonce")


def test_a_decoder_leaves_examples_of_the_last_step(store: Store, plan: Plan) -> None:
    stage = before(plan, "byol")
    assert train(store, plan, stage).state == "done"
    found = read_tensors(store.output(stage.key) / EXAMPLES)
    assert set(found) == {"view", "view_painted", "masked", "masked_painted", "sizes_N2"}
    view, masked = found["view"], found["masked"]
    assert view.shape == (4, 3, 32, 32)  # of 64 x 64
    assert found["sizes_N2"].tolist() == [[32, 32]] * 4
    cells = masked.unfold(2, 16, 16).unfold(3, 16, 16).abs().amax(dim=(1, 4, 5))  # patches of 32 pixels
    assert ((cells == 0).sum(dim=(1, 2)) == 2).all()  # half of four
    shown = (masked != 0).any(dim=1, keepdim=True).expand_as(view)
    assert torch.equal(view[shown], masked[shown])
    assert not torch.equal(found["view_painted"], found["masked_painted"])
    assert train(store, plan, before(plan, "one")).state == "done"
    assert not (store.output(before(plan, "one").key) / EXAMPLES).exists()  # it has no decoder


@pytest.mark.parametrize("row", ["infonce", "aligned"])
def test_two_processes_train_as_one(row: str, smoke: Undisturbed, tmp_path: Path) -> None:
    """As far as float32 sums agree, see test_distributed.py: images, boxes, masks and queue are the same."""
    suite = suite_of(tmp_path, *SEVERAL)
    plan = planning.make(suite)
    stage = before(plan, row)
    made = {key for key, one in plan.stages.items() if one.kind == "data"}
    roots = [copied(smoke.root, tmp_path / name, made) for name in ("one", "two")]
    units = [[s.key for s in stage.inputs.values() if s.kind == "train"], [stage.key]]
    for size, root in zip((1, 2), roots, strict=True):
        for one in plan.stages.values():
            Store(root).add(one)
        outcomes = Processes(root, suite, [unit for unit in units if unit], size).outcomes()
        assert {state for state, _, _ in outcomes.values()} == {"done"}, outcomes
    curves = [curve(Store(root), stage) for root in roots]
    for one, two in zip(*curves, strict=True):
        for name in set(one) - {name for name in one if name.startswith("shown/")}:
            assert two[name] == pytest.approx(one[name], rel=2e-3, abs=1e-4), name
    first, second = (read_tensors(Store(root).output(stage.key) / WEIGHTS) for root in roots)
    for name, tensor in first.items():
        if tensor.is_floating_point():
            assert (second[name] - tensor).abs().max() <= 5e-3 * tensor.abs().max().clamp(min=1e-3), name


def test_a_batch_norm_in_a_projector_is_refused_for_several_processes(smoke: Undisturbed, tmp_path: Path) -> None:
    suite = suite_of(tmp_path, *SEVERAL)
    plan = planning.make(suite)
    stage = before(plan, "soco")
    root = copied(smoke.root, tmp_path / "two", {key for key, one in plan.stages.items() if one.kind == "data"})
    for one in plan.stages.values():
        Store(root).add(one)
    (state, message, code) = Processes(root, suite, [[stage.key]], 2).outcomes()[stage.key]
    assert (state, code) == ("failed", 2)
    assert "norm" in message


def test_a_collapse_ends_the_training_and_is_said(store: Store, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    from methods.parts import contrast

    def flat(*sizes: object) -> torch.nn.Sequential:
        layers = contrast_mlp(*sizes)
        with torch.no_grad():
            layers[-1].weight.zero_()
            layers[-1].bias.fill_(1.0)
        return layers

    contrast_mlp = contrast.mlp
    monkeypatch.setattr(contrast, "mlp", flat)
    suite = suite_of(store.root.parent, "rows.one.boxes=7")
    own = planning.make(suite)
    outcome = train(store, own, before(own, "one"))
    assert (outcome.state, outcome.code) == ("failed", 1)
    assert "the local embeddings have collapsed at step 1: all" in outcome.message
    assert "lower stages.pretrain.lr" in outcome.message
