"""The effective class-margin loss: a margin for each class, from how many images it has beside all others.

Shape legend: N RoIs, C foreground classes, K = C + 1 outputs, background last.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.detection.contract import Context, HeadSpec, Targets
from bench.errors import UserError
from methods.parts.softmax import Softmax, wide


class EffectiveMargin(Softmax):
    """A sigmoid for each of the C + 1 outputs, whose logit is doubled and shifted by the class's margin:

        p = sigmoid(2 s + ln(n / m) / 4),  L = 1/N sum_n sum_k w BCE(p, t),  w = a ln((1 + a) / a),  a = m / n

    with n the images of a class, of the background `background` times those of all classes, and m those of all the
    others (background included). Tested as sigmoid(s) (1 - sigmoid(s_background)).

    Source: Cho and Kraehenbuehl 2022 (ECCV, effective class-margin loss); methods.md 19.3.

    DEVIATION: its recipe has a cosine classifier of temperature 20; here it is the linear one of `Softmax`.
    DEVIATION: a class without an image counts as one with one; its margin would be infinite.

    Args:
        head: widths, images of each class.
        background: images of the background beside the sum of all classes'.

    Raises:
        UserError: a share that is not positive.
    """

    VERSION = 1

    margin_K: Tensor
    weight_K: Tensor

    def __init__(self, head: HeadSpec, *, background: float = 6.3313) -> None:
        super().__init__(head)
        if not 0.0 < background < float("inf"):
            raise UserError(f"background is {background}", where=type(self).__name__, allowed="a number > 0")
        n_C = torch.tensor(head.image_counts, dtype=torch.float64).clamp(min=1)
        n_K = torch.cat([n_C, background * n_C.sum()[None]])
        m_K = n_K.sum() - n_K
        a_K = m_K / n_K
        # Not persistent: they follow from settings and data, and a checkpoint of another loss must load all the same.
        self.register_buffer("margin_K", torch.log(n_K / m_K) / 4, persistent=False)
        self.register_buffer("weight_K", a_K * torch.log1p(1 / a_K), persistent=False)

    def loss(self, z_NK: Tensor, targets: Targets, context: Context) -> dict[str, Tensor]:
        """Weighed binary cross entropy, summed over outputs, divided by the RoIs on this device; zero RoIs give 0."""
        z_NK = wide(z_NK)
        t_NK = F.one_hot(targets.labels_N, z_NK.shape[1]).to(z_NK.dtype)
        shifted_NK = 2 * z_NK + self.margin_K.to(z_NK.dtype)
        bce_NK = F.binary_cross_entropy_with_logits(shifted_NK, t_NK, reduction="none")
        return {"classification": (self.weight_K.to(z_NK.dtype) * bce_NK).sum() / max(len(z_NK), 1)}

    def scores(self, z_NK: Tensor) -> tuple[Tensor, Tensor | None]:
        p_NK = wide(z_NK).sigmoid()
        return p_NK[:, :-1] * (1 - p_NK[:, -1:]), p_NK[:, -1]
