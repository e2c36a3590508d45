"""Random federated ground truth and detections of it, with all that makes evaluators disagree."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.evaluation.ap import DetectedBoxes


def federated(
    rng: np.random.Generator, images: int, classes: int, detections: int, *, levels: int = 20
) -> tuple[dict[str, Any], DetectedBoxes]:
    """LVIS-form annotations and about `detections` boxes per image.

    Images without annotations; classes without ground truth; negative and not-exhaustive lists; boxes of all three
    areas; shuffled ids with a zero among them; scores of `levels` values (ties in and across images); detections that
    hit, miss, have the wrong class, no area, or repeat each other.
    """
    category_ids = rng.permutation(np.arange(1, 3 * classes))[:classes]
    counts = rng.choice([0, 5, 9, 10, 50, 99, 100, 700, 999, 1000, 4000], classes)
    categories = [
        {"id": int(c), "instance_count": int(n), "frequency": str(rng.choice(["r", "c", "f"]))}
        for c, n in zip(category_ids, counts, strict=True)
    ]
    seen = category_ids[: max(classes - 2, 1)]
    listed, annotations = [], []
    rows: list[tuple[int, int, list[float], float]] = []
    for image_id in rng.permutation(np.arange(5 * images))[:images].tolist():
        boxes = []
        for _ in range(0 if rng.random() < 0.2 else int(rng.integers(1, 9))):
            box = [*rng.uniform(0, 200, 2).round(1).tolist(), *np.exp(rng.uniform(1.5, 5.5, 2)).round(1).tolist()]
            boxes.append((box, int(rng.choice(seen[: max(len(seen) // 2, 1)] if rng.random() < 0.5 else seen))))
        present = {c for _, c in boxes}
        absent = [int(c) for c in category_ids if c not in present]
        negative = [c for c in absent if rng.random() < 0.4]
        partial = [c for c in sorted(present) if rng.random() < 0.2] + [c for c in negative if rng.random() < 0.1]
        listed.append({"id": image_id, "neg_category_ids": negative, "not_exhaustive_category_ids": partial})
        for box, c in boxes:
            area = box[2] * box[3] * float(rng.uniform(0.4, 1))  # LVIS: the area of the mask
            annotations.append(
                {"id": len(annotations), "image_id": image_id, "category_id": c, "bbox": box, "area": area}
            )
        for _ in range(int(rng.integers(0, 2 * detections + 1))):
            box, c = boxes[rng.integers(len(boxes))] if boxes and rng.random() < 0.7 else ([20.0, 20.0, 60.0, 60.0], -1)
            if c == -1 or rng.random() < 0.2:
                c = int(rng.choice(category_ids))
            shift = 0.0 if rng.random() < 0.2 else rng.uniform(0, 0.4)
            box = (np.array(box) * (1 + shift * rng.uniform(-1, 1, 4))).tolist()
            if rng.random() < 0.03:
                box[2] = 0.0
            rows.append((image_id, c, box, float(rng.integers(1, levels + 1)) / levels))
    rng.shuffle(annotations)
    rng.shuffle(rows)  # type: ignore[arg-type]
    gt = {"images": listed, "annotations": annotations, "categories": categories}
    return gt, boxes_of(rows)


def boxes_of(rows: list[tuple[int, int, list[float], float]]) -> DetectedBoxes:
    """(image, category, xywh, score) rows as arrays."""
    return DetectedBoxes(
        np.array([r[0] for r in rows], dtype=np.int64),
        np.array([r[1] for r in rows], dtype=np.int64),
        np.array([r[2] for r in rows], dtype=np.float64).reshape(-1, 4),
        np.array([r[3] for r in rows], dtype=np.float64),
    )
