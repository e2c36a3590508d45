"""Which symbols are the classes of the glyph images. Separate from drawing because it is searched once and stored.

A vocabulary is a greedy choice, in one fixed order, of code points that all faces have and whose templates correlate at
most `similarity`; so a smaller vocabulary is the beginning of a larger one. Found lists are stored beside this file:

    python -m bench.data.glyph_vocabulary        # writes glyph_codepoints.json, about a minute
"""

from __future__ import annotations

import functools
import importlib.util
import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from bench.errors import UserError

STORED = Path(__file__).with_name("glyph_codepoints.json")
# Two sets of faces, tried in this order. Six faces vary more within a class; four Sans faces share more code points.
FACE_SETS: dict[str, tuple[str, ...]] = {
    "six": (
        "DejaVuSans.ttf",
        "DejaVuSans-Bold.ttf",
        "DejaVuSansMono.ttf",
        "DejaVuSansMono-Bold.ttf",
        "DejaVuSerif.ttf",
        "DejaVuSerif-Bold.ttf",
    ),
    "sans": ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSans-BoldOblique.ttf"),
}
DISTRACTORS = 40  # symbols that are drawn but are no class (prototype.md section 2)
LARGEST = 1203  # classes of LVIS v1
SPRITE_PX = 56  # long side of a stored symbol; the largest drawn by default is 34
_FONT_PX = 72
_TEMPLATE_PX = 20
_ROTATIONS = (-20, 0, 20)  # degrees: symbols are drawn rotated, so b turned must differ from a as well
_ORDER_SEED = (0, 77)  # order of the greedy choice; never changed: it decides what the classes are


@dataclass(frozen=True)
class Vocabulary:
    """Code points of the classes (in class order) and of the distractors, and the faces they are drawn in."""

    faces: tuple[str, ...]
    classes: tuple[int, ...]
    distractors: tuple[int, ...]


def vocabulary(classes: int, similarity: float) -> Vocabulary:
    """The vocabulary of this size; it does not depend on a seed. Stored lists are read, others are searched for.

    Raises:
        UserError: no set of faces has that many symbols that correlate at most `similarity`.
    """
    found = {}
    for name, faces in FACE_SETS.items():
        points = _stored(name, similarity)
        if points is None:
            points = search(faces, classes + DISTRACTORS, similarity)
        if len(points) >= classes + DISTRACTORS:
            return Vocabulary(faces, tuple(points[:classes]), tuple(points[classes : classes + DISTRACTORS]))
        found[name] = len(points)
    most = max(found.values()) - DISTRACTORS
    raise UserError(
        f"only {max(0, most)} glyph classes correlate at most {similarity}, {classes} are needed",
        where="data.classes",
        hint="lower data.classes or raise data.similarity (0.93 by default)",
    )


def search(faces: tuple[str, ...], number: int, similarity: float) -> list[int]:
    """Choose up to `number` code points greedily; 11 s for 1,243 of the four Sans faces."""
    points = _candidates(faces)
    np.random.default_rng(_ORDER_SEED).shuffle(points)
    kept: list[int] = []
    templates = np.zeros((number, (_TEMPLATE_PX + 4) ** 2), np.float32)
    for point in points:
        image = sprite(point, faces[0])
        if image is None or not _well_shaped(image):
            continue
        turned = np.stack([_template(_turn(image, angle)) for angle in _ROTATIONS])
        if kept and float((templates[: len(kept)] @ turned.T).max()) > similarity:
            continue
        templates[len(kept)] = turned[_ROTATIONS.index(0)]
        kept.append(point)
        if len(kept) == number:
            break
    return kept


