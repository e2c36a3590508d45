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
from bench.detection.per_head import PerHead
from bench.engines.facts import detector_of, facts
from bench.key import Part, canonical
from bench.lineage import inputs_named, rest_of, training_of
from bench.run.checkpoint import read_tensors
from bench.seeds import address
from bench.stage import KINDS, MODELS, Stage, TrainSpec, spec_of
from bench.store.store import Store

WEIGHTS = "model.safetensors"
TRAIN_INFO = "train.json"


def state_of(store: Store, model: Stage) -> dict[str, Tensor]:
    """The whole state dict of a finished model, gathered along its lineage."""
    own: dict[str, Tensor] = read_tensors(store.output(model.key) / WEIGHTS)
    rest = rest_of(model)
    if rest is None:
        return own
    below = state_of(store, rest)
    if any(name.startswith("classifier.") for name in own):
        below = {n: t for n, t in below.items() if not n.startswith("classifier.")}
    return below | own


def head_spec(stage: Stage, train: Path, own: Mapping[str, Any] | None = None) -> HeadSpec:
    """What a classifier may depend on: widths from the detector's settings, counts from the train split's folder.

    Args:
        stage: a train stage.
        train: the output folder of its train split.
        own: {"instances": [...], "images": [...]} of the images trained on, where a data part changed the list.
    """
    counts = json.loads((train / "counts.json").read_text())
    detector = detector_of(stage.spec)
    features, roi_shape = facts(detector.engine).head_widths(detector)
    instances, images = tuple(counts["instances"]), tuple(counts["images"])
    stage_counts = (instances, images) if own is None else (tuple(own["instances"]), tuple(own["images"]))
    return HeadSpec(
        len(instances), features, roi_shape, instances, images, int(counts["num_images"]), *stage_counts,
        tuple(spec_of(stage, TrainSpec)["bins"]), detector.classifier_std,
    )  # fmt: skip


def make_classifier(store: Store, stage: Stage, head: HeadSpec, seed: int) -> Classifier:
    """The classifier of a train or patch stage with initial weights that depend on the seed alone."""
    part, inputs = stage.spec["classifier"], fitted(store, stage)
    detector = detector_of(training_of(stage).spec)
    heads = facts(detector.engine).heads(detector)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address(seed, "classifier_init"))
        if heads > 1:
            return PerHead(head, inner=part, count=heads, inputs=inputs)
        return build_classifier(part, head, inputs)


def fitted(store: Store, stage: Stage) -> dict[str, dict[str, Tensor]]:
    """The results of fit stages among a stage's inputs, by input name; its parts get them in place of settings."""
    files = {name: KINDS[source.kind].hands for name, source in stage.inputs.items()}
    return {
        name: read_tensors(store.output(stage.inputs[name].key) / file)
        for name, file in files.items()
        if file is not None
    }


def models_named(
    store: Store, stage: Stage, part: Part | Mapping[str, Any], known: Mapping[str, Detector]
) -> dict[str, Detector]:
    """The finished models among a stage's inputs that a part's settings name, by input name; `known`: those that are
    loaded already."""
    named = [name for name in sorted(set(inputs_named(canonical(part)))) if stage.inputs[name].kind in MODELS]
    return {name: known.get(name) or load_model(store, stage.inputs[name]) for name in named}


def new_detector(stage: Stage, head: HeadSpec, classifier: Classifier, *, weights: str | None = None) -> Detector:
    """The detector of a train stage with initial weights around a classifier; `weights`: path of a weights file."""
    detector = detector_of(stage.spec).model_copy(update={"weights": weights})
    engine = importlib.import_module(facts(detector.engine).module)
    built: Detector = engine.build(detector, head, classifier, seed=spec_of(stage, TrainSpec)["seed"])
    return built


def load_model(store: Store, model: Stage) -> Detector:
    """The detector of a finished train or patch stage."""
    classifier = _empty_classifier(store, model)
    detector = new_detector(training_of(model), classifier.head, classifier)
    detector.load_state_dict(state_of(store, model))
    return detector


def load_classifier(store: Store, model: Stage) -> Classifier:
    """The classifier alone of a finished train or patch stage; the trunk below is not read."""
    classifier = _empty_classifier(store, model)
    prefix = "classifier."
    maker: Stage | None = model
    while maker is not None:
        own = read_tensors(store.output(maker.key) / WEIGHTS)
        if any(name.startswith(prefix) for name in own):
            classifier.load_state_dict({n.removeprefix(prefix): t for n, t in own.items() if n.startswith(prefix)})
            break
        maker = rest_of(maker)  # a stage that left the classifier as it was
    return classifier


def _empty_classifier(store: Store, model: Stage) -> Classifier:
    trained = training_of(model)
    own = json.loads((store.output(trained.key) / TRAIN_INFO).read_text()).get("counts")
    head = head_spec(trained, store.output(trained.inputs["train"].key), own)
    return make_classifier(store, model, head, spec_of(trained, TrainSpec)["seed"])
