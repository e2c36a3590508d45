"""AP that looks across classes (AP-pool), and AP that does not let them compete (AP-fixed). Separate from ap.py, whose
AP is the published one: 300 detections an image, which all classes share, and a curve for each class.

Source: Dave et al., "Evaluating Large-Vocabulary Object Detectors: The Devil is in the Details" (2021), and its
released code (achalddave/large-vocab-devil):

- AP-fixed: no limit on the detections of an image; the best 10,000 of each class over the data set;
- AP-pool: of the same detections, matched within their class as ever, one precision-recall curve of all classes, by
  score. A class counts by its boxes, so frequent classes weigh most, and scores must mean the same in all classes.

Both see no more than what was stored. Where `predict` keeps 300 detections of an image, what these crowded out is
lacking, and both are as a rule lower than the paper's ("artificially low", say its authors). That is no strict bound:
a detection that is lacking may be false as well.

Shape legend: N detections, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.evaluation.ap import DetectedBoxes
from bench.evaluation.matches import Accumulator, Bools, Matches, match_boxes
from bench.evaluation.resample import ap_of

PER_CLASS = 10_000  # detections of a class over the data set; the paper's number for LVIS


@dataclass(frozen=True)
class Pooled:
    """Of a group of classes; fractions, None where val has no box of them.

    Attributes:
        pool: AP of one curve over all its classes. fixed: mean of its classes' AP.
        boxes: that count.
    """

    pool: float | None
    fixed: float | None
    boxes: int


def best_of_each_class(detections: DetectedBoxes, per_class: int = PER_CLASS) -> DetectedBoxes:
    """The best `per_class` of each class over all images, in the given order; of equal scores the earlier ones."""
    order = np.lexsort((-detections.score, detections.category_id))
    _, start, count = np.unique(detections.category_id[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(start, count)
    return detections[np.sort(order[rank < per_class])]


def match_by_class(gt: Mapping[str, Any], detections: DetectedBoxes, per_class: int = PER_CLASS) -> Matches:
    """Matches of the best `per_class` of each class, without a limit for an image.

    Args:
        gt: from `lean_ground_truth`.
        detections: all that are stored.

    Raises:
        UserError: detections of unknown images or that are not finite.
    """
    return match_boxes(gt, best_of_each_class(detections, per_class), max_detections=max(len(detections), 1))


def pooled(matches: Matches, groups: Mapping[str, Bools]) -> dict[str, Pooled]:
    """AP-pool and AP-fixed of each group.

    Args:
        matches: of `match_by_class`, or of `match_boxes` where its limit cuts nothing off.
        groups: name -> bool K, as of `class_groups`.
    """
    fixed = ap_of(Accumulator(matches).per_class(_once(matches)), groups)
    return {
        name: Pooled(
            pool=_value(Accumulator(one := as_one_class(matches, chosen)).per_class(_once(one)).mean()),
            fixed=_value(fixed[name][0]),
            boxes=len(one.truth_category),
        )
        for name, chosen in groups.items()
    }


def as_one_class(matches: Matches, chosen: Bools) -> Matches:
    """Matches of the chosen classes, as those of a single class. Equal scores by image, then class, as released."""
    of_chosen = np.flatnonzero(chosen[matches.category])
    of = matches.category[of_chosen], matches.image[of_chosen], -matches.score[of_chosen]
    order = of_chosen[np.lexsort(of)]
    boxes = chosen[matches.truth_category]
    return replace(
        matches,
        image=matches.image[order],
        category=np.zeros(len(order), np.int64),
        score=matches.score[order],
        true=matches.true[:, order],
        counted=matches.counted[:, order],
        truth_image=matches.truth_image[boxes],
        truth_category=np.zeros(int(boxes.sum()), np.int64),
        category_ids=np.zeros(1, np.int64),
    )


def _once(matches: Matches) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.ones((1, len(matches.image_ids)), np.int64)


def _value(ap: float) -> float | None:
    return None if np.isnan(ap) else float(ap)
