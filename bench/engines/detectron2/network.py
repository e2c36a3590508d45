"""The pieces that detectron2 builds: backbone, pyramid, RPN, RoI pooling, box head, box regressor. Separate from the
detector, which puts them in order.

They are made from a config of its defaults, never from its model_zoo package (which needs pkg_resources), by its own
build functions. A backbone and its pyramid are kept apart, so that they are two groups of parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN, Backbone, build_resnet_backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from torch import Tensor, nn

from bench.engines.detectron2.facts import SMALL, convolved, levels_of
from bench.engines.sections import TwoStage
from bench.engines.torchvision import trunks

_NORMS = {"batch": "BN", "frozen": "FrozenBN", "group": "GN"}
_RESNETS: Mapping[str, Mapping[str, int]] = {
    "resnet18_fpn": {"DEPTH": 18, "RES2_OUT_CHANNELS": 64},
    "resnet50_fpn": {"DEPTH": 50},
    "resnet101_fpn": {"DEPTH": 101},
    "resnext101_fpn": {"DEPTH": 101, "NUM_GROUPS": 32, "WIDTH_PER_GROUP": 8},
}
# Where the stride of a bottleneck lies. A property of the weights, not of a section: the files of Microsoft's ResNets
# have it in the first 1 x 1 convolution, all others in the 3 x 3. So it is a buffer, and goes where weights go.
STRIDE_BUFFER = "stride_in_1x1"
HAVE_IT = ("resnet50_fpn", "resnet101_fpn")


def config(detector: TwoStage, num_classes: int) -> CfgNode:
    """detectron2's config of a section. Its matchers, samplers and test thresholds are not used."""
    cfg, rpn, roi = get_cfg(), detector.rpn, detector.roi
    resnets = cfg.MODEL.RESNETS
    resnets.NORM, resnets.STRIDE_IN_1X1 = _NORMS[detector.norm], False
    resnets.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    for name, value in _RESNETS.get(detector.trunk, {}).items():
        setattr(resnets, name, value)
    cfg.MODEL.BACKBONE.FREEZE_AT = 0  # frozen stages are the detector's affair
    cfg.MODEL.FPN.OUT_CHANNELS = detector.fpn_channels
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [list(sizes) for sizes in rpn.anchor_sizes]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [list(rpn.anchor_ratios)]
    cfg.MODEL.PROPOSAL_GENERATOR.MIN_SIZE = rpn.min_size
    cfg.MODEL.RPN.IN_FEATURES = list(levels_of(rpn.levels))
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = rpn.samples
    cfg.MODEL.RPN.SMOOTH_L1_BETA = rpn.beta
    cfg.MODEL.RPN.NMS_THRESH = rpn.nms
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
    head = cfg.MODEL.ROI_BOX_HEAD
    head.NAME, head.NUM_FC, head.FC_DIM = "FastRCNNConvFCHead", 2, roi.width
    head.SMOOTH_L1_BETA, head.CLS_AGNOSTIC_BBOX_REG = roi.beta, roi.class_agnostic
    head.BBOX_REG_WEIGHTS = tuple(roi.box_weights)
    return cfg


@dataclass(frozen=True)
class Trunk:
    """A backbone and a pyramid.

    Attributes:
        body: images -> maps by name, finest first.
        fpn: those maps -> maps p2, p3, ... of one width.
        shapes: channels and stride of each of the latter.
        stages: modules that each step of `frozen_stages` adds, stem first.
        last: channels and pixels per cell of the body's last map.
    """

    body: nn.Module
    fpn: nn.Module
    shapes: Mapping[str, ShapeSpec]
    stages: Sequence[Sequence[nn.Module]]
    last: tuple[int, int]


def build_trunk(detector: TwoStage, cfg: CfgNode) -> Trunk:
    """The trunk that a section names, with detectron2's initial weights ("small": the torchvision engine's, below
    detectron2's pyramid), drawn from torch's global stream."""
    body, stages, shapes = _small(detector) if detector.trunk == SMALL else _resnet(detector, cfg)
    top = None if detector.trunk == SMALL else LastLevelMaxPool()
    fpn = FPN(
        PassThrough(shapes), list(shapes), detector.fpn_channels, norm=cfg.MODEL.FPN.NORM, top_block=top,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )  # fmt: skip
    _drop_unread(fpn, convolved(detector))
    last = list(shapes.values())[-1]
    return Trunk(body, fpn, fpn.output_shape(), stages, (last.channels, last.stride))


