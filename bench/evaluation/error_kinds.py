"""Which errors cost AP50, by TIDE's kinds under LVIS' rules, per frequency group and instance bin.

Separate from `ap.py` because no job needs it: reports read it, and it enters no key. `judged.py` has the kinds.

Source: Bolya et al., "TIDE", ECCV 2020, section 2.3, and the released code (tidecv 1.0.1), which tests compare with.
What a kind costs is AP50 with all its errors fixed, less AP50:

- classification, localisation: a box that nobody has found takes the best-scored error of the two kinds together that
  lies on it. If that one is of the kind in question, it becomes a true positive of the box's class; all other errors of
  the kind go away;
- both, duplicate, background: the errors go away;
- missed: the missed boxes are taken off the number to be found;
- false positives: all that are wrong go away. False negatives: all boxes not found are taken off.

Costs do not add up to 1 - AP50.

DEVIATION: tidecv means over classes that have a detection or a box left; here over those with a box before the fix, as
AP does. It matters for a class of which nothing is found. With its boxes taken off nothing is left to measure: tidecv
leaves the class out, so that the mean of the others passes for a gain, or counts it as 0 if a detection of it is left.
Here it stays at 0: precision on missed boxes is taken to be that on the boxes found, and none was. `classes_unfound`
says of how many classes this holds.
DEVIATION: tidecv shows a negative cost as 0. Small ones come from the 101 recall points; here they stay, so that the
cost over all classes is the mean of the bins' costs weighted by their classes.

Shape legend: N detections as given, G boxes of the lean ground truth, K classes by ascending id, B instance bins, M
detections that can be judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.ap import DetectedBoxes, Floats, Ints, check, lean_ground_truth, training_instances
from bench.evaluation.judged import FOREGROUND, Bools, Found, Judged, Kind, Truth, found_of, judge, truth_of
from bench.evaluation.matches import RECALLS
from bench.frequency import instance_bin

FREQUENCIES = ("r", "c", "f")
# Of detections, in the order of the fields of Counts and Costs.
ERRORS = (Kind.CLASSIFICATION, Kind.LOCALISATION, Kind.BOTH, Kind.DUPLICATE, Kind.BACKGROUND)


@dataclass(frozen=True)
class Counts:
    """How many errors of each kind.

    An error counts for the class of the box that it concerns: the true class of a classification error, the missed
    box's class; localisation errors and duplicates have the class of their box. Background and both concern no box and
    count for the detection's own class. So each error is of one class, bins add up to all classes, and r + c + f too
    where every category has a `frequency`.

    The last three divide classification by the bins of the detection's and of the box's class.
    """

    classification: int
    localisation: int
    both: int
    duplicate: int
    background: int
    missed: int
    to_same_bin: int
    to_more_frequent: int
    to_rarer: int


@dataclass(frozen=True)
class Costs:
    """AP50 that each kind costs, as a fraction; the mean over a group's classes with ground truth, None without any.

    Unlike in counts, a classification error is felt twice: in recall of the box's class and in precision of the
    detection's class, each in its own group.
    """

    classification: float | None
    localisation: float | None
    both: float | None
    duplicate: float | None
    background: float | None
    missed: float | None
    false_positives: float | None
    false_negatives: float | None


@dataclass(frozen=True)
class Group:
    """The errors of a group of classes.

    Attributes:
        classes: with ground truth that counts. classes_unfound: those of which no box was found (AP50 is 0, and neither
            missed boxes nor false negatives cost anything).
        boxes: that count. found: by a detection of their class.
        ap50: as a fraction, as of `ap.evaluate_boxes`; None without classes.
    """

    classes: int
    classes_unfound: int
    boxes: int
    found: int
    ap50: float | None
    counts: Counts
    costs: Costs


@dataclass(frozen=True, eq=False)
class ErrorKinds:
    """Errors of a split.

    Attributes:
        overall: over all classes. frequencies: by `frequency` of the category ("r", "c", "f"). bins: by bin of training
            instances.
        confusion: int64 (B + 1) x (B + 1). What the objects of each bin are taken for: row, bin of a box; column, bin
            of its best judged detection of any class at IoU >= 0.5. Detections take boxes by falling score, each the
            free one that it overlaps most. Last column: boxes without such a detection. Last row: judged detections at
            IoU < 0.5 with every box. A further detection on boxes that are taken stands nowhere, so a row adds up to
            the bin's boxes. The last cell has no meaning and is 0.
        right_class: int64 B, how many of the diagonal have the very class of their box.
        kind: int8 N, a `Kind` for each detection, in the order given.
        box: int64 N, the box that a detection has found or that its error concerns, as a row of
            `lean_ground_truth(gt)["annotations"]`; -1 for none.
        missed: bool, for each of those rows. A box that does not count (crowd, ignore) is never missed.
    """

    overall: Group
    frequencies: Mapping[str, Group]
    bins: tuple[Group, ...]
    confusion: Ints
    right_class: Ints
    kind: NDArray[np.int8]
    box: Ints
    missed: Bools


def error_kinds(
    gt: Mapping[str, Any],
    detections: DetectedBoxes,
    edges: Sequence[int] = (10, 100, 1000),
    max_detections: int = 300,
    instance_counts: Mapping[int, int] | None = None,
) -> ErrorKinds:
    """The kinds of errors, and what each costs. Arguments and errors as of `ap.evaluate_boxes`.

    Args:
        gt: LVIS-form annotations, or the result of `ap.lean_ground_truth`, which is its own lean form; not changed.

    Raises:
        UserError: ground truth that is not in LVIS form, or a category without a count of training instances;
            detections of unknown images or that are not finite.
    """
    lean = lean_ground_truth(gt)
    check(lean, detections)
    categories = sorted(lean["categories"], key=lambda c: int(c["id"]))
    bin_K = instance_bin(training_instances(categories, instance_counts), edges)
    truth, found = truth_of(lean), found_of(lean, detections, max_detections)
    judged = judge(found, truth)
    table = _Table.of(found, truth, judged, bin_K)
    frequency_K = np.array([c.get("frequency", "") for c in categories], dtype=object)
    confusion, right_class = _confusion(found, truth, judged, bin_K, len(edges) + 1)
    kind, box = np.full(len(detections), Kind.NOT_JUDGED, np.int8), np.full(len(detections), -1, np.int64)
    kind[found.row], box[found.row] = judged.kind, judged.box
    return ErrorKinds(
        overall=table.group(np.ones(len(bin_K), dtype=np.bool_)),
        frequencies={name: table.group(frequency_K == name) for name in FREQUENCIES},
        bins=tuple(table.group(bin_K == i) for i in range(len(edges) + 1)),
        confusion=confusion,
        right_class=right_class,
        kind=kind,
        box=box,
        missed=judged.missed,
    )


@dataclass(frozen=True, eq=False)
class _Table:
    """By class, K rows: boxes that count, those found, AP50 (0 without boxes), the fields of Counts, those of Costs."""

    boxes: Ints
    found: Ints
    ap50: Floats
    counts: Ints
    costs: Floats

    @classmethod
    def of(cls, found: Found, truth: Truth, judged: Judged, bin_K: Ints) -> _Table:
        K = len(bin_K)
        order = np.argsort(found.rank)
        order = order[judged.kind[order] >= 0]
        label, kind = found.label[order], judged.kind[order]
        box, best = judged.box[order], judged.best[order]
        right, true_label = kind == Kind.TRUE_POSITIVE, label.copy()
        true_label[box >= 0] = truth.label[box[box >= 0]]
        boxes_K = np.bincount(truth.label[truth.counts], minlength=K)
        missed_K = np.bincount(truth.label[judged.missed], minlength=K)
        found_K = np.bincount(label[right], minlength=K)
        per_kind = [np.bincount(true_label[kind == k], minlength=K) for k in ERRORS]
        wrong, step = kind == Kind.CLASSIFICATION, np.sign(bin_K[label] - bin_K[true_label])
        divided = [np.bincount(true_label[wrong & (step == s)], minlength=K) for s in (0, 1, -1)]

        def fixed(error: Kind) -> Floats:
            of_kind, stays = kind == error, (kind != error) | best
            return _average_precision(np.where(of_kind, true_label, label)[stays], (right | of_kind)[stays], boxes_K)

        ap50_K = _average_precision(label, right, boxes_K)
        after = [
            *(fixed(error) for error in ERRORS),
            _average_precision(label, right, boxes_K - missed_K),
            _average_precision(label[right], right[right], boxes_K),
            _average_precision(label, right, found_K),
        ]
        return cls(
            boxes=boxes_K,
            found=found_K,
            ap50=ap50_K,
            counts=np.stack([*per_kind, missed_K, *divided], axis=1),
            costs=np.stack(after, axis=1) - ap50_K[:, None],
        )

    def group(self, chosen_K: Bools) -> Group:
        """The classes where `chosen_K`."""
        present = chosen_K & (self.boxes > 0)
        some = bool(present.any())
        return Group(
            classes=int(present.sum()),
            classes_unfound=int((present & (self.found == 0)).sum()),
            boxes=int(self.boxes[chosen_K].sum()),
            found=int(self.found[chosen_K].sum()),
            ap50=float(self.ap50[present].mean()) if some else None,
            counts=Counts(*self.counts[chosen_K].sum(0).tolist()),
            costs=Costs(*(self.costs[present].mean(0).tolist() if some else [None] * self.costs.shape[1])),
        )


def _average_precision(label_M: Ints, right_M: Bools, boxes_K: Ints) -> Floats:
    """AP of each class at one IoU: COCO's mean over 101 recall points of the precision's envelope; 0 without boxes.

    The envelope is highest at true positives, so only these are looked at. `label_M` and `right_M` by falling score.
    """
    order = np.argsort(label_M, kind="stable")
    label, right = label_M[order], right_M[order]
    start_K = np.searchsorted(label, np.arange(len(boxes_K)))
    at = np.flatnonzero(right)
    place, owner = at - start_K[label[at]] + 1, label[at]  # its place among the detections of its class, from 1
    ap_K, cut_K = np.zeros(len(boxes_K)), np.searchsorted(owner, np.arange(len(boxes_K) + 1))
    for k in np.unique(owner).tolist():
        places = place[cut_K[k] : cut_K[k + 1]]
        hits = np.arange(1, len(places) + 1)
        envelope = np.maximum.accumulate((hits / places)[::-1])[::-1]
        reached = np.searchsorted(hits / boxes_K[k], RECALLS)
        ap_K[k] = envelope[reached[reached < len(places)]].sum() / len(RECALLS)
    return ap_K


def _confusion(found: Found, truth: Truth, judged: Judged, bin_K: Ints, bins: int) -> tuple[Ints, Ints]:
    """`ErrorKinds.confusion` and `right_class`."""
    confusion = np.zeros((bins + 1, bins + 1), dtype=np.int64)
    on = np.flatnonzero(judged.taken >= 0)
    box = judged.taken[on]
    np.add.at(confusion, (bin_K[truth.label[box]], bin_K[found.label[on]]), 1)
    free = truth.counts.copy()
    free[box] = False
    confusion[:bins, bins] = np.bincount(bin_K[truth.label[free]], minlength=bins)
    alone = (judged.kind >= 0) & (judged.overlap < FOREGROUND)
    confusion[bins, :bins] = np.bincount(bin_K[found.label[alone]], minlength=bins)
    right = found.label[on] == truth.label[box]
    return confusion, np.bincount(bin_K[truth.label[box[right]]], minlength=bins)
