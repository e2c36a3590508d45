"""torchvision's own FasterRCNN with our weights. Separate because it is the yardstick, not the thing tested."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign

from bench.detection.contract import Batch, Draws
from bench.detection.sampling import Matched, draw
from bench.engines.sections import TwoStage
from bench.engines.torchvision.heads import rpn_head
from bench.engines.torchvision.trunks import build_trunk, norm_layer


class Backbone(nn.Module):
    """Body and pyramid under torchvision's names; yields only the maps that RPN or RoI pooling read."""

    def __init__(self, detector: TwoStage) -> None:
        super().__init__()
        trunk = build_trunk(detector)
        self.body, self.fpn, self.out_channels = trunk.body.body, trunk.fpn, detector.fpn_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.fpn(OrderedDict(self.body(images)))
        return maps


class Untouched(nn.Module):
    """In the place of GeneralizedRCNNTransform: our batches are resized, normalised and padded already."""

    def __init__(self, sizes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, images: Tensor, targets: Any = None) -> tuple[ImageList, Any]:
        return ImageList(images, self.sizes), targets

    def postprocess(self, result: Any, *_: Any) -> Any:
        return result


class AddressedSampler:
    """torchvision's sampler interface over our draw: same labels, same address, same samples."""

    def __init__(self, count: int, fraction: float, role: str, draws: Draws) -> None:
        self.count, self.fraction, self.role, self.draws = count, fraction, role, draws

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        hits, misses = [], []
        for image, label_N in enumerate(labels):
            matched = Matched(label_N.long(), label_N >= 1, label_N == 0)
            hit, miss = draw(matched, self.count, self.fraction, self.draws.generator(self.role, image))
            for chosen, masks in ((hit, hits), (miss, misses)):
                mask = torch.zeros_like(label_N, dtype=torch.uint8)
                mask[chosen] = 1
                masks.append(mask)
        return hits, misses


def stock_detector(
    detector: TwoStage, classes: int, state: Any, batch: Batch, draws: Draws | None = None
) -> FasterRCNN:
    """FasterRCNN with `state` loaded strictly, and our samples if `draws` is given (else torchvision's own)."""
    rpn, roi = detector.rpn, detector.roi
    assert not roi.class_agnostic
    net = FasterRCNN(
        Backbone(detector),
        rpn_anchor_generator=AnchorGenerator(rpn.anchor_sizes, (rpn.anchor_ratios,) * len(rpn.levels)),
        rpn_head=rpn_head(detector, norm_layer(detector.norm)),
        rpn_pre_nms_top_n_train=rpn.pre_nms_train, rpn_pre_nms_top_n_test=rpn.pre_nms_test,
        rpn_post_nms_top_n_train=rpn.post_nms_train, rpn_post_nms_top_n_test=rpn.post_nms_test,
        rpn_nms_thresh=rpn.nms, rpn_fg_iou_thresh=rpn.fg_iou, rpn_bg_iou_thresh=rpn.bg_iou,
        rpn_batch_size_per_image=rpn.samples, rpn_positive_fraction=rpn.positive_fraction,
        box_roi_pool=MultiScaleRoIAlign(list(roi.levels), roi.pool, roi.sampling_ratio),
        box_head=TwoMLPHead(detector.fpn_channels * roi.pool**2, roi.width),
        box_predictor=FastRCNNPredictor(roi.width, classes + 1),
        box_score_thresh=0.0, box_nms_thresh=0.5, box_detections_per_img=100,
        box_fg_iou_thresh=roi.fg_iou, box_bg_iou_thresh=roi.fg_iou, box_batch_size_per_image=roi.samples,
        box_positive_fraction=roi.positive_fraction, bbox_reg_weights=roi.box_weights,
    )  # fmt: skip
    net.load_state_dict(dict(state), strict=True)
    net.transform = Untouched(batch.sizes)
    net.rpn.min_size = rpn.min_size
    if draws is not None:
        net.rpn.fg_bg_sampler = AddressedSampler(rpn.samples, rpn.positive_fraction, "rpn_sample", draws)
        net.roi_heads.fg_bg_sampler = AddressedSampler(roi.samples, roi.positive_fraction, "roi_sample", draws)
    return net


def stock_targets(batch: Batch) -> list[dict[str, Tensor]]:
    """torchvision's targets: labels start at 1."""
    return [{"boxes": b, "labels": y + 1} for b, y in zip(batch.boxes, batch.labels, strict=True)]
