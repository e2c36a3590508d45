"""The `evaluate` stage: AP per bin and class, proposal accuracy, and the protocol. Runs on a CPU, without a model.

Separate from bench/evaluation, which computes: this reads stages and writes `result.json`.
"""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.split import Split, open_split
from bench.disk import read_json, write_atomic
from bench.evaluation.accuracy import Accuracy, accuracy, assign
from bench.evaluation.ap import ApResult, DetectedBoxes, evaluate_boxes
from bench.key import plain
from bench.record import PerClass, Protocol, Result, dumps, points
from bench.run.checkpoint import read_tensors
from bench.run.predict import DETECTIONS, PROPOSALS
from bench.run.work import Work
from bench.store import Store

RESULT = "result.json"
EVALUATOR = "faster-coco-eval"


def run(work: Work) -> None:
    """Evaluate the detections of one predict stage."""
    edges = tuple(int(b) for b in work.spec["bins"])
    split = open_split(work.input("val"), None)
    ap = evaluate_boxes(
        split.lvis_json(), detected(split, work.input("predict") / DETECTIONS), edges, int(work.spec["max_detections"])
    )
    acc = proposal_accuracy(split, work.input("predict") / PROPOSALS, edges)
    model = work.store.load(work.input_key("predict"))["inputs"]["model"]
    metrics = points({**ap.metrics(), **acc.metrics()})
    result = Result(
        evaluate_key=work.key, model_key=model, metrics=metrics, classes_per_bin=ap.classes_per_bin,
        protocol=_protocol(work, split), per_class=_per_class(split, ap),
    )  # fmt: skip
    write_atomic(work.out / RESULT, dumps(result).encode())


def detected(split: Split, path: Path) -> DetectedBoxes:
    """The detections of a predict stage, under the ids of the annotation file."""
    rows = {name: tensor.numpy() for name, tensor in read_tensors(path).items()}
    image_ids = np.array([image.id for image in split.images], np.int64)
    category_ids = np.array([category.id for category in split.categories], np.int64)
    return DetectedBoxes.from_xyxy(
        image_ids[rows["image"]], category_ids[rows["labels"]], rows["boxes"], rows["scores"]
    )


def proposal_accuracy(split: Split, path: Path, edges: tuple[int, ...]) -> Accuracy:
    """ACC of methods.md 0.4 from the proposals and their argmax classes."""
    rows = {name: tensor.numpy() for name, tensor in read_tensors(path).items()}
    cuts = np.searchsorted(rows["image"], np.arange(len(split.images) + 1))
    assigned = [
        assign(
            rows["boxes"][start:stop],
            split.boxes[i][~split.ignore[i]],
            split.labels[i][~split.ignore[i]],
            split.num_classes,
        )
        for i, (start, stop) in enumerate(itertools.pairwise(cuts))
    ]
    counts = [category.instance_count for category in split.categories]
    truth = np.concatenate(assigned) if assigned else np.zeros(0, np.int64)
    return accuracy(truth, rows["predicted"], counts, edges)


def _per_class(split: Split, ap: ApResult) -> PerClass:
    def cells(values: np.ndarray[Any, Any]) -> tuple[float | None, ...]:
        return tuple(None if np.isnan(v) else 100.0 * float(v) for v in values)

    return PerClass(
        category_ids=tuple(int(i) for i in ap.category_ids),
        names=tuple(category.name for category in split.categories),
        instance_counts=tuple(int(n) for n in ap.instance_counts),
        ap=cells(ap.per_class),
        ap50=cells(ap.per_class50),
    )


def _protocol(work: Work, split: Split) -> Protocol:
    store = work.store
    predict = plain(store.load(work.input_key("predict")))
    chain = lineage(store, predict["inputs"]["model"])
    first = chain[0][1]
    train, val = store.done(work.input_key("train")), store.done(work.input_key("val"))
    assert train is not None, "the job checked its inputs"
    assert val is not None, "the job checked its inputs"
    trained = [(key, stage) for key, stage in chain if stage["kind"] == "train"]
    info = {key: read_json(store.output(key) / "train.json") for key, _ in trained}
    names = {key: f"{i}:{_stage_name(stage)}" for i, (key, stage) in enumerate(trained, start=1)}
    weights = first["spec"]["weights"]
    return Protocol(
        data=str(store.load(work.input_key("val"))["spec"]["data"]["name"]),
        train_digest=train.digest,
        val_digest=val.digest,
        train_images=int(read_json(work.input("train") / "counts.json")["num_images"]),
        val_images=len(split.images),
        classes=split.num_classes,
        split="val",
        engine=str(first["spec"]["engine"]["name"]),
        engine_version=str(first["spec"]["engine"]["version"]),
        trunk=str(first["spec"]["detector"]["trunk"]),
        initialisation="random" if weights is None else f"weights {str(weights)[:12]}",
        reinitialised=tuple(name for key, stage in trained[1:] for name in info[key]["reinitialised"]),
        steps={names[key]: int(info[key]["steps"]) for key, _ in trained},
        batch={names[key]: int(stage["spec"]["schedule"]["batch"]) for key, stage in trained},
        precision=str(first["spec"]["precision"]),
        evaluator=EVALUATOR,
        evaluator_version=importlib.metadata.version(EVALUATOR),
        max_detections=int(work.spec["max_detections"]),
        score_threshold=float(predict["spec"]["test"]["score_threshold"]),
        nms=float(predict["spec"]["test"]["nms"]),
        bins=tuple(int(b) for b in work.spec["bins"]),
    )


def lineage(store: Store, key: str) -> list[tuple[str, dict[str, Any]]]:
    """The stages a model was made by, the first training first."""
    stage = plain(store.load(key))
    parent = stage["inputs"].get("model") or stage["inputs"].get("init")
    return [*(lineage(store, parent) if parent else []), (key, stage)]


def _stage_name(stage: Mapping[str, Any]) -> str:
    only = stage["spec"]["trainable"]
    return "+".join(only) if only else "all"
