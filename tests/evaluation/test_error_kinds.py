"""Kinds of errors by hand, under LVIS' rules, and what they cost by the evaluator of AP on inputs that are put right.

The comparison with TIDE's own code is in test_error_kinds_tide.py.
"""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from federated import boxes_of, federated

from bench.errors import UserError
from bench.evaluation.ap import DetectedBoxes, evaluate_boxes, lean_ground_truth
from bench.evaluation.error_kinds import Costs, Counts, ErrorKinds, error_kinds
from bench.evaluation.judged import Kind

A, B, C, D = ([x, 0.0, 100.0, 100.0] for x in (0.0, 200.0, 400.0, 600.0))
NOWHERE = [0.0, 500.0, 50.0, 50.0]
# Class -> training instances and frequency: bins 0, 1, 1, 3 of (10, 100, 1000).
CLASSES = {1: (9, "r"), 2: (10, "c"), 3: (99, "c"), 4: (1000, "f")}


def beside(box: list[float], by: float) -> list[float]:
    """The box moved to the right: IoU (100 - by) / (100 + by) with it."""
    return [box[0] + by, *box[1:]]


def scene(*boxes: tuple[int, list[float]], partial: tuple[int, ...] = (), negative: tuple[int, ...] = (1, 2, 3, 4)):  # type: ignore[no-untyped-def]
    """One image with boxes (class, xywh); `negative` are listed as absent where they are not shown."""
    shown = {label for label, _ in boxes}
    image = {
        "id": 7,
        "neg_category_ids": [c for c in negative if c not in shown],
        "not_exhaustive_category_ids": list(partial),
    }
    return {
        "images": [image],
        "categories": [{"id": c, "instance_count": n, "frequency": f} for c, (n, f) in CLASSES.items()],
        "annotations": [{"image_id": 7, "category_id": label, "bbox": box} for label, box in boxes],
    }


def found(*rows: tuple[int, list[float], float]) -> DetectedBoxes:
    return boxes_of([(7, label, box, score) for label, box, score in rows])


def kinds(result: ErrorKinds) -> list[str]:
    return [Kind(k).name for k in result.kind.tolist()]


def test_each_kind_once() -> None:
    """Class 1: found, twice found, moved: precision 1 up to recall 1/2, 51 of 101 points. Classes 2, 3: nothing found.

    Right: class 2 gets its box from class 3 (AP 1); class 1 gets its second box at precision 2/3, for 50 points. A box
    less to find of class 1 gives AP 1. Class 4 has no box and no AP.
    """
    gt = scene((1, A), (1, B), (2, C), (3, D))
    result = error_kinds(
        gt,
        found(
            (1, A, 0.9), (1, beside(A, 20), 0.8), (1, beside(B, 50), 0.7), (3, C, 0.6), (4, beside(D, 50), 0.5),
            (2, NOWHERE, 0.4),
        ),
    )  # fmt: skip
    assert kinds(result) == [
        "TRUE_POSITIVE", "DUPLICATE", "LOCALISATION", "CLASSIFICATION", "BOTH", "BACKGROUND",
    ]  # fmt: skip
    assert result.box.tolist() == [0, 0, 1, 2, -1, -1]
    assert result.missed.tolist() == [False, False, False, True]
    assert result.overall.counts == Counts(1, 1, 1, 1, 1, 1, to_same_bin=1, to_more_frequent=0, to_rarer=0)
    assert result.overall.ap50 == pytest.approx(51 / 101 / 3)
    assert astuple(result.overall.costs) == pytest.approx((1 / 3, 50 * 2 / 3 / 101 / 3, 0, 0, 0, 0, 0, 50 / 101 / 3))
    rare, common, frequent = (result.frequencies[name] for name in "rcf")
    assert rare.counts == Counts(0, 1, 0, 1, 0, 0, 0, 0, 0)
    assert common.counts == Counts(1, 0, 0, 0, 1, 1, 1, 0, 0)
    assert frequent.counts == Counts(0, 0, 1, 0, 0, 0, 0, 0, 0)
    assert [group.ap50 for group in (rare, common, frequent)] == [pytest.approx(51 / 101), 0.0, None]
    assert frequent.costs == Costs(*[None] * 8)
    assert [(g.classes, g.classes_unfound, g.boxes, g.found) for g in result.bins] == [
        (1, 0, 2, 1), (2, 2, 2, 0), (0, 0, 0, 0), (0, 0, 0, 0),
    ]  # fmt: skip
    assert result.bins[3].counts == frequent.counts


