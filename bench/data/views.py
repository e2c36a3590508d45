"""Other views of an image: a window of it, in other colours, with its boxes. Separate from augment.py, whose operations
are those of the suite's `input` section; views are parts that a recipe names (methods/parts/views.py).

A view is resized to the size that the whole image has, so that a batch is padded as ever. What the suite's own
augmentation does (flip, order of the channels, inversion) is done to a view as well.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Window = tuple[float, float, float, float]  # x1 y1 x2 y2, pixels of the file
Placed = tuple[float, float, float, float]  # (ax, bx, ay, by): x in the view = ax * x in the file + bx; y likewise
AS_THE_FILE: Placed = (1.0, 0.0, 1.0, 0.0)


class View(Protocol):
    """How one image is shown; made as `kind(**settings)`.

    Attributes:
        visible: least share of a box's area that is in the window; of what shows less, the box is left out.
    """

    visible: float

    def __call__(self, pixels: Bytes, size: tuple[int, int], rng: np.random.Generator) -> tuple[Bytes, Window]:
        """The view (height x width x 3 uint8 RGB, of `size`) of an image H x W x 3, and the window that it shows."""
        ...


def placed(window: Window, size: tuple[int, int], flip: bool) -> Placed:
    """Where pixels of the file are in a view of (height, width) `size`."""
    x1, y1, x2, y2 = window
    ax, ay = size[1] / (x2 - x1), size[0] / (y2 - y1)
    bx, by = -x1 * ax, -y1 * ay
    return (-ax, size[1] - bx, ay, by) if flip else (ax, bx, ay, by)
