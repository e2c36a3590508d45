"""The `predict` stage: detections and proposal decisions of one model on the val split, or of several over one trunk.

Every image is padded by its own size bucket, in fixed batches cut by index, so that an image's result does not depend
on what else is predicted. Models over one trunk share the pass over the images; each one's result is that of a pass of
its own.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench import spec as specs
from bench.detection.contract import BatchGeometry, Classifier, Detections, PredictOutput
from bench.engines.facts import facts
from bench.evaluation.stored import DETECTIONS, PROPOSALS
from bench.lineage import trunk_of
from bench.run import checkpoint
from bench.run.features import TrunkPass, cached_pass
from bench.run.model import load_classifier
from bench.run.work import Work, device_of
from bench.stage import PredictSpec, spec_of
from bench.store.disk import write_json

CLASSIFIER = "classifier.json"
FIELDS = ("image", "boxes", "scores", "labels")  # of bench.detection.contract.Detections


# Scores p_NC of the proposals of a batch -> boxes: `detections` of the module that an engine's facts name. A function,
# not a method of a detector, since over a kept pass no detector is built.
Detect = Callable[[Tensor, PredictOutput, BatchGeometry, specs.Inference], Detections]


@dataclass
class Head:
    """One stage's classifier and what it has found so far."""

    work: Work
    classifier: Classifier
    found: list[dict[str, Tensor]] = field(default_factory=list)  # of each batch, on the CPU
    decided: list[Tensor] = field(default_factory=list)
    error: Exception | None = None


def run(works: Sequence[Work]) -> list[Exception | None]:
    """Write detections.safetensors, proposals.safetensors (for ACC) and classifier.json (weight norms) of each stage.

    Args:
        works: stages whose models have one trunk, with equal spec and val.

    Returns:
        One outcome per stage; None: its outputs are written. A classifier that fails does not stop the others.
    """
    lead = works[0]
    device = device_of(lead.machine)
    errors: dict[str, Exception | None] = {}
    heads: list[Head] = []
    for work in works:
        try:
            classifier = load_classifier(work.store, work.stage.inputs["model"])
            heads.append(Head(work, classifier.to(device).eval()))
        except Exception as error:  # e.g. a part that is missing: the other heads continue
            errors[work.key] = error
    proposals = _pass(lead, heads, device) if heads else []
    for head in heads:
        if head.error is None:
            try:
                _write(head, proposals)
            except Exception as error:
                head.error = error
        errors[head.work.key] = head.error
    return [errors[work.key] for work in works]


def _pass(lead: Work, heads: list[Head], device: str) -> list[dict[str, Tensor]]:
    """One pass over the images; every head reads the trunk's output. Returns the proposals of each batch, which all
    heads share: image and box in original pixels."""
    proposals: list[dict[str, Tensor]] = []
    spec = spec_of(lead.stage, PredictSpec)
    test = specs.Inference.model_validate(spec["test"])
    taps = sorted({tap for head in heads for tap in head.classifier.inputs})
    trunk = trunk_of(lead.stage.inputs["model"])
    detect: Detect = importlib.import_module(facts(trunk.spec["engine"]["name"]).postprocess).detections
    known = cached_pass(lead.store, lead.stage, taps)
    if known is not None:
        total, batches = len(known), known.batches(device)
    else:
        network = TrunkPass([head.work for head in heads], trunk, test.batch, taps, device)
        total, batches = len(network), network.batches()
    with (
        closing(batches),
        torch.inference_mode(),
        torch.autocast(device, torch.bfloat16, enabled=spec["precision"] == "bfloat16"),
    ):
        for i, (frame, out) in enumerate(batches):
            lead.stop.check()
            active = [head for head in heads if head.error is None]
            proposals.append(_proposals(out, frame))
            for head in active:
                begun = time.perf_counter()
                try:
                    found, decided = predict_batch(head.classifier, out, frame, test, detect)
                except Exception as error:  # of any kind: the other heads over this trunk continue
                    head.error = error
                    continue
                head.found.append({name: getattr(found, name).cpu() for name in FIELDS})
                head.decided.append(decided.cpu())
                head.work.own_seconds += time.perf_counter() - begun
                head.work.progress(i + 1, total)
            if not active:
                break
    return proposals


def predict_batch(
    classifier: Classifier, out: PredictOutput, frame: BatchGeometry, test: specs.Inference, detect: Detect
) -> tuple[Detections, Tensor]:
    """Detections of a batch, and the class of each proposal (int32 N; C: background, -1: no p_bg)."""
    p_NC, p_bg_N = classifier.scores(classifier(out.taps).float())
    detections = detect(p_NC, out, frame, test)
    if p_bg_N is None:
        return detections, torch.full_like(out.image_N, -1).int()
    return detections, torch.cat([p_NC, p_bg_N[:, None]], dim=1).argmax(dim=1).int()


def _proposals(out: PredictOutput, frame: BatchGeometry) -> dict[str, Tensor]:
    index = torch.tensor(frame.image_index, device=out.image_N.device)
    scale = torch.tensor([(sx, sy, sx, sy) for sy, sx in frame.scale], device=out.image_N.device)
    boxes = out.proposals_N4.float() / scale[out.image_N]
    return {"image": index[out.image_N].int().cpu(), "boxes": boxes.cpu()}


def _write(head: Head, proposals: list[dict[str, Tensor]]) -> None:
    out = head.work.out
    found = {name: torch.cat([batch[name] for batch in head.found]) for name in FIELDS}
    places = {name: torch.cat([batch[name] for batch in proposals]) for name in ("image", "boxes")}
    checkpoint.write_tensors(out / DETECTIONS, _by_image(found))
    checkpoint.write_tensors(out / PROPOSALS, _by_image({**places, "predicted": torch.cat(head.decided)}))
    weights = head.classifier.class_weights()
    norms = None if weights is None else [float(v) for v in weights.detach().float().norm(dim=1).cpu()]
    write_json(out / CLASSIFIER, {"weight_norms": norms})


def _by_image(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rows in order of the image (buckets were cut by size), the order within an image kept."""
    order = torch.argsort(tensors["image"], stable=True)
    return {name: value[order].contiguous() for name, value in tensors.items()}
