"""One split in memory and on disk. Separate because readers, generators, loader, evaluator and methods all meet here.

A split is stored as `annotations.json` (LVIS form) and, for made images, `pixels.npy`; photographs stay in the image
root, which the caller passes. Where every class that is absent from an image is known to be absent, the stored form has
`info.exhaustive` once instead of listing up to 1,200 negatives per image; `lvis_json` writes the lists out.

Shape legend: n boxes of one image, C classes, H x W pixels.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.data.pixels import Bytes, read_image
from bench.errors import UserError
from bench.frequency import ClassStatistics

# What a text may begin with to say its encoding; longest first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
ANNOTATIONS = "annotations.json"
PIXELS = "pixels.npy"
PIECE = 10_000  # entries of a list that are written at once

Document = dict[str, Any]
Ints = NDArray[np.int64]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Category:
    """One class; frequency (r, c, f) and counts are those of the TRAINING set, in every split."""

    id: int
    name: str
    frequency: str
    image_count: int
    instance_count: int


@dataclass(frozen=True)
class Image:
    """One image. `negatives` (class indices known to be absent) is None where the annotation is exhaustive."""

    id: int
    file_name: str
    width: int
    height: int
    negatives: tuple[int, ...] | None = None
    not_exhaustive: tuple[int, ...] = ()


class PixelSource(Protocol):
    """Where pixels come from: `read(row) -> uint8 H x W x 3, RGB`."""

    def read(self, row: int) -> Bytes: ...


@dataclass(frozen=True, eq=False)
class ArrayPixels:
    """Images of one size in one array, uint8 I x S x S x 3 (a memmap's view)."""

    array: Bytes

    def read(self, row: int) -> Bytes:
        return np.asarray(self.array[row])


@dataclass(frozen=True)
class FilePixels:
    """Image files below a root; `exif`: turned as their EXIF orientation says."""

    root: Path
    names: tuple[str, ...]
    exif: bool = False

    def read(self, row: int) -> Bytes:
        return read_image(self.root / self.names[row], exif=self.exif)


@dataclass(frozen=True)
class NoPixels:
    """Annotations without images: enough for an evaluation."""

    folder: Path

    def read(self, row: int) -> Bytes:
        raise UserError(f"image {row} is needed, but there is no {PIXELS} and no image root", where=str(self.folder))


@dataclass(frozen=True, eq=False)
class Split:
    """One split in memory; a data part makes another one with `subset` or `dataclasses.replace`.

    Attributes:
        categories: by class index: rank of the category id in ascending order.
        images: by position in the split.
        boxes: per image float32 n x 4, x1 y1 x2 y2 in pixels of the file.
        labels: per image int64 n, 0..C-1.
        ignore: per image bool n; true for crowds and whatever a data part takes out of training.
        annotated: per image float64 n x 5, x y width height area exactly as annotated (for the evaluator).
        annotation_ids: per image int64 n.
        source: where the pixels are.
        rows: row of each image in `source`.
        uncounted: per image bool n, those of `ignore` that the file marks `ignore: 1`: a detection of one is neither
            right nor wrong, as of a crowd, but it is matched as a box. None: there is no such box.
        counted: counts of all training images, where these are a part of them; None: they are all, or are not trained.
    """

    categories: tuple[Category, ...]
    images: tuple[Image, ...]
    boxes: Sequence[NDArray[np.float32]]
    labels: Sequence[Ints]
    ignore: Sequence[NDArray[np.bool_]]
    annotated: Sequence[NDArray[np.float64]]
    annotation_ids: Sequence[Ints]
    source: PixelSource
    rows: Ints
    info: Mapping[str, Any] = field(default_factory=dict)
    uncounted: Sequence[NDArray[np.bool_]] | None = None
    counted: ClassStatistics | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.categories)

    def pixels(self, i: int) -> Bytes:
        """uint8 H x W x 3, RGB. Raises UserError for a file that is missing, undecodable or of another size."""
        pixels = self.source.read(int(self.rows[i]))
        image = self.images[i]
        if pixels.shape[:2] != (image.height, image.width):
            what = f"image is {pixels.shape[1]} x {pixels.shape[0]}, annotated {image.width} x {image.height}"
            hint = "`bench data check` lists all such images"
            if pixels.shape[:2] == (image.width, image.height):
                hint += "; if it is turned by an EXIF orientation: data.exif=apply"
            raise UserError(what, where=image.file_name, hint=hint)
        return pixels

    def array(self) -> Bytes | None:
        """All images as one uint8 array (index it with `rows`), or None where they are files."""
        return self.source.array if isinstance(self.source, ArrayPixels) else None

    def negative(self, i: int) -> Ints:
        """Classes known to be absent from image i, int64 ascending."""
        negatives = self.images[i].negatives
        if negatives is not None:
            return np.array(negatives, np.int64)
        absent = np.ones(self.num_classes, np.bool_)
        absent[self.labels[i]] = False
        return np.flatnonzero(absent)

    def statistics(self) -> ClassStatistics:
        """Counts of this split as it is, boxes to ignore left out."""
        kept = (labels[~ignore] for labels, ignore in zip(self.labels, self.ignore, strict=True))
        return ClassStatistics.from_labels(kept, self.num_classes)

    def training_statistics(self) -> ClassStatistics:
        """How often classes occur in the training set, by which methods tell rare from frequent: of a part of the
        training images, the counts of all of them."""
        stats = self.statistics()
        if self.counted is None:
            return stats
        return replace(
            stats, instance_counts=self.counted.instance_counts, image_counts=self.counted.image_counts,
            counted_images=self.counted.num_images,
        )  # fmt: skip

    def subset(self, indices: Sequence[int] | Ints) -> Split:
        """The images at these positions, in this order (repeats allowed)."""
        at = [int(i) for i in indices]
        return replace(
            self,
            images=tuple(self.images[i] for i in at),
            boxes=[self.boxes[i] for i in at],
            labels=[self.labels[i] for i in at],
            ignore=[self.ignore[i] for i in at],
            annotated=[self.annotated[i] for i in at],
            annotation_ids=[self.annotation_ids[i] for i in at],
            rows=self.rows[at],
            uncounted=None if self.uncounted is None else [self.uncounted[i] for i in at],
        )

    def keep_boxes(self, keep: Sequence[NDArray[np.bool_]]) -> Split:
        """Without the boxes whose entry in `keep` (per image bool n) is false; the images stay."""
        return replace(
            self,
            boxes=[v[k] for v, k in zip(self.boxes, keep, strict=True)],
            labels=[v[k] for v, k in zip(self.labels, keep, strict=True)],
            ignore=[v[k] for v, k in zip(self.ignore, keep, strict=True)],
            annotated=[v[k] for v, k in zip(self.annotated, keep, strict=True)],
            annotation_ids=[v[k] for v, k in zip(self.annotation_ids, keep, strict=True)],
            uncounted=None if self.uncounted is None else [v[k] for v, k in zip(self.uncounted, keep, strict=True)],
        )

    def lvis_json(self) -> Document:
        """Ground truth in LVIS form for an evaluator: boxes and areas as annotated, negative lists written out."""
        ids = np.array([c.id for c in self.categories], np.int64)
        annotations: list[Document] = []
        for i, image in enumerate(self.images):
            uncounted = np.zeros_like(self.ignore[i]) if self.uncounted is None else self.uncounted[i]
            columns = (
                self.annotation_ids[i],
                ids[self.labels[i]],
                self.annotated[i],
                self.ignore[i] & ~uncounted,
                uncounted,
            )
            for identity, category, (*bbox, area), crowd, free in zip(*(c.tolist() for c in columns), strict=True):
                box = {"bbox": bbox, "area": area, "iscrowd": int(crowd), "ignore": int(free)}
                annotations.append({"id": identity, "image_id": image.id, "category_id": category, **box})
        return {
            "info": dict(self.info),
            "images": [_image_json(image, self.negative(i), ids) for i, image in enumerate(self.images)],
            "annotations": annotations,
            "categories": [vars(c).copy() for c in self.categories],
        }


