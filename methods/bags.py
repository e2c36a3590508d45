"""Balanced group softmax: only classes of similar size compete."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from bench.method import Builder, Method, part
from bench.spec import Edges
from bench.stage import Stage


class Bags(Method):
    """Classes are grouped by training instances; each group has a softmax of its own with an "others" entry, and so has
    the background. A group's loss takes all RoIs of its classes and `beta` times as many others. Only the classifier,
    made anew, is trained. `beta: n` (or .inf) takes all others of the groups that have a RoI in the step, `beta: all`
    every RoI in every group.

    `others`, `background` and `edges` are the switches of Table 4 (without others beta has no effect); `trainable` and
    `tune` those of Table 5: what the new classifier is trained together with, and what a further stage at the small
    rate of schedule `tune` trains from there.

    Source: Li et al. 2020 (BAGS), sections 4.1 to 4.3, Table 1 row 14, Tables 4 and 5, Figure 4.
    """

    name: ClassVar[str] = "bags"
    # DEVIATION: beta "all" is every RoI in every group, as in Fig. 4; the released configuration of that name is "n".
    beta: Annotated[float, Field(ge=0)] | Literal["n", "all"] = 8.0
    edges: Edges | None = None
    """Group edges on instances; None: the suite's bins."""
    others: bool = True
    """An others entry in every group."""
    # DEVIATION: background false is a house choice, unverified: one more class of the group of the largest counts.
    # (The paper does not state where the background of rows 1 and 3 of Table 4 is. No score is rescaled then.)
    background: bool = True
    """A group of its own for the background, whose p(foreground) scales all scores."""
    trainable: Literal["classifier", "head", "all"] = "classifier"
    tune: Literal["head", "all"] | None = None
    # DEVIATION: tune starts from this row's own finished model (prose and code of Table 5; its caption: model (1)).
    # DEVIATION: group 0 is a 2-way softmax as in the released code; the paper writes a sigmoid (equal in value).
    # DEVIATION: a group's loss is the mean over the RoIs it takes (code), not a sum over groups per proposal (Eq. 5).
    # DEVIATION: others are drawn among the RoIs of the whole step (the paper's mini-batch), not of each device (code).

    @model_validator(mode="after")
    def _all_needs_others(self) -> Bags:
        if self.beta == "all" and not self.others:
            raise ValueError("beta: all needs others: true (a group without them learns from its own classes alone)")
        return self

    def plan(self, b: Builder) -> Stage:
        return self.over(b, b.train())

    def over(self, b: Builder, base: Stage) -> Stage:
        """The same from another model than the baseline."""
        classifier = part(
            "group_softmax:GroupSoftmax",
            # "n" and "all" draw nothing; without others there is nothing to draw. One key for what computes the same.
            beta=(self.beta if isinstance(self.beta, float) else float("inf")) if self.others else 0.0,
            edges=self.edges,
            everything=self.beta == "all",
            others=self.others,
            background=self.background,
        )
        trainable = {"classifier": ("classifier",), "head": (*b.head, "box_regressor", "classifier"), "all": ()}
        # One schedule whatever is trained, so that the rows of Table 5 differ in what is trained alone.
        model = b.train(
            init=base,
            keep_classifier=False,
            classifier=classifier,
            trainable=trainable[self.trainable],
            schedule="classifier_only",
        )
        if self.tune is None:
            return model
        return b.train(init=model, keep_classifier=True, trainable=trainable[self.tune], schedule="tune")
