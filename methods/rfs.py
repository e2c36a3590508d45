"""Repeat factor sampling: images that hold a rare class are seen more often."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.method import Builder, Method, part
from bench.stage import Stage


class ImageThreshold(BaseModel):
    """`t: {images: 57}`: the threshold as a number of images, so that it means the same on any size of data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    images: Annotated[float, Field(gt=0)]


class RepeatFactorSampling(Method):
    """Image I is repeated r_I = max over its classes c of max(1, (t / f_c)^power) times; c is in a share f_c of images.

    `start` "scratch" trains a detector anew; "baseline" goes on from the baseline, all layers and its classifier, with
    the schedule of `stages.second` (RFS-finetune). `rounding` turns r_I into an epoch: "stochastic" (LVIS paper,
    detectron2), "ceil" (mmdet), "bags" (released code of BAGS: the image itself and another ceil(r_I) copies).

    Source: Gupta et al. 2019 (LVIS), section 4; Li et al. 2020 (BAGS), Table 1 rows 4 (scratch) and 5 (baseline).
    """

    name: ClassVar[str] = "rfs"
    start: Literal["scratch", "baseline"] = "scratch"
    t: Annotated[Annotated[float, Field(gt=0)] | ImageThreshold, Field(examples=[{"images": 8}])] = 0.001
    power: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    # DEVIATION: BAGS' released code rounds as "bags"; the default here is the definition of the LVIS paper.
    rounding: Literal["stochastic", "ceil", "bags"] = "stochastic"

    def plan(self, b: Builder) -> Stage:
        t = self.t.model_dump() if isinstance(self.t, ImageThreshold) else self.t
        sampler = part("samplers:RepeatFactor", t=t, power=self.power, rounding=self.rounding)
        if self.start == "scratch":
            return b.train(sampler=sampler)
        return b.train(init=b.train(), keep_classifier=True, sampler=sampler)
