"""The facts of an engine, as data. Separate from facts.py, which lists the engines: each engine has one `EngineFacts`.

Nothing here, and nothing that an engine's facts are made of, imports torch: planning needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench import spec

CLASSIFIER = "classifier"  # the parameter group that every engine has, and leaves to the classifier


def one_head(detector: spec.DetectorSection) -> int:
    """Of engines without a cascade."""
    return 1


def no_anchors(detector: spec.DetectorSection) -> tuple[list[tuple[float, float]], float]:
    """Of engines without anchors."""
    return [], 0.0


@dataclass(frozen=True)
class EngineFacts:
    """One engine. The functions get a detector section that `check` has let pass.

    Attributes:
        name: as written in a suite.
        version: part of every key that the engine's numbers enter; bumped when they may change.
        module: dotted module with `build` (a bench.detection.contract.Detector) and `read_weights`.
        provides: capability words a method may need.
        trunks: name of each trunk -> the feature maps it yields, finest first.
        groups: parameter groups that a stage may train, in the order of the model; CLASSIFIER among them.
        projector: those of them between the backbone and the rest, which bring its features to the widths of the heads
            (an FPN, the input projections of a DETR).
        check: refuses, as a UserError, a section that cannot be built; engine and trunk are known already.
        head_widths: features D of a RoI, and (channels, height, width) of its map.
        parameters: parameters below the classifier, for so many classes.
        proposals: of each image at test time, and the refined boxes of each proposal, for so many classes.
        anchors: (width, height) of every kind of anchor, pixels of the resized image, and the IoU with a box below
            which one is background; no anchors for an engine without.
        heads: how many classifiers there are one after the other (a cascade, decoder layers).
        classifier: the part that a row has which names none, and its settings.
        postprocess: dotted module with `detections`, by which scores become boxes, and VERSION, which enters the key of
            what is predicted.
    """

    name: str
    version: int
    module: str
    provides: frozenset[str]
    trunks: Mapping[str, tuple[str, ...]]
    groups: tuple[str, ...]
    projector: tuple[str, ...]
    check: Callable[[spec.DetectorSection], None]
    head_widths: Callable[[spec.DetectorSection], tuple[int, tuple[int, int, int]]]
    parameters: Callable[[spec.DetectorSection, int], int]
    proposals: Callable[[spec.DetectorSection, int], tuple[int, int]]
    anchors: Callable[[spec.DetectorSection], tuple[list[tuple[float, float]], float]] = no_anchors
    heads: Callable[[spec.DetectorSection], int] = one_head
    classifier: tuple[str, Mapping[str, Any]] = ("softmax:Softmax", {})
    postprocess: str = "bench.detection.postprocess"
