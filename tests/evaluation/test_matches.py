"""AP of weighted images against the evaluator: as they are, and on a split that shows images several times or never."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from federated import boxes_of, federated

from bench.errors import UserError
from bench.evaluation.ap import DetectedBoxes, Floats, lean_ground_truth, precisions
from bench.evaluation.matches import Accumulator, match_boxes

DATA = Path(os.environ.get("BENCH_TEST_DATA", Path(__file__).parents[2] / "../shared/data")) / "lvis_api_100"
TOLERANCE = 1e-9


def by_evaluator(gt: dict[str, Any], found: DetectedBoxes, cap: int = 300) -> Floats:
    """AP T x K of faster-coco-eval; NaN without ground truth."""
    precision = precisions(lean_ground_truth(gt), found, cap)[..., 0]
    return np.where(precision[:, 0] > -1, precision.mean(1), np.nan)


def assert_equal(gt: dict[str, Any], found: DetectedBoxes, cap: int = 300) -> Accumulator:
    matches = match_boxes(lean_ground_truth(gt), found, cap)
    again = Accumulator(matches)
    ones = again.per_class(np.ones((1, len(matches.image_ids)), np.int64))[0]
    np.testing.assert_allclose(ones, by_evaluator(gt, found, cap), atol=TOLERANCE, rtol=0)
    return again


def repeated(gt: dict[str, Any], found: DetectedBoxes, times: dict[int, int]) -> tuple[dict[str, Any], DetectedBoxes]:
    """The same split with every image as often as it counts, under ids of its own that keep the order."""
    images, annotations, parts = [], [], []
    for image in gt["images"]:
        for copy in range(times[image["id"]]):
            own = image["id"] * 100 + copy
            images.append(image | {"id": own})
            annotations += [
                a | {"image_id": own, "id": len(annotations) + 1}
                for a in gt["annotations"]
                if a["image_id"] == image["id"]
            ]
            part = found[found.image_id == image["id"]]
            parts.append(DetectedBoxes(np.full(len(part), own), part.category_id, part.xywh, part.score))
    for number, a in enumerate(annotations, start=1):
        a["id"] = number
    joined = DetectedBoxes(*(np.concatenate([getattr(p, n) for p in parts]) for n in vars(found)))
    return gt | {"images": images, "annotations": annotations}, joined


@pytest.mark.parametrize("seed", range(12))
def test_weights_of_one_are_the_evaluator(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gt, found = federated(rng, images=40, classes=12, detections=40)
    for a in gt["annotations"]:
        if seed % 3 == 1 and rng.random() < 0.1:
            a["ignore"] = 1
        if seed % 3 == 2 and rng.random() < 0.1:
            a["iscrowd"] = 1
    assert_equal(gt, found, cap=300 if seed % 2 else 15)


@pytest.mark.parametrize("seed", range(6))
def test_a_weight_is_so_many_copies_of_the_image(seed: int) -> None:
    """Without ties: of equal scores in an image the evaluator puts copy behind copy; a weight keeps them together."""
    rng = np.random.default_rng(100 + seed)
    gt, found = federated(rng, images=30, classes=10, detections=30, levels=1_000_000)
    matches = match_boxes(lean_ground_truth(gt), found)
    again = Accumulator(matches)
    images = len(matches.image_ids)
    weights = rng.multinomial(images, np.full(images, 1 / images), 3)
    for one, ap in zip(weights.tolist(), again.per_class(weights), strict=True):
        times = dict(zip(matches.image_ids.tolist(), one, strict=True))
        np.testing.assert_allclose(ap, by_evaluator(*repeated(gt, found, times)), atol=TOLERANCE, rtol=0)


def test_the_lvis_fixture() -> None:
    if not DATA.is_dir():
        pytest.skip("no lvis_api_100: set BENCH_TEST_DATA")
    gt, results = (json.loads((DATA / f"{n}.json").read_text()) for n in ("lvis_val_100", "synthetic_results_100"))
    assert_equal(gt, boxes_of([(r["image_id"], r["category_id"], r["bbox"], r["score"]) for r in results]))


def one_image(boxes: list[Any], **lists: Any) -> dict[str, Any]:
    image = {"id": 1, "neg_category_ids": [], "not_exhaustive_category_ids": []} | lists
    annotations = [
        {"id": n, "image_id": 1, "category_id": c, "bbox": box, "area": box[2] * box[3]} | extra
        for n, (c, box, extra) in enumerate(boxes)
    ]
    return {"images": [image], "annotations": annotations, "categories": [{"id": 7}, {"id": 9}]}


def test_by_hand() -> None:
    """Of class 7 two boxes: one found exactly, one by a box of IoU 0.6 behind a false one. Class 9 has none."""
    gt = one_image([(7, [0.0, 0.0, 10.0, 10.0], {}), (7, [50.0, 0.0, 10.0, 10.0], {})], neg_category_ids=[9])
    found = boxes_of([
        (1, 7, [0.0, 0.0, 10.0, 10.0], 0.9), (1, 7, [80.0, 0.0, 5.0, 5.0], 0.8), (1, 7, [50.0, 0.0, 10.0, 6.0], 0.7),
        (1, 9, [0.0, 0.0, 10.0, 10.0], 0.9),
    ])  # fmt: skip
    matches = match_boxes(lean_ground_truth(gt), found)
    assert matches.true[:, :3].sum(1).tolist() == [2, 2, 2, *[1] * 7]
    ap = Accumulator(matches).per_class(np.array([[1]]))[0]
    # Recall 0 to 0.5 at precision 1 is 51 of the 101 points; the rest at 2/3, up to IoU 0.60.
    np.testing.assert_allclose(ap[:, 0], [(51 + 50 * 2 / 3) / 101] * 3 + [51 / 101] * 7)
    assert np.isnan(ap[:, 1]).all()
    assert np.isnan(Accumulator(matches).per_class(np.array([[0]]))).all()


def test_nothing_found() -> None:
    gt = one_image([(7, [0.0, 0.0, 10.0, 10.0], {})])
    ap = Accumulator(match_boxes(lean_ground_truth(gt), boxes_of([]))).per_class(np.array([[3]]))[0]
    assert ap[:, 0].tolist() == [0.0] * 10
    assert np.isnan(ap[:, 1]).all()


def test_of_an_unknown_image() -> None:
    with pytest.raises(UserError, match="not in the ground truth"):
        match_boxes(lean_ground_truth(one_image([])), boxes_of([(2, 7, [0.0, 0.0, 1.0, 1.0], 0.5)]))
