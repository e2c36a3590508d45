"""AP against the official LVIS evaluator, on its own fixture and on random federated data, and by hand."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from federated import boxes_of, federated

from bench.errors import UserError
from bench.evaluation import ap, official
from bench.evaluation.ap import ApResult, DetectedBoxes, evaluate_boxes, lean_ground_truth

DATA = Path(os.environ.get("BENCH_TEST_DATA", Path(__file__).parents[2] / "../shared/data")) / "lvis_api_100"
TOLERANCE = 1e-9


def assert_same(a: ApResult, b: ApResult) -> None:
    assert a.metrics().keys() == b.metrics().keys()
    for name, value in a.metrics().items():
        assert value == (None if b.metrics()[name] is None else pytest.approx(b.metrics()[name], abs=TOLERANCE)), name
    np.testing.assert_array_equal(a.category_ids, b.category_ids)
    np.testing.assert_allclose(a.per_class, b.per_class, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(a.per_class50, b.per_class50, atol=TOLERANCE, rtol=0)
    assert a.classes_per_bin == b.classes_per_bin


def assert_parity(gt: dict[str, Any], found: DetectedBoxes, cap: int = 300) -> ApResult:
    lean = lean_ground_truth(gt)
    ours, theirs = ap.precisions(lean, found, cap), official.precisions(lean, found, cap)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)
    result = evaluate_boxes(gt, found, max_detections=cap)
    assert_same(result, official.evaluate_boxes(gt, found, max_detections=cap))
    return result


@pytest.fixture(scope="module")
def lvis_100() -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, float]]:
    if not DATA.is_dir():
        pytest.skip("no lvis_api_100: set BENCH_TEST_DATA")
    names = ("lvis_val_100", "synthetic_results_100", "synthetic_results_100.expected")
    return tuple(json.loads((DATA / f"{name}.json").read_text()) for name in names)  # type: ignore[return-value]


def rows_of(results: list[dict[str, Any]]) -> DetectedBoxes:
    return boxes_of([(r["image_id"], r["category_id"], r["bbox"], r["score"]) for r in results])


def test_lvis_fixture_equals_the_official_numbers(lvis_100: tuple[Any, Any, Any]) -> None:
    gt, results, expected = lvis_100
    before = copy.deepcopy(gt)
    result = assert_parity(gt, rows_of(results))
    assert gt == before  # evaluators write into annotations; not into the caller's
    for name, value in result.metrics().items():
        if name in expected:
            assert value == pytest.approx(expected[name], abs=5e-7), name  # the file has six places


def test_lvis_fixture_with_more_than_300_per_image(lvis_100: tuple[Any, Any, Any]) -> None:
    """The official cap is over all classes; faster-coco-eval's own is per class (AP differed by 0.006)."""
    gt, results, _ = lvis_100
    rng = np.random.default_rng(0)
    ids = [c["id"] for c in gt["categories"]]
    noise = [
        {"image_id": i["id"], "category_id": int(rng.choice(ids)), "bbox": rng.uniform(1, 200, 4).tolist(), "score": s}
        for i in gt["images"][:30]
        for s in (rng.integers(1, 50, 450) / 50).tolist()
    ]
    found = rows_of(results + noise)
    assert_parity(gt, found)
    assert evaluate_boxes(gt, found).ap != evaluate_boxes(gt, found, max_detections=10_000).ap


