"""The gate for annotation files: what a foreign JSON file holds, as clean typed entries, with all faults and all mends.

Separate because the reader, the check, the filler of negatives and the converter must not disagree on what a file says.
What is unambiguous is read as it is meant and kept as a mend; what is not is a fault. Kinds: bench/data/kinds.py.
Nothing that a JSON file can hold makes this raise anything but a UserError.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.data import quick
from bench.data.areas import mask_area
from bench.data.names import candidates
from bench.data.split import Document, read_json
from bench.data.values import LARGEST, Unreadable, class_name, flag, number, shown, whole
from bench.errors import UserError

SECTIONS = ("images", "annotations", "categories")
LISTS = ("neg_category_ids", "not_exhaustive_category_ids")
CLASS_IDS = 2**31  # of categories; evaluators keep them in 32 bits
EDGE = 2.0  # pixels that an area may be larger than its box on each side: annotators round
SAMPLE = 2000  # boxes whose sides are kept: a share of them is known to a per cent
_PIXELS = 10**9  # a coordinate is below this
_KEPT = 3  # examples of a mend
_MISSING = object()
_NUMBERS = {int, float}


@dataclass(eq=False)
class Mend:
    """One kind of value that was read as it was meant: how often, and the first few entries."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, entry: str) -> None:
        self.count += 1
        if self.count <= _KEPT:
            self.examples.append(entry)


@dataclass(eq=False)
class Summary:
    """What has to be known of an annotation file beside its boxes; small enough to be kept.

    Attributes:
        file: the file.
        images: of each image its id and the names that it may have.
        categories: id -> name, in file order.
        faults: kind -> all entries concerned. mends: kind -> how often.
        used: category id -> boxes, and the first box's label. listed: the same of the lists of images.
        counts: category id -> instances, and images that show it, without crowds and ignored boxes.
        boxes: without a fault. countable: those that count in an AP.
        negatives: images that name a class as absent; `lists`: images that have such a list, be it empty.
        unnamed: ids of categories that have another fault.
        sides: of at most SAMPLE boxes, evenly from the file: width and height of the box, and of its image, pixels.
    """

    file: Path
    images: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    categories: dict[int, str] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    mends: dict[str, Mend] = field(default_factory=dict)
    used: dict[int, tuple[int, str]] = field(default_factory=dict)
    listed: dict[int, tuple[int, str]] = field(default_factory=dict)
    counts: dict[int, tuple[int, int]] = field(default_factory=dict)
    boxes: int = 0
    countable: int = 0
    negatives: int = 0
    lists: int = 0
    unnamed: set[int] = field(default_factory=set)
    sides: list[tuple[float, float, int, int]] = field(default_factory=list)

    def fault(self, kind: str, entry: str) -> None:
        self.faults.setdefault(kind, []).append(entry)

    def mend(self, kind: str, entry: str) -> None:
        self.mends.setdefault(kind, Mend()).add(entry)


@dataclass(eq=False)
class Entries:
    """The clean entries of an annotation file; those with a fault are left out, the others are in file order.

    Attributes:
        images: id, names, width, height, and the lists of classes where they are asked for.
        annotations: id, image_id, category_id, bbox, area, iscrowd; `ignore` and a run-length mask where there is one.
    """

    summary: Summary
    images: list[Document]
    annotations: list[Document]


def read_entries(file: Path, *, lists: bool, keep: bool = True) -> Entries:
    """Read an annotation file.

    Args:
        lists: whether its images have lists of classes (LVIS); else these are not looked at.
        keep: whether images and annotations are kept; else there is the summary alone.

    Raises:
        UserError: the file is missing, damaged, or without its three lists.
    """
    with quick.no_collection():
        document = quick.document_of(file) or sections(read_json(file), file)
        return entries_of(document, file, lists=lists, keep=keep)


def entries_of(document: Document, file: Path, *, lists: bool, keep: bool = True) -> Entries:
    """The entries of a document that was read from `file`."""
    summary = Summary(file)
    _categories(document["categories"], summary)
    images = _images(document["images"], summary, lists=lists)
    annotations = _annotations(document["annotations"], images, summary, keep=keep)
    if not document["images"]:
        summary.fault("no_images", "the list 'images' is empty")
    elif not summary.countable:
        summary.fault("no_ground_truth", f"{summary.boxes} boxes, none of which counts")
    return Entries(summary, images if keep else [], annotations)


