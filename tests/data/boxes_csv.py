"""A data format that the harness does not have: a table of boxes beside a folder of images. For test_formats.py."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from bench.data.formats import Inspected
from bench.data.split import ANNOTATIONS, write_json
from bench.spec import FolderData

VERSION = 7


def write_split(spec: FolderData, split: str, out: Path) -> None:
    """Rows are file,class,x,y,width,height."""
    train, rows = _rows(spec, "train"), _rows(spec, split)
    names = sorted({row["class"] for row in train})
    files = sorted({row["file"] for row in rows})
    counts = Counter(row["class"] for row in train)
    sizes = {name: Image.open(Path(spec.path) / spec.images / name).size for name in files}
    categories = [
        {"id": i, "name": name, "frequency": "r", "image_count": counts[name], "instance_count": counts[name]}
        for i, name in enumerate(names, 1)
    ]
    images = [
        {"id": i, "file_name": name, "width": sizes[name][0], "height": sizes[name][1], "neg_category_ids": [],
         "not_exhaustive_category_ids": []}
        for i, name in enumerate(files, 1)
    ]  # fmt: skip
    annotations: list[dict[str, Any]] = []
    for i, row in enumerate(rows, 1):
        box = [float(row[side]) for side in ("x", "y", "width", "height")]
        places = {"image_id": files.index(row["file"]) + 1, "category_id": names.index(row["class"]) + 1}
        annotations.append({"id": i, **places, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    document = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    write_json(out / ANNOTATIONS, document)


def inspect(spec: FolderData, split: str) -> Inspected:
    return Inspected(hashlib.sha256((Path(spec.path) / getattr(spec, split)).read_bytes()).hexdigest(), ())


def _rows(spec: FolderData, split: str) -> list[dict[str, str]]:
    with (Path(spec.path) / getattr(spec, split)).open() as table:
        return list(csv.DictReader(table))
