"""Our detector against torchvision's FasterRCNN: same weights and samples, same losses and detections."""

from __future__ import annotations

import math

import pytest
import torch
from engine_scene import CLASSES, batch_of, losses_of, model_of, pyramid_spec, small_spec
from engine_stock import stock_detector, stock_targets
from torch.nn import functional as F
from torchvision.ops import box_iou

from bench.detection.contract import Draws
from bench.engines.sections import TwoStage

NINTH = 1 / 9  # torchvision's fixed smooth-L1 beta
CASES = {
    "resnet18": pyramid_spec(roi={"beta": NINTH}),
    "resnet18_group_norm": pyramid_spec(norm="group", roi={"beta": NINTH}),
    "mobilenet": pyramid_spec("mobilenet_v2_fpn", roi={"beta": NINTH}),
}


@pytest.fixture(params=list(CASES))
def detector(request: pytest.FixtureRequest) -> TwoStage:
    return CASES[request.param]


def test_losses_and_gradients_equal_torchvision(detector: TwoStage) -> None:
    batch, draws = batch_of(), Draws(seed=3, phase=0, step=7)
    ours = model_of(detector)
    stock = stock_detector(detector, CLASSES, ours.to_foreign(), batch, draws).train()
    expected = stock(batch.images, stock_targets(batch))
    got = losses_of(ours.train(), batch, draws)
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert torch.allclose(got[name], value, atol=1e-5, rtol=1e-5), name
        assert value > 0, f"{name} is zero: the comparison says nothing"
    sum(expected.values()).backward()
    sum(got.values()).backward()
    theirs = {name: p.grad for name, p in stock.named_parameters()}
    for mine, name in (("fpn.inner_blocks.0.0.weight", "backbone.fpn.inner_blocks.0.0.weight"),
                       ("rpn.bbox_pred.weight", "rpn.head.bbox_pred.weight"),
                       ("box_head.fc6.weight", "roi_heads.box_head.fc6.weight")):  # fmt: skip
        mine_grad, their_grad = ours.get_parameter(mine).grad, theirs[name]
        assert mine_grad is not None
        assert their_grad is not None
        assert torch.allclose(mine_grad, their_grad, atol=1e-5, rtol=1e-4), name


def test_proposals_boxes_and_scores_equal_torchvision(detector: TwoStage) -> None:
    batch = batch_of(images=3)
    ours = model_of(detector).eval()
    torch.nn.init.normal_(ours.box_regressor.weight, std=0.05)
    stock = stock_detector(detector, CLASSES, ours.to_foreign(), batch).eval()
    out = ours.predict_forward(batch)
    with torch.no_grad():
        images, _ = stock.transform(batch.images)
        maps = stock.backbone(batch.images)
        proposals, _ = stock.rpn(images, maps)
        features = stock.roi_heads.box_head(stock.roi_heads.box_roi_pool(maps, proposals, batch.sizes))
        logits, deltas = stock.roi_heads.box_predictor(features)
    assert len(torch.cat(proposals)) > 20
    assert torch.allclose(out.proposals_N4, torch.cat(proposals), atol=1e-5)
    assert out.image_N.tolist() == [i for i, boxes in enumerate(proposals) for _ in boxes]
    assert torch.allclose(out.taps.box_features, features, atol=1e-5)
    p_NC, p_bg_N = ours.classifier.scores(ours.classifier(out.taps))
    expected_p = F.softmax(logits, -1)
    assert p_bg_N is not None
    assert torch.allclose(p_NC, expected_p[:, 1:], atol=1e-5)
    assert torch.allclose(p_bg_N, expected_p[:, 0], atol=1e-5)
    expected_boxes = stock.roi_heads.box_coder.decode(deltas, proposals)[:, 1:]
    for i, (height, width) in enumerate(batch.sizes):
        rows = out.image_N == i
        limit = torch.tensor([width, height, width, height], dtype=torch.float32)
        assert torch.allclose(out.boxes[rows], expected_boxes[rows].clamp(min=0).minimum(limit), atol=1e-4)


