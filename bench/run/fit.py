"""The `fit` stage: a trained model streamed over a split, of which only a part's result is kept.

Images are read as in predict: without augmentation, padded by their own size bucket, in a fixed order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench import spec as specs
from bench.data.folder import image_root_of
from bench.data.loader import eval_batches, eval_pass
from bench.data.split import Split, open_split
from bench.detection.boxes import iou
from bench.detection.contract import Batch, Detector, FitPart, LabelledRois, WholeImages
from bench.errors import unknown
from bench.key import resolve
from bench.run import checkpoint
from bench.run.loading import workers_of
from bench.run.model import fitted, load_model
from bench.run.work import Work, device_of
from bench.stage import KINDS, FitSpec, spec_of

MATCH_IOU = 0.5  # a proposal has the class of a true box from this IoU on (methods.md 0.4, as in ACC)
ROIS = ("gt", "matched", "proposals")
LAST = "last"  # among a part's inputs: the backbone's last map, which is no tap of a RoI


def run(work: Work) -> None:
    """Write fit.safetensors: the tensors of the part's `result()`."""
    device, spec = device_of(work.machine), spec_of(work.stage, FitSpec)
    detector = load_model(work.store, work.stage.inputs["model"])
    detector.to(device)
    detector.eval()
    kind, settings = resolve(spec["fit"], fitted(work.store, work.stage))
    part: FitPart = kind(detector.classifier.head, **settings)
    if part.rois not in ROIS:
        raise unknown("kind of RoIs", part.rois, ROIS, where=type(part).__name__)
    section = specs.Input.model_validate(spec["input"])
    split = open_split(work.input("data"), image_root_of(work.stage.inputs["data"]))
    cuts = eval_batches(split, section, spec["batch"])
    with (
        eval_pass(split, section, cuts, workers_of([work], split, device)) as batches,
        torch.inference_mode(),
        torch.autocast(device, torch.bfloat16, enabled=spec["precision"] == "bfloat16"),
    ):
        for i in range(len(cuts)):
            work.stop.check()
            part.update(seen(detector, split, next(batches).to(device), part))
            work.progress(i + 1, len(cuts))
    found = {name: value.cpu() for name, value in part.result().items()}
    checkpoint.write_tensors(work.out / str(KINDS[work.stage.kind].hands), found)


def seen(detector: Detector, split: Split, batch: Batch, part: FitPart) -> LabelledRois:
    """The RoIs of a batch that the part wants, with their labels."""
    taps = (*(name for name in part.inputs if name != LAST), *detector.classifier.inputs)
    body = detector.body(batch.images) if LAST in part.inputs else None
    maps = None if body is None else detector.maps(batch.images, body)
    truth = [_true_boxes(split, i, scale) for i, scale in zip(batch.image_index, batch.scale, strict=True)]
    boxes = [box_G4.to(batch.images.device) for box_G4, _ in truth]
    if part.rois != "proposals":
        rows, rois_N4 = [row_G for _, row_G in truth], torch.cat(boxes)
        if part.rois == "gt":
            read = detector.box_taps(batch, boxes, taps=taps, maps=maps)
        else:
            named = [split.labels[i][row_G.numpy()] for i, (_, row_G) in zip(batch.image_index, truth, strict=True)]
            classes = [torch.from_numpy(of_image).to(batch.images.device) for of_image in named]
            read = detector.matched_taps(batch, boxes, classes, taps=taps, maps=maps)
    else:
        out = detector.predict_forward(batch, taps=taps, maps=maps)
        kept, rows = _matched(out.proposals_N4, out.image_N, boxes, [row_G for _, row_G in truth])
        read, rois_N4 = out.taps.each(lambda value: value[kept]), out.proposals_N4[kept]
    images = [torch.full((len(row_G),), i) for i, row_G in zip(batch.image_index, rows, strict=True)]
    labels = [torch.from_numpy(split.labels[i])[row_G] for i, row_G in zip(batch.image_index, rows, strict=True)]
    whole = [torch.tensor([[w, h, w, h]]).expand(len(r), 4) for (h, w), r in zip(batch.sizes, rows, strict=True)]
    device = batch.images.device
    return LabelledRois(
        read, torch.cat(labels).to(device), torch.cat(images).to(device), torch.cat(rows).to(device),
        rois_N4 / torch.cat(whole).to(device), detector.classifier,
        None if body is None else WholeImages(batch, list(body.values())[-1]),
    )  # fmt: skip


def _true_boxes(split: Split, i: int, scale: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """(boxes G x 4 in pixels of the resized image, their rows in the annotations): without those to ignore."""
    boxes = split.boxes[i]
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & ~split.ignore[i]
    rows = np.flatnonzero(solid)
    sy, sx = scale
    return torch.from_numpy(boxes[rows] * np.array([sx, sy, sx, sy], np.float32)), torch.from_numpy(rows)


def _matched(
    proposals_N4: Tensor, image_N: Tensor, boxes: list[Tensor], rows: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """(positions of the proposals that match a true box, for each image the annotation rows they match)."""
    kept, matched = [], []
    for i, (box_G4, row_G) in enumerate(zip(boxes, rows, strict=True)):
        at = (image_N == i).nonzero()[:, 0]
        if len(at) == 0 or len(box_G4) == 0:
            matched.append(row_G[:0])
            continue
        best, index = iou(proposals_N4[at], box_G4).max(dim=1)
        hit = best >= MATCH_IOU
        kept.append(at[hit])
        matched.append(row_G[index[hit].cpu()])
    none = torch.zeros(0, dtype=torch.int64, device=proposals_N4.device)
    return torch.cat([none, *kept]), matched
