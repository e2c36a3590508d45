"""From image and boxes to network input. Separate from the loader, which decides which images and when.

Geometry and colour operations work on uint8 (RGB, H x W x 3); the floats are made once, for the whole batch.
Each operation's draw is made whether or not the operation is on: switching one on does not change the draws of another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.spec import Input

VERSION = 1  # in the keys of the stages that this code enters; raise it when a number may change

Bytes = NDArray[np.uint8]
Boxes = NDArray[np.float32]
IDENTITY = (0, 1, 2)


@dataclass(frozen=True)
class Draw:
    """What augmentation does to one image: factor on min_size, flip, inversion, order of the channels."""

    jitter: float = 1.0
    flip: bool = False
    invert: bool = False
    channels: tuple[int, int, int] = IDENTITY


def draw(settings: Input, rng: np.random.Generator) -> Draw:
    """The augmentation of one image, from its own generator."""
    flip, invert, jitter = rng.random(3).tolist()
    red, green, blue = rng.permutation(3).tolist()
    low, high = settings.scale_jitter
    return Draw(
        jitter=low + (high - low) * jitter,
        flip=flip < settings.flip,
        invert=invert < settings.invert,
        channels=(red, green, blue) if settings.channel_permutation else IDENTITY,
    )


def resized_size(height: int, width: int, settings: Input, jitter: float = 1.0) -> tuple[int, int]:
    """(height, width) after the keep-ratio resize: scale = min(min_size / short side, max_size / long side), floored.

    torchvision, GeneralizedRCNNTransform. The short side aims at min_size * jitter.
    """
    scale = min(settings.min_size * jitter / min(height, width), settings.max_size / max(height, width))
    # The tolerance keeps 480 * (800 / 480) at 800.
    return max(1, math.floor(height * scale + 1e-6)), max(1, math.floor(width * scale + 1e-6))


def padded_size(height: int, width: int, settings: Input) -> tuple[int, int]:
    """(height, width) rounded up to a multiple of `pad_multiple`."""
    multiple = settings.pad_multiple
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def resize(pixels: Bytes, size: tuple[int, int]) -> Bytes:
    """Bilinear resize of uint8 H x W x 3 to (height, width).

    DEVIATION: torchvision interpolates floats without a low-pass filter; Pillow filters when it shrinks, as detectron2
    does, and is faster on uint8.
    """
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def transform_boxes(boxes: Boxes, scale: tuple[float, float], width: int, flip: bool) -> Boxes:
    """x1 y1 x2 y2 boxes (n x 4) scaled by (sy, sx), then mirrored in an image of `width` resized pixels."""
    sy, sx = scale
    moved = boxes * np.array([sx, sy, sx, sy], np.float32)
    if flip:
        moved[:, [0, 2]] = width - moved[:, [2, 0]]
    return moved.astype(np.float32, copy=False)


def paste(out_3HW: Bytes, pixels: Bytes, how: Draw) -> None:
    """Write an image (H x W x 3) into the top left of a channel-first buffer: permuted, mirrored, inverted."""
    height, width = pixels.shape[:2]
    source = pixels[:, ::-1] if how.flip else pixels
    target = out_3HW[:, :height, :width]
    for to, channel in enumerate(how.channels):
        target[to] = source[:, :, channel]
    if how.invert:
        np.invert(target, out=target)