def test_detections_after_torchvisions_own_post_processing_are_equal(detector: TwoStage) -> None:
    batch = batch_of(images=2)
    ours = model_of(detector).eval()
    torch.nn.init.normal_(ours.classifier.get_parameter("fc.weight"), std=0.3)
    stock = stock_detector(detector, CLASSES, ours.to_foreign(), batch).eval()
    with torch.no_grad():
        expected = stock(batch.images)
        out = ours.predict_forward(batch)
        z_NK = ours.classifier(out.taps)
        deltas = ours.box_regressor(out.taps.box_features)
        proposals = [out.proposals_N4[out.image_N == i] for i in range(2)]
        slot = torch.zeros(len(deltas), 4)
        boxes, scores, labels = stock.roi_heads.postprocess_detections(
            torch.cat((z_NK[:, -1:], z_NK[:, :-1]), 1), torch.cat((slot, deltas), 1), proposals, batch.sizes
        )
    for i in range(2):
        assert len(expected[i]["boxes"]) > 5
        assert torch.equal(labels[i], expected[i]["labels"])
        assert torch.allclose(boxes[i], expected[i]["boxes"], atol=1e-4)
        assert torch.allclose(scores[i], expected[i]["scores"], atol=1e-5)


def test_small_trunk_losses_equal_torchvision_around_it() -> None:
    """One level, batch norm, our anchors and thresholds; RoIAlign not aligned, as torchvision has no other."""
    detector = small_spec(rpn={"levels": ("0", "1"), "anchor_sizes": ((12,), (24,))},
                          roi={"levels": ("0", "1"), "aligned": False, "beta": NINTH})  # fmt: skip
    batch, draws = batch_of(), Draws(seed=0, phase=1, step=2)
    ours = model_of(detector)
    stock = stock_detector(detector, CLASSES, ours.to_foreign(), batch, draws).train()
    expected = stock(batch.images, stock_targets(batch))
    got = losses_of(ours.train(), batch, draws)
    for name, value in expected.items():
        assert torch.allclose(got[name], value, atol=1e-5, rtol=1e-5), name


def test_box_loss_is_the_formula() -> None:
    """Smooth-L1 of beta 1 on clamped targets, summed over positives, divided by all sampled RoIs; box by box."""
    detector = small_spec(roi={"class_agnostic": True, "clamp_targets": 0.5, "beta": 1.0})
    model, batch = model_of(detector), batch_of()
    torch.nn.init.zeros_(model.box_regressor.weight)
    sampled: list[torch.Tensor] = []
    pool = model._pool

    def spy(maps: object, boxes: list[torch.Tensor], image_N: torch.Tensor) -> torch.Tensor:
        sampled.extend(boxes)
        return pool(maps, boxes, image_N)  # type: ignore[arg-type]

    model._pool = spy  # type: ignore[assignment]
    out = model.train_forward(batch, Draws(0, 0, 0), trunk_losses=True)
    expected, positives = 0.0, 0
    for box, label, image in zip(torch.cat(sampled), out.targets.labels_N, out.targets.image_N, strict=True):
        if label == CLASSES:
            continue
        positives += 1
        true = batch.boxes[image][box_iou(box[None], batch.boxes[image])[0].argmax()]
        (x1, y1, x2, y2), (X1, Y1, X2, Y2) = box.tolist(), true.tolist()
        w, h, W, H = x2 - x1, y2 - y1, X2 - X1, Y2 - Y1
        deltas = (10 * ((X1 + X2) - (x1 + x2)) / 2 / w, 10 * ((Y1 + Y2) - (y1 + y2)) / 2 / h,
                  5 * math.log(W / w), 5 * math.log(H / h))  # fmt: skip
        expected += sum(0.5 * min(abs(d), 0.5) ** 2 for d in deltas)
    assert positives > 4
    assert expected > 0
    assert float(out.losses["loss_box_reg"].detach()) == pytest.approx(expected / len(out.targets.labels_N), rel=1e-4)
