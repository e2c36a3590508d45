"""AlignDet: a pre-training of what lies above the backbone, by boxes without classes."""

from __future__ import annotations

from typing import ClassVar

from bench.method import Builder, part
from bench.stage import Stage
from methods.pretrained import PRETRAIN, Group, Momentum, Norm, Pretrained, Weight, groups

ALL: tuple[Group, ...] = ("backbone", "fpn", "rpn", "box_head", "box_regressor")


class AlignDet(Pretrained):
    """FPN, RPN and box head learn the boxes of objects, whatever their class, and that RoIs of one box are alike in two
    views (weight `weight`). The backbone stays as it is (`frozen`), since it was pre-trained by images; without such
    weights it has to learn too. All but the classifier is taken over; then the detector is trained as ever.

    Source: Li et al. 2023 (ICCV, AlignDet), box-domain pre-training (methods.md 19.3).
    """

    name: ClassVar[str] = "aligndet"
    needs: ClassVar[frozenset[str]] = frozenset({"classifier", "body", "maps", "box_taps"})
    # DEVIATION: the boxes are the true ones without their classes, not selective search's.
    # DEVIATION: the fine-tuning's rate is the base's, where AlignDet has 1.5 times that.
    transfer: tuple[Group, ...] = ALL
    weight: Weight = 1.0
    frozen: bool = True
    momentum: Momentum = 0.996
    norm: Norm = "batch"
    """Of the projectors; layer where several processes train."""

    def pretraining(self, b: Builder) -> Stage:
        loss = part("aligndet:BoxContrast", weight=self.weight, momentum=self.momentum, norm=self.norm)
        return b.train(
            detection="trunk", losses=(loss,), views=(part("views:View", area=(0.5, 1.0), blur=0.0),),
            trainable=groups(b, ALL[1:] if self.frozen else ALL), schedule="pretrain", usual=PRETRAIN,
        )  # fmt: skip
