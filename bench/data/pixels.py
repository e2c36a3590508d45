"""Image files to pixels: 8-bit RGB, whatever the file has. Separate from split.py because the check and the converter
look at single files too.

16-bit gray (v >> 8) is read; float and 32-bit images are refused, since no range from black to white is defined for
them. The stored orientation (EXIF) is applied only where that is asked for: LVIS and COCO annotate the stored pixels.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import UnidentifiedImageError

from bench.errors import UserError

Bytes = NDArray[np.uint8]
Depth = Literal["8", "16", "other"]

LIMIT = "BENCH_IMAGE_PIXELS"
ORIENTATION = 0x0112  # the EXIF tag: 1 as stored, 2-4 mirrored or upside down, 5-8 turned by 90 degrees
TURNED = (5, 6, 7, 8)
BAD_IMAGE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, MemoryError, OverflowError, KeyError)
warnings.filterwarnings("ignore", category=PILImage.DecompressionBombWarning)  # an error at twice the size is enough
_PNG = b"\x89PNG\r\n\x1a\n"
_EIGHT_BIT = (".jpg", ".jpeg", ".webp", ".bmp", ".gif")  # formats, as Pillow reads them, without 16-bit gray


def read_image(path: Path, *, exif: bool = False) -> Bytes:
    """Decode an image file to uint8 H x W x 3, RGB.

    Args:
        exif: apply the stored orientation, as viewers do.

    Raises:
        UserError: the file is missing, too large, of a depth that has no black and white, or cannot be decoded.
    """
    try:
        with open_image(path) as opened:
            if depth(opened) == "16" and eight_bit(path.name):
                raise UserError(f"16-bit values in a file named {path.suffix}", hint="name it by its format, e.g. .png")
            return turned(rgb(opened), orientation(opened)) if exif else rgb(opened)
    except UserError as error:
        raise UserError(error.what, where=error.where or str(path), allowed=error.allowed, hint=error.hint) from None
    except FileNotFoundError:
        raise UserError("no such image", where=str(path), hint="`bench data check` lists all") from None
    except PILImage.DecompressionBombError:
        raise UserError(f"this image is over the limit of {limit():,} pixels", where=str(path), hint=lift()) from None
    except BAD_IMAGE as error:
        raise UserError(f"cannot decode this image: {error}", where=str(path)) from None


def open_image(path: Path) -> PILImage.Image:
    """Open an image file with our limit of pixels; nothing is decoded yet."""
    if os.environ.get(LIMIT):  # set again and never back: several threads decode
        PILImage.MAX_IMAGE_PIXELS = max(1, limit() // 2)  # Pillow refuses at twice its own limit, and warns before
    return PILImage.open(path)


def turned(pixels: Bytes, how: int) -> Bytes:
    """The pixels as a viewer shows an image of this EXIF orientation."""
    if how in TURNED:
        pixels = pixels.swapaxes(0, 1)
    if how in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if how in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def rgb(image: PILImage.Image) -> Bytes:
    """uint8 H x W x 3 of an opened image.

    Raises:
        UserError: float or 32-bit values.
    """
    bits = depth(image)
    if bits == "other":
        what = f"values of mode {image.mode}, for which no range from black to white is defined"
        raise UserError(what, hint="save the images as 8 bit; `bench data check` lists all of them")
    if bits == "16":
        gray = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def depth(image: PILImage.Image) -> Depth:
    """Bits of a value of an opened image that are read."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        return "16"
    return "other" if mode in ("F", "I") or mode.startswith("I;") else "8"


def depth_of(path: Path) -> Depth:
    """Bits of a value, from the file's first bytes; "8" where they cannot be read (decoding will say why)."""
    if eight_bit(path.name):
        return "8"
    try:
        with path.open("rb") as stream:
            head = stream.read(26)
        if head.startswith(_PNG):
            return "16" if head[24:26] == b"\x10\x00" else "8"  # bits 16, colour type gray; Pillow reads others as 8
        with open_image(path) as opened:
            return depth(opened)
    except (*BAD_IMAGE, PILImage.DecompressionBombError):
        return "8"


def eight_bit(name: str) -> bool:
    """Whether a name says that its format has no 16-bit gray.

    Planning does not open such files, so `read_image` refuses one that has it all the same: read otherwise than before,
    its results would be found under their old keys.
    """
    return name.lower().endswith(_EIGHT_BIT)


def orientation(image: PILImage.Image) -> int:
    """The EXIF orientation of an opened image, 1 to 8; 1 where there is none."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data, of which Pillow raises many kinds
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def limit() -> int:
    """The most pixels that an image may have: against files that decode to more memory than there is.

    Raises:
        UserError: BENCH_IMAGE_PIXELS is no number.
    """
    text = os.environ.get(LIMIT, "")
    if not text:
        return 2 * (PILImage.MAX_IMAGE_PIXELS or 0)
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 16):
        raise UserError("not a number of pixels", where=LIMIT, allowed="e.g. 400000000")
    return int(text)


def lift() -> str:
    """How the limit is lifted."""
    return f"if you trust the files, set {LIMIT} to the largest number of pixels, e.g. {LIMIT}=2000000000"
