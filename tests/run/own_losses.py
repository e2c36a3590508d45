"""Methods with losses beside the classifier's, as a third party writes them. Shared by the tests of losses."""

from __future__ import annotations

from pathlib import Path

from bench.suite.suite import Suite
from tests.tiny_suite import SMOKE, tiny

RECIPES = '''
from pathlib import Path
from typing import ClassVar, Literal

from bench.method import Builder, Method, part
from bench.stage import Stage

PARTS = str(Path(__file__).with_name("own_losses_parts.py"))


class Averaged(Method):
    """Follow an average of the own features, a queue of them, and a teacher's."""

    name: ClassVar[str] = "averaged"
    gain: float = 0.5

    def plan(self, b: Builder) -> Stage:
        base = b.train()
        losses = (part(f"{PARTS}:Averaged", gain=self.gain), part(f"{PARTS}:Teacher", teacher=base, gain=self.gain))
        return b.train(
            init=base, keep_classifier=True, losses=losses, trainable=(*b.projector, "classifier"),
            schedule="classifier_only",
        )


class Taught(Method):
    """A teacher alone: no draws."""

    name: ClassVar[str] = "taught"

    def plan(self, b: Builder) -> Stage:
        base = b.train()
        return b.train(
            init=base, keep_classifier=True, losses=(part(f"{PARTS}:Teacher", teacher=base, gain=1.0),),
            trainable=(*b.projector, "classifier"), schedule="classifier_only",
        )


class Alone(Method):
    """Pre-training by one loss, without those of the detector; then the detector."""

    name: ClassVar[str] = "alone"

    def plan(self, b: Builder) -> Stage:
        before = b.train(
            detection=False, losses=(part(f"{PARTS}:Averaged", gain=1.0),), trainable=("backbone", "fpn"),
            schedule="pretrain",
        )
        return b.train(init=before, keep_classifier=True, schedule="classifier_only")


class Wrong(Method):
    """Losses that cannot be added up."""

    name: ClassVar[str] = "wrong"
    what: Literal["name", "count", "other"] = "name"

    def plan(self, b: Builder) -> Stage:
        losses = [part(f"{PARTS}:Wrong", what=self.what)]
        if self.what == "other":
            losses.append(part(f"{PARTS}:Averaged"))
        return b.train(losses=losses)
'''
PARTS = """
import torch
from torch import nn

from bench.detection.losses import ExtraLoss, Losses


class Averaged(ExtraLoss):
    def __init__(self, head, *, gain: float = 1.0):
        super().__init__(head)
        self.gain = gain
        self.project = nn.Linear(head.features, 4)
        self.register_buffer("queue", torch.zeros(6, 4))
        self.register_buffer("average", torch.zeros(head.features))

    def begin(self, student):
        self.average.fill_(0.25)

    def loss(self, step):
        one, other = (step.taps(step.batch(view).boxes, view=view).box_features for view in (0, 1))
        assert step.maps() is step.maps()
        draws = torch.rand(6, 4, generator=step.context.generator).to(one)
        near = (self.project(one).mean(dim=0) - self.queue - 0.1 * draws).square().mean()
        far = (other - self.average).square().mean()
        return Losses({"average": self.gain * (near + far)}, {"average": len(one)})

    def updated(self, student, context):
        w = student.classifier.fc.weight.detach()
        self.average.mul_(0.9).add_(w.mean(dim=0), alpha=0.1)
        self.queue.copy_(torch.cat((self.queue[1:], self.project.weight[:, :4].mean(dim=1)[None])))


class Teacher(ExtraLoss):
    def __init__(self, head, *, teacher, gain: float = 1.0):
        super().__init__(head)
        self.teacher, self.gain = teacher, gain
        assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())

    def loss(self, step):
        theirs = step.rois(self.teacher)
        assert not theirs.taps.box_features.requires_grad and theirs.losses == {}
        assert sum(map(len, theirs.boxes)) == len(theirs.taps.box_features)
        own = step.taps(theirs.boxes).box_features
        gap = (own - theirs.taps.box_features).square().sum()
        return Losses({"teacher": self.gain * gap / max(len(own), 1)}, {"teacher": len(own)})


class Wrong(ExtraLoss):
    def __init__(self, head, *, what: str = "name"):
        super().__init__(head)
        self.what = what

    def loss(self, step):
        value = step.rois().taps.box_features.sum() * 0
        if self.what == "count":
            return Losses({"mine": value}, {"mein": 1})
        name = "classification" if self.what == "name" else "average"
        return Losses({name: value}, {name: 1})
"""
ROWS = """rows:
  baseline: {method: baseline}
  averaged: {method: averaged}
  taught: {method: taught}
  alone: {method: alone}
  name: {method: wrong, what: name}
  count: {method: wrong, what: count}
  other: {method: wrong, what: other}
  x2: {method: x2, schedule: {steps: 12}}
"""


def suite_of(folder: Path, *sets: str, only: str | None = None) -> Suite:
    """The tiny suite with these methods as rows; their files are written into the folder."""
    (folder / "own_losses.py").write_text(RECIPES)
    (folder / "own_losses_parts.py").write_text(PARTS)
    above = SMOKE.read_text().split("rows:")[0]
    stages = "  pretrain: {steps: 8}\n"
    assert "stages:\n" in above
    above = above.replace("stages:\n", f"stages:\n{stages}")
    (folder / "own_losses.yaml").write_text(f"methods_path: own_losses.py\n{above}{ROWS}")
    return tiny(*sets, path=folder / "own_losses.yaml", only=only)