def sections(document: Document, file: Path) -> Document:
    """The document, if it has lists of images, annotations and categories."""
    for name in SECTIONS:
        if not isinstance(document.get(name), list):
            raise UserError(f"no list '{name}'", where=str(file), allowed=f"an object with {', '.join(SECTIONS)}")
    return document


def across(train: Summary, summary: Summary) -> dict[str, list[str]]:
    """Faults of a split beside the training file: classes that it lacks, and names or ids that differ."""
    found: dict[str, list[str]] = {}
    unknown = [
        f"{label}: category {shown(identity)}" + (f" ({count - 1:,} more)" if count > 1 else "")
        for uses in (summary.used, summary.listed)
        for identity, (count, label) in uses.items()
        if identity not in train.categories and identity not in train.unnamed
    ]
    if unknown:
        found["unknown_category_id"] = unknown
    ids = {name: identity for identity, name in train.categories.items()}
    for identity, name in summary.categories.items() if summary is not train else ():
        own = train.categories.get(identity)
        if own != name and (own is not None or name in ids):
            there = f"; '{shown(name)}' is {shown(ids[name])}" if name in ids else ""
            here = f"'{shown(own)}'" if own is not None else "no class"
            what = f"id {shown(identity)} is '{shown(name)}' in {summary.file.name}, {here} in {train.file.name}{there}"
            found.setdefault("other_category_ids", []).append(what)
    return found


def _categories(rows: list[Any], summary: Summary) -> None:
    named: dict[str, int] = {}
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            summary.fault("malformed_entry", f"category entry {position}: {shown(row)}")
            continue
        try:
            identity = _id(row.get("id"), f"category {shown(row.get('id'))}", summary)
            summary.unnamed.add(identity)
            if "name" not in row:
                raise Unreadable("no name")
            name, kind = class_name(row["name"], identity)
            summary.unnamed.discard(identity)
        except Unreadable as error:
            summary.fault("malformed_category", f"{shown(row)}: {error}")
            continue
        if kind:
            summary.mend(kind, f"category {identity}: {shown(row['name'])} is '{shown(name)}'")
        if identity in summary.categories:
            summary.fault("duplicate_category_id", shown(identity))
            continue
        if name in named:
            summary.fault("duplicate_class_name", f"'{shown(name)}' is {shown(named[name])} and {shown(identity)}")
        named[name], summary.categories[identity] = identity, name
    _count_repeats(summary, "duplicate_category_id")
    _out_of_range("category_id_range", summary.categories, CLASS_IDS, summary)


def _images(rows: list[Any], summary: Summary, *, lists: bool) -> list[Document]:
    images: list[Document] = []
    seen: set[int] = set()
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            summary.fault("malformed_entry", f"image entry {position}: {shown(row)}")
            continue
        try:
            label = f"image {shown(row.get('id', f'entry {position} (no id)'))}"
            identity = _id(row.get("id"), label, summary)
        except Unreadable as error:
            summary.fault("malformed_image", f"{label}: {error}")
            continue
        names = candidates(row)
        image: Document = {"id": identity, "names": names}
        _size(row, label, image, summary)
        if identity in seen:
            summary.fault("duplicate_image_id", shown(identity))
        seen.add(identity)
        if lists:
            _lists(row, label, image, summary)
        images.append(image)
        summary.images.append((identity, names))
    _count_repeats(summary, "duplicate_image_id")
    _out_of_range("image_id_range", seen, LARGEST, summary)
    return images


def _size(row: Document, label: str, image: Document, summary: Summary) -> None:
    for side in ("width", "height"):
        value = row.get(side)
        try:
            found, text = whole(value)
            if not 0 < found < _PIXELS:
                raise Unreadable("not above 0")
        except Unreadable:
            summary.fault("image_size", f"{label}: {shown(row.get('width'))} x {shown(row.get('height'))}")
            image["width"] = image["height"] = 0
            return
        if text:
            summary.mend("size_text", f"{label}: {side} {shown(value)!r}")
        image[side] = found


