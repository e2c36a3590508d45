"""Plain detectron2, assembled and trained by its own functions, and ours of the same settings. Separate because several
test files use them, and because it says what happens where detectron2 is absent or broken.

Nothing here imports detectron2 before a test asks for it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from engine_scene import CLASSES, PlainSoftmax, head_of, pyramid_spec
from torch import Tensor

from bench.detection.contract import Batch, Classifier, Draws, HeadSpec
from bench.detection.sampling import Matched, draw
from bench.engines.detectron2.build import build
from bench.engines.detectron2.facts import LIBRARY, absent
from bench.engines.detectron2.weights import to_foreign
from bench.engines.sections import TwoStage

REQUIRED = "LT_REQUIRE_ENGINES"  # names of engines that must be installed, by commas: a lane that must not skip
MODULES = ("config", "layers", "modeling", "data.samplers", "checkpoint")  # never model_zoo, which needs pkg_resources


def verdict(absent: str | None, broken: str | None, required: bool) -> Literal["run", "skip", "fail"]:
    """What to do with tests that need an engine."""
    if absent is not None:
        return "fail" if required else "skip"
    return "run" if broken is None else "fail"


def is_required() -> bool:
    return LIBRARY in os.environ.get(REQUIRED, "").split(",")


def broken() -> str | None:
    """Why an installed detectron2 cannot be used, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for module in MODULES:
                importlib.import_module(f"{LIBRARY}.{module}")
    except Exception as error:
        return f"detectron2 is installed but broken: {type(error).__name__}: {error}"
    return None


def demand() -> None:
    """Skip or fail where detectron2 cannot be used."""
    gone = absent()
    wrong = broken() if gone is None else None
    todo = verdict(gone, wrong, is_required())
    if todo == "skip":
        pytest.skip(str(gone))
    if todo == "fail":
        pytest.fail(wrong or f"{gone}; {REQUIRED} asks for it")


# -- the two detectors


def spec(trunk: str = "resnet18_fpn", **changes: Any) -> TwoStage:
    """Thin heads and few samples on a trunk that both have; the box loss is detectron2's kind, without a clamp."""
    roi = {"aligned": True, "sampling_ratio": 0, "beta": 0.0, **changes.pop("roi", {})}
    rpn = {"beta": 0.0, "min_size": 0.0, **changes.pop("rpn", {})}
    found = pyramid_spec(trunk, **{"norm": "group", "roi": roi, "rpn": rpn, **changes})
    return found.model_copy(update={"engine": LIBRARY})


def ours(detector: TwoStage, *, seed: int = 0, classifier: Callable[[HeadSpec], Classifier] = PlainSoftmax) -> Any:
    head = head_of(detector)
    return build(detector, head, classifier(head), seed=seed)


def config(detector: TwoStage, first: bool = False) -> Any:
    """The config that a user of detectron2 would write for the same; images go in as they are."""
    from detectron2.config import get_cfg

    cfg, rpn, roi = get_cfg(), detector.rpn, detector.roi
    assert detector.norm in ("batch", "group", "frozen")
    cfg.MODEL.DEVICE, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = "cpu", [0.0] * 3, [1.0] * 3
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = detector.frozen_stages
    cfg.MODEL.RESNETS.NORM = {"batch": "BN", "group": "GN", "frozen": "FrozenBN"}[detector.norm]
    cfg.MODEL.RESNETS.DEPTH = int(detector.trunk.removeprefix("resnet").removesuffix("_fpn"))
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if cfg.MODEL.RESNETS.DEPTH < 50 else 256
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = first
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = detector.fpn_channels
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [list(sizes) for sizes in rpn.anchor_sizes]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [list(rpn.anchor_ratios)]
    cfg.MODEL.PROPOSAL_GENERATOR.MIN_SIZE = rpn.min_size
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.RPN.IOU_THRESHOLDS = [rpn.bg_iou, rpn.fg_iou]
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE, cfg.MODEL.RPN.POSITIVE_FRACTION = rpn.samples, rpn.positive_fraction
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN, cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = rpn.pre_nms_train, rpn.pre_nms_test
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = rpn.post_nms_train, rpn.post_nms_test
    cfg.MODEL.RPN.NMS_THRESH, cfg.MODEL.RPN.SMOOTH_L1_BETA = rpn.nms, rpn.beta
    cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_HEADS.NUM_CLASSES = "StandardROIHeads", CLASSES
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE, cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION = roi.samples, roi.positive_fraction
    cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS = [roi.fg_iou]
    head = cfg.MODEL.ROI_BOX_HEAD
    head.NAME, head.NUM_FC, head.FC_DIM, head.POOLER_RESOLUTION = "FastRCNNConvFCHead", 2, roi.width, roi.pool
    head.POOLER_SAMPLING_RATIO, head.SMOOTH_L1_BETA = roi.sampling_ratio, roi.beta
    head.POOLER_TYPE = "ROIAlignV2" if roi.aligned else "ROIAlign"
    head.CLS_AGNOSTIC_BBOX_REG = roi.class_agnostic
    return cfg


