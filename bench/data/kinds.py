"""What can be wrong with, or unusual in, annotation files and their images, as a table. Separate because the reader
(which refuses the first kind of fault), the check (which lists all) and the converter speak of the same kinds.

An error makes training or evaluation wrong or impossible and is refused by the reader; a warning is something to know;
a note says what was read as it was meant although it was written otherwise. The order is the order of looking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.data.values import refusal
from bench.errors import UserError

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Kind:
    """One kind of finding.

    Attributes:
        severity: "error", "warning" or "note".
        says: what is wrong, or what was read how, before a list of entries.
        advice: what it does and what to do.
        mended: whether `data convert` writes a copy without it.
    """

    severity: Severity
    says: str
    advice: str
    mended: bool = False


def _error(says: str, advice: str, *, mended: bool = False) -> Kind:
    return Kind("error", says, advice, mended)


def _warning(says: str, advice: str) -> Kind:
    return Kind("warning", says, advice)


def _note(says: str, advice: str = "read so in training and evaluation; data convert writes it so") -> Kind:
    return Kind("note", says, advice, True)


FAULTS: Mapping[str, Kind] = {
    "malformed_entry": _error("entries that are not objects", "an entry is an object with named fields"),
    "malformed_category": _error(
        "categories without a usable id or name", "a category has an id (a whole number) and a name"
    ),
    "duplicate_category_id": _error(
        "category ids occur more than once", "classes cannot be told apart; give each its own id"
    ),
    "duplicate_class_name": _error(
        "class names occur more than once", "two classes of one name cannot be told apart; rename one"
    ),
    "malformed_image": _error("images without a usable id", "an image has an id: a whole number", mended=True),
    "image_size": _error("images that have no size", "width and height are whole numbers of pixels", mended=True),
    "duplicate_image_id": _error(
        "image ids occur more than once", "annotations cannot be told apart; give each image its own id"
    ),
    "malformed_annotation": _error(
        "annotations without a usable id, image_id, category_id or bbox",
        "each annotation has an id, an image_id and a category_id (whole numbers) and a bbox",
        mended=True,
    ),
    "duplicate_annotation_id": _error(
        "annotation ids occur more than once", "evaluators keep the last of each id and lose the others", mended=True
    ),
    "unknown_image_id": _error(
        "annotations of images that are not listed", "drop them or list the images", mended=True
    ),
    "malformed_box": _error(
        "boxes that are not four finite numbers", "a box is x, y, width, height in pixels", mended=True
    ),
    "malformed_flag": _error("flags that are neither 0 nor 1", "iscrowd and ignore are 0 or 1"),
    "malformed_list": _error(
        "lists that do not hold ids", "neg_category_ids and not_exhaustive_category_ids are lists of category ids"
    ),
    "no_images": _error("no images are listed", "there is nothing to train on or to measure"),
    "no_ground_truth": _error(
        "no box counts: there is none, or all are crowds, ignored or without area",
        "an AP needs boxes in val, a training needs them in train",
    ),
    "other_category_ids": _error(
        "val and train give one class two ids, or one id two classes",
        "AP would compare classes with others; map val to the ids of train",
        mended=True,
    ),
    "unknown_category_id": _error(
        "classes that the categories of the training file lack", "list them there, or take them out"
    ),
    "outside_root": _error(
        "an image name leaves the image root",
        "such a file is never opened; move the images below the image root",
        mended=True,
    ),
    "missing_image": _error("no such image", "fetch the images, or name another folder with data.images"),
    "same_file_twice": _error(
        "one image file under two image ids",
        "its boxes are spread over two entries, and it counts twice; merge them",
        mended=True,
    ),
    "unreadable_depth": _error(
        "images whose values are not whole numbers of 8 or 16 bits",
        "a range from black to white is not defined for them; save them as 8 bit",
    ),
    "undecodable_image": _error("images that cannot be decoded", "the file is damaged or no image: fetch it again"),
    "too_large_image": _error(
        "images over the limit of pixels",
        "if you trust the files, lift it: set BENCH_IMAGE_PIXELS to the largest number of pixels",
    ),
    "size_mismatch": _error(
        "images of another size than annotated",
        "boxes refer to the annotated size; use the original, not a resized or turned image",
        mended=True,
    ),
    "exif_turned": _error(
        "images annotated as they are shown, turned by their EXIF orientation",
        "the stored pixels are turned: set data.exif=apply (here: --exif apply), which turns them as a viewer does",
        mended=True,
    ),
    "no_negatives": _error(
        "images without negative lists",
        "neg_category_ids is empty: the LVIS evaluator ignores false positives of every class that an image does not "
        "show, so AP comes out far too high. Where the annotation is exhaustive, fill them: bench data fill-negatives. "
        "A run goes on all the same with data.negatives=optional",
    ),
    "in_train_and_val": _error("the same image in both splits", "AP is measured on what was trained on"),
}

WARNINGS: Mapping[str, Kind] = {
    "degenerate_box": _warning(
        "boxes without width or height",
        "no width or height: never a training target, but the evaluator counts it as missed",
    ),
    "box_outside": _warning(
        "boxes that reach out of their image", "the box reaches out of its image; no detection can match it well"
    ),
    "class_without_training_image": _warning(
        "classes that are never trained", "the class cannot be learned; its AP is 0 if val shows it"
    ),
    "exif_orientation": _warning(
        "images with an EXIF orientation, which is not applied",
        "boxes are taken in the frame of the stored pixels, as COCO and LVIS annotate. If they were drawn on the image "
        "as viewers show it, set data.exif=apply (here: --exif apply); data convert can write turned images",
    ),
    "dark_sixteen_bit": _warning(
        "16-bit images whose values do not use 16 bits",
        "a value v is read as v >> 8, so these come out nearly black; save them as 8 bit with the range that they use",
    ),
}

MENDS: Mapping[str, Kind] = {
    "id_text": _note("ids written as text or with a fraction (25.0) read as whole numbers"),
    "box_text": _note("boxes whose numbers are text read as numbers"),
    "size_text": _note("sizes written as text or with a fraction read as whole numbers"),
    "flag_text": _note("flags written as text read as 0 or 1"),
    "area_mask": _note("areas that are missing, 0, null, no number or larger than the box taken from the mask"),
    "area_box": _note("areas that are 0, null, no number or larger than the box taken from the box"),
    "area_text": _note("areas written as text read as numbers"),
    "ignore": Kind(
        "note",
        "boxes with `ignore: 1` left out of training and counts, and evaluated as the lvis package does",
        "a detection of such a box is neither right nor wrong",
    ),
    "mask_damaged": _note("run-length masks that are damaged left out (boxes alone are used)"),
    "name_number": _note("class names that are numbers read as text"),
    "name_empty": _note("classes without a name named after their id"),
    "name_control": _note("control characters in class names read as spaces"),
    "image_id_range": _note("image ids below 0 or beyond 2^53 renumbered"),
    "category_id_range": _note("category ids below 0 or beyond 2^31 renumbered"),
    "annotation_id_range": _note("annotation ids below 0 or beyond 2^53 renumbered"),
    "name_variant": _note("image names that are found in another spelling"),
    "beside": Kind("note", "images found beside the annotation file", "nothing to do"),
    "exif_stored": Kind(
        "note",
        "images with an EXIF orientation, annotated in the frame of the stored pixels",
        "read so; the sizes show it",
    ),
    "sixteen_bit": Kind("note", "16-bit images read as v >> 8", "nothing to do"),
}

KINDS: Mapping[str, Kind] = {**FAULTS, **WARNINGS, **MENDS}


def first_error(file: Path, faults: Mapping[str, list[str]]) -> UserError | None:
    """The error for the first kind of fault there is, in the order of bench/data/kinds.py; None: there is none."""
    for kind, known in FAULTS.items():
        if entries := faults.get(kind):
            hint = "`python -m bench data check` lists all such entries"
            hint += "; `python -m bench data convert` writes a mended copy" if known.mended else f"; {known.advice}"
            return refusal(str(file), known.says, entries, len(entries), hint)
    return None
