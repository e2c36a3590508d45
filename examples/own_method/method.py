"""A method of one's own, written by `python -m bench init`. Change it; `python -m bench methods check` holds it to what
is promised of every method.

The recipe says which stages a row needs. It imports no torch, so that planning answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from bench.method import Builder, Method, part
from bench.stage import Stage

PARTS = Path(__file__).resolve().parent / "parts.py"


class Mine(Method):
    """The classifier is trained again on the frozen detector, with the loss of parts.py.

    Source: name the paper and the equation here.
    """

    name: ClassVar[str] = "mine"
    strength: Annotated[float, Field(ge=0, le=10)] = 1.0

    def plan(self, b: Builder) -> Stage:
        return b.train(
            init=b.train(),  # the baseline, which all rows share
            keep_classifier=True,
            classifier=part(f"{PARTS}:MineSoftmax", strength=self.strength),
            trainable=("classifier",),
        )
