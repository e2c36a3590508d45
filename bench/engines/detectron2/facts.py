"""The facts of the engine `detectron2`. Separate from the engine: planning reads it, without torch and detectron2.

Its maps are p2, p3, ... as in detectron2's pyramid; the torchvision engine's names of them ("0", "1", ..., "pool") are
understood too, so that one suite serves both.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

from bench.detection.taps import TAPS
from bench.engines.contract import CLASSIFIER, EngineFacts
from bench.engines.sections import TwoStage
from bench.engines.torchvision.facts import Body, anchors, body_of, check_heads, head_widths, proposals

LIBRARY = "detectron2"
INSTALL = "https://detectron2.readthedocs.io/tutorials/install.html"
TESTED = "02b5c4e295e990042a714712c21dc79b731e8833"  # its commit; the last release, 0.6, is of 2021

GROUPS = ("backbone", "fpn", "rpn", "box_head", "box_regressor", CLASSIFIER)
# Counted on the built modules, with affine norms: parameters, channels of all maps together, levels with a conv.
BODIES: Mapping[str, Body] = {
    "resnet18_fpn": Body(11_176_512, 960, 4),
    "resnet50_fpn": Body(23_508_032, 3840, 4),
    "resnet101_fpn": Body(42_500_160, 3840, 4),
    "resnext101_fpn": Body(86_742_336, 3840, 4),  # 32 groups, 8 wide
}
SMALL = "small"  # the torchvision engine's body behind a pyramid of detectron2
TRUNKS: Mapping[str, tuple[str, ...]] = {SMALL: ("p2", "p3", "p4")} | dict.fromkeys(
    BODIES, ("p2", "p3", "p4", "p5", "p6")
)
TOP, BELOW_TOP = "p6", "p5"  # the former is pooled from the latter and has no convolution of its own
_OTHERS = {"0": "p2", "1": "p3", "2": "p4", "3": BELOW_TOP, "pool": TOP}  # the torchvision engine's names


def absent() -> str | None:
    """Why it cannot be used here, and how to get it; None where detectron2 is installed.

    A clone of its repository beside the code is a package without an origin: that is not an installation.
    """
    spec = importlib.util.find_spec(LIBRARY)
    if spec is not None and spec.origin is not None:
        return None
    return f"detectron2 is not installed; how to: {INSTALL} (tested: commit {TESTED[:7]}, --no-build-isolation)"


def levels_of(levels: Sequence[str]) -> tuple[str, ...]:
    """Names of maps as detectron2 has them; what is no name of a map stays as it is."""
    return tuple(_OTHERS.get(level, level) for level in levels)


def maps_read(detector: TwoStage) -> tuple[str, ...]:
    """The maps that the heads read, finest first."""
    wanted = {*levels_of(detector.rpn.levels), *levels_of(detector.roi.levels)}
    return tuple(level for level in TRUNKS[detector.trunk] if level in wanted)


def convolved(detector: TwoStage) -> frozenset[str]:
    """The maps whose output convolutions a loss reaches."""
    return frozenset(BELOW_TOP if level == TOP else level for level in maps_read(detector))


def check(detector: TwoStage) -> None:
    """Refuse what cannot be built wherever detectron2 is installed; whether it is says `absent`.

    Raises:
        UserError: a feature map that the trunk lacks; anchors that do not fit the levels; thresholds that cross.
    """
    check_heads(detector, TRUNKS[detector.trunk], _OTHERS)


def parameters(detector: TwoStage, classes: int) -> int:
    """Below the classifier, without biases and norms of the heads: a few per cent too few."""
    body = body_of(detector) if detector.trunk == SMALL else BODIES[detector.trunk]
    channels, width = detector.fpn_channels, detector.roi.width
    convolutions = len(convolved(detector)) + 1  # and the RPN's own
    pyramid = channels * body.channels + 9 * channels**2 * convolutions
    head = channels * detector.roi.pool**2 * width + width**2
    return body.parameters + pyramid + head + 4 * width * proposals(detector, classes)[1]


_PROVIDES = (
    "classifier",
    "background",
    "body",
    "maps",
    "proposals",
    "rpn",
    "fpn",
    "ignore",
    "box_regressor",
    "class_weights",
    "box_taps",
)
TINY = {
    "detector": {
        "engine": LIBRARY, "trunk": SMALL, "widths": [8, 12, 16, 24], "fpn_channels": 16, "norm": "batch",
        "frozen_stages": 0,
        "rpn": {
            "levels": ["p3", "p4"], "anchor_sizes": [[12, 20], [24, 36]], "anchor_ratios": [1.0], "fg_iou": 0.6,
            "bg_iou": 0.35, "samples": 48, "pre_nms_train": 128, "pre_nms_test": 128, "post_nms_train": 48,
            "post_nms_test": 48, "min_size": 3,
        },
        "roi": {
            "levels": ["p2", "p3"], "sampling_ratio": 1, "aligned": True, "width": 32, "samples": 32,
            "positive_fraction": 0.4, "class_agnostic": True,
        },
    },
}  # fmt: skip
DETECTRON2 = EngineFacts(
    name=LIBRARY,
    version=1,
    module="bench.engines.detectron2.build",
    provides=frozenset({*TAPS, *_PROVIDES}),
    trunks=TRUNKS,
    groups=GROUPS,
    projector=("fpn",),
    head=("box_head",),
    check=check,
    head_widths=head_widths,
    parameters=parameters,
    proposals=proposals,
    anchors=anchors,
    tiny=TINY,
    absent=absent,
)
