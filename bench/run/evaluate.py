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
from bench.evaluation.accuracy import Accuracy, accuracy, assign
from bench.evaluation.ap import ApResult, evaluate_boxes
from bench.evaluation.stored import DETECTIONS, PROPOSALS, read_detections
from bench.key import digest
from bench.lineage import model_chain
from bench.record import Negatives, PerClass, Protocol, Result, dumps, points
from bench.run.checkpoint import read_tensors
from bench.run.model import TRAIN_INFO
from bench.run.work import Work
from bench.stage import DataSpec, EvaluateSpec, PredictSpec, Stage, TrainSpec, spec_of
from bench.store.disk import read_bytes, read_json, write_atomic

RESULT = "result.json"
EVALUATOR = "faster-coco-eval"
_SETTINGS = ("engine", "detector", "weights", "input", "augment", "precision", "schedule")  # of the first training


def run(work: Work) -> None:
    """Evaluate the detections of one predict stage."""
    spec = spec_of(work.stage, EvaluateSpec)
    edges, predict = tuple(spec["bins"]), work.input("predict")
    split = open_split(work.input("val"), None)
    path = predict / DETECTIONS
    found = read_detections(split, read_bytes(path), str(path))
    ap = evaluate_boxes(split.lvis_json(), found, edges, spec["max_detections"])
    acc = proposal_accuracy(split, predict / PROPOSALS, edges)
    model = work.stage.inputs["predict"].inputs["model"].key
    metrics = points({**ap.metrics(), **acc.metrics()})
    result = Result(
        evaluate_key=work.key, model_key=model, metrics=metrics, classes_per_bin=ap.classes_per_bin,
        protocol=_protocol(work, split), per_class=_per_class(split, ap),
    )  # fmt: skip
    write_atomic(work.out / RESULT, dumps(result).encode())


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
    store, spec = work.store, spec_of(work.stage, EvaluateSpec)
    predict, data = work.stage.inputs["predict"], spec_of(work.stage.inputs["val"], DataSpec)
    trained = [stage for stage in model_chain(predict.inputs["model"]) if stage.kind == "train"]
    specs = [spec_of(stage, TrainSpec) for stage in trained]
    first, test = specs[0], spec_of(predict, PredictSpec)["test"]
    train, val = store.done(work.input_key("train")), store.done(work.input_key("val"))
    assert train is not None, "the job checked its inputs"
    assert val is not None, "the job checked its inputs"
    infos = [read_json(store.output(stage.key) / TRAIN_INFO) for stage in trained]
    counts = read_json(work.input("train") / "counts.json")
    divided = "own" in counts  # the images are a part of those counted
    names = [f"{i}:{'+'.join(spec['trainable']) or 'all'}" for i, spec in enumerate(specs, start=1)]
    return Protocol(
        data=str(data["data"]["name"]),
        train_digest=train.digest,
        val_digest=val.digest,
        train_images=int((counts["own"] if divided else counts)["num_images"]),
        val_images=len(split.images),
        classes=split.num_classes,
        split=data["split"],
        engine=str(first["engine"]["name"]),
        engine_version=str(first["engine"]["version"]),
        trunk=str(first["detector"]["trunk"]),
        initialisation=_initialisation(trained[0]),
        reinitialised=tuple(name for info in infos[1:] for name in info["reinitialised"]),
        steps={name: int(info["steps"]) for name, info in zip(names, infos, strict=True)},
        batch={name: int(spec["schedule"]["batch"]) for name, spec in zip(names, specs, strict=True)},
        precision=first["precision"],
        evaluator=EVALUATOR,
        evaluator_version=importlib.metadata.version(EVALUATOR),
        max_detections=spec["max_detections"],
        score_threshold=float(test["score_threshold"]),
        nms=float(test["nms"]),
        bins=tuple(spec["bins"]),
        negatives=_negatives(split),
        image_px=(int(first["input"]["min_size"]), int(first["input"]["max_size"])),
        anchors=_anchors(first["detector"]),
        lr={name: float(spec["schedule"]["lr"]) for name, spec in zip(names, specs, strict=True)},
        settings=settings_of(trained[0], test),
        counted_images=int(counts["num_images"]) if divided else None,
    )


def _initialisation(first: Stage) -> str:
    """What the first training began from."""
    weights, start = first.spec["weights"], first.inputs.get("start")
    found = [] if weights is None else [f"weights {weights[:12]}"]
    if start is not None:
        found.append(f"{', '.join(first.spec['start'])} of a trained {start.spec['engine']['name']} {start.key[:12]}")
    return " + ".join(found) or "random"


def settings_of(trained: Stage, test: Mapping[str, Any]) -> str:
    """`Protocol.settings`, of the first training of a model and what its predictions were made with."""
    return digest([[trained.spec[name] for name in _SETTINGS], test])


def _negatives(split: Split) -> Negatives:
    if split.info.get("exhaustive"):
        return "exhaustive"
    return "listed" if any(image.negatives for image in split.images) else "none listed"


def _anchors(detector: Mapping[str, Any]) -> tuple[tuple[float, ...], ...] | None:
    sizes = detector.get("rpn", {}).get("anchor_sizes")  # an engine without anchors has none
    return None if sizes is None else tuple(tuple(map(float, level)) for level in sizes)