@pytest.mark.parametrize(
    ("name", "boxes", "rows", "expected"),
    [
        ("duplicate", [(1, A), (1, B)], [(1, A, 0.9), (1, beside(A, 20), 0.8), (1, B, 0.7)], 50 / 3 / 101),
        ("background", [(1, A)], [(1, NOWHERE, 0.9), (1, A, 0.8)], 1 / 2),
        ("false_positives", [(1, A)], [(1, NOWHERE, 0.9), (1, A, 0.8)], 1 / 2),
        ("both", [(1, A), (2, C)], [(1, beside(C, 50), 0.9), (1, A, 0.8)], 1 / 4),
        ("missed", [(1, A), (1, B)], [(1, A, 0.9)], 50 / 101),
        ("false_negatives", [(1, A), (1, B)], [(1, A, 0.9), (1, beside(B, 50), 0.8)], 50 / 101),
        ("localisation", [(1, A)], [(1, beside(A, 50), 0.9)], 1.0),
        ("localisation", [(1, A)], [(1, beside(A, 50), 0.9), (1, A, 0.8)], 1 / 2),
        ("classification", [(1, A)], [(2, A, 0.9)], 1.0),
    ],
)
def test_what_each_kind_costs(name: str, boxes: list[Any], rows: list[Any], expected: float) -> None:
    assert getattr(error_kinds(scene(*boxes), found(*rows)).overall.costs, name) == pytest.approx(expected)


def test_a_confusion_is_of_the_true_class_and_costs_both() -> None:
    """A box of class 2 taken for class 4, whose own box comes second: precision 1/2 there, nothing found here."""
    result = error_kinds(scene((2, A), (4, B)), found((4, A, 0.9), (4, B, 0.8)))
    assert [group.counts.classification for group in result.bins] == [0, 1, 0, 0]
    assert [group.costs.classification for group in result.bins] == [None, 1.0, None, 0.5]
    assert result.overall.costs.classification == 0.75
    assert result.overall.counts.to_more_frequent == result.frequencies["c"].counts.to_more_frequent == 1


@pytest.mark.parametrize(
    ("true", "taken_for", "way"), [(2, 3, 0), (3, 2, 0), (3, 4, 1), (3, 1, 2), (4, 3, 2), (1, 2, 1)]
)
def test_which_way_a_confusion_goes(true: int, taken_for: int, way: int) -> None:
    counts = error_kinds(scene((true, A)), found((taken_for, A, 0.5))).overall.counts
    expected = [0, 0, 0]
    expected[way] = 1
    assert [counts.to_same_bin, counts.to_more_frequent, counts.to_rarer] == expected


