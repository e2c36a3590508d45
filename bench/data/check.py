"""What is wrong with a folder of photographs, all at once. Separate from the readers, which stop at the first fault.

An error makes training or evaluation wrong or impossible; a warning is something to know. `fill_negatives` is the one
repair that is offered: it never touches the file it reads.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError

from bench.data.folder import candidates, leaves_root, sections
from bench.data.formats import FORMATS
from bench.data.split import Document, listing, read_json, write_json
from bench.errors import UserError

_EXAMPLES = 5
_SLACK = 1.0  # pixels a box may reach over the edge: annotators round


@dataclass(frozen=True)
class Finding:
    """One kind of fault in one file.

    Attributes:
        severity: "error" or "warning".
        kind: a short name, e.g. "missing_image".
        where: "train", "val" or "train and val".
        count: how many entries are concerned.
        examples: a few of them.
        advice: what it does and what to do.
    """

    severity: Literal["error", "warning"]
    kind: str
    where: str
    count: int
    examples: tuple[str, ...]
    advice: str


_ADVICE: dict[str, tuple[Literal["error", "warning"], str]] = {
    "outside_root": ("error", "an image name must stay below the image root; such a file is never opened"),
    "missing_image": ("error", "fetch the images, or name another folder with data.images"),
    "undecodable_image": ("error", "the file is damaged or no image: fetch it again"),
    "size_mismatch": ("error", "boxes refer to the annotated size; use the original, not a resized or turned image"),
    "duplicate_image_id": ("error", "annotations cannot be told apart; give each image its own id"),
    "duplicate_annotation_id": ("error", "evaluators keep the last of each id and lose the others"),
    "duplicate_category_id": ("error", "classes cannot be told apart; give each its own id"),
    "unknown_image_id": ("error", "annotations of images that are not listed; drop them or list the images"),
    "unknown_category_id": ("error", "classes must be listed in the categories of the training file"),
    "malformed_box": ("error", "a box is four finite numbers: x, y, width, height"),
    "degenerate_box": ("warning", "no width or height: never a training target, but the evaluator counts it as missed"),
    "box_outside": ("warning", "the box reaches out of its image; no detection can match it well"),
    "no_negatives": (
        "warning",
        "neg_category_ids is empty: the LVIS evaluator ignores false positives of every class that an image does not "
        "show, so AP comes out far too high. Where the annotation is exhaustive, fill them: bench data fill-negatives",
    ),
    "class_without_training_image": ("warning", "the class cannot be learned; its AP is 0 if val shows it"),
    "in_train_and_val": ("error", "the same image in both splits: AP is measured on what was trained on"),
}  # fmt: skip


def check(path: str, train: str, val: str, images: str, format: str) -> list[Finding]:
    """All findings, errors first. Every image is decoded, so this takes minutes for 100,000 of them.

    Args:
        path: the folder; `train`, `val` and `images` lie below it.
        format: one of bench.data.formats; where it has no negative lists, their absence is no finding.

    Raises:
        UserError: a file cannot be read at all, or there is no folder of images.
    """
    root = Path(path) / images
    if not root.is_dir():
        raise UserError("no such folder of images", where=str(root), allowed=listing(root.parent))
    files = {"train": Path(path) / train, "val": Path(path) / val}
    documents = {name: sections(read_json(file), file) for name, file in files.items()}
    known = {c.get("id") for c in _entries(documents["train"], "categories")}
    findings: list[Finding] = []
    names: dict[str, dict[str, Path]] = {}
    for split, document in documents.items():
        faults: defaultdict[str, list[str]] = defaultdict(list)
        names[split] = _check_images(document, root, faults)
        _check_ids(document, known, faults)
        _check_boxes(document, faults)
        if split == "val" and FORMATS[format].negatives:  # in training nothing reads them
            _check_negatives(document, faults)
        if split == "train":
            _check_classes(document, faults)
        findings += [_finding(kind, split, examples) for kind, examples in faults.items()]
    shared = _shared(names["train"], names["val"])
    findings += [_finding("in_train_and_val", "train and val", shared)] if shared else []
    return sorted(findings, key=lambda f: f.severity)


def fill_negatives(json_path: Path, out_path: Path) -> int:
    """Write a copy in which every category that an image does not show is a negative of it.

    Right only where the annotation is exhaustive. Classes listed as not exhaustive for an image are left out.

    Returns:
        The number of images whose list changed.

    Raises:
        UserError: the file cannot be read, or `out_path` is the same file or exists.
    """
    if out_path.exists():
        raise UserError("the file exists", where=str(out_path), hint="name another one: the original is never replaced")
    document = sections(read_json(json_path), json_path)
    every = sorted({c["id"] for c in document["categories"]})
    present: defaultdict[int, set[int]] = defaultdict(set)
    for a in document["annotations"]:
        present[a["image_id"]].add(a["category_id"])
    changed = 0
    for image in document["images"]:
        open_classes = present[image["id"]] | set(image.get("not_exhaustive_category_ids") or ())
        negatives = [c for c in every if c not in open_classes]
        changed += negatives != sorted(image.get("neg_category_ids") or ())
        image["neg_category_ids"] = negatives
        image.setdefault("not_exhaustive_category_ids", [])
    write_json(out_path, document)
    return changed


def _finding(kind: str, where: str, examples: list[str]) -> Finding:
    severity, advice = _ADVICE[kind]
    return Finding(severity, kind, where, len(examples), tuple(examples[:_EXAMPLES]), advice)


def _entries(document: Document, section: str) -> Iterable[dict[str, Any]]:
    return (entry for entry in document[section] if isinstance(entry, dict))


def _check_images(document: Document, root: Path, faults: defaultdict[str, list[str]]) -> dict[str, Path]:
    """Find and decode every image; returns those that are there, by name."""
    there: dict[str, Path] = {}
    for image in _entries(document, "images"):
        names = candidates(image)
        outside = [name for name in names if leaves_root(name)]
        if outside:
            faults["outside_root"].append(outside[0])
            continue
        name = next((name for name in names if (root / name).is_file()), None)
        if name is None:
            faults["missing_image"].append(" or ".join(names) or f"image {image.get('id')} without a name")
            continue
        there[name] = root / name
        size = _size(root / name)
        annotated = (image.get("width"), image.get("height"))
        if size is None:
            faults["undecodable_image"].append(name)
        elif size != annotated:
            faults["size_mismatch"].append(f"{name}: {size[0]} x {size[1]}, annotated {annotated[0]} x {annotated[1]}")
    return there


def _size(file: Path) -> tuple[int, int] | None:
    """(width, height) of an image that decodes to its end, else None."""
    try:
        with Image.open(file) as opened:
            size = opened.size
            # JPEG: all data is read, an eighth of the pixels is computed.
            opened.draft("RGB", (max(1, size[0] // 8), max(1, size[1] // 8)))
            opened.load()
            return size
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _check_ids(document: Document, known: set[Any], faults: defaultdict[str, list[str]]) -> None:
    kinds = {"images": "image", "annotations": "annotation", "categories": "category"}
    for section, kind in kinds.items():
        for identity, number in Counter(e.get("id") for e in _entries(document, section)).items():
            if number > 1:
                faults[f"duplicate_{kind}_id"].append(f"{identity} ({number} times)")
    ids = {i.get("id") for i in _entries(document, "images")}
    for a in _entries(document, "annotations"):
        if a.get("image_id") not in ids:
            faults["unknown_image_id"].append(f"annotation {a.get('id')}: image {a.get('image_id')}")
        if a.get("category_id") not in known:
            faults["unknown_category_id"].append(f"annotation {a.get('id')}: category {a.get('category_id')}")
    for image in _entries(document, "images"):
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            strange = [c for c in image.get(key) or () if c not in known]
            faults["unknown_category_id"] += [f"image {image.get('id')}, {key}: category {c}" for c in strange]
    if not faults["unknown_category_id"]:
        del faults["unknown_category_id"]


def _check_boxes(document: Document, faults: defaultdict[str, list[str]]) -> None:
    size = {i.get("id"): (i.get("width"), i.get("height")) for i in _entries(document, "images")}
    for a in _entries(document, "annotations"):
        try:
            x, y, w, h = (float(v) for v in a["bbox"])
            finite = abs(x) + abs(y) + abs(w) + abs(h) < float("inf")
        except (KeyError, TypeError, ValueError):
            finite = False
        if not finite:
            faults["malformed_box"].append(f"annotation {a.get('id')}: {a.get('bbox')}")
            continue
        width, height = size.get(a.get("image_id"), (None, None))
        if w <= 0 or h <= 0:
            faults["degenerate_box"].append(f"annotation {a.get('id')}: {a['bbox']}")
        elif isinstance(width, int) and isinstance(height, int):
            over = max(-x, -y, x + w - width, y + h - height)
            if over > _SLACK:
                faults["box_outside"].append(f"annotation {a.get('id')}: {a['bbox']} in {width} x {height}")


def _check_negatives(document: Document, faults: defaultdict[str, list[str]]) -> None:
    """A finding where no image has negatives; in LVIS itself a few images have none."""
    images = list(_entries(document, "images"))
    if images and not any(image.get("neg_category_ids") for image in images):
        faults["no_negatives"] += [str(image.get("file_name", image.get("id"))) for image in images]


def _check_classes(document: Document, faults: defaultdict[str, list[str]]) -> None:
    shown = {a.get("category_id") for a in _entries(document, "annotations") if not a.get("iscrowd")}
    for category in _entries(document, "categories"):
        if category.get("id") not in shown:
            faults["class_without_training_image"].append(f"{category.get('id')} {category.get('name', '')}")


def _shared(train: dict[str, Path], val: dict[str, Path]) -> list[str]:
    """Images in both splits: of the same name, or of the same bytes under two names."""
    shared = sorted(train.keys() & val.keys())
    sizes = defaultdict(list)
    for name, file in train.items():
        sizes[file.stat().st_size].append(name)
    for name, file in sorted(val.items()):
        rivals = sizes.get(file.stat().st_size, []) if name not in train else []
        digest = _digest(file) if rivals else ""
        shared += [f"{name} = {rival}" for rival in rivals if _digest(train[rival]) == digest]
    return shared


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
