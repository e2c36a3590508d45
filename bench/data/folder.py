"""What folders of photographs have in common, in either format. Separate from lvis.py and coco.py, which hold
what differs between them.

What can be counted is counted and not read: number of classes, instances and images of a class come from the
TRAINING annotations, crowds left out. Images without annotations are kept (they count in LVIS's repeat factors).
An image is named by `file_name` or (LVIS v1) by `coco_url`; both may lie in folders like train2017 or side by side.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import posixpath
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.data.formats import SplitName
from bench.data.split import Document, listing, read_json
from bench.errors import UserError
from bench.frequency import lvis_frequency
from bench.spec import FolderData

VERSION = 1  # in the key of the data stage; raise it when what is read may change

Lists = Callable[[Mapping[str, Any], set[int], Path], Document]
SECTIONS = ("images", "annotations", "categories")
CHECK = "`bench data check` lists all such entries"
_COCO_NAME = 16  # "000000266409.jpg": LVIS v0.5 writes COCO_val2014_000000266409.jpg for an image of train2017


def image_root(spec: FolderData) -> Path:
    """The folder below which the images lie."""
    return Path(spec.path) / spec.images


def annotation_file(spec: FolderData, split: SplitName) -> Path:
    """The annotation file of a split."""
    return Path(spec.path) / (spec.train if split == "train" else spec.val)


def read(spec: FolderData, split: SplitName, lists: Lists, promise: Document) -> Document:
    """One split in stored form: LVIS, `file_name` relative to the image root, categories with TRAINING counts.

    Polygons are left out (the harness evaluates boxes); run-length masks are kept.

    Args:
        lists: the format's lists of classes without a box in an image, as keys of the stored image entry.
        promise: keys of the stored `info`.

    Raises:
        UserError: a file or folder is missing, JSON is damaged, ids do not match, a name leaves the image root.
    """
    root = image_root(spec)
    if not root.is_dir():
        raise UserError("no such folder of images", where=str(root), allowed=listing(root.parent))
    train_file, file = annotation_file(spec, "train"), annotation_file(spec, split)
    train = sections(read_json(train_file), train_file)
    document = train if split == "train" else sections(read_json(file), file)
    categories = _categories(train, train_file)
    known = {c["id"] for c in categories}
    images = [{**_image(entry, root, file), **lists(entry, known, file)} for entry in document["images"]]
    _unique((i["id"] for i in images), "image", file)
    image_ids = {i["id"] for i in images}
    annotations = [_annotation(a, image_ids, known, file) for a in document["annotations"]]
    _unique((a["id"] for a in annotations), "annotation", file)
    info = {"description": f"{spec.name} {split}", **promise}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def fingerprint(spec: FolderData, split: SplitName) -> str:
    """sha256 over the split's annotation file, image names and byte sizes; for val also the training annotations.

    The path is not in it: a copy of the folder elsewhere has the same fingerprint. Images are not opened.

    Raises:
        UserError: a file is missing or damaged.
    """
    files = [annotation_file(spec, "train"), annotation_file(spec, split)]
    try:
        stamps = tuple((f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    except OSError:
        missing = next(f for f in files if not f.is_file())
        raise UserError("no such annotation file", where=str(missing), allowed=listing(missing.parent)) from None
    named, train_digest = _named(files[1], stamps[1]), _digest(files[0], stamps[0])
    total = hashlib.sha256(f"{spec.name} {VERSION} {train_digest} {_digest(files[1], stamps[1])}\n".encode())
    root = image_root(spec)
    for candidates in named:
        name, size = _found(root, candidates, files[1])
        total.update(f"{name}\0{size}\n".encode())
    return total.hexdigest()


def sections(document: Document, file: Path) -> Document:
    """The document, if it has lists of images, annotations and categories."""
    for name in SECTIONS:
        if not isinstance(document.get(name), list):
            raise UserError(f"no list '{name}'", where=str(file), allowed=f"an object with {', '.join(SECTIONS)}")
    return document


def candidates(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Where below the image root an image may lie, likeliest first: file_name (v0.5), then coco_url (v1)."""
    found: list[str] = []
    name, url = entry.get("file_name"), entry.get("coco_url")
    if isinstance(name, str) and name:
        found.append(name)
    if isinstance(url, str) and url:
        parts = [p for p in urlsplit(url).path.split("/") if p]
        found += ["/".join(parts[-2:]), *parts[-1:]]
    if isinstance(name, str) and name.startswith("COCO_"):
        found.append(name[-_COCO_NAME:])
    return tuple(dict.fromkeys(found))


