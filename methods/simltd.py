"""Three trainings without a teacher: common classes, a classifier for the rare ones, a few exemplars of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from bench.method import Builder, Method, Usual, part
from bench.stage import Stage
from methods.rfs import ImageThreshold
from methods.stepwise import Quota


class SimLTD(Method):
    """A detector is trained on the classes with at least M training images; then a new classifier on the other classes,
    over its frozen trunk (schedule `tail`); then the projector (FPN) and the classifier, whose rows are those of both,
    on `shots` exemplars of every class (schedule `few`). The boxes of classes that are not a stage's own are ignored
    there.

    Source: SimLTD (arXiv 2412.20047), as methods.md 20 has it: the stages, no new loss, at most 10 exemplars.
    """

    name: ClassVar[str] = "simltd"
    needs: ClassVar[frozenset[str]] = frozenset({"classifier", "class_weights", "box_taps", "ignore"})
    on_few_images: ClassVar[Mapping[str, Any]] = {"M": {"images": 8}, "shots": 2}
    M: Annotated[float, Field(gt=0, le=1)] | ImageThreshold = ImageThreshold(images=30)
    """Training images of a class, {images: 30} or a share, that divide head from tail."""
    # DEVIATION: M is that of step-wise learning, beside which the row stands.
    shots: Quota = 10
    others: Literal["ignore", "drop"] = "ignore"
    # DEVIATION: boxes of other classes are ignored; "drop" makes background of them.
    # DEVIATION: the third stage starts from both classifiers' rows and the mean of their backgrounds (house choice).

    def plan(self, b: Builder) -> Stage:
        M = self.M.model_dump() if isinstance(self.M, ImageThreshold) else self.M
        levels = {"edges": (M,)}
        head = b.train(data=part("annotations:of_levels", keep=(0,), others=self.others, **levels))
        tail = b.train(
            init=head, keep_classifier=False, trainable=("classifier",), schedule="tail", usual=Usual(),
            data=part("annotations:of_levels", keep=(1,), others=self.others, **levels),
        )  # fmt: skip
        both = b.patch(tail, part("patches:joined", other=head, **levels))
        scores = b.fit(part("exemplars:Scores", score="own"), model=both)
        quota = None if self.shots == "all" else self.shots
        chosen = part(
            "exemplars:replay", scores=scores, quotas=(quota, quota), rare="level", unselected=self.others, **levels
        )
        return b.train(
            init=both, keep_classifier=True, data=chosen, trainable=(*b.projector, *b.judges), schedule="few",
            usual=Usual(rate=0.1),
        )  # fmt: skip