def plain(cfg: Any, state: Mapping[str, Tensor] | None = None) -> Any:
    """detectron2's own model; `state` is loaded strictly."""
    from detectron2.modeling import build_model

    model = build_model(cfg)
    if state is not None:
        model.load_state_dict(dict(state), strict=True)
    return model


def pair(detector: TwoStage) -> tuple[Any, Any]:
    """(ours, theirs) with the same weights: the regressor's are larger than at the start, so that boxes differ."""
    model = ours(detector)
    torch.nn.init.normal_(model.box_regressor.weight, std=0.05)
    return model, plain(config(detector), to_foreign(model))


def inputs(batch: Batch) -> list[dict[str, Any]]:
    """A batch as detectron2 takes it: images without their padding, one by one."""
    from detectron2.structures import Boxes, Instances

    found = []
    for image, (height, width), boxes, labels in zip(
        batch.images, batch.sizes, batch.boxes, batch.labels, strict=True
    ):  # fmt: skip
        truth = Instances((height, width), gt_boxes=Boxes(boxes.clone()), gt_classes=labels)
        found.append({"image": image[:, :height, :width], "instances": truth})
    return found


class OurSample:
    """In the place of detectron2's `subsample_labels`: the draws of one step, image after image."""

    def __init__(self, role: str, draws: Draws) -> None:
        self.role, self.draws, self.image = role, draws, 0

    def __call__(self, labels: Tensor, count: int, fraction: float, background: int) -> tuple[Tensor, Tensor]:
        negative_N = labels == background
        matched = Matched(labels.long(), ~negative_N & (labels != -1), negative_N)
        self.image += 1
        return draw(matched, count, fraction, self.draws.generator(self.role, self.image - 1))


@contextlib.contextmanager
def sampling(draws: Draws) -> Iterator[None]:
    """detectron2 samples what we sample, for one step."""
    from detectron2.modeling.proposal_generator import rpn
    from detectron2.modeling.roi_heads import roi_heads

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rpn, "subsample_labels", OurSample("rpn_sample", draws))
        patch.setattr(roi_heads, "subsample_labels", OurSample("roi_sample", draws))
        yield


def plain_losses(model: Any, batch: Batch, draws: Draws) -> dict[str, Tensor]:
    """The losses of one step of plain detectron2, under our names."""
    from detectron2.utils.events import EventStorage

    with EventStorage(), sampling(draws):
        found = model(inputs(batch))
    names = {
        "loss_cls": "loss_classifier", "loss_rpn_cls": "loss_objectness", "loss_rpn_loc": "loss_rpn_box_reg",
    }  # fmt: skip
    return {names.get(name, name): value for name, value in found.items()}


def write_zoo(
    path: Path, state: Mapping[str, Tensor], *, author: str = "Detectron2 Model Zoo", protocol: int = 2
) -> Path:
    """A file as detectron2's zoo has them: a pickle of arrays."""
    content = {"model": {name: value.numpy() for name, value in state.items()}, "__author__": author}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path
