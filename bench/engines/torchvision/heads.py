"""RPN head, RoI pooling and box head. Separate because they are the same on every trunk.

Legend: B images, N RoIs of the batch, D features, P pool size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import Conv2dNormActivation, roi_align
from torchvision.ops.poolers import LevelMapper

from bench.engines.sections import Roi, TwoStage
from bench.engines.torchvision.trunks import Norm

# Initial objectness of trunk "small", sigmoid(-2) = 0.12: part of the recipe the CPU default was measured with
# (RetinaNet, section 4.1, starts from 0.01 for the same reason: most anchors are background).
_SMALL_OBJECTNESS_BIAS = -2.0


def rpn_head(detector: TwoStage, norm: Norm) -> RPNHead:
    """torchvision's RPN head; trunk "small", trained from scratch at a high rate, has a norm after its 3 x 3 conv."""
    per_cell = len(detector.rpn.anchor_sizes[0]) * len(detector.rpn.anchor_ratios)
    head = RPNHead(detector.fpn_channels, per_cell)
    if detector.trunk == "small":
        channels = detector.fpn_channels
        head.conv = nn.Sequential(Conv2dNormActivation(channels, channels, 3, norm_layer=norm))
        nn.init.constant_(head.cls_logits.bias, _SMALL_OBJECTNESS_BIAS)
    return head


def box_head(detector: TwoStage) -> TwoMLPHead:
    """Two FC layers, `roi.width` wide."""
    return TwoMLPHead(detector.fpn_channels * detector.roi.pool**2, detector.roi.width)


def box_regressor(detector: TwoStage, num_classes: int) -> nn.Linear:
    """D -> 4 (class-agnostic) or 4 C, class c at rows 4c..4c+3 (no background slot)."""
    layer = nn.Linear(detector.roi.width, 4 if detector.roi.class_agnostic else 4 * num_classes)
    if detector.trunk == "small":
        nn.init.normal_(layer.weight, std=0.001)  # Fast R-CNN, section 2.3
        nn.init.zeros_(layer.bias)
    return layer


def box_features(head: TwoMLPHead, map_NCPP: Tensor) -> tuple[Tensor, Tensor]:
    """(features after the last ReLU, the same before it), each ND."""
    before_ND = head.fc7(torch.relu(head.fc6(map_NCPP.flatten(1))))
    return torch.relu(before_ND), before_ND


class RoiPool:
    """RoIAlign over the pyramid: each RoI reads the level of its size (FPN, eq. 1: 224 px at stride 16).

    As torchvision's MultiScaleRoIAlign, which has no `aligned` and remembers the scales of its first batch.
    """

    def __init__(self, roi: Roi, strides: Mapping[str, int]) -> None:
        self.roi = roi
        self.strides = [strides[level] for level in roi.levels]
        finest, coarsest = (int(math.log2(stride)) for stride in (self.strides[0], self.strides[-1]))
        self.level_of = LevelMapper(finest, coarsest)

    def __call__(self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor], image_N: Tensor) -> Tensor:
        """Pooled maps, N x channels x P x P float32; `boxes` holds the RoIs of each image in batch order."""
        rois_N5 = torch.cat((image_N[:, None].to(boxes[0].dtype), torch.cat(list(boxes))), 1)
        levels = [maps[name].float() for name in self.roi.levels]
        if len(levels) == 1:
            return self._align(levels[0], rois_N5, self.strides[0])
        level_N = self.level_of(list(boxes))
        pooled = levels[0].new_zeros(len(rois_N5), levels[0].shape[1], self.roi.pool, self.roi.pool)
        for index, (level, stride) in enumerate(zip(levels, self.strides, strict=True)):
            rows = (level_N == index).nonzero()[:, 0]
            pooled[rows] = self._align(level, rois_N5[rows], stride)
        return pooled

    def _align(self, level: Tensor, rois_N5: Tensor, stride: int) -> Tensor:
        # roi_align reads NCHW memory: a channels-last map would be copied inside, once more in the backward pass.
        pooled: Tensor = roi_align(
            level.contiguous(), rois_N5, self.roi.pool, 1 / stride, self.roi.sampling_ratio, self.roi.aligned
        )
        return pooled
