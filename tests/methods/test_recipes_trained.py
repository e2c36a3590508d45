"""The trained rows of Table 1 as a suite writes them: which stages they are, what they refuse, that they train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.cli.open import open_suite
from bench.errors import UserError
from bench.key import Part
from bench.plan import planning
from bench.plan.jobs import fused_groups
from bench.plan.planning import Plan
from bench.stage import Stage
from bench.store.store import Store
from tests.conftest import TINY, Write
from tests.tiny_suite import bring, key_of

STAGES = """\
stages:
  second: {steps: 3, lr: 0.004}
  tune: {steps: 2, lr: 1e-4}
"""
SUITE = (
    TINY.replace("stages:\n", STAGES)
    + """\
  finetune-tail: {method: finetune_tail, below: 8}
  finetune-all: {method: finetune_tail, below: 1000}
  RFS: {method: rfs, t: {images: 3}, power: 1}
  RFS-finetune: {method: rfs, t: {images: 3}, start: baseline}
  re-weight-cls: {method: reweight, trainable: classifier}
  cb999: {method: reweight, trainable: classifier, beta: 0.999, clip: [0.1, 5]}
  cb-focal: {method: reweight, trainable: classifier, loss: focal, gamma: 0.5,
    beta: 0.999, clip: null, background: {count_factor: 3}}
  focal: {method: focal}
  focal-cls: {method: focal, trainable: classifier, inference: sigmoid}
"""
)
HEADS = {"BAGS", "re-weight-cls", "cb999", "cb-focal", "focal-cls"}
PHASE_1 = HEADS | {"finetune-tail", "finetune-all", "RFS-finetune", "focal"}


@pytest.fixture
def plan(write: Write) -> Plan:
    return planning.make(open_suite(write(SUITE)))


def model(plan: Plan, label: str) -> Stage:
    return plan.stages[key_of(plan, label)]


def settings(value: Any) -> tuple[str, dict[str, Any]]:
    assert isinstance(value, Part)
    return value.ref, dict(value.settings)


def rate_and_steps(stage: Stage) -> tuple[float, int]:
    return stage.spec["schedule"]["lr"], stage.spec["schedule"]["steps"]


def test_rows_start_from_the_baseline_they_share(plan: Plan) -> None:
    for label in PHASE_1:
        stage = model(plan, label)
        assert stage.inputs["init"].key == key_of(plan, "baseline")
        assert stage.spec["keep_classifier"] is (label != "BAGS")
    assert "init" not in model(plan, "RFS").inputs


def test_finetune_tail(plan: Plan) -> None:
    stage = model(plan, "finetune-tail")
    assert settings(stage.spec["annotations"]) == ("annotations:tail_only", {"below": 8, "nontail": "drop"})
    assert (rate_and_steps(stage), stage.spec["trainable"]) == ((1e-4, 2), [])
    assert settings(stage.spec["classifier"])[0] == "softmax:Softmax"


def test_rfs_anew_and_from_the_baseline(plan: Plan) -> None:
    anew, again = model(plan, "RFS"), model(plan, "RFS-finetune")
    common = {"t": {"images": 3.0}, "rounding": "stochastic"}
    assert settings(anew.spec["sampler"]) == ("samplers:RepeatFactor", {**common, "power": 1.0})
    assert settings(again.spec["sampler"]) == ("samplers:RepeatFactor", {**common, "power": 0.5})
    assert (rate_and_steps(anew), rate_and_steps(again)) == ((0.01, 3), (0.004, 3))
    assert anew.spec["trainable"] == again.spec["trainable"] == []


@pytest.mark.parametrize(
    ("label", "ref", "some"),
    [
        ("re-weight-cls", "losses:ReweightedSoftmax", {"beta": 1.0, "clip": (0.01, 5.0), "background": 1.0}),
        ("cb999", "losses:ReweightedSoftmax", {"beta": 0.999, "clip": (0.1, 5.0), "background": 1.0}),
        (
            "cb-focal",
            "focal:ReweightedFocal",
            {"gamma": 0.5, "alpha": 0.25, "beta": 0.999, "clip": None, "background": {"count_factor": 3.0}},
        ),
        ("focal", "focal:SigmoidFocal", {"gamma": 2.0, "alpha": 0.25, "reduction": "mean", "inference": "softmax"}),
        ("focal-cls", "focal:SigmoidFocal", {"inference": "sigmoid"}),
    ],
)
def test_settings_reach_the_losses(plan: Plan, label: str, ref: str, some: dict[str, Any]) -> None:
    found, values = settings(model(plan, label).spec["classifier"])
    assert found == ref
    assert {name: values[name] for name in some} == some
    assert model(plan, label).spec["trainable"] == ([] if label == "focal" else ["classifier"])


def test_heads_with_any_loss_are_trained_in_one_pass(plan: Plan) -> None:
    heads = {key_of(plan, label) for label in HEADS}
    assert [set(group) for group in fused_groups(plan, set(plan.stages)) if set(group) & heads] == [heads]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{method: reweight, gamma: 2}", "loss: softmax has no gamma; set loss: focal, or leave gamma out"),
        ("{method: reweight, alpha: 0.5, gamma: 1}", "loss: softmax has no gamma and alpha"),
        ("{method: reweight, loss: focall}", "'softmax' or 'focal'"),
        ("{method: reweight, background: {factor: 3}}", "Did you mean 'count_factor'"),
        ("{method: reweight, background: -1}", "greater than or equal to 0"),
        ("{method: focal, gamma: -1}", "greater than or equal to 0"),
        ("{method: focal, inference: sigmod}", "'softmax' or 'sigmoid'"),
        ("{method: rfs, start: base}", "'scratch' or 'baseline'"),
        ("{method: finetune_tail, nontail: dropped}", "'drop', 'ignore' or 'keep'"),
        ("{method: finetune_tail, below: 0}", "greater than or equal to 1"),
    ],
)
def test_refusals(write: Write, row: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        open_suite(write(TINY + f"  wrong: {row}\n"))
    assert f":{len(TINY.splitlines()) + 1} rows.wrong" in error.value.where


def test_they_train(write: Write, tmp_path: Path) -> None:
    """Every loss, sampler and data part makes weights of its own; sigmoid scores go the whole way to a table."""
    suite = open_suite(write(SUITE))
    made = planning.make(suite)
    whole = {key_of(made, "focal-cls", kind) for kind in ("predict", "evaluate")}
    wanted = {key for key, stage in made.stages.items() if stage.kind in ("data", "train")} | whole
    outcomes = bring(suite, tmp_path / "store", only=lambda key: key in wanted)
    assert {made.needed_by[key][0]: o.message for key, o in outcomes.items() if o.state == "failed"} == {}
    store = Store(tmp_path / "store")
    done = {key: store.done(key) for key in wanted}
    assert all(done.values())
    models = {key_of(made, label) for label in PHASE_1 | {"baseline", "RFS"}}
    assert len({found.digest for key, found in done.items() if found and key in models}) == len(PHASE_1) + 2