@pytest.mark.parametrize("seed", range(25))
def test_random_federated_data(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gt, found = federated(
        rng, images=int(rng.integers(1, 12)), classes=int(rng.integers(2, 12)), detections=int(rng.integers(0, 40)),
        levels=int(rng.choice([1, 3, 20, 10_000])),
    )  # fmt: skip
    assert_parity(gt, found)


@pytest.mark.parametrize(("seed", "cap"), [(0, 5), (1, 20), (2, 300), (3, 300)])
def test_random_federated_data_over_the_cap(seed: int, cap: int) -> None:
    gt, found = federated(np.random.default_rng(100 + seed), images=4, classes=6, detections=450, levels=15)
    assert np.unique(found.image_id, return_counts=True)[1].max() > cap
    assert_parity(gt, found, cap)


def test_classes_evaluated_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    gt, found = federated(np.random.default_rng(7), images=20, classes=15, detections=30)
    whole = ap.precisions(lean_ground_truth(gt), found)
    for size in (1, 4):
        monkeypatch.setattr(ap, "CLASSES_AT_ONCE", size)
        np.testing.assert_array_equal(ap.precisions(lean_ground_truth(gt), found), whole)


def test_no_detections_at_all() -> None:
    """AP 0 for each class with ground truth, nothing for the others; the official package raises IndexError."""
    gt, _ = federated(np.random.default_rng(3), images=10, classes=8, detections=0)
    result = assert_parity(gt, boxes_of([]))
    shown = {a["category_id"] for a in gt["annotations"]}
    for category, value in zip(result.category_ids.tolist(), result.per_class.tolist(), strict=True):
        assert value == 0.0 if category in shown else math.isnan(value)
    assert result.ap == 0.0
    assert sum(result.classes_per_bin) == len(shown)


def test_no_ground_truth_at_all() -> None:
    gt, found = federated(np.random.default_rng(4), images=5, classes=5, detections=10)
    result = assert_parity({**gt, "annotations": []}, found)
    assert set(result.metrics().values()) == {None}
    assert np.isnan(result.per_class).all()


def one_box_each(**lists: list[int]) -> dict[str, Any]:
    """Two classes of bins 1 and 4; class 1 has one box in image 1, class 2 one in image 2."""
    empty = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    return {
        "images": [{"id": 1, **empty, **lists}, {"id": 2, **empty}],
        "categories": [
            {"id": 1, "instance_count": 9, "frequency": "r"},
            {"id": 2, "instance_count": 1000, "frequency": "f"},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100},
            {"id": 2, "image_id": 2, "category_id": 2, "bbox": [0, 0, 100, 100], "area": 10_000},
        ],
    }


def test_by_hand() -> None:
    """Class 1: a false detection before the true one, so precision 1/2; it is not small. Class 2: not found, 0."""
    found = boxes_of([(1, 1, [50, 50, 40, 40], 0.9), (1, 1, [0, 0, 10, 10], 0.8)])
    result = evaluate_boxes(one_box_each(), found)
    assert result.ap_bins == (pytest.approx(0.5), None, None, 0.0)
    assert (result.apr, result.apc, result.apf) == (pytest.approx(0.5), None, 0.0)
    assert (result.aps, result.apm, result.apl) == (pytest.approx(1.0), None, 0.0)
    assert result.ap == pytest.approx(0.25)
    assert result.classes_per_bin == (1, 0, 0, 1)
    assert result.per_class50.tolist() == pytest.approx([0.5, 0.0])


@pytest.mark.parametrize(("lists", "expected"), [({}, 1.0), ({"neg_category_ids": [2]}, 0.5)])
def test_only_a_negative_class_is_punished(lists: dict[str, list[int]], expected: float) -> None:
    found = boxes_of([(1, 2, [0, 0, 9, 9], 0.9), (2, 2, [0, 0, 100, 100], 0.8)])
    assert evaluate_boxes(one_box_each(**lists), found).apf == pytest.approx(expected)


def test_not_exhaustive_class_is_not_punished() -> None:
    found = boxes_of([(1, 1, [50, 50, 10, 10], 0.9), (1, 1, [0, 0, 10, 10], 0.8)])
    assert evaluate_boxes(one_box_each(not_exhaustive_category_ids=[1]), found).apr == pytest.approx(1.0)


def test_a_tie_goes_to_the_earlier_detection() -> None:
    wrong, right = (1, 1, [50.0, 50.0, 10.0, 10.0], 0.5), (1, 1, [0.0, 0.0, 10.0, 10.0], 0.5)
    assert evaluate_boxes(one_box_each(), boxes_of([right, wrong])).apr == pytest.approx(1.0)
    assert evaluate_boxes(one_box_each(), boxes_of([wrong, right])).apr == pytest.approx(0.5)
    assert evaluate_boxes(one_box_each(), boxes_of([wrong, right]), max_detections=1).apr == 0.0


