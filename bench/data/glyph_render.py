"""Draws one glyph image from one generator. Separate from glyphs.py, which decides how many of what go where.

Every number of this file is profile H of the prototype (prototype.md section 2): published numbers of the default suite
depend on it, so a change of any of them is a new VERSION of the data set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from bench.data.glyph_vocabulary import Vocabulary, sprite
from bench.errors import UserError

_ROTATION = 22.0  # degrees either way
_ASPECT = 0.15  # log aspect ratio either way
_OVERLAP = 0.22  # two symbols' boxes share at most this part of the smaller one
_TRIES = 40  # places tried for a symbol; every 8th failure draws it anew, at 0.8 of the size
_RETRY = 8
_CONTRAST = 190  # sum over RGB of the difference between a symbol and what it covers
_MASK_LEVEL = 110  # alpha above this belongs to the mask
_VISIBLE_PX = 4  # an image in which a symbol shows less than this is drawn again (1 in some thousands)
_ATTEMPTS = 50
_NONE, _OCCLUDER = -1, -2

Mask = NDArray[np.bool_]
PixelBox = tuple[int, int, int, int]  # x, y, width, height


@dataclass(frozen=True, eq=False)
class Drawn:
    """One image: pixels uint8 S x S x 3 and the visible mask (S x S) of each object with its class."""

    pixels: NDArray[np.uint8]
    classes: tuple[int, ...]
    masks: tuple[Mask, ...]


class Renderer:
    """Draws images of one size from one vocabulary.

    Args:
        vocabulary: classes, distractors and faces.
        size: S, pixels.
        object_px: shortest and longest long side of a symbol, drawn log-uniformly.

    Raises:
        UserError: symbols that do not fit into the image.
    """

    def __init__(self, vocabulary: Vocabulary, size: int, object_px: tuple[int, int]) -> None:
        low, high = object_px
        if not low <= high <= 0.75 * size:
            raise UserError(
                f"symbols of {low} to {high} px do not fit into images of {size} px",
                where="data.object_px",
                allowed=f"shortest <= longest <= {int(0.75 * size)}",
            )
        self.size, self.object_px = size, object_px
        self.symbols = [_faces(point, vocabulary.faces) for point in vocabulary.classes]
        self.distractors = [_faces(point, vocabulary.faces) for point in vocabulary.distractors]

    def draw(self, classes: Sequence[int], rng: np.random.Generator) -> Drawn:
        """An image that shows exactly these instances.

        Raises:
            UserError: so many symbols that some are always covered.
        """
        for _ in range(_ATTEMPTS):
            drawn = self._attempt(classes, rng)
            if all(int(mask.sum()) >= _VISIBLE_PX for mask in drawn.masks):
                return drawn
        raise UserError(
            f"{len(classes)} symbols do not fit into an image of {self.size} px",
            where="data.objects",
            hint="lower data.objects or data.object_px, or raise data.size",
        )

    def _attempt(self, classes: Sequence[int], rng: np.random.Generator) -> Drawn:
        image = _background(self.size, rng)
        owner = np.full((self.size, self.size), _NONE, np.int32)  # which object is on top
        todo = [(int(c), True) for c in classes]
        extra = int(rng.integers(0, 3))
        todo += [(int(rng.integers(len(self.distractors))), False) for _ in range(extra) if self.distractors]
        placed: list[PixelBox] = []
        labels: list[int] = []
        for which in rng.permutation(len(todo)).tolist():
            index, real = todo[which]
            alpha, place, free = self._place((self.symbols if real else self.distractors)[index], placed, rng)
            if not free and not real:
                continue
            image.paste(_colour(image, place, rng), place[:2], alpha)
            placed.append(place)
            _cover(owner, alpha, place, len(labels) if real else _OCCLUDER)
            if real:
                labels.append(index)
        if rng.random() < 0.3:
            _occlude(image, owner, rng)
        if rng.random() < 0.35:
            image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.9))))
        return Drawn(_expose(image, rng), tuple(labels), tuple(owner == k for k in range(len(labels))))

    def _place(
        self, faces: Sequence[Image.Image], placed: Sequence[PixelBox], rng: np.random.Generator
    ) -> tuple[Image.Image, PixelBox, bool]:
        """Alpha and place of a symbol, and whether the place is free; up to an eighth may lie outside the image."""
        face = faces[int(rng.integers(len(faces)))]
        low, high = self.object_px
        long_side = math.exp(rng.uniform(math.log(low), math.log(high)))
        alpha, place = face, (0, 0, 0, 0)
        for attempt in range(_TRIES):
            if attempt % _RETRY == 0:
                alpha = _vary(face, long_side, rng)
            w, h = alpha.size
            x = int(rng.integers(-w // 8, self.size - w + w // 8 + 1))
            y = int(rng.integers(-h // 8, self.size - h + h // 8 + 1))
            place = (x, y, w, h)
            if not any(_clash(place, other) for other in placed):
                return alpha, place, True
            if attempt % _RETRY == _RETRY - 1:
                long_side = max(low, long_side * 0.8)
        return alpha, place, False


def _faces(point: int, names: Sequence[str]) -> list[Image.Image]:
    """The symbol in every face; a face that draws next to nothing is replaced by the first."""
    drawn = [sprite(point, name) for name in names]
    first = drawn[0]
    assert first is not None  # the vocabulary was chosen by the first face
    return [first if d is None else d for d in drawn]


def _vary(face: Image.Image, long_side: float, rng: np.random.Generator) -> Image.Image:
    width, height = face.size
    scale = long_side / max(width, height)
    aspect = math.exp(rng.uniform(-_ASPECT, _ASPECT))
    size = (max(4, round(width * scale * aspect)), max(4, round(height * scale / aspect)))
    resized = face.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    return resized.rotate(float(rng.uniform(-_ROTATION, _ROTATION)), resample=Image.Resampling.BICUBIC, expand=True)


def _clash(a: PixelBox, b: PixelBox) -> bool:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return width > 0 and height > 0 and width * height > _OVERLAP * min(a[2] * a[3], b[2] * b[3])


def _rgb(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def _colour(image: Image.Image, place: PixelBox, rng: np.random.Generator) -> tuple[int, int, int]:
    """A colour that stands out from the mean of what it covers (the last of eight draws in any case)."""
    x, y, w, h = place
    size = image.size[0]
    box = (max(x, 0), max(y, 0), max(x, 0) + min(w, size - max(x, 0)), max(y, 0) + min(h, size - max(y, 0)))
    mean = np.asarray(image.resize((1, 1), Image.Resampling.BOX, box=box), np.float32).ravel()
    colour = _rgb(rng)
    for _ in range(7):
        if np.abs(np.array(colour) - mean).sum() > _CONTRAST:
            break
        colour = _rgb(rng)
    return colour


def _cover(owner: NDArray[np.int32], alpha: Image.Image, place: PixelBox, value: int) -> None:
    x, y, w, h = place
    size = owner.shape[0]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, size), min(y + h, size)
    inside = np.asarray(alpha)[y0 - y : y1 - y, x0 - x : x1 - x] > _MASK_LEVEL
    owner[y0:y1, x0:x1][inside] = value


def _occlude(image: Image.Image, owner: NDArray[np.int32], rng: np.random.Generator) -> None:
    """A thin bar over everything; what it hides belongs to no object."""
    x0, y0, x1, y1 = rng.integers(0, image.size[0], 4).tolist()
    width = int(rng.integers(2, 6))
    ImageDraw.Draw(image).line([(x0, y0), (x1, y1)], fill=_rgb(rng), width=width)
    bar = Image.new("L", image.size, 0)
    ImageDraw.Draw(bar).line([(x0, y0), (x1, y1)], fill=255, width=width)
    owner[np.asarray(bar) > 0] = _OCCLUDER


def _expose(image: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    gain = rng.uniform(0.8, 1.15)
    pixels = np.asarray(image, np.float32) * np.float32(gain)
    pixels += rng.normal(0, rng.uniform(1, 9), pixels.shape).astype(np.float32)
    out: NDArray[np.uint8] = np.clip(pixels, 0, 255).astype(np.uint8)
    return out


def _background(size: int, rng: np.random.Generator) -> Image.Image:
    """A smooth colour field, at times stripes, and clutter: blobs, boxes, lines and arcs."""
    cells = int(rng.integers(2, 9))
    field = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8).astype(np.float64)
    mean = field.mean((0, 1))
    field = np.clip(mean + (field - mean) * rng.uniform(0.15, 0.8), 0, 255)
    image = Image.fromarray(field.astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    if rng.random() < 0.35:
        colour, step, lean = _rgb(rng), int(rng.integers(5, 18)), int(rng.integers(-size // 2, size // 2))
        for x in range(-size, 2 * size, step):
            pen.line([(x, 0), (x + lean, size)], fill=colour, width=int(rng.integers(1, 3)))
    for _ in range(int(rng.integers(2, 9) * (size / 128))):
        _clutter(pen, size, rng)
    return image


def _clutter(pen: ImageDraw.ImageDraw, size: int, rng: np.random.Generator) -> None:
    colour = _rgb(rng)
    x, y = rng.integers(-8, size, 2).tolist()
    width, height = rng.integers(6, 50, 2).tolist()
    box = (x, y, x + width, y + height)
    kind = rng.random()
    if kind < 0.3:
        pen.ellipse(box, fill=colour)
    elif kind < 0.55:
        pen.rectangle(box, fill=colour)
    elif kind < 0.8:
        pen.line([(x, y), (x + width, y + height - 25)], fill=colour, width=int(rng.integers(1, 5)))
    else:
        start, end = rng.integers(0, 360, 2).tolist()
        pen.arc(box, start, end, fill=colour, width=int(rng.integers(1, 5)))
