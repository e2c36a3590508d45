"""Which query answers for which true box, and the box losses of the pairs. Separate from the network, which knows no
truth.

Shape legend: L decoder layers, B images, Q queries, G true boxes of an image, P pairs, N rows: layers, images, queries.
Boxes here are cx cy w h, shares of the image inside the padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

FAR = 1e6  # cost of what is not finite: such a pair is made only where nothing else is left


@dataclass(frozen=True)
class Weights:
    """Of the parts of a cost, or of a loss."""

    score: float
    l1: float
    giou: float


@dataclass(frozen=True)
class Truth:
    """The true boxes of a batch, image by image.

    `ignore`: boxes that take part in the match, and whose query is then left out of every loss.
    """

    boxes: Sequence[Tensor]
    labels: Sequence[Tensor]
    ignore: Sequence[Tensor]

    @property
    def number(self) -> int:
        """Boxes that count."""
        return sum(int((~ignore).sum()) for ignore in self.ignore)

    def flat_labels(self, pairs: Pairs) -> Tensor:
        """The class of each pair's box."""
        return torch.cat([pairs.box.new_zeros(0), *self.labels])[self.rows(pairs)]

    def flat_ignore(self, pairs: Pairs) -> Tensor:
        """Whether each pair's box is to be ignored."""
        return torch.cat([pairs.box.new_zeros(0, dtype=torch.bool), *self.ignore])[self.rows(pairs)]

    def flat_boxes(self, pairs: Pairs) -> Tensor:
        """Each pair's box."""
        return torch.cat([torch.zeros(0, 4, device=pairs.box.device), *self.boxes])[self.rows(pairs)]

    def rows(self, pairs: Pairs) -> Tensor:
        """The position of each pair's box among those of all images."""
        first = torch.tensor([0, *(len(boxes) for boxes in self.boxes)], device=pairs.box.device).cumsum(0)
        return first[pairs.image] + pairs.box


@dataclass(frozen=True)
class Pairs:
    """Matched queries: P entries each. `box` is the position in the image's truth."""

    layer: Tensor
    image: Tensor
    query: Tensor
    box: Tensor

    def of(self, chosen: Tensor) -> Pairs:
        """Some of them."""
        return Pairs(self.layer[chosen], self.image[chosen], self.query[chosen], self.box[chosen])


def shares(boxes_G4: Tensor, size: tuple[int, int]) -> Tensor:
    """x1 y1 x2 y2 in pixels of an image of (height, width) -> cx cy w h in shares of it."""
    height, width = size
    low, high = boxes_G4[..., :2], boxes_G4[..., 2:]
    scale = boxes_G4.new_tensor([width, height])
    return torch.cat(((low + high) / 2 / scale, (high - low) / scale), dim=-1)


def pixels(boxes_N4: Tensor, size: tuple[int, int]) -> Tensor:
    """The way back from `shares`."""
    height, width = size
    scale = boxes_N4.new_tensor([width, height, width, height])
    return corners(boxes_N4) * scale


def corners(boxes: Tensor) -> Tensor:
    """cx cy w h -> x1 y1 x2 y2."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes x1 y1 x2 y2 that broadcast against each other: -1 to 1.

    Source: Rezatofighi et al. 2019, algorithm 1. Boxes without an area have the IoU 0.
    """
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(dim=-1)
    outer = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(dim=-1)
    union = (a[..., 2:] - a[..., :2]).prod(dim=-1) + (b[..., 2:] - b[..., :2]).prod(dim=-1) - inner
    return inner / union.clamp(min=1e-9) - (outer - union) / outer.clamp(min=1e-9)


@torch.no_grad()
def match(score_LBQC: Tensor, boxes_LBQ4: Tensor, truth: Truth, weights: Weights) -> Pairs:
    """The one-to-one match of each image in each layer that costs least in all.

    Source: Carion et al. 2020 (DETR), equation 1; Zhu et al. 2021 has the weights.

    Args:
        score_LBQC: what a query loses by not being of a class: the larger, the likelier it is matched.
        boxes_LBQ4: of the queries.
        truth: of the B images.
        weights: of the score, the L1 distance and the generalised IoU.
    """
    rows: list[tuple[int, int, int, int]] = []
    for b, (boxes_G4, label_G) in enumerate(zip(truth.boxes, truth.labels, strict=True)):
        if not len(boxes_G4):
            continue
        ours_LQ4 = boxes_LBQ4[:, b]
        cost_LQG = -weights.score * score_LBQC[:, b][:, :, label_G]
        cost_LQG = cost_LQG + weights.l1 * torch.cdist(ours_LQ4, boxes_G4.expand(len(ours_LQ4), -1, -1), p=1)
        cost_LQG = cost_LQG - weights.giou * giou(corners(ours_LQ4)[:, :, None], corners(boxes_G4))
        table = torch.nan_to_num(cost_LQG.float(), nan=FAR, posinf=FAR, neginf=-FAR).cpu().numpy()
        for layer, of_layer in enumerate(table):
            queries, boxes = linear_sum_assignment(of_layer)
            rows += [(layer, b, int(q), int(g)) for q, g in zip(queries, boxes, strict=True)]
    found = torch.tensor(rows, dtype=torch.int64, device=boxes_LBQ4.device).reshape(-1, 4)
    return Pairs(*found.unbind(dim=1))


def box_losses(boxes_LBQ4: Tensor, truth: Truth, pairs: Pairs, weights: Weights, prefix: str) -> dict[str, Tensor]:
    """L1 and generalised IoU of the pairs, summed over layers and divided by the number of true boxes.

    Source: Carion et al. 2020 (DETR), equation 2 and A.2.
    """
    ours = boxes_LBQ4[pairs.layer, pairs.image, pairs.query]
    theirs = truth.flat_boxes(pairs)
    number = max(truth.number, 1)
    return {
        f"{prefix}_l1": weights.l1 * (ours - theirs).abs().sum() / number,
        f"{prefix}_giou": weights.giou * (1 - giou(corners(ours), corners(theirs))).sum() / number,
    }
