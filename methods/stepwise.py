"""Step-wise learning: an expert of the common classes, then one model for all that imitates the expert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bench.method import Builder, Method, Part, Usual, part
from bench.stage import Stage
from methods.bags import Bags
from methods.reweight import Reweight
from methods.rfs import ImageThreshold

Quota = Annotated[int, Field(ge=0)] | Literal["all"]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Threshold = Annotated[float, Field(gt=0, le=1)] | ImageThreshold

OF_UNIFIED = ("few", "t_unified", "imitate", "transfer", "shared", "teacher_train_mode")
# Schedules as the paper has them beside its base of 50 epochs at 2e-4.
EXPERT = Usual(rate=0.1, epochs=1)
UNIFIED = Usual(rate=1.0, epochs=2, drops=(0.5,))


class StepWise(Method):
    """From the base model (`classifier`) two further stages, which train the projector (FPN) and the classifier alone.
    The head expert (schedule `expert`) learns from exemplars: `head` of each class with at least M training images,
    `tail` of each other, those that the base model is surest of. The unified model (schedule `unified`) starts from
    the expert and learns from all annotations of the tail and `few` of each head class; meanwhile it imitates the
    expert's feature maps where head objects are (weight `imitate`) and the expert's scores of head classes, given by
    the expert's features of the expert's RoIs (weight `transfer`, `shared`).

    `M` may hold several edges, falling: then each further stage adds the classes down to the next, with the stage
    before it as the teacher of all above. `stages` leaves one of the two out. The paper's settings are the defaults;
    the released code's are {at: above, tail: 100, rare: all, imitate: 1, transfer: 0.1, unselected: drop}.

    Source: Dong et al. 2023 (ICCV), step-wise learning on smooth-tail data; released code where the paper was not read.
    """

    name: ClassVar[str] = "stepwise"
    needs: ClassVar[frozenset[str]] = frozenset({"classifier", "maps", "box_taps", "ignore"})
    on_few_images: ClassVar[Mapping[str, Any]] = {
        "M": {"images": 8}, "head": 3, "tail": 2, "few": 1, "t_expert": {"images": 6}, "t_unified": {"images": 12},
    }  # fmt: skip
    M: Threshold | tuple[Threshold, ...] = ImageThreshold(images=30)
    """Training images of a class, {images: 30} or a share, that divide head from tail; several, falling: more steps."""
    at: Literal["head", "above"] = "head"
    """Where a class with just M images is: in the head (paper), or only one above M is (released code)."""
    classifier: Literal["softmax", "bags", "reweight"] = "softmax"
    """Of the base model and all further stages; bags and reweight (of the classifier alone) with their defaults."""
    stages: Literal["both", "expert", "unified"] = "both"
    """`unified`: the base model is the teacher and the start (knowledge transfer alone)."""
    score: Annotated[Literal["max", "own"], Field(examples=["own"])] = "max"
    """Of an annotation: the highest of all classes (released code) or that of its own class."""
    # DEVIATION: a two-stage detector scores exemplars at the true box, which a DETR matches with a query.
    head: Quota = 200
    tail: Quota = 30
    rare: Annotated[Quota | Literal["tail"], Field(examples=[1])] = "tail"
    """Of a class with at most 10 images: all of them (released code), or as of the tail (paper)."""
    # DEVIATION: the number of head exemplars in the unified stage is a house choice: the paper gives none, and the file
    # of the released code has no generator.
    few: Quota = 50
    # DEVIATION: boxes that are not chosen are ignored. The released code drops them, so that they are background.
    unselected: Literal["ignore", "drop", "keep"] = "ignore"
    t_expert: Threshold | None = 0.003
    """Of repeat factors in the expert's stage (step-wise RFS), a share of its images or {images: n}; null: none."""
    t_unified: Threshold | None = 0.0015
    """The same of the unified stage."""
    imitate: Weight = 0.1
    transfer: Weight = 1.0
    # DEVIATION: loss weights are the paper's; the released code has them the other way round (1 and 0.1).
    shared: bool = True
    """The student's classifier judges the expert's features (shared queries); else each judges its own."""
    teacher_train_mode: bool = False
    """The teacher in train mode, as in the released code: dropout, and statistics of the batch."""
    # DEVIATION: the losses of RPN and boxes reach the FPN, as those of a DETR's boxes reach its projections.

    @model_validator(mode="after")
    def _used(self) -> StepWise:
        if self.stages == "expert":
            given = [
                n for n in ("few", "t_unified", "imitate", "transfer", "shared", "teacher_train_mode") if self._set(n)
            ]
            if given:
                raise ValueError(f"stages: expert has no unified model, which {given[0]} is of; leave it out")
            if isinstance(self.M, tuple) and len(self.M) > 1:
                raise ValueError("stages: expert has no use for more than one edge in M")
        if self.M == ():
            raise ValueError("M: one edge or more, e.g. {images: 30}")
        return self

    def _set(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    def plan(self, b: Builder) -> Stage:
        base = self._base(b)
        scores = b.fit(part("exemplars:Scores", score=self.score), model=base)
        trainable, edges = (*b.projector, *b.judges), self._edges()
        model = base
        if self.stages != "unified":
            quotas = [_number(self.head)] + [_number(self.tail)] * len(edges)
            model = b.train(
                init=model, keep_classifier=True, trainable=trainable, schedule="expert", usual=EXPERT,
                data=self._replay(scores, quotas, self.rare), sampler=self._repeat(scores, self.t_expert, (0.3, 0.5)),
            )  # fmt: skip
        for level in range(1, len(edges) + 1) if self.stages != "expert" else ():
            quotas = [_number(self.few)] * level + [None] + [_number(self.tail)] * (len(edges) - level)
            model = b.train(
                init=model, keep_classifier=True, trainable=trainable, schedule="unified", usual=UNIFIED,
                data=self._replay(scores, quotas, "tail"), sampler=self._repeat(scores, self.t_unified, (0.0, 1.0)),
                losses=self._imitation(model, level),
            )  # fmt: skip
        return model

    def _base(self, b: Builder) -> Stage:
        if self.classifier == "bags":
            return Bags().plan(b)
        return Reweight(trainable="classifier").plan(b) if self.classifier == "reweight" else b.train()

    def _edges(self) -> tuple[Any, ...]:
        every = self.M if isinstance(self.M, tuple) else (self.M,)
        return tuple(_threshold(edge) for edge in every)

    def _levels(self) -> Mapping[str, Any]:
        return {"edges": self._edges(), "inclusive": self.at == "head"}

    def _replay(self, scores: Stage, quotas: list[int | None], rare: Any) -> Part:
        of_rare = "level" if rare == "tail" else _number(rare)
        return part(
            "exemplars:replay", scores=scores, quotas=tuple(quotas), rare=of_rare, unselected=self.unselected,
            **self._levels(),
        )  # fmt: skip

    def _repeat(self, scores: Stage, t: Any, powers: tuple[float, float]) -> Part | None:
        if t is None:
            return None
        below = (powers[1],) * len(self._edges())
        return part(
            "samplers:RepeatByLevel", scores=scores, t=_threshold(t), powers=(powers[0], *below), **self._levels()
        )

    def _imitation(self, teacher: Stage, levels: int) -> tuple[Part, ...]:
        every = {
            "teacher": teacher, "levels": levels, "teacher_train_mode": self.teacher_train_mode, **self._levels(),
        }  # fmt: skip
        found = []
        if self.imitate:
            found.append(part("distill:Features", weight=self.imitate, **every))
        if self.transfer:
            found.append(part("distill:Scores", weight=self.transfer, shared=self.shared, **every))
        return tuple(found)


def _number(quota: Any) -> int | None:
    return None if quota == "all" else int(quota)


def _threshold(value: Any) -> Any:
    return value.model_dump() if isinstance(value, ImageThreshold) else value
