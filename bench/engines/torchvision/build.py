"""A torchvision detector from its section, its weights file read. Separate from the detector, which reads no files, and
from weights.py, which uses no more of a detector than the names of its tensors.
"""

from __future__ import annotations

import torch

from bench.detection.contract import Classifier, HeadSpec
from bench.engines.facts import check
from bench.engines.sections import TwoStage
from bench.engines.torchvision import weights
from bench.engines.torchvision.detector import TwoStageDetector
from bench.engines.torchvision.facts import head_widths
from bench.engines.torchvision.weights import read_file as read_weights
from bench.seeds import address

__all__ = ["build", "read_weights"]


def build(detector: TwoStage, head: HeadSpec, classifier: Classifier, *, seed: int) -> TwoStageDetector:
    """A detector whose initial weights are a pure function of `seed` (and of the weights file).

    Args:
        detector: engine, trunk and heads; `detector.weights` is read where it is named.
        head: number of classes; D and the RoI shape must be those of `head_widths`.
        classifier: the last layer, built by the caller.
        seed: of the initial weights; torch's global stream is left as it was.

    Raises:
        UserError: a section that cannot be built, or a weights file of which nothing fits.
    """
    check(detector)
    assert (head.features, head.roi_shape) == head_widths(detector), "the head spec is of another detector section"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address(seed, "init"))
        model = TwoStageDetector(detector, head.num_classes, classifier)
    if detector.weights is not None:
        model.fresh = weights.load_file(model, detector.weights)
    return model
