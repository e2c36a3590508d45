"""The facts of the engine `detr`. Separate from the engine: planning reads it and imports no torch."""

from __future__ import annotations

from bench import spec
from bench.engines.contract import CLASSIFIER, EngineFacts
from bench.engines.torchvision.facts import BODIES, TORCHVISION
from bench.errors import UserError, unknown

# `offsets` are where attention heads look, which learn at a rate of their own; they lie in encoder and decoder.
GROUPS = (
    "backbone", "input_proj", "encoder", "decoder", "offsets", "proposals", "objectness", "box_regressor", CLASSIFIER,
)  # fmt: skip


def check(detector: spec.DetectorSection) -> None:
    """Refuse what cannot be built.

    Raises:
        UserError: no section `detr`, a map that the trunk's backbone lacks, a width that heads do not divide.
    """
    if detector.detr is None:
        raise UserError("engine 'detr' has its settings in detector.detr", where="detector.detr", allowed="{} or more")
    section, maps = detector.detr, _maps(detector.trunk)
    for level in section.levels:
        if level not in maps:
            raise unknown(f"map of the backbone of '{detector.trunk}'", level, maps, where="detector.detr.levels")
    if not section.levels or list(section.levels) != sorted(set(section.levels)):
        raise UserError("levels must be given once each, finest first", where="detector.detr.levels")
    if section.width % (4 * section.heads) and section.width % section.heads:
        raise UserError(
            f"width {section.width} for {section.heads} heads", where="detector.detr.width",
            allowed="a multiple of detector.detr.heads",
        )  # fmt: skip
    if section.width % 4:
        raise UserError(f"width {section.width}", where="detector.detr.width", allowed="a multiple of 4")
    if detector.rpn != spec.Rpn() or detector.roi != spec.Roi():
        raise UserError(
            "engine 'detr' has no RPN and no RoIs", where="detector.rpn", hint="leave detector.rpn and .roi out"
        )


def parameters(detector: spec.DetectorSection, classes: int) -> int:
    """Below the classifier, without biases and norms: a few per cent too few."""
    section = detector.detr
    assert section is not None
    D, levels = section.width, len(section.levels) + section.extra_levels
    attention = D * section.heads * levels * section.points * 3 + 2 * D * D
    feed = 2 * D * section.ffn
    layers = section.encoder * (attention + feed) + section.decoder * (attention + feed + 4 * D * D)
    boxes = (section.decoder + 1) * 2 * D * D
    return BODIES[detector.trunk][0] + layers + boxes + 5 * D * D + D * BODIES[detector.trunk][1]


def _maps(trunk: str) -> tuple[str, ...]:
    return ("0", "1", "2") if trunk == "small" else ("0", "1", "2", "3")


def _section(detector: spec.DetectorSection) -> spec.Detr:
    assert detector.detr is not None
    return detector.detr


DETR = EngineFacts(
    name="detr",
    version=1,
    module="bench.engines.detr.build",
    provides=frozenset(
        {"classifier", "box_features", "body", "maps", "ignore", "box_regressor", "class_weights", "box_taps"}
    ),
    trunks=TORCHVISION.trunks,
    groups=GROUPS,
    projector=("input_proj",),
    check=check,
    head_widths=lambda detector: (_section(detector).width, (0, 0, 0)),
    parameters=parameters,
    proposals=lambda detector, classes: (_section(detector).queries, 1),
    heads=lambda detector: _section(detector).decoder,
    classifier=("set_focal:SetFocal", {}),
)
