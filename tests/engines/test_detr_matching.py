"""Which query answers for which box: against all permutations, torchvision's IoU, and values by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from torchvision.ops import generalized_box_iou

from bench.engines.detr.matching import Pairs, Truth, Weights, box_losses, corners, giou, match, pixels, shares

DRAWS = torch.Generator().manual_seed(0)


def boxes(*shape: int) -> torch.Tensor:
    """cx cy w h inside the image."""
    side = 0.1 + 0.3 * torch.rand(*shape, 2, generator=DRAWS)
    return torch.cat((side / 2 + (1 - side) * torch.rand(*shape, 2, generator=DRAWS), side), dim=-1)


def truth(*counts: int, classes: int = 3) -> Truth:
    labels = [torch.randint(classes, (n,), generator=DRAWS) for n in counts]
    return Truth([boxes(n) for n in counts], labels, [torch.zeros(n, dtype=torch.bool) for n in counts])


def test_the_generalised_iou_is_torchvision_s() -> None:
    a, b = corners(boxes(5)), corners(boxes(7))
    torch.testing.assert_close(giou(a[:, None], b), generalized_box_iou(a, b), atol=1e-6, rtol=1e-5)


def test_pixels_and_back() -> None:
    box = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    found = shares(box, (100, 50))
    assert found.tolist() == [pytest.approx([0.4, 0.4, 0.4, 0.4])]
    torch.testing.assert_close(pixels(found, (100, 50)), box)


def test_the_match_costs_least_of_all() -> None:
    L, Q, weights = 2, 5, Weights(2.0, 5.0, 2.0)
    wanted, ours, score = truth(3, 0, 2), boxes(L, 3, Q), torch.rand(L, 3, Q, 3, generator=DRAWS)
    pairs = match(score, ours, wanted, weights)
    assert len(pairs.box) == L * 5
    for layer, b in itertools.product(range(L), range(3)):
        theirs, label = wanted.boxes[b], wanted.labels[b]
        cost = (
            -2 * score[layer, b][:, label]
            + 5 * (ours[layer, b][:, None] - theirs).abs().sum(-1)
            - 2 * giou(corners(ours[layer, b])[:, None], corners(theirs))
        )
        best = min(
            (sum(float(cost[q, g]) for g, q in enumerate(chosen)), chosen)
            for chosen in itertools.permutations(range(Q), len(theirs))
        )[1]
        mine = (pairs.layer == layer) & (pairs.image == b)
        found = dict(zip(pairs.box[mine].tolist(), pairs.query[mine].tolist(), strict=True))
        assert tuple(found[g] for g in range(len(theirs))) == best


def test_scores_that_are_not_finite_are_matched_last() -> None:
    wanted = Truth([torch.tensor([[0.5, 0.5, 0.2, 0.2]])], [torch.tensor([0])], [torch.tensor([False])])
    score = torch.tensor([float("nan"), 0.0]).view(1, 1, 2, 1)
    pairs = match(score, torch.tensor([[[[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]]]]), wanted, Weights(1, 1, 1))
    assert pairs.query.tolist() == [1]


def test_the_box_losses_by_hand() -> None:
    wanted = Truth(
        [torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]])], [torch.tensor([0, 1])],
        [torch.tensor([False, True])],
    )  # fmt: skip
    ours = torch.tensor([[[[0.6, 0.5, 0.2, 0.2]]]])
    zero = torch.zeros(1, dtype=torch.int64)
    found = box_losses(ours, wanted, Pairs(zero, zero, zero, zero), Weights(2.0, 5.0, 2.0), "loss_box")
    assert found["loss_box_l1"].item() == pytest.approx(5 * 0.1)  # one box counts: the other is to be ignored
    # IoU 0.1 x 0.2 / (0.3 x 0.2) = 1/3; the hull is the union.
    assert found["loss_box_giou"].item() == pytest.approx(2 * (1 - 1 / 3), abs=1e-5)
    assert wanted.number == 1


def test_an_image_without_boxes_has_no_pairs_and_no_loss() -> None:
    wanted = truth(0)
    pairs = match(torch.rand(1, 1, 4, 3), boxes(1, 1, 4), wanted, Weights(2, 5, 2))
    assert len(pairs.box) == 0
    ours = boxes(1, 1, 4).requires_grad_()
    found = box_losses(ours, wanted, pairs, Weights(2, 5, 2), "x")
    assert [value.item() for value in found.values()] == [0.0, 0.0]