def test_a_box_takes_one_error_only() -> None:
    """A moved and a confused detection lie on A, which takes the better one: to put the other right adds no recall."""
    gt = scene((1, A))
    moved, confused = (1, beside(A, 50)), (2, A)
    costs = error_kinds(gt, found((*moved, 0.9), (*confused, 0.8))).overall.costs
    assert (costs.localisation, costs.classification) == (1.0, 0.0)
    costs = error_kinds(gt, found((*moved, 0.8), (*confused, 0.9))).overall.costs
    assert (costs.localisation, costs.classification) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("by", "kind"),
    [(0, "TRUE_POSITIVE"), (30, "TRUE_POSITIVE"), (50, "LOCALISATION"), (80, "LOCALISATION"), (90, "BACKGROUND")],
)
def test_thresholds(by: float, kind: str) -> None:
    """IoU 1, 0.54, 0.33, 0.11, 0.05; of another class the first two are confusions, the next two are both."""
    assert kinds(error_kinds(scene((1, A)), found((1, beside(A, by), 0.5)))) == [kind]
    other = {"TRUE_POSITIVE": "CLASSIFICATION", "LOCALISATION": "BOTH", "BACKGROUND": "BACKGROUND"}[kind]
    assert kinds(error_kinds(scene((1, A)), found((2, beside(A, by), 0.5)))) == [other]


@pytest.mark.parametrize(
    ("label", "width", "before", "kind"),
    [
        (1, 50.0, [], "TRUE_POSITIVE"),
        (1, 50.0, [(1, A, 0.9)], "LOCALISATION"),  # the box is found; for TIDE it is no duplicate
        (2, 50.0, [], "CLASSIFICATION"),
        (1, 10.0, [], "LOCALISATION"),
        (2, 10.0, [], "BACKGROUND"),
    ],
)
def test_iou_of_exactly_a_half_and_a_tenth(label: int, width: float, before: list[Any], kind: str) -> None:
    rows = [*before, (label, [*A[:2], width, 100.0], 0.5)]
    assert kinds(error_kinds(scene((1, A)), found(*rows)))[-1] == kind


@pytest.mark.parametrize("first", [0, 1])
def test_of_boxes_that_overlap_equally_the_last_is_found(first: int) -> None:
    """As in COCO. A detection lies half-way between two boxes, the next one lies on A: right, unless A is gone."""
    boxes = [(1, A), (1, beside(A, 40))]
    gt = scene(boxes[first], boxes[1 - first])
    rows = found((1, beside(A, 20), 0.9), (1, A, 0.8))
    result = error_kinds(gt, rows)
    assert kinds(result)[1] == ("TRUE_POSITIVE", "DUPLICATE")[first]
    assert result.overall.ap50 == pytest.approx((1.0, 51 / 101)[first])
    assert evaluate_boxes(gt, rows).ap50 == pytest.approx(result.overall.ap50)


# -- LVIS' rules


def test_an_unlisted_class_is_not_judged_and_its_box_is_missed() -> None:
    rows = found((2, A, 0.9), (2, NOWHERE, 0.8), (2, beside(A, 50), 0.7))
    unlisted, listed = error_kinds(scene((1, A), negative=()), rows), error_kinds(scene((1, A), negative=(2,)), rows)
    assert kinds(unlisted) == ["NOT_JUDGED"] * 3
    assert unlisted.overall.counts == Counts(0, 0, 0, 0, 0, 1, 0, 0, 0)
    assert unlisted.confusion[0].tolist() == [0, 0, 0, 0, 1]
    assert kinds(listed) == ["CLASSIFICATION", "BACKGROUND", "BOTH"]
    assert listed.overall.counts == Counts(1, 0, 1, 0, 1, 0, 0, 1, 0)
    assert listed.confusion[0].tolist() == [0, 1, 0, 0, 0]


def test_a_class_that_is_not_exhaustive() -> None:
    """Matched it counts; unmatched it may be right about something without a box."""
    rows = found((1, A, 0.9), (1, beside(A, 20), 0.8), (1, beside(B, 50), 0.7), (1, NOWHERE, 0.6), (2, NOWHERE, 0.5))
    result = error_kinds(scene((1, A), (1, B), partial=(1,)), rows)
    assert kinds(result) == ["TRUE_POSITIVE", "NOT_JUDGED", "NOT_JUDGED", "NOT_JUDGED", "BACKGROUND"]
    assert result.missed.tolist() == [False, True]
    assert error_kinds(scene(partial=(1,)), found((1, A, 0.9))).kind.tolist() == [Kind.NOT_JUDGED]
    beneath = error_kinds(scene((1, A), (2, C), partial=(2,)), found((2, A, 0.9)))
    assert beneath.kind.tolist() == [Kind.NOT_JUDGED]
    assert beneath.confusion[0].tolist() == [0, 0, 0, 0, 1]


