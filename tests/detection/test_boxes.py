"""Box geometry against torchvision's, value for value."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou, clip_boxes_to_image

from bench.detection.boxes import MAX_LOG_RATIO, area, clip, decode, encode, iou, large_enough

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def boxes(count: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=draw) * 100
    return torch.cat((corner, corner + 1 + torch.rand(count, 2, generator=draw) * 40), 1)


def test_iou_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 0, 0]])
    b = torch.tensor([[1.0, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6], [0, 0, 0, 0]])
    expected = torch.tensor([[1 / 7, 1, 0, 0], [0, 0, 0, 0]])
    assert torch.allclose(iou(a, b), expected)
    assert area(a).tolist() == [4, 0]


def test_iou_encode_decode_equal_torchvision() -> None:
    a, b = boxes(30, 0), boxes(20, 1)
    assert torch.equal(iou(a, b), box_iou(a, b))
    coder = BoxCoder(WEIGHTS)
    assert torch.equal(encode(a[:20], b, WEIGHTS), coder.encode_single(a[:20], b))
    deltas = torch.randn(20, 4, generator=torch.Generator().manual_seed(2)) * 3
    assert torch.equal(decode(deltas, b, WEIGHTS), coder.decode_single(deltas, b))


def test_decode_undoes_encode_and_broadcasts_over_classes() -> None:
    a, b = boxes(12, 3), boxes(12, 4)
    assert torch.allclose(decode(encode(a, b, WEIGHTS), b, WEIGHTS), a, atol=1e-3)
    deltas_NC4 = torch.randn(12, 3, 4, generator=torch.Generator().manual_seed(0))
    per_class = decode(deltas_NC4, b[:, None], WEIGHTS)
    for c in range(3):
        assert torch.equal(per_class[:, c], decode(deltas_NC4[:, c], b, WEIGHTS))


def test_decode_bounds_the_size() -> None:
    huge = decode(torch.tensor([[0.0, 0.0, 1e6, 1e6]]), torch.tensor([[0.0, 0.0, 1.0, 1.0]]), (1, 1, 1, 1))
    assert torch.isfinite(huge).all()
    assert float(huge[0, 2] - huge[0, 0]) == pytest.approx(math.exp(MAX_LOG_RATIO), rel=1e-5)


def test_clip_per_image() -> None:
    wild = (boxes(6, 5) - 30) * 3
    pair = torch.stack((wild, wild))
    cut = clip(pair, torch.tensor([[50, 80], [90, 20]]))
    assert torch.equal(cut[0], clip_boxes_to_image(wild, (50, 80)))
    assert torch.equal(cut[1], clip_boxes_to_image(wild, (90, 20)))
    rows = clip(wild, torch.tensor([[50, 80]] * 6))
    assert torch.equal(rows, cut[0])


def test_large_enough_needs_both_sides() -> None:
    four = torch.tensor([[0.0, 0, 3, 3], [0, 0, 2.9, 9], [0, 0, 9, 2.9], [0, 0, 9, 9]])
    assert large_enough(four, 3).tolist() == [True, False, False, True]
