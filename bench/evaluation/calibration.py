"""Whether a score is the chance to be right: reliability and expected calibration error of detections, per group of
classes. Separate from ap.py, since AP sees only the order of scores and calibration only their values.

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3 (ECE). A detection is right if it
is a true positive at IoU 0.5; boxes enter in no other way, so this is the confidence-only form of the detection ECE of
Kueppers et al. (CVPR Workshops 2020).

DEVIATION: Guo et al. cut [0, 1] into bins of equal width. Most of a detector's scores lie in the lowest of these, so
here bins have equal mass, as in the adaptive calibration error of Nixon et al. (CVPR Workshops 2019).
DEVIATION: Kueppers et al. leave out detections with a score below 0.3. Here all judged ones count: methods move scores
across any such line, and few of the tail reach it.

Shape legend: N detections of a group, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bench.evaluation.matches import Bools, Matches

BINS = 15


@dataclass(frozen=True)
class ReliabilityBin:
    """Detections of like scores.

    Attributes:
        score: their mean score. right: the share of them that is a true positive. count: how many.
    """

    score: float
    right: float
    count: int


@dataclass(frozen=True)
class Calibration:
    """Of a group of classes; fractions, None without detections.

    Attributes:
        ece: mean over detections of |right - score| of their bin.
        score, right: mean score and share of true positives of all; `score` above `right` is overconfidence.
        count: judged detections.
        bins: by rising score; fewer than asked for where scores are equal or few.
    """

    ece: float | None
    score: float | None
    right: float | None
    count: int
    bins: tuple[ReliabilityBin, ...]


def calibration(score_N: ArrayLike, right_N: ArrayLike, bins: int = BINS) -> Calibration:
    """Reliability in bins of equal mass, and ECE over them.

    Equal scores share a bin, that of the lowest of them, so that no order among them matters.

    Args:
        score_N: in [0, 1].
        right_N: bool.
        bins: at most so many.

    Raises:
        ValueError: lengths that differ.
    """
    score, right = np.asarray(score_N, np.float64).ravel(), np.asarray(right_N, np.bool_).ravel()
    if score.shape != right.shape:
        raise ValueError(f"{score.size} scores, {right.size} of them judged")
    if not score.size:
        return Calibration(None, None, None, 0, ())
    place = np.searchsorted(np.sort(score), score, side="left")  # how many have a lower score
    _, number = np.unique(place * bins // score.size, return_inverse=True)
    count = np.bincount(number)
    mean, share = np.bincount(number, score) / count, np.bincount(number, right) / count
    return Calibration(
        ece=float(count @ np.abs(share - mean) / score.size),
        score=float(score.mean()),
        right=float(right.mean()),
        count=int(score.size),
        bins=tuple(map(ReliabilityBin, mean.tolist(), share.tolist(), count.tolist())),
    )


def calibrations(matches: Matches, groups: Mapping[str, Bools], bins: int = BINS) -> dict[str, Calibration]:
    """Name of a group -> calibration of the detections of its classes that LVIS' rules judge, at IoU 0.5.

    Classes of which val has no box count as well, where an image lists them as absent: they are false.

    Args:
        matches: of `match_boxes`.
        groups: name -> bool K, as of `class_groups`.
        bins: at most so many.
    """
    judged = matches.counted[0]
    category, score, right = matches.category[judged], matches.score[judged], matches.true[0, judged]
    return {
        name: calibration(score[chosen[category]], right[chosen[category]], bins) for name, chosen in groups.items()
    }
