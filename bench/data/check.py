"""What is wrong with a folder of photographs, all at once. Separate from the readers, which stop at the first fault;
both read annotation files through entries.py and look for images through names.py, so that they cannot disagree.

An error makes training or evaluation wrong or impossible; a warning is something to know; a note says what is read as
it was meant. Repairs that are offered never touch the file they read: `fill_negatives` here, and exported/convert.py.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.entries import Entries, Mend, across, entries_of, read_entries, sections
from bench.data.folder import annotation_file, image_root
from bench.data.formats import FORMATS, SplitName
from bench.data.kinds import KINDS, Severity, first_error
from bench.data.names import Located, locate
from bench.data.pixels import BAD_IMAGE, TURNED, depth, depth_of, open_image, orientation
from bench.data.split import Document, listing, read_json, write_json
from bench.data.values import shown
from bench.errors import UserError
from bench.spec import FolderData

_SLACK = 1.0  # pixels a box may reach over the edge: annotators round
_SIXTEEN = 4096  # a 16-bit image whose largest value is below this uses 12 bits: 4 are left after >> 8

Progress = Callable[[int, int], None]
Faults = defaultdict[str, list[str]]


@dataclass(frozen=True)
class Finding:
    """One kind of fault in one file.

    Attributes:
        severity: "error", "warning" or "note".
        kind: a short name, e.g. "missing_image".
        where: "train", "val" or "train and val".
        count: how many entries are concerned.
        examples: all of them; of a note a few.
        advice: what it does and what to do.
    """

    severity: Severity
    kind: str
    where: str
    count: int
    examples: tuple[str, ...]
    advice: str


def check(spec: FolderData, *, decode: bool = True, progress: Progress | None = None) -> list[Finding]:
    """All findings, errors first. Every image is decoded, in as many threads as there are cores.

    Args:
        spec: the section `data` of a suite; where its format has no negative lists, their absence is no finding.
        decode: whether images are opened, decoded and compared; else only their names are looked for.
        progress: called with images decoded and images in all.

    Raises:
        UserError: a file cannot be read at all, or there is no folder of images.
    """
    splits: tuple[SplitName, SplitName] = ("train", "val")
    for split in splits:
        root = image_root(spec, split)
        if not root.is_dir():
            raise UserError("no such folder of images", where=str(root), allowed=listing(root.parent))
    lists = FORMATS[spec.name].negatives
    found = {split: read_entries(annotation_file(spec, split), lists=lists) for split in splits}
    places = {
        split: locate(image_root(spec, split), annotation_file(spec, split).parent, found[split].summary.images)
        for split in splits
    }
    total, done = sum(len(place.names) for place in places.values()), 0
    findings: list[Finding] = []
    for split, entries in found.items():
        faults: Faults = defaultdict(list)
        place = places[split]
        for kinds in (entries.summary.faults, across(found["train"].summary, entries.summary), place.faults):
            for kind, examples in kinds.items():
                faults[kind] += examples
        if decode:
            _check_images(entries, place, spec, split, faults, partial(_add, progress, done, total))
            done += len(place.names)
        _check_boxes(entries, faults)
        if split == "val" and lists:  # in training nothing reads them
            _check_negatives(entries, faults)
        if split == "train":
            _check_classes(entries, faults)
        findings += [_finding(kind, split, len(examples), examples) for kind, examples in faults.items() if examples]
        findings += _notes({**entries.summary.mends, **place.mends}, split)
    files = [_files(places[split], image_root(spec, split)) for split in splits]
    shared = _shared(files[0], files[1], contents=decode)
    findings += [_finding("in_train_and_val", "train and val", len(shared), shared)] if shared else []
    order = list(KINDS)
    return sorted(findings, key=lambda f: (("error", "warning", "note").index(f.severity), order.index(f.kind)))


def fill_negatives(json_path: Path, out_path: Path) -> int:
    """Write a copy in which every category that an image does not show is a negative of it.

    Right only where the annotation is exhaustive. Classes listed as not exhaustive for an image are left out. Values
    that are read as they are meant (ids as text, areas of 0) are written as they are read.

    Returns:
        The number of images whose list changed.

    Raises:
        UserError: the file cannot be read, an entry of it is not usable, or `out_path` is the same file or exists.
    """
    if out_path.exists():
        raise UserError("the file exists", where=str(out_path), hint="name another one: the original is never replaced")
    document = sections(read_json(json_path), json_path)
    entries = entries_of(document, json_path, lists=True)
    error = first_error(json_path, {**entries.summary.faults, **across(entries.summary, entries.summary)})
    if error is not None:
        raise error
    every = sorted(entries.summary.categories)
    present: defaultdict[int, set[int]] = defaultdict(set)
    for row, a in zip(document["annotations"], entries.annotations, strict=True):
        present[a["image_id"]].add(a["category_id"])
        _overwrite(row, a)
    for row, identity in zip(document["categories"], entries.summary.categories, strict=True):
        _overwrite(row, {"id": identity, "name": entries.summary.categories[identity]})
    changed = 0
    for row, image in zip(document["images"], entries.images, strict=True):
        open_classes = present[image["id"]] | set(image["not_exhaustive_category_ids"])
        negatives = [c for c in every if c not in open_classes]
        changed += negatives != image["neg_category_ids"]
        _overwrite(row, {k: image[k] for k in ("id", "width", "height")})
        row["neg_category_ids"] = negatives
        row["not_exhaustive_category_ids"] = image["not_exhaustive_category_ids"]
    write_new(out_path, document)
    return changed


def write_new(path: Path, document: Document) -> None:
    """Write a document that may hold fields of others.

    Raises:
        UserError: it cannot be written: a field is NaN or nested too deep, or the disk refuses.
    """
    try:
        write_json(path, document)
    except (ValueError, RecursionError) as error:
        path.unlink(missing_ok=True)
        what = f"a field that is not read cannot be written as JSON: {shown(str(error))}"
        raise UserError(what, where=str(path), hint="`python -m bench data convert` leaves such fields out") from None
    except OSError as error:
        raise UserError(f"cannot write it: {error.strerror}", where=str(path)) from None


def _overwrite(row: Document, clean: Mapping[str, object]) -> None:
    """What a field says, where it was written otherwise; nothing is added."""
    for key, value in clean.items():
        if key in row and (type(row[key]) is not type(value) or row[key] != value):
            row[key] = value


def _add(progress: Progress | None, before: int, total: int, number: int) -> None:
    if progress is not None:
        progress(before + number, total)


def _finding(kind: str, where: str, count: int, examples: Iterable[str]) -> Finding:
    known = KINDS[kind]
    return Finding(known.severity, kind, where, count, tuple(examples), known.advice)


def _notes(mends: Mapping[str, Mend | list[str]], split: str) -> list[Finding]:
    notes = []
    for kind, mend in mends.items():
        examples, count = (mend.examples, mend.count) if isinstance(mend, Mend) else (mend, len(mend))
        notes.append(
            Finding("note", kind, split, count, tuple(examples[:3]), f"{KINDS[kind].says}: {KINDS[kind].advice}")
        )
    return notes


def _check_images(
    entries: Entries,
    place: Located,
    spec: FolderData,
    split: SplitName,
    faults: Faults,
    progress: Callable[[int], object],
) -> None:
    """Decode every image, in threads (decoding is done outside of Python), and compare its size."""
    root = image_root(spec, split)
    rows = [(image, name) for image, name in zip(entries.images, place.names, strict=True) if name is not None]

    def look(row: tuple[Document, str]) -> tuple[str, str] | None:
        return _look(root, row[1], (row[0]["width"], row[0]["height"]), spec.exif)

    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        for number, found in enumerate(pool.map(look, rows), start=1):
            if found is not None:
                faults[found[0]].append(found[1])
            progress(number)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C ends it at once


def _look(root: Path, name: str, annotated: tuple[int, int], exif: str) -> tuple[str, str] | None:
    """The kind of fault of an image, and its entry; None: there is none."""
    label = shown(name, 160)
    try:
        with open_image(root / name) as opened:
            size, how = opened.size, orientation(opened)
            # JPEG: all data is read, an eighth of the pixels is computed.
            opened.draft("RGB", (max(1, size[0] // 8), max(1, size[1] // 8)))
            opened.load()
            sixteen = depth(opened) == "16"
            peak = int(np.asarray(opened).max()) if sixteen else 0
    except Image.DecompressionBombError:
        return "too_large_image", label
    except BAD_IMAGE:
        return "undecodable_image", label
    as_shown = size[::-1] if how in TURNED else size
    read = as_shown if exif == "apply" else size
    if read != annotated:
        if as_shown == annotated:
            return "exif_turned", f"{label}: orientation {how}, stored {size[0]} x {size[1]}, annotated as shown"
        if annotated[0] <= 0:  # said already
            return None
        turned = f", EXIF orientation {how}" if how != 1 else ""
        return "size_mismatch", f"{label}: {read[0]} x {read[1]}, annotated {annotated[0]} x {annotated[1]}{turned}"
    if how != 1 and exif == "ignore":
        if as_shown != size:
            return "exif_stored", f"{label}: orientation {how}"
        return "exif_orientation", f"{label}: orientation {how}, the annotated size fits both frames"
    if sixteen and depth_of(root / name) == "8":
        return "unreadable_depth", f"{label}: 16 bits under a name that says 8"
    return ("dark_sixteen_bit", f"{label}: largest value {peak} of 65535") if sixteen and peak < _SIXTEEN else None


def _check_boxes(entries: Entries, faults: Faults) -> None:
    size = {i["id"]: (i["width"], i["height"]) for i in entries.images}
    for a in entries.annotations:
        x, y, w, h = a["bbox"]
        width, height = size[a["image_id"]]
        if w <= 0 or h <= 0:
            faults["degenerate_box"].append(f"annotation {shown(a['id'])}: {shown(a['bbox'])}")
        elif width > 0 and max(-x, -y, x + w - width, y + h - height) > _SLACK:
            faults["box_outside"].append(f"annotation {shown(a['id'])}: {shown(a['bbox'])} in {width} x {height}")


def _check_negatives(entries: Entries, faults: Faults) -> None:
    """A finding where no image has negatives; in LVIS itself a few images have none."""
    if not entries.summary.negatives:
        images = entries.images
        faults["no_negatives"] += [shown(image["names"][0] if image["names"] else image["id"]) for image in images]


def _check_classes(entries: Entries, faults: Faults) -> None:
    trained = {a["category_id"] for a in entries.annotations if not a["iscrowd"] and "ignore" not in a}
    for identity, name in entries.summary.categories.items():
        if identity not in trained:
            faults["class_without_training_image"].append(f"{shown(identity)} {shown(name)}")


def _files(place: Located, root: Path) -> dict[str, Path]:
    return {name: root / name for name in place.names if name is not None}


def _shared(train: dict[str, Path], val: dict[str, Path], *, contents: bool) -> list[str]:
    """Images in both splits: the same file, or (`contents`) of the same bytes under two names."""
    shared = sorted(name for name in train.keys() & val.keys() if train[name] == val[name])
    if not contents:
        return shared
    same = set(shared)
    of_size: defaultdict[int, list[str]] = defaultdict(list)
    for name, file in train.items():
        of_size[file.stat().st_size].append(name)
    known: dict[int, dict[str, list[str]]] = {}  # size -> digest -> names, of the sizes that val has too
    for name, file in sorted(val.items()):
        size = file.stat().st_size
        if name in same or size not in of_size:
            continue
        if size not in known:
            known[size] = {}
            for rival in of_size[size]:
                known[size].setdefault(_digest(train[rival]), []).append(rival)
        if rivals := known[size].get(_digest(file)):
            more = f" and {len(rivals) - 1:,} more" if len(rivals) > 1 else ""
            shared.append(f"{shown(name)} = {shown(rivals[0])}{more}")
    return shared


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
