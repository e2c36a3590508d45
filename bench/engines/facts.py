"""What each engine provides, as data. Separate because planning needs it and must not import torch.

A method lists the capability words it needs; a row whose engine lacks one is skipped with a reason. `check` refuses a
detector section that cannot be built before anything is started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench import spec
from bench.errors import UserError, unknown

GROUPS = ("backbone", "fpn", "rpn", "box_head", "box_regressor", "classifier")

_PYRAMID = ("0", "1", "2", "3", "pool")


@dataclass(frozen=True)
class EngineFacts:
    """One engine.

    Attributes:
        name: as written in a suite.
        version: part of every key that the engine's numbers enter; bumped when they may change.
        module: dotted module with `build`, `head_widths` and `read_weights`.
        provides: capability words a method may need.
        trunks: name of each trunk -> the feature maps it yields, finest first.
        groups: parameter groups a stage may train.
    """

    name: str
    version: int
    module: str
    provides: frozenset[str]
    trunks: Mapping[str, tuple[str, ...]]
    groups: tuple[str, ...] = GROUPS


ENGINES: Mapping[str, EngineFacts] = {
    "torchvision": EngineFacts(
        name="torchvision",
        version=1,
        module="bench.engines.torchvision",
        provides=frozenset(
            {
                "classifier", "proposals", "rpn", "box_features", "box_features_pre_relu", "roi_map", "fpn", "ignore",
                "box_regressor", "class_weights", "box_taps",
            }
        ),
        trunks={
            "small": ("0", "1"),
            "resnet18_fpn": _PYRAMID,
            "resnet50_fpn": _PYRAMID,
            "mobilenet_v2_fpn": _PYRAMID,
        },
    ),
}  # fmt: skip


def only_classifier(trainable: Sequence[str]) -> bool:
    """Whether a stage that trains these groups (none named: all) leaves everything below the classifier as it is."""
    return bool(trainable) and not set(trainable) & (set(GROUPS) - {"classifier"})


def facts(name: str) -> EngineFacts:
    """The facts of an engine.

    Raises:
        UserError: no such engine.
    """
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES, where="detector.engine")
    return ENGINES[name]


def check(detector: spec.Detector) -> None:
    """Refuse a detector section that its engine cannot build.

    Raises:
        UserError: unknown engine, trunk or feature map; anchors that do not fit the levels.
    """
    engine = facts(detector.engine)
    if detector.trunk not in engine.trunks:
        raise unknown("trunk", detector.trunk, engine.trunks, where="detector.trunk")
    maps = engine.trunks[detector.trunk]
    for where, levels in (("detector.rpn.levels", detector.rpn.levels), ("detector.roi.levels", detector.roi.levels)):
        for level in levels:
            if level not in maps:
                raise unknown(f"feature map of trunk '{detector.trunk}'", level, maps, where=where)
        first = maps.index(levels[0]) if levels else 0
        if not levels or levels != maps[first : first + len(levels)]:
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
        raise UserError("bg_iou is above fg_iou", where="detector.rpn", allowed="bg_iou <= fg_iou")
    if detector.trunk == "small" and len(detector.widths) != 4:
        raise UserError("trunk 'small' has 4 widths", where="detector.widths", allowed="strides 2, 4, 8, 16")
