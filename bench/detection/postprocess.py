"""From class scores and refined boxes to final detections. Separate because two-stage engines share it exactly.

The rule is plain: keep scores above a threshold, suppress per class, keep the best of the image (`Inference.kept`). NMS
is greedy by score and few boxes are kept, so it runs over the candidates in blocks, best first, and stops once enough
have survived: what comes later cannot change what was kept before. The result is that of full per-class NMS, ties
included, because every cut obeys one total order: score descending, then candidate index n * C + c ascending.

Shape legend: B images, N proposals of the whole batch, P proposals of one image, C foreground classes, U
candidates under suppression, E pairs of candidates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bench.detection.contract import BatchGeometry, Detections, PredictOutput
from bench.errors import StageError
from bench.spec import Inference

VERSION = 1  # in the keys of the stages that this code enters; raise it when a number may change

# Shorter sides are dropped after clipping, as torchvision's RoIHeads.postprocess_detections does; they have no area to
# match. (detectron2 keeps them.)
MIN_SIZE = 1e-2
# The first block holds this many times what is kept of an image; later ones double. By benchmarks/postprocess.py.
FIRST_BLOCK = 2
# Pairs compared at once (about 60 bytes each): bounds the memory, changes no decision.
MAX_PAIRS = 4_000_000


def detections(p_NC: Tensor, out: PredictOutput, frame: BatchGeometry, test: Inference) -> Detections:
    """The final boxes of a batch in original pixels: what engines name in `EngineFacts.postprocess`."""
    return postprocess(
        p_NC, out.boxes, out.image_N, len(frame.sizes), frame.sizes, test,
        scale=frame.scale, image_index=frame.image_index,
    )  # fmt: skip


def postprocess(
    p_NC: Tensor,
    boxes: Tensor,
    image_N: Tensor,
    num_images: int,
    sizes: Sequence[tuple[int, int]],
    test: Inference,
    *,
    scale: Sequence[tuple[float, float]] | None = None,
    image_index: Sequence[int] | None = None,
) -> Detections:
    """The final boxes of a batch, sorted by (image, score descending, candidate index).

    Args:
        p_NC: class scores without background.
        boxes: refined x1 y1 x2 y2 in pixels of the resized image, N x 4 (class-agnostic) or N x C x 4; clipped here.
        image_N: image of each row, 0..num_images-1.
        num_images: B.
        sizes: (height, width) of each resized image inside the padding.
        test: score_threshold (kept: strictly above), nms (suppressed: IoU strictly above), kept.
        scale: (sy, sx) = resized / original of each image; boxes are divided by it. None: they stay as they are.
        image_index: what `Detections.image` holds for each image (position in the split). None: 0..B-1.

    Returns:
        Detections on the device of the inputs; in ORIGINAL pixels where `scale` is not None.

    Raises:
        StageError: scores that are not finite.
    """
    p_NC, boxes = p_NC.detach().float(), boxes.detach().float()
    if not bool(torch.isfinite(p_NC).all()):
        raise StageError("class scores are not finite", hint="the model has diverged; lower the learning rate")
    start, p_NC, boxes = _by_image(p_NC, boxes, image_N, num_images)
    kept = _survivors(p_NC, boxes, start, sizes, test)

    C = p_NC.shape[1]
    count = torch.tensor([len(k) for k in kept], dtype=torch.int64, device=p_NC.device)
    image = torch.repeat_interleave(torch.arange(num_images, device=p_NC.device), count)
    index = torch.cat(kept) if kept else torch.zeros(0, dtype=torch.int64, device=p_NC.device)
    limit = torch.tensor([[w, h, w, h] for h, w in sizes], dtype=torch.float32, device=p_NC.device).reshape(-1, 4)
    final = _clipped(boxes, index, C, limit[image])
    if scale is not None:
        final = final / torch.tensor([[x, y, x, y] for y, x in scale], device=p_NC.device).reshape(-1, 4)[image]
    name = torch.arange(num_images) if image_index is None else torch.tensor(image_index, dtype=torch.int64)
    return Detections(
        image=name.to(p_NC.device)[image].int(),
        boxes=final,
        scores=p_NC.flatten()[index],
        labels=(index % C if C else index).int(),
    )


def _by_image(p_NC: Tensor, boxes: Tensor, image_N: Tensor, num_images: int) -> tuple[list[int], Tensor, Tensor]:
    """Rows sorted by image (their order inside one kept) and where each image starts, B + 1 numbers."""
    if bool((image_N[1:] < image_N[:-1]).any()):
        order = image_N.argsort(stable=True)
        p_NC, boxes = p_NC[order], boxes[order]
    count = torch.bincount(image_N, minlength=num_images)
    return [0, *count.cumsum(0).tolist()], p_NC, boxes


def _survivors(
    p_NC: Tensor, boxes: Tensor, start: list[int], sizes: Sequence[tuple[int, int]], test: Inference
) -> list[Tensor]:
    """Per image the candidates (row * C + class, over all rows) that NMS keeps, best first, cut at the maximum."""
    C, device = p_NC.shape[1], p_NC.device
    limit = torch.tensor([[w, h, w, h] for h, w in sizes], dtype=torch.float32, device=device).reshape(-1, 4)
    queues = [
        _blocks(p_NC[a:b].flatten(), a * C, test.score_threshold, FIRST_BLOCK * test.kept)
        for a, b in itertools.pairwise(start)
    ]
    kept = [torch.zeros(0, dtype=torch.int64, device=device) for _ in queues]
    active = list(range(len(queues)))
    while active:
        blocks = {i: block for i in active if (block := next(queues[i], None)) is not None}
        active = list(blocks)
        if not active:
            break
        # What is kept goes first: it stays, and suppresses the candidates of the new block.
        parts = [torch.cat([kept[i], blocks[i]]) for i in active]
        index_U = torch.cat(parts)
        of_U = torch.repeat_interleave(
            torch.tensor(active, device=device), torch.tensor([len(part) for part in parts], device=device)
        )
        boxes_U4 = _clipped(boxes, index_U, C, limit.index_select(0, of_U))
        alive_U = ((boxes_U4[:, 2:] - boxes_U4[:, :2]) >= MIN_SIZE).all(1)
        index_U, boxes_U4, of_U = index_U[alive_U], boxes_U4[alive_U], of_U[alive_U]
        keep_U = greedy_nms(boxes_U4, of_U * C + index_U % C, test.nms)
        split = torch.bincount(of_U[keep_U], minlength=len(queues)).tolist()
        for i, survivors in enumerate(torch.split(index_U[keep_U], split)):
            if i in blocks:
                kept[i] = survivors[: test.kept]
        active = [i for i in active if len(kept[i]) < test.kept]
    return kept


def _blocks(scores: Tensor, offset: int, threshold: float, size: int) -> Iterator[Tensor]:
    """Indices (plus offset) of the scores above the threshold in the total order, in blocks of growing length.

    A cut falls between two different scores, never inside a tie; a stable sort then orders what lies between two cuts,
    and slices of it bound the length of a block.
    """
    upper = math.inf
    while upper > threshold:
        # Selecting costs about as much as sorting once a large share is selected.
        lower = float(scores.topk(size, sorted=False).values.min()) if size * 4 < len(scores) else -math.inf
        chosen = (scores > threshold) & (scores < upper) & (scores >= lower)
        index = chosen.nonzero().squeeze(1)
        index = index[scores[index].argsort(descending=True, stable=True)] + offset
        for block in torch.split(index, size):
            if len(block):
                yield block
        upper, size = lower, 2 * size


def greedy_nms(boxes_U4: Tensor, group_U: Tensor, iou: float) -> Tensor:
    """Bool mask U of what greedy NMS keeps inside each group, for boxes in order of preference.

    No coordinates are offset: only pairs of one group are compared, with torchvision's own float32 arithmetic, so the
    decisions are those of `torchvision.ops.nms` on each group. (Offsetting by class in float32, the usual trick,
    decided 68 of 9,769 cases wrongly.)

    Args:
        boxes_U4: x1 y1 x2 y2, most preferred first.
        group_U: int64; boxes of different groups do not meet.
        iou: a box is suppressed by a kept one that overlaps it by strictly more.
    """
    first, second = [], []
    for members in _chunks(group_U):
        first_E, second_E = _pairs(members, group_U[members])
        over_E = _overlap_more(boxes_U4, first_E, second_E, iou)
        first.append(first_E[over_E])
        second.append(second_E[over_E])
    first_E, second_E = torch.cat(first), torch.cat(second)
    # kept(j) = no i before j with kept(i) and overlap. Iterating from "all kept" settles a box once all before it in
    # its chain of overlaps have settled, so the loop ends after the longest chain with the greedy answer.
    keep_U = torch.ones(len(boxes_U4), dtype=torch.bool, device=boxes_U4.device)
    while True:
        new_U = torch.ones_like(keep_U)
        new_U[second_E[keep_U[first_E]]] = False
        if torch.equal(new_U, keep_U):
            return keep_U
        keep_U = new_U


def _chunks(group_U: Tensor) -> list[Tensor]:
    """Positions sorted by group (stable), cut between groups so that a chunk makes about MAX_PAIRS pairs at most."""
    order_U = group_U.argsort(stable=True)
    _, count_G = torch.unique_consecutive(group_U[order_U], return_counts=True)
    pairs_G = (count_G * (count_G - 1) // 2).cumsum(0)
    if len(pairs_G) == 0 or int(pairs_G[-1]) <= MAX_PAIRS:
        return [order_U]
    _, groups = torch.unique_consecutive(pairs_G // MAX_PAIRS, return_counts=True)
    length = [int(part.sum()) for part in torch.split(count_G, groups.tolist())]
    return list(torch.split(order_U, length))


def _pairs(members: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """All (i, j) of equal group with i before j, for members sorted by group."""
    _, count_G = torch.unique_consecutive(group, return_counts=True)
    position = torch.arange(len(members), device=members.device)
    start = torch.repeat_interleave(count_G.cumsum(0) - count_G, count_G)
    before = position - start  # how many of its group come before each
    second_E = torch.repeat_interleave(position, before)
    # Pair e of a box is with the e-th of its group: count e from the first pair of each box.
    run_E = torch.arange(len(second_E), device=members.device) - (before.cumsum(0) - before).index_select(0, second_E)
    return members.index_select(0, start.index_select(0, second_E) + run_E), members.index_select(0, second_E)


def _overlap_more(boxes_U4: Tensor, first_E: Tensor, second_E: Tensor, iou: float) -> Tensor:
    """Bool E: IoU of the pair strictly above the threshold. By columns: 4x faster than boxes_U4[first_E]."""
    x1_U, y1_U, x2_U, y2_U = boxes_U4.unbind(1)
    area_U = (x2_U - x1_U) * (y2_U - y1_U)

    def pick(column_U: Tensor) -> tuple[Tensor, Tensor]:
        return column_U.index_select(0, first_E), column_U.index_select(0, second_E)

    w_E = torch.minimum(*pick(x2_U)) - torch.maximum(*pick(x1_U))
    h_E = torch.minimum(*pick(y2_U)) - torch.maximum(*pick(y1_U))
    inter_E = w_E.clamp_(min=0) * h_E.clamp_(min=0)
    area_a_E, area_b_E = pick(area_U)
    iou_E = inter_E / (area_a_E + area_b_E - inter_E)
    return iou_E.double() > iou  # torchvision compares with a double threshold


def _clipped(boxes: Tensor, index: Tensor, C: int, limit: Tensor) -> Tensor:
    """Boxes of candidates (row * C + class), clipped to [0, limit]."""
    chosen = boxes.index_select(0, index // C) if boxes.dim() == 2 else boxes.flatten(0, 1).index_select(0, index)
    return torch.minimum(chosen.clamp(min=0), limit)
