"""Average precision by LVIS rules, in total, by frequency and by instance bin. Separate from the official evaluator so
that a job needs faster-coco-eval only; `official.py` returns the same numbers, which tests compare.

Shape legend: N detections, T = 10 IoU thresholds, R = 101 recall points, K classes (categories by ascending id),
A = 4 areas (all, small, medium, large). A precision cell is -1 where its class has no ground truth (of that area).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.errors import UserError
from bench.frequency import instance_bin

VERSION = 1  # in the keys of the stages that this code enters; raise it when a number may change

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EVALUATOR = "faster-coco-eval"
AREAS = ("all", "small", "medium", "large")
UNCOUNTED = 1e12  # an area above all ranges, of which the largest ends at 1e10
# Classes evaluated at once. The evaluator keeps one list for every (image, class); 5,000 x 1,203 of them and the
# detections as dicts took 7.8 GB in one piece. Classes are independent, so a cut changes no number.
CLASSES_AT_ONCE = 100


@dataclass(frozen=True, eq=False)
class DetectedBoxes:
    """Detections of a split in ORIGINAL pixels, in the order that breaks ties (the earlier one goes first).

    Attributes:
        image_id, category_id: int64 N, ids of the annotation file.
        xywh: float64 N x 4.
        score: float64 N.
    """

    image_id: Ints
    category_id: Ints
    xywh: Floats
    score: Floats

    @classmethod
    def from_xyxy(cls, image_id: ArrayLike, category_id: ArrayLike, xyxy: ArrayLike, score: ArrayLike) -> DetectedBoxes:
        """From corners; widths are taken in float64."""
        corners = np.asarray(xyxy, dtype=np.float64).reshape(-1, 4)
        xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        return cls(
            np.asarray(image_id, np.int64), np.asarray(category_id, np.int64), xywh, np.asarray(score, np.float64)
        )

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, chosen: NDArray[Any]) -> DetectedBoxes:
        return DetectedBoxes(self.image_id[chosen], self.category_id[chosen], self.xywh[chosen], self.score[chosen])


@dataclass(frozen=True, eq=False)
class ApResult:
    """AP as fractions; None where no class has ground truth.

    Attributes:
        ap, ap50, ap75: over all classes. aps, apm, apl: by area of the ground truth (32^2, 96^2 pixels).
        apr, apc, apf: by `frequency` of the category (training IMAGES).
        ap_bins: by bin of training INSTANCES; pooled over classes, which equals the mean of their APs.
        category_ids: int64 K, ascending; per_class, per_class50: float64 K, NaN without ground truth.
        instance_counts: int64 K. classes_per_bin: classes with ground truth in each bin.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    aps: float | None
    apm: float | None
    apl: float | None
    apr: float | None
    apc: float | None
    apf: float | None
    ap_bins: tuple[float | None, ...]
    category_ids: Ints
    per_class: Floats
    per_class50: Floats
    instance_counts: Ints
    classes_per_bin: tuple[int, ...]

    def metrics(self) -> dict[str, float | None]:
        """By the published names: AP, AP50, AP75, APs, APm, APl, APr, APc, APf, AP1..APk."""
        named = {
            "AP": self.ap, "AP50": self.ap50, "AP75": self.ap75, "APs": self.aps, "APm": self.apm, "APl": self.apl,
            "APr": self.apr, "APc": self.apc, "APf": self.apf,
        }  # fmt: skip
        return named | {f"AP{i}": value for i, value in enumerate(self.ap_bins, start=1)}


