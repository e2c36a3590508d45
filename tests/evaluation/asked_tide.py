"""tidecv 1.0.1, the code of TIDE's authors, asked as ours is: for the tests, and for the command tests/against_tide.py.

Where its definitions agree with LVIS' rules every absent class is negative, and nothing is crowd, ignored or not
exhaustive. Of the differences that remain

- tidecv's AP has recall points at i / 100. COCO's own are `linspace(0, 1, 101)`, ten of which differ in the last bit
  (35, 41, 47, 57, 69, 70, 82, 83, 94, 95), so that a recall of exactly 7/10 does not reach the 70th. `coco_points`
  gives tidecv COCO's points.
- tidecv's mean leaves out a class without boxes and detections, also one whose missed boxes have just been taken off,
  and counts as 0 one with detections alone.
- tidecv shows negative costs as 0.
- tidecv keeps 100 detections per image unless told otherwise; here it is told our cap. Over all classes, as ours.

Costs are points there, fractions here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

NAMES = {
    "Cls": "classification", "Loc": "localisation", "Both": "both", "Dupe": "duplicate", "Bkg": "background",
    "Miss": "missed", "FalsePos": "false_positives", "FalseNeg": "false_negatives",
}  # fmt: skip
COCO_POINTS = np.linspace(0.0, 1.0, 101)
Row = tuple[int, int, list[float], float]


@contextlib.contextmanager
def coco_points() -> Iterator[None]:
    """tidecv's AP at COCO's recall points."""

    def reached(recalls: Any, _: Any, side: Any) -> Any:
        return np.searchsorted(recalls, COCO_POINTS, side=side)

    with mock.patch("tidecv.ap.np", SimpleNamespace(array=np.array, searchsorted=reached)):
        yield


def tide(gt: dict[str, Any], rows: Sequence[Row], cap: int = 300) -> tuple[float, dict[str, int], dict[str, float]]:
    """AP50, the count of each kind and its cost, of tidecv, by our names and as fractions."""
    import tidecv

    truth, found = tidecv.Data("gt", max_dets=cap), tidecv.Data("found", max_dets=cap)
    for image in gt["images"]:
        truth.add_image(image["id"], "")
    for category in gt["categories"]:
        truth.add_class(category["id"], "")
    for a in gt["annotations"]:
        truth.add_ground_truth(a["image_id"], a["category_id"], a["bbox"])
    for image_id, category_id, box, score in rows:
        found.add_detection(image_id, category_id, score, box)
    run = tidecv.TIDE().evaluate(truth, found, pos_threshold=0.5, background_threshold=0.1, mode=tidecv.TIDE.BOX)
    counts = {NAMES[kind.short_name]: n for kind, n in run.count_errors().items()}
    costs = run.fix_main_errors() | run.fix_special_errors()
    return run.ap / 100, counts, {NAMES[kind.short_name]: value / 100 for kind, value in costs.items()}


def exhaustive(gt: dict[str, Any]) -> dict[str, Any]:
    """Every class that an image does not show is negative in it."""
    ids = [c["id"] for c in gt["categories"]]
    shown: dict[int, set[int]] = {i["id"]: set() for i in gt["images"]}
    for a in gt["annotations"]:
        shown[a["image_id"]].add(a["category_id"])
    images = [
        {"id": i, "neg_category_ids": [c for c in ids if c not in present], "not_exhaustive_category_ids": []}
        for i, present in shown.items()
    ]
    return {**gt, "images": images}


def agreeing(gt: dict[str, Any], results: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[Row]]:
    """Of a val and COCO results, what both define alike: classes that have boxes and detections, and these as they are
    ranked, no two with one score. (Crowds and ignored boxes must not be in it.)"""
    kept = {a["category_id"] for a in gt["annotations"]} & {r["category_id"] for r in results}
    order = np.argsort([-r["score"] for r in results], kind="stable").tolist()
    rows = [
        (one["image_id"], one["category_id"], list(one["bbox"]), 1.0 - place / len(results))
        for place, one in enumerate(results[i] for i in order)
        if one["category_id"] in kept
    ]
    part = {
        **gt,
        "categories": [c for c in gt["categories"] if c["id"] in kept],
        "annotations": [a for a in gt["annotations"] if a["category_id"] in kept],
    }
    return exhaustive(part), rows
