"""Image files of data that a tool exported: where they lie, their size and their EXIF orientation. Separate from
convert.py, which mends what is said of them.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bench.data.exported.foreign import Foreign
from bench.data.names import variants
from bench.data.pixels import BAD_IMAGE, TURNED, open_image, orientation


@dataclass(frozen=True)
class Picture:
    """A file of an image, its size as stored and its EXIF orientation."""

    file: Path
    size: tuple[int, int]
    turn: int


class Finder:
    """Finds image files below the source, by name and otherwise by the only file of that name."""

    def __init__(self, source: Path) -> None:
        self._source = Path(os.path.abspath(source))  # links in it are followed, a name with .. is not
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, names: tuple[str, ...], split: str, one: Foreign) -> Path | None:
        words = (split, "valid") if split == "val" else (split,)
        roots = [one.base, one.file.parent, self._source / "images", self._source]
        roots += [self._source / sub / word for sub in ("images", "") for word in words]
        roots += [root / "images" for root in roots] + [self._source / "JPEGImages"]
        for name in names:
            for root in dict.fromkeys(Path(os.path.abspath(r)) for r in roots):
                for spelling in (name, *variants(name, root.name, None)):
                    file = root / spelling
                    if self._inside(file):
                        return file
        for name in names:
            same = self._index().get(posixpath.basename(name.replace("\\", "/")).lower(), [])
            if len(same) == 1:
                return same[0]
        return None

    def _inside(self, file: Path) -> bool:
        """Whether it is a file below the source. A link inside it may lead elsewhere, a name may not."""
        try:
            return os.path.normpath(file).startswith(f"{self._source}{os.sep}") and file.is_file()
        except (OSError, ValueError):
            return False

    def _index(self) -> dict[str, list[Path]]:
        if self._by_name is None:
            self._by_name = {}
            for folder, _, names in os.walk(self._source):
                for name in names:
                    self._by_name.setdefault(name.lower(), []).append(Path(folder) / name)
        return self._by_name


def picture_of(file: Path) -> Picture | None:
    """What the head of an image file says; None: it cannot be opened."""
    try:
        with open_image(file) as opened:
            return Picture(file, opened.size, orientation(opened))
    except (*BAD_IMAGE, Image.DecompressionBombError):
        return None


def stored_box(box: list[float], turn: int, shown_size: tuple[int, int]) -> list[float]:
    """A box on an image as viewers show it, in the frame of its stored pixels.

    Args:
        turn: the EXIF orientation.
        shown_size: width and height as shown.
    """
    x, y, w, h = box
    if turn in (2, 3, 6, 7):
        x = shown_size[0] - x - w
    if turn in (3, 4, 7, 8):
        y = shown_size[1] - y - h
    return [y, x, h, w] if turn in TURNED else [x, y, w, h]
