"""tau-normalisation: rescale the classifier's rows after training."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bench.method import Builder, Method, part
from bench.stage import Stage


class TauNorm(Method):
    """Each row of the classifier becomes w / ||w||^tau, the bias stays; nothing is trained.

    Source: Kang et al. 2020 (decoupling), section 4; Li et al. 2020 (BAGS), Table 1 row 12.
    """

    name: ClassVar[str] = "tau_norm"
    needs: ClassVar[frozenset[str]] = frozenset({"classifier"})
    tau: Annotated[float, Field(ge=0, le=1)] = 1.0
    # DEVIATION: the released code of BAGS has one script that scales the background row and one that keeps it.
    background: Literal["scaled", "kept"] = "scaled"

    def plan(self, b: Builder) -> Stage:
        return b.patch(b.train(), part("patches:tau_norm", tau=self.tau, background=self.background))
