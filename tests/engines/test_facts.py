"""What engines say of themselves: which trainings leave the trunk alone, how large a model is, which taps there are."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from bench.cli.open import open_suite
from bench.detection.contract import TAPS, Taps
from bench.detection.taps import tap_width
from bench.engines.facts import ENGINES, EngineFacts, only_classifier
from bench.engines.torchvision.facts import GROUPS, head_widths, parameters, proposals
from bench.errors import UserError
from bench.plan import planning
from tests.conftest import Write
from tests.engines.engine_scene import CLASSES, batch_of, model_of, pyramid_spec, small_spec

DETR = ("encoder", "decoder", "classifier")


@pytest.mark.parametrize(
    ("trainable", "groups", "expected"),
    [
        ((), GROUPS, False),
        (("classifier",), GROUPS, True),
        (("box_head", "classifier"), GROUPS, False),
        (("scale",), GROUPS, True),  # a classifier's own
        (("decoder",), DETR, False),
        (("decoder", "classifier"), DETR, False),
        (("classifier",), DETR, True),
    ],
)
def test_what_leaves_the_trunk_alone_depends_on_the_engine(
    trainable: tuple[str, ...], groups: tuple[str, ...], expected: bool
) -> None:
    assert only_classifier(trainable, groups) is expected


METHOD = """
from pathlib import Path
from bench.method import Method, part

class Odd(Method):
    name = "odd"

    def plan(self, b):
        return b.train(init=b.train(), keep_classifier=True, classifier={part}, trainable=("{group}",))
"""
DIVIDED = """
from methods.parts.softmax import Softmax

class Divided(Softmax):
    VERSION = 1

    def groups(self):
        return {"scale": ["fc.weight"], "rest": ["fc.bias"]}
"""


@pytest.mark.parametrize(("group", "meant"), [("classifierr", "classifier"), ("bakbone", "backbone"), ("decoder", "")])
def test_a_group_that_nobody_has_is_refused_before_anything_starts(group: str, meant: str, write: Write) -> None:
    file = write(METHOD.format(part='part("softmax:Softmax")', group=group), "odd.py")
    suite = write(f"methods_path: {file}\npreset: cpu\nrows:\n  odd: {{method: odd}}\n")
    with pytest.raises(UserError, match=f"no parameter group '{group}'") as refused:
        planning.make(open_suite(suite))
    assert refused.value.allowed == ", ".join(sorted(GROUPS))
    assert (f"Did you mean '{meant}'?" in refused.value.what) == bool(meant)


def test_a_classifier_that_divides_its_parameters_has_groups_of_its_own(write: Write) -> None:
    write(DIVIDED, "divided.py")
    where = 'part(str(Path(__file__).with_name("divided.py")) + ":Divided")'
    file = write(METHOD.format(part=where, group="scale"), "odd.py")
    suite = write(f"methods_path: {file}\npreset: cpu\nrows:\n  odd: {{method: odd}}\n")
    plan = planning.make(open_suite(suite))
    assert [list(s.spec["trainable"]) for s in plan.stages.values() if s.kind == "train"] == [[], ["scale"]]


# -- sizes, against what is built


@pytest.mark.parametrize("agnostic", [True, False])
@pytest.mark.parametrize("trunk", ["small", "resnet18_fpn", "mobilenet_v2_fpn"])
def test_parameters_are_those_of_the_built_model(trunk: str, agnostic: bool) -> None:
    roi = {"class_agnostic": agnostic, "width": 1024}
    widths = (24, 48, 96, 128)
    detector = small_spec(roi=roi, widths=widths) if trunk == "small" else pyramid_spec(trunk, roi=roi, norm="batch")
    built = sum(p.numel() for name, p in model_of(detector).named_parameters() if not name.startswith("classifier."))
    assert parameters(detector, CLASSES) == pytest.approx(built, rel=0.02)


def test_a_prediction_has_the_rows_and_widths_that_are_said() -> None:
    for detector, boxes in ((small_spec(), (CLASSES, 4)), (small_spec(roi={"class_agnostic": True}), (4,))):
        out = model_of(detector).eval().predict_forward(batch_of(), taps=TAPS)
        each, refined = proposals(detector, CLASSES)
        assert out.image_N.bincount().max() <= each == 20
        assert refined == out.boxes[0].numel() // 4
        assert out.boxes.shape[1:] == boxes
        for tap in TAPS:
            assert getattr(out.taps, tap)[0].numel() == tap_width(tap, *head_widths(detector))


@pytest.mark.parametrize("engine", ENGINES.values(), ids=lambda engine: engine.name)
def test_an_engine_has_a_classifier_and_no_group_twice(engine: EngineFacts) -> None:
    assert engine.groups.count("classifier") == 1
    assert len(set(engine.groups)) == len(engine.groups)


# -- taps


def test_taps_are_one_list() -> None:
    assert TAPS == ("box_features", "box_features_pre_relu", "roi_map")
    beside = ("head_N",)  # says whose a row is; no classifier asks for it
    assert tuple(f.name for f in dataclasses.fields(Taps)) == (*TAPS, *beside)


def test_what_is_done_to_each_tap_leaves_out_what_is_not_there() -> None:
    taps = Taps(torch.arange(6.0).view(3, 2), roi_map=torch.ones(3, 1, 2, 2)).each(lambda value: value[1:])
    assert taps.box_features.tolist() == [[2, 3], [4, 5]]
    assert taps.box_features_pre_relu is None
    assert taps.roi_map is not None
    assert taps.roi_map.shape == (2, 1, 2, 2)
