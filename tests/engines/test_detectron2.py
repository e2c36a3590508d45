"""The engine `detectron2` against plain detectron2: same weights and samples, same losses, detections and steps.

Runs where detectron2 is installed (detectron2_oracle.demand). With its commit 02b5c4e and one CPU thread all that is
compared here was equal bit for bit; the tolerance is for other machines.
"""

from __future__ import annotations

import functools
from typing import Any

import detectron2_oracle as oracle
import numpy as np
import pytest
import torch
from engine_scene import CLASSES, batch_of, head_of, losses_of, small_spec
from torch import Tensor

from bench.detection import postprocess
from bench.detection.contract import BatchGeometry, Context, Draws, Targets
from bench.detection.taps import Taps
from bench.engines.detectron2.facts import DETECTRON2
from bench.engines.detectron2.weights import to_foreign
from bench.engines.torchvision.build import build as build_torchvision
from bench.frequency import ClassStatistics
from bench.spec import Inference
from methods.parts.group_softmax import GroupSoftmax
from methods.parts.samplers import RepeatFactor

NEAR = 1e-6  # absolute and relative
CASES = {
    "group": {},
    "batch": {"norm": "batch"},
    "frozen stages": {"norm": "batch", "frozen_stages": 2},
    "one box for all classes, betas": {"roi": {"class_agnostic": True, "beta": 1.0}, "rpn": {"beta": 1 / 9}},
    "RoIAlign of torchvision": {"roi": {"aligned": False, "sampling_ratio": 2}},
}


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    oracle.demand()


