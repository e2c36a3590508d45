"""Deformable attention and the layers made of it. Separate from network.py, which puts them in order.

Shape legend: B images, V levels, T tokens of all levels, Q queries, D width, M attention heads, P points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Memory:
    """What queries read: the maps of all levels, one after the other.

    Attributes:
        tokens_BTD: cells of the finest level first, row by row.
        shapes: (height, width) of each level.
        padding_BT: cells that lie in the padding; None: there is none.
        valid_BV2: the share of each level's width and height that is not padding.
    """

    tokens_BTD: Tensor
    shapes: Sequence[tuple[int, int]]
    padding_BT: Tensor | None
    valid_BV2: Tensor


class DeformableAttention(nn.Module):
    """Each query reads `points` points of each level near where it is, for each attention head.

    Source: Zhu et al. 2021 (Deformable DETR), equation 3; its initialisation: each head looks into a direction of its
    own, its k-th point k cells away, all weighed alike.

    Args:
        width: D, a multiple of `heads`.
        heads: M.
        levels: V.
        points: P.
    """

    def __init__(self, width: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)
        for drawn in (self.value, self.output):
            nn.init.xavier_uniform_(drawn.weight)
        for layer in (self.offsets, self.weights, self.value, self.output):
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.weights.weight)
        angle_M = torch.arange(heads) * (2 * math.pi / heads)
        direction_M2 = torch.stack((angle_M.cos(), angle_M.sin()), dim=-1)
        direction_M2 = direction_M2 / direction_M2.abs().amax(dim=-1, keepdim=True)
        start = direction_M2[:, None, None] * torch.arange(1, points + 1)[:, None]
        with torch.no_grad():
            self.offsets.bias.copy_(start.expand(heads, levels, points, 2).flatten())

    def forward(self, queries_BQD: Tensor, place_BQVX: Tensor, memory: Memory) -> Tensor:
        """B x Q x D.

        Args:
            queries_BQD: who asks.
            place_BQVX: where each is on each level, in shares of the padded map: x y, or a box cx cy w h, whose half
                sides are then the unit of the offsets.
            memory: what is read.
        """
        (B, Q, D), M, V, P = queries_BQD.shape, self.heads, self.levels, self.points
        offsets_BQMVP2 = self.offsets(queries_BQD).view(B, Q, M, V, P, 2)
        weights_BQMVP = self.weights(queries_BQD).view(B, Q, M, V * P).softmax(dim=-1).view(B, Q, M, V, P)
        if place_BQVX.shape[-1] == 4:
            unit = place_BQVX[:, :, None, :, None, 2:] * (0.5 / P)
        else:
            unit = torch.tensor([[1 / w, 1 / h] for h, w in memory.shapes], device=queries_BQD.device)[:, None]
        at_BQMVP2 = place_BQVX[:, :, None, :, None, :2] + offsets_BQMVP2 * unit
        values_BTD = self.value(memory.tokens_BTD)
        if memory.padding_BT is not None:
            values_BTD = values_BTD.masked_fill(memory.padding_BT[..., None], 0.0)
        grid = (2 * at_BQMVP2 - 1).transpose(1, 2).flatten(0, 1)  # (B M) x Q x V x P x 2, -1 to 1
        weights = weights_BQMVP.transpose(1, 2).flatten(0, 1)
        read = torch.zeros((), device=queries_BQD.device)
        for v, (of_level, (h, w)) in enumerate(zip(_by_level(values_BTD, memory.shapes), memory.shapes, strict=True)):
            cells = of_level.transpose(1, 2).reshape(B * M, D // M, h, w)
            found = F.grid_sample(cells, grid[:, :, v].to(cells.dtype), padding_mode="zeros", align_corners=False)
            read = read + (found * weights[:, None, :, v]).sum(dim=-1)
        out: Tensor = self.output(read.view(B, D, Q).transpose(1, 2))
        return out


class FeedForward(nn.Module):
    """Two linear layers, with a residual and a norm."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(width, inner), nn.Linear(inner, width), nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        for layer in (self.up, self.down):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.drop(F.relu(self.up(x)))
        out: Tensor = self.norm(x + self.drop(self.down(inner)))
        return out


class EncoderLayer(nn.Module):
    """Every cell reads the others, of all levels."""

    def __init__(self, width: int, heads: int, levels: int, points: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention = DeformableAttention(width, heads, levels, points)
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(dropout)
        self.feed = FeedForward(width, inner, dropout)

    def forward(self, memory: Memory, code_BTD: Tensor, place_BTV2: Tensor) -> Tensor:
        x_BTD = memory.tokens_BTD
        read = self.attention(x_BTD + code_BTD, place_BTV2, memory)
        out: Tensor = self.feed(self.norm(x_BTD + self.drop(read)))
        return out


class DecoderLayer(nn.Module):
    """The queries look at one another, then at the image."""

    def __init__(self, width: int, heads: int, levels: int, points: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.among = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.among_norm = nn.LayerNorm(width)
        self.attention = DeformableAttention(width, heads, levels, points)
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(dropout)
        self.feed = FeedForward(width, inner, dropout)

    def forward(
        self, x_BQD: Tensor, code_BQD: Tensor, place_BQV4: Tensor, memory: Memory, apart_QQ: Tensor | None
    ) -> Tensor:
        """`apart_QQ`: true where query q must not see query r; None: all see all."""
        asked = x_BQD + code_BQD
        seen = self.among(asked, asked, x_BQD, need_weights=False, attn_mask=apart_QQ)[0]
        x_BQD = self.among_norm(x_BQD + self.drop(seen))
        read = self.attention(x_BQD + code_BQD, place_BQV4, memory)
        out: Tensor = self.feed(self.norm(x_BQD + self.drop(read)))
        return out


def sines(values: Tensor, width: int, temperature: float = 10000.0) -> Tensor:
    """Sines and cosines in turn of values in 0 to 1: one axis more, of `width`.

    Source: Carion et al. 2020 (DETR), A.4, with the scale 2 pi of the released code.
    """
    k = torch.div(torch.arange(width, device=values.device), 2, rounding_mode="floor")
    angle = values[..., None] * (2 * math.pi) / temperature ** (2 * k / width)
    return torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1).flatten(-2)


def correction(width: int) -> nn.Sequential:
    """Three layers to the correction of a box, which is 0 at the start."""
    layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))
    last = layers[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return layers


def _by_level(tokens_BTD: Tensor, shapes: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
    return torch.split(tokens_BTD, [h * w for h, w in shapes], dim=1)
