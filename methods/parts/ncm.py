"""The nearest class mean: class means of a trained model's features, and the classifier that compares with them.
Separate because no other method measures features.

Shape legend: N RoIs, C foreground classes, F values of a tap (D for the box features, channels x P x P for the RoI
map), K raw outputs of the inner classifier. Raw outputs here are C cosines and then those K. Background is last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.detection.contract import TAPS, Classifier, Context, HeadSpec, LabelledRois, Taps, Targets, build_classifier
from bench.errors import UserError, unknown
from methods.parts.softmax import wide


class ClassMeans:
    """Mean feature of each class over the RoIs of a split; fit part.

    Source: BAGS (CVPR 2020), Table 1 rows 10 and 11. Where paper and released code differ we follow the code:
    DEVIATION: rois="gt" (code) averages over true boxes; "proposals" (the paper's wording) over matching proposals.
    DEVIATION: the paper does not state on which side of the ReLU the FC feature is taken; the code takes it before.

    Args:
        head: widths and number of classes.
        rois: "gt" or "proposals".
        tap: the feature: "box_features_pre_relu", "box_features", or "roi_map" (flattened).

    Raises:
        UserError: no such tap. (The fit stage refuses other `rois`.)
    """

    VERSION = 1

    def __init__(self, head: HeadSpec, *, rois: str = "gt", tap: str = "box_features_pre_relu") -> None:
        self.rois = rois
        self.inputs: tuple[str, ...] = (tap,)
        self._tap = tap
        self._sum_CF = torch.zeros(head.num_classes, tap_width(head, tap), dtype=torch.float64)
        self._count_C = torch.zeros(head.num_classes, dtype=torch.int64)

    def update(self, seen: LabelledRois) -> None:
        """Add the RoIs of a batch; on the CPU, where the order of a sum is fixed."""
        labels_N = seen.labels_N.cpu()
        self._sum_CF.index_add_(0, labels_N, flat(seen.taps, self._tap).cpu().double())
        self._count_C += torch.bincount(labels_N, minlength=len(self._count_C))

    def result(self) -> dict[str, Tensor]:
        """means_CD: float32 C x F, zeros for a class without RoIs; count_C: int64, RoIs of each class."""
        means_CF = self._sum_CF / self._count_C.clamp(min=1)[:, None]
        return {"means_CD": means_CF.float(), "count_C": self._count_C.clone()}


class NearestMean(Classifier):
    """Cosine to class means decides between classes, the inner classifier between background and foreground.

    p_j = (1 - p_bg) q_j with q the softmax of cos(h, mean_j) / temperature over the foreground classes that have a
    mean; the others have q_j = 0. Nothing is trained.

    Source: BAGS (CVPR 2020), Table 1 rows 10 and 11, as in the released code.
    DEVIATION: the paper words the decision as 1-nearest-neighbour; as in the code it is a softmax over the cosines.
    A temperature towards 0 is the nearest mean alone. At 1 the softmax over many classes is nearly flat (at most
    e^2 / C where C is large), and that is the published row; other temperatures are for ablation.

    Args:
        head: widths and number of classes.
        inner: the part of the classifier whose p_bg is taken.
        means: the result of ClassMeans: "means_CD" and "count_C".
        tap: the tap that the means were taken from.
        temperature: of the softmax over cosines.

    Raises:
        UserError: a temperature <= 0, another tap, means of another width or number of classes, no class with a mean.
    """

    VERSION = 1

    directions_CF: Tensor
    known_C: Tensor

    def __init__(
        self,
        head: HeadSpec,
        *,
        inner: Mapping[str, Any],
        means: Mapping[str, Tensor],
        tap: str = "box_features_pre_relu",
        temperature: float = 1.0,
    ) -> None:
        super().__init__(head)
        if not 0.0 < temperature < math.inf:
            raise UserError(f"temperature is {temperature}", where="NearestMean", allowed="a number > 0")
        means_CF, known_C = means["means_CD"].double(), means["count_C"] > 0
        if means_CF.shape != (head.num_classes, tap_width(head, tap)):
            raise UserError(
                f"class means of shape {tuple(means_CF.shape)} do not fit",
                where="NearestMean",
                allowed=f"{head.num_classes} classes x {tap_width(head, tap)} values of {tap}",
            )
        if not known_C.any():
            raise UserError("no class has a mean", where="NearestMean", hint="the split of the fit stage has no boxes")
        self.inner = build_classifier(inner, head)
        self.inputs = tuple(dict.fromkeys((tap, *self.inner.inputs)))
        self.tap, self.temperature = tap, float(temperature)
        # Not persistent: they come from the fit stage at every rebuild.
        self.register_buffer("directions_CF", functional.normalize(means_CF, dim=1).float(), persistent=False)
        self.register_buffer("known_C", known_C, persistent=False)

    def forward(self, taps: Taps) -> Tensor:
        """N x (C + K): cosines, -inf for a class without a mean, then the inner classifier's raw outputs."""
        inner_NK = wide(self.inner(taps))
        with torch.autocast(inner_NK.device.type, enabled=False):  # cosines differ in digits that bfloat16 lacks
            h_NF = functional.normalize(wide(flat(taps, self.tap)), dim=1)
            cos_NC = h_NF @ self.directions_CF.to(h_NF.dtype).T
        cos_NC = cos_NC.masked_fill(~self.known_C, -math.inf)
        return torch.cat([cos_NC, inner_NK.to(cos_NC.dtype)], dim=1)

    def loss(self, z_NK: Tensor, targets: Targets, context: Context) -> dict[str, Tensor]:
        """Not trained.

        Raises:
            UserError: always.
        """
        raise UserError("the nearest class mean has no loss", where="NearestMean", hint="train first, wrap afterwards")

    def scores(self, z_NK: Tensor) -> tuple[Tensor, Tensor | None]:
        """p_j = (1 - p_bg) q_j; p_bg is the inner classifier's.

        Raises:
            UserError: the inner classifier has no p_bg.
        """
        C = self.head.num_classes
        p_bg_N = self.inner.scores(z_NK[:, C:])[1]
        if p_bg_N is None:
            raise UserError(
                f"{type(self.inner).__name__} has no background probability",
                where="NearestMean",
                allowed="an inner classifier whose scores include the background",
            )
        q_NC = (wide(z_NK[:, :C]) / self.temperature).softmax(dim=1)
        return (1.0 - p_bg_N)[:, None] * q_NC, p_bg_N


def tap_width(head: HeadSpec, tap: str) -> int:
    """F: values of a tap for one RoI.

    Raises:
        UserError: no such tap.
    """
    if tap not in TAPS:
        raise unknown("tap", tap, TAPS, where="class means")
    return math.prod(head.roi_shape) if tap == "roi_map" else head.features


def flat(taps: Taps, tap: str) -> Tensor:
    """A tap as N x F."""
    value = getattr(taps, tap)
    assert isinstance(value, Tensor), f"the engine did not return the tap {tap}"
    return value.flatten(start_dim=1)
