"""Proposal classification accuracy (ACC, ACC_i, ACC_bg). Separate because it judges proposals before NMS.

BAGS (Li et al., CVPR 2020), supplement: each test proposal gets the class of the ground-truth box it overlaps most, if
by IoU >= 0.5, else background; ACC is the share of proposals whose highest final score is that class.
Shape legend: P proposals, G ground-truth boxes of one image, C foreground classes; background is C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.frequency import instance_bin

Ints = NDArray[np.int64]

NO_PREDICTION = -1  # of a classifier without a background probability: its argmax over C + 1 scores does not exist


@dataclass(frozen=True)
class Accuracy:
    """Micro averages over proposals, as fractions; None where there is no proposal to judge.

    Attributes:
        acc: over all proposals.
        acc_bins: over proposals assigned to a class of each instance bin. acc_bg: over those assigned to background.
        proposals_per_bin: how many each of `acc_bins` counts; background last.
    """

    acc: float | None
    acc_bins: tuple[float | None, ...]
    acc_bg: float | None
    proposals_per_bin: tuple[int, ...]

    def metrics(self) -> dict[str, float | None]:
        """By the published names: ACC, ACC1..ACCk, ACCbg."""
        bins = {f"ACC{i}": value for i, value in enumerate(self.acc_bins, start=1)}
        return {"ACC": self.acc} | bins | {"ACCbg": self.acc_bg}


def assign(
    proposals_P4: ArrayLike, boxes_G4: ArrayLike, labels_G: ArrayLike, num_classes: int, iou: float = 0.5
) -> Ints:
    """Class of each proposal of one image: of its ground-truth box of highest IoU (the first of equals), if >= iou.

    Args:
        proposals_P4, boxes_G4: x1 y1 x2 y2 in the same pixels.
        labels_G: 0..C-1.
        num_classes: C, returned for background.
    """
    proposals = np.asarray(proposals_P4, dtype=np.float64).reshape(-1, 4)
    boxes = np.asarray(boxes_G4, dtype=np.float64).reshape(-1, 4)
    assigned = np.full(len(proposals), num_classes, dtype=np.int64)
    if len(proposals) == 0 or len(boxes) == 0:
        return assigned
    iou_PG = _iou(proposals, boxes)
    best = iou_PG.argmax(1)
    matched = iou_PG[np.arange(len(proposals)), best] >= iou
    assigned[matched] = np.asarray(labels_G, dtype=np.int64)[best[matched]]
    return assigned


def accuracy(
    assigned: ArrayLike, predicted: ArrayLike, instance_counts: ArrayLike, edges: Sequence[int] = (10, 100, 1000)
) -> Accuracy:
    """ACC of all proposals of a split.

    Args:
        assigned: from `assign`, 0..C.
        predicted: argmax over the final C + 1 scores, background C; NO_PREDICTION anywhere makes every ACC None.
        instance_counts: training instances of each class, length C.
        edges: of the instance bins.

    Raises:
        ValueError: lengths that differ, or a class outside 0..C.
    """
    truth, guess = np.asarray(assigned, dtype=np.int64).ravel(), np.asarray(predicted, dtype=np.int64).ravel()
    C, bins = len(np.asarray(instance_counts)), len(edges) + 1
    if truth.shape != guess.shape:
        raise ValueError(f"{truth.size} assigned classes, {guess.size} predicted")
    if truth.size and (truth.min() < 0 or truth.max() > C or guess.min() < NO_PREDICTION or guess.max() > C):
        raise ValueError(f"classes outside 0..{C}")
    group = np.append(instance_bin(instance_counts, edges), bins)[truth]  # background is the last group
    total = np.bincount(group, minlength=bins + 1)
    if (guess == NO_PREDICTION).any():
        return Accuracy(None, (None,) * bins, None, tuple(total.tolist()))
    right = np.bincount(group[truth == guess], minlength=bins + 1)
    shares = [float(r / n) if n else None for r, n in zip(right, total, strict=True)]
    overall = float(right.sum() / total.sum()) if truth.size else None
    return Accuracy(overall, tuple(shares[:-1]), shares[-1], tuple(total.tolist()))


def _iou(a_P4: NDArray[np.float64], b_G4: NDArray[np.float64]) -> NDArray[np.float64]:
    low = np.maximum(a_P4[:, None, :2], b_G4[None, :, :2])
    high = np.minimum(a_P4[:, None, 2:], b_G4[None, :, 2:])
    inter = (high - low).clip(0).prod(2)
    area_a = (a_P4[:, 2:] - a_P4[:, :2]).prod(1)
    area_b = (b_G4[:, 2:] - b_G4[:, :2]).prod(1)
    union = area_a[:, None] + area_b[None] - inter
    overlap: NDArray[np.float64] = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return overlap
