"""Two-stage Deformable DETR with box refinement, from maps to boxes. Separate from detector.py, which puts it behind
the seam.

Source: Zhu et al. 2021 (Deformable DETR), sections 4.1 and A.4; written from the paper.

Shape legend: B images, L decoder layers, V levels, T tokens of all levels, Q queries, S shown boxes, D width.
Boxes are cx cy w h, shares of the image inside the padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.engines.detr.attention import EncoderLayer, Memory, correction, sines
from bench.engines.sections import Detr

NEVER = -1e4  # score of a token that must not become a query
EDGE = 0.01  # a start box nearer to the border of the image than this makes no query
EPS = 1e-5  # boxes are kept so far from 0 and 1 where a logit is taken


class InputProjection(nn.Module):
    """The backbone's maps at one width, and further levels of half the size each.

    Args:
        channels: of the backbone's maps that are read, finest first.
        width: D.
        extra: further levels, each made from the one before by a stride of 2, the first from the backbone's last map.
    """

    def __init__(self, channels: Sequence[int], width: int, extra: int) -> None:
        super().__init__()
        inputs = [*channels, *[channels[-1], *[width] * (extra - 1)][:extra]]
        kernels = [(1, 1, 0)] * len(channels) + [(3, 2, 1)] * extra
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, *kernel), nn.GroupNorm(math.gcd(32, width), width))
            for c, kernel in zip(inputs, kernels, strict=True)
        )
        for level in self.levels:
            assert isinstance(level, nn.Sequential)
            convolution = level[0]
            assert isinstance(convolution, nn.Conv2d)
            nn.init.xavier_uniform_(convolution.weight)
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Of each level B x D x height x width."""
        found = [level(m) for level, m in zip(self.levels, maps, strict=False)]
        for level in list(self.levels)[len(maps) :]:
            found.append(level(maps[-1] if len(found) == len(maps) else found[-1]))
        return found


class Encoder(nn.Module):
    """Layers over the cells of all levels; each level has a code of its own."""

    def __init__(self, section: Detr, levels: int) -> None:
        super().__init__()
        shape = (section.width, section.heads, levels, section.points, section.ffn, section.dropout)
        self.layers = nn.ModuleList(EncoderLayer(*shape) for _ in range(section.encoder))
        self.level_code = nn.Parameter(torch.randn(levels, section.width))

    def forward(self, projected: Sequence[Tensor], sizes: Sequence[tuple[int, int]], frame: tuple[int, int]) -> Memory:
        """What the decoder reads."""
        shapes = [(m.shape[2], m.shape[3]) for m in projected]
        device = projected[0].device
        padding_BT, valid_BV2 = padding(shapes, sizes, frame, device)
        tokens_BTD = torch.cat([m.flatten(2).transpose(1, 2) for m in projected], dim=1)
        place_BT2 = centres(shapes, valid_BV2)
        half = self.level_code.shape[1] // 2
        code_BTD = torch.cat((sines(place_BT2[..., 1], half), sines(place_BT2[..., 0], half)), dim=-1)
        counts = torch.tensor([h * w for h, w in shapes], device=device)
        code_BTD = code_BTD + self.level_code.repeat_interleave(counts, dim=0)
        memory = Memory(tokens_BTD, shapes, padding_BT, valid_BV2)
        place_BTV2 = place_BT2[:, :, None] * valid_BV2[:, None]
        for layer in self.layers:
            memory = Memory(layer(memory, code_BTD, place_BTV2), shapes, padding_BT, valid_BV2)
        return memory


