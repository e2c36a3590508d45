"""Write a small data set in LVIS' form: which files, and which fields of them, the harness reads.

    python examples/own_data.py shapes
    python -m bench data check shapes
    python -m bench run examples/own_data.yaml --data shapes

The images are drawn, so that this needs nothing else: coloured shapes, the first class in nearly every image, the last
in one. With photographs of your own, write the same two JSON files beside them; annotations of other tools become such
a folder by `python -m bench data convert`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("red circle", "red square", "green circle", "green square", "blue circle", "blue square")
SHARES = np.asarray([0.55, 0.2, 0.12, 0.08, 0.04, 0.01])  # of the training instances: a long tail
COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (50, 70, 200)}
SIDE = 96  # of an image, pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="made; it must not be there")
    folder = parser.parse_args().folder
    if folder.exists():
        parser.error(f"{folder} is there already")
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    draw = np.random.default_rng(0)
    for split, images, shares in (("train", 80, SHARES), ("val", 24, np.full(6, 1 / 6))):
        document = write_split(folder / "images", split, images, shares, draw)
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(document))
    print(f"wrote {folder}; look at it: python -m bench data check {folder}")


def write_split(
    folder: Path, split: str, images: int, shares: np.ndarray[Any, np.dtype[np.float64]], draw: np.random.Generator
) -> dict[str, Any]:
    """Draw the images of a split; returns its annotations."""
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, images + 1):
        name = f"{split}_{image_id:03d}.png"
        image = Image.new("RGB", (SIDE, SIDE), tuple(draw.integers(150, 230, 3).tolist()))
        pen, labels = ImageDraw.Draw(image), draw.choice(6, 1 + draw.poisson(2), p=shares)
        for label in labels.tolist():
            width = int(draw.integers(14, 40))
            x, y = draw.integers(0, SIDE - width, 2).tolist()
            colour, shape = CLASSES[label].split()
            method = pen.ellipse if shape == "circle" else pen.rectangle
            method((x, y, x + width - 1, y + width - 1), fill=COLOURS[colour])
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image_id, "category_id": label + 1,
                    "bbox": [x, y, width, width],  # left, top, width, height; pixels
                    "area": width * width,
                }
            )  # fmt: skip
        image.save(folder / name)
        # Every object has its box, so every class that is not there is known to be absent. Where that is not so, list
        # the classes that were looked for and not found, and in `not_exhaustive_category_ids` those that were boxed in
        # part: a detection of any other class is not counted in that image.
        absent = sorted(set(range(1, 7)) - {label + 1 for label in labels.tolist()})
        listed.append(
            {
                "id": image_id, "file_name": name, "width": SIDE, "height": SIDE,
                "neg_category_ids": absent, "not_exhaustive_category_ids": [],
            }
        )  # fmt: skip
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
    return {"images": listed, "annotations": annotations, "categories": categories}


if __name__ == "__main__":
    main()
