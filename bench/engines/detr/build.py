"""A Deformable DETR from its section, its weights file read. Separate from the detector, which reads no files."""

from __future__ import annotations

import torch

from bench.detection.contract import Classifier, HeadSpec
from bench.engines.detr import weights
from bench.engines.detr.detector import DeformableDetr
from bench.engines.facts import check
from bench.engines.sections import SetPrediction
from bench.engines.torchvision.weights import read_file as read_weights
from bench.seeds import address

__all__ = ["build", "read_weights"]


def build(detector: SetPrediction, head: HeadSpec, classifier: Classifier, *, seed: int) -> DeformableDetr:
    """A detector whose initial weights are a pure function of `seed` (and of the weights file).

    Args:
        detector: engine, trunk and section `detr`; `detector.weights` is read where it is named, an ImageNet
            backbone or a Deformable DETR of Hugging Face.
        head: number of classes.
        classifier: one for each decoder layer, built by the caller.
        seed: of the initial weights; torch's global stream is left as it was.

    Raises:
        UserError: a section that cannot be built, or a weights file of which nothing fits.
    """
    check(detector)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address(seed, "init"))
        model = DeformableDetr(detector, head.num_classes, classifier)
    if detector.weights is not None:
        model.fresh = weights.load_file(model, detector.weights)
    return model