def near(one: Tensor, other: Tensor, tolerance: float = NEAR) -> bool:
    return torch.allclose(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("changes", CASES.values(), ids=list(CASES))
def test_losses_and_gradients_equal_plain_detectron2(changes: dict[str, Any]) -> None:
    model, theirs = oracle.pair(oracle.spec(**changes))
    batch, draws = batch_of(), Draws(seed=3, phase=0, step=7)
    expected = oracle.plain_losses(theirs.train(), batch, draws)
    got = losses_of(model.train(), batch, draws)
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert near(got[name], value), name
        assert value > 0, f"{name} is zero: the comparison says nothing"
    torch.stack(list(expected.values())).sum().backward()
    torch.stack(list(got.values())).sum().backward()
    learning = {name: p for name, p in theirs.named_parameters() if p.requires_grad}
    names = their_names(model)
    mine = {names[name]: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert mine.keys() == learning.keys()
    for name, parameter in learning.items():
        assert near(mine[name], parameter.grad), name


def their_names(model: Any) -> dict[str, str]:
    """Our parameters' names -> detectron2's: those of the same memory."""
    theirs = {value.data_ptr(): name for name, value in to_foreign(model).items()}
    return {name: theirs[parameter.data_ptr()] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("changes", [CASES["group"], CASES["one box for all classes, betas"]])
@pytest.mark.parametrize("threshold", [0.0, 0.2])
def test_detections_equal_plain_detectron2(changes: dict[str, Any], threshold: float) -> None:
    model, theirs = oracle.pair(oracle.spec(**changes))
    torch.nn.init.normal_(model.classifier.get_parameter("fc.weight"), std=0.3)
    theirs.load_state_dict(to_foreign(model))
    predictor, batch = theirs.roi_heads.box_predictor, batch_of(images=3)
    predictor.test_score_thresh, predictor.test_nms_thresh, predictor.test_topk_per_image = threshold, 0.5, 40
    expected = theirs.eval().inference(oracle.inputs(batch), do_postprocess=False)
    out = model.eval().predict_forward(batch)
    with torch.no_grad():
        p_NC, _ = model.classifier.scores(model.classifier(out.taps))
    test = Inference(score_threshold=threshold, nms=0.5, max_detections=40)
    frame = BatchGeometry(batch.sizes, batch.scale, batch.image_index)
    found = postprocess.detections(p_NC, out, frame, test)
    for image, instances in enumerate(expected):
        rows = found.image == image
        assert len(instances) > 5
        assert found.labels[rows].tolist() == instances.pred_classes.tolist()
        assert near(found.scores[rows], instances.scores)
        assert near(found.boxes[rows], instances.pred_boxes.tensor, 1e-4)


@pytest.mark.parametrize("changes", [CASES["group"], CASES["frozen stages"]])
def test_three_steps_of_training_end_with_equal_weights(changes: dict[str, Any]) -> None:
    """Theirs by detectron2's own optimiser, ours by torch's of the same settings."""
    from detectron2.solver import build_optimizer

    detector = oracle.spec(**changes)
    model, theirs = oracle.pair(detector)
    cfg = oracle.config(detector)
    cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM, cfg.SOLVER.WEIGHT_DECAY = 0.02, 0.9, 1e-4
    cfg.SOLVER.WEIGHT_DECAY_NORM = None  # as all others
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one = build_optimizer(cfg, theirs.train())
    learning = [p for p in model.train().parameters() if p.requires_grad]
    other = torch.optim.SGD(learning, lr=0.02, momentum=0.9, weight_decay=1e-4)
    for step in range(3):
        batch, draws = batch_of(seed=step), Draws(seed=3, phase=0, step=step)
        for optimiser, losses in (
            (one, oracle.plain_losses(theirs, batch, draws)), (other, losses_of(model, batch, draws)),
        ):  # fmt: skip
            optimiser.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            optimiser.step()
    mine, moved = to_foreign(model), 0.0
    for name, value in theirs.state_dict().items():
        assert near(mine[name].float(), value.float()), name
    for name, value in model.state_dict().items():
        moved = max(moved, float((value - before[name]).abs().max()))
    assert moved > 1e-3


def test_the_loss_of_bags_is_that_of_the_same_features_outside() -> None:
    """Features and labels are read in plain detectron2, where its own classifier was."""
    detector = oracle.spec()
    model = oracle.ours(detector, classifier=functools.partial(GroupSoftmax, edges=(2, 4)))
    twin = oracle.ours(detector)
    theirs = oracle.plain(oracle.config(detector), to_foreign(twin)).train()
    own = {name: value for name, value in twin.state_dict().items() if not name.startswith("classifier.")}
    model.load_state_dict({**model.state_dict(), **own})
    batch, draws, seen = batch_of(), Draws(seed=5, phase=0, step=1), {}
    predictor = theirs.roi_heads.box_predictor
    whole = predictor.losses

    def losses(predictions: Any, proposals: Any) -> Any:
        seen["labels"] = torch.cat([p.gt_classes for p in proposals])
        return whole(predictions, proposals)

    predictor.losses = losses
    predictor.register_forward_hook(lambda module, given, said: seen.update(features=given[0]))
    oracle.plain_losses(theirs, batch, draws)

    out = model.train().train_forward(batch, draws, trunk_losses=False)
    assert torch.equal(out.targets.labels_N, seen["labels"])
    assert int((seen["labels"] < CLASSES).sum()) > 4
    taps = Taps(seen["features"])
    outside = Targets(seen["labels"], out.targets.image_N, out.targets.present, out.targets.negative, taps)
    expected = model.classifier.loss(model.classifier(taps), outside, seeded())
    got = model.classifier.loss(model.classifier(out.taps), out.targets, seeded())
    assert len(expected) == 4
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert near(got[name], value), name
    assert sum(float(value.detach()) for value in expected.values()) > 1


def seeded() -> Context:
    return Context(0, 0.0, torch.Generator().manual_seed(4))


def test_repeat_factors_equal_detectron2s() -> None:
    from detectron2.data.samplers import RepeatFactorTrainingSampler

    draw, classes, t = np.random.default_rng(0), 30, 0.05
    shares = np.geomspace(0.5, 0.004, classes)
    labels = [np.flatnonzero(draw.random(classes) < shares) for _ in range(400)]
    labels = [np.repeat(of, 2) for of in labels]  # two boxes of each class: images count, not boxes
    assert any(not len(of) for of in labels)
    dicts = [{"annotations": [{"category_id": int(c)} for c in of]} for of in labels]
    expected = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dicts, t)
    ours = RepeatFactor(ClassStatistics.from_labels(labels, classes), t=t)._r_image
    assert (expected > 1.5).any()
    assert near(torch.tensor(ours).float(), expected, 1e-6)


# -- ours alone


@pytest.mark.parametrize("trunk", ["small", "resnet18_fpn"])
@pytest.mark.parametrize("agnostic", [True, False])
def test_parameters_are_those_of_the_built_model(trunk: str, agnostic: bool) -> None:
    roi = {"class_agnostic": agnostic}
    detector = small_spec(roi=roi, engine="detectron2") if trunk == "small" else oracle.spec(trunk, roi=roi)
    built = sum(p.numel() for name, p in oracle.ours(detector).named_parameters() if not name.startswith("classifier."))
    assert DETECTRON2.parameters(detector, CLASSES) == pytest.approx(built, rel=0.02)


def test_the_names_of_torchvisions_maps_are_understood() -> None:
    batch, draws = batch_of(), Draws(0, 0, 0)
    levels = {"rpn": {"levels": ("p2", "p3", "p4", "p5", "p6")}, "roi": {"levels": ("p2", "p3", "p4", "p5")}}
    one, other = oracle.ours(oracle.spec()), oracle.ours(oracle.spec(**levels))
    for name, value in losses_of(one, batch, draws).items():
        assert torch.equal(value, losses_of(other, batch, draws)[name])
    assert list(one.maps(batch.images)) == ["p2", "p3", "p4", "p5", "p6"]


def test_maps_that_no_head_reads_have_no_convolution() -> None:
    model = oracle.ours(small_spec(engine="detectron2"))  # anchors on stride 8, RoIs on stride 4
    names = {name.partition(".weight")[0] for name, _ in model.named_parameters() if name.endswith("weight")}
    outputs = {name for name in names if name.startswith("fpn.fpn_output")}
    assert outputs == {"fpn.fpn_output2", "fpn.fpn_output3"}
    assert list(model.maps(batch_of().images)) == ["p2", "p3"]


def test_images_of_any_size_are_padded_as_detectron2_pads() -> None:
    model, batch = oracle.ours(oracle.spec()).eval(), batch_of(side=64)
    cut = batch.images[:, :, :50, :40]
    padded = torch.zeros_like(batch.images)
    padded[:, :, :50, :40] = cut
    for name, value in model.maps(padded).items():
        assert torch.equal(model.maps(cut)[name], value)


def test_targets_are_cut_where_the_section_says() -> None:
    """Of the CPU default; plain detectron2 has no such setting."""
    batch, draws = batch_of(), Draws(0, 0, 0)
    free, cut = (oracle.ours(oracle.spec(roi={"clamp_targets": limit})).train() for limit in (None, 1e-3))
    losses = [losses_of(model, batch, draws)["loss_box_reg"] for model in (free, cut)]
    assert losses[1] < 0.1 * losses[0]


def test_the_small_trunk_begins_with_the_torchvision_engines_backbone() -> None:
    detector = small_spec()
    head = head_of(detector)
    donor = build_torchvision(detector, head, oracle.PlainSoftmax(head), seed=7)
    model = oracle.ours(detector.model_copy(update={"engine": "detectron2"}))
    given = {name: value for name, value in donor.state_dict().items() if name.startswith("backbone.")}
    mine = {name: value.shape for name, value in model.state_dict().items() if name.startswith("backbone.")}
    assert {name: value.shape for name, value in given.items()} == mine
    model.load_state_dict({**model.state_dict(), **given})
    images = batch_of().images
    for one, other in zip(model.eval().body(images).values(), donor.eval().body(images).values(), strict=True):
        assert torch.equal(one, other)


def test_what_diverged_is_dropped_from_the_proposals() -> None:
    model, batch = oracle.ours(oracle.spec()), batch_of()
    torch.nn.init.constant_(model.rpn.rpn_head.anchor_deltas.bias, float("nan"))
    losses = losses_of(model.train(), batch, Draws(0, 0, 0))
    assert not bool(torch.isfinite(losses["loss_rpn_box_reg"]))
    assert len(model.eval().predict_forward(batch).image_N) == 0
