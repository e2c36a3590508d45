"""The nearest class mean instead of a learned classifier, on the features of the baseline."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bench.method import Builder, Method, part
from bench.stage import Stage

TAPS = {"fc": "box_features_pre_relu", "conv": "roi_map"}


class NearestClassMean(Method):
    """Classes by the cosine of a RoI's feature to class means over the training set, p_bg from the baseline:
    p_j = (1 - p_bg) softmax(cos / temperature)_j. Nothing is trained.

    `feature`: "fc" is the last FC layer before its ReLU, "conv" the flattened RoI map. `boxes`: the means are those of
    the true boxes ("gt") or of the proposals that match one ("proposals").

    Source: Li et al. 2020 (BAGS), Table 1 rows 10 (fc) and 11 (conv).
    """

    name: ClassVar[str] = "ncm"
    needs: ClassVar[frozenset[str]] = frozenset({"classifier", "box_taps", *TAPS.values()})
    feature: Literal["fc", "conv"] = "fc"
    # DEVIATION: the paper names proposals' features; its released code takes those of the true boxes, the default.
    boxes: Literal["gt", "proposals"] = "gt"
    # DEVIATION: the paper's words are 1-nearest-neighbour; as in its code the decision is a softmax over the cosines.
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Published: 1; others for ablation."""

    def plan(self, b: Builder) -> Stage:
        model = b.train()
        tap = TAPS[self.feature]
        means = b.fit(part("ncm:ClassMeans", rois=self.boxes, tap=tap), model=model)
        return b.wrap(model, part("ncm:NearestMean", means=means, tap=tap, temperature=self.temperature))
