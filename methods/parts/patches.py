"""Patches: edits of a trained classifier without training. Separate because a patch stage runs them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from bench.detection.contract import Classifier, Detector
from bench.errors import UserError, unknown
from bench.frequency import levels_of
from methods.parts.softmax import Linear

VERSION = 1


def tau_norm(classifier: Classifier, *, tau: float = 1.0, background: str = "scaled") -> Classifier:
    """tau-normalisation: each weight row w becomes w / ||w||^tau, biases stay; edits the classifier in place.

    Source: Kang et al. (ICLR 2020), section 4; row (12) of BAGS Table 1 scales the background row too (its ACC_bg falls
    to 3.42), another released script leaves it. A row of norm 0 has no direction and is left as it is.

    Args:
        classifier: a copy that the caller owns, of one linear layer.
        tau: 0 changes nothing, 1 makes all norms 1.
        background: "scaled" or "kept": whether the background row is normalised too.

    Raises:
        UserError: a negative or infinite tau, another word for background, or a classifier without a weight row of its
            own for each class.
    """
    if background not in ("scaled", "kept"):
        raise unknown("treatment of the background", background, ["scaled", "kept"], where="tau_norm")
    if not 0.0 <= tau < math.inf:
        raise UserError(f"tau is {tau}", where="tau_norm", allowed="a number >= 0 (published: up to 1)")
    W_KD = classifier.class_weights()
    if W_KD is None or not isinstance(classifier, Linear):
        raise UserError(
            f"{type(classifier).__name__} has no weight row of its own for each class that could be normalised",
            where="tau_norm",
            allowed="classifiers of one linear layer",
        )
    with torch.no_grad():
        exact_KD = W_KD.double()
        norm_K1 = exact_KD.norm(dim=1, keepdim=True)
        scale_K1 = torch.where(norm_K1 > 0, norm_K1, torch.ones_like(norm_K1)).pow(-tau)
        if background == "kept" and len(W_KD) > classifier.head.num_classes:
            scale_K1[-1] = 1.0
        classifier.set_class_weights((exact_KD * scale_K1).to(W_KD.dtype))
    return classifier


def joined(
    classifier: Classifier,
    *,
    other: Detector,
    edges: Sequence[float | Mapping[str, float]] = ({"images": 30},),
    levels: int = 1,
    inclusive: bool = True,
) -> Classifier:
    """The rows of the classes of the first `levels` levels from another model, the other classes' from this one; the
    background's is the mean of both. Edits the classifier in place.

    Source: a house choice for SimLTD (arXiv 2412.20047), whose third stage starts from two heads.

    Args:
        classifier: a copy that the caller owns, of one linear layer.
        other: the model that knows the frequent classes, with a classifier of the same kind.
        edges, inclusive: levels of classes by training images, see `exemplars.replay`.
        levels: how many levels are the other's.

    Raises:
        UserError: a classifier of another family, or edges out of range.
    """
    known = other.classifier
    if not isinstance(classifier, Linear) or not isinstance(known, Linear):
        wrong = classifier if not isinstance(classifier, Linear) else known
        raise UserError(
            f"{type(wrong).__name__} has no row of its own for each class", where="joined",
            allowed="classifiers of one linear layer",
        )  # fmt: skip
    head = classifier.head
    theirs = torch.from_numpy(levels_of(head.image_counts, edges, head.num_images, inclusive) < levels)
    with torch.no_grad():
        for mine, their in zip(classifier.fc.parameters(), known.fc.parameters(), strict=True):
            mine[: len(theirs)][theirs] = their[: len(theirs)][theirs]
            mine[len(theirs) :] = (mine[len(theirs) :] + their[len(theirs) :]) / 2
    return classifier
