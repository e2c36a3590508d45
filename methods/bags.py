"""Balanced group softmax: only classes of similar size compete."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from bench.method import Builder, Method, part
from bench.spec import Edges
from bench.stage import Stage


class Bags(Method):
    """Classes are grouped by training instances; each group has a softmax of its own with an "others" entry, and so has
    the background. A group's loss takes all RoIs of its classes and `beta` times as many others. Only the classifier,
    made anew, is trained.

    Source: Li et al. 2020 (BAGS), sections 4.1 to 4.3, Table 1 row 14.
    """

    name: ClassVar[str] = "bags"
    beta: Annotated[float, Field(ge=0)] = 8.0  # .inf: all others of the groups that are active
    edges: Edges | None = None  # group edges on instances; None: the suite's bins
    # DEVIATION: group 0 is a 2-way softmax as in the released code; the paper writes a sigmoid (equal in value).

    def plan(self, b: Builder) -> Stage:
        return b.train(
            init=b.train(),
            keep_classifier=False,
            classifier=part("group_softmax:GroupSoftmax", beta=self.beta, edges=self.edges),
            trainable=("classifier",),
        )
