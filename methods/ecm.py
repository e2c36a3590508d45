"""The effective class-margin loss: the classifier's margins follow the classes' numbers of images."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from bench.method import Builder, Method, part
from bench.stage import Stage


class Ecm(Method):
    """The whole detector, trained as the baseline is, with a sigmoid for each of the C + 1 outputs and a margin for
    each class that grows with its rarity.

    `background` is how many images the background counts as, beside the sum of all classes'.

    Source: Cho and Kraehenbuehl 2022 (ECCV, effective class-margin loss).
    """

    name: ClassVar[str] = "ecm"
    needs: ClassVar[frozenset[str]] = frozenset({"classifier", "background"})
    # DEVIATION: its recipe has a cosine classifier, repeat factor sampling and a warm-up of 10,000 steps; here schedule
    # and sampler are those of the baseline, so that the loss alone differs from it.
    background: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 6.3313

    def plan(self, b: Builder) -> Stage:
        return b.train(classifier=part("ecm:EffectiveMargin", background=self.background))
