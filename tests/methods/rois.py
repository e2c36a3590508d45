"""Made heads, labels and toy values for the tests of classifiers. Separate because several test files need them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.detection.contract import Context, HeadSpec, Taps, Targets

TOY = json.loads((Path(__file__).parent / "toy_values.json").read_text())
LVIS = Path(__file__).parents[3] / "shared/reference/lvis_v0.5_train_counts.csv"


def head(counts: Sequence[int], features: int = 4, roi_shape: tuple[int, int, int] = (2, 2, 2)) -> HeadSpec:
    """A head over classes with these training instances."""
    n = tuple(counts)
    return HeadSpec(len(n), features, roi_shape, n, n, 100, n, n)


def targets(labels: Sequence[int] | Tensor) -> Targets:
    """RoIs of one image."""
    y = torch.as_tensor(labels, dtype=torch.int64)
    return Targets(y, torch.zeros_like(y), [], [], Taps(torch.empty(0)))


def context(seed: int = 0) -> Context:
    """The first step of a training."""
    return Context(0, 0.0, torch.Generator().manual_seed(seed))


def bg_last(rows: Any) -> Tensor:
    """Entry or column 0 of the toy values is background; ours come last. float64."""
    return torch.as_tensor(rows, dtype=torch.float64).roll(-1, dims=-1)


def toy_rois(key: str = "reweight_ce", labels: str = "labels_bg_is_0") -> tuple[Tensor, list[int]]:
    """Logits and labels of a toy value, background last."""
    z = bg_last(TOY[key]["logits"])
    return z, [(y - 1) % z.shape[1] for y in TOY[key][labels]]


def total(losses: dict[str, Tensor]) -> Tensor:
    """What a training step adds up."""
    return torch.stack(list(losses.values())).sum()
