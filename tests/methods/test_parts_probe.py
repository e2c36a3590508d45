"""A linear probe: a line that numpy finds too, rare classes that weigh as much as frequent ones, hits by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.errors import UserError
from methods.parts.probe import Hits, Ridge
from tests.methods.rois import head


def seen(x_ND: Tensor, labels: list[int]) -> Any:
    return SimpleNamespace(taps=SimpleNamespace(box_features=x_ND), labels_N=torch.tensor(labels))


def test_it_is_the_weighted_ridge_regression_that_numpy_finds() -> None:
    draws = np.random.default_rng(0)
    labels = [0] * 6 + [1] * 3 + [2]
    x = draws.normal(size=(10, 4)) + 2 * np.eye(4)[[0, 1, 2]][labels]
    probe = Ridge(head((6, 3, 1)), ridge=0.1)
    for cut in (slice(0, 4), slice(4, 10)):  # as batches come
        probe.update(seen(torch.from_numpy(x[cut]).float(), labels[cut]))
    found = probe.result()
    w = np.array([1 / 6, 1 / 3, 1.0])[labels]  # every class weighs 1 in all
    w /= w.sum()
    y = np.eye(3)[labels]
    centred = x.astype(np.float32) - w @ x.astype(np.float32)
    covariance = centred.T @ (w[:, None] * centred)
    added = 0.1 * np.trace(covariance) / 4
    weight = np.linalg.solve(covariance + added * np.eye(4), centred.T @ (w[:, None] * (y - w @ y)))
    assert found["weight_DC"].numpy() == pytest.approx(weight, abs=1e-6)
    assert found["eigenvalues_D"].numpy() == pytest.approx(np.linalg.eigvalsh(covariance)[::-1], abs=1e-6)
    assert found["bias_C"].numpy() == pytest.approx(w @ y - (w @ x.astype(np.float32)) @ weight, abs=1e-6)


def test_a_class_with_one_box_is_found_beside_one_with_a_hundred() -> None:
    draws = torch.Generator().manual_seed(0)
    labels = [0] * 100 + [1]
    x = 0.1 * torch.randn(101, 4, generator=draws)
    x[100] += torch.tensor([0.0, 1.0, 0.0, 0.0])
    probe = Ridge(head((100, 1)))
    probe.update(seen(x, labels))
    hits = Hits(head((100, 1)), probe=probe.result())
    new = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.1, 0.0], [0.0, 0.05, 0.0, 0.0]])
    hits.update(seen(new, [1, 0, 0]))
    hits.update(seen(new[:1], [0]))  # a box of class 0 that looks like class 1
    assert hits.result()["seen_C"].tolist() == [3, 1]
    assert hits.result()["hits_C"].tolist() == [2, 1]


def test_features_that_are_all_alike_tell_nothing_and_break_nothing() -> None:
    probe = Ridge(head((2, 2)))
    probe.update(seen(torch.ones(4, 4), [0, 0, 1, 1]))
    found = probe.result()
    assert found["weight_DC"].abs().max() < 1e-6
    assert found["bias_C"].tolist() == pytest.approx([0.5, 0.5])


def test_a_ridge_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="ridge is 0"):
        Ridge(head((2, 2)), ridge=0.0)