def _lists(row: Document, label: str, image: Document, summary: Summary) -> None:
    for key in LISTS:
        value = row.get(key) or []
        try:
            if not isinstance(value, list):
                raise Unreadable("not a list")
            plain = all(type(one) is int for one in value)
            ids = value if plain else [_id(one, f"{label}, {key}", summary) for one in value]
        except Unreadable as error:
            summary.fault("malformed_list", f"{label}, {key}: {error}")
            ids = []
        for one in ids:
            if one not in summary.listed:  # the first is enough: filled lists name thousands
                summary.listed[one] = (1, f"{label}, {key}")
        image[key] = sorted(ids)
    summary.negatives += bool(image[LISTS[0]])
    summary.lists += LISTS[0] in row


def _annotations(rows: list[Any], images: list[Document], summary: Summary, *, keep: bool) -> list[Document]:
    annotations: list[Document] = []
    instances, shown_in = Counter[int](), defaultdict[int, set[int]](set)
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    step = max(1, math.ceil(len(rows) / SAMPLE))
    seen: set[int] = set()
    for position, row in enumerate(rows):
        if isinstance(row, quick.Row):
            clean = _plain(*quick.values(row)) or _annotation(quick.as_dict(row), position, summary)
        elif isinstance(row, dict):
            clean = _annotation(row, position, summary)
        else:
            summary.fault("malformed_entry", f"annotation entry {position}: {shown(row)}")
            continue
        if clean is None:
            continue
        identity, image = clean["id"], clean["image_id"]
        if identity in seen:
            summary.fault("duplicate_annotation_id", shown(identity))
        seen.add(identity)
        if image not in sizes:
            summary.fault("unknown_image_id", f"annotation {shown(identity)}: image {shown(image)}")
            continue
        category = clean["category_id"]
        if category in summary.used:
            summary.used[category] = (summary.used[category][0] + 1, summary.used[category][1])
        else:
            summary.used[category] = (1, f"annotation {shown(identity)}")
        summary.boxes += 1
        if not clean["iscrowd"] and "ignore" not in clean:
            instances[category] += 1
            shown_in[category].add(image)
        if position % step == 0 and not clean["iscrowd"]:
            summary.sides.append((clean["bbox"][2], clean["bbox"][3], *sizes[image]))
        summary.countable += clean["area"] > 0 and not clean["iscrowd"] and "ignore" not in clean
        if keep:
            annotations.append(clean)
    summary.counts = {category: (count, len(shown_in[category])) for category, count in instances.items()}
    _count_repeats(summary, "duplicate_annotation_id")
    _out_of_range("annotation_id_range", seen, LARGEST, summary)
    return annotations


