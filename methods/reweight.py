"""Cost-sensitive softmax: a class counts by the inverse of its instances."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bench.method import Builder, Method, part
from bench.stage import Stage


class Reweight(Method):
    """Cross-entropy weighted by w_j = alpha_j / mean(alpha), alpha_j = 1 / N_j, cut to `clip`; background weighs 1.

    `beta` < 1 takes the effective number of instances instead: alpha_j = (1 - beta) / (1 - beta^N_j).

    Source: Li et al. 2020 (BAGS), Table 1 rows 6 (all) and 7 (classifier); Cui et al. 2019 for beta.
    """

    name: ClassVar[str] = "reweight"
    trainable: Literal["all", "classifier"] = "all"
    beta: Annotated[float, Field(gt=0, le=1)] = 1.0
    # DEVIATION: the paper cuts to [0.01, 5], its released code to [0.1, 5]; the paper's is the default.
    clip: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0)]] | None = (0.01, 5.0)
    keep_classifier: bool = True

    def plan(self, b: Builder) -> Stage:
        return b.train(
            init=b.train(),
            keep_classifier=self.keep_classifier,
            classifier=part("losses:ReweightedSoftmax", beta=self.beta, clip=self.clip),
            trainable=("classifier",) if self.trainable == "classifier" else (),
        )
