"""Where a classifier may read, as data. Separate from contract.py: planning names taps and must not import torch.

The fields of `Taps` are the one list of them: whatever goes through all taps (gathering, keeping, planning) reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Taps:
    """Where a classifier may read; a tap that `Classifier.inputs` does not name may be None. Rows are RoIs (N)."""

    box_features: Tensor  # ND, after the last ReLU of the box head
    box_features_pre_relu: Tensor | None = None  # ND
    roi_map: Tensor | None = None  # N x channels x P x P
    # int64 N: which head a row belongs to, of an engine with several; None: all to the last. Nobody asks for it.
    head_N: Tensor | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> Taps:
        """What is there, changed one after another in the order of the fields."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Taps(**{name: change(value) for name, value in values.items() if value is not None})


TAPS: tuple[str, ...] = tuple(field.name for field in fields(Taps) if field.name != "head_N")


def tap_width(tap: str, features: int, roi_shape: tuple[int, int, int]) -> int:
    """Values of a tap for one RoI, where box features are `features` wide and RoI maps are of `roi_shape`."""
    return math.prod(roi_shape) if tap == "roi_map" else features
