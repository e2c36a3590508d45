"""Synthetic results for the report tests: every value is set by the test, nothing is measured."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.calibration import Calibration, ReliabilityBin
from bench.evaluation.pooled import Pooled
from bench.evaluation.recall import Recall, Recalls
from bench.key import canonical
from bench.record import PerClass, Protocol, Record
from reports.load import Draws, MoreMetrics, RowResult

COUNTS = (5, 2000, 50, 300, 1, 150)  # training instances of six classes, two of them in the tail bin


def made_protocol(**changes: Any) -> Protocol:
    fields: dict[str, Any] = {
        "data": "glyphs", "train_digest": "a" * 64, "val_digest": "b" * 64, "train_images": 1783, "val_images": 115,
        "classes": 6, "split": "val", "engine": "torchvision", "engine_version": "1", "trunk": "small",
        "initialisation": "random", "reinitialised": (), "steps": {"1:base": 900}, "batch": {"1:base": 16},
        "precision": "float32", "evaluator": "faster-coco-eval", "evaluator_version": "1.8.0", "max_detections": 300,
        "score_threshold": 1e-4, "nms": 0.5, "bins": (10, 100, 1000),
    }  # fmt: skip
    return Protocol(**{**fields, **changes})


def made(
    row: str,
    seed: int = 0,
    *,
    norms: list[float] | None = None,
    method: str | None = None,
    protocol: dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    counts: Sequence[int] = COUNTS,
    key: str = "e" * 64,
    mark: str = "",
    **metrics: float | None,
) -> RowResult:
    """One row and seed with these metrics; `norms` has one value a class of `counts` and the background last."""
    chosen = made_protocol(**(protocol or {}))
    classes = PerClass(
        category_ids=tuple(range(1, len(counts) + 1)),
        names=tuple(string.ascii_letters[i % 52] for i in range(len(counts))),
        instance_counts=tuple(counts),
        ap=(None,) * len(counts),
        ap50=(None,) * len(counts),
    )
    record = Record(
        evaluate_key=key,
        model_key="m" * 64,
        metrics=metrics,
        classes_per_bin=(1,) * (len(chosen.bins) + 1),
        protocol=chosen,
        per_class=classes,
        row=row,
        suite="table1",
        seed=seed,
        method=method or row,
        settings=canonical(settings or {}),
        mark=mark,
        environment=environment or {},
    )
    return RowResult.of(record, norms)


def made_more(*, reached: float = 0.6, found: float = 0.3, most: int = 60) -> MoreMetrics:
    """Of all classes, a bin, and a bin without boxes: ECE 6.25, AP-pool 25 and 12.5, AP-fixed 50 and 37.5 points."""
    some = Calibration(0.0625, 0.2, 0.1375, 40, (ReliabilityBin(0.05, 0.025, 20), ReliabilityBin(0.35, 0.25, 20)))
    of_bin = Recall(8, (reached, reached, reached), found)
    recall = Recalls({"AP": of_bin, "AP1": of_bin, "AP2": Recall(0, (None, None, None), None)}, most)
    pool = {"AP": Pooled(0.25, 0.5, 8), "AP1": Pooled(0.125, 0.375, 8), "AP2": Pooled(None, None, 0)}
    calibration = {"AP": some, "AP1": some, "AP2": Calibration(None, None, None, 0, ())}
    return MoreMetrics(calibration, pool, recall, 300)


def made_draws(values: Mapping[str, NDArray[np.float64]], images: Mapping[str, int], val: str) -> Draws:
    """With blocks by which the jackknife says what the draws do."""
    return Draws(values, {metric: without_blocks(drawn) for metric, drawn in values.items()}, images, val)


def without_blocks(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values without each of as many blocks, whose jackknife variance is the sample variance of the draws."""
    known = max(2, int((~np.isnan(drawn)).sum()))
    mean = np.mean(drawn[~np.isnan(drawn)]) if not np.isnan(drawn).all() else 0.0
    return np.asarray(mean + (drawn - mean) * np.sqrt(known) / (known - 1))
