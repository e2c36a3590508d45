"""What share of the boxes the proposals of a detector reach, per group of classes: is the tail lost before the
classifier sees it, or by the classifier? Separate from ap.py, which judges detections with classes.

Source: the AR of COCO's evaluator (Lin et al., ECCV 2014; Hosang et al., PAMI 2016), class-agnostic: recall of the best
N proposals of each image, mean over IoU 0.50 to 0.95. Proposals take boxes greedily, the best one first. A group is
measured as COCO measures a range of areas: boxes of other classes are ignored, and all proposals may serve it.

Shape legend: N proposals, K classes, T = 10 IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.evaluation.ap import Floats, Ints
from bench.evaluation.judged import Truth, truth_of
from bench.evaluation.matches import THRESHOLDS, Bools, Matches
from bench.evaluation.overlap import iou_xywh
from bench.evaluation.stored import Proposals

BUDGETS = (100, 300, 1000)  # proposals of an image


def told_apart(most: int) -> tuple[int, ...]:
    """The budgets at which recall can differ, where no image has more proposals than `most`: a larger one repeats the
    one before."""
    return tuple(n for n, before in zip(BUDGETS, (0, *BUDGETS), strict=False) if most > before)


@dataclass(frozen=True)
class Recall:
    """Of a group of classes; fractions, None without boxes.

    Attributes:
        boxes: that count.
        proposals: AR of the best 100, 300 and 1000 proposals of an image (`BUDGETS`).
        detections: the same mean over IoU of the share that a detection of the right class finds, under the protocol.
            It can be above `proposals`: its boxes are refined.
    """

    boxes: int
    proposals: tuple[float | None, ...]
    detections: float | None


@dataclass(frozen=True)
class Recalls:
    """Recall of a split.

    Attributes:
        groups: name -> recall.
        most: proposals of the image that has most. AR of more than these is AR of these.
    """

    groups: Mapping[str, Recall]
    most: int


def recalls(
    gt: Mapping[str, Any],
    proposals: Proposals,
    matches: Matches,
    groups: Mapping[str, Bools],
    budgets: Sequence[int] = BUDGETS,
) -> Recalls:
    """AR of proposals and of detections for each group. Crowd boxes and boxes to ignore do not count.

    Args:
        gt: from `lean_ground_truth`.
        proposals: of its images; those of other images are left out.
        matches: of `match_boxes` on the same ground truth.
        groups: name -> bool K, as of `class_groups`.
        budgets: proposals of an image, rising.
    """
    truth = truth_of(gt)
    image_ids = matches.image_ids
    known = np.isin(proposals.image_id, image_ids)
    image, xywh = np.searchsorted(image_ids, proposals.image_id[known]), proposals.xywh[known]
    order = np.argsort(image, kind="stable")
    cuts = np.searchsorted(image[order], np.arange(len(image_ids) + 1))
    in_order = xywh[order]
    found = {name: np.zeros(len(budgets), np.int64) for name in groups}
    for i, boxes in _by_image(truth):
        iou_NG = iou_xywh(in_order[cuts[i] : cuts[i + 1]], truth.xywh[boxes], truth.crowd[boxes])
        for name, chosen in groups.items():
            taken_N = _taken(iou_NG[:, chosen[truth.label[boxes]]])
            found[name] += [int(taken_N[:budget].sum()) for budget in budgets]
    boxes_K = np.bincount(truth.label[truth.counts], minlength=len(matches.category_ids))
    hits_K = np.bincount(matches.category, matches.true.sum(0), minlength=len(matches.category_ids))
    counted_K = np.bincount(matches.truth_category, minlength=len(matches.category_ids))
    return Recalls(
        {
            name: Recall(
                boxes=int(boxes_K[chosen].sum()),
                proposals=tuple(_share(n, boxes_K[chosen].sum()) for n in found[name].tolist()),
                detections=_share(hits_K[chosen].sum(), counted_K[chosen].sum()),
            )
            for name, chosen in groups.items()
        },
        most=int(np.diff(cuts).max(initial=0)),
    )


def _taken(iou_NG: Floats) -> Ints:
    """At how many thresholds each proposal of an image takes a box: the free one of highest IoU, of equals the last.

    The thresholds at which a box is still free, and at which a proposal has none yet, are the bits of a number.
    """
    taken_N = np.zeros(len(iou_NG), np.int64)
    row_P, column_P = np.nonzero(iou_NG >= THRESHOLDS[0])
    iou_P = iou_NG[row_P, column_P]
    order = np.lexsort((-column_P, -iou_P, row_P))
    reached_P = (1 << np.searchsorted(THRESHOLDS, iou_P, side="right")) - 1
    everywhere = (1 << len(THRESHOLDS)) - 1
    free, waiting, last = [everywhere] * iou_NG.shape[1], everywhere, -1
    for row, column, reached in zip(*(of[order].tolist() for of in (row_P, column_P, reached_P)), strict=True):
        if row != last:
            last, waiting = row, everywhere
        takes = waiting & free[column] & reached
        if takes:
            free[column] ^= takes
            waiting ^= takes
            taken_N[row] += takes.bit_count()
    return taken_N


def _by_image(truth: Truth) -> list[tuple[int, Ints]]:
    """Image -> the rows of its boxes that count."""
    rows = np.flatnonzero(truth.counts)
    rows = rows[np.argsort(truth.image[rows], kind="stable")]
    images, first = np.unique(truth.image[rows], return_index=True)
    return list(zip(images.tolist(), np.split(rows, first[1:]), strict=False))


def _share(hits: float, boxes: int) -> float | None:
    """Mean over IoU of what was hit at each."""
    return float(hits / (len(THRESHOLDS) * boxes)) if boxes else None
