"""The stock softmax classifier. Separate because it is the reference that every other classifier is measured against.

Shape legend: N RoIs (R of the papers), D features, C foreground classes, K = C + 1 outputs, background last (index C).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.detection.contract import Classifier, Context, HeadSpec, Taps, Targets
from bench.errors import UserError


class Linear(Classifier):
    """One linear layer, `fc`, with a row for each class and, where there is one, the background last."""

    fc: nn.Linear

    def forward(self, taps: Taps) -> Tensor:
        return cast(Tensor, self.fc(taps.box_features))

    def row_weights(self, labels_N: Tensor, loss_N: Tensor) -> Tensor:
        """Weigh each row's loss; here all alike."""
        return loss_N

    def class_weights(self) -> Tensor | None:
        return self.fc.weight

    def set_class_weights(self, W_KD: Tensor) -> None:
        """Replace the weight rows in place (tau-norm); the bias stays.

        Raises:
            UserError: another shape.
        """
        if W_KD.shape != self.fc.weight.shape:
            raise UserError(
                f"class weights of shape {tuple(W_KD.shape)} do not fit",
                where=type(self).__name__,
                allowed=f"{tuple(self.fc.weight.shape)}",
            )
        with torch.no_grad():
            self.fc.weight.copy_(W_KD)

    def load_from(self, other: Classifier) -> list[str]:
        """Copy W and b from any classifier of one linear layer with as many rows, whatever its loss; return what was
        re-initialised."""
        mine = dict(self.named_parameters())
        theirs = dict(other.named_parameters()) if isinstance(other, Linear) else {}
        return copy_parameters(mine, theirs)


class Softmax(Linear):
    """Linear layer, softmax over C + 1 outputs, cross entropy averaged over RoIs.

    Source: Faster R-CNN; initialisation W ~ N(0, head.init_std^2), b = 0 as in the released BAGS code (mmdet 1.0rc0).
    New weights come from torch's default generator, which whoever builds the detector seeds.
    """

    VERSION = 1

    def __init__(self, head: HeadSpec) -> None:
        super().__init__(head)
        self.fc = linear(head.features, head.num_classes + 1, head.init_std)

    def loss(self, z_NK: Tensor, targets: Targets, context: Context) -> dict[str, Tensor]:
        """Cross entropy, divided by the number of RoIs on this device; zero RoIs give 0 with a graph."""
        ce_N = self.row_weights(targets.labels_N, F.cross_entropy(wide(z_NK), targets.labels_N, reduction="none"))
        return {"classification": ce_N.sum() / max(len(ce_N), 1)}

    def scores(self, z_NK: Tensor) -> tuple[Tensor, Tensor | None]:
        p_NK = wide(z_NK).softmax(dim=1)
        return p_NK[:, :-1], p_NK[:, -1]

    def class_logits(self, z_NK: Tensor) -> Tensor:
        return wide(z_NK[:, :-1])


def linear(features: int, outputs: int, std: float) -> nn.Linear:
    """A linear layer with W ~ N(0, std^2) and b = 0."""
    fc = nn.Linear(features, outputs)
    nn.init.normal_(fc.weight, std=std)
    nn.init.zeros_(fc.bias)
    return fc


def wide(z: Tensor) -> Tensor:
    """At least float32: exponentials of bfloat16 logits lose what a loss and a ranking need."""
    return z.to(torch.promote_types(z.dtype, torch.float32))


def copy_parameters(mine: dict[str, nn.Parameter], theirs: dict[str, nn.Parameter]) -> list[str]:
    """Copy what agrees in name and shape; return the other names of `mine`."""
    fresh = []
    with torch.no_grad():
        for name, value in mine.items():
            if name in theirs and theirs[name].shape == value.shape:
                value.copy_(theirs[name])
            else:
                fresh.append(name)
    return fresh
