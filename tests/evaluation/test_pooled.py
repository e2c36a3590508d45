"""AP-pool and AP-fixed: by hand, by a loop, and by the official evaluator on images that are cut up by class."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from federated import boxes_of, federated
from test_recall import groups_of

from bench.evaluation.ap import DetectedBoxes, evaluate_boxes, lean_ground_truth
from bench.evaluation.matches import THRESHOLDS, Bools, Matches, match_boxes
from bench.evaluation.official import precisions as official_precisions
from bench.evaluation.pooled import Pooled, best_of_each_class, match_by_class, pooled

A, B = [0.0, 0.0, 100.0, 100.0], [200.0, 0.0, 100.0, 100.0]
NOWHERE = [0.0, 500.0, 50.0, 50.0]


def scene() -> dict[str, Any]:
    """Class 1 (rare) is A, class 2 (common) is B."""
    return {
        "images": [{"id": 7, "neg_category_ids": [], "not_exhaustive_category_ids": []}],
        "categories": [
            {"id": 1, "instance_count": 5, "frequency": "r"},
            {"id": 2, "instance_count": 50, "frequency": "c"},
        ],
        "annotations": [{"image_id": 7, "category_id": k, "bbox": box} for k, box in ((1, A), (2, B))],
    }


def of(gt: dict[str, Any], found: DetectedBoxes, **more: int) -> dict[str, Pooled]:
    return pooled(match_by_class(lean_ground_truth(gt), found, **more), groups_of(gt))


@pytest.mark.parametrize(("wrong", "expected"), [(0.3, 1.0), (0.5, (51 + 50 * 2 / 3) / 101)])
def test_scores_of_classes_are_compared(wrong: float, expected: float) -> None:
    """Class 1 is right at 0.4 with nothing before it in its class; class 2 at 0.9, and wrong at 0.3 or 0.5. Per class
    AP is 1 either way. One curve: right, right; or right, wrong, right, precision 2/3 for the 50 recalls above 1/2."""
    found = of(scene(), boxes_of([(7, 1, A, 0.4), (7, 2, B, 0.9), (7, 2, NOWHERE, wrong)]))
    assert found["AP"] == Pooled(pytest.approx(expected), pytest.approx(1.0), 2)
    assert found["AP1"] == found["APr"] == Pooled(pytest.approx(1.0), pytest.approx(1.0), 1)
    assert found["AP3"] == Pooled(None, None, 0)


def test_the_best_of_a_class_whatever_the_image_shows() -> None:
    """300 better detections of class 2 crowd out that of class 1 by the protocol, and do not here."""
    rows = [(7, 2, NOWHERE, 0.9)] * 300 + [(7, 1, A, 0.1)]
    assert evaluate_boxes(scene(), boxes_of(rows)).apr == 0.0
    assert of(scene(), boxes_of(rows))["APr"].fixed == pytest.approx(1.0)


def test_more_of_a_class_than_the_limit() -> None:
    rows = [(7, 1, NOWHERE, 0.9), (7, 1, A, 0.8), (7, 2, B, 0.1)]
    found = of(scene(), boxes_of(rows), per_class=1)
    assert (found["AP1"].fixed, found["AP2"].fixed) == (0.0, pytest.approx(1.0))


def test_equal_scores_at_the_limit_and_the_order_given() -> None:
    rows = [(7, 1, A, 0.5), (7, 2, B, 0.1), (7, 1, B, 0.9), (7, 1, NOWHERE, 0.5)]
    kept = best_of_each_class(boxes_of(rows), 2)
    assert kept.score.tolist() == [0.5, 0.1, 0.9]
    np.testing.assert_array_equal(kept.xywh[0], A)


def by_loop(matches: Matches, chosen: Bools) -> float:
    """One curve of the chosen classes, detection by detection; scores must differ."""
    rows = sorted(
        (n for n in range(len(matches.score)) if chosen[matches.category[n]]), key=lambda n: -matches.score[n]
    )
    boxes = sum(bool(chosen[k]) for k in matches.truth_category)
    total = 0.0
    for t in range(len(THRESHOLDS)):
        points, true, false = [], 0, 0
        for n in rows:
            if matches.counted[t, n]:
                true, false = true + bool(matches.true[t, n]), false + (not matches.true[t, n])
                points.append((true / boxes, true / (true + false)))
        for recall in np.linspace(0, 1, 101):
            total += max([p for r, p in points if r >= recall], default=0.0)
    return total / 1010


@pytest.mark.parametrize("seed", range(4))
def test_random_data_against_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gt, boxes = federated(rng, 20, 7, 15)
    boxes = DetectedBoxes(
        boxes.image_id, boxes.category_id, boxes.xywh, rng.permutation(np.linspace(0.01, 1, len(boxes)))
    )
    lean = lean_ground_truth(gt)
    matches, groups, found = match_boxes(lean, boxes, 10_000), groups_of(gt), of(gt, boxes)
    for name, chosen in groups.items():
        if found[name].boxes:
            assert found[name].pool == pytest.approx(by_loop(matches, chosen), abs=1e-9)
        else:
            assert found[name].pool is None


def cut_up(gt: dict[str, Any], found: DetectedBoxes, own: list[int]) -> tuple[dict[str, Any], DetectedBoxes]:
    """Each image once for each class, with what there is of this class, all under one class."""
    span = 1000
    images = [
        {
            "id": image["id"] * span + k,
            "neg_category_ids": [1] if k in image["neg_category_ids"] else [],
            "not_exhaustive_category_ids": [1] if k in image["not_exhaustive_category_ids"] else [],
        }
        for image in gt["images"]
        for k in own
    ]
    annotations = [
        a | {"image_id": a["image_id"] * span + a["category_id"], "category_id": 1}
        for a in gt["annotations"]
        if a["category_id"] in own
    ]
    found = found[np.isin(found.category_id, own)]
    one = {"id": 1, "instance_count": 1, "frequency": "r"}
    cut = DetectedBoxes(
        found.image_id * span + found.category_id, np.ones(len(found), np.int64), found.xywh, found.score
    )
    return {"images": images, "annotations": annotations, "categories": [one]}, cut


@pytest.mark.parametrize("seed", range(6))
def test_random_data_against_the_official_evaluator(seed: int) -> None:
    """With equal scores in and across classes. A class of a cut-up image has no more than 300 detections."""
    gt, boxes = federated(np.random.default_rng(100 + seed), 30, 9, 30)
    found, groups = of(gt, boxes), groups_of(gt)
    categories = sorted(c["id"] for c in gt["categories"])
    compared = 0
    for name, chosen in groups.items():
        own = [k for k, of_group in zip(categories, chosen, strict=True) if of_group]
        if not found[name].boxes:
            assert found[name].pool is None
            continue
        cut, cut_boxes = cut_up(gt, boxes, own)
        precision = official_precisions(lean_ground_truth(cut), cut_boxes, 300)[:, :, 0, 0]
        assert found[name].pool == pytest.approx(float(precision.mean()), abs=1e-9)
        compared += 1
    assert compared > 4


@pytest.mark.parametrize("seed", range(4))
def test_fixed_is_ap_where_no_limit_bites(seed: int) -> None:
    gt, boxes = federated(np.random.default_rng(200 + seed), 30, 9, 30)
    found, ap = of(gt, boxes), evaluate_boxes(gt, boxes, max_detections=10_000).metrics()
    for name, one in found.items():
        assert one.fixed == (None if ap[name] is None else pytest.approx(ap[name], abs=1e-9))