def evaluate_boxes(
    gt: Mapping[str, Any],
    detections: DetectedBoxes,
    edges: Sequence[int] = (10, 100, 1000),
    max_detections: int = 300,
    instance_counts: Mapping[int, int] | None = None,
) -> ApResult:
    """AP of boxes by LVIS rules (Gupta et al., CVPR 2019): the federated rules, 300 detections per image.

    Args:
        gt: LVIS-form annotations; not changed. Detections in `iscrowd` boxes are not counted (COCO's rule; LVIS has
            none); a box with `ignore` is matched as any other, but neither it nor its detection is counted (lvis's
            rule).
        detections: of any length; cut to the best `max_detections` of each image over all classes.
        edges: of the instance bins; None in an empty bin.
        instance_counts: category id -> training instances; None: the categories' own `instance_count`.

    Raises:
        UserError: ground truth that is not in LVIS form; detections of unknown images or that are not finite.
    """
    lean = lean_ground_truth(gt)
    return summarise(lean, precisions(lean, detections, max_detections), edges, instance_counts)


def lean_ground_truth(gt: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Only what an evaluator reads, in new dicts (evaluators write into them): images, categories, annotations.

    Boxes without area or of an unknown category are left out and ids count from 1, in file order: the official code
    skips the former, and takes id 0 for "no match".

    Raises:
        UserError: no images, or an image without its federated lists.
    """
    if not gt["images"]:
        raise UserError("ground truth has no images")
    for image in gt["images"]:
        if "neg_category_ids" not in image or "not_exhaustive_category_ids" not in image:
            raise UserError(
                f"ground truth is not in LVIS form: image {image['id']} has no neg_category_ids or "
                "not_exhaustive_category_ids",
                hint="without them every false detection of an absent class would not count",
            )
    lists = ("id", "neg_category_ids", "not_exhaustive_category_ids")
    known = ("id", "frequency", "instance_count")
    categories = [{k: c[k] for k in known if k in c} for c in gt["categories"]]
    ids = {c["id"] for c in categories}
    annotations: list[dict[str, Any]] = []
    for a in gt["annotations"]:
        area = float(a.get("area", a["bbox"][2] * a["bbox"][3]))
        if area > 0 and a["category_id"] in ids:
            row = {"id": len(annotations) + 1, "image_id": a["image_id"], "category_id": a["category_id"]}
            row |= {"bbox": a["bbox"], "area": area, "iscrowd": int(bool(a.get("iscrowd")))}
            if a.get("ignore") and not row["iscrowd"]:
                row["ignore"] = 1
            annotations.append(row)
    return {
        "images": [{k: image[k] for k in lists} for image in gt["images"]],
        "categories": categories,
        "annotations": annotations,
    }


def capped(detections: DetectedBoxes, max_detections: int) -> DetectedBoxes:
    """The best `max_detections` of each image over ALL classes; sorted as `within_cap`."""
    return detections[within_cap(detections, max_detections)]


def within_cap(detections: DetectedBoxes, max_detections: int) -> Ints:
    """Rows of the best `max_detections` of each image over ALL classes; equal scores in their given order, as
    officially.

    The rows are sorted by (image, score descending, given order).
    """
    order = np.lexsort((-detections.score, detections.image_id))
    image = detections.image_id[order]
    _, start, count = np.unique(image, return_index=True, return_counts=True)
    rank = np.arange(len(image)) - np.repeat(start, count)
    return order[rank < max_detections]


def countable(gt: Mapping[str, Any], detections: DetectedBoxes) -> DetectedBoxes:
    """What can count. To be applied after the cap. It changes no number: both evaluators skip the rest."""
    return detections[can_count(gt, detections)]


def can_count(gt: Mapping[str, Any], detections: DetectedBoxes) -> NDArray[np.bool_]:
    """True N: of a class that is positive or negative in the image, and with an area."""
    pairs = [(a["image_id"], a["category_id"]) for a in gt["annotations"]]
    pairs += [(i["id"], c) for i in gt["images"] for c in i["neg_category_ids"]]
    area = detections.xywh[:, 2] * detections.xywh[:, 3]
    return np.asarray(_of_pairs(gt, detections, pairs) & (area > 0), dtype=np.bool_)


def not_exhaustive(gt: Mapping[str, Any], detections: DetectedBoxes) -> NDArray[np.bool_]:
    """True N: of a class of which the image does not have all instances annotated, so that one without a box is not
    counted."""
    pairs = [(i["id"], c) for i in gt["images"] for c in i["not_exhaustive_category_ids"]]
    return _of_pairs(gt, detections, pairs)


def _of_pairs(gt: Mapping[str, Any], detections: DetectedBoxes, pairs: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Which detections have image and class of one of these pairs; pairs of what `gt` does not list are passed over."""
    # Positions in place of ids, which may be negative or so large that their products overflow.
    category_ids = np.unique(np.array([c["id"] for c in gt["categories"]], dtype=np.int64))
    image_ids = np.unique(np.array([i["id"] for i in gt["images"]], dtype=np.int64))
    row = {int(c): k for k, c in enumerate(category_ids)}
    column = {int(i): k for k, i in enumerate(image_ids)}
    span = len(category_ids) + 1
    known = {column[i] * span + row[c] for i, c in pairs if i in column and c in row}
    inside = np.isin(detections.category_id, category_ids)
    at = np.searchsorted(image_ids, detections.image_id) * span + np.searchsorted(category_ids, detections.category_id)
    return np.asarray(inside & np.isin(at, np.array(sorted(known), dtype=np.int64)), dtype=np.bool_)


def precisions(gt: Mapping[str, Any], detections: DetectedBoxes, max_detections: int = 300) -> Floats:
    """Interpolated precision T x R x K x A through faster-coco-eval in LVIS mode. `gt` from `lean_ground_truth`."""
    check(gt, detections)
    detections = countable(gt, capped(detections, max_detections))
    category_ids = np.array(sorted(c["id"] for c in gt["categories"]), dtype=np.int64)
    precision = np.full((10, 101, len(category_ids), len(AREAS)), -1.0)
    # A class without ground truth has no precision, whatever is detected.
    present = np.unique(np.array([a["category_id"] for a in gt["annotations"]], dtype=np.int64))
    for start in range(0, len(present), CLASSES_AT_ONCE):
        chosen = present[start : start + CLASSES_AT_ONCE]
        columns = np.searchsorted(category_ids, chosen)
        precision[:, :, columns] = _evaluated(gt, detections[np.isin(detections.category_id, chosen)], chosen)
    return precision


def check(gt: Mapping[str, Any], detections: DetectedBoxes) -> None:
    """Refuse detections that no evaluator could judge.

    Raises:
        UserError: numbers that are not finite, or images that the ground truth does not have.
    """
    if not (np.isfinite(detections.xywh).all() and np.isfinite(detections.score).all()):
        raise UserError("detections hold boxes or scores that are not finite", hint="the model has diverged")
    strange = np.setdiff1d(detections.image_id, [i["id"] for i in gt["images"]])
    if strange.size:
        raise UserError(f"detections of {strange.size} images that are not in the ground truth, e.g. id {strange[0]}")


def summarise(
    gt: Mapping[str, Any], precision: Floats, edges: Sequence[int], instance_counts: Mapping[int, int] | None = None
) -> ApResult:
    """Means over a precision array T x R x K x A; the same for both evaluators.

    Raises:
        UserError: a category without a count of training instances.
    """
    categories = sorted(gt["categories"], key=lambda c: int(c["id"]))
    counts = training_instances(categories, instance_counts)
    bins = instance_bin(counts, edges)
    everything = precision[:, :, :, 0]
    per_class = np.array([_mean_or_nan(everything[:, :, k]) for k in range(len(categories))])
    frequency = np.array([c.get("frequency", "") for c in categories], dtype=object)
    evaluated = ~np.isnan(per_class)
    return ApResult(
        ap=_mean(everything),
        ap50=_mean(everything[0]),  # thresholds 0.50, 0.55, ..., 0.95
        ap75=_mean(everything[5]),
        aps=_mean(precision[:, :, :, 1]),
        apm=_mean(precision[:, :, :, 2]),
        apl=_mean(precision[:, :, :, 3]),
        apr=_mean(everything[:, :, frequency == "r"]),
        apc=_mean(everything[:, :, frequency == "c"]),
        apf=_mean(everything[:, :, frequency == "f"]),
        ap_bins=tuple(_mean(everything[:, :, bins == i]) for i in range(len(edges) + 1)),
        category_ids=np.array([c["id"] for c in categories], dtype=np.int64),
        per_class=per_class,
        per_class50=np.array([_mean_or_nan(everything[0, :, k]) for k in range(len(categories))]),
        instance_counts=counts,
        classes_per_bin=tuple(int((evaluated & (bins == i)).sum()) for i in range(len(edges) + 1)),
    )


def training_instances(categories: Sequence[Mapping[str, Any]], given: Mapping[int, int] | None = None) -> Ints:
    """Training instances of each category, in their order: `given` by id, else the categories' own `instance_count`.

    Raises:
        UserError: a category without a count.
    """
    counts = [c.get("instance_count") if given is None else given.get(c["id"]) for c in categories]
    missing = [c["id"] for c, n in zip(categories, counts, strict=True) if n is None]
    if missing:
        raise UserError(
            f"{len(missing)} categories have no count of training instances, e.g. id {missing[0]}",
            hint="write instance_count (of the TRAINING set) into the categories of the annotation file",
        )
    return np.array(counts, dtype=np.int64)


def _mean(cells: Floats) -> float | None:
    value = _mean_or_nan(cells)
    return None if math.isnan(value) else value


def _mean_or_nan(cells: Floats) -> float:
    valid = cells[cells > -1]
    return float(valid.mean()) if valid.size else math.nan


def _evaluated(gt: Mapping[str, Any], detections: DetectedBoxes, chosen: Ints) -> Floats:
    """Precision T x R x len(chosen) x A of some classes; only the images that show or detect them take part."""
    from faster_coco_eval import COCO, COCOeval_faster

    classes = {int(c) for c in chosen}
    truth = [a for a in gt["annotations"] if a["category_id"] in classes]
    found = list(_rows(detections))
    seen = {a["image_id"] for a in truth} | {a["image_id"] for a in found}
    images = [
        {
            "id": i["id"],
            "neg_category_ids": classes.intersection(i["neg_category_ids"]),
            "not_exhaustive_category_ids": classes.intersection(i["not_exhaustive_category_ids"]),
        }
        for i in gt["images"]
        if i["id"] in seen
    ]
    # r/c/f and bins are summarised here, so the evaluator's own frequency groups get a placeholder.
    categories = [{"id": c, "frequency": "f"} for c in sorted(classes)]
    # The evaluator overwrites `ignore` by `iscrowd`; a box beyond every range of areas is what it ignores in all of
    # them.
    annotations = [a | {"area": UNCOUNTED} if a.get("ignore") else dict(a) for a in truth]
    known = COCO({"images": images, "categories": categories, "annotations": annotations})
    result = COCO({"images": images, "categories": categories, "annotations": found})
    evaluation = COCOeval_faster(known, result, "bbox", lvis_style=True, print_function=_silent)
    evaluation.params.maxDets = [max(len(found), 1)]  # the cap is ours, per image over all classes
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"], dtype=np.float64)[..., -1]


def _rows(detections: DetectedBoxes) -> Iterator[dict[str, Any]]:
    """One dict per detection, as the COCO and LVIS libraries need them."""
    columns = (detections.image_id, detections.category_id, detections.xywh, detections.score)
    for i, (image, category, box, score) in enumerate(zip(*(c.tolist() for c in columns), strict=True), start=1):
        row = {"id": i, "image_id": image, "category_id": category, "bbox": box, "score": score}
        yield row | {"area": box[2] * box[3], "iscrowd": 0}


def _silent(*_: object) -> None:
    """Drops the evaluator's progress lines."""
