"""Small folders of images with annotations, as LVIS v0.5, LVIS v1 or COCO write them; shared by the data tests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Document = dict[str, Any]
PHOTOGRAPHS = Path(os.environ.get("BENCH_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 11, "name": "newt"}]
# Training boxes: image id -> (category, x, y, w, h); image 5 has none.
Boxes = dict[int, list[tuple[int, ...]]]
TRAIN: Boxes = {1: [(3, 4, 4, 20, 10), (3, 30, 5, 10, 10), (7, 10, 20, 8, 8)], 2: [(3, 0, 0, 64, 48)], 5: []}
VAL: Boxes = {8: [(7, 5, 6, 30, 20)], 9: [(3, 1, 1, 10, 12), (11, 20, 20, 9, 9)]}


def document(boxes: Boxes, style: str, first_annotation: int = 1) -> Document:
    """An annotation document; `style` is v0.5, v1 or coco. Every class not shown is a negative, bar `newt`."""
    images: list[Document] = []
    annotations: list[Document] = []
    for identity, entries in boxes.items():
        image: Document = {"id": identity, "width": 64, "height": 48}
        name = f"{identity:012d}.png"
        if style == "v0.5":
            image["file_name"] = f"COCO_train2014_{name}"
        elif style == "v1":
            image["coco_url"] = f"http://images.example.org/train2017/{name}"
        else:
            image["file_name"] = name
        if style != "coco":
            shown = {e[0] for e in entries}
            image["neg_category_ids"] = [c for c in (7, 3) if c not in shown]
            image["not_exhaustive_category_ids"] = [11] if 11 not in shown else []
        images.append(image)
        for category, *box in entries:
            number = first_annotation + len(annotations)
            annotations.append(
                {"id": number, "image_id": identity, "category_id": category, "bbox": box, "area": box[2] * box[3]}
                | {"segmentation": [[0, 0, 1, 0, 1, 1]]}
            )
    # The counts in the file are wrong on purpose: they must not be believed.
    categories = [{**c, "image_count": 999, "instance_count": 999, "frequency": "f"} for c in CATEGORIES]
    return {"images": images, "annotations": annotations, "categories": categories}


def pixels_of(identity: int) -> np.ndarray:
    """The pixels of an image, uint8 48 x 64 x 3."""
    return np.random.default_rng(identity).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def make_folder(
    root: Path,
    style: str = "v0.5",
    *,
    train: Callable[[Document], Any] = lambda d: None,
    val: Callable[[Document], Any] = lambda d: None,
) -> Path:
    """Write images and annotations below `root`; `train` and `val` may spoil their document first."""
    below = root / "images" / ("train2017" if style == "v1" else "")
    below.mkdir(parents=True)
    (root / "annotations").mkdir()
    for name, boxes, spoil, first in (("train", TRAIN, train, 1), ("val", VAL, val, 101)):
        for identity in boxes:
            full = f"COCO_train2014_{identity:012d}.png" if style == "v0.5" else f"{identity:012d}.png"
            Image.fromarray(pixels_of(identity)).save(below / full)
        made = document(boxes, style, first)
        spoil(made)
        (root / "annotations" / f"{name}.json").write_text(json.dumps(made))
    return root
