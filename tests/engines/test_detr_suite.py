"""What a suite on Deformable DETR plans: the classifiers that stand for named ones, where its backbone is from, the
settings that it has, and rows that it cannot have."""

from __future__ import annotations

import pytest

from bench.cli.open import open_suite
from bench.errors import UserError
from bench.plan import planning
from bench.plan.planning import Plan
from bench.stage import Stage, walk
from tests.conftest import ROOT, Write

ROWS = """
preset: cpu-detr
rows:
  baseline:  {method: baseline}
  re-weight: {method: reweight, trainable: classifier, beta: 0.9}
  CB-focal:  {method: reweight, loss: focal, gamma: 1, alpha: 0.5}
  BAGS:      {method: bags, beta: 8}
  head:      {method: bags, trainable: head}
  step-wise: {method: stepwise}
  focal:     {method: focal}
  ECM:       {method: ecm}
  NCM:       {method: ncm}
  select:    {method: tau_norm_select}
"""


@pytest.fixture
def plan(write: Write) -> Plan:
    return planning.make(open_suite(write(ROWS)))


def last_training(plan: Plan, label: str) -> Stage:
    (row,) = (row for row in plan.rows if row.label == label)
    assert row.evaluate is not None
    return row.evaluate.inputs["predict"].inputs["model"]


def test_classifiers_that_stand_for_those_that_a_recipe_names(plan: Plan) -> None:
    def classifier(label: str) -> tuple[str, dict[str, object]]:
        found = last_training(plan, label).spec["classifier"]
        return found.ref, dict(found.settings)

    ref, settings = classifier("baseline")
    assert (ref, settings["weight"], settings["prior"]) == ("set_focal:SetFocal", 3.0, 0.01)  # of detector.detr
    ref, settings = classifier("re-weight")
    assert (ref, settings["beta"], settings["weight"], settings["gamma"]) == ("set_focal:ReweightedSetFocal", 0.9, 3, 2)
    ref, settings = classifier("CB-focal")
    assert (ref, settings["gamma"], settings["alpha"]) == ("set_focal:ReweightedSetFocal", 1, 0.5)
    assert classifier("BAGS")[0] == "group_softmax:GroupSoftmax"
    assert classifier("step-wise")[0] == "set_focal:SetFocal"


def test_rows_that_it_cannot_have_say_why(plan: Plan) -> None:
    skipped = {row.label: row.skipped for row in plan.rows if row.evaluate is None}
    assert skipped == {
        "focal": "engine 'detr' lacks background",
        "ECM": "engine 'detr' lacks background",
        "NCM": "engine 'detr' lacks box_features_pre_relu, roi_map",
        "select": "engine 'detr' lacks background",
    }


def test_groups_that_recipes_train_by_their_part_in_the_network(plan: Plan) -> None:
    assert last_training(plan, "step-wise").spec["trainable"] == ["input_proj", "objectness", "classifier"]
    head = ["encoder", "decoder", "offsets", "box_regressor", "classifier"]
    assert last_training(plan, "head").spec["trainable"] == head


def test_its_backbone_begins_as_that_of_table_1(plan: Plan) -> None:
    base = last_training(plan, "baseline")
    table = planning.make(open_suite(ROOT / "suites" / "table1.yaml"))
    assert base.inputs["start"] == last_training(table, "baseline")
    assert base.spec["start"] == ["backbone"]
    for stage in walk(last_training(plan, "BAGS")):
        if stage.kind == "train" and "init" in stage.inputs:
            assert "start" not in stage.inputs  # what begins from a model of its own has its backbone


def test_another_start_is_another_model(write: Write) -> None:
    one = "preset: cpu-detr\nrows: {a: {method: baseline}}\n"
    keys = set()
    for sets in ([], ["detector.start.steps=7"], ["detector.start=null"], ["detector.start.groups=[]"]):
        keys.add(last_training(planning.make(open_suite(write(one), sets=sets)), "a").key)
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("detector.rpn.nms=0.5", "detector.rpn: no setting 'rpn'"),
        ("detector.detr.width=90", "width 90 for 8 heads. Legal: a multiple of detector.detr.heads"),
        ("detector.detr.heads=5", "width 96 for 5 heads. Legal: a multiple of detector.detr.heads"),
        ('detector.detr.levels=["3"]', "no map of the backbone of 'small' '3'. Legal: 0, 1, 2"),
        ('detector.detr.levels=["2", "1"]', "levels must be given once each, finest first"),
        ("detector.trunk=resnet50_fpn", "no trunk 'resnet50_fpn'. Did you mean 'resnet50'?"),
        ("detector.engine=dtr", "no engine 'dtr'. Did you mean 'detr'?"),
        ("detector.start.preset=cpu-detr", "preset 'cpu-detr' itself begins from another model"),
        ("detector.start.preset=cqu", "no preset 'cqu'"),
        ("detector.start.groups=[fpn]", "no parameter group 'fpn'"),
    ],
)
def test_what_it_refuses(setting: str, words: str, write: Write) -> None:
    with pytest.raises(UserError) as refused:
        planning.make(open_suite(write(ROWS), sets=[setting]))
    assert words in str(refused.value)
