"""What methods share that pre-train a detector before it is trained as ever, and their control: by its own losses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bench.method import Builder, Method, Part, Usual, part
from bench.stage import Stage
from methods.bags import Bags
from methods.reweight import Reweight

Group = Literal["backbone", "fpn", "rpn", "box_head", "box_regressor"]
FEATURES: tuple[Group, ...] = ("backbone", "fpn", "box_head")
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Momentum = Annotated[float, Field(ge=0, le=1)]
Norm = Literal["batch", "layer"]
Span = tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]]
# A length and rate as the base's, with its warm-up: two thirds and eleven twelfths are epochs 8 and 11 of 12.
PRETRAIN = Usual(drops=(8 / 12, 11 / 12), warmup=True)


class Pretrained(Method):
    """A pre-training (schedule `pretrain`), the ordinary training (schedule `base`), then a classifier of choice."""

    transfer: tuple[Group, ...] = FEATURES
    """What the detector takes over from the pre-training (fpn: what brings the backbone's maps to the heads; box_head:
    what makes features of RoIs or queries); the rest begins as in the baseline."""
    classifier: Literal["softmax", "ecm", "bags", "reweight"] = "softmax"
    """ecm trains the detector with that loss; bags and reweight train a classifier over the frozen detector on top. All
    with their defaults."""

    def plan(self, b: Builder) -> Stage:
        model = b.train(
            init=self.pretraining(b), keep_classifier=False, take=groups(b, self.transfer), schedule="base",
            classifier=part("ecm:EffectiveMargin") if self.classifier == "ecm" else None,
        )  # fmt: skip
        if self.classifier == "bags":
            return Bags().over(b, model)
        return Reweight(trainable="classifier").over(b, model) if self.classifier == "reweight" else model

    @abstractmethod
    def pretraining(self, b: Builder) -> Stage:
        """The train stage whose backbone, projector and box head the detector starts from."""


class Supervised(Pretrained):
    """The control of every pre-training: the same recipe with the detector's own losses in the first stage, after which
    the RPN, the box regressor and the classifier begin anew.

    Source: house control.
    """

    name: ClassVar[str] = "pretrain_supervised"
    # DEVIATION: no paper has it: a house control. It says what of a gain is due to more steps on the same images.

    def pretraining(self, b: Builder) -> Stage:
        return b.train(schedule="pretrain", usual=PRETRAIN)


def two_views(area: Span) -> tuple[Part, Part]:
    """The two views of BYOL: one always blurred, one seldom, and solarised at times."""
    return part("views:View", area=area, blur=1.0), part("views:View", area=area, blur=0.1, solarise=0.2)


def groups(b: Builder, names: Sequence[Group]) -> tuple[str, ...]:
    """These parameter groups as the engine calls them; what it does not have is left out."""
    called = {**dict.fromkeys(b.projector, "fpn"), **dict.fromkeys(b.head, "box_head")}
    return tuple(group for group in b.below if called.get(group, group) in names)
