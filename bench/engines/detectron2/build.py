"""A detector of detectron2 from its section, its weights file read. Separate from the detector, which reads no files
and can be imported only where detectron2 is installed; this file can be imported anywhere.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from bench.detection.contract import Classifier, HeadSpec
from bench.engines.detectron2 import weights
from bench.engines.detectron2.facts import INSTALL, TESTED, absent
from bench.engines.detectron2.weights import read_file as read_weights
from bench.engines.facts import check
from bench.engines.sections import TwoStage
from bench.engines.torchvision.facts import head_widths
from bench.errors import UserError
from bench.seeds import address

if TYPE_CHECKING:
    from bench.engines.detectron2.detector import Detectron2Detector

__all__ = ["build", "read_weights"]


def build(detector: TwoStage, head: HeadSpec, classifier: Classifier, *, seed: int) -> Detectron2Detector:
    """A detector whose initial weights are a pure function of `seed` (and of the weights file).

    Args:
        detector: engine, trunk and heads; `detector.weights` is read where it is named.
        head: number of classes; D and the RoI shape must be those of `head_widths`.
        classifier: the last layer, built by the caller.
        seed: of the initial weights; torch's global stream is left as it was.

    Raises:
        UserError: detectron2 is not installed, or is broken; a section that cannot be built; a weights file of which
            nothing fits.
    """
    why = absent()
    if why is not None:
        raise UserError(why, where="detector.engine")
    check(detector)
    assert (head.features, head.roi_shape) == head_widths(detector), "the head spec is of another detector section"
    kind = _kind()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address(seed, "init"))
        model = kind(detector, head.num_classes, classifier)
    if detector.weights is not None:
        model.fresh = weights.load_file(model, detector.weights)
    return model


def _kind() -> type[Detectron2Detector]:
    """The class, which needs detectron2."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch.jit.script, some nine times
            from bench.engines.detectron2.detector import Detectron2Detector
    except Exception as error:  # of any kind: it is the code of somebody else
        raise UserError(
            f"detectron2 is installed but cannot be imported: {type(error).__name__}: {error}", where="detector.engine",
            hint=f"install it again, see {INSTALL}; tested: commit {TESTED}",
        ) from error  # fmt: skip
    return Detectron2Detector
