"""An engine that the harness does not have: a grid of queries, no RPN, no NMS. For test_another_engine.py.

GRID, its facts, is the entry in bench.engines.facts.ENGINES; nothing else knows of it. Legend: B images, N queries of
the batch, D features, C foreground classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import spec
from bench.detection.boxes import clip
from bench.detection.contract import (
    Batch,
    BatchGeometry,
    Classifier,
    Detections,
    Draws,
    HeadSpec,
    Maps,
    PredictOutput,
    Taps,
    Targets,
    TrainOutput,
)  # fmt: skip
from bench.detection.sampling import match
from bench.engines.contract import EngineFacts
from bench.engines.sections import TwoStage
from bench.errors import UserError
from bench.seeds import address

VERSION = 3  # of `detections`, in the key of predictions
SIDE, STRIDE, WIDTH, BOX = 8, 8, 12, 24.0  # queries along a side, pixels of a cell, channels, pixels of a query's box


def check(detector: TwoStage) -> None:
    if not detector.roi.class_agnostic:
        raise UserError("a grid has one box for all classes", where="detector.roi.class_agnostic", allowed="true")


def parameters(detector: TwoStage, classes: int) -> int:
    features = detector.roi.width
    return (3 * STRIDE**2 + 1) * WIDTH + (WIDTH + 1) * features + (features + 1) * 4


GRID = EngineFacts(
    name="grid",
    version=1,
    module="tests.engines.grid_engine",
    provides=frozenset({"classifier", "box_features", "class_weights", "box_taps"}),
    trunks={"cells": ("cells",)},
    groups=("encoder", "decoder", "classifier"),
    projector=(),
    check=check,
    head_widths=lambda detector: (detector.roi.width, (WIDTH, 1, 1)),
    parameters=parameters,
    proposals=lambda detector, classes: (SIDE**2, 1),
    postprocess="tests.engines.grid_engine",
)


def read_weights(path: str) -> Mapping[str, Tensor]:
    raise UserError("a grid has no weights files", where="detector.weights", allowed="null")


def build(detector: TwoStage, head: HeadSpec, classifier: Classifier, *, seed: int) -> GridDetector:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address(seed, "init"))
        return GridDetector(head, classifier)


class GridDetector(nn.Module):
    """bench.detection.contract.Detector."""

    def __init__(self, head: HeadSpec, classifier: Classifier) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, WIDTH, STRIDE, stride=STRIDE)
        self.decoder = nn.ModuleDict({"feature": nn.Linear(WIDTH, head.features), "box": nn.Linear(head.features, 4)})
        self.classifier, self.num_classes = classifier, head.num_classes
        self.fresh = list(self.state_dict())

    last = (WIDTH, STRIDE)

    def body(self, images: Tensor) -> Maps:
        return {"cells": self.encoder(images)}

    def maps(self, images: Tensor, body: Maps | None = None) -> Maps:
        return self.body(images) if body is None else body

    def train_forward(
        self, batch: Batch, draws: Draws, *, trunk_losses: bool, taps: Sequence[str] = (), maps: Maps | None = None
    ) -> TrainOutput:
        boxes, labels, targets, image = _queries(batch), [], [], []
        for i, (query_Q4, truth, label) in enumerate(zip(boxes, batch.boxes, batch.labels, strict=True)):
            found = match(query_Q4, truth[~batch.ignore[i]], truth[batch.ignore[i]], high=0.2, low=0.2, rescue=True)
            hit = found.positive_N
            label_Q = label.new_full((len(query_Q4),), self.num_classes)
            label_Q[hit] = label[~batch.ignore[i]][found.index_N[hit]]
            labels.append(label_Q)
            targets.append(truth[~batch.ignore[i]][found.index_N[hit]])
            image.append(torch.full_like(label_Q, i))
        labels_N, image_N = torch.cat(labels), torch.cat(image)
        read = self.box_features(batch, boxes, maps)
        losses = {}
        if trunk_losses:
            hit_N = labels_N < self.num_classes
            off = self._refined(read, torch.cat(boxes))[hit_N] - torch.cat(targets)
            losses = {"loss_boxes": F.smooth_l1_loss(off / BOX, off * 0, reduction="sum") / max(int(hit_N.sum()), 1)}
        present = [torch.unique(values) for values in batch.labels]
        counts = dict.fromkeys(losses, int((labels_N < self.num_classes).sum()))
        return TrainOutput(losses, read, Targets(labels_N, image_N, present, batch.negative, read), counts, boxes)

    def assign(self, out: TrainOutput, scores: Callable[[], Tensor]) -> TrainOutput:
        return out

    @torch.no_grad()
    def predict_forward(self, batch: Batch, *, taps: Sequence[str] = (), maps: Maps | None = None) -> PredictOutput:
        boxes = _queries(batch)
        read, image_N = self.box_features(batch, boxes, maps), torch.arange(len(boxes)).repeat_interleave(SIDE**2)
        refined = clip(self._refined(read, torch.cat(boxes)), torch.tensor(batch.sizes)[image_N])
        return PredictOutput(read, torch.cat(boxes), refined, image_N)

    def box_taps(
        self, batch: Batch, boxes: Sequence[Tensor], *, taps: Sequence[str] = (), maps: Maps | None = None
    ) -> Taps:
        return self.box_features(batch, boxes, maps)

    def box_features(self, batch: Batch, boxes: Sequence[Tensor], maps: Maps | None) -> Taps:
        """Of the cell in which a box has its centre."""
        cells_BWHW = (self.maps(batch.images) if maps is None else maps)["cells"]
        rows = []
        for cells_WHW, box_Q4 in zip(cells_BWHW, boxes, strict=True):
            x, y = ((box_Q4[:, k] + box_Q4[:, k + 2]).div(2 * STRIDE).long() for k in (0, 1))
            rows.append(cells_WHW[:, y.clamp(max=cells_WHW.shape[1] - 1), x.clamp(max=cells_WHW.shape[2] - 1)].T)
        return Taps(self.decoder["feature"](torch.cat(rows).relu()).relu())

    def group_of(self, name: str) -> str:
        return name.partition(".")[0]

    def set_mode(self, trainable: Sequence[str]) -> None:
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not trainable or self.group_of(name) in trainable)

    def _refined(self, read: Taps, boxes_N4: Tensor) -> Tensor:
        moved: Tensor = boxes_N4 + BOX * self.decoder["box"](read.box_features).float()
        return moved


def detections(p_NC: Tensor, out: PredictOutput, frame: BatchGeometry, test: spec.Inference) -> Detections:
    """The best of all queries and classes of an image; no suppression."""
    found: list[list[Any]] = [[], [], [], []]
    for i, index in enumerate(frame.image_index):
        of_image = (out.image_N == i).nonzero()[:, 0]
        best = p_NC[of_image].flatten().topk(test.max_detections)
        sy, sx = frame.scale[i]
        boxes = out.boxes[of_image[best.indices // p_NC.shape[1]]] / torch.tensor([sx, sy, sx, sy])
        values = (torch.full_like(best.indices, index).int(), boxes, best.values, (best.indices % p_NC.shape[1]).int())
        for column, value in zip(found, values, strict=True):
            column.append(value)
    return Detections(*(torch.cat(column) for column in found))


def _queries(batch: Batch) -> list[Tensor]:
    """A square box around each point of a grid, for each image."""
    steps = (torch.arange(SIDE) + 0.5) / SIDE
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    around = torch.tensor([-BOX, -BOX, BOX, BOX]) / 2
    centres = [torch.stack((x * w, y * h, x * w, y * h), -1).view(-1, 4) for h, w in batch.sizes]
    return [centre + around for centre in centres]
