"""The contrast of boxes of AlignDet. Separate from drcl.py: it reads the RoIs that the detector samples.

Shape legend: N RoIs of one view, M of the other, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.detection.boxes import iou
from bench.detection.contract import HeadSpec
from bench.detection.losses import Losses, Step
from methods.parts import contrast

VIEW = 1  # of the slow copy; the student's is view 0, on which the detector's own losses are
_BOXES = 1_000_000  # more than an image has; what a box is called is its number + _BOXES x that of its image
_NEVER = -1e4  # a logit whose exponential is 0
MATCHED, SHOWN = 0.5, 0.5  # IoU of a RoI with its box; least share of a box that is in view 1


class BoxContrast(contrast.Following):
    """RoIs of one box in two views are alike, those of other boxes are not (`box_contrast`).

    The student's RoIs are those that its own losses sample; those of view 1 are sampled from the slow copy's proposals.
    Positives alone, at most `most` of each view; the box head's features go through two more layers.

    Source: Li et al. 2023 (AlignDet), box-domain pre-training (methods.md 19.3).
    DEVIATION: the boxes are the true ones without their classes; AlignDet takes selective search's.
    DEVIATION: the head before the two layers is the detector's own two FC layers, not four convs and one.

    Args:
        head: width of the box features.
        weight: factor on the loss.
        tau: temperature.
        most: RoIs of a view, the first of each process's batch.
        momentum: of the slow copy, at the first step.
        hidden, width, norm: of the projector, Linear - norm - ReLU - Linear; "layer" where several processes train.
    """

    VERSION = 1
    views = 1

    def __init__(
        self,
        head: HeadSpec,
        *,
        weight: float = 1.0,
        tau: float = 0.5,
        most: int = 4096,
        momentum: float = 0.996,
        hidden: int = 256,
        width: int = 256,
        norm: str = "batch",
    ) -> None:
        super().__init__(head, momentum)
        self.weight, self.tau, self.most = weight, tau, most
        self.project = contrast.mlp(head.features, hidden, width, norm)
        self.project_slow = self.slowly(self.project)

    def loss(self, step: Step) -> Losses:
        own, slow = step.rois(), step.rois(self.slow, VIEW)
        truth = [boxes[~ignore] for boxes, ignore in zip(step.batch().boxes, step.batch().ignore, strict=True)]
        carried, shares = step.carried(truth, VIEW)
        seen = [
            torch.where((share >= SHOWN)[:, None], boxes, boxes.new_tensor(float("nan")))
            for boxes, share in zip(carried, shares, strict=True)
        ]
        rows_N, label_N = self._positives(own.boxes, truth, step.first)
        rows_M, label_M = self._positives(slow.boxes, seen, step.first)
        q_ND = self._projected(self.project, own.taps.box_features[rows_N])
        with torch.no_grad():
            k_MD = self._projected(self.project_slow, slow.taps.box_features[rows_M])
        contrast.refuse_collapse(q_ND, "box", step.context)
        value = box_contrast(
            step.whole(q_ND), step.whole(k_MD), step.whole(label_N), step.whole(label_M), self.tau
        )  # fmt: skip
        shown = {"box_uniformity": contrast.uniformity(q_ND.detach())}
        return Losses({"box_contrast": value * self.weight}, {"box_contrast": None}, shown)

    def _positives(self, rois: Sequence[Tensor], truth: Sequence[Tensor], first: int) -> tuple[Tensor, Tensor]:
        """(rows of the RoIs of a view that lie on a box, which box that is: the same number in both views)."""
        rows, labels, start = [], [], 0
        for i, (roi_R4, box_G4) in enumerate(zip(rois, truth, strict=True)):
            if len(roi_R4) and len(box_G4):
                overlap_R, box_R = iou(roi_R4, box_G4).nan_to_num(0.0).max(dim=1)
                hit = (overlap_R >= MATCHED).nonzero()[:, 0]
                rows.append(hit + start)
                labels.append(box_R[hit] + (first + i) * _BOXES)
            start += len(roi_R4)
        if not rows:
            none = torch.zeros(0, dtype=torch.int64, device=rois[0].device)
            return none, none
        return torch.cat(rows)[: self.most], torch.cat(labels)[: self.most]

    def _projected(self, layers: nn.Module, rows_ND: Tensor) -> Tensor:
        if len(rows_ND) < 2:  # a batch norm needs two rows; one RoI has no other to be told from
            return layers[-1](layers[0](rows_ND.float()))  # type: ignore[index,no-any-return]
        found: Tensor = layers(rows_ND.float())
        return found


def box_contrast(online_ND: Tensor, target_MD: Tensor, label_N: Tensor, label_M: Tensor, tau: float) -> Tensor:
    """For every label of both views, the mean over its pairs (target k, online q) of
    -log(e^(q k / tau) / (e^(q k / tau) + sum over n of other labels, in both views, e^(q n / tau))); then the mean over
    labels. All vectors at unit length; 0 where no label is in both.

    Source: Li et al. 2023 (AlignDet), box-domain contrast (methods.md 19.3).
    """
    q_ND, k_MD = F.normalize(online_ND.float(), dim=1), F.normalize(target_MD.float(), dim=1)
    z_NM, z_NN = q_ND @ k_MD.T / tau, q_ND @ q_ND.T / tau
    other_NM, other_NN = label_N[:, None] != label_M, label_N[:, None] != label_N
    far = torch.cat((z_NM.masked_fill(~other_NM, _NEVER), z_NN.masked_fill(~other_NN, _NEVER)), dim=1)
    far_N = torch.logsumexp(far, dim=1)
    pair_NM = torch.logaddexp(z_NM, far_N[:, None]) - z_NM
    values = []
    for label in torch.unique(label_N).tolist():
        pairs = (label_N == label)[:, None] & (label_M == label)
        if pairs.any():
            values.append(pair_NM[pairs].mean())
    return torch.stack(values).mean() if values else online_ND.sum() * 0
