"""One classifier for each head: rows go to whom they belong, losses add up, the last detects."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from bench.detection.contract import Classifier, Context, HeadSpec, Taps, Targets
from bench.detection.per_head import OneHead, PerHead, edited
from bench.key import canonical
from bench.method import part
from methods.parts.softmax import Softmax

COUNTS = (5, 3)
HEAD = HeadSpec(2, 4, (0, 0, 0), COUNTS, COUNTS, 8, COUNTS, COUNTS)
SOFTMAX = canonical(part("softmax:Softmax"))


def made(count: int = 3) -> PerHead:
    torch.manual_seed(0)
    return PerHead(HEAD, inner=SOFTMAX, count=count)


def rows(head_N: list[int]) -> tuple[Taps, Targets]:
    draws = torch.Generator().manual_seed(1)
    taps = Taps(torch.randn(len(head_N), 4, generator=draws), head_N=torch.tensor(head_N))
    labels_N = torch.randint(3, (len(head_N),), generator=draws)
    return taps, Targets(labels_N, torch.zeros_like(labels_N), [], [], taps)


def test_each_row_is_judged_by_its_own_head() -> None:
    both, (taps, _) = made(), rows([2, 0, 1, 0, 2])
    z_NK = both(taps)
    for row, k in enumerate([2, 0, 1, 0, 2]):
        torch.testing.assert_close(z_NK[row], both.every[k](Taps(taps.box_features[row : row + 1]))[0])
    torch.testing.assert_close(both(Taps(taps.box_features)), both.every[2](Taps(taps.box_features)))


def test_the_loss_is_the_sum_of_those_of_the_heads() -> None:
    both, (taps, targets) = made(2), rows([0, 0, 0, 1])
    context = Context(0, 0.0, torch.Generator())
    found = both.loss(both(taps), targets, context)
    parts: list[Tensor] = []
    for k, one in enumerate(both.every):
        assert isinstance(one, Softmax)
        mine = torch.tensor([0, 0, 0, 1]) == k
        z = one(Taps(taps.box_features[mine]))
        parts.append(torch.nn.functional.cross_entropy(z, targets.labels_N[mine]))
    assert found["classification"].item() == pytest.approx(sum(p.item() for p in parts), rel=1e-6)


def test_groups_weights_and_edits() -> None:
    both = made(2)
    assert both.groups() == {"classifier": [f"heads.{k}.fc.{name}" for k in (0, 1) for name in ("weight", "bias")]}
    weights = both.class_weights()
    last = both.last.class_weights()
    assert weights is not None
    assert weights is last

    def times(one: Classifier, k: int) -> Classifier:
        assert isinstance(one, Softmax)
        with torch.no_grad():
            one.fc.weight.mul_(2 + k)
        return one

    before = [one.fc.weight.clone() for one in both.every]  # type: ignore[union-attr]
    edited(both, times)
    for k, (one, old) in enumerate(zip(both.every, before, strict=True)):
        assert torch.equal(one.fc.weight, (2 + k) * old)  # type: ignore[union-attr]
    detector = SimpleNamespace(classifier=both, levels=3)
    assert [OneHead(detector, k).classifier for k in (0, 1)] == both.every  # type: ignore[arg-type]
    assert OneHead(detector, 0).levels == 3  # type: ignore[arg-type]


def test_it_loads_head_by_head_and_nothing_of_a_single_one() -> None:
    mine, other = made(2), made(2)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    assert mine.load_from(other) == []
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), other.parameters(), strict=True))
    assert len(mine.load_from(Softmax(HEAD))) == 4