def sprite(point: int, face: str) -> Image.Image | None:
    """The symbol as a tight alpha image (L), long side `SPRITE_PX`; None where the face draws hardly anything."""
    font = _font(face)
    left, top, right, bottom = font.getbbox(chr(point))
    width, height = int(right - left), int(bottom - top)
    if width < 4 or height < 4:
        return None
    image = Image.new("L", (width + 4, height + 4), 0)
    ImageDraw.Draw(image).text((2 - left, 2 - top), chr(point), fill=255, font=font)
    inked = image.getbbox()
    if inked is None:
        return None
    image = image.crop(inked)
    scale = SPRITE_PX / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def class_name(point: int) -> str:
    """The character's Unicode name in lower case."""
    return unicodedata.name(chr(point), f"u+{point:04x}").lower()


@functools.cache
def _font(face: str) -> ImageFont.FreeTypeFont:
    path = _font_folder() / face
    try:
        return ImageFont.truetype(str(path), _FONT_PX)
    except OSError:
        hint = "reinstall matplotlib, which ships it"
        raise UserError(f"font {face} is missing", where=str(path.parent), hint=hint) from None


@functools.cache
def _font_folder() -> Path:
    # find_spec does not import matplotlib, which would cost each drawing process a third of a second.
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise UserError("glyph images need the DejaVu fonts that matplotlib ships", hint="pip install matplotlib")
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"


@functools.cache
def _stored_lists() -> dict[tuple[str, float], list[int]]:
    entries = json.loads(STORED.read_text(encoding="ascii"))["lists"]
    return {(e["faces"], float(e["similarity"])): e["code_points"] for e in entries}


def _stored(name: str, similarity: float) -> list[int] | None:
    return _stored_lists().get((name, similarity))


def _candidates(faces: tuple[str, ...]) -> list[int]:
    from matplotlib.ft2font import FT2Font

    common = set.intersection(*(set(FT2Font(str(_font_folder() / face)).get_charmap()) for face in faces))
    return [point for point in sorted(common) if point > 0x20 and _is_symbol(chr(point))]


def _is_symbol(character: str) -> bool:
    """Letters, numbers, symbols and punctuation that are no modifier and not composed of others."""
    kind = unicodedata.category(character)
    composed = unicodedata.combining(character) or unicodedata.decomposition(character)
    return kind[0] in "LNSP" and kind not in ("Lm", "Sk") and not composed


def _well_shaped(image: Image.Image) -> bool:
    """Neither a thin stroke nor nearly empty nor nearly full: what remains has a shape to learn."""
    ink = float(np.asarray(image, np.float32).mean()) / 255
    return min(image.size) / max(image.size) >= 0.4 and 0.12 <= ink <= 0.9


def _turn(image: Image.Image, angle: float) -> Image.Image:
    return image.rotate(angle, expand=True, resample=Image.Resampling.BILINEAR) if angle else image


def _template(image: Image.Image) -> NDArray[np.float32]:
    """A blurred, centred thumbnail with zero mean and unit norm: a dot product of two is their correlation."""
    side = _TEMPLATE_PX + 4
    width, height = (round(s * _TEMPLATE_PX / max(image.size)) for s in image.size)
    canvas = Image.new("L", (side, side), 0)
    small = image.resize((max(1, width), max(1, height)), Image.Resampling.BOX)
    canvas.paste(small, ((side - width) // 2, (side - height) // 2))
    vector = np.asarray(canvas.filter(ImageFilter.GaussianBlur(1.0)), np.float32).ravel()
    vector = vector - vector.mean()
    return np.asarray(vector / (np.linalg.norm(vector) + 1e-6), np.float32)


def main() -> None:
    """Search and store: the default similarity for both sets of faces, and .88 for the set that reaches 1,203."""
    number = LARGEST + DISTRACTORS
    lists = [
        {"faces": name, "similarity": similarity, "code_points": search(FACE_SETS[name], number, similarity)}
        for name, similarity in (("six", 0.93), ("sans", 0.93), ("sans", 0.88))
    ]
    document = {"made_by": "python -m bench.data.glyph_vocabulary", "lists": lists}
    STORED.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