def _plain(
    identity: Any, image: Any, category: Any, box: Any, area: Any, crowd: Any, ignore: Any, mask: bool
) -> Document | None:
    """The clean entry where every field is as JSON has it, which is most; None: `_annotation` has to look."""
    if not (type(identity) is int and type(image) is int and type(category) is int and type(box) is list):
        return None
    if len(box) != 4 or mask or not _zero(crowd) or not _zero(ignore):
        return None
    x, y, width, height = box
    if not {type(x), type(y), type(width), type(height)} <= _NUMBERS:
        return None
    if not (-_PIXELS < x < _PIXELS and -_PIXELS < y < _PIXELS and width < _PIXELS and height < _PIXELS):
        return None
    if not (type(area) is float or type(area) is int) or width <= 0 or height <= 0:
        return None
    if not 0 < area <= (width + EDGE) * (height + EDGE):
        return None
    return {"id": identity, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": 0}


def _zero(flag_value: Any) -> bool:
    """Whether a flag is 0 or is not there."""
    return flag_value is quick.UNSET or (type(flag_value) is int and flag_value == 0)


def _annotation(row: Document, position: int, summary: Summary) -> Document | None:
    """The clean entry, or None where it has a fault of its own."""
    ids: list[int] = []
    label = ""
    for key in ("id", "image_id", "category_id"):
        value = row.get(key, _MISSING)
        if type(value) is int:
            ids.append(value)
            continue
        label = label or f"annotation {shown(row['id']) if 'id' in row else f'entry {position} (no id)'}"
        try:
            if value is _MISSING:
                raise Unreadable(f"no {key}")
            ids.append(_id(value, label, summary))
        except Unreadable as error:
            summary.fault(
                "malformed_annotation", f"{label}: {key} {error}" if value is not _MISSING else f"{label}: {error}"
            )
            return None
    label = f"annotation {ids[0]}" if -LARGEST <= ids[0] <= LARGEST else f"annotation {shown(ids[0])}"
    if "bbox" not in row:
        summary.fault("malformed_annotation", f"{label}: no bbox")
        return None
    box = _box(row["bbox"], label, summary)
    if box is None:
        summary.fault("malformed_box", f"{label}: {shown(row['bbox'])}")
        return None
    clean: Document = {"id": ids[0], "image_id": ids[1], "category_id": ids[2], "bbox": box}
    clean["area"] = _area(row, box, label, summary)
    clean["iscrowd"] = 0
    for key in ("iscrowd", "ignore"):
        value = row.get(key)
        if value is None or (type(value) is int and value == 0):
            continue
        try:
            on, text = flag(value)
        except Unreadable as error:
            summary.fault("malformed_flag", f"{label}: {key} {shown(value)} is {error}")
            continue
        if text:
            summary.mend("flag_text", f"{label}: {key} {shown(value)!r}")
        if on:
            clean[key] = 1
    if "ignore" in clean:
        summary.mend("ignore", label)
    mask = row.get("segmentation")
    if isinstance(mask, dict):
        _mask(mask, clean, label, summary)
    return clean


def _box(value: Any, label: str, summary: Summary) -> list[int | float] | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    if all((type(v) is int or type(v) is float) and -_PIXELS < v < _PIXELS for v in value):
        return value
    try:
        parsed = [number(v) for v in value]
    except Unreadable:
        return None
    if not all(-_PIXELS < v < _PIXELS for v, _ in parsed):
        return None
    if any(text for _, text in parsed):
        summary.mend("box_text", f"{label}: {shown(value)}")
    return [v for v, _ in parsed]


def _area(row: Document, box: list[int | float], label: str, summary: Summary) -> int | float:
    """The area as annotated if it can be one; else the mask's or the box's."""
    value: Any = row.get("area", _MISSING)
    width, height = box[2], box[3]
    most = (width + EDGE) * (height + EDGE)
    solid = width > 0 and height > 0
    if type(value) in (int, float) and (0 < value <= most if solid else -(_PIXELS**2) < value < _PIXELS**2):
        return value  # type: ignore[no-any-return]
    mask = row.get("segmentation")
    if value is _MISSING and not mask:
        return width * height
    if isinstance(value, str):
        try:
            found, _ = number(value)
        except Unreadable:
            found = 0
        if 0 < found <= most:
            summary.mend("area_text", f"{label}: {shown(value)!r}")
            return found
    covered = mask_area(mask) if solid else None
    if covered is not None and 0 < covered <= most:
        summary.mend("area_mask", f"{label}: {'missing' if value is _MISSING else shown(value)} is {covered:g}")
        return covered
    if value is not _MISSING:
        summary.mend("area_box", f"{label}: {shown(value)} is {width * height:g}")
    return width * height


def _mask(mask: Document, clean: Document, label: str, summary: Summary) -> None:
    """Keep a run-length mask of the right form; it is stored, not looked into."""
    counts, size = mask.get("counts"), mask.get("size")
    runs = isinstance(counts, list) and all(type(v) is int for v in counts)
    sized = isinstance(size, list) and len(size) == 2 and all(type(v) is int for v in size)
    if len(mask) == 2 and sized and (runs or isinstance(counts, str)):
        clean["segmentation"] = mask
    else:
        summary.mend("mask_damaged", label)


def _id(value: Any, label: str, summary: Summary) -> int:
    if type(value) is int:
        return value
    try:
        found, _ = whole(value)
    except Unreadable as error:
        raise Unreadable(f"{shown(value)} is {error}") from None
    summary.mend("id_text", f"{label}: {shown(value)!r}")
    return found


def _count_repeats(summary: Summary, kind: str) -> None:
    """Each id once, with how often it occurs: it was noted at every occurrence but the first."""
    if kind in summary.faults:
        times: dict[str, int] = {}
        for one in summary.faults[kind]:
            times[one] = times.get(one, 1) + 1
        summary.faults[kind] = [f"{one} ({count} times)" for one, count in times.items()]


def _out_of_range(kind: str, ids: Iterable[int], most: int, summary: Summary) -> None:
    for identity in ids:
        if not 0 <= identity <= most:
            summary.mend(kind, shown(identity))
