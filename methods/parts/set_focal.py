"""Focal loss for set prediction: C sigmoids and no background. Separate from focal.py, whose layout has one.

Shape legend: N rows (queries), D features, C foreground classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.detection.contract import Context, HeadSpec, Targets
from bench.detection.focal import focal_of, prior_bias
from bench.errors import UserError
from methods.parts.losses import weights_with_background
from methods.parts.softmax import Linear, linear, wide


class SetFocal(Linear):
    """Focal loss over a sigmoid for each of the C classes, without a background: what a set-prediction engine is
    trained by. A row without a class is to say no to all; the sum is divided by the number of rows that have one.

    Source: Zhu et al. 2021 (Deformable DETR), which has the loss of Lin et al. 2017 (equation 5) and the weight 2.

    Args:
        head: widths.
        gamma, alpha: see `SigmoidFocal`.
        weight: factor on the loss.
        prior: what every sigmoid says at the start.

    Raises:
        UserError: a setting out of range.
    """

    VERSION = 1

    def __init__(
        self, head: HeadSpec, *, gamma: float = 2.0, alpha: float = 0.25, weight: float = 2.0, prior: float = 0.01
    ) -> None:
        super().__init__(head)
        legal = 0.0 <= gamma < math.inf and 0.0 <= alpha <= 1.0 and 0.0 <= weight < math.inf and 0.0 < prior < 1.0
        if not legal:
            raise UserError(
                f"gamma {gamma}, alpha {alpha}, weight {weight}, prior {prior}", where="SetFocal",
                allowed="gamma and weight >= 0, 0 <= alpha <= 1, 0 < prior < 1",
            )  # fmt: skip
        self._gamma, self._alpha, self._weight = gamma, alpha, weight
        self.fc = linear(head.features, head.num_classes, head.init_std)
        nn.init.constant_(self.fc.bias, prior_bias(prior))

    def loss(self, z_NK: Tensor, targets: Targets, context: Context) -> dict[str, Tensor]:
        """Divided by the rows that have a class, at least 1; zero rows give 0 with a graph."""
        z_NC, labels_N = wide(z_NK), targets.labels_N
        t_NC = F.one_hot(labels_N, z_NC.shape[1] + 1)[:, :-1].to(z_NC.dtype)
        found = (labels_N < z_NC.shape[1]).sum().clamp(min=1)
        value = self.row_weights(labels_N, focal_of(z_NC, t_NC, self._gamma, self._alpha).sum(dim=1)).sum()
        return {"classification": self._weight * value / found}

    def scores(self, z_NK: Tensor) -> tuple[Tensor, Tensor | None]:
        return wide(z_NK).sigmoid(), None

    def class_logits(self, z_NK: Tensor) -> Tensor:
        return wide(z_NK)


class ReweightedSetFocal(SetFocal):
    """The same with the loss of each row weighed by the inverse frequency of its class; `background` is the weight of a
    row without a class.

    Source: Cui et al. (CVPR 2019), class-balanced focal loss; the weights are those of `losses:ReweightedSoftmax`.
    DEVIATION: the papers weigh RoIs, of which each has a class or is background; here a query that is matched with no
    box is the background.

    Args:
        head: widths and counts.
        gamma, alpha, weight, prior: see `SetFocal`.
        beta, clip, background: see `losses:ReweightedSoftmax`.

    Raises:
        UserError: a setting out of range, or no training instance at all.
    """

    VERSION = 1

    weights_K: Tensor

    def __init__(
        self,
        head: HeadSpec,
        *,
        gamma: float = 2.0,
        alpha: float = 0.25,
        weight: float = 2.0,
        prior: float = 0.01,
        beta: float = 1.0,
        clip: Sequence[float] | None = (0.01, 5.0),
        background: float | Mapping[str, float] = 1.0,
    ) -> None:
        super().__init__(head, gamma=gamma, alpha=alpha, weight=weight, prior=prior)
        weights_K = weights_with_background(head.stage_instance_counts, beta, clip, background)
        # Not persistent: it follows from settings and data, and a checkpoint of another loss must load all the same.
        self.register_buffer("weights_K", torch.tensor(weights_K, dtype=torch.float32), persistent=False)

    def row_weights(self, labels_N: Tensor, loss_N: Tensor) -> Tensor:
        return loss_N * self.weights_K.to(loss_N.dtype)[labels_N]