def leaves_root(name: str) -> bool:
    """Whether a name points outside the folder it is relative to."""
    clean = posixpath.normpath(name.replace("\\", "/"))
    return clean.startswith(("/", "../")) or clean == ".." or os.path.isabs(name)


def _image(entry: Any, root: Path, file: Path) -> Document:
    _require(entry, ("id", "width", "height"), "image", file)
    name, _ = _found(root, candidates(entry), file)
    image: Document = {"id": entry["id"], "file_name": name, "width": entry["width"], "height": entry["height"]}
    if not all(isinstance(image[side], int) and image[side] > 0 for side in ("width", "height")):
        raise UserError(f"image {image['id']} has no size: {image['width']} x {image['height']}", where=str(file))
    return image


def _found(root: Path, names: tuple[str, ...], file: Path) -> tuple[str, int]:
    """The first name that is a file below the root, and its bytes."""
    for name in names:
        if leaves_root(name):
            raise UserError(f"image name '{name}' leaves the image root", where=str(file), hint=CHECK)
    for name in names:
        try:
            found = (root / name).stat()
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode):
            return name, found.st_size
    shown = " or ".join(names) or "an image entry has neither file_name nor coco_url"
    raise UserError(f"no such image: {shown}", where=str(root), allowed=listing(root), hint=CHECK)


def _annotation(entry: Any, image_ids: set[int], known: set[int], file: Path) -> Document:
    _require(entry, ("id", "image_id", "category_id", "bbox"), "annotation", file)
    for key, legal, kind in (("image_id", image_ids, "image"), ("category_id", known, "category")):
        if entry[key] not in legal:
            what = f"annotation {entry['id']} names {kind} {entry[key]}, which is not there"
            raise UserError(what, where=str(file), hint=CHECK)
    box = entry["bbox"]
    if not _is_box(box):
        raise UserError(f"annotation {entry['id']} has no box of four numbers: {box}", where=str(file), hint=CHECK)
    area = entry.get("area", box[2] * box[3])
    annotation = {k: entry[k] for k in ("id", "image_id", "category_id", "bbox")}
    annotation |= {"area": area, "iscrowd": int(bool(entry.get("iscrowd", 0)))}
    if isinstance(entry.get("segmentation"), dict):
        annotation["segmentation"] = entry["segmentation"]
    return annotation


def _is_box(box: Any) -> bool:
    if not isinstance(box, list) or len(box) != 4:
        return False
    return all(isinstance(v, int | float) and math.isfinite(v) for v in box)


def _categories(train: Document, file: Path) -> list[Document]:
    """Categories by ascending id, counted from the training annotations without crowds."""
    instances: Counter[int] = Counter()
    pairs: set[tuple[int, int]] = set()
    for a in train["annotations"]:
        if isinstance(a, dict) and not a.get("iscrowd"):
            instances[a.get("category_id", -1)] += 1
            pairs.add((a.get("category_id", -1), a.get("image_id", -1)))
    images = Counter(category for category, _ in pairs)
    for c in train["categories"]:
        _require(c, ("id", "name"), "category", file)
    _unique((c["id"] for c in train["categories"]), "category", file)
    return [
        {"id": c["id"], "name": c["name"], "frequency": lvis_frequency(images[c["id"]])}
        | {"image_count": images[c["id"]], "instance_count": instances[c["id"]]}
        for c in sorted(train["categories"], key=lambda c: int(c["id"]))
    ]


def _require(entry: Any, keys: tuple[str, ...], kind: str, file: Path) -> None:
    missing = [k for k in keys if not isinstance(entry, dict) or k not in entry]
    if missing:
        raise UserError(f"an {kind} entry lacks {', '.join(missing)}: {str(entry)[:120]}", where=str(file))
    for key in keys:
        if key.endswith("id") and (not isinstance(entry[key], int) or isinstance(entry[key], bool)):
            raise UserError(f"{key} of an {kind} entry is not an integer: {entry[key]!r}", where=str(file))


def _unique(ids: Iterable[int], kind: str, file: Path) -> None:
    twice = [i for i, n in Counter(ids).items() if n > 1]
    if twice:
        what = f"{len(twice)} {kind} ids occur more than once, e.g. {twice[0]}"
        raise UserError(what, where=str(file), hint=CHECK)


@functools.lru_cache(maxsize=8)
def _digest(file: Path, _stamp: tuple[int, int]) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.lru_cache(maxsize=8)
def _named(file: Path, _stamp: tuple[int, int]) -> tuple[tuple[str, ...], ...]:
    """Candidate names of every image of an annotation file; cached, since a plan needs the same file many times."""
    return tuple(candidates(entry) for entry in sections(read_json(file), file)["images"] if isinstance(entry, dict))
