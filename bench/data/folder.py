"""What folders of photographs have in common, in either format. Separate from lvis.py and coco.py, which hold
what differs between them.

What can be counted is counted and not read: number of classes, instances and images of a class come from the
TRAINING annotations, crowds and ignored boxes left out. Images without annotations are kept (they count in LVIS's
repeat factors). An image is named by `file_name` or (LVIS v1) by `coco_url`; both may lie in folders like train2017 or
side by side. What an annotation file says is read through entries.py: what is wrong is refused here before anything
starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from bench.data.entries import Mend, Summary, across, read_entries
from bench.data.formats import FORMATS, Inspected, SplitName
from bench.data.kinds import MENDS, first_error
from bench.data.names import Located, candidates, leaves_root, locate
from bench.data.split import Document, listing
from bench.data.summaries import stamp_of, summary_of
from bench.data.values import several
from bench.errors import UserError
from bench.frequency import lvis_frequency
from bench.spec import FolderData
from bench.stage import WHOLE, DataSpec, Stage, spec_of

__all__ = ["annotation_file", "candidates", "image_root", "image_root_of", "inspect", "leaves_root", "read"]

VERSION = 1  # in the key of the data stage; raise it when what is read may change
MENDED = 1  # of how mends are read: in the fingerprints of files that have some, and in no other


def image_root(spec: FolderData, split: SplitName = "train") -> Path:
    """The folder below which a split's images lie: `images`, or, where that default is not there, the data's folder."""
    images = spec.images if isinstance(spec.images, str) else spec.images[split]
    root = Path(spec.path) / images
    if images == type(spec).model_fields["images"].default and not root.is_dir():
        return Path(spec.path)
    return root


def image_root_of(data: Stage) -> Path | None:
    """The folder of the images of a folder data set; None where they are made: their pixels lie in the store."""
    if WHOLE in data.inputs:
        return image_root_of(data.inputs[WHOLE])
    source = data.not_in_key.get("source")
    if not isinstance(source, dict):
        return None
    split = spec_of(data, DataSpec)["split"]
    return image_root(FolderData.model_validate(source), "train" if split == "train" else "val")


def annotation_file(spec: FolderData, split: SplitName) -> Path:
    """The annotation file of a split."""
    return Path(spec.path) / (spec.train if split == "train" else spec.val)


def read(spec: FolderData, split: SplitName, promise: Document) -> Document:
    """One split in stored form: LVIS, `file_name` relative to the image root, categories with TRAINING counts.

    Polygons are left out (the harness evaluates boxes); run-length masks are kept. Ids are names: where one is below 0
    or larger than an evaluator can hold, the stored ids count from 1.

    Args:
        promise: keys of the stored `info`.

    Raises:
        UserError: a file or folder is missing, JSON is damaged, an entry is not usable, ids do not match, a name leaves
            the image root.
    """
    lists = FORMATS[spec.name].negatives
    own = read_entries(annotation_file(spec, split), lists=lists)
    train = own.summary if split == "train" else _summary_of_train(spec, lists)
    located = _located(spec, split, train, own.summary)
    classes = _renumbered(train, "category_id_range", sorted(train.categories))
    images = _renumbered(own.summary, "image_id_range", [i["id"] for i in own.images])
    boxes = _renumbered(own.summary, "annotation_id_range", [a["id"] for a in own.annotations])
    info: Document = {"description": f"{spec.name} {split}", **promise}
    if spec.exif != "ignore":
        info["exif"] = spec.exif
    return {
        "info": info,
        "images": [_image(image, name, images, classes) for image, name in zip(own.images, located.names, strict=True)],
        "annotations": [
            a | {"id": boxes[a["id"]], "image_id": images[a["image_id"]], "category_id": classes[a["category_id"]]}
            for a in own.annotations
        ],
        "categories": _categories(train, classes),
    }


def inspect(spec: FolderData, split: SplitName) -> Inspected:
    """Look at a split as far as possible without opening its images (but the heads of files that may have 16 bits).

    The fingerprint is a sha256 over the split's annotation file, image names and byte sizes; for val also the training
    annotations. The path is not in it: a copy of the folder elsewhere has the same. Where something is read as it was
    meant and not as it is written, the kinds of these mends are in it: stores that were made from such a file before it
    was read so are made anew, and all others are kept.

    Raises:
        UserError: a file is missing or damaged, or what `read` would refuse. So a run is refused before anything
            starts.
    """
    files = [annotation_file(spec, "train"), annotation_file(spec, split)]
    try:
        stamps = [stamp_of(f) for f in files]
    except (OSError, ValueError):
        missing = next((f for f in files if not _is_file(f)), files[0])
        raise UserError("no such annotation file", where=str(missing), allowed=listing(missing.parent)) from None
    lists = FORMATS[spec.name].negatives
    (train_digest, train), (own_digest, own) = (summary_of(f, s, lists) for f, s in zip(files, stamps, strict=True))
    located = _located(spec, split, train, own)
    total = hashlib.sha256(f"{spec.name} {VERSION} {train_digest} {own_digest}\n".encode())
    for name, size in zip(located.names, located.sizes, strict=True):
        total.update(f"{name}\0{size}\n".encode(errors="surrogateescape"))
    kinds = sorted({*own.mends, *train.mends, *located.mends})
    if kinds:
        total.update(f"mended {MENDED} {' '.join(kinds)}\n".encode())
    notes = mend_notes(own.mends, own.file.name) + mend_notes(located.mends, own.file.name)
    return Inspected(total.hexdigest(), tuple(notes), own.sides)


def mend_notes(mends: Mapping[str, Mend] | Mapping[str, list[str]], file: str) -> list[str]:
    """One line for each kind of mend."""
    lines = []
    for kind, found in mends.items():
        examples, count = (found.examples, found.count) if isinstance(found, Mend) else (found, len(found))
        lines.append(f"{file}: {count:,} {MENDS[kind].says} ({several(examples, count, 1)})")
    return lines


def _located(spec: FolderData, split: SplitName, train: Summary, own: Summary) -> Located:
    """Where the images are.

    Raises:
        UserError: the first kind of fault in the training file, in the split's own, between them, and of its images.
    """
    root = image_root(spec, split)
    if not root.is_dir():
        raise UserError("no such folder of images", where=str(root), allowed=listing(root.parent))
    for summary in (train, own):
        error = first_error(summary.file, {**summary.faults, **across(train, summary)})
        if error is not None:
            raise error
    located = locate(root, own.file.parent, own.images)
    error = first_error(own.file, located.faults)
    if error is not None:
        here = listing(root) if "missing_image" in located.faults else ""
        where = str(root) if here else error.where
        raise UserError(error.what, where=where, allowed=here, hint=error.hint)
    return located


def _summary_of_train(spec: FolderData, lists: bool) -> Summary:
    """Without reading the file again, where planning has done that."""
    file = annotation_file(spec, "train")
    try:
        stamp = stamp_of(file)
    except (OSError, ValueError):  # the reader says what is wrong
        return read_entries(file, lists=lists, keep=False).summary
    return summary_of(file, stamp, lists)[1]


def _renumbered(summary: Summary, kind: str, ids: list[int]) -> dict[int, int]:
    """Each id as it is stored: itself, or, where one of them is out of range, its position from 1."""
    if kind in summary.mends:
        return {identity: position for position, identity in enumerate(ids, start=1)}
    return {identity: identity for identity in ids}


def _image(entry: Document, name: str | None, images: Mapping[int, int], classes: Mapping[int, int]) -> Document:
    stored: Document = {"id": images[entry["id"]], "file_name": name}
    stored |= {"width": entry["width"], "height": entry["height"]}
    for key in ("neg_category_ids", "not_exhaustive_category_ids"):
        if key in entry:
            stored[key] = sorted(classes[c] for c in entry[key])
    return stored


def _categories(train: Summary, classes: Mapping[int, int]) -> list[Document]:
    """Categories by ascending id, counted from the training annotations without crowds and ignored boxes."""
    stored = []
    for identity, name in sorted(train.categories.items()):
        instances, images = train.counts.get(identity, (0, 0))
        frequency = {"frequency": lvis_frequency(images), "image_count": images, "instance_count": instances}
        stored.append({"id": classes[identity], "name": name, **frequency})
    return stored


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except ValueError:  # a NUL in the name
        return False