def open_split(folder: Path, image_root: Path | None) -> Split:
    """Open what a `data` stage wrote: `annotations.json` and `pixels.npy`, or image files below `image_root`.

    With neither, all but `pixels` works.

    Raises:
        UserError: a file is missing or damaged.
    """
    document = read_json(folder / ANNOTATIONS)
    if (folder / PIXELS).is_file():
        stored = np.load(folder / PIXELS, mmap_mode="r")
        # A plain view: indexing np.memmap itself makes a memmap object for every image.
        source: PixelSource = ArrayPixels(np.asarray(stored))
    elif image_root is None:
        source = NoPixels(folder)
    else:
        exif = document.get("info", {}).get("exif") == "apply"
        source = FilePixels(image_root, tuple(str(i["file_name"]) for i in document["images"]), exif)
    return from_document(document, source)


def from_document(document: Document, source: PixelSource) -> Split:
    """A split from its LVIS-form document (ids checked by the readers); boxes are grouped by image, in file order."""
    categories = tuple(
        Category(*(c[k] for k in ("id", "name", "frequency", "image_count", "instance_count")))
        for c in sorted(document["categories"], key=lambda c: int(c["id"]))
    )
    class_of = {c.id: k for k, c in enumerate(categories)}
    position = {image["id"]: i for i, image in enumerate(document["images"])}
    rows = document["annotations"]
    at = np.fromiter((position[a["image_id"]] for a in rows), np.int64, len(rows))
    order = np.argsort(at, kind="stable")
    cuts = np.searchsorted(at[order], np.arange(1, len(position)))

    def per_image(values: NDArray[T]) -> list[NDArray[T]]:
        return np.split(values[order], cuts) if position else []

    crowds = np.fromiter((bool(a.get("iscrowd", 0)) for a in rows), np.bool_, len(rows))
    uncounted = np.fromiter((bool(a.get("ignore", 0)) for a in rows), np.bool_, len(rows))
    annotated = np.array([(*a["bbox"], a["area"]) for a in rows], np.float64).reshape(-1, 5)
    corners = np.concatenate([annotated[:, :2], annotated[:, :2] + annotated[:, 2:4]], axis=1)
    return Split(
        categories=categories,
        images=tuple(_image(i, class_of) for i in document["images"]),
        boxes=per_image(corners.astype(np.float32)),
        labels=per_image(np.fromiter((class_of[a["category_id"]] for a in rows), np.int64, len(rows))),
        ignore=per_image(crowds | uncounted),
        annotated=per_image(annotated),
        annotation_ids=per_image(np.fromiter((a["id"] for a in rows), np.int64, len(rows))),
        source=source,
        rows=np.arange(len(position)),
        info=document.get("info", {}),
        uncounted=per_image(uncounted & ~crowds) if uncounted.any() else None,
    )


