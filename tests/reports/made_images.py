"""A store with three val images and what two rows detect in them, of every kind once: all boxes are set here, nothing
is trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from bench.evaluation.judged import Kind
from bench.stage import Stage
from bench.store.store import Store
from reports.load import RowResult
from tests.reports.made_records import made

SIDE = 64  # pixels
CLASSES = {"cat": 5, "dog": 50, "elk": 2000}  # training instances: bins 1, 2 and 4
# Image -> boxes (class index, x, y, width, height).
TRUTH: Mapping[int, Sequence[tuple[int, int, int, int, int]]] = {
    7: [(0, 4, 4, 20, 20), (1, 40, 4, 16, 16)],
    3: [(2, 10, 10, 20, 20)],
    9: [],
}
NEGATIVES = {7: [], 3: [], 9: [1]}  # ids of classes
# Of image 7: score, class index, box, kind by TIDE's rules. (46..62) and (40..56) share 10 of 22 columns: IoU 0.45.
FOUND = [
    (0.95, 2, (20, 40, 10, 10), Kind.NOT_JUDGED),
    (0.9, 0, (4, 4, 20, 20), Kind.TRUE_POSITIVE),
    (0.8, 0, (5, 4, 20, 20), Kind.DUPLICATE),
    (0.7, 0, (40, 4, 16, 16), Kind.CLASSIFICATION),
    (0.6, 1, (46, 4, 16, 16), Kind.LOCALISATION),
    (0.5, 0, (2, 50, 10, 10), Kind.BACKGROUND),
    (0.4, 0, (46, 4, 16, 16), Kind.BOTH),
]
LESS = [(0.85, 1, (40, 4, 16, 16), Kind.TRUE_POSITIVE)]  # of the second row, which finds the dog alone


def finished(store: Store, stage: Stage, files: Mapping[str, bytes]) -> None:
    """The stage with these outputs."""
    store.add(stage)
    lease = store.acquire(stage.key)
    assert lease is not None
    with lease:
        attempt = store.begin(stage.key, lease)
        for name, content in files.items():
            (attempt.outputs / name).write_bytes(content)
        digests = {name: done.digest for name, s in stage.inputs.items() if (done := store.done(s.key))}
        assert store.finish(attempt, inputs=digests, seconds=1.0, environment={}, extra={})


def annotations(names: Sequence[str], files: Sequence[str]) -> dict[str, Any]:
    """val, in LVIS form."""
    letters = ("r", "c", "f")
    return {
        "images": [
            {"id": i, "file_name": name, "width": SIDE, "height": SIDE, "neg_category_ids": NEGATIVES[i],
             "not_exhaustive_category_ids": []}
            for i, name in zip(TRUTH, files, strict=True)
        ],
        "annotations": [
            {"id": 100 * i + n, "image_id": i, "category_id": k + 1, "bbox": list(map(float, box)),
             "area": float(box[2] * box[3]), "iscrowd": 0}
            for i, boxes in TRUTH.items() for n, (k, *box) in enumerate(boxes)
        ],
        "categories": [
            {"id": k + 1, "name": name, "frequency": letters[k], "image_count": count, "instance_count": count}
            for k, (name, count) in enumerate(zip(names, CLASSES.values(), strict=True))
        ],
    }  # fmt: skip


def detections(found: Sequence[tuple[float, int, tuple[int, int, int, int], Kind]]) -> bytes:
    """The file of a predict stage: all of the first image."""
    boxes = [(x, y, x + w, y + h) for _, _, (x, y, w, h), _ in found]
    return safetensors.numpy.save(
        {
            "image": np.zeros(len(found), np.int64),
            "labels": np.array([k for _, k, _, _ in found], np.int64),
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "scores": np.array([score for score, *_ in found], np.float32),
        }
    )


def made_store(
    folder: Path, names: Sequence[str] = tuple(CLASSES), labels: Sequence[str] = ("baseline", "BAGS"),
    files: Sequence[str] = ("a.jpg", "b.jpg", "c.jpg"), source: Mapping[str, Any] | None = None,
) -> tuple[Store, list[RowResult], dict[str, Stage]]:  # fmt: skip
    """A store, its results, and their evaluate stages by key. `source`: the images are files there."""
    folder.mkdir(exist_ok=True)
    store = Store(folder)
    aside = {} if source is None else {"source": source}
    val = Stage("data", {"data": {}, "split": "val", "reader": 1}, {}, aside)
    pixels = np.arange(3 * SIDE * SIDE * 3, dtype=np.uint8).reshape(3, SIDE, SIDE, 3)
    outputs = {"annotations.json": json.dumps(annotations(names, files)).encode()}
    if source is None:
        np.save(folder / "pixels.npy", pixels)
        outputs["pixels.npy"] = (folder / "pixels.npy").read_bytes()
    finished(store, val, outputs)
    rows, stages = [], {}
    for number, (label, found) in enumerate(zip(labels, (FOUND, LESS), strict=True)):
        predict = Stage("predict", {"number": number}, {"val": val})
        evaluate = Stage("evaluate", {"max_detections": 300, "bins": [10, 100, 1000], "evaluator": 1},
                         {"predict": predict, "val": val})  # fmt: skip
        finished(store, predict, {"detections.safetensors": detections(found)})
        rows.append(made(label, 1, key=evaluate.key, AP=20.0))
        stages[evaluate.key] = evaluate
    return store, rows, stages
