"""The facts of an engine, as data. Separate from facts.py, which lists the engines: each engine has one `EngineFacts`.

Nothing here, and nothing that an engine's facts are made of, imports torch: planning needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.engines.sections import DetectorSection, TwoStage

CLASSIFIER = "classifier"  # the parameter group that every engine has, and leaves to the classifier

# What an engine may provide and a method may need, and what that is.
CAPABILITIES: Mapping[str, str] = {
    "classifier": "a classifier of its own, which methods replace",
    "background": "a background among the classes that compete",
    "box_features": "features of each RoI or query",
    "box_features_pre_relu": "the same before the last ReLU of a box head",
    "roi_map": "a pooled feature map of each RoI",
    "class_weights": "a weight row for each class",
    "box_taps": "features at given boxes",
    "body": "the backbone's maps",
    "maps": "the maps that heads read",
    "fpn": "a feature pyramid",
    "rpn": "a region proposal network",
    "proposals": "proposals of boxes without a class",
    "box_regressor": "a box regressor",
    "ignore": "true boxes that are left out of every loss",
}


def here() -> str | None:
    """Of engines that every installation has."""
    return None


def one_head(detector: Any) -> int:
    """Of engines without a cascade."""
    return 1


def as_named(detector: Any, wanted: str | None, settings: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Of engines whose RoIs are of a class or background: the classifier that a recipe names, else softmax."""
    return wanted or "softmax:Softmax", settings


def no_anchors(detector: Any) -> tuple[list[tuple[float, float]], float]:
    """Of engines without anchors."""
    return [], 0.0


@dataclass(frozen=True)
class EngineFacts:
    """One engine. The functions get a section of the kind `section` that `check` has let pass.

    Attributes:
        name: as written in a suite.
        version: part of every key that the engine's numbers enter; bumped when they may change.
        module: dotted module with `build` (a bench.detection.contract.Detector) and `read_weights`.
        provides: words of CAPABILITIES.
        section: the settings of its detectors.
        head: groups that make the features of RoIs or queries, between the projector and what is said of these.
        judges: groups that say what is there: the classifier, and what must learn with it.
        tiny: sections of a suite (detector, test, schedule) for a detector that trains in a second, on which methods
            and the engine are checked; what is left out is as in suites/smoke.yaml.
        absent: why it cannot be used here, and how to get it; None: its library is there.
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
        classifier: the part and settings that take the place of those that a recipe names (None: it names none).
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
    check: Callable[[Any], None]
    head_widths: Callable[[Any], tuple[int, tuple[int, int, int]]]
    parameters: Callable[[Any, int], int]
    proposals: Callable[[Any, int], tuple[int, int]]
    anchors: Callable[[Any], tuple[list[tuple[float, float]], float]] = no_anchors
    heads: Callable[[Any], int] = one_head
    classifier: Callable[[Any, str | None, Mapping[str, Any]], tuple[str, Mapping[str, Any]]] = as_named
    postprocess: str = "bench.detection.postprocess"
    section: type[DetectorSection] = TwoStage
    head: tuple[str, ...] = ()
    judges: tuple[str, ...] = (CLASSIFIER,)
    tiny: Mapping[str, Any] = field(default_factory=dict)
    absent: Callable[[], str | None] = here

    def lacking(self, needs: Collection[str]) -> str | None:
        """Why rows of a method that needs these cannot be had, or None."""
        words = self.missing(needs)
        return f"engine '{self.name}' lacks {', '.join(words)}" if words else None

    def missing(self, needs: Collection[str]) -> list[str]:
        """Those of these words that it does not provide, sorted."""
        return sorted(set(needs) - self.provides)
