"""Focal loss on the softmax layout. Separate from losses.py because it trains C + 1 sigmoids, not one softmax.

Shape legend: N RoIs, C foreground classes, K = C + 1 outputs, background last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.detection.contract import Context, HeadSpec, Targets
from bench.detection.focal import focal_of
from bench.errors import UserError, unknown
from methods.parts.losses import weights_with_background
from methods.parts.softmax import Softmax, wide

REDUCTIONS = ("mean", "row")
INFERENCES = ("softmax", "sigmoid")


class SigmoidFocal(Softmax):
    """Focal loss with a sigmoid for each of the C + 1 outputs; the background is one class among the others.

    l = -a (1 - p_t)^gamma log p_t, where p_t = p for the output of the RoI's class and 1 - p for the others, a = alpha
    and 1 - alpha likewise.

    Source: Lin et al., focal loss (ICCV 2017), equation 5; BAGS (CVPR 2020), rows (8) and (9) of Table 1, whose
    released code has the background as an ordinary channel. Weights are those of `Softmax`: each loads the other's.

    DEVIATION: the released BAGS code passes one-hot labels to an operator that expects class ids and does not run as it
    is; this is the formula.
    DEVIATION: the released BAGS code tests with a softmax over outputs that were trained as sigmoids, and so does the
    default; `inference="sigmoid"` tests as it trains.

    Args:
        head: widths.
        gamma: 0 is cross entropy weighed by alpha; the larger, the less easy outputs count.
        alpha: weight of the output of the RoI's own class.
        reduction: "mean" over all N (C + 1) entries (BAGS), or "row": sum over outputs, mean over RoIs, C + 1 times as
            much.
        inference: "softmax" or "sigmoid": how outputs become scores.

    Raises:
        UserError: a setting out of range.
    """

    VERSION = 1

    def __init__(
        self,
        head: HeadSpec,
        *,
        gamma: float = 2.0,
        alpha: float = 0.25,
        reduction: str = "mean",
        inference: str = "softmax",
    ) -> None:
        super().__init__(head)
        where = type(self).__name__
        if not 0.0 <= gamma < math.inf:
            raise UserError(f"gamma is {gamma}", where=where, allowed="a number >= 0 (published: 0.5 to 2)")
        if not 0.0 <= alpha <= 1.0:
            raise UserError(f"alpha is {alpha}", where=where, allowed="0 <= alpha <= 1 (published: 0.25)")
        if reduction not in REDUCTIONS:
            raise unknown("reduction", reduction, REDUCTIONS, where=where)
        if inference not in INFERENCES:
            raise unknown("inference", inference, INFERENCES, where=where)
        self._gamma, self._alpha, self._mean, self._sigmoid = gamma, alpha, reduction == "mean", inference == "sigmoid"

    def loss(self, z_NK: Tensor, targets: Targets, context: Context) -> dict[str, Tensor]:
        """Focal loss, divided by the number of RoIs on this device (and of outputs); zero RoIs give 0 with a graph."""
        loss_NK = focal(wide(z_NK), targets.labels_N, self._gamma, self._alpha)
        loss_N = self.row_weights(targets.labels_N, loss_NK.sum(1))
        outputs = loss_NK.shape[1] if self._mean else 1
        return {"classification": loss_N.sum() / (max(len(loss_N), 1) * outputs)}

    def scores(self, z_NK: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self._sigmoid:
            return super().scores(z_NK)
        p_NK = wide(z_NK).sigmoid()
        return p_NK[:, :-1], p_NK[:, -1]


class ReweightedFocal(SigmoidFocal):
    """Focal loss of each RoI weighed by the inverse frequency of its class: L = (1/R) sum_r w_y focal_r.

    All C + 1 outputs of a RoI get the weight of its own class, as in the class-balanced focal loss.

    Source: Cui et al. (CVPR 2019), class-balanced focal loss; BAGS (CVPR 2020), supplement, figure 5 left (gamma 0.5,
    beta 0.999, background as a class of three times all instances). The settings of the weights are those of
    `losses:ReweightedSoftmax`, the others those of `SigmoidFocal`.

    DEVIATION: Cui et al. have no alpha; here it is that of `SigmoidFocal` (0.5 is none but for a factor).
    """

    VERSION = 1

    weights_K: Tensor

    def __init__(
        self,
        head: HeadSpec,
        *,
        gamma: float = 2.0,
        alpha: float = 0.25,
        reduction: str = "mean",
        inference: str = "softmax",
        beta: float = 1.0,
        clip: Sequence[float] | None = (0.01, 5.0),
        background: float | Mapping[str, float] = 1.0,
    ) -> None:
        super().__init__(head, gamma=gamma, alpha=alpha, reduction=reduction, inference=inference)
        weights_K = weights_with_background(head.stage_instance_counts, beta, clip, background)
        # Not persistent: it follows from settings and data, and a checkpoint of another loss must load all the same.
        self.register_buffer("weights_K", torch.tensor(weights_K, dtype=torch.float32), persistent=False)

    def row_weights(self, labels_N: Tensor, loss_N: Tensor) -> Tensor:
        return loss_N * self.weights_K.to(loss_N.dtype)[labels_N]


def focal(z_NK: Tensor, labels_N: Tensor, gamma: float, alpha: float) -> Tensor:
    """Focal loss of every output, NK, not reduced. Finite with finite gradients for every finite logit."""
    return focal_of(z_NK, F.one_hot(labels_N, z_NK.shape[1]).to(z_NK.dtype), gamma, alpha)
