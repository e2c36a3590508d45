"""The `predict` stage: detections and proposal decisions of one model on the val split.

Every picture is padded by its own size bucket, in fixed batches cut by index, so that a picture's result does not
depend on what else is predicted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench import spec as specs
from bench.data.loader import eval_batch, eval_batches
from bench.data.split import open_split
from bench.detection.contract import Batch, Detections, Detector, PredictOutput
from bench.detection.postprocess import postprocess
from bench.disk import write_json
from bench.run import checkpoint
from bench.run.data import image_root_of
from bench.run.model import load_model
from bench.run.work import Work, device_of

DETECTIONS = "detections.safetensors"
PROPOSALS = "proposals.safetensors"
CLASSIFIER = "classifier.json"


def run(work: Work) -> None:
    """Write detections.safetensors, proposals.safetensors (for ACC) and classifier.json (weight norms)."""
    device = device_of(work.machine)
    detector = load_model(work.store, work.input_key("model"))
    detector.to(device)
    detector.eval()
    test = specs.Test.model_validate(work.spec["test"])
    section = specs.Input.model_validate(work.spec["input"])
    split = open_split(work.input("val"), image_root_of(dict(work.store.load(work.input_key("val"))["aside"])))
    batches = eval_batches(split, section, test.batch)
    found: list[Detections] = []
    decided: list[dict[str, Tensor]] = []
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=work.spec["precision"] == "bfloat16"):
        for i, indices in enumerate(batches):
            work.stop.check()
            batch = eval_batch(split, section, indices).to(device)
            detections, decisions = predict_batch(detector, batch, test)
            found.append(detections)
            decided.append(decisions)
            work.progress(i + 1, len(batches))
    checkpoint.write_tensors(work.out / DETECTIONS, _by_image(
        {name: torch.cat([getattr(d, name) for d in found]).cpu() for name in ("image", "boxes", "scores", "labels")}
    ))  # fmt: skip
    checkpoint.write_tensors(work.out / PROPOSALS, _by_image(
        {name: torch.cat([d[name] for d in decided]).cpu() for name in ("image", "boxes", "predicted")}
    ))  # fmt: skip
    weights = detector.classifier.class_weights()
    norms = None if weights is None else [float(v) for v in weights.detach().float().norm(dim=1).cpu()]
    write_json(work.out / CLASSIFIER, {"weight_norms": norms})


def predict_batch(detector: Detector, batch: Batch, test: specs.Test) -> tuple[Detections, dict[str, Tensor]]:
    """Detections of a batch; for each proposal its box (original pixels) and class (C: background, -1: no p_bg)."""
    out = detector.predict_forward(batch)
    p_NC, p_bg_N = detector.classifier.scores(detector.classifier(out.taps).float())
    detections = postprocess(
        p_NC,
        out.boxes,
        out.image_N,
        len(batch.sizes),
        batch.sizes,
        test,
        scale=batch.scale,
        image_index=batch.image_index,
    )
    return detections, _decisions(out, p_NC, p_bg_N, batch)


def _decisions(out: PredictOutput, p_NC: Tensor, p_bg_N: Tensor | None, batch: Batch) -> dict[str, Tensor]:
    if p_bg_N is None:
        predicted = torch.full_like(out.image_N, -1)
    else:
        predicted = torch.cat([p_NC, p_bg_N[:, None]], dim=1).argmax(dim=1)
    index = torch.tensor(batch.image_index, device=out.image_N.device)
    scale = torch.tensor([(sx, sy, sx, sy) for sy, sx in batch.scale], device=out.image_N.device)
    boxes = out.proposals_N4.float() / scale[out.image_N]
    return {"image": index[out.image_N].int(), "boxes": boxes, "predicted": predicted.int()}


def _by_image(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rows in order of the picture (buckets were cut by size), each picture's rows as they were."""
    order = torch.argsort(tensors["image"], stable=True)
    return {name: value[order].contiguous() for name, value in tensors.items()}
