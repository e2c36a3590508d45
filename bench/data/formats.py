"""The formats of data, as a table. Separate because planning needs it; jobs alone import what reads or makes images.

A format is added by its entry here and its file, bench/data/NAME.py. No other code names a format.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Tag

from bench.spec import FolderData, GeneratedData, GlyphsData

SplitName = Literal["train", "val"]

# Training instances of a glyph set as a share of classes x max_instances: 23,179 of 80 x 1,600 on the CPU preset.
_GLYPH_FILL = 0.18


@dataclass(frozen=True)
class Reckoned:
    """What a split will have, before it is made: images, classes, bytes of an image's pixels."""

    images: float
    classes: int
    image_bytes: int


@dataclass(frozen=True)
class Inspected:
    """Data that are read, as planning needs them.

    Attributes:
        fingerprint: of all that is read. notes: what is read otherwise than it is written.
        sides: of a sample of the boxes: width and height of the box, and of its image, pixels.
    """

    fingerprint: str
    notes: tuple[str, ...]
    sides: Sequence[tuple[float, float, int, int]] = ()


def whole(data: GeneratedData | FolderData, split: SplitName) -> dict[str, Any]:
    """The whole section; for data that are read, the key holds their fingerprint in place of their path."""
    return data.in_key()


@dataclass(frozen=True)
class Format:
    """One format of data.

    Attributes:
        name: `data.name` of a suite.
        section: its settings. A GeneratedData is made, from these and a seed; a FolderData is read, from its path.
        module: dotted module with `make_split(section, seed, split, out, *, processes, progress)` of data that are
            made; with `write_split(section, split, out)` and `inspect(section, split)`, an Inspected, of data that are
            read.
        version: dotted module whose VERSION is in the key of the data stage.
        in_key: the settings that a split depends on, its seed apart.
        reckon: from these settings, what a split will have; None: not known before it is read.
        negatives: its images list the classes that are known to be absent, so `data check` misses lists that are empty.
    """

    name: str
    section: type[GeneratedData | FolderData]
    module: str
    version: str
    in_key: Callable[[Any, SplitName], dict[str, Any]] = whole
    reckon: Callable[[Mapping[str, Any], SplitName], Reckoned] | None = None
    negatives: bool = False

    @property
    def generated(self) -> bool:
        return issubclass(self.section, GeneratedData)


def _glyphs_in_key(data: GlyphsData, split: SplitName) -> dict[str, Any]:
    return data.in_key(without=("val_instances",) if split == "train" else ())


def _glyphs_reckoned(settings: Mapping[str, Any], split: SplitName) -> Reckoned:
    each = settings["val_instances"] if split == "val" else _GLYPH_FILL * settings["max_instances"]
    images = max(1.0, each * settings["classes"] / settings["objects"])
    return Reckoned(float(images), int(settings["classes"]), 3 * settings["size"] ** 2)


FORMATS: Mapping[str, Format] = {
    one.name: one
    for one in (
        Format(
            "glyphs", GlyphsData, "bench.data.glyphs", "bench.data.glyphs",
            in_key=_glyphs_in_key, reckon=_glyphs_reckoned,
        ),
        Format("lvis", FolderData, "bench.data.lvis", "bench.data.folder", negatives=True),
        Format("coco", FolderData, "bench.data.coco", "bench.data.folder"),
    )
}  # fmt: skip
DEFAULT = GlyphsData()


def reckoned(settings: Mapping[str, Any], split: SplitName) -> Reckoned | None:
    """What a split will have, from the settings in its key; None where that is not known."""
    form = FORMATS.get(str(settings["name"]))
    return None if form is None or form.reckon is None else form.reckon(settings, split)


def _named(value: Any) -> str:
    name = value.get("name", DEFAULT.name) if isinstance(value, dict) else getattr(value, "name", DEFAULT.name)
    return str(name)


if TYPE_CHECKING:
    Data = GeneratedData | FolderData
else:  # the section that `name` selects
    _sections = functools.reduce(operator.or_, (Annotated[one.section, Tag(one.name)] for one in FORMATS.values()))
    Data = Annotated[_sections, Discriminator(_named)]
