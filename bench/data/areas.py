"""The area of an annotation from its mask. Separate because no mask library is needed for that, and foreign masks that
are damaged may not bring a process down.

Shape legend: H x W pixels of a mask, in columns as COCO's run lengths go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_OFFSET, _BITS, _MORE, _SIGN = 48, 5, 0x20, 0x10  # COCO's compressed run lengths: 5 bits a character, from "0" on


def mask_area(segmentation: Any) -> float | None:
    """Pixels of a polygon mask (shoelace formula, parts added) or run-length mask; None: there is no valid one."""
    if isinstance(segmentation, dict):
        counts = run_lengths(segmentation)
        return None if counts is None else float(sum(counts[1::2])) or None
    if not isinstance(segmentation, list) or not segmentation:
        return None
    parts = segmentation if isinstance(segmentation[0], list) else [segmentation]
    total = 0.0
    for part in parts:
        if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
            return None
        if not all(type(v) in (int, float) and -1e9 < v < 1e9 for v in part):
            return None
        total += _shoelace(part)
    return total if total > 0 and math.isfinite(total) else None


def run_lengths(mask: dict[str, Any]) -> list[int] | None:
    """The runs of a mask {"size": [H, W], "counts": ...}, in either form; None: damaged."""
    size, counts = mask.get("size"), mask.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(v) is int and 0 < v < 1 << 20 for v in size):
        return None
    runs = _decoded(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(v) is int and v >= 0 for v in runs):
        return None
    return runs if sum(runs) == size[0] * size[1] else None


def _shoelace(part: Sequence[float]) -> float:
    xs, ys = part[0::2], part[1::2]
    return abs(sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))) / 2


def _decoded(text: str) -> list[int] | None:
    """Runs from COCO's text: little-endian signed numbers, from the third on differences to the last but one."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - _OFFSET
        if not 0 <= code < 64 or shift > 60:
            return None
        value |= (code & 0x1F) << shift
        shift += _BITS
        if code & _MORE:
            continue
        if code & _SIGN:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return None if shift else runs
