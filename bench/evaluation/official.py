"""The same numbers through the official `lvis` package. Separate because that package is an extra, slow (5 x the CPU
time of faster-coco-eval) and imported nowhere else; `ap.py` is tested against it; the choice for a final table.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from bench.errors import UserError
from bench.evaluation.ap import ApResult, DetectedBoxes, Floats, check, lean_ground_truth, summarise

EVALUATOR = "lvis"


def evaluate_boxes(
    gt: Mapping[str, Any],
    detections: DetectedBoxes,
    edges: Sequence[int] = (10, 100, 1000),
    max_detections: int = 300,
    instance_counts: Mapping[int, int] | None = None,
) -> ApResult:
    """`ap.evaluate_boxes` by `lvis.LVISEval`: same arguments, same result.

    Raises:
        UserError: the package is missing, or the ground truth has crowd regions (LVIS has none).
    """
    lean = lean_ground_truth(gt)
    return summarise(lean, precisions(lean, detections, max_detections), edges, instance_counts)


def precisions(gt: Mapping[str, Any], detections: DetectedBoxes, max_detections: int = 300) -> Floats:
    """Interpolated precision T x R x K x A. `gt` from `ap.lean_ground_truth`."""
    check(gt, detections)
    if any(a["iscrowd"] for a in gt["annotations"]):
        raise UserError("the official LVIS evaluator has no crowd regions", hint="use the default evaluator")
    with _quiet():
        try:
            _without_drawing()
            from lvis import LVIS, LVISEval, LVISResults
        except ImportError as error:
            raise UserError(
                f"the official evaluator cannot be imported ({error})",
                hint="in this checkout: python -m pip install -e '.[official]'",
            ) from None

        class InMemory(LVIS):  # type: ignore[misc]
            """The package reads files only; this one takes their contents."""

            def __init__(self, dataset: dict[str, Any]) -> None:
                self.logger = logging.getLogger("lvis.lvis")
                self.dataset = dataset
                self._create_index()

        known = InMemory({**gt, "annotations": [dict(a) for a in gt["annotations"]]})
        known.dataset["categories"] = [{"frequency": "f", **c} for c in gt["categories"]]
        known._create_index()
        evaluation = LVISEval(known, LVISResults(known, _results(gt, detections), max_dets=max_detections), "bbox")
        evaluation.params.max_dets = max_detections
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"], dtype=np.float64)


def _without_drawing() -> None:
    """lvis imports its drawing module first of all, and with it OpenCV, which needs libGL; no number needs either."""
    if "lvis" not in sys.modules:
        drawing = ModuleType("lvis.vis")
        drawing.__dict__["LVISVis"] = None
        sys.modules["lvis.vis"] = drawing


def _results(gt: Mapping[str, Any], detections: DetectedBoxes) -> list[dict[str, Any]]:
    """Detections as the package needs them, in their order."""
    columns = (detections.image_id, detections.category_id, detections.xywh, detections.score)
    rows = [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in zip(*(c.tolist() for c in columns), strict=True)
    ]
    if not rows:
        # An empty list is an IndexError in lvis 0.5.3. A box without area is skipped by its own rules, so that this one
        # stands for "nothing detected": AP 0 for every class with ground truth.
        rows = [{"image_id": gt["images"][0]["id"], "category_id": -1, "bbox": [0.0, 0.0, 0.0, 0.0], "score": 0.0}]
    return rows


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings; and `numpy.float`, which lvis 0.5.3 uses and numpy 1.24 took away (mended upstream, unreleased)."""
    loggers = [logging.getLogger(f"lvis.{name}") for name in ("lvis", "results", "eval")]
    levels = [logger.level for logger in loggers]
    patched = "float" not in vars(np)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    if patched:
        setattr(np, "float", float)  # noqa: B010 - mypy has no such attribute
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if patched:
            delattr(np, "float")
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
