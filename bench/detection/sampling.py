"""Matching and sampling of anchors and RoIs. Separate because every two-stage engine samples the same way.

torchvision's Matcher and BalancedPositiveNegativeSampler with two changes: what is drawn comes from an addressed
generator, and what overlaps an `ignore` box is left out. Legend: N anchors or RoIs, G true boxes, I ignored boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.detection.boxes import iou
from bench.detection.contract import Draws

# A box whose IoU with an ignored box reaches this is neither positive nor negative (methods.md 4: finetune-tail).
IGNORE_IOU = 0.5
# Above this many candidates indices are drawn by rejection: a permutation of 270,000 anchors costs 2 ms per image.
_PERMUTE_UP_TO = 4096


@dataclass(frozen=True)
class Matched:
    """Outcome of matching one image.

    Attributes:
        index_N: int64, the true box each entry belongs to (0 where there is none).
        positive_N: bool.
        negative_N: bool; entries that are neither are not sampled.
    """

    index_N: Tensor
    positive_N: Tensor
    negative_N: Tensor


def match(
    boxes_N4: Tensor, truth_G4: Tensor, ignore_I4: Tensor, *, high: float, low: float, rescue: bool = False
) -> Matched:
    """Match boxes to true boxes by IoU: positive from `high`, negative below `low`.

    Args:
        boxes_N4: anchors or proposals.
        truth_G4: true boxes; may be empty, then all are negative.
        ignore_I4: ignored boxes; what reaches IoU 0.5 with one and has no true box is not sampled.
        high: IoU from which a box is positive.
        low: IoU below which it is negative.
        rescue: the best boxes of every true box are positive too (RPN: Faster R-CNN, section 3.1.2, (i)).
    """
    count = len(boxes_N4)
    if not len(truth_G4) or not count:
        index_N = torch.zeros(count, dtype=torch.int64, device=boxes_N4.device)
        positive_N = torch.zeros(count, dtype=torch.bool, device=boxes_N4.device)
        negative_N = ~positive_N
    else:
        iou_GN = iou(truth_G4, boxes_N4)
        best_N, index_N = iou_GN.max(0)
        positive_N = best_N >= high
        if rescue:
            best_G1 = iou_GN.amax(1, keepdim=True)
            # DEVIATION: torchvision also rescues at IoU 0: a true box that meets no anchor makes EVERY one positive.
            positive_N = positive_N | ((iou_GN == best_G1) & (best_G1 > 0)).any(0)
        negative_N = (best_N < low) & ~positive_N
    if len(ignore_I4) and count:
        negative_N = negative_N & (iou(ignore_I4, boxes_N4).amax(0) < IGNORE_IOU)
    return Matched(index_N, positive_N, negative_N)


def draw(matched: Matched, count: int, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """At most `count` indices of one image, at most int(count * fraction) of them positive.

    Args:
        matched: what is positive and what negative.
        count: samples of the image.
        fraction: largest share of positives.
        generator: a CPU generator of this image's address; the draw is the same on every device.

    Returns:
        (positive, negative) indices, int64, each ascending.
    """
    positive, negative = matched.positive_N.nonzero()[:, 0], matched.negative_N.nonzero()[:, 0]
    num_positive = min(len(positive), int(count * fraction))
    num_negative = min(len(negative), count - num_positive)
    return _choose(positive, num_positive, generator), _choose(negative, num_negative, generator)


@torch.no_grad()
def sample_rois(
    proposals: Sequence[Tensor],
    truth: Sequence[Tensor],
    labels: Sequence[Tensor],
    ignored: Sequence[Tensor],
    draws: Draws,
    *,
    count: int,
    fraction: float,
    fg_iou: float,
    background: int,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """RoIs of a batch, drawn among proposals and true boxes.

    Args:
        proposals, truth, labels, ignored: of each image.
        draws: addressed as ("roi_sample", image).
        count, fraction: see `draw`.
        fg_iou: from this IoU with a true box on a RoI is positive, else negative.
        background: label of a negative.

    Returns:
        (RoIs of each image, label of each RoI, true box of each RoI - itself where it is background).
    """
    sampled, labels_N, target_N4 = [], [], []
    for image, (truth_G4, ignore_I4) in enumerate(zip(truth, ignored, strict=True)):
        boxes = torch.cat((proposals[image], truth_G4))
        matched = match(boxes, truth_G4, ignore_I4, high=fg_iou, low=fg_iou)
        hit, miss = draw(matched, count, fraction, draws.generator("roi_sample", image))
        rows = torch.cat((hit, miss))
        label = labels[image].new_full((len(rows),), background)
        target = boxes[rows]
        label[: len(hit)] = labels[image][matched.index_N[hit]]
        target[: len(hit)] = truth_G4[matched.index_N[hit]]
        sampled.append(boxes[rows])
        labels_N.append(label)
        target_N4.append(target)
    return sampled, torch.cat(labels_N), torch.cat(target_N4)


def image_of(boxes: Sequence[Tensor]) -> Tensor:
    """int64: the image of each row, of boxes image by image."""
    counts = torch.tensor([len(of_image) for of_image in boxes])
    return torch.repeat_interleave(torch.arange(len(boxes)), counts).to(boxes[0].device)


def _choose(indices: Tensor, count: int, generator: torch.Generator) -> Tensor:
    total = len(indices)
    if count >= total:
        return indices
    if total <= _PERMUTE_UP_TO or count * 4 > total:
        chosen = torch.randperm(total, generator=generator)[:count]
    else:
        chosen = _distinct(total, count, generator)
    return indices[chosen.sort().values.to(indices.device)]


def _distinct(total: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` distinct integers below `total`, uniform: the first distinct ones of an i.i.d. stream."""
    seen: dict[int, None] = {}
    while len(seen) < count:
        seen.update(dict.fromkeys(torch.randint(total, (2 * count,), generator=generator).tolist()))
    return torch.tensor(list(seen)[:count])
