"""Our evaluation against the official `lvis` package: CPU seconds, memory, equal numbers.

    python -m benchmarks.evaluation --out benchmarks/results/evaluation.json
    python -m benchmarks.evaluation --case 50 100          # a quick look

Ground truth and detections are synthetic with LVIS-like counts (fixed seed) and lie in files; each evaluator reads them
in a process of its own. `ours` is what an `evaluate` stage does; `keep_all` is the same but drops nothing;
`official` the package as its README uses it, not through our adapter, with its own summary.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measured import Cost, measure, write

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CLASSES = 1203
SIDE = 640.0  # pixels
# Training images of LVIS v1's 1,203 classes: quantiles, between which the logarithm is linear.
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
IMAGE_COUNTS = (1, 3, 9, 37, 221, 1400, 1977)
# Means per image of the 100 images of LVIS v0.5 val that the lvis package's repository holds.
POSITIVE, INSTANCES, NEGATIVE, PARTIAL = 2.99, 977 / 299, 9.42, 0.16  # classes, boxes per class, classes, classes
# Where an image's detections come from; assumed. The rest are classes drawn by their frequency, on random boxes.
ON_TRUTH, ON_NEGATIVE, WRONG_CLASS = 0.20, 0.05, 0.35
RECALL = (0.2, 0.9)  # share of a class's boxes that are found at all: of the rarest class, of the most frequent one
TOLERANCE = 1e-9
TARGET = "5,000 images: at least 5 times less CPU time, and lower peak memory"
NAMES = ("image_id", "category_id", "xywh", "score")
NAMES_OFFICIAL = ("image_id", "category_id", "bbox", "score")
CASES = ((1000, 300), (1000, 600), (5000, 300))
EVALUATORS = ("ours", "keep_all", "official")


def scene(images: int, detections: int, classes: int, seed: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """LVIS-form annotations, and columns of `images` x `detections` detections (image_id, category_id, xywh, score)."""
    draw = np.random.default_rng(seed)
    levels = draw.permutation(np.interp((np.arange(classes) + 0.5) / classes, QUANTILES, np.log(IMAGE_COUNTS)))
    count = np.exp(levels).round().astype(np.int64)
    share = count / count.sum()
    categories = [
        {"id": k + 1, "frequency": "r" if n <= 10 else "c" if n <= 100 else "f", "instance_count": int(2 * n)}
        for k, n in enumerate(count.tolist())
    ]
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    columns = []
    for image_id in range(1, images + 1):
        positive = np.unique(draw.choice(classes, 1 + draw.poisson(POSITIVE - 1), p=share))
        labels = np.repeat(positive, 1 + draw.poisson(INSTANCES - 1, len(positive)))
        boxes = _boxes(draw, len(labels))
        negative = np.setdiff1d(draw.integers(0, classes, draw.poisson(NEGATIVE)), positive)
        partial = positive[draw.random(len(positive)) < PARTIAL / POSITIVE]
        listed.append(
            {
                "id": image_id,
                "neg_category_ids": (negative + 1).tolist(),
                "not_exhaustive_category_ids": (partial + 1).tolist(),
            }
        )
        for label, box in zip(labels.tolist(), boxes.tolist(), strict=True):
            row = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label + 1}
            annotations.append(row | {"bbox": box, "area": 0.7 * box[2] * box[3], "iscrowd": 0})
        found = draw.random(len(labels)) < RECALL[0] + (RECALL[1] - RECALL[0]) * (levels / levels.max())[labels]
        rows = _detect(draw, detections, boxes[found], labels[found], negative, share)
        columns.append((np.full(detections, image_id), *rows))
    joined = {name: np.concatenate(parts) for name, parts in zip(NAMES, zip(*columns, strict=True), strict=True)}
    return {"images": listed, "annotations": annotations, "categories": categories}, joined


def _boxes(draw: np.random.Generator, number: int) -> Floats:
    """xywh; sides between 8 and 320 pixels, small ones more often."""
    size = np.exp(draw.uniform(np.log(8), np.log(320), (number, 2)))
    return np.concatenate([draw.random((number, 2)) * (SIDE - size), size], 1).round(2)


def _detect(
    draw: np.random.Generator, number: int, boxes: Floats, labels: Ints, negative: Ints, share: Floats
) -> tuple[Ints, Floats, Floats]:
    """(category_id, xywh, score) of one image: hits, false alarms of judged classes, classes that nobody judges."""
    kind = draw.choice(4, number, p=[ON_TRUTH, ON_NEGATIVE, WRONG_CLASS, 1 - ON_TRUTH - ON_NEGATIVE - WRONG_CLASS])
    category = draw.choice(len(share), number, p=share)
    if not len(labels):
        return category + 1, _boxes(draw, number), 0.7 * draw.random(number)
    of = draw.integers(0, len(labels), number)
    category = np.where(kind == 0, labels[of], category)
    if len(negative):
        category = np.where(kind == 1, negative[draw.integers(0, len(negative), number)], category)
    near = boxes[of]
    spread = draw.exponential(0.12, (number, 1))
    near = near + draw.normal(0, 1, (number, 4)) * spread * np.tile(near[:, 2:], 2)
    xywh = np.where((kind == 3)[:, None], _boxes(draw, number), near)
    xywh[:, 2:] = xywh[:, 2:].clip(1)
    quality = np.where(kind == 0, np.exp(-4 * spread[:, 0]), 0.7)
    return category + 1, xywh, quality * draw.random(number)


def child(folder: Path, evaluator: str) -> dict[str, Any]:
    """What the process of one evaluator does: read the files, evaluate, write the result."""
    gt = json.loads((folder / "ground_truth.json").read_text())
    with np.load(folder / "detections.npz") as file:
        columns = {name: file[name] for name in file.files}
    loaded_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    start = time.process_time()
    metrics = official(gt, columns) if evaluator == "official" else ours(gt, columns, drop=evaluator == "ours")
    return {"evaluation_cpu": time.process_time() - start, "loaded_mb": loaded_mb, "metrics": metrics}


def ours(gt: dict[str, Any], columns: dict[str, NDArray[Any]], *, drop: bool) -> dict[str, float | None]:
    """AP as an `evaluate` stage computes it; `drop`: also leave out what cannot count, as it does."""
    from bench.evaluation import ap

    if not drop:
        vars(ap)["countable"] = lambda gt, detections: detections
    return ap.evaluate_boxes(gt, ap.DetectedBoxes(**columns)).metrics()


def official(gt: dict[str, Any], columns: dict[str, NDArray[Any]]) -> dict[str, float | None]:
    """AP by `lvis.LVISEval.run()`; fractions, None where there is nothing to measure."""
    sys.modules["lvis.vis"] = drawing = ModuleType("lvis.vis")  # it would load OpenCV, which costs memory
    vars(drawing)["LVISVis"] = None
    vars(np)["float"] = float  # lvis 0.5.3 uses it, numpy 1.24 took it away
    logging.disable(logging.WARNING)
    from lvis import LVIS, LVISEval, LVISResults

    class InMemory(LVIS):  # type: ignore[misc]
        def __init__(self) -> None:
            self.logger = logging.getLogger("lvis")
            self.dataset = gt
            self._create_index()

    lists = (columns.pop(name).tolist() for name in NAMES)
    rows = [dict(zip(NAMES_OFFICIAL, row, strict=True)) for row in zip(*lists, strict=True)]
    known = InMemory()
    evaluation = LVISEval(known, LVISResults(known, rows, max_dets=300), "bbox")
    evaluation.run()
    found = {name: float(value) for name, value in evaluation.get_results().items()}
    return {name: value if value > -1 else None for name, value in found.items() if name.startswith("AP")}


def counted(folder: Path) -> dict[str, int]:
    """Detections as they come, after the cap of 300 per image, and of those the ones that can count."""
    from bench.evaluation import ap

    lean = ap.lean_ground_truth(json.loads((folder / "ground_truth.json").read_text()))
    with np.load(folder / "detections.npz") as columns:
        given = ap.DetectedBoxes(**{name: columns[name] for name in columns.files})
    capped = ap.capped(given, 300)
    return {"given": len(given), "after_cap": len(capped), "after_drop": len(ap.countable(lean, capped))}


def compare(images: int, detections: int, classes: int) -> dict[str, Any]:
    """One case: all evaluators on the same files, one after the other.

    Raises:
        AssertionError: their numbers differ.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gt, columns = scene(images, detections, classes, seed=0)
        (folder / "ground_truth.json").write_text(json.dumps(gt))
        np.savez(folder / "detections.npz", **columns)  # type: ignore[arg-type]
        truth = len(gt["annotations"])
        del gt, columns
        numbers = counted(folder)
        found: dict[str, dict[str, Any]] = {}
        for evaluator in EVALUATORS:
            command = [sys.executable, "-m", "benchmarks.evaluation", "--child", evaluator, "--folder", name]
            cost = measure(command)
            found[evaluator] = as_numbers(cost) | json.loads((folder / f"{evaluator}.json").read_text())
            print(f"{images} x {detections} {evaluator}: {line(found[evaluator])}", flush=True)
    metrics = {evaluator: values.pop("metrics") for evaluator, values in found.items()}
    worst = max(difference(metrics["official"], metrics[evaluator]) for evaluator in ("ours", "keep_all"))
    assert worst <= TOLERANCE, f"the evaluators differ by {worst:g}: {metrics}"
    return {
        "images": images, "detections_an_image": detections, "classes": classes, "ground_truth_boxes": truth,
        "detections": numbers, "evaluators": found, "largest_difference": worst, "metrics": metrics["official"],
        "official_over": {name: ratios(found["official"], found[name]) for name in ("ours", "keep_all")},
    }  # fmt: skip


