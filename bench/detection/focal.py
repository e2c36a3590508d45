"""Focal loss of sigmoids. Separate because classifiers and the first stage of a DETR share it."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def focal_of(z: Tensor, t: Tensor, gamma: float, alpha: float) -> Tensor:
    """Focal loss of logits against targets 0 or 1 of one shape, not reduced. Finite with finite gradients for every
    finite logit.

    Source: Lin et al. 2017 (focal loss), equation 5.
    """
    signed = z * (2 * t - 1)  # p_t = sigmoid(signed), 1 - p_t = sigmoid(-signed)
    a = alpha * t + (1 - alpha) * (1 - t)
    # The power as an exponential of logarithms: sigmoid(-x)^gamma has an infinite slope at 0 for gamma < 1.
    return -a * (gamma * F.logsigmoid(-signed)).exp() * F.logsigmoid(signed)


def prior_bias(prior: float) -> float:
    """The bias of a sigmoid that says `prior` of everything at the start. Source: Lin et al. 2017, section 4.1."""
    return -math.log((1 - prior) / prior)
