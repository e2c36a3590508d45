"""Recall of proposals: by hand, and against pycocotools without classes."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from federated import boxes_of, federated

from bench.evaluation.ap import lean_ground_truth
from bench.evaluation.matches import Bools, match_boxes
from bench.evaluation.recall import Recall, recalls
from bench.evaluation.resample import class_groups
from bench.evaluation.stored import Proposals

A, B, C = ([x, 0.0, 100.0, 100.0] for x in (0.0, 200.0, 400.0))
NOWHERE = [0.0, 500.0, 50.0, 50.0]


def groups_of(gt: dict[str, Any], edges: tuple[int, ...] = (10, 100, 1000)) -> dict[str, Bools]:
    categories = sorted(gt["categories"], key=lambda c: int(c["id"]))
    return class_groups([c["frequency"] for c in categories], [c["instance_count"] for c in categories], edges)


def scene(*boxes: tuple[int, list[float]], **marks: int) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "neg_category_ids": [], "not_exhaustive_category_ids": []}],
        "categories": [
            {"id": 1, "instance_count": 5, "frequency": "r"},
            {"id": 2, "instance_count": 50, "frequency": "c"},
        ],
        "annotations": [{"image_id": 7, "category_id": k, "bbox": box, **marks} for k, box in boxes],
    }


def reached(gt: dict[str, Any], *proposals: list[float], found: tuple[tuple[int, list[float], float], ...] = ()):  # type: ignore[no-untyped-def]
    lean = lean_ground_truth(gt)
    matches = match_boxes(lean, boxes_of([(7, *row) for row in found]))
    shown = Proposals(np.full(len(proposals), 7), np.array(proposals, np.float64).reshape(-1, 4))
    return recalls(lean, shown, matches, groups_of(gt), budgets=(1, 2, 3))


def test_the_best_proposals_by_hand() -> None:
    """The 2nd proposal is A moved by 20: IoU 80 / 120, above 0.50, 0.55, 0.60 and 0.65. The 3rd is B. C has none."""
    moved = [20.0, *A[1:]]
    result = reached(scene((1, A), (2, B), (2, C)), NOWHERE, moved, B, found=((1, A, 0.9), (1, B, 0.8)))
    assert result.most == 3
    assert result.groups["AP"] == Recall(3, (0.0, pytest.approx(0.4 / 3), pytest.approx(1.4 / 3)), pytest.approx(1 / 3))
    assert result.groups["AP1"] == result.groups["APr"] == Recall(1, (0.0, pytest.approx(0.4), pytest.approx(0.4)), 1)
    assert result.groups["AP2"] == Recall(2, (0.0, 0.0, 0.5), 0.0)  # B was taken for class 1
    assert result.groups["AP3"] == Recall(0, (None, None, None), None)


def test_a_proposal_takes_one_box_and_the_best_goes_first() -> None:
    """One proposal on two boxes reaches one; in a group of its own each is reached."""
    result = reached(scene((1, A), (2, A)), A)
    assert result.groups["AP"].proposals == (0.5, 0.5, 0.5)
    assert result.groups["AP1"].proposals == result.groups["AP2"].proposals == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("mark", ["iscrowd", "ignore"])
def test_a_box_that_does_not_count(mark: str) -> None:
    assert reached(scene((1, A), **{mark: 1}), A).groups["AP"] == Recall(0, (None, None, None), None)


def test_an_image_without_proposals_counts() -> None:
    result = reached(scene((1, A)))
    assert (result.groups["AP"].proposals, result.most) == ((0.0, 0.0, 0.0), 0)


@pytest.mark.parametrize("seed", range(6))
def test_random_boxes_against_pycocotools(seed: int) -> None:
    """COCOeval with useCats=0 on the ground truth of each group; proposals are boxes near true ones and elsewhere."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(seed)
    gt, near = federated(rng, 25, 8, 40)
    for a in gt["annotations"]:
        a["iscrowd"] = int(rng.random() < 0.1)
    lean = lean_ground_truth(gt)
    matches = match_boxes(lean, near)
    shown = Proposals(near.image_id, near.xywh)
    budgets = (2, 10, 30)
    result = recalls(lean, shown, matches, groups_of(gt), budgets)
    categories = sorted(c["id"] for c in gt["categories"])
    some = 0
    for name, chosen in groups_of(gt).items():
        own = {k for k, of_group in zip(categories, chosen, strict=True) if of_group}
        truth = [a | {"category_id": 1} for a in lean["annotations"] if a["category_id"] in own]
        number = sum(not a["iscrowd"] for a in truth)
        assert result.groups[name].boxes == number
        if not number:
            assert result.groups[name].proposals == (None, None, None)
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            known, found = COCO(), COCO()
            known.dataset = {"images": lean["images"], "categories": [{"id": 1}], "annotations": truth}
            rows = [
                {
                    "id": n + 1,
                    "image_id": int(i),
                    "category_id": 1,
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                }
                for n, (i, box) in enumerate(zip(shown.image_id, shown.xywh, strict=True))
            ]
            # Scores fall in the order in which proposals stand.
            rows = [row | {"score": 1.0 - n / 1e5, "iscrowd": 0} for n, row in enumerate(rows)]
            found.dataset = known.dataset | {"annotations": rows}
            known.createIndex()
            found.createIndex()
            evaluation = COCOeval(known, found, "bbox")
            evaluation.params.useCats = 0
            evaluation.params.maxDets = list(budgets)
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluation.evaluate()
            evaluation.accumulate()
        expected = evaluation.eval["recall"][:, 0, 0].mean(0)
        assert result.groups[name].proposals == pytest.approx(expected.tolist(), abs=1e-12)
        some += 1
    assert some > 4


def test_detections_are_recalled_as_the_evaluator_recalls_them() -> None:
    """Recall of a class over all its detections, by faster-coco-eval in LVIS mode."""
    from faster_coco_eval import COCO, COCOeval_faster

    gt, boxes = federated(np.random.default_rng(11), 30, 8, 25)
    lean = lean_ground_truth(gt)
    groups = {str(k): np.arange(8) == k for k in range(8)}
    found = recalls(lean, Proposals(np.zeros(0, np.int64), np.zeros((0, 4))), match_boxes(lean, boxes), groups)
    rows = [
        {"id": n, "image_id": int(i), "category_id": int(k), "bbox": b.tolist(), "score": float(s),
         "area": float(b[2] * b[3]), "iscrowd": 0}
        for n, (i, k, b, s) in enumerate(zip(*vars(boxes).values(), strict=True), start=1)
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        known, shown = COCO(lean), COCO({**lean, "annotations": rows})
        evaluation = COCOeval_faster(known, shown, "bbox", lvis_style=True)
        evaluation.params.maxDets = [1000]
        evaluation.evaluate()
        evaluation.accumulate()
    recall = np.asarray(evaluation.eval["recall"])[:, :, 0, -1]
    for k in range(8):
        of_class = recall[:, k]
        value = found.groups[str(k)].detections
        if of_class.max() < 0:
            assert value is None
        else:
            assert value == pytest.approx(float(of_class.mean()), abs=1e-12)
