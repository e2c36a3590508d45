"""Cost-sensitive losses: a class counts by the inverse of its instances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.method import Builder, Method, part
from bench.stage import Stage


class CountFactor(BaseModel):
    """`background: {count_factor: 3}`: the background weighs like a class of 3 times all training instances."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    count_factor: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Reweight(Method):
    """Cross-entropy weighted by w_j = alpha_j / mean(alpha), alpha_j = 1 / N_j, cut to `clip`; background weighs 1.

    `beta` < 1 takes the effective number of instances instead: alpha_j = (1 - beta) / (1 - beta^N_j). Presets of row 7:
    `{method: reweight, trainable: classifier}` is inverse frequency, the default of this harness;
    `{method: reweight, trainable: classifier, beta: 0.999, clip: [0.1, 5]}` is what the released config computes.
    `clip: null` cuts nothing; with `background: {count_factor: 3}` the mean is over C + 1 classes, and `clip` cuts the
    background too (the paper's sweep has null there). `loss: focal` weighs the focal loss of `gamma` (2) and `alpha`
    (0.25) instead of cross-entropy.

    Source: Li et al. 2020 (BAGS), Table 1 rows 6 (all) and 7 (classifier), figure 5 left; Cui et al. 2019 for beta.
    """

    name: ClassVar[str] = "reweight"
    only_with: ClassVar[Mapping[str, str]] = {"loss": "background"}  # else the loss is focal anyway
    trainable: Literal["all", "classifier"] = "all"
    loss: Literal["softmax", "focal"] = "softmax"
    # DEVIATION: for row 7 the supplement names both beta 0.999 (so the released config) and 1; the default is 1.
    beta: Annotated[float, Field(gt=0, le=1)] = 1.0
    # DEVIATION: the paper cuts to [0.01, 5], its released code to [0.1, 5]; the paper's is the default.
    clip: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0)]] | None = (0.01, 5.0)
    background: Annotated[float, Field(ge=0, allow_inf_nan=False)] | CountFactor = 1.0
    gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Of loss: focal, where null is 2."""
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of loss: focal, where null is 0.25."""
    keep_classifier: bool = True

    @model_validator(mode="after")
    def _focal_settings(self) -> Reweight:
        given = [name for name in ("gamma", "alpha") if getattr(self, name) is not None]
        if given and self.loss != "focal":
            names = " and ".join(given)
            raise ValueError(f"loss: {self.loss} has no {names}; set loss: focal, or leave {names} out")
        return self

    def plan(self, b: Builder) -> Stage:
        return self.over(b, b.train())

    def over(self, b: Builder, base: Stage) -> Stage:
        """The same from another model than the baseline."""
        background = self.background.model_dump() if isinstance(self.background, CountFactor) else self.background
        weights = {"beta": self.beta, "clip": self.clip, "background": background}
        focal = {name: value for name in ("gamma", "alpha") if (value := getattr(self, name)) is not None}
        loss = "focal:ReweightedFocal" if self.loss == "focal" else "losses:ReweightedSoftmax"
        return b.train(
            init=base,
            keep_classifier=self.keep_classifier,
            classifier=part(loss, **weights, **focal),
            trainable=("classifier",) if self.trainable == "classifier" else (),
        )
