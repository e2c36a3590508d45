"""What rows see on a few val images: the boxes of each image, and a row's detections with the kind of each. Separate
from predictions.py, which makes numbers of all images: the image browser and the contact sheet show single ones.

Shape legend: C classes; of one image G boxes of the ground truth and D detections that are shown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from bench.data.folder import image_root_of
from bench.data.pixels import Bytes
from bench.data.split import Split, open_split
from bench.errors import UserError
from bench.evaluation.ap import DetectedBoxes, Floats, Ints, lean_ground_truth, within_cap
from bench.evaluation.judged import Kind, found_of, judge, truth_of
from bench.evaluation.stored import DETECTIONS, read_detections
from bench.frequency import instance_bin
from bench.stage import EvaluateSpec, Stage, spec_of
from bench.store.store import Store

BEST_JUDGED, BEST_OTHERS = 20, 10  # detections of an image that are shown: that LVIS' rules judge, and that they do not
RULE = (
    "bins of training instances take turns; in a bin the class with the fewest comes first, and of a class the image "
    "with most of its boxes that is not taken yet"
)

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Boxes:
    """The ground truth of one image.

    Attributes:
        label: int64 G, class index. xywh: float64 G x 4, pixels of the file.
        counts: bool G; False for crowds and boxes to ignore, which are neither found nor missed.
    """

    label: Ints
    xywh: Floats
    counts: Bools


@dataclass(frozen=True, eq=False)
class Seen:
    """One image as a row and seed see it, by falling score.

    Attributes:
        label: int64 D. xywh: float64 D x 4, pixels of the file. score: float64 D.
        kind: int8 D, a `bench.evaluation.judged.Kind`, at IoU 0.5.
        box: int64 D, the box that it has found or that its error concerns, in 0..G-1; -1 for none.
        found_by: float64 G, score of the detection that found each box, shown or not; NaN for none.
        missed: bool G, TIDE's missed boxes: not found, and no classification or localisation error lies on them.
    """

    label: Ints
    xywh: Floats
    score: Floats
    kind: NDArray[np.int8]
    box: Ints
    found_by: Floats
    missed: Bools


@dataclass(frozen=True, eq=False)
class Shown:
    """Some images of a val, the same for every row that was measured on it.

    Attributes:
        whole: all its images. split: the chosen ones alone, with their pixels where these are still there.
        chosen_for: int64, for each of them the class that it was chosen for; -1 for none.
        bins: int64 C, the instance bin of each class.
        boxes: of each image.
    """

    whole: Split
    split: Split
    chosen_for: Ints
    bins: Ints
    boxes: tuple[Boxes, ...]

    def only(self, kept: Sequence[int]) -> Shown:
        """The images at these positions."""
        boxes = tuple(self.boxes[i] for i in kept)
        return Shown(self.whole, self.split.subset(kept), self.chosen_for[list(kept)], self.bins, boxes)


@dataclass(frozen=True, eq=False)
class Sheet:
    """A few images as one row and seed sees them.

    Attributes:
        val: the images, those alone that can be read. pictures: uint8 H x W x 3 of each, made smaller. seen: of each.
    """

    val: Shown
    pictures: tuple[Bytes, ...]
    seen: tuple[Seen, ...]


def shown(store: Store, evaluate: Stage, most: int) -> Shown:
    """At most `most` images of what an evaluate stage measured, chosen by RULE from the ground truth alone. Those
    without a box come last, in the file's order.

    Raises:
        UserError: the split is not in the store, or damaged.
    """
    val = evaluate.inputs["val"]
    split = open_split(store.output(val.key), image_root_of(val))
    counts = np.array([category.instance_count for category in split.categories], np.int64)
    bins = instance_bin(counts, tuple(spec_of(evaluate, EvaluateSpec)["bins"]))
    picked = chosen(split, bins, counts, most)
    part = split.subset([i for i, _ in picked])
    return Shown(split, part, np.array([k for _, k in picked], np.int64), bins, _boxes(part))


def chosen(split: Split, bins: Ints, counts: Ints, most: int) -> list[tuple[int, int]]:
    """(position of an image, class that it was chosen for) by RULE; class -1: it has no box that counts.

    Args:
        bins, counts: int64 C, instance bin and training instances of the classes.
    """
    of_class: dict[int, dict[int, int]] = {}
    for i, (labels, ignore) in enumerate(zip(split.labels, split.ignore, strict=True)):
        for k in labels[~ignore].tolist():
            places = of_class.setdefault(k, {})
            places[i] = places.get(i, 0) + 1
    images = {k: deque(sorted(places, key=lambda i: (-places[i], i))) for k, places in of_class.items()}
    turns = [
        deque(sorted((k for k in images if bins[k] == b), key=lambda k: (int(counts[k]), k)))
        for b in sorted({int(bins[k]) for k in images})
    ]
    found: dict[int, int] = {}
    while len(found) < most and any(turns):
        for classes in turns:
            if len(found) < most:
                _take(classes, images, found)
    rest = (i for i in range(len(split)) if i not in found)
    found |= {i: -1 for i, _ in zip(rest, range(most - len(found)), strict=False)}
    return list(found.items())


def _take(classes: deque[int], images: dict[int, deque[int]], found: dict[int, int]) -> None:
    """The next image of the first class that has one left; that class goes to the end."""
    while classes:
        k = classes.popleft()
        while images[k]:
            i = images[k].popleft()
            if i not in found:
                found[i] = k
                classes.append(k)
                return


def seen(store: Store, evaluate: Stage, val: Shown) -> list[Seen] | None:
    """Each of `val`'s images as the evaluated model sees it: of its detections the best BEST_JUDGED that are judged and
    the best BEST_OTHERS that are not.

    Returns:
        None where its predictions are no longer in the store.

    Raises:
        UserError: predictions that were changed.
    """
    key = evaluate.inputs["predict"].key
    done = store.done(key)
    if done is None or DETECTIONS not in done.digests:
        return None
    detections = read_detections(val.whole, store.read(key, DETECTIONS), str(store.output(key) / DETECTIONS))
    return judged(val.split, detections, int(spec_of(evaluate, EvaluateSpec)["max_detections"]))


def judged(split: Split, detections: DetectedBoxes, max_detections: int) -> list[Seen]:
    """`seen` of detections in memory; those of other images are left out.

    Args:
        max_detections: of an image that are looked at, as in the evaluation.
    """
    lean = lean_ground_truth(split.lvis_json())
    ids = np.array([image.id for image in split.images], np.int64)
    detections = detections[np.isin(detections.image_id, ids)]
    found, truth = found_of(lean, detections, max_detections), truth_of(lean)
    verdict = judge(found, truth)
    kind, box = np.full(len(detections), Kind.NOT_JUDGED, np.int8), np.full(len(detections), -1, np.int64)
    kind[found.row], box[found.row] = verdict.kind, verdict.box
    classes = np.array([category.id for category in split.categories], np.int64)
    label = np.searchsorted(classes, detections.category_id)
    right = np.flatnonzero(kind == Kind.TRUE_POSITIVE)
    found_by = np.full(len(truth.label), np.nan)
    found_by[box[right]] = detections.score[right]
    capped = within_cap(detections, max_detections)
    truth_rows = _by_image(np.array([a["image_id"] for a in lean["annotations"]], np.int64), ids)
    result = []
    for own, g in zip(_by_image(detections.image_id[capped], ids), truth_rows, strict=True):
        rows = capped[own]
        is_judged = kind[rows] >= 0
        best = np.concatenate([rows[is_judged][:BEST_JUDGED], rows[~is_judged][:BEST_OTHERS]])
        best = best[np.argsort(-detections.score[best], kind="stable")]
        place = {int(row): n for n, row in enumerate(g)}
        concerns = np.array([place.get(int(b), -1) for b in box[best]], np.int64)
        columns = (label[best], detections.xywh[best], detections.score[best], kind[best])
        result.append(Seen(*columns, concerns, found_by[g], verdict.missed[g]))
    return result


def _boxes(split: Split) -> tuple[Boxes, ...]:
    """What an evaluator sees of them: boxes without area are left out."""
    lean = lean_ground_truth(split.lvis_json())
    truth = truth_of(lean)
    ids = np.array([image.id for image in split.images], np.int64)
    rows = _by_image(np.array([a["image_id"] for a in lean["annotations"]], np.int64), ids)
    return tuple(Boxes(truth.label[g], truth.xywh[g], truth.counts[g]) for g in rows)


def _by_image(image_id: Ints, ids: Ints) -> list[Ints]:
    """For each of `ids` the rows that name it, in their order."""
    order = np.argsort(image_id, kind="stable")
    first, last = (np.searchsorted(image_id[order], ids, side=side) for side in ("left", "right"))
    return [order[a:b] for a, b in zip(first.tolist(), last.tolist(), strict=True)]


def smaller(val: Shown, side: int) -> Iterator[tuple[int, Bytes | UserError]]:
    """(position, uint8 H x W x 3 of at most `side` pixels a side) of each image in turn; why one cannot be read. Small
    images stay as they are."""
    for i in range(len(val.split)):
        try:
            picture = PILImage.fromarray(val.split.pixels(i))
        except UserError as error:
            yield i, error
            continue
        picture.thumbnail((side, side), PILImage.Resampling.LANCZOS)
        yield i, np.asarray(picture)