def test_crowd_and_ignored_boxes() -> None:
    """A crowd box takes all that lies in it, an ignored one a single match; to other classes they are background."""
    gt = scene((1, A), (1, B), (1, C))
    gt["annotations"][1]["iscrowd"], gt["annotations"][2]["ignore"] = 1, 1
    small = [210.0, 10.0, 20.0, 20.0]
    rows = [(1, A, 0.9), (1, small, 0.8), (1, B, 0.7), (1, C, 0.6), (1, beside(C, 20), 0.5), (2, B, 0.4), (2, C, 0.3)]
    result = error_kinds(gt, found(*rows))
    assert kinds(result) == ["TRUE_POSITIVE", *["NOT_JUDGED"] * 3, *["BACKGROUND"] * 3]
    assert result.overall.ap50 == evaluate_boxes(gt, found(*rows)).ap50 == 1.0
    assert (result.overall.boxes, result.overall.counts.missed) == (1, 0)
    assert error_kinds(gt, found()).missed.tolist() == [True, False, False]


def test_equal_scores_go_in_the_given_order() -> None:
    exact, moved = (1, A, 0.5), (1, beside(A, 20), 0.5)
    assert kinds(error_kinds(scene((1, A)), found(exact, moved))) == ["TRUE_POSITIVE", "DUPLICATE"]
    assert kinds(error_kinds(scene((1, A)), found(moved, exact))) == ["TRUE_POSITIVE", "DUPLICATE"]
    far, confused = (1, beside(A, 50), 0.5), (2, A, 0.5)
    assert error_kinds(scene((1, A)), found(far, confused)).overall.costs.localisation == 1.0
    assert error_kinds(scene((1, A)), found(confused, far)).overall.costs.localisation == 0.0


def test_what_is_cut_is_not_judged() -> None:
    """Over all classes of the image; codes stay in the order given. Neither is what has no area or an unknown class."""
    rows = found((2, NOWHERE, 0.1), (1, A, 0.9), (1, [0.0, 0.0, 0.0, 9.0], 0.8), (5, A, 0.7), (2, NOWHERE, 0.6))
    assert kinds(error_kinds(scene((1, A)), rows, max_detections=4)) == [
        "NOT_JUDGED", "TRUE_POSITIVE", "NOT_JUDGED", "NOT_JUDGED", "BACKGROUND",
    ]  # fmt: skip


# -- the matrix


