"""Anchors to proposals, and the RPN's losses. Separate from the detector because it is a stage of its own.

Same numbers as torchvision's RegionProposalNetwork, but only the boxes that pass the pre-NMS cut are decoded, only
sampled anchors are encoded, and anchors are made once per size. Legend: B images, A anchors per image, K kept anchors.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms, nms

from bench.detection.boxes import clip, decode, encode, large_enough
from bench.detection.contract import Draws
from bench.detection.sampling import draw, match
from bench.engines.sections import Rpn

_UNIT = (1.0, 1.0, 1.0, 1.0)
_KEPT_GRIDS = 16  # sizes; an 800 px image has 270,000 anchors, 4 MB


@dataclass(frozen=True)
class RpnOutput:
    """The RPN's outputs for a batch.

    Attributes:
        objectness_BA: logits, float32.
        deltas_BA4: box deltas, float32.
        anchors_A4: pixels, the same for every image of the batch.
        per_level: anchors of each level; they sum to A.
    """

    objectness_BA: Tensor
    deltas_BA4: Tensor
    anchors_A4: Tensor
    per_level: tuple[int, ...]


class Anchors:
    """torchvision's AnchorGenerator behind a small cache (anchors depend on sizes only)."""

    def __init__(self, rpn: Rpn) -> None:
        self._generator = AnchorGenerator(rpn.anchor_sizes, (rpn.anchor_ratios,) * len(rpn.levels))
        self._cache: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()

    def __call__(self, images: Tensor, maps: Sequence[Tensor]) -> Tensor:
        key = (images.device, *images.shape[-2:], *(tuple(level.shape[-2:]) for level in maps))
        if key not in self._cache:
            # float32 also where the maps are bfloat16 under autocast: 8 bits do not hold a coordinate above 256.
            # Not an inference tensor, should the first batch come from prediction: training reads the same cache.
            with torch.inference_mode(False):
                shapes = [torch.empty(1, 1, *level.shape[-2:], device=level.device) for level in maps]
                frame = torch.empty(1, 3, *images.shape[-2:], device=images.device)
                self._cache[key] = self._generator(ImageList(frame, [tuple(images.shape[-2:])]), shapes)[0]
            if len(self._cache) > _KEPT_GRIDS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]


def run_rpn(head: nn.Module, anchors: Anchors, images: Tensor, maps: Sequence[Tensor]) -> RpnOutput:
    """Objectness and deltas of every anchor, level by level, cell by cell (row-major), anchor by anchor."""
    objectness, deltas = head(list(maps))
    batch = len(images)
    flat = [level.permute(0, 2, 3, 1).reshape(batch, -1).float() for level in objectness]
    flat_deltas = [level.permute(0, 2, 3, 1).reshape(batch, -1, 4).float() for level in deltas]
    per_level = tuple(level.shape[1] for level in flat)
    return RpnOutput(torch.cat(flat, 1), torch.cat(flat_deltas, 1), anchors(images, maps), per_level)


@torch.no_grad()
def propose(output: RpnOutput, sizes_B2: Tensor, rpn: Rpn, *, pre_nms: int, post_nms: int) -> list[Tensor]:
    """Proposals of each image, n x 4 by falling objectness; n may be 0.

    Args:
        output: of `run_rpn`.
        sizes_B2: (height, width) of each image inside the padding.
        rpn: NMS threshold and smallest side.
        pre_nms: anchors of each LEVEL that enter NMS.
        post_nms: proposals of each image.
    """
    top, levels = [], []
    start = 0
    for level, objectness in enumerate(torch.split(output.objectness_BA, list(output.per_level), 1)):
        top.append(objectness.topk(min(pre_nms, objectness.shape[1]), 1).indices + start)
        levels.append(top[-1].new_full((top[-1].shape[1],), level))
        start += objectness.shape[1]
    top_BK, level_K = torch.cat(top, 1), torch.cat(levels)
    deltas_BK4 = output.deltas_BA4.gather(1, top_BK[..., None].expand(-1, -1, 4))
    boxes_BK4 = clip(decode(deltas_BK4, output.anchors_A4[top_BK], _UNIT), sizes_B2)
    # NMS on probabilities, as in torchvision: above logit 17 they tie in float32, and ties must be ordered alike.
    scores_BK = output.objectness_BA.gather(1, top_BK).sigmoid()
    large_BK = large_enough(boxes_BK4, rpn.min_size)
    proposals = []
    for boxes_K4, scores_K, large_K in zip(boxes_BK4, scores_BK, large_BK, strict=True):
        rows = large_K.nonzero()[:, 0]
        boxes, scores = boxes_K4[rows], scores_K[rows]
        one_level = len(output.per_level) == 1
        kept = nms(boxes, scores, rpn.nms) if one_level else batched_nms(boxes, scores, level_K[rows], rpn.nms)
        proposals.append(boxes[kept[:post_nms]])
    return proposals


def rpn_losses(
    output: RpnOutput, truth: Sequence[Tensor], ignored: Sequence[Tensor], rpn: Rpn, draws: Draws
) -> tuple[dict[str, Tensor], int]:
    """loss_objectness (mean BCE of the sampled anchors) and loss_rpn_box_reg (smooth-L1 summed / sampled anchors), and
    the number of sampled anchors.

    Args:
        output: of `run_rpn`.
        truth: true boxes of each image, without the ignored ones.
        ignored: ignored boxes of each image.
        rpn: thresholds, counts, beta.
        draws: addressed as ("rpn_sample", image).
    """
    num_anchors = len(output.anchors_A4)
    positive, negative, targets, sources = [], [], [], []
    for image, (truth_G4, ignore_I4) in enumerate(zip(truth, ignored, strict=True)):
        matched = match(output.anchors_A4, truth_G4, ignore_I4, high=rpn.fg_iou, low=rpn.bg_iou, rescue=True)
        hit, miss = draw(matched, rpn.samples, rpn.positive_fraction, draws.generator("rpn_sample", image))
        positive.append(hit + image * num_anchors)
        negative.append(miss + image * num_anchors)
        targets.append(truth_G4[matched.index_N[hit]])
        sources.append(output.anchors_A4[hit])
    positive_P, negative_Q = torch.cat(positive), torch.cat(negative)
    sampled = torch.cat((positive_P, negative_Q))
    count = max(len(sampled), 1)
    wanted_P4 = encode(torch.cat(targets), torch.cat(sources), _UNIT)
    logits = output.objectness_BA.flatten()[sampled]
    labels = torch.zeros_like(logits)
    labels[: len(positive_P)] = 1.0
    deltas_P4 = output.deltas_BA4.flatten(0, 1)[positive_P]
    losses = {
        "loss_objectness": F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / count,
        "loss_rpn_box_reg": F.smooth_l1_loss(deltas_P4, wanted_P4, beta=rpn.beta, reduction="sum") / count,
    }
    return losses, len(sampled)
