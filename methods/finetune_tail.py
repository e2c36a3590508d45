"""Fine-tuning on the tail: the baseline goes on with the images of rare classes alone."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bench.method import Builder, Method, part
from bench.stage import Stage


class FinetuneTail(Method):
    """All layers of the baseline are trained on with the images that show a class of fewer than `below` training
    instances, at the low rate of `stages.tune`. `nontail` is for the other boxes there: "drop" makes them
    background, "ignore" samples nothing near them, "keep" leaves them as they are.

    Source: Li et al. 2020 (BAGS), Table 1 row 3; rate and length of the released code.
    """

    name: ClassVar[str] = "finetune_tail"
    below: Annotated[int, Field(ge=1)] = 100
    # DEVIATION: the released config names the full annotations; here the paper's "tail samples", the rest dropped.
    nontail: Literal["drop", "ignore", "keep"] = "drop"

    def plan(self, b: Builder) -> Stage:
        return b.train(
            init=b.train(),
            keep_classifier=True,
            data=part("annotations:tail_only", below=self.below, nontail=self.nontail),
            schedule="tune",
        )
