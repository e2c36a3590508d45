"""Focal loss at the level of RoIs: outputs that are right already count little."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bench.method import Builder, Method, part
from bench.stage import Stage


class Focal(Method):
    """A sigmoid for each of the C + 1 outputs and the focal loss -a (1 - p_t)^gamma log p_t, from the baseline on.

    `reduction` "mean" averages over all N (C + 1) entries, "row" over the N RoIs alone, which is C + 1 times as much.
    `inference` is how outputs become scores: "softmax", or "sigmoid", as they were trained.

    Source: Lin et al. 2017 (focal loss); Li et al. 2020 (BAGS), Table 1 rows 8 (all) and 9 (classifier).
    """

    name: ClassVar[str] = "focal"
    needs: ClassVar[frozenset[str]] = frozenset({"classifier", "background"})
    trainable: Literal["all", "classifier"] = "all"
    gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.25
    reduction: Literal["mean", "row"] = "mean"
    # DEVIATION: the paper names no test-time scores; the default is its released code's softmax over trained sigmoids.
    inference: Literal["softmax", "sigmoid"] = "softmax"
    # DEVIATION: BAGS' released code passes one-hot labels to an operator that takes class ids; here is the formula.
    keep_classifier: bool = True

    def plan(self, b: Builder) -> Stage:
        return b.train(
            init=b.train(),
            keep_classifier=self.keep_classifier,
            classifier=part(
                "focal:SigmoidFocal",
                gamma=self.gamma,
                alpha=self.alpha,
                reduction=self.reduction,
                inference=self.inference,
            ),
            trainable=("classifier",) if self.trainable == "classifier" else (),
        )