Pieces = tuple[nn.Module, Sequence[Sequence[nn.Module]], dict[str, ShapeSpec]]


def _small(detector: TwoStage) -> Pieces:
    small = trunks.build_body(detector)
    channels = small.channels.items()
    shapes = {name: ShapeSpec(channels=width, stride=4 * 2**k) for k, (name, width) in enumerate(channels)}
    return small.body, small.stages, shapes


def _resnet(detector: TwoStage, cfg: CfgNode) -> Pieces:
    body = build_resnet_backbone(cfg, ShapeSpec(channels=3))
    if detector.trunk in HAVE_IT:
        body.register_buffer(STRIDE_BUFFER, torch.zeros((), dtype=torch.int64))
        body.register_load_state_dict_post_hook(follow_strides)
    return body, ((body.stem,), *((stage,) for stage in body.stages)), body.output_shape()


def follow_strides(body: nn.Module, _: object = None) -> None:
    """Put the strides where the buffer `stride_in_1x1` says; a hook after weights were loaded."""
    first = bool(body.get_buffer(STRIDE_BUFFER))
    for stage in body.stages:  # type: ignore[union-attr]
        for block in (block for block in stage if block.stride == 2):
            block.conv1.stride = (2, 2) if first else (1, 1)
            block.conv2.stride = (1, 1) if first else (2, 2)


def _drop_unread(fpn: FPN, wanted: Collection[str]) -> None:
    """Leave out the output convolutions of maps that no head reads: no loss would reach them."""
    for k, level in enumerate(reversed(list(fpn.output_shape())[: len(fpn.output_convs)])):  # coarsest first
        if level not in wanted:
            fpn.output_convs[k] = nn.Identity()
            setattr(fpn, level.replace("p", "fpn_output"), fpn.output_convs[k])


class PassThrough(Backbone):  # type: ignore[misc]
    """Stands where detectron2's FPN looks for its backbone, and hands on the maps that it is given."""

    def __init__(self, shapes: Mapping[str, ShapeSpec]) -> None:
        super().__init__()
        self._shapes = dict(shapes)

    def forward(self, maps: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return maps

    def output_shape(self) -> dict[str, ShapeSpec]:
        return self._shapes


def roi_pool(detector: TwoStage, shapes: Mapping[str, ShapeSpec]) -> ROIPooler:
    """detectron2's RoI pooling: each RoI reads the level of its size (FPN, eq. 1)."""
    roi = detector.roi
    scales = [1 / shapes[level].stride for level in levels_of(roi.levels)]
    kind = "ROIAlignV2" if roi.aligned else "ROIAlign"
    return ROIPooler(roi.pool, scales, max(roi.sampling_ratio, 0), kind)


def box_predictor(detector: TwoStage, cfg: CfgNode) -> tuple[nn.Linear, FastRCNNOutputLayers]:
    """The box regressor (D -> 4, or 4 C with class c at rows 4c..4c+3), and detectron2's output layers without layers:
    the rules by which deltas become a loss and boxes."""
    rules = FastRCNNOutputLayers(cfg, ShapeSpec(channels=detector.roi.width))
    regressor: nn.Linear = rules.bbox_pred
    del rules.cls_score, rules.bbox_pred
    if detector.roi.clamp_targets is not None:
        rules.box2box_transform = Clamped(rules.box2box_transform, detector.roi.clamp_targets)
    return regressor, rules


class Clamped:
    """A box transform whose targets are cut to at most `limit`, either way; detectron2 has none such."""

    def __init__(self, inner: Any, limit: float) -> None:
        self.weights, self._inner, self._limit = inner.weights, inner, limit

    def get_deltas(self, boxes_N4: Tensor, targets_N4: Tensor) -> Tensor:
        """Regression targets N x 4."""
        deltas_N4: Tensor = self._inner.get_deltas(boxes_N4, targets_N4)
        return deltas_N4.clamp(-self._limit, self._limit)

    def apply_deltas(self, deltas_NK: Tensor, boxes_N4: Tensor) -> Tensor:
        """Boxes N x K that deltas make of `boxes`, K = 4 or 4 C."""
        boxes_NK: Tensor = self._inner.apply_deltas(deltas_NK, boxes_N4)
        return boxes_NK
