"""From a train or patch stage to a detector with weights. Separate because training, patching and prediction need it.

A stage stores only what it trained: a classifier-only stage a classifier, a patch a classifier; the rest comes from the
stage it started from, whose checkpoint stays where it is.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.detection.contract import Classifier, Detector, HeadSpec, build_classifier
from bench.engines.facts import detector_of, facts
from bench.key import plain
from bench.run.checkpoint import read_tensors
from bench.seeds import address
from bench.store import Store

WEIGHTS = "model.safetensors"
FIT = "fit.safetensors"
TRAIN_INFO = "train.json"


def training_stage(store: Store, key: str) -> tuple[str, dict[str, Any]]:
    """(key, stage.json) of the train stage whose trunk a model uses: the model itself or what was patched."""
    stage = plain(store.load(key))
    while stage["kind"] == "patch":
        key = stage["inputs"]["model"]
        stage = plain(store.load(key))
    return key, stage


def state_of(store: Store, key: str) -> dict[str, Tensor]:
    """The whole state dict of a finished model, gathered along its lineage."""
    stage = store.load(key)
    own: dict[str, Tensor] = read_tensors(store.output(key) / WEIGHTS)
    parent = _parent(stage)
    if parent is None:
        return own
    below = state_of(store, parent)
    if any(name.startswith("classifier.") for name in own):
        below = {n: t for n, t in below.items() if not n.startswith("classifier.")}
    return below | own


def head_spec(stage: Mapping[str, Any], train: Path, own: Mapping[str, Any] | None = None) -> HeadSpec:
    """What classifiers may know: widths from the detector's settings, counts from the train split's folder.

    `own`: {"instances": [...], "images": [...]} of what the stage trains on, where a data part made that another list.
    """
    counts = json.loads((train / "counts.json").read_text())
    spec = stage["spec"]
    detector = detector_of(spec)
    features, roi_shape = facts(detector.engine).head_widths(detector)
    instances, images = tuple(counts["instances"]), tuple(counts["images"])
    stage_counts = (instances, images) if own is None else (tuple(own["instances"]), tuple(own["images"]))
    return HeadSpec(
        len(instances), features, roi_shape, instances, images, int(counts["num_images"]), *stage_counts,
        tuple(spec["bins"]), detector.classifier_std,
    )  # fmt: skip


def make_classifier(store: Store, stage: Mapping[str, Any], head: HeadSpec, seed: int) -> Classifier:
    """The classifier of a train or patch stage with initial weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address(seed, "classifier_init"))
        return build_classifier(stage["spec"]["classifier"], head, fitted(store, stage))


def fitted(store: Store, stage: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """The results that a stage's parts get in place of settings: tensors of its inputs of kind fit, by input name."""
    return {
        name: read_tensors(store.output(key) / FIT)
        for name, key in stage["inputs"].items()
        if store.load(key)["kind"] == "fit"
    }


def new_detector(
    stage: Mapping[str, Any], head: HeadSpec, classifier: Classifier, *, weights: str | None = None
) -> Detector:
    """A detector with initial weights around a classifier; `weights` is the path of a weights file."""
    detector = detector_of(stage["spec"]).model_copy(update={"weights": weights})
    engine = importlib.import_module(facts(detector.engine).module)
    built: Detector = engine.build(detector, head, classifier, seed=int(stage["spec"]["seed"]))
    return built


def load_model(store: Store, key: str) -> Detector:
    """The detector of a finished train or patch stage."""
    _, stage = training_stage(store, key)
    classifier = _empty_classifier(store, key)
    detector = new_detector(stage, classifier.head, classifier)
    detector.load_state_dict(state_of(store, key))
    return detector


def load_classifier(store: Store, key: str) -> Classifier:
    """The classifier alone of a finished train or patch stage; the trunk below is not read."""
    classifier = _empty_classifier(store, key)
    prefix = "classifier."
    maker: str | None = key
    while maker is not None:
        own = read_tensors(store.output(maker) / WEIGHTS)
        if any(name.startswith(prefix) for name in own):
            classifier.load_state_dict({n.removeprefix(prefix): t for n, t in own.items() if n.startswith(prefix)})
            break
        maker = _parent(store.load(maker))  # a stage that left the classifier as it was
    return classifier


def _empty_classifier(store: Store, key: str) -> Classifier:
    trained, stage = training_stage(store, key)
    own = json.loads((store.output(trained) / TRAIN_INFO).read_text()).get("counts")
    head = head_spec(stage, store.output(stage["inputs"]["train"]), own)
    return make_classifier(store, plain(store.load(key)), head, int(stage["spec"]["seed"]))


def _parent(stage: Mapping[str, Any]) -> str | None:
    if stage["kind"] == "patch":
        return str(stage["inputs"]["model"])
    return str(stage["inputs"]["init"]) if stage["spec"]["trainable"] else None
