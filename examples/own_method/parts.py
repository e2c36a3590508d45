"""The PyTorch of a method of one's own: what `python -m bench init` writes.

As an example, the loss is that of logits to which the log of each class's share of the training instances is added:
rare classes have to win by a margin. Scores are those of the plain softmax.

Shape legend: N RoIs, C foreground classes, K = C + 1 outputs, background last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.detection.contract import Context, HeadSpec, Targets
from methods.parts.softmax import Softmax, wide

VERSION = 1  # inside a checkout of the harness: raised where results may change; elsewhere the file's digest counts


class MineSoftmax(Softmax):
    """L = CE(z + strength * log prior, y); the background, which has no prior, is left as it is."""

    offset_K: Tensor

    def __init__(self, head: HeadSpec, *, strength: float = 1.0) -> None:
        super().__init__(head)
        count_C = torch.tensor(head.stage_instance_counts, dtype=torch.float64).clamp(min=1)
        prior_C = strength * (count_C / count_C.max()).log()
        # Not persistent: it follows from settings and data. What changes in training belongs in a persistent buffer.
        self.register_buffer("offset_K", torch.cat([prior_C, torch.zeros(1)]).float(), persistent=False)

    def loss(self, z_NK: Tensor, targets: Targets, context: Context) -> dict[str, Tensor]:
        return super().loss(wide(z_NK) + self.offset_K, targets, context)
