"""Recipes that pre-train: their stages, what is in their keys, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from bench.cli.open import open_suite
from bench.errors import UserError
from bench.key import part
from bench.lineage import model_chain, rest_of, trunk_of
from bench.method import Builder, planned
from bench.stage import Stage
from bench.suite.suite import Suite
from methods.aligndet import AlignDet
from methods.drcl import Drcl
from methods.pretrained import Supervised
from methods.rfs import ImageThreshold
from methods.soco import Soco
from tests.conftest import Write


@pytest.fixture
def suite(write: Write) -> Suite:
    return open_suite(write())


def trainings(suite: Suite, method: Any) -> list[Stage]:
    return [stage for stage in model_chain(planned(method, suite, 0)) if stage.kind == "train"]


def test_a_pre_training_and_then_the_ordinary_one(suite: Suite) -> None:
    base = Builder(suite, 0).train()
    before, after = trainings(suite, Drcl())
    assert before.spec["detection"] is False
    assert before.spec["trainable"] == ["backbone", "fpn", "box_head"]
    assert [loss.ref for loss in before.spec["losses"]] == ["drcl:Contrast", "drcl:Appearance"]
    assert [view.settings["blur"] for view in before.spec["views"]] == [1.0, 0.1]
    assert before.spec["sampler"].ref == "drcl:Rebalanced"
    assert after.spec["schedule"] == base.spec["schedule"]
    assert after.spec["take"] == ["backbone", "fpn", "box_head"]
    assert after.spec["keep_classifier"] is False
    assert {name: value for name, value in after.spec.items() if base.spec.get(name) != value}.keys() == {
        "take", "keep_classifier", "phase",
    }  # fmt: skip


def test_its_schedule_is_the_base_s_with_the_paper_s_drops(write: Write) -> None:
    suite = open_suite(write())
    base, before = Builder(suite, 0).train(), trainings(suite, Soco())[0]
    same = ("lr", "steps", "batch", "warmup")
    assert [before.spec["schedule"][name] for name in same] == [base.spec["schedule"][name] for name in same]
    assert list(before.spec["schedule"]["drops"]) == pytest.approx([8 / 12, 11 / 12])
    own = open_suite(write(), sets=["stages.pretrain={steps: 7, lr: 0.001}"])
    assert trainings(own, Soco())[0].spec["schedule"]["steps"] == 7


def test_components_are_left_out_and_what_is_left_is_the_rest(suite: Suite) -> None:
    everything = trainings(suite, Drcl())[0]
    for name in ("holistic", "local", "semantic"):
        before = trainings(suite, Drcl(**{name: 0.0}))[0]
        assert {w: before.spec["losses"][0].settings[w] for w in ("holistic", "local", "semantic")} == {
            "holistic": 1.0, "local": 1.0, "semantic": 1.0, name: 0.0,
        }  # fmt: skip
        assert before.key != everything.key
    assert [loss.ref for loss in trainings(suite, Drcl(appearance=0))[0].spec["losses"]] == ["drcl:Contrast"]
    alone = trainings(suite, Drcl(holistic=0, local=0, semantic=0))[0]
    assert [loss.ref for loss in alone.spec["losses"]] == ["drcl:Appearance"]
    plain = trainings(suite, Drcl(rebalance=None))[0]
    assert plain.spec["sampler"].ref == "samplers:Shuffle"
    counted = trainings(suite, Drcl(t=ImageThreshold(images=57)))[0]
    assert counted.spec["sampler"].settings["t"] == {"images": 57.0}
    from_rpn = trainings(suite, Drcl(proposals="rpn"))[0]
    assert from_rpn.inputs["source"] == Builder(suite, 0).train()


def test_what_is_taken_over_and_what_is_on_top(suite: Suite) -> None:
    _, after = trainings(suite, Drcl(transfer=("backbone",)))
    assert after.spec["take"] == ["backbone"]
    assert rest_of(after) is None
    before, after, head = trainings(suite, Drcl(classifier="bags"))
    assert head.spec["trainable"] == ["classifier"]
    assert head.spec["classifier"].ref == "group_softmax:GroupSoftmax"
    assert trunk_of(head) == after
    _, _, weighted = trainings(suite, Soco(classifier="reweight"))
    assert weighted.spec["classifier"].ref == "losses:ReweightedSoftmax"
    before, after = trainings(suite, AlignDet())
    assert before.spec["detection"] == "trunk"
    assert before.spec["trainable"] == ["fpn", "rpn", "box_head", "box_regressor"]
    assert after.spec["take"] == ["backbone", "fpn", "rpn", "box_head", "box_regressor"]
    assert trainings(suite, AlignDet(frozen=False))[0].spec["trainable"][0] == "backbone"


def test_the_control_is_the_same_recipe_by_the_detector_s_own_losses(suite: Suite) -> None:
    before, after = trainings(suite, Supervised())
    assert "losses" not in before.spec
    assert "detection" not in before.spec
    other = trainings(suite, Drcl())[1]
    assert {name: after.spec[name] for name in after.spec} == {name: other.spec[name] for name in other.spec}


def test_a_weights_file_is_read_where_a_group_is_not_taken(suite: Suite) -> None:
    b = Builder(suite, 0)
    spec = suite.train_spec
    suite.__dict__["_train_spec"] = {**suite._train_spec, "weights": "0123"}
    assert spec()[0]["weights"] == "0123"
    base = b.train()
    assert b.train(init=base, keep_classifier=True).spec["weights"] is None
    assert b.train(init=base, keep_classifier=True, take=("fpn",)).spec["weights"] == "0123"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"views": (part("views:View"),)}, "views= are seen by no loss"),
        ({"detection": False}, "detection=False leaves no loss"),
        ({"take": ("fpn",)}, "take= says what comes from init="),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], message: str, suite: Suite) -> None:
    with pytest.raises(UserError, match=message):
        Builder(suite, 0).train(**given)


def test_a_group_to_take_is_one_below_the_classifier(suite: Suite) -> None:
    b = Builder(suite, 0)
    for name in ("neck", "classifier"):
        with pytest.raises(UserError, match=f"no parameter group '{name}'. Legal: backbone, "):
            b.train(init=b.train(), keep_classifier=False, take=(name,))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tau": 0.1}, "contrast: byol has no tau"), ({"tau": 0.1, "queue": 9}, "has no tau and queue"),
        ({"holistic": 0, "local": 0, "semantic": 0, "appearance": 0}, "nothing is left to pre-train by"),
        ({"transfer": ("neck",)}, "transfer"), ({"momentum": 1.5}, "momentum"),
    ],
)  # fmt: skip
def test_settings_that_would_do_nothing_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Drcl(**given)
