"""The detector of the grid engine. Separate from its facts because it needs torch.

Shape legend: B images, Q queries of an image, N rows of the batch, D features, W channels, C foreground classes.
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
)
from bench.detection.sampling import match
from bench.engines.sections import TwoStage
from bench.errors import UserError, unknown
from bench.seeds import address
from grid_engine import BOX, GROUPS, SIDE, STRIDE, WIDTH

VERSION = 3  # of `detections`, in the key of predictions


def read_weights(path: str) -> Mapping[str, Tensor]:
    """The tensors of a weights file, before anything starts.

    Raises:
        UserError: always: a grid has none.
    """
    raise UserError("a grid has no weights files", where="detector.weights", allowed="null")


def build(detector: TwoStage, head: HeadSpec, classifier: Classifier, *, seed: int) -> GridDetector:
    """A detector whose initial weights are a function of `seed`; torch's global stream is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address(seed, "init"))
        return GridDetector(head, classifier)


class GridDetector(nn.Module):
    """See bench.detection.contract.Detector."""

    last = (WIDTH, STRIDE)

    def __init__(self, head: HeadSpec, classifier: Classifier) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, WIDTH, STRIDE, stride=STRIDE)
        self.decoder = nn.ModuleDict({"feature": nn.Linear(WIDTH, head.features), "box": nn.Linear(head.features, 4)})
        self.classifier, self.num_classes = classifier, head.num_classes
        self.fresh = list(self.state_dict())

    def body(self, images: Tensor) -> Maps:
        """The one map, B x W x H/8 x W/8."""
        return {"cells": self.encoder(images)}

    def maps(self, images: Tensor, body: Maps | None = None) -> Maps:
        """The same: there is no pyramid."""
        return self.body(images) if body is None else body

    def train_forward(
        self, batch: Batch, draws: Draws, *, trunk_losses: bool, taps: Sequence[str] = (), maps: Maps | None = None
    ) -> TrainOutput:
        """All queries but those on a box to ignore, each with the class of the true box that it overlaps."""
        boxes, labels, targets, image = [], [], [], []
        for i, query_Q4 in enumerate(_queries(batch)):
            truth, ignored = batch.boxes[i][~batch.ignore[i]], batch.boxes[i][batch.ignore[i]]
            found = match(query_Q4, truth, ignored, high=0.2, low=0.2, rescue=True)
            hit, seen = found.positive_N, found.positive_N | found.negative_N
            label_Q = torch.full((len(query_Q4),), self.num_classes)
            label_Q[hit] = batch.labels[i][~batch.ignore[i]][found.index_N[hit]]
            boxes.append(query_Q4[seen])
            labels.append(label_Q[seen])
            targets.append(truth[found.index_N[hit]])
            image.append(torch.full_like(labels[-1], i))
        labels_N, image_N = torch.cat(labels), torch.cat(image)
        read = self.box_taps(batch, boxes, maps=maps)
        hit_N = labels_N < self.num_classes
        losses = {}
        if trunk_losses:
            off = self._refined(read, torch.cat(boxes))[hit_N] - torch.cat(targets)
            losses = {"loss_boxes": F.smooth_l1_loss(off / BOX, off * 0, reduction="sum") / max(int(hit_N.sum()), 1)}
        present = [torch.unique(of[~out]) for of, out in zip(batch.labels, batch.ignore, strict=True)]
        counts = dict.fromkeys(losses, int(hit_N.sum()))
        return TrainOutput(losses, read, Targets(labels_N, image_N, present, batch.negative, read), counts, boxes)

    def assign(self, out: TrainOutput, scores: Callable[[], Tensor]) -> TrainOutput:
        """Targets depend on boxes alone."""
        return out

    @torch.no_grad()
    def predict_forward(self, batch: Batch, *, taps: Sequence[str] = (), maps: Maps | None = None) -> PredictOutput:
        """All queries, image by image."""
        boxes = _queries(batch)
        read, image_N = self.box_taps(batch, boxes, maps=maps), torch.arange(len(boxes)).repeat_interleave(SIDE**2)
        refined = clip(self._refined(read, torch.cat(boxes)), torch.tensor(batch.sizes)[image_N])
        return PredictOutput(read, torch.cat(boxes), refined, image_N)

    def box_taps(
        self, batch: Batch, boxes: Sequence[Tensor], *, taps: Sequence[str] = (), maps: Maps | None = None
    ) -> Taps:
        """Of the cell in which a box has its centre."""
        cells_BWHW = (self.maps(batch.images) if maps is None else maps)["cells"]
        rows = []
        for cells_WHW, box_Q4 in zip(cells_BWHW, boxes, strict=True):
            x, y = ((box_Q4[:, k] + box_Q4[:, k + 2]).div(2 * STRIDE).long() for k in (0, 1))
            rows.append(cells_WHW[:, y.clamp(max=cells_WHW.shape[1] - 1), x.clamp(max=cells_WHW.shape[2] - 1)].T)
        return Taps(self.decoder["feature"](torch.cat(rows).relu()).relu())

    def matched_taps(
        self,
        batch: Batch,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        *,
        taps: Sequence[str] = (),
        maps: Maps | None = None,
    ) -> Taps:
        """Of the boxes themselves: any box can be asked for."""
        return self.box_taps(batch, boxes, taps=taps, maps=maps)

    def group_of(self, name: str) -> str:
        """The first word of the name; a classifier may divide its own."""
        first, _, rest = name.partition(".")
        if first != "classifier":
            return first
        return next((group for group, names in self.classifier.groups().items() if rest in names), first)

    def set_mode(self, trainable: Sequence[str]) -> None:
        """Gradients for the named groups only (none named: all); the rest is in eval mode.

        Raises:
            UserError: a name that is no group.
        """
        own = self.classifier.groups()
        for name in trainable:
            if name not in (*GROUPS, *own):
                raise unknown("parameter group", name, {*GROUPS, *own}, where="trainable")
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not trainable or self.group_of(name) in trainable)
        for group in GROUPS:
            part = {group, *own} if group == "classifier" else {group}
            getattr(self, group).train(not trainable or bool(part & set(trainable)))

    def _refined(self, read: Taps, boxes_N4: Tensor) -> Tensor:
        moved: Tensor = boxes_N4 + BOX * self.decoder["box"](read.box_features).float()
        return moved


