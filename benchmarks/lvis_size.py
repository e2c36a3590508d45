"""A data set of LVIS v1's size: what looking at it, planning with it and reading it cost.

    python -m benchmarks.lvis_size --out benchmarks/results/lvis_size.json
    python -m benchmarks.lvis_size --images 500 100 --boxes 6000 1200      # a quick look

The set is synthetic: as many images, boxes with polygons and classes as LVIS v1 has, instances by class along a power
law, images of a few pixels (so that decoding costs next to nothing, and everything else what it costs). The commands
are those that a user types, each in a process of its own; the data stages are run by the job that a plan makes for
them. `plan again` is a plan of which nothing has changed.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measured import Cost, measure, write

IMAGES = (100_170, 19_809)  # of LVIS v1: train, val (Gupta et al. 2019; the counts of the released files)
BOXES = (1_270_141, 244_707)
CLASSES = 1203
SIDE = (64, 48)  # of an image, pixels: decoding is not what is measured

CORNERS = 12  # of a polygon
POWER = 1.8  # instances of the class of rank r ~ r ** -POWER: half of the classes have fewer than some hundred
TARGETS = "plan again: 2 CPU s and 300 MB; both data stages: 60 CPU s and 4 GB"
SUITE = "preset: cpu\nrows:\n  baseline: {method: baseline}\n"
STAGES = """
import sys
from pathlib import Path
from bench.cli.open import open_suite
from bench.lineage import asides_of
from bench.plan import planning
from bench.run.job import Job
from bench.store.store import Store
suite = open_suite(Path(sys.argv[1]), data=sys.argv[2])
plan, store = planning.make(suite), Store(Path(sys.argv[3]))
keys = [key for key, stage in plan.stages.items() if stage.kind == "data"]
for key in keys:
    store.add(plan.stages[key])
asides = asides_of(*plan.stages.values())
outcomes = Job(str(store.root), tuple((key,) for key in keys), suite.sections.machine, asides=asides)()
assert {outcome.state for outcome in outcomes.values()} == {"done"}, outcomes
"""


def make(root: Path, images: Sequence[int], boxes: Sequence[int], classes: int, seed: int = 0) -> None:
    """The folder: annotations/train.json, val.json and images/, in LVIS v1's form."""
    (root / "annotations").mkdir(parents=True)
    (root / "images").mkdir()
    image = io.BytesIO()
    Image.new("RGB", SIDE).save(image, "jpeg", quality=10)
    draw = np.random.default_rng(seed)
    share = np.arange(1, classes + 1, dtype=np.float64) ** -POWER
    first = 1
    for split, n_images, n_boxes in zip(("train", "val"), images, boxes, strict=True):
        names = [f"{first + k:012d}.jpg" for k in range(n_images)]
        for name in names:
            (root / "images" / name).write_bytes(image.getvalue() + name.encode())  # after its end; no two files alike
        drawn = draw.choice(classes, n_boxes - classes, p=share / share.sum())
        labels = draw.permutation(np.concatenate((np.arange(classes), drawn)))
        owners = draw.integers(0, n_images, len(labels))
        count = np.bincount(labels, minlength=classes)
        with (root / "annotations" / f"{split}.json").open("w") as file:
            file.write('{"categories": ')
            json.dump([_category(k, int(n)) for k, n in enumerate(count)], file)
            file.write(', "images": ')
            json.dump([_image(first + k, name, classes) for k, name in enumerate(names)], file)
            file.write(', "annotations": [')
            for start in range(0, len(labels), 50_000):
                stop = min(start + 50_000, len(labels))
                rows = _annotations(draw, start, labels[start:stop].tolist(), (first + owners[start:stop]).tolist())
                file.write((", " if start else "") + ", ".join(rows))
            file.write("]}")
        first += n_images


def _category(k: int, count: int) -> dict[str, object]:
    frequency = "r" if count <= 10 else "c" if count <= 100 else "f"
    return {
        "id": k + 1,
        "name": f"class_{k + 1}",
        "frequency": frequency,
        "instance_count": count,
        "image_count": count,
    }


def _image(identity: int, name: str, classes: int) -> dict[str, object]:
    negative = [1 + (identity * 7 + k * 131) % classes for k in range(8)]
    url = f"http://images.cocodataset.org/train2017/{name}"
    row = {"id": identity, "coco_url": url, "width": SIDE[0], "height": SIDE[1]}
    return row | {"neg_category_ids": negative, "not_exhaustive_category_ids": []}


def _annotations(draw: np.random.Generator, start: int, labels: list[int], owners: list[int]) -> list[str]:
    size = draw.uniform(4, 24, (len(labels), 2)).round(2)
    corner = (draw.random((len(labels), 2)) * (np.asarray(SIDE) - size)).round(2)
    turn = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    circle = np.stack((np.cos(turn), np.sin(turn)), -1)
    outline = (corner[:, None] + size[:, None] * (circle + 1) / 2).round(2).reshape(len(labels), -1)
    rows = []
    for k, (label, owner) in enumerate(zip(labels, owners, strict=True)):
        box = [*corner[k].tolist(), *size[k].tolist()]
        row = {"id": start + k + 1, "image_id": owner, "category_id": label + 1, "bbox": box}
        rows.append(json.dumps(row | {"area": 0.7 * box[2] * box[3], "segmentation": [outline[k].tolist()]}))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs=2, default=IMAGES, metavar=("TRAIN", "VAL"))
    parser.add_argument("--boxes", type=int, nargs=2, default=BOXES, metavar=("TRAIN", "VAL"))
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--decode", action="store_true", help="also `data check` that opens every image")
    parser.add_argument("--out", type=Path)
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    with tempfile.TemporaryDirectory() as folder:
        root, suite, store = Path(folder) / "data", Path(folder) / "suite.yaml", Path(folder) / "store"
        make(root, options.images, options.boxes, options.classes)
        suite.write_text(SUITE)
        sizes = {split: (root / "annotations" / f"{split}.json").stat().st_size for split in ("train", "val")}
        bench = [sys.executable, "-m", "bench"]
        plan = [*bench, "plan", str(suite), "--data", str(root), "--store", str(store)]
        commands = {
            "data check --no-decode": [*bench, "data", "check", str(root), "--no-decode"],
            "plan": plan,
            "plan again": plan,
            "data stages": [sys.executable, "-c", STAGES, str(suite), str(root), str(store)],
        }
        if options.decode:
            commands["data check"] = [*bench, "data", "check", str(root)]
        found: dict[str, Cost] = {}
        for name, command in commands.items():
            found[name] = measure(command, env={"XDG_CACHE_HOME": f"{folder}/cache"}, log=Path(folder) / "log")
            cost = found[name]
            print(f"{name:24} {cost.cpu:7.1f} CPU s {cost.wall:7.1f} s {cost.peak_mb:7.0f} MB", flush=True)
    if options.out is not None:
        content = {
            "images": options.images, "boxes": options.boxes, "classes": options.classes, "annotation_bytes": sizes,
            "targets": TARGETS, "costs": {name: asdict(cost) for name, cost in found.items()},
        }  # fmt: skip
        write(options.out, "lvis_size", given, content)


if __name__ == "__main__":
    main()