def write_json(path: Path, document: Document) -> None:
    """Write a document as deterministic bytes: no spaces, keys in the order given, UTF-8 escaped to ASCII.

    Long lists go out in pieces: as one text, the annotations of LVIS take gigabytes.
    """
    encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    with path.open("w", encoding="ascii") as stream:
        for i, (key, value) in enumerate(document.items()):
            stream.write(f"{',' if i else '{'}{encode(key)}:")
            if not isinstance(value, list) or len(value) <= PIECE:
                stream.write(encode(value))
                continue
            for start in range(0, len(value), PIECE):
                stream.write(("," if start else "[") + encode(value[start : start + PIECE])[1:-1])
            stream.write("]")
        stream.write("}\n" if document else "{}\n")


def read_json(path: Path) -> Document:
    """Read a JSON object.

    Raises:
        UserError: the file is missing (what lies beside it is listed), cut short or not an object.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot read it: {why}", where=str(path), allowed=listing(path.parent)) from None
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"not {encoding.upper()} text at byte {error.start}", where=str(path)) from None
    del data
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}:{error.colno}"
        what = f"not valid JSON at character {error.pos} of {len(text)}: {error.msg}"
        raise UserError(what, where=where, hint="the file may be cut short; fetch it again") from None
    except RecursionError:
        raise UserError("lists or objects are nested too deep in it to be annotations", where=str(path)) from None
    except ValueError:  # of more digits than Python turns into a number
        raise UserError("it holds a number of thousands of digits", where=str(path)) from None
    if not isinstance(document, dict):
        raise UserError("not a JSON object with images, annotations and categories", where=str(path))
    return document


def listing(folder: Path, limit: int = 12) -> str:
    """What lies in the nearest existing folder, as text for an error."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir())
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{folder} holds {', '.join(names[:limit]) or 'nothing'}{more}"


def _image(entry: Mapping[str, Any], class_of: Mapping[int, int]) -> Image:
    negatives = entry.get("neg_category_ids")
    return Image(
        id=entry["id"],
        file_name=entry["file_name"],
        width=entry["width"],
        height=entry["height"],
        negatives=None if negatives is None else tuple(sorted(class_of[c] for c in negatives)),
        not_exhaustive=tuple(sorted(class_of[c] for c in entry.get("not_exhaustive_category_ids", ()))),
    )


def _image_json(image: Image, negative: Ints, ids: Ints) -> Document:
    return {
        "id": image.id,
        "file_name": image.file_name,
        "width": image.width,
        "height": image.height,
        "neg_category_ids": ids[negative].tolist(),
        "not_exhaustive_category_ids": ids[list(image.not_exhaustive)].tolist() if image.not_exhaustive else [],
    }
