"""tau-normalisation: rescale the classifier's rows after training; alone, or beside the original."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bench.method import Builder, Method, part
from bench.stage import Stage


class TauNorm(Method):
    """Each row of the classifier becomes w / ||w||^tau, the bias stays; nothing is trained.

    Source: Kang et al. 2020 (decoupling), section 4; Li et al. 2020 (BAGS), Table 1 row 12.
    """

    name: ClassVar[str] = "tau_norm"
    only_with: ClassVar[Mapping[str, str]] = {"background": "background"}
    needs: ClassVar[frozenset[str]] = frozenset({"classifier"})
    tau: Annotated[float, Field(ge=0, le=1)] = 1.0
    # DEVIATION: the released code of BAGS has one script that scales the background row and one that keeps it.
    background: Literal["scaled", "kept"] = "scaled"

    def plan(self, b: Builder) -> Stage:
        return b.patch(b.train(), part("patches:tau_norm", tau=self.tau, background=self.background))


class TauNormSelect(Method):
    """Where the original classifier decides for background its scores stay, elsewhere those of its tau-normalised copy
    take their place. Nothing is trained.

    `rule`: "paper" as above; "code" requires in addition that the copy decides for a class with fewer than `tail_below`
    training instances.

    Source: Li et al. 2020 (BAGS), Table 1 row 13.
    """

    name: ClassVar[str] = "tau_norm_select"
    needs: ClassVar[frozenset[str]] = frozenset({"classifier", "background"})
    tau: Annotated[float, Field(ge=0, le=1)] = 1.0
    # DEVIATION: select: the paper does not state whether the copy's background row is scaled; it is, as in row 12.
    background: Literal["scaled", "kept"] = "scaled"
    # DEVIATION: select: the released code takes the copy for tail classes alone; the paper's rule is the default.
    rule: Literal["paper", "code"] = "paper"
    tail_below: Annotated[int, Field(ge=0)] = 100

    def plan(self, b: Builder) -> Stage:
        how = {"tau": self.tau, "background": self.background, "rule": self.rule, "tail_below": self.tail_below}
        return b.wrap(b.train(), part("select:TauNormSelect", **how))
