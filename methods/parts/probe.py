"""A linear probe: how well classes can be told apart by a line through the features of a frozen model. Fit parts.

Shape legend: N RoIs, D box-head features, C foreground classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bench.detection.contract import HeadSpec, LabelledRois
from bench.errors import UserError

VERSION = 2  # 2: keeps the eigenvalues


class Ridge:
    """Ridge regression of the classes' indicators on the features of true boxes, in closed form: nothing is trained, no
    rate or length is chosen.

    Every class has the same weight in all, however many boxes it has: w_n = 1 / N_c. What a probe says of a rare class
    is then about the features and not about how seldom it is.

    Source: Alain and Bengio 2016 (linear probes); ridge regression as in Hoerl and Kennard 1970.
    DEVIATION: a linear probe is usually trained by SGD; the closed form has no settings but one.

    Args:
        head: number of classes and their instances.
        ridge: added to the diagonal of the features' covariance, as a share of its mean.

    Raises:
        UserError: a share that is not positive.
    """

    inputs: tuple[str, ...] = ("box_features",)
    rois = "gt"

    def __init__(self, head: HeadSpec, *, ridge: float = 0.01) -> None:
        if not ridge > 0.0:
            raise UserError(f"ridge is {ridge}", where="Ridge", allowed="a number > 0")
        self._ridge, self._classes = ridge, head.num_classes
        counts_C = torch.tensor(head.stage_instance_counts, dtype=torch.float64)
        self._weight_C = counts_C.clamp(min=1).reciprocal()
        D = head.features
        self._sum, self._x_D, self._y_C = 0.0, torch.zeros(D).double(), torch.zeros(head.num_classes).double()
        self._xx_DD, self._xy_DC = torch.zeros(D, D).double(), torch.zeros(D, head.num_classes).double()

    def update(self, seen: LabelledRois) -> None:
        """Add the true boxes of a batch to the moments."""
        x_ND, label_N = seen.taps.box_features.double().cpu(), seen.labels_N.cpu()
        w_N = self._weight_C[label_N]
        y_NC = torch.nn.functional.one_hot(label_N, self._classes).double()
        self._sum += float(w_N.sum())
        self._x_D += w_N @ x_ND
        self._y_C += w_N @ y_NC
        self._xx_DD += (w_N[:, None] * x_ND).T @ x_ND
        self._xy_DC += (w_N[:, None] * x_ND).T @ y_NC

    def result(self) -> dict[str, Tensor]:
        """weight_DC, bias_C: float64; a RoI is of the class with the largest x w + b. eigenvalues_D: of the features'
        covariance, falling: of features that have collapsed to one direction all but the first are about 0."""
        total = max(self._sum, 1e-12)
        mean_D, mean_C = self._x_D / total, self._y_C / total
        cov_DD = self._xx_DD / total - torch.outer(mean_D, mean_D)
        both_DC = self._xy_DC / total - torch.outer(mean_D, mean_C)
        added = self._ridge * cov_DD.diagonal().mean().clamp(min=1e-12)
        weight_DC = torch.linalg.solve(cov_DD + added * torch.eye(len(cov_DD), dtype=torch.float64), both_DC)
        eigenvalues_D = torch.linalg.eigvalsh(cov_DD).flip(0).clamp(min=0)
        return {"weight_DC": weight_DC, "bias_C": mean_C - mean_D @ weight_DC, "eigenvalues_D": eigenvalues_D}


class Hits:
    """How many true boxes of each class a probe tells right.

    Args:
        head: number of classes.
        probe: the result of `Ridge` over the same model.
    """

    inputs: tuple[str, ...] = ("box_features",)
    rois = "gt"

    def __init__(self, head: HeadSpec, *, probe: Mapping[str, Tensor]) -> None:
        self._probe = probe
        self._hits_C = torch.zeros(head.num_classes, dtype=torch.int64)
        self._seen_C = torch.zeros(head.num_classes, dtype=torch.int64)

    def update(self, seen: LabelledRois) -> None:
        """Judge the true boxes of a batch."""
        x_ND, label_N = seen.taps.box_features.double().cpu(), seen.labels_N.cpu()
        said_N = (x_ND @ self._probe["weight_DC"] + self._probe["bias_C"]).argmax(dim=1)
        classes = len(self._seen_C)
        self._seen_C += torch.bincount(label_N, minlength=classes)
        self._hits_C += torch.bincount(label_N[said_N == label_N], minlength=classes)

    def result(self) -> dict[str, Tensor]:
        """hits_C, seen_C: int64, boxes of each class that the probe tells right, and all; the eigenvalues as well."""
        return {"hits_C": self._hits_C, "seen_C": self._seen_C, "eigenvalues_D": self._probe["eigenvalues_D"]}