def as_numbers(cost: Cost) -> dict[str, float]:
    return {"process_cpu": cost.cpu, "peak_mb": cost.peak_mb, "wall": cost.wall}


def line(values: dict[str, float]) -> str:
    return f"{values['evaluation_cpu']:.1f} CPU s ({values['process_cpu']:.1f} in all), {values['peak_mb']:.0f} MB"


def ratios(official: dict[str, float], ours: dict[str, float]) -> dict[str, float]:
    """How many times more the official package takes."""
    return {name: official[name] / ours[name] for name in ("evaluation_cpu", "process_cpu", "peak_mb")}


def difference(official: dict[str, float | None], ours: dict[str, float | None]) -> float:
    """The largest over the official metrics (fractions); infinite where only one side has a number."""
    pairs = [(value, ours[name]) for name, value in official.items()]
    if any((x is None) != (y is None) for x, y in pairs):
        return float("inf")
    return max(abs(x - y) for x, y in pairs if x is not None and y is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--case", nargs=2, type=int, action="append", metavar=("IMAGES", "DETECTIONS"))
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    parser.add_argument("--child", choices=EVALUATORS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        result = child(arguments.folder, arguments.child)
        (arguments.folder / f"{arguments.child}.json").write_text(json.dumps(result))
        return
    cases = []
    for images, detections in arguments.case or CASES:
        cases.append(compare(images, detections, arguments.classes))
        if arguments.out:
            write(arguments.out, "evaluation", sys.argv[1:], {"target": TARGET, "cases": cases})
    for case in cases:
        over, size = case["official_over"]["ours"], f"{case['images']} x {case['detections_an_image']}"
        print(f"{size}: official / ours = {over['evaluation_cpu']:.1f} CPU, {over['peak_mb']:.1f} memory;", end=" ")
        print(f"detections {case['detections']}; difference {case['largest_difference']:.1e}")


if __name__ == "__main__":
    main()
