"""Losses on the softmax layout. Separate from softmax.py because these use class counts and that one must not.

Shape legend: N RoIs, C foreground classes, K = C + 1, background last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bench.detection.contract import HeadSpec
from bench.errors import UserError, unknown
from bench.frequency import Floats
from methods.parts.softmax import Softmax


class ReweightedSoftmax(Softmax):
    """Softmax whose cross entropy is weighed by inverse class frequency: L = (1/R) sum_r w_y CE_r (not / sum w).

    Source: BAGS (CVPR 2020) supplement, rows (6) and (7) of Table 1; class-balanced weights of Cui et al. (CVPR 2019).
    Counts are the instances of the data the stage trains on, which for the published rows is the full training set.

    DEVIATION: clip defaults to the paper's (0.01, 5); the released code uses (0.1, 5), to be had with `clip`.

    Args:
        head: widths and counts.
        beta: 1 is inverse frequency; below 1 the inverse effective number (1 - beta) / (1 - beta^n).
        clip: (lowest, highest) weight of a foreground class after scaling to mean 1, or None.
        background: weight of the background; {"count_factor": 3} instead treats it as one more class with 3 times
            all instances (released code, "bf"; the paper's sweep has it with clip=None).

    Raises:
        UserError: a setting out of range, or no training instance at all.
    """

    VERSION = 1

    weights_K: Tensor

    def __init__(
        self,
        head: HeadSpec,
        *,
        beta: float = 1.0,
        clip: Sequence[float] | None = (0.01, 5.0),
        background: float | Mapping[str, float] = 1.0,
    ) -> None:
        super().__init__(head)
        weights_K = weights_with_background(head.stage_instance_counts, beta, clip, background)
        # Not persistent: it follows from settings and data, and a checkpoint of another loss must load all the same.
        self.register_buffer("weights_K", torch.tensor(weights_K, dtype=torch.float32), persistent=False)

    def row_weights(self, labels_N: Tensor, loss_N: Tensor) -> Tensor:
        return loss_N * self.weights_K.to(loss_N.dtype)[labels_N]


def class_balanced_weights(counts: ArrayLike, beta: float, clip: Sequence[float] | None) -> Floats:
    """Weights of classes with these training counts: alpha / mean(alpha), then clipped. float64, length of `counts`.

    alpha = 1 / n for beta = 1, else (1 - beta) / (1 - beta^n). A class without training instances has no frequency to
    invert: it is left out of the mean (one such class would else set the scale of all) and gets the highest weight
    there is, the upper clip or the largest other weight. No RoI carries its label, so no loss ever uses the value.

    Raises:
        UserError: beta outside (0, 1], a bad clip, or no positive count.
    """
    n = np.asarray(counts, dtype=np.float64)
    if not 0.0 < beta <= 1.0:
        raise UserError(f"beta is {beta}", where="class weights", allowed="0 < beta <= 1 (1: inverse frequency)")
    if clip is not None and not (len(clip) == 2 and 0.0 <= clip[0] <= clip[1]):
        raise UserError(f"clip is {clip}", where="class weights", allowed="[lowest, highest] >= 0, or null")
    seen = n > 0
    if not seen.any():
        raise UserError("no class has a training instance", where="class weights", hint="check the data part")
    # expm1 because 1 - beta^n loses all digits for beta near 1 and few instances.
    alpha = 1.0 / n[seen] if beta == 1.0 else np.expm1(math.log(beta)) / np.expm1(n[seen] * math.log(beta))
    weights = np.empty_like(n)
    weights[seen] = alpha / alpha.mean()
    if clip is not None:
        weights[seen] = weights[seen].clip(clip[0], clip[1])
    weights[~seen] = clip[1] if clip is not None else weights[seen].max()
    return weights


def weights_with_background(
    counts: Sequence[int], beta: float, clip: Sequence[float] | None, background: float | Mapping[str, float]
) -> Floats:
    """The C + 1 weights, background last; float64. Settings as in `ReweightedSoftmax`.

    Raises:
        UserError: a setting out of range, or no training instance at all.
    """
    if isinstance(background, Mapping):
        if set(background) != {"count_factor"}:
            raise unknown("form of background", ", ".join(background), ["count_factor"], where="class weights")
        count = float(background["count_factor"]) * sum(counts)
        if not count > 0:
            raise UserError(f"background is {dict(background)}", where="class weights", allowed="count_factor > 0")
        return class_balanced_weights([*counts, count], beta, clip)
    if not (math.isfinite(background) and background >= 0.0):
        raise UserError(f"background is {background}", where="class weights", allowed="a weight >= 0")
    return np.append(class_balanced_weights(counts, beta, clip), background)
