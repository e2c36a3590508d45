"""Methods with one thing wrong, written into a folder as a contributor's files are."""

from __future__ import annotations

from pathlib import Path

from bench.contract_check.checks import named
from bench.method import Method

RECIPE = '''
"""A recipe."""
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from bench.method import Builder, Method, part
from bench.stage import Stage

LOSS = Path(__file__).resolve().parent / "own_parts.py"
{top}

class Own(Method):
    """A softmax with a scale on its loss.

    Source: nobody.
    """

    name: ClassVar[str] = "own"
    {fields}

    def plan(self, b: Builder) -> Stage:
        {first}
        base = b.train()
        return b.train(
            init=base, keep_classifier=True, classifier={part}, trainable=("classifier",), losses=[{losses}]
        )
'''
PARTS = '''
"""Its part."""
import torch
from torch import Tensor, nn

from bench.detection.losses import ExtraLoss, Losses
from methods.parts.softmax import Softmax, wide


class Own(Softmax):
    def __init__(self, head, *, gain: float = 1.0) -> None:
        super().__init__(head)
        self.gain = gain
        {init}

    def loss(self, z_NK, targets, context):
        loss = super().loss(z_NK, targets, context)["classification"] * self.gain
        {loss}
        return {{"classification": loss}}

    {more}


class Taught(ExtraLoss):
    def __init__(self, head, *, teacher) -> None:
        super().__init__(head)
        self.teacher = teacher

    def loss(self, step):
        own, theirs = (step.rois(model).taps for model in (None, self.teacher))
        z, t = step.student.classifier(own), self.teacher.classifier(theirs)
        n = min(len(z), len(t))
        return Losses({{"taught": (z[:n] - t[:n]).square().mean()}}, {{"taught": n}})

    {more_of_loss}
'''


def write(
    folder: Path,
    *,
    top: str = "",
    fields: str = "gain: Annotated[float, Field(gt=0)] = 1.0",
    first: str = "",
    part: str = 'part(f"{LOSS}:Own", gain=self.gain)',
    init: str = "",
    loss: str = "",
    more: str = "",
    losses: str = "",
    more_of_loss: str = "",
) -> Path:
    """The recipe and its part; each argument is code put in one place. Without any, nothing is wrong."""
    recipe = RECIPE.format(top=top, fields=fields, first=first or '"""Plan."""', part=part, losses=losses)
    (folder / "own.py").write_text(recipe)
    (folder / "own_parts.py").write_text(PARTS.format(init=init, loss=loss, more=more, more_of_loss=more_of_loss))
    return folder / "own.py"


def own(path: Path) -> type[Method]:
    """The method of a file that was written."""
    found = named(str(path))
    assert found.broken is None, found.broken
    return found.methods["own"]
