"""The training images of a search, divided: which stages make them. Separate from suite.py because no suite file says
it: whoever searches sets `Suite.division`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.key import module_version
from bench.stage import WHOLE, Stage


@dataclass(frozen=True)
class Tuning:
    """What is searched on: models are trained on `rest` and measured on `tune`, two parts of the training images.

    Attributes:
        fraction: of the training images that are in `tune`.
        seed: of the division. It is no row's seed: all seeds of a search have one division, where they have one data
            set.
    """

    fraction: float = 0.2
    seed: int = 0


def divided(whole: Stage, side: Literal["rest", "tune"], tuning: Tuning) -> Stage:
    """The data stage of one side of a training set.

    Its spec is that of the whole, so that what goes by a data set's settings, seed or fingerprint goes by those of its
    sides too; and what divides it.
    """
    own = {"split": side, "fraction": tuning.fraction, "division_seed": tuning.seed}
    return Stage("data", {**whole.spec, **own, "reader": module_version("bench.data.division")}, {WHOLE: whole})
