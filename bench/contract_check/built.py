"""The tiny detector of one engine, batches of noise for it, and how two results are compared. Separate from engine.py
and behaviour.py, whose checks look at them.

Shape legend: B images, N rows of the batch, C foreground classes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.contract_check.place import Sandbox
from bench.contract_check.subject import DoesNotApply
from bench.data.augment import padded_size
from bench.detection.contract import Batch, Classifier, Context, Detector, Draws, HeadSpec, TrainOutput
from bench.engines.contract import CLASSIFIER
from bench.engines.facts import EngineFacts, facts, only_classifier
from bench.engines.sections import DetectorSection
from bench.run.model import make_classifier
from bench.run.step import TrainStep
from bench.stage import Stage

C = 7  # classes; a prime, so that rows of a classifier are not taken for something else of that number
OBJECTS = 3  # true boxes of an image
NEAR = 1e-5  # of numbers that another order of the same sums may move in the last bits


@dataclass
class EngineSubject:
    """One engine, whose tiny detector is held to what is promised of all.

    Attributes:
        name: of the engine.
        root: a folder of its own; whoever made it removes it.
    """

    name: str
    root: Path

    @property
    def called(self) -> str:
        return f"the detector section of engine '{self.name}'"

    @property
    def facts(self) -> EngineFacts:
        return facts(self.name)

    @cached_property
    def tried(self) -> Sandbox | Exception:
        """Where its stages run; or why there is no such place, or no tiny detector."""
        try:
            place = Sandbox(self.root, self.name)
            _build(self.facts, place, 0)
        except Exception as error:  # of any kind: the check "facts" tells it
            return error
        return place

    @property
    def place(self) -> Sandbox:
        """Where its stages run.

        Raises:
            DoesNotApply: its tiny detector cannot be built.
        """
        if isinstance(self.tried, Exception):
            raise DoesNotApply("its tiny detector cannot be built: see 'facts'")
        return self.tried

    @property
    def section(self) -> DetectorSection:
        """Of the tiny detector."""
        return self.place.suite.sections.detector

    def detector(self, seed: int = 0) -> Detector:
        """A new tiny detector of C classes with the default classifier, as a training begins with it."""
        return _build(self.facts, self.place, seed)

    def batch(
        self,
        boxes: Sequence[int] = (OBJECTS, OBJECTS),
        *,
        ignore: Sequence[bool] = (False, False),
        small: bool = True,
        seed: int = 0,
    ) -> Batch:
        """Noise of a tiny image's size, one image for each number of true boxes, no class twice in an image.

        Args:
            boxes: how many each image has, at most C.
            ignore: of each image whether all of its boxes are to be ignored.
            small: the last image is smaller than its padding.
            seed: of pixels, boxes and labels.
        """
        draw = torch.Generator().manual_seed(seed)
        section = self.place.suite.sections.input
        side, n = section.max_size, len(boxes)
        sizes = [(side, side)] * (n - 1) + [(side - side // 4, side) if small else (side, side)]
        images = torch.zeros(n, 3, *padded_size(side, side, section))
        found, labels = [], []
        for image, (height, width), count in zip(images, sizes, boxes, strict=True):
            image[:, :height, :width] = torch.randn(3, height, width, generator=draw)
            sides = side * (0.2 + 0.2 * torch.rand(count, 2, generator=draw))
            corner = torch.rand(count, 2, generator=draw) * (torch.tensor([width, height]) - sides)
            found.append(torch.cat((corner, corner + sides), dim=1))
            labels.append(torch.randperm(C, generator=draw)[:count])
        left_out = [torch.full((count,), out) for count, out in zip(boxes, ignore, strict=True)]
        nothing = [torch.zeros(0, dtype=torch.int64)] * n
        return Batch(
            images, sizes, found, labels, left_out, nothing, list(range(n)), [(1.0, 1.0)] * n, list(sizes),
            [(1.0, 0.0, 1.0, 0.0)] * n,
        )  # fmt: skip

    def step(
        self, model: Detector, batch: Batch, trainable: Sequence[str] = (), number: int = 0
    ) -> tuple[TrainOutput, dict[str, Tensor]]:
        """What a training step makes of a batch before its update: RoIs or queries with their targets, and all losses,
        the classifier's among them. torch's generators are seeded by the step, as in a training."""
        step = TrainStep(
            model, [batch], Draws(0, 0, number), _context(number), other_view=lambda view: batch,
            whole=lambda rows: rows, frozen=only_classifier(trainable, self.facts.groups), taps=(),
        )  # fmt: skip
        rois = step.rois()
        out = model.assign(rois, lambda: scores(model.classifier, rois))
        own = model.classifier.loss(model.classifier(out.taps), out.targets, _context(number))
        return out, {**out.losses, **own}


def scores(classifier: Classifier, out: TrainOutput) -> Tensor:
    """p_NC of the rows of a step, without gradient."""
    with torch.no_grad():
        return classifier.scores(classifier(out.taps))[0]


def total(losses: dict[str, Tensor]) -> Tensor:
    """What a training step derives."""
    return torch.stack([value.float().reshape(()) for value in losses.values()]).sum()


def state_of(model: Detector) -> dict[str, Tensor]:
    """A copy of its state dict."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def below(name: str) -> bool:
    """Whether a tensor of this name is no classifier's."""
    return name.partition(".")[0] != CLASSIFIER


def different(one: Mapping[str, Tensor], other: Mapping[str, Tensor], near: float = 0.0) -> list[str]:
    """The names of what differs; `near`: by more than this, absolute or relative."""
    return [
        name for name in sorted({*one, *other})
        if name not in one or name not in other or not close(one[name], other[name], near)
    ]  # fmt: skip


def close(one: Tensor, other: Tensor, near: float = NEAR) -> bool:
    """Whether two tensors are the same; see `different`."""
    if one.shape != other.shape:
        return False
    one, other = one.detach(), other.detach()
    return torch.allclose(one, other, near, near) if near and one.is_floating_point() else torch.equal(one, other)


def relabelled(batch: Batch, new_C: Tensor) -> Batch:
    """The batch with class c called new_C[c]."""
    return replace(batch, labels=[new_C[of] for of in batch.labels], negative=[new_C[of] for of in batch.negative])


def _context(number: int) -> Context:
    return Context(number, 0.0, torch.Generator().manual_seed(number))


def _build(engine: EngineFacts, place: Sandbox, seed: int) -> Detector:
    section, counts = place.suite.sections.detector, (5,) * C
    head = HeadSpec(C, *engine.head_widths(section), counts, counts, 9, counts, counts, (), section.classifier_std)
    classifier = make_classifier(place.store, _training(place), head, seed)
    code: Any = sys.modules[engine.module]  # the sandbox has imported it
    built: Detector = code.build(section, head, classifier, seed=seed)
    return built


def _training(place: Sandbox) -> Stage:
    return place.baseline.inputs["predict"].inputs["model"]
