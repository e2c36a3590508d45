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

from bench import spec as specs
from bench.detection.contract import Classifier, Detector, HeadSpec
from bench.engines.facts import facts
from bench.key import plain, resolve
from bench.run.checkpoint import read_tensors
from bench.store import Store

WEIGHTS = "model.safetensors"


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


def head_spec(stage: Mapping[str, Any], train: Path) -> HeadSpec:
    """What classifiers may know: widths from the detector's settings, counts from the train split's folder."""
    counts = json.loads((train / "counts.json").read_text())
    spec = stage["spec"]
    detector = detector_spec(stage)
    engine = importlib.import_module(facts(detector.engine).module)
    features, roi_shape = engine.head_widths(detector)
    instances, images = tuple(counts["instances"]), tuple(counts["images"])
    return HeadSpec(
        len(instances), features, roi_shape, instances, images, int(counts["num_images"]), instances, images,
        tuple(spec["bins"]), detector.classifier_std,
    )  # fmt: skip


def detector_spec(stage: Mapping[str, Any]) -> specs.Detector:
    """The typed detector section of a train stage."""
    spec = stage["spec"]
    return specs.Detector.model_validate({**spec["detector"], "engine": spec["engine"]["name"], "weights": None})


def make_classifier(part: Mapping[str, Any], head: HeadSpec, seed: int) -> Classifier:
    """A classifier with initial weights that depend on its seed alone."""
    from bench.seeds import address

    kind, settings = resolve(part)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address(seed, "classifier_init"))
        classifier = kind(head, **settings)
    assert isinstance(classifier, Classifier)
    return classifier


def new_detector(
    stage: Mapping[str, Any], head: HeadSpec, classifier: Classifier, *, weights: str | None = None
) -> Detector:
    """A detector with initial weights around a classifier; `weights` is the path of a weights file."""
    detector = detector_spec(stage).model_copy(update={"weights": weights})
    engine = importlib.import_module(facts(detector.engine).module)
    built: Detector = engine.build(detector, head, classifier, seed=int(stage["spec"]["seed"]))
    return built


def load_model(store: Store, key: str) -> Detector:
    """The detector of a finished train or patch stage."""
    _, stage = training_stage(store, key)
    model = plain(store.load(key))
    head = head_spec(stage, store.output(stage["inputs"]["train"]))
    classifier = make_classifier(model["spec"]["classifier"], head, int(stage["spec"]["seed"]))
    detector = new_detector(stage, head, classifier)
    detector.load_state_dict(state_of(store, key))
    return detector


def _parent(stage: Mapping[str, Any]) -> str | None:
    if stage["kind"] == "patch":
        return str(stage["inputs"]["model"])
    return str(stage["inputs"]["init"]) if stage["spec"]["trainable"] else None
