"""What the intervals of one evaluation cost beside evaluating it once: CPU seconds, memory, equal numbers.

    python -m benchmarks.resamples --out benchmarks/results/resamples.json
    python -m benchmarks.resamples --images 50 --detections 100          # a quick look

Ground truth and detections are those of benchmarks/evaluation.py, with LVIS-like counts. They are evaluated, matched
once, and accumulated again with other weights of the images: 1,000 draws of the bootstrap and 500 blocks of the
jackknife, which is what `report` does with the predictions of one row and seed. With all weights 1 they give the
evaluation to 1e-9.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bench.evaluation.ap import DetectedBoxes, evaluate_boxes, lean_ground_truth
from bench.evaluation.matches import Accumulator, match_boxes
from bench.evaluation.resample import BLOCKS, DRAWS, ap_of, bootstrap, class_groups, jackknife
from benchmarks.evaluation import CLASSES, TOLERANCE, difference, scene
from benchmarks.measured import write

TARGET = "5,000 images x 300 detections, 1,203 classes: 1,000 resamples in minutes on 2 cores"
MOST = 300  # detections of an image that count
EDGES = (10, 100, 1000)
VAL = "0123456789abcdef" * 4
Value = TypeVar("Value")


def timed(call: Callable[[], Value]) -> tuple[Value, float]:
    """What it returns, and CPU seconds."""
    start = time.process_time()
    value = call()
    return value, time.process_time() - start


def cost(images: int, detections: int, classes: int, draws: int = DRAWS, blocks: int = BLOCKS) -> dict[str, Any]:
    """One size.

    Raises:
        AssertionError: accumulated with all weights 1 it is not the evaluation.
    """
    gt, columns = scene(images, detections, classes, seed=0)
    found = DetectedBoxes(**columns)
    evaluated, evaluation = timed(lambda: evaluate_boxes(gt, found).metrics())
    lean = lean_ground_truth(gt)
    matches, matching = timed(lambda: match_boxes(lean, found, MOST))
    categories = sorted(lean["categories"], key=lambda one: int(one["id"]))
    groups = class_groups([c["frequency"] for c in categories], [c["instance_count"] for c in categories], EDGES)
    ones = ap_of(Accumulator(matches).per_class(np.ones((1, images), np.int64)), groups)
    again = {name: None if np.isnan(value[0]) else float(value[0]) for name, value in ones.items()}
    worst = difference({name: evaluated[name] for name in again}, again)
    assert worst <= TOLERANCE, f"they differ by {worst:g}"
    drawn, drawing = timed(lambda: bootstrap(matches, groups, VAL, draws))
    left, leaving = timed(lambda: jackknife(matches, groups, VAL, blocks))
    return {
        "images": images, "detections_an_image": detections, "classes": classes,
        "draws": len(drawn["AP"]), "blocks": len(left["AP"]), "largest_difference": worst,
        "cpu": {"evaluation": evaluation, "matching": matching, "bootstrap": drawing, "jackknife": leaving},
        "over_evaluation": (matching + drawing + leaving) / evaluation,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=300, help="of an image")
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    asked = parser.parse_args()
    found = cost(asked.images, asked.detections, asked.classes)
    if asked.out:
        write(asked.out, "resamples", sys.argv[1:], {"target": TARGET, **found})
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in found["cpu"].items())
    print(f"CPU: {seconds}; all beside one evaluation: {found['over_evaluation']:.1f}; {found['peak_mb']:.0f} MB")


if __name__ == "__main__":
    main()
