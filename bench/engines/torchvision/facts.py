"""The facts of the torchvision engine. Separate from the engine: planning reads it and imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.detection.taps import TAPS
from bench.engines.contract import CLASSIFIER, EngineFacts
from bench.engines.sections import DetectorSection, TwoStage
from bench.errors import UserError, unknown

GROUPS = ("backbone", "fpn", "rpn", "box_head", "box_regressor", CLASSIFIER)

_PYRAMID = ("0", "1", "2", "3", "pool")


class Body(NamedTuple):
    """Of a backbone, counted on the built modules: parameters, channels of all maps together, levels of its pyramid."""

    parameters: int
    channels: int
    levels: int


# By trunk. Other engines take the body alone, and call it without "_fpn". "small" is that of the default widths.
BODIES: Mapping[str, Body] = {
    "small": Body(435_624, 224, 2),
    "resnet18_fpn": Body(11_186_112, 960, 4),
    "resnet50_fpn": Body(23_561_152, 3840, 4),
    "resnet101_fpn": Body(42_605_504, 3840, 4),
    "mobilenet_v2_fpn": Body(2_257_984, 1344, 4),
}


def body_of(detector: DetectorSection) -> Body:
    """The backbone of a section's trunk, with or without a pyramid."""
    trunk, widths = detector.trunk, detector.widths
    if trunk != "small":
        return BODIES.get(trunk) or BODIES[f"{trunk}_fpn"]
    blocks = sum(9 * c * (b + c) + b * c + 12 * c for b, c in itertools.pairwise(widths))  # convolutions and norms
    return Body((27 + 4) * widths[0] + blocks, sum(widths[2:]), BODIES[trunk].levels)


def check(detector: TwoStage) -> None:
    """Refuse what cannot be built.

    Raises:
        UserError: see `check_heads`.
    """
    check_heads(detector, TORCHVISION.trunks[detector.trunk])


def check_heads(detector: TwoStage, maps: Sequence[str], named: Mapping[str, str] | None = None) -> None:
    """Refuse heads that do not fit a pyramid.

    Args:
        detector: the section.
        maps: of its trunk, finest first.
        named: other names of maps that are understood -> the maps.

    Raises:
        UserError: a feature map that the trunk lacks; anchors that do not fit the levels; thresholds that cross.
    """
    for where, given in (("detector.rpn.levels", detector.rpn.levels), ("detector.roi.levels", detector.roi.levels)):
        levels = tuple((named or {}).get(level, level) for level in given)
        for name, level in zip(given, levels, strict=True):
            if level not in maps:
                raise unknown(f"feature map of trunk '{detector.trunk}'", name, maps, where=where)
        first = maps.index(levels[0]) if levels else 0
        if not levels or levels != tuple(maps[first : first + len(levels)]):
            raise UserError(
                "levels must be neighbours, finest first", where=where, allowed=f"a run of {', '.join(maps)}"
            )
    sizes = detector.rpn.anchor_sizes
    if len(sizes) != len(detector.rpn.levels) or len({len(of_level) for of_level in sizes}) != 1:
        raise UserError(
            f"{len(sizes)} groups of anchor sizes for {len(detector.rpn.levels)} levels",
            where="detector.rpn.anchor_sizes",
            allowed="one group for each of rpn.levels, all of one length (the RPN head is shared)",
        )
    if detector.rpn.bg_iou > detector.rpn.fg_iou:
        raise UserError("bg_iou is above fg_iou", where="detector.rpn.bg_iou", allowed="bg_iou <= fg_iou")
    check_widths(detector)


def check_widths(detector: DetectorSection) -> None:
    """Refuse a trunk `small` with other than its four widths.

    Raises:
        UserError: there are more or fewer.
    """
    if detector.trunk == "small" and len(detector.widths) != 4:
        raise UserError("trunk 'small' has 4 widths", where="detector.widths", allowed="strides 2, 4, 8, 16")


def head_widths(detector: TwoStage) -> tuple[int, tuple[int, int, int]]:
    """(features D, (channels, height, width) of a RoI map)."""
    return detector.roi.width, (detector.fpn_channels, detector.roi.pool, detector.roi.pool)


def parameters(detector: TwoStage, classes: int) -> int:
    """Below the classifier, without biases and norms: a few per cent too few."""
    body, read, levels = body_of(detector)
    channels, width = detector.fpn_channels, detector.roi.width
    pyramid = channels * read + 9 * channels**2 * (levels + 1)  # and the RPN's own 3 x 3 conv
    head = channels * detector.roi.pool**2 * width + width**2
    return body + pyramid + head + 4 * width * _boxes(detector, classes)


def proposals(detector: TwoStage, classes: int) -> tuple[int, int]:
    """(proposals of an image, refined boxes of each)."""
    return detector.rpn.post_nms_test, _boxes(detector, classes)


def anchors(detector: TwoStage) -> tuple[list[tuple[float, float]], float]:
    """As torchvision's AnchorGenerator: of one area for each size, height / width = ratio."""
    rpn = detector.rpn
    sizes = [size for level in rpn.anchor_sizes for size in level]
    return [(size / ratio**0.5, size * ratio**0.5) for size in sizes for ratio in rpn.anchor_ratios], rpn.bg_iou


def _boxes(detector: TwoStage, classes: int) -> int:
    return 1 if detector.roi.class_agnostic else classes


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
TORCHVISION = EngineFacts(
    name="torchvision",
    version=1,
    module="bench.engines.torchvision.build",
    provides=frozenset({*TAPS, *_PROVIDES}),
    trunks={name: ("0", "1") if name == "small" else _PYRAMID for name in BODIES},
    groups=GROUPS,
    projector=("fpn",),
    head=("box_head",),
    check=check,
    head_widths=head_widths,
    parameters=parameters,
    proposals=proposals,
    anchors=anchors,
)
