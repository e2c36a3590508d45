"""The facts of the engine `detr`. Separate from the engine: planning reads it and imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.engines.contract import CLASSIFIER, EngineFacts
from bench.engines.sections import SetPrediction
from bench.engines.torchvision.facts import BODIES, body_of, check_widths
from bench.errors import UserError, unknown

# `offsets` are where attention heads look, which learn at a rate of their own; they lie in encoder and decoder.
GROUPS = (
    "backbone", "input_proj", "encoder", "decoder", "offsets", "proposals", "objectness", "box_regressor", CLASSIFIER,
)  # fmt: skip


# Parts that weigh a loss over C + 1 outputs by class, and the settings that their counterpart here has too.
REWEIGHTED = {
    "losses:ReweightedSoftmax": ("beta", "clip", "background"),
    "focal:ReweightedFocal": ("beta", "clip", "background", "gamma", "alpha"),
}


def check(detector: SetPrediction) -> None:
    """Refuse what cannot be built.

    Raises:
        UserError: a map that the trunk's backbone lacks, a width that heads do not divide.
    """
    section, maps = detector.detr, DETR.trunks[detector.trunk]
    for level in section.levels:
        if level not in maps:
            raise unknown(f"map of the backbone of '{detector.trunk}'", level, maps, where="detector.detr.levels")
    if not section.levels or list(section.levels) != sorted(set(section.levels)):
        raise UserError("levels must be given once each, finest first", where="detector.detr.levels")
    check_widths(detector)
    if section.width % section.heads:
        raise UserError(
            f"width {section.width} for {section.heads} heads", where="detector.detr.width",
            allowed="a multiple of detector.detr.heads",
        )  # fmt: skip
    if section.width % 4:
        raise UserError(f"width {section.width}", where="detector.detr.width", allowed="a multiple of 4")


def parameters(detector: SetPrediction, classes: int) -> int:
    """Below the classifier, without biases and norms: a few per cent too few."""
    section = detector.detr
    D, levels = section.width, len(section.levels) + section.extra_levels
    attention = D * section.heads * levels * section.points * 3 + 2 * D * D
    feed = 2 * D * section.ffn
    layers = section.encoder * (attention + feed) + section.decoder * (attention + feed + 4 * D * D)
    boxes = (section.decoder + 1) * 2 * D * D
    body = body_of(detector)
    return body.parameters + layers + boxes + 5 * D * D + D * body.channels


TINY = {
    "detector": {
        "engine": "detr", "trunk": "small", "widths": [8, 8, 16, 16], "norm": "batch", "frozen_stages": 0,
        "detr": {
            "levels": ["1", "2"], "extra_levels": 0, "width": 16, "heads": 2, "points": 2, "encoder": 1, "decoder": 2,
            "ffn": 32, "queries": 20, "dropout": 0.1, "base_size": 0.15,
        },
    },
    "test": {"nms": 1.0, "score_threshold": 0.0},
    "schedule": {"optimiser": "adamw", "lr": 1e-3, "clip": 0.1},
}  # fmt: skip


def classifier(
    detector: SetPrediction, wanted: str | None, settings: Mapping[str, Any]
) -> tuple[str, Mapping[str, Any]]:
    """A focal loss without a background in place of what weighs classes or names nothing; other parts as named."""
    own = {"weight": detector.detr.loss_class, "prior": detector.detr.prior}
    if wanted is None:
        return "set_focal:SetFocal", own
    if wanted in REWEIGHTED:
        return "set_focal:ReweightedSetFocal", own | {name: settings[name] for name in REWEIGHTED[wanted]}
    return wanted, settings


def _maps(trunk: str) -> tuple[str, ...]:
    return ("0", "1", "2") if trunk == "small" else ("0", "1", "2", "3")


DETR = EngineFacts(
    name="detr",
    version=1,
    module="bench.engines.detr.build",
    provides=frozenset(
        {"classifier", "box_features", "body", "maps", "ignore", "box_regressor", "class_weights", "box_taps"}
    ),
    section=SetPrediction,
    trunks={name.removesuffix("_fpn"): _maps(name) for name in BODIES},
    groups=GROUPS,
    projector=("input_proj",),
    head=("encoder", "decoder", "offsets"),
    judges=("objectness", CLASSIFIER),
    tiny=TINY,
    check=check,
    head_widths=lambda detector: (detector.detr.width, (0, 0, 0)),
    parameters=parameters,
    proposals=lambda detector, classes: (detector.detr.queries, 1),
    heads=lambda detector: detector.detr.decoder,
    classifier=classifier,
)
