"""Kinds of errors and their costs beside tidecv's, on detections of rows that were run.

    python -m bench export suites/table1.yaml found --format coco --only baseline,BAGS
    python -m tests.against_tide found --out reports/measured/error_kinds/glyphs.csv

Of each val the classes that have boxes and detections, every class judged in every image: where both definitions agree
(tests/evaluation/asked_tide.py). A line for each row, seed and kind: the count and the cost of both, in AP50 points.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

from bench.evaluation.error_kinds import error_kinds

sys.path.insert(0, str(Path(__file__).parent / "evaluation"))
from asked_tide import agreeing, coco_points, tide
from federated import boxes_of

HEAD = ("row", "seed", "kind", "count", "count_tidecv", "cost", "cost_tidecv", "classes", "boxes", "detections")


def lines_of(gt: dict[str, Any], results: list[dict[str, Any]], cap: int) -> list[tuple[Any, ...]]:
    """(kind, count and tidecv's, cost and tidecv's, classes, boxes, detections) of one row and seed; AP50 first."""
    part, rows = agreeing(gt, results)
    ours = error_kinds(part, boxes_of(rows), max_detections=cap).overall
    with coco_points():
        ap50, counts, costs = tide(part, rows, cap)
    about = (len(part["categories"]), len(part["annotations"]), len(rows))
    lines: list[tuple[Any, ...]] = [("AP50", "", "", 100 * ours.ap50, 100 * ap50, *about)]
    for kind, cost in costs.items():
        number = (getattr(ours.counts, kind), counts[kind]) if kind in counts else ("", "")
        lines.append((kind, *number, 100 * max(getattr(ours.costs, kind), 0.0), 100 * cost, *about))
    return lines


def main() -> int:
    """1 where a count differs, or a cost by more than 1e-9 points, or nothing was compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what `bench export --format coco` has written")
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write")
    given = parser.parse_args()
    vals: dict[str, Any] = {}
    written: list[tuple[Any, ...]] = []
    with (given.folder / "index.csv").open() as file:
        index = list(csv.DictReader(file))
    for one in index:
        if one["val"] not in vals:
            vals[one["val"]] = json.loads((given.folder / one["val"]).read_text())
        found = json.loads((given.folder / one["file"]).read_text())
        if not agreeing(vals[one["val"]], found)[1]:
            print(f"{one['row']}, seed {one['seed']}: no detection of a class that has boxes", flush=True)
            continue
        lines = lines_of(vals[one["val"]], found, int(one["max_detections"]))
        written += [(one["row"], one["seed"], *line) for line in lines]
        print(f"{one['row']}, seed {one['seed']}: {worst(lines)}", flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEAD)
        writer.writerows([f"{x:.6f}" if isinstance(x, float) else x for x in line] for line in written)
    return int(not written or any(line[3] != line[4] or abs(line[5] - line[6]) > 1e-9 for line in written))


def worst(lines: list[tuple[Any, ...]]) -> str:
    """The largest difference of a count and of a cost."""
    counts = [abs(line[1] - line[2]) for line in lines if line[1] != ""]
    costs = [abs(line[3] - line[4]) for line in lines]
    return f"counts differ by {max(counts)}, costs by {max(costs):.1e} points"


if __name__ == "__main__":
    sys.exit(main())
