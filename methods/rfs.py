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
    """Image I is repeated r_I = max over its classes c of max(1, sqrt(t / f_c)) times, f_c the share of images with c.

    `rounding` turns r_I into an epoch: "stochastic" (LVIS paper, detectron2), "ceil" (mmdet), "bags" (released code of
    BAGS: the image itself and another ceil(r_I) copies).

    Source: Gupta et al. 2019 (LVIS), section 4; Li et al. 2020 (BAGS), Table 1 row 4.
    """

    name: ClassVar[str] = "rfs"
    t: Annotated[float, Field(gt=0)] | ImageThreshold = 0.001
    # DEVIATION: BAGS' released code rounds as "bags"; the default here is the definition of the LVIS paper.
    rounding: Literal["stochastic", "ceil", "bags"] = "stochastic"

    def plan(self, b: Builder) -> Stage:
        t = self.t.model_dump() if isinstance(self.t, ImageThreshold) else self.t
        return b.train(sampler=part("samplers:RepeatFactor", t=t, rounding=self.rounding))