def detections(p_NC: Tensor, out: PredictOutput, frame: BatchGeometry, test: spec.Inference) -> Detections:
    """The best of all queries and classes of an image; no suppression. Boxes without area are dropped."""
    found: list[list[Any]] = [[], [], [], []]
    solid_N = (out.boxes[:, 2:] > out.boxes[:, :2]).all(dim=1)
    for i, index in enumerate(frame.image_index):
        of_image = ((out.image_N == i) & solid_N).nonzero()[:, 0]
        p_QC = p_NC[of_image]
        best = p_QC.flatten().topk(min(test.max_detections, p_QC.numel()))
        sy, sx = frame.scale[i]
        boxes = out.boxes[of_image[best.indices // p_NC.shape[1]]] / torch.tensor([sx, sy, sx, sy])
        values = (torch.full_like(best.indices, index).int(), boxes, best.values, (best.indices % p_NC.shape[1]).int())
        for column, value in zip(found, values, strict=True):
            column.append(value)
    return Detections(*(torch.cat(column) for column in found))


def _queries(batch: Batch) -> list[Tensor]:
    """A square box around each point of a grid, for each image: Q x 4."""
    steps = (torch.arange(SIDE) + 0.5) / SIDE
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    around = torch.tensor([-BOX, -BOX, BOX, BOX]) / 2
    centres = [torch.stack((x * w, y * h, x * w, y * h), -1).view(-1, 4) for h, w in batch.sizes]
    return [centre + around for centre in centres]
