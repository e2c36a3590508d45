"""Folders as tools export them: spoiled copies of the small COCO folder, and AP of detections made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from photographs import Document, make_folder

from bench.data import coco
from bench.data.check import Finding, check
from bench.data.split import Split, open_split
from bench.evaluation.ap import DetectedBoxes, evaluate_boxes
from bench.spec import FolderData

Spoil = Callable[[Document], Any]
# What is detected in val, by class name: a cat and a dog where they are, no newt. By hand: AP 1, 1 and 0, so 2/3.
FOUND = (("cat", 0, (5, 6, 30, 20)), ("dog", 1, (1, 1, 10, 12)))
AP = 2 / 3


def nothing(_document: Document) -> None:
    """Leave the file as it is."""


def newt(document: Document) -> None:
    """Give the class without training boxes one, so that a clean folder has no finding."""
    document["annotations"].append({"id": 50, "image_id": 5, "category_id": 11, "bbox": [1, 1, 9, 9], "area": 81})


def exported(root: Path, *, train: Spoil = nothing, val: Spoil = nothing) -> FolderData:
    """The small COCO folder without its polygons, which are too small for their boxes, spoiled."""
    plain = every("annotations", segmentation=[])
    make_folder(root, "coco", train=lambda d: [plain(d), newt(d), train(d)], val=lambda d: [plain(d), val(d)])
    return FolderData(name="coco", path=str(root))


def stored(spec: FolderData, split: Literal["train", "val"], out: Path) -> Split:
    """A split as a data stage writes it, opened."""
    out.mkdir(exist_ok=True)
    coco.write_split(spec, split, out)
    return open_split(out, None)


def ap(split: Split, found: Sequence[tuple[str, int, tuple[float, ...]]] = FOUND) -> float | None:
    """AP of detections (class, image, box), the first with the highest score."""
    ids = {c.name: c.id for c in split.categories}
    rows = [(split.images[i].id, ids[name], (x, y, x + w, y + h)) for name, i, (x, y, w, h) in found]
    scores = [1 - 0.1 * k for k in range(len(rows))]
    columns = list(zip(*rows, strict=True))
    return evaluate_boxes(split.lvis_json(), DetectedBoxes.from_xyxy(*columns, scores)).ap


def findings(spec: FolderData, **more: Any) -> dict[tuple[str, str], Finding]:
    found = check(spec, **more)
    return {(f.kind, f.where): f for f in found}


def every(section: str, **values: Any) -> Spoil:
    """Set fields of all entries of a section; a function takes the entry's own value."""

    def spoil(document: Document) -> None:
        for row in document[section]:
            for key, value in values.items():
                row[key] = value(row[key]) if callable(value) else value

    return spoil


def first(section: str, **values: Any) -> Spoil:
    """Set fields of the first entry of a section."""
    return lambda document: document[section][0].update(values)


def drop(section: str, key: str) -> Spoil:
    return lambda document: document[section][0].pop(key)


def ids_as(form: Callable[[int], Any], kind: str = "image") -> Spoil:
    """Write all ids of images, categories or annotations otherwise."""

    def spoil(document: Document) -> None:
        sections = {"image": "images", "category": "categories", "annotation": "annotations"}
        for row in document[sections[kind]]:
            row["id"] = form(row["id"])
        for row in document["annotations"] if kind != "annotation" else ():
            row[f"{kind}_id"] = form(row[f"{kind}_id"])

    return spoil