def test_confusion_between_bins() -> None:
    """A is found after a surer detection took it for class 4. B is found by two. C is taken for the other class of its
    bin. D has none on it, and two detections lie on nothing: one is far away, the other too far from D."""
    gt = scene((1, A), (2, B), (2, C), (4, D))
    rows = found(
        (4, A, 0.9), (1, A, 0.8), (2, beside(B, 20), 0.7), (2, B, 0.6), (3, C, 0.5), (1, NOWHERE, 0.4),
        (4, beside(D, 50), 0.3),
    )  # fmt: skip
    result = error_kinds(gt, rows)
    assert result.confusion.tolist() == [
        [0, 0, 0, 1, 0], [0, 2, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [1, 0, 0, 1, 0],
    ]  # fmt: skip
    assert result.right_class.tolist() == [0, 1, 0, 0]


# -- nothing there


def test_no_detections() -> None:
    result = error_kinds(scene((1, A), (2, B)), found())
    assert result.overall.counts == Counts(0, 0, 0, 0, 0, 2, 0, 0, 0)
    assert (result.overall.ap50, result.overall.classes_unfound) == (0.0, 2)
    assert set(astuple(result.overall.costs)) == {0.0}
    assert (len(result.kind), len(result.box), result.missed.tolist()) == (0, 0, [True, True])


def test_no_ground_truth() -> None:
    result = error_kinds(scene(negative=(1,)), found((1, A, 0.9), (2, A, 0.8)))
    assert kinds(result) == ["BACKGROUND", "NOT_JUDGED"]
    assert result.overall.counts == Counts(0, 0, 0, 0, 1, 0, 0, 0, 0)
    assert result.overall.ap50 is None
    assert result.overall.costs == Costs(*[None] * 8)
    assert error_kinds(scene(), found()).overall.counts == Counts(*[0] * 9)


def test_rows_are_those_of_the_lean_ground_truth() -> None:
    """Without a box of no area, one of an unknown class; one of an image that is not listed is never missed."""
    gt = scene((1, [0.0, 0.0, 0.0, 5.0]), (9, A), (1, B), (1, C))
    gt["annotations"][3]["image_id"] = 8
    before = copy.deepcopy(gt)
    whole, lean = error_kinds(gt, found((1, B, 0.9))), error_kinds(lean_ground_truth(gt), found((1, B, 0.9)))
    assert gt == before
    assert whole.missed.tolist() == lean.missed.tolist() == [False, False]
    assert whole.box.tolist() == lean.box.tolist() == [0]
    assert whole.overall.boxes == 1


def test_given_counts_and_edges() -> None:
    result = error_kinds(scene((1, A)), found((2, A, 0.9)), edges=(50,), instance_counts={1: 50, 2: 49, 3: 0, 4: 0})
    assert [group.counts.to_rarer for group in result.bins] == [0, 1]
    assert result.confusion.shape == (3, 3)


def test_bad_input_is_named() -> None:
    gt = scene((1, A))
    with pytest.raises(UserError, match="id 9"):
        error_kinds(gt, boxes_of([(9, 1, [0, 0, 1, 1], 0.5)]))
    with pytest.raises(UserError, match="not finite"):
        error_kinds(gt, found((1, A, math.nan)))
    with pytest.raises(UserError, match="training instances"):
        error_kinds({**gt, "categories": [{"id": 1}]}, found())
    with pytest.raises(UserError, match="LVIS form"):
        error_kinds({**gt, "images": [{"id": 7}]}, found())


def test_needs_numpy_only() -> None:
    script = """
import sys
import bench.evaluation.error_kinds
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"torch", "pandas", "scipy", "tidecv", "cv2", "faster_coco_eval", "pycocotools"}))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, "[]"), ended.stderr


# -- random federated data, against the evaluator of AP


def random_data(seed: int) -> tuple[dict[str, Any], DetectedBoxes]:
    """Federated data with crowd and ignored boxes, each image under the cap."""
    rng = np.random.default_rng(seed)
    gt, rows = federated(
        rng, images=int(rng.integers(2, 14)), classes=int(rng.integers(2, 9)), detections=int(rng.integers(5, 40)),
        levels=int(rng.choice([3, 20, 10_000])),
    )  # fmt: skip
    for a in gt["annotations"]:
        draw = rng.random()
        if draw < 0.2:
            a["iscrowd" if draw < 0.1 else "ignore"] = 1
    return gt, rows


def put_right(name: str, lean: dict[str, Any], rows: DetectedBoxes, result: ErrorKinds) -> tuple[Any, DetectedBoxes]:
    """Ground truth and detections without the errors of a kind, from what is said about single ones."""
    kind, box, truth = result.kind, result.box, lean["annotations"]
    hit = set(box[kind == Kind.TRUE_POSITIVE].tolist())
    if name in ("missed", "false_negatives"):
        counted = [not (a["iscrowd"] or a.get("ignore")) for a in truth]
        gone = [result.missed[i] if name == "missed" else counted[i] and i not in hit for i in range(len(truth))]
        left = [a for a, away in zip(truth, gone, strict=True) if not away]
        images = []
        for image in lean["images"]:  # a class whose last box went is judged as before
            shown = {a["category_id"] for a in truth if a["image_id"] == image["id"]}
            images.append({**image, "neg_category_ids": [*image["neg_category_ids"], *shown]})
        return {**lean, "images": images, "annotations": left}, rows
    if name == "false_positives":
        return lean, rows[kind <= 0]
    error = Kind[name.upper()]
    label, xywh, stays = rows.category_id.copy(), rows.xywh.copy(), kind != error
    if error in (Kind.CLASSIFICATION, Kind.LOCALISATION):
        taken: set[int] = set()
        for i in np.argsort(-rows.score, kind="stable").tolist():
            if kind[i] in (Kind.CLASSIFICATION, Kind.LOCALISATION) and box[i] not in hit | taken:
                taken.add(box[i])
                if kind[i] == error:
                    label[i], xywh[i], stays[i] = truth[box[i]]["category_id"], truth[box[i]]["bbox"], True
    return lean, replace(rows, category_id=label, xywh=xywh)[stays]


@pytest.mark.parametrize("seed", range(20))
def test_costs_equal_the_evaluators_on_inputs_put_right(seed: int) -> None:
    """Whatever the rules: an evaluator that knows nothing of kinds sees AP50 rise by what the kind is said to cost."""
    gt, rows = random_data(seed)
    lean, result = lean_ground_truth(gt), error_kinds(gt, rows)
    before = evaluate_boxes(lean, rows)
    frequency = np.array([c["frequency"] for c in sorted(gt["categories"], key=lambda c: c["id"])])
    bins = np.digitize(before.instance_counts, (10, 100, 1000))
    chosen = [(result.overall, bins >= 0), *((result.frequencies[f], frequency == f) for f in "rcf")]
    chosen += [(group, bins == i) for i, group in enumerate(result.bins)]
    present = ~np.isnan(before.per_class50)
    for name in vars(result.overall.costs):
        after = evaluate_boxes(*put_right(name, lean, rows, result))
        change = np.nan_to_num(after.per_class50) - before.per_class50  # without boxes left: 0, as before
        for group, where in chosen:
            assert group.classes == (where & present).sum()
            if group.classes:
                assert group.ap50 == pytest.approx(before.per_class50[where & present].mean(), abs=1e-12)
                assert getattr(group.costs, name) == pytest.approx(change[where & present].mean(), abs=1e-12), name
            else:
                assert (group.ap50, getattr(group.costs, name)) == (None, None)


@pytest.mark.parametrize("seed", range(20, 40))
def test_groups_add_up(seed: int) -> None:
    gt, rows = random_data(seed)
    result = error_kinds(gt, rows)
    overall = np.array(astuple(result.overall.counts))
    for groups in (result.bins, tuple(result.frequencies.values())):
        np.testing.assert_array_equal(np.sum([astuple(group.counts) for group in groups], axis=0), overall)
        for name in ("classes", "classes_unfound", "boxes", "found"):
            assert sum(getattr(group, name) for group in groups) == getattr(result.overall, name)
    of_detections = [int((result.kind == k).sum()) for k in range(1, 6)]
    assert overall[:6].tolist() == [*of_detections, int(result.missed.sum())]
    assert overall[6:].sum() == result.overall.counts.classification
    np.testing.assert_array_equal(result.confusion[:-1].sum(1), [group.boxes for group in result.bins])
    assert (result.right_class <= np.diag(result.confusion)[:-1]).all()
    weights = [group.classes for group in result.bins if group.classes]
    for name, value in vars(result.overall.costs).items():
        parts = [getattr(group.costs, name) for group in result.bins if group.classes]
        assert value == (pytest.approx(np.average(parts, weights=weights), abs=1e-12) if weights else None)