class Proposals(nn.Module):
    """The first stage: each cell proposes a box, and the best become queries. Whether a cell shows anything is said by
    the network's objectness, a group of its own."""

    def __init__(self, section: Detr) -> None:
        super().__init__()
        D = section.width
        self.memory = nn.Sequential(nn.Linear(D, D), nn.LayerNorm(D))
        self.box = correction(D)
        self.query = nn.Sequential(nn.Linear(2 * D, 2 * D), nn.LayerNorm(2 * D))
        self.base_size, self.width = section.base_size, D

    def forward(self, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """(tokens B x T x D that objectness and boxes are made of, boxes B x T x 4, whether a token may become a query
        B x T)."""
        place_BT2 = centres(memory.shapes, memory.valid_BV2)
        side_T = torch.cat(
            [place_BT2.new_full((h * w,), self.base_size * 2**v) for v, (h, w) in enumerate(memory.shapes)]
        )
        start_BT4 = torch.cat((place_BT2, side_T[None, :, None].expand(*place_BT2.shape)), dim=-1)
        legal_BT = ((start_BT4 > EDGE) & (start_BT4 < 1 - EDGE)).all(dim=-1)
        if memory.padding_BT is not None:
            legal_BT = legal_BT & ~memory.padding_BT
        tokens_BTD = self.memory(memory.tokens_BTD.masked_fill(~legal_BT[..., None], 0.0))
        boxes_BT4 = (self.box(tokens_BTD) + torch.logit(start_BT4, eps=EPS)).sigmoid()
        return tokens_BTD, boxes_BT4, legal_BT

    def queries(self, boxes_BQ4: Tensor) -> tuple[Tensor, Tensor]:
        """(where, what) of queries that are made of a box alone, B x Q x D each."""
        where, what = self.query(sines(boxes_BQ4, self.width // 2).flatten(-2)).chunk(2, dim=-1)
        return where, what


@dataclass
class Decoded:
    """What the decoder makes of its queries.

    Attributes:
        hidden_LBQD: states after each layer.
        boxes_LBQ4: refined by each layer.
        entered_LBQ4: the boxes that each layer began with.
    """

    hidden_LBQD: Tensor
    boxes_LBQ4: Tensor
    entered_LBQ4: Tensor


def decode(
    layers: nn.ModuleList,
    corrections: nn.ModuleList,
    proposals: Proposals,
    memory: Memory,
    boxes_BQ4: Tensor,
    *,
    alone: bool = False,
) -> Decoded:
    """Refine boxes layer by layer; each layer's boxes pass no gradient to the layer before.

    Args:
        layers, corrections: of the decoder.
        proposals: which make the queries.
        memory: what is read.
        boxes_BQ4: where the queries start.
        alone: each query sees itself alone.
    """
    where_BQD, x_BQD = proposals.queries(boxes_BQ4)
    Q = boxes_BQ4.shape[1]
    apart_QQ = ~torch.eye(Q, dtype=torch.bool, device=boxes_BQ4.device) if alone else None
    valid_B1V4 = torch.cat((memory.valid_BV2, memory.valid_BV2), dim=-1)[:, None]
    hidden, boxes, entered = [], [], []
    for layer, corrected in zip(layers, corrections, strict=True):
        entered.append(boxes_BQ4)
        x_BQD = layer(x_BQD, where_BQD, boxes_BQ4[:, :, None] * valid_B1V4, memory, apart_QQ)
        refined = (corrected(x_BQD) + torch.logit(boxes_BQ4, eps=EPS)).sigmoid()
        hidden.append(x_BQD)
        boxes.append(refined)
        boxes_BQ4 = refined.detach()
    return Decoded(torch.stack(hidden), torch.stack(boxes), torch.stack(entered))


def centres(shapes: Sequence[tuple[int, int]], valid_BV2: Tensor) -> Tensor:
    """x y of the centre of each cell, shares of the image inside the padding: B x T x 2."""
    found = []
    for v, (height, width) in enumerate(shapes):
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        cell = torch.stack((x / width, y / height), dim=-1).reshape(1, -1, 2).to(valid_BV2.device)
        found.append(cell / valid_BV2[:, v][:, None])
    return torch.cat(found, dim=1)


def padding(
    shapes: Sequence[tuple[int, int]], sizes: Sequence[tuple[int, int]], frame: tuple[int, int], device: torch.device
) -> tuple[Tensor | None, Tensor]:
    """(cells whose first pixel lies in the padding, B x T; None: there is no padding), and the share (width, height) of
    each level that does not, B x V x 2.

    By the first pixel, as in the released code of Deformable DETR: so every level has a cell of every image.
    """
    height, width = frame
    size_B2 = torch.tensor([[w, h] for h, w in sizes], device=device)
    if all(tuple(size) == (height, width) for size in sizes):
        return None, torch.ones(len(sizes), len(shapes), 2, device=device)
    masks, shown = [], []
    for rows, columns in shapes:
        y = torch.arange(rows, device=device)[None] * height // rows >= size_B2[:, 1:]
        x = torch.arange(columns, device=device)[None] * width // columns >= size_B2[:, :1]
        masks.append((y[:, :, None] | x[:, None]).flatten(1))
        shown.append(torch.stack(((~x).sum(dim=1) / columns, (~y).sum(dim=1) / rows), dim=-1))
    return torch.cat(masks, dim=1), torch.stack(shown, dim=1)
