"""The effective class-margin loss: published values, its limits, where its gradient balances."""

from __future__ import annotations

import math

import pytest
import torch
from rois import TOY, context, head, targets, total

from bench.errors import UserError
from methods.parts.ecm import EffectiveMargin
from methods.parts.softmax import Softmax
from tests.conftest import Write
from tests.planned import model, plan_of

ECM = TOY["ecm"]


def toy() -> EffectiveMargin:
    return EffectiveMargin(head(ECM["img_counts"])).double()


def test_the_published_margins_and_weights() -> None:
    loss = toy()
    assert loss.margin_K.tolist() == pytest.approx(ECM["margin_offset"], abs=1e-9)
    assert loss.weight_K.tolist() == pytest.approx(ECM["class_w"], abs=1e-9)


def test_the_loss_and_the_scores_of_the_toy() -> None:
    z = torch.tensor(ECM["logits_bg_last"], dtype=torch.float64)
    assert total(toy().loss(z, targets(ECM["labels"]), context())).item() == pytest.approx(ECM["loss"], abs=1e-9)
    p, background = toy().scores(z)
    assert background is not None
    assert torch.cat([p, background[:, None]], dim=1).flatten().tolist() == pytest.approx(
        [value for row in ECM["infer"] for value in row], abs=1e-9
    )


def test_a_class_without_an_image_has_the_margin_of_one_with_one() -> None:
    none, one = EffectiveMargin(head([0, 50])), EffectiveMargin(head([1, 50]))
    assert none.margin_K.tolist() == one.margin_K.tolist()
    assert all(map(math.isfinite, none.margin_K.tolist()))


def test_the_rarer_a_class_the_larger_its_margin_and_no_background_is_none() -> None:
    margins = EffectiveMargin(head([1, 10, 1000])).margin_K.tolist()
    assert margins[0] < margins[1] < margins[2] < margins[3]  # the background has most
    even = EffectiveMargin(head([7]), background=1.0)  # as many images of the background: p = sigmoid(2 s)
    assert even.margin_K.tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
    assert even.weight_K.tolist() == pytest.approx([math.log(2)] * 2, abs=1e-12)


def test_its_weights_are_those_of_the_softmax() -> None:
    loss, other = EffectiveMargin(head([5, 50])), Softmax(head([5, 50]))
    assert loss.load_from(other) == []
    assert set(dict(loss.state_dict())) == set(dict(other.state_dict()))


@pytest.mark.parametrize("background", [0.0, -1.0, math.inf])
def test_a_background_without_images_is_refused(background: float) -> None:
    with pytest.raises(UserError, match="background"):
        EffectiveMargin(head([5]), background=background)


def test_the_method_changes_the_loss_alone_also_after_a_pre_training(write: Write) -> None:
    rows = "{baseline: {method: baseline}, ECM: {method: ecm}, both: {method: soco, classifier: ecm}}"
    plan = plan_of(write(f"preset: cpu\nschedule: {{steps: 9}}\nstages: {{pretrain: {{steps: 5}}}}\nrows: {rows}\n"))
    base, one, both = (dict(model(plan, row).spec) for row in ("baseline", "ECM", "both"))
    assert {name for name in base if base[name] != one[name]} == {"classifier"}
    assert one["classifier"] == both["classifier"]
