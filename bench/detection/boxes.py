"""Box geometry in plain torch. Separate because engines, post-processing and evaluation share it.

Boxes are x1 y1 x2 y2 in pixels without the +1 convention. Legend: N and M boxes, B images, K boxes per image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# exp of a size delta is bounded by this (torchvision and detectron2: log(1000 / 16)).
MAX_LOG_RATIO = math.log(1000.0 / 16)


def area(boxes_N4: Tensor) -> Tensor:
    """Areas, pixels squared; any leading shape."""
    return (boxes_N4[..., 2] - boxes_N4[..., 0]) * (boxes_N4[..., 3] - boxes_N4[..., 1])


def iou(a_N4: Tensor, b_M4: Tensor) -> Tensor:
    """Intersection over union, N x M; 0 where both boxes are empty (torchvision's box_iou returns nan there)."""
    low_NM2 = torch.maximum(a_N4[:, None, :2], b_M4[:, :2])
    high_NM2 = torch.minimum(a_N4[:, None, 2:], b_M4[:, 2:])
    side_NM2 = (high_NM2 - low_NM2).clamp(min=0)
    inter_NM = side_NM2[..., 0] * side_NM2[..., 1]
    union_NM = area(a_N4)[:, None] + area(b_M4) - inter_NM
    return inter_NM / union_NM.clamp(min=torch.finfo(union_NM.dtype).tiny)


def encode(targets_N4: Tensor, boxes_N4: Tensor, weights: Sequence[float]) -> Tensor:
    """Regression targets (dx, dy, dw, dh) x weights that carry `boxes` onto `targets` (R-CNN, appendix C)."""
    width, height = boxes_N4[..., 2] - boxes_N4[..., 0], boxes_N4[..., 3] - boxes_N4[..., 1]
    x, y = boxes_N4[..., 0] + 0.5 * width, boxes_N4[..., 1] + 0.5 * height
    to_width, to_height = targets_N4[..., 2] - targets_N4[..., 0], targets_N4[..., 3] - targets_N4[..., 1]
    to_x, to_y = targets_N4[..., 0] + 0.5 * to_width, targets_N4[..., 1] + 0.5 * to_height
    return torch.stack(
        (
            weights[0] * (to_x - x) / width,
            weights[1] * (to_y - y) / height,
            weights[2] * torch.log(to_width / width),
            weights[3] * torch.log(to_height / height),
        ),
        dim=-1,
    )


def decode(deltas_N4: Tensor, boxes_N4: Tensor, weights: Sequence[float]) -> Tensor:
    """The boxes that `deltas` make of `boxes`; leading shapes broadcast (N x C x 4 deltas with N x 1 x 4 boxes)."""
    width, height = boxes_N4[..., 2] - boxes_N4[..., 0], boxes_N4[..., 3] - boxes_N4[..., 1]
    x, y = boxes_N4[..., 0] + 0.5 * width, boxes_N4[..., 1] + 0.5 * height
    x = deltas_N4[..., 0] / weights[0] * width + x
    y = deltas_N4[..., 1] / weights[1] * height + y
    half_width = 0.5 * (torch.exp((deltas_N4[..., 2] / weights[2]).clamp(max=MAX_LOG_RATIO)) * width)
    half_height = 0.5 * (torch.exp((deltas_N4[..., 3] / weights[3]).clamp(max=MAX_LOG_RATIO)) * height)
    return torch.stack((x - half_width, y - half_height, x + half_width, y + half_height), dim=-1)


def clip(boxes_BK4: Tensor, sizes_B2: Tensor) -> Tensor:
    """Boxes cut to their image.

    Args:
        boxes_BK4: any number of dimensions between the first and the last.
        sizes_B2: (height, width) for each entry of the first dimension.
    """
    limit_B4 = sizes_B2[:, [1, 0, 1, 0]].to(boxes_BK4.dtype)
    limit = limit_B4.view(len(limit_B4), *(1,) * (boxes_BK4.dim() - 2), 4)
    return torch.minimum(boxes_BK4.clamp(min=0), limit)


def carry(
    boxes_N4: Tensor, seen: Sequence[float], shown: Sequence[float], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Boxes of one view of an image in another one, cut to it, and the share N of each one's area that is in it.

    Args:
        boxes_N4: pixels of the first view.
        seen: of the first view: (ax, bx, ay, by), see bench.detection.contract.Batch.placed.
        shown: the same of the other.
        size: (height, width) of the other.
    """
    ax, ay = shown[0] / seen[0], shown[2] / seen[2]
    factor = boxes_N4.new_tensor((ax, ay, ax, ay))
    shift = boxes_N4.new_tensor((shown[1] - ax * seen[1], shown[3] - ay * seen[3])).repeat(2)
    corners = boxes_N4 * factor + shift
    low, high = torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])
    limit = boxes_N4.new_tensor((size[1], size[0]))
    cut = torch.cat((low.clamp(min=0).minimum(limit), high.clamp(min=0).minimum(limit)), dim=1)
    return cut, area(cut) / (high - low).prod(dim=1).clamp(min=torch.finfo(cut.dtype).tiny)


def large_enough(boxes_N4: Tensor, min_size: float) -> Tensor:
    """bool N: both sides are at least `min_size` pixels."""
    return ((boxes_N4[..., 2:] - boxes_N4[..., :2]) >= min_size).all(-1)
