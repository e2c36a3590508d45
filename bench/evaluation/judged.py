"""What each detection is: right, an error of one of TIDE's kinds, or not judged by LVIS' rules; which boxes are missed.
Separate from `error_kinds.py`, which counts the errors and says what they cost: this goes image by image.

Source: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, section 2.2; where
the paper leaves an order or a tie open, as the released code (tidecv 1.0.1). An unmatched detection is the first that
fits (boxes are those that count, in its image):

1. localisation: 0.1 <= IoU <= 0.5 with a box of its class;
2. classification: IoU >= 0.5 with a box of another class;
3. duplicate: IoU >= 0.5 with a box of its class that a better detection has found;
4. background: IoU <= 0.1 with every box;
5. both: the rest.

A box is missed if no detection has found it and none of kind 1 or 2 lies on it.

LVIS' rules (Gupta et al., CVPR 2019), which TIDE does not know: a detection is not judged, and is no error, if

- it is not among the best `max_detections` of its image, has no area, or is of an unknown class;
- its class is neither positive nor negative in the image. If it lies on a box of another class, TIDE calls that a
  classification error. Here nobody has looked whether the object is of that class too (classes of LVIS overlap), and AP
  does not count it, so that it costs nothing. On federated data a confusion is therefore seen only with listed
  classes, and a box under none but unjudged detections is missed. Compare such counts between methods on one data set,
  not between data sets;
- it is unmatched and its class is not exhaustive in the image: it may be right about an object that has no box;
- it matches an `ignore` box of its class, or lies in an `iscrowd` box of it, as in `ap.py`. To detections of other
  classes these are background, as are TIDE's ignored regions. tidecv counts what lies in them as errors, while its AP
  does not; here neither does.

Shape legend: M detections that can be judged, by image and falling score; G boxes of the lean ground truth; D and G of
one image inside `_judge_image`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.ap import DetectedBoxes, Floats, Ints, can_count, not_exhaustive, within_cap
from bench.evaluation.overlap import iou_xywh

Bools = NDArray[np.bool_]

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU; t_f and t_b of TIDE, section 2.2


class Kind(IntEnum):
    """What a detection is. MISSED is the kind of a box, and of no detection."""

    NOT_JUDGED = -1
    TRUE_POSITIVE = 0
    CLASSIFICATION = 1
    LOCALISATION = 2
    BOTH = 3
    DUPLICATE = 4
    BACKGROUND = 5
    MISSED = 6


@dataclass(frozen=True, eq=False)
class Truth:
    """Boxes of the lean ground truth: G each. `image` is -1 for a box of an image that is not listed."""

    image: Ints
    label: Ints
    xywh: Floats
    crowd: Bools
    counts: Bools


@dataclass(frozen=True, eq=False)
class Found:
    """Detections that can count: M each, by image and falling score.

    `row` is the place among the given ones, `rank` the place by score over all images, `partial` whether the class is
    not exhaustive in the image.
    """

    row: Ints
    image: Ints
    label: Ints
    xywh: Floats
    rank: Ints
    partial: Bools


@dataclass(frozen=True, eq=False)
class Judged:
    """Of M detections: the kind; the box that it has found or its error concerns, -1 for none; whether it is the error
    that a box takes when fixed; the box that it takes whatever the classes, -1 for none; the highest IoU with a box
    that counts. Of G boxes: missed."""

    kind: NDArray[np.int8]
    box: Ints
    best: Bools
    taken: Ints
    overlap: Floats
    missed: Bools


def truth_of(lean: Mapping[str, Any]) -> Truth:
    """The boxes of `ap.lean_ground_truth`, in its order."""
    image_ids, category_ids = _ids(lean["images"]), _ids(lean["categories"])
    rows = lean["annotations"]
    image = np.array([a["image_id"] for a in rows], dtype=np.int64)
    listed = np.isin(image, image_ids)
    crowd = np.array([a["iscrowd"] for a in rows], dtype=np.bool_)
    ignored = crowd | np.array(["ignore" in a for a in rows], dtype=np.bool_)
    return Truth(
        image=np.where(listed, np.searchsorted(image_ids, image), -1),
        label=np.searchsorted(category_ids, np.array([a["category_id"] for a in rows], dtype=np.int64)),
        xywh=np.array([a["bbox"] for a in rows], dtype=np.float64).reshape(-1, 4),
        crowd=crowd,
        counts=listed & ~ignored,
    )


def found_of(lean: Mapping[str, Any], detections: DetectedBoxes, max_detections: int) -> Found:
    """What is left of `detections` after the cap and after those of classes that are not listed for the image."""
    image_ids, category_ids = _ids(lean["images"]), _ids(lean["categories"])
    row = within_cap(detections, max_detections)
    row = row[can_count(lean, detections)[row]]
    image = np.searchsorted(image_ids, detections.image_id[row])
    label = np.searchsorted(category_ids, detections.category_id[row])
    rank = np.empty(len(row), dtype=np.int64)
    rank[np.argsort(-detections.score[row], kind="stable")] = np.arange(len(row))
    return Found(row, image, label, detections.xywh[row], rank, not_exhaustive(lean, detections[row]))


def _ids(rows: Sequence[Mapping[str, Any]]) -> Ints:
    return np.unique(np.array([row["id"] for row in rows], dtype=np.int64))


def judge(found: Found, truth: Truth) -> Judged:
    """The kind of every detection; an image without boxes has nothing but background."""
    M = len(found.row)
    judged = Judged(
        kind=np.where(found.partial, Kind.NOT_JUDGED, Kind.BACKGROUND).astype(np.int8),
        box=np.full(M, -1, np.int64),
        best=np.zeros(M, dtype=np.bool_),
        taken=np.full(M, -1, np.int64),
        overlap=np.zeros(M),
        missed=truth.counts.copy(),
    )
    order = np.argsort(truth.image, kind="stable")
    order = order[truth.image[order] >= 0]
    both = np.intersect1d(found.image, truth.image[order])
    for d, g in zip(_spans(found.image, both), _spans(truth.image[order], both), strict=True):
        _judge_image(found, truth, d, order[g], judged)
    return judged


def _spans(images: Ints, chosen: Ints) -> Iterator[slice]:
    """Where each of the `chosen` stands in sorted `images`."""
    first, last = (np.searchsorted(images, chosen, side=side) for side in ("left", "right"))
    return map(slice, first.tolist(), last.tolist())


def _judge_image(found: Found, truth: Truth, d: slice, g: Ints, out: Judged) -> None:
    """One image: detections `d`, by falling score, and boxes `g`; written into `out`."""
    counts_G, own_label_DG = truth.counts[g], found.label[d, None] == truth.label[g]
    iou_DG = iou_xywh(found.xywh[d], truth.xywh[g], truth.crowd[g])
    own_DG = np.where(own_label_DG & counts_G, iou_DG, 0.0)
    other_DG = np.where(~own_label_DG & counts_G, iou_DG, 0.0)
    match_D = _match(own_DG)
    right_D = match_D >= 0
    found_G = np.zeros(len(g), dtype=np.bool_)
    found_G[match_D[right_D]] = True
    wrong_D = ~right_D & ~found.partial[d]
    if not counts_G.all():
        uncounted_DG = np.where(own_label_DG & ~counts_G & ~right_D[:, None], iou_DG, 0.0)
        wrong_D &= _match(uncounted_DG, truth.crowd[g]) < 0

    own_D, other_D, twice_D = own_DG.max(1), other_DG.max(1), np.where(found_G, own_DG, 0.0).max(1)
    overlap_D = np.maximum(own_D, other_D)
    ordered = {
        Kind.TRUE_POSITIVE: right_D,
        Kind.NOT_JUDGED: ~wrong_D,
        Kind.LOCALISATION: (own_D >= BACKGROUND) & (own_D <= FOREGROUND),
        Kind.CLASSIFICATION: other_D >= FOREGROUND,
        Kind.DUPLICATE: twice_D >= FOREGROUND,
        Kind.BACKGROUND: overlap_D <= BACKGROUND,
    }
    kind_D = np.select(list(ordered.values()), list(ordered), Kind.BOTH)
    box_D = match_D.copy()
    in_own = np.isin(kind_D, (Kind.LOCALISATION, Kind.DUPLICATE))
    box_D[in_own] = own_DG[in_own].argmax(1)
    in_other = kind_D == Kind.CLASSIFICATION
    box_D[in_other] = other_DG[in_other].argmax(1)

    fixable = np.flatnonzero(np.isin(kind_D, (Kind.LOCALISATION, Kind.CLASSIFICATION)))
    fixable = fixable[~found_G[box_D[fixable]]]
    reached, first = np.unique(box_D[fixable], return_index=True)  # the first is the best-scored
    best_D = np.zeros(len(kind_D), dtype=np.bool_)
    best_D[fixable[first]] = True

    judged_D = kind_D >= 0
    taken_D = _match(np.where(counts_G & judged_D[:, None], iou_DG, 0.0))
    out.kind[d], out.best[d], out.overlap[d] = kind_D, best_D, overlap_D
    out.box[d] = np.where(box_D >= 0, g[box_D], -1)
    out.taken[d] = np.where(taken_D >= 0, g[taken_D], -1)
    out.missed[g[found_G]] = False
    out.missed[g[reached]] = False


def _match(iou_DG: Floats, reusable_G: Bools | None = None) -> Ints:
    """The free box of highest IoU >= FOREGROUND of each detection in turn; -1 for none; the last of equals, as COCO."""
    rows, columns = np.nonzero(iou_DG >= FOREGROUND)
    order = np.lexsort((-columns, -iou_DG[rows, columns], rows))
    match_D = np.full(len(iou_DG), -1, dtype=np.int64)
    gone: set[int] = set()
    last = -1
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row == last or column in gone:
            continue
        match_D[row] = column
        last = row
        if reusable_G is None or not reusable_G[column]:
            gone.add(column)
    return match_D
