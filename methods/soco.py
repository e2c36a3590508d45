"""SoCo: a pre-training by the same boxes in two views."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bench.method import Builder, part
from bench.stage import Stage
from methods.pretrained import FEATURES, PRETRAIN, Momentum, Norm, Pretrained, Span, groups, two_views


class Soco(Pretrained):
    """The box-head features of `boxes` boxes of an image are to be alike in two views of it: those of one view predict
    the projection that a slow copy of the detector makes of the other. Then the detector is trained as ever.

    Source: Wei et al. 2021 (NeurIPS, SoCo), its loss and the copy's momentum (methods.md 19.3).
    """

    name: ClassVar[str] = "soco"
    needs: ClassVar[frozenset[str]] = frozenset({"classifier", "body", "maps", "box_taps"})
    # DEVIATION: two views; SoCo's third one, the second at half its size, is left out.
    # DEVIATION: boxes are random or true ones; selective search is not among our packages.
    # DEVIATION: SGD at the base's rate, where SoCo has LARS at 1.0; hidden width 256, where it has 4096.
    boxes: Annotated[int, Field(ge=1)] = 4
    proposals: Annotated[Literal["random", "truth"], Field(examples=["truth"])] = "random"
    area: Span = (0.3, 1.0)
    """Least and largest share of an image in a view."""
    momentum: Momentum = 0.99
    norm: Norm = "batch"
    """Of the projectors; layer where several processes train."""

    def pretraining(self, b: Builder) -> Stage:
        loss = part(
            "drcl:Contrast", holistic=0.0, local=1.0, semantic=0.0, boxes=self.boxes, source=self.proposals,
            momentum=self.momentum, norm=self.norm,
        )  # fmt: skip
        return b.train(
            detection=False, losses=(loss,), views=two_views(self.area), trainable=groups(b, FEATURES),
            schedule="pretrain", usual=PRETRAIN,
        )  # fmt: skip