def test_crowd_costs_nothing() -> None:
    gt = one_box_each()
    gt["annotations"].append(
        {"id": 3, "image_id": 1, "category_id": 1, "bbox": [40, 40, 40, 40], "area": 1600, "iscrowd": 1}
    )
    found = boxes_of([(1, 1, [50, 50, 10, 10], 0.9), (1, 1, [41, 41, 10, 10], 0.9), (1, 1, [0, 0, 10, 10], 0.8)])
    assert evaluate_boxes(gt, found).apr == pytest.approx(1.0)
    with pytest.raises(UserError, match="crowd"):
        official.evaluate_boxes(gt, found)


def test_bins_by_given_counts_and_edges() -> None:
    found = boxes_of([(1, 1, [0, 0, 10, 10], 0.8)])
    result = evaluate_boxes(one_box_each(), found, edges=(50,), instance_counts={1: 50, 2: 49})
    assert result.ap_bins == (0.0, pytest.approx(1.0))
    assert list(result.metrics())[-2:] == ["AP1", "AP2"]


def test_overall_ap_is_the_mean_of_bins_weighted_by_their_classes() -> None:
    """methods.md 0.4, check [ap_from_bins]: n (67, 298, 284, 181), AP_i (0, 17.34, 24.00, 29.99) give 20.9777."""
    assert np.average([0, 17.34, 24.00, 29.99], weights=[67, 298, 284, 181]) == pytest.approx(20.977722891566263)
    gt, found = federated(np.random.default_rng(11), images=40, classes=30, detections=25)
    result = evaluate_boxes(gt, found)
    pairs = [(n, value) for n, value in zip(result.classes_per_bin, result.ap_bins, strict=True) if value is not None]
    assert len(pairs) > 2
    assert result.ap == pytest.approx(np.average([v for _, v in pairs], weights=[n for n, _ in pairs]), abs=1e-12)


def test_bad_input_is_named() -> None:
    gt = one_box_each()
    with pytest.raises(UserError, match="id 9"):
        evaluate_boxes(gt, boxes_of([(9, 1, [0, 0, 1, 1], 0.5)]))
    with pytest.raises(UserError, match="not finite"):
        evaluate_boxes(gt, boxes_of([(1, 1, [0, 0, 1, 1], math.nan)]))
    with pytest.raises(UserError, match="training instances"):
        evaluate_boxes({**gt, "categories": [{"id": 1}, {"id": 2}]}, boxes_of([]))
    with pytest.raises(UserError, match="LVIS form"):
        evaluate_boxes({**gt, "images": [{"id": 1}]}, boxes_of([]))


def test_from_xyxy_and_silence(capfd: pytest.CaptureFixture[str]) -> None:
    found = DetectedBoxes.from_xyxy([1], [1], np.array([[0, 0, 10, 10]], dtype=np.float32), [0.5])
    assert evaluate_boxes(one_box_each(), found).apr == pytest.approx(1.0)
    assert official.evaluate_boxes(one_box_each(), found).apr == pytest.approx(1.0)
    assert capfd.readouterr() == ("", "")


def test_official_package_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lvis", None)
    with pytest.raises(UserError, match="official"):
        official.evaluate_boxes(one_box_each(), boxes_of([]))


def test_official_package_needs_no_opencv() -> None:
    """A machine without libGL cannot import OpenCV; the evaluator must not care."""
    script = """
import sys
sys.modules["cv2"] = None
from bench.evaluation import ap, official
gt = {"images": [{"id": 1, "neg_category_ids": [], "not_exhaustive_category_ids": []}],
      "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}],
      "categories": [{"id": 1, "name": "a", "frequency": "f", "image_count": 1, "instance_count": 1}]}
import numpy as np
found = ap.DetectedBoxes(np.array([1]), np.array([1]), np.array([[0.0, 0.0, 9.0, 9.0]]), np.array([0.5]))
print(round(official.evaluate_boxes(gt, found).ap, 9))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, "1.0"), ended.stderr
