"""Which detections match which ground truth, by LVIS rules, and AP of it with a weight for every image. Separate from
ap.py, which evaluates once through faster-coco-eval: a bootstrap needs AP of a thousand weightings of the images, so
matches are made once and only accumulated again. With all weights 1 the numbers are those of ap.py (tests: 1e-9).

Shape legend: N detections that can count, G counted ground-truth boxes, I images of the split, K classes (categories by
ascending id), T = 10 IoU thresholds 0.50 to 0.95.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.ap import UNCOUNTED, DetectedBoxes, Floats, Ints, capped, check, countable, not_exhaustive
from bench.evaluation.overlap import iou_xywh

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)  # COCO's points, to the last bit
LARGEST = 1e10  # pixels; the official "all" areas end here

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Matches:
    """The detections of a split, by class and then by falling score; equal scores in the evaluators' order (by image
    id, then as given).

    Attributes:
        image: int64 N, position in `image_ids`. category: int64 N, position in `category_ids`. score: float64 N.
        true: bool T x N, matched a counted box. counted: bool T x N; what is not is neither true nor false.
        truth_image, truth_category: int64 G, of the counted boxes.
        image_ids: int64 I, ascending. category_ids: int64 K, ascending.
    """

    image: Ints
    category: Ints
    score: Floats
    true: Bools
    counted: Bools
    truth_image: Ints
    truth_category: Ints
    image_ids: Ints
    category_ids: Ints


def match_boxes(gt: Mapping[str, Any], detections: DetectedBoxes, max_detections: int = 300) -> Matches:
    """Greedy matching of every image and class (Gupta et al., CVPR 2019; `LVISEval.evaluate_img` of lvis-api): in the
    order of scores each detection takes the free box of highest IoU at or above the threshold, counted boxes before
    others. Crowd boxes are those of COCO: matched by any number, IoU over the detection's area.

    Args:
        gt: from `lean_ground_truth`.
        detections: of any length; cut to the best `max_detections` of each image over all classes.

    Raises:
        UserError: detections of unknown images or that are not finite.
    """
    check(gt, detections)
    found = countable(gt, capped(detections, max_detections))
    image_ids = np.unique(np.array([i["id"] for i in gt["images"]], np.int64))
    category_ids = np.array(sorted(c["id"] for c in gt["categories"]), np.int64)
    image = np.searchsorted(image_ids, found.image_id)
    category = np.searchsorted(category_ids, found.category_id)
    order = np.lexsort((np.arange(len(found)), -found.score, category))
    found, image, category = found[order], image[order], category[order]
    truth = _truth(gt, image_ids, category_ids)
    true = np.zeros((len(THRESHOLDS), len(found)), bool)
    exhaustive = ~not_exhaustive(gt, found)
    small = found.xywh[:, 2] * found.xywh[:, 3] <= LARGEST
    counted = np.repeat((exhaustive & small)[None], len(THRESHOLDS), axis=0)
    for boxes, rows in _groups(truth, image * len(category_ids) + category, len(category_ids)):
        hit, hidden = _matched(found.xywh[rows], truth.xywh[boxes], truth.crowd[boxes], truth.ignored[boxes])
        true[:, rows] = hit
        counted[:, rows] = (counted[:, rows] | hit) & ~hidden
    keep = ~truth.ignored
    return Matches(
        image, category, found.score, true, counted, truth.image[keep], truth.category[keep], image_ids, category_ids
    )


@dataclass(frozen=True, eq=False)
class _Truth:
    """Ground-truth boxes sorted by image, class, and counted ones first; `ignored` are not counted."""

    image: Ints
    category: Ints
    xywh: Floats
    crowd: Bools
    ignored: Bools


def _truth(gt: Mapping[str, Any], image_ids: Ints, category_ids: Ints) -> _Truth:
    shown = [a for a in gt["annotations"] if a["area"] <= UNCOUNTED]
    image = np.searchsorted(image_ids, np.array([a["image_id"] for a in shown], np.int64))
    category = np.searchsorted(category_ids, np.array([a["category_id"] for a in shown], np.int64))
    xywh = np.array([a["bbox"] for a in shown], np.float64).reshape(-1, 4)
    crowd = np.array([bool(a.get("iscrowd")) for a in shown], bool)
    ignored = crowd | np.array([bool(a.get("ignore")) or a["area"] > LARGEST for a in shown], bool)
    order = np.lexsort((ignored, category, image))
    return _Truth(image[order], category[order], xywh[order], crowd[order], ignored[order])


def _groups(truth: _Truth, of_found: Ints, classes: int) -> Iterator[tuple[slice, Ints]]:
    """For each image and class with boxes and detections: its boxes, and its detections by falling score."""
    of_truth = truth.image * classes + truth.category
    order = np.argsort(of_found, kind="stable")
    pairs, first, count = np.unique(of_truth, return_index=True, return_counts=True)
    start: Ints = np.asarray(np.searchsorted(of_found[order], pairs, side="left"))
    stop: Ints = np.asarray(np.searchsorted(of_found[order], pairs, side="right"))
    for group in np.flatnonzero(stop > start):
        yield slice(int(first[group]), int(first[group] + count[group])), order[start[group] : stop[group]]


def _matched(found: Floats, boxes: Floats, crowd: Bools, ignored: Bools) -> tuple[Bools, Bools]:
    """(matched a counted box, matched another) T x D of one image and class; counted boxes come first."""
    iou = iou_xywh(found, boxes, crowd)
    hit = np.zeros((len(THRESHOLDS), len(found)), bool)
    hidden = np.zeros_like(hit)
    least = np.minimum(THRESHOLDS, 1 - 1e-10)
    free = np.ones((len(THRESHOLDS), len(boxes)), bool)
    columns, levels = len(boxes), np.arange(len(THRESHOLDS))
    for d in np.flatnonzero(iou.max(1) >= least[0]):
        fits = free & (iou[d] >= least[:, None])
        preferred = np.where((fits & ~ignored).any(1)[:, None], fits & ~ignored, fits)
        # Of equal IoUs the last box wins, as in the evaluators.
        last = columns - 1 - np.where(preferred, iou[d], -1.0)[:, ::-1].argmax(1)
        some = preferred.any(1)
        hit[:, d] = some & ~ignored[last]
        hidden[:, d] = some & ignored[last]
        free[levels[some], last[some]] = crowd[last[some]]
    return hit, hidden


class Accumulator:
    """AP of every class for any weights of the images. What can move no precision is left out once: detections behind
    the last true one of their class. Of equal scores in one image, copies stand together.

    Shape legend: B weightings at once, P true detections over all thresholds, in the order of threshold, class and
    score; a segment is those of one threshold and class.
    """

    def __init__(self, matches: Matches) -> None:
        self._shape = (len(THRESHOLDS), len(matches.category_ids))
        order = np.argsort(matches.truth_category, kind="stable")
        self._truth_image = matches.truth_image[order]
        self._shown, self._truth_first = np.unique(matches.truth_category[order], return_index=True)
        last = np.full(self._shape[1], -1, np.int64)
        anywhere = np.flatnonzero(matches.true.any(0))
        np.maximum.at(last, matches.category[anywhere], anywhere)
        kept = np.arange(len(matches.category)) <= last[matches.category]
        image, category = matches.image[kept], matches.category[kept]
        true, counted = matches.true[:, kept], matches.counted[:, kept]
        self._level, at = np.nonzero(true)
        self._image, self._category = image[at], category[at]
        segment = self._level * self._shape[1] + self._category
        self._segments, self._first, self._sizes = np.unique(segment, return_index=True, return_counts=True)
        self._lift = 2.0 * segment[::-1]
        # How many are counted before them and behind the start of their class is the difference of two running sums.
        # Most detections are counted at all thresholds or at none; only the others need one sum for each.
        start = np.searchsorted(category, self._category, side="left")
        always = np.flatnonzero(counted.all(0))
        mixed = np.flatnonzero(counted.any(0) & ~counted.all(0))
        self._always, self._mixed, self._mixed_counted = image[always], image[mixed], counted[:, mixed]
        self._spans = [np.searchsorted(those, ends) for those in (always, mixed) for ends in (start, at + 1)]

    @property
    def at_once(self) -> int:
        """How many weightings take some 200 MB."""
        return max(1, 2_000_000 // (1 + len(self._image) + len(self._always) + len(THRESHOLDS) * len(self._mixed)))

    def per_class(self, weights: Ints) -> Floats:
        """AP B x T x K as fractions; NaN where the weighted images show no box of the class.

        Args:
            weights: int64 B x I, how often each image counts.
        """
        boxes = np.zeros((len(weights), self._shape[1]), np.int64)
        if len(self._shown):
            boxes[:, self._shown] = np.add.reduceat(weights[:, self._truth_image], self._truth_first, axis=1)
        ap = np.zeros((len(weights), self._shape[0] * self._shape[1]))
        if len(self._image):
            ap[:, self._segments] = self._sums(weights, boxes) / len(RECALLS)
        return np.where((boxes > 0)[:, None], ap.reshape(len(weights), *self._shape), np.nan)

    def _sums(self, weights: Ints, boxes: Ints) -> Floats:
        """Sum of the interpolated precisions at the 101 recalls, B x segments."""
        own = weights[:, self._image]
        true = np.cumsum(own, axis=1)
        true -= np.repeat((true - own)[:, self._first], self._sizes, axis=1)
        precision = true / np.maximum(self._counted(weights), 1)
        recall = true / np.maximum(boxes, 1)[:, self._category]
        # The highest precision at this recall or above: a running maximum from the right, anew in each segment.
        best = (np.maximum.accumulate(precision[:, ::-1] - self._lift, axis=1) + self._lift)[:, ::-1]
        reached = np.searchsorted(RECALLS, recall, side="right")
        gained = np.diff(reached, prepend=0, axis=1)
        gained[:, self._first] = reached[:, self._first]
        return np.asarray(np.add.reduceat(best * gained, self._first, axis=1))

    def _counted(self, weights: Ints) -> Ints:
        """Of each true detection: those of its class down to it that are true or false, it among them; B x P."""
        start, end, mixed_start, mixed_end = self._spans
        total = np.zeros((len(weights), len(self._always) + 1), np.int64)
        np.cumsum(weights[:, self._always], axis=1, out=total[:, 1:])
        found = total[:, end] - total[:, start]
        if len(self._mixed):
            each = np.zeros((len(weights), self._shape[0], len(self._mixed) + 1), np.int64)
            np.cumsum(self._mixed_counted * weights[:, None, self._mixed], axis=2, out=each[:, :, 1:])
            found += each[:, self._level, mixed_end] - each[:, self._level, mixed_start]
        return np.asarray(found)
