"""2DRCL: a pre-training by two contrasts and two reconstructions, with rebalanced sampling. A house reconstruction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bench.method import Builder, part
from bench.stage import Stage
from methods.pretrained import FEATURES, PRETRAIN, Momentum, Norm, Pretrained, Span, Weight, groups, two_views
from methods.rfs import ImageThreshold


class Drcl(Pretrained):
    """HOUSE RECONSTRUCTION of 2DRCL: the paper's equations and settings could not be reached; its components are made
    of published building blocks (methods/parts/drcl.py).

    Two views of each image are compared with a slow copy of the detector: the whole image (`holistic`, HCL), the same
    `boxes` in both (`local`, LCL), and the image with half of it masked (`semantic`, SR); a decoder paints the view
    from the backbone's last map (`appearance`, AR). Each is a weight, 0 leaves it out. `rebalance` (DRB) draws images
    and boxes by repeat factors that move from shares of images to shares of boxes. Then the detector is trained as
    ever.

    Source: house reconstruction of Duan et al. 2024 (NeurIPS, 2DRCL) from BYOL, MoCo and SoCo.
    """

    name: ClassVar[str] = "drcl"
    mark: ClassVar[str] = "house reconstruction of 2DRCL, whose equations could not be reached"
    needs: ClassVar[frozenset[str]] = frozenset({"classifier", "body", "maps", "box_taps"})
    on_few_images: ClassVar[Mapping[str, Any]] = {"t": {"images": 4}}
    # DEVIATION: a house reconstruction: losses, weights, masking, decoder and the way of rebalancing are our choices.
    holistic: Weight = 1.0
    local: Weight = 1.0
    semantic: Weight = 1.0
    appearance: Weight = 1.0
    rebalance: Literal["dynamic", "image", "instance"] | None = "dynamic"
    """null: every image once, all boxes alike."""
    t: Annotated[float, Field(gt=0, le=1)] | ImageThreshold = 0.001
    """Of the repeat factors, a share of the images or {images: n}; without rebalancing it is not looked at."""
    contrast: Literal["byol", "infonce"] = "byol"
    """Of the whole image: the slow copy's embedding alone, or beside a queue of others."""
    tau: Annotated[float, Field(gt=0)] | None = None
    """Temperature of infonce, where null is 0.2."""
    queue: Annotated[int, Field(ge=1)] | None = None
    """Embeddings in infonce's queue, where null is 65536."""
    boxes: Annotated[int, Field(ge=1)] = 8
    proposals: Annotated[Literal["truth", "random", "rpn"], Field(examples=["random"])] = "truth"
    """Of the boxes: true ones, random ones, or the proposals of the baseline."""
    area: Span = (0.3, 1.0)
    """Least and largest share of an image in a view."""
    momentum: Momentum = 0.99
    norm: Norm = "batch"
    """Of the projectors; layer where several processes train."""

    @model_validator(mode="after")
    def _something(self) -> Drcl:
        if not (self.holistic or self.local or self.semantic or self.appearance):
            raise ValueError("all weights are 0: nothing is left to pre-train by")
        given = [name for name in ("tau", "queue") if getattr(self, name) is not None]
        if given and self.contrast != "infonce":
            raise ValueError(f"contrast: {self.contrast} has no {' and '.join(given)}; set contrast: infonce")
        return self

    def pretraining(self, b: Builder) -> Stage:
        t = self.t.model_dump() if isinstance(self.t, ImageThreshold) else self.t
        rebalanced = {} if self.rebalance is None else {"rebalance": self.rebalance, "t": t}
        of_infonce = {name: value for name in ("tau", "queue") if (value := getattr(self, name)) is not None}
        losses = []
        if self.holistic or self.local or self.semantic:
            losses.append(
                part(
                    "drcl:Contrast", holistic=self.holistic, local=self.local, semantic=self.semantic,
                    kind=self.contrast, **of_infonce, boxes=self.boxes,
                    source=b.train() if self.proposals == "rpn" else self.proposals, **rebalanced,
                    momentum=self.momentum, norm=self.norm,
                )
            )  # fmt: skip
        if self.appearance:
            norm = "group" if self.norm == "layer" else "batch"
            losses.append(part("drcl:Appearance", weight=self.appearance, norm=norm))
        return b.train(
            detection=False, losses=losses, views=two_views(self.area), trainable=groups(b, FEATURES),
            schedule="pretrain", usual=PRETRAIN,
            sampler=None if self.rebalance is None else part("drcl:Rebalanced", t=t, mode=self.rebalance),
        )  # fmt: skip
