"""The grid engine with one thing wrong, for test_engine_check.py: one class for each mistake in a detector. It imports
torch, so a fact that is defined here is one that planning must not read."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bench.seeds import address
from tests.engines.own_engine import detector as grid

read_weights, VERSION, detections = grid.read_weights, grid.VERSION, grid.detections


def heavy_check(detector: Any) -> None:
    """A check in a file that imports torch."""


class Plain(grid.GridDetector):
    """With batch norm, and nothing wrong."""

    def __init__(self, head, classifier):
        super().__init__(head, classifier)
        self.encoder = nn.Sequential(self.encoder, nn.BatchNorm2d(grid.WIDTH))


class Unseeded(Plain):
    """Built without a seed: see `build`."""


class MovesTheStream(Plain):
    """Built with torch's global generator seeded: see `build`."""


class Unused(Plain):
    def __init__(self, head, classifier):
        super().__init__(head, classifier)
        self.decoder["spare"] = nn.Linear(2, 2)


class MeanOverNothing(Plain):
    def train_forward(self, batch, draws, *, trunk_losses, taps=(), maps=None):
        out = super().train_forward(batch, draws, trunk_losses=trunk_losses, taps=taps, maps=maps)
        hit_N = out.targets.labels_N < self.num_classes
        if trunk_losses:
            out.losses["loss_boxes"] = out.losses["loss_boxes"] + out.taps.box_features[hit_N].mean()
        return out


class LearnsWhatIsIgnored(Plain):
    def train_forward(self, batch, draws, *, trunk_losses, taps=(), maps=None):
        batch.ignore = [torch.zeros_like(of) for of in batch.ignore]
        return super().train_forward(batch, draws, trunk_losses=trunk_losses, taps=taps, maps=maps)


class OwnStream(Plain):
    """Draws from a generator that nobody seeds for a step."""

    def __init__(self, head, classifier):
        super().__init__(head, classifier)
        self.own = torch.Generator().manual_seed(0)

    def box_taps(self, batch, boxes, *, taps=(), maps=None):
        read = super().box_taps(batch, boxes, taps=taps, maps=maps)
        noise = torch.rand(read.box_features.shape, generator=self.own) if self.training else 0.0
        return read.each(lambda value: value + noise)


class DrawsInPrediction(Plain):
    """From torch's global stream, which nobody seeds there."""

    def box_taps(self, batch, boxes, *, taps=(), maps=None):
        read = super().box_taps(batch, boxes, taps=taps, maps=maps)
        return read.each(lambda value: torch.dropout(value, 0.5, True))


class CountsOn(Plain):
    """Batch norm goes on counting where it is frozen."""

    def set_mode(self, trainable):
        super().set_mode(trainable)
        self.encoder.train()


class LearnsMore(Plain):
    def set_mode(self, trainable):
        super().set_mode(trainable)
        self.decoder.requires_grad_(True)


class FirstClassIsNone(Plain):
    """Takes class 0 for the background in its box loss."""

    def train_forward(self, batch, draws, *, trunk_losses, taps=(), maps=None):
        out = super().train_forward(batch, draws, trunk_losses=trunk_losses, taps=taps, maps=maps)
        if trunk_losses:
            out.losses["loss_boxes"] = out.losses["loss_boxes"] * (1 + (out.targets.labels_N == 0).sum())
        return out


class Mixes(Plain):
    """Its images share a mean."""

    def box_taps(self, batch, boxes, *, taps=(), maps=None):
        read = super().box_taps(batch, boxes, taps=taps, maps=maps)
        return read.each(lambda value: value - value.mean(dim=0) if len(value) else value)


class Leaves(Plain):
    def predict_forward(self, batch, *, taps=(), maps=None):
        out = super().predict_forward(batch, taps=taps, maps=maps)
        out.boxes = out.boxes + 9
        return out


class OutOfOrder(Plain):
    def predict_forward(self, batch, *, taps=(), maps=None):
        out = super().predict_forward(batch, taps=taps, maps=maps)
        out.image_N = out.image_N.flip(0)
        return out


class SortsBoxes(Plain):
    def box_taps(self, batch, boxes, *, taps=(), maps=None):
        return super().box_taps(batch, [of[of[:, 0].argsort()] for of in boxes], taps=taps, maps=maps)


class NeedsABox(Plain):
    def box_taps(self, batch, boxes, *, taps=(), maps=None):
        boxes = [of if len(of) else torch.zeros(1, 4) for of in boxes]
        return super().box_taps(batch, boxes, taps=taps, maps=maps)


class Forgets(Plain):
    """Its training depends on what no checkpoint holds, and not on how often a step is repeated."""

    steps = 0

    def train_forward(self, batch, draws, *, trunk_losses, taps=(), maps=None):
        out = super().train_forward(batch, draws, trunk_losses=trunk_losses, taps=taps, maps=maps)
        self.steps = max(self.steps, 1) if draws.step == 3 else self.steps + 1
        if trunk_losses:
            out.losses["loss_boxes"] = out.losses["loss_boxes"] * self.steps
        return out


def builder(kind: type[Plain]) -> Any:
    """`build` of an engine whose detector is of this class."""

    def build(detector, head, classifier, *, seed):
        if kind is Unseeded:
            return kind(head, classifier)
        if kind is MovesTheStream:
            torch.manual_seed(address(seed, "init"))
            return kind(head, classifier)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(address(seed, "init"))
            return kind(head, classifier)

    return build
