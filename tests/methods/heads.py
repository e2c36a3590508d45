"""Heads, targets and contexts for tests of classifiers. Separate because several test files need them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bench.detection.contract import Context, HeadSpec, Taps, Targets


def head(counts: Sequence[int], features: int = 4, roi_shape: tuple[int, int, int] = (2, 2, 2)) -> HeadSpec:
    n = tuple(counts)
    return HeadSpec(len(n), features, roi_shape, n, n, 100, n, n)


def targets(labels: torch.Tensor | list[int]) -> Targets:
    y = torch.as_tensor(labels)
    return Targets(y, torch.zeros_like(y), [], [], Taps(torch.empty(0)))


def context(seed: int = 0) -> Context:
    return Context(0, 0.0, torch.Generator().manual_seed(seed))


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(losses.values())).sum()
