"""Which images are chosen, and what a row sees of them: against boxes set by hand, and against the count of errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.data.split import NoPixels, from_document, open_split
from bench.evaluation.ap import DetectedBoxes
from bench.evaluation.error_kinds import error_kinds
from bench.evaluation.judged import Kind
from reports import detected
from tests.reports.made_images import FOUND, SIDE, annotations, made_store

NONE = NoPixels(Path())


def test_every_kind_is_told(tmp_path: Path) -> None:
    store, rows, stages = made_store(tmp_path)
    evaluate = stages[rows[0].record.evaluate_key]
    val = detected.shown(store, evaluate, 10)
    first, second, third = detected.seen(store, evaluate, val) or []
    assert [image.id for image in val.split.images] == [7, 3, 9]
    assert first.kind.tolist() == [kind for *_, kind in FOUND]
    assert first.score.tolist() == pytest.approx([score for score, *_ in FOUND])
    assert first.label.tolist() == [k for _, k, *_ in FOUND]
    assert first.xywh[4].tolist() == [46, 4, 16, 16]
    # The duplicate concerns the cat's box, class and place the dog's; background, both and what is not judged none.
    assert first.box.tolist() == [-1, 0, 0, 1, 1, -1, -1]
    assert first.found_by[0] == pytest.approx(0.9)
    assert np.isnan(first.found_by[1])
    assert first.missed.tolist() == [False, False], "an error of class lies on the dog"
    assert len(second.kind) == 0
    assert second.missed.tolist() == [True]
    assert len(third.kind) == len(third.missed) == 0


def test_of_many_the_best_are_shown_and_what_is_found_is_told_by_all() -> None:
    """30 wrong cats, and 15 elks that nobody looked for, all of higher score than the cat that is right."""
    split = from_document(annotations(("cat", "dog", "elk"), ("a", "b", "c")), NONE)
    wrong = [(0.9 - 0.01 * i, 1, (0.0, 44.0, 10.0, 10.0)) for i in range(30)]
    free = [(0.95 - 0.01 * i, 3, (0.0, 44.0, 10.0, 10.0)) for i in range(15)]
    rows = [*wrong, *free, (0.05, 1, (4.0, 4.0, 20.0, 20.0))]
    found = DetectedBoxes(
        np.full(len(rows), 7), np.array([k for _, k, _ in rows]), np.array([box for *_, box in rows]),
        np.array([score for score, *_ in rows]),
    )  # fmt: skip
    first, _, _ = detected.judged(split, found, 300)
    assert (first.kind >= 0).sum() == 20
    assert (first.kind < 0).sum() == 10
    assert first.score[0] == 0.95
    assert (np.diff(first.score) <= 0).all()
    assert Kind.TRUE_POSITIVE not in first.kind.tolist()
    assert first.found_by[0] == 0.05
    assert first.missed.tolist() == [False, True]
    first, _, _ = detected.judged(split, found, 45)
    assert np.isnan(first.found_by[0]), "beyond the cap of the evaluation"


def test_kinds_are_those_that_are_counted() -> None:
    """The same as in the count of a whole split, on random boxes; there they are held against tidecv."""
    rng = np.random.default_rng(0)
    document = annotations(("cat", "dog", "elk"), ("a", "b", "c"))
    split = from_document(document, NONE)
    at = rng.integers(0, 3, 400)
    boxes = np.concatenate([rng.uniform(0, SIDE / 2, (400, 2)), rng.uniform(5, 30, (400, 2))], axis=1)
    found = DetectedBoxes(np.array([7, 3, 9])[at], rng.integers(1, 4, 400), boxes, rng.permutation(400) / 400)
    whole = error_kinds(split.lvis_json(), found)
    met: set[int] = set()
    for i, seen in zip((9, 7), detected.judged(split.subset([2, 0]), found, 300), strict=True):
        own = np.flatnonzero(found.image_id == i)
        kind = dict(zip(found.score[own].tolist(), whole.kind[own].tolist(), strict=True))
        assert [kind[score] for score in seen.score.tolist()] == seen.kind.tolist()
        met |= set(seen.kind.tolist())
    assert len(met) >= 5


def test_bins_take_turns_and_rare_classes_come_first() -> None:
    """Bins 0: classes 0 (7 instances), 1 (3); bin 1: class 2. Images by hand: which class has how many boxes."""
    boxes = {0: [0], 1: [0, 0, 2], 2: [1], 3: [2, 2, 2], 4: [], 5: [0, 0, 0], 6: [2]}
    document = {
        "images": [
            {"id": i, "file_name": str(i), "width": 9, "height": 9, "neg_category_ids": [],
             "not_exhaustive_category_ids": []}
            for i in boxes
        ],
        "annotations": [
            {"id": 10 * i + n, "image_id": i, "category_id": k, "bbox": [0.0, 0.0, 2.0, 2.0], "area": 4.0,
             "iscrowd": int(i == 6)}
            for i, labels in boxes.items() for n, k in enumerate(labels)
        ],
        "categories": [
            {"id": k, "name": str(k), "frequency": "r", "image_count": 1, "instance_count": n}
            for k, n in enumerate((7, 3, 40))
        ],
    }  # fmt: skip
    split = from_document(document, NONE)
    bins, counts = np.array([0, 0, 1]), np.array([7, 3, 40])
    # Class 1, the rarest; class 2 where it has most boxes; class 0 where it has; 2 again; 0 again; and what has no box
    # that counts, the crowd in image 6 among it.
    whole = [(2, 1), (3, 2), (5, 0), (1, 2), (0, 0), (4, -1), (6, -1)]
    assert detected.chosen(split, bins, counts, 99) == whole
    for most in range(8):
        assert detected.chosen(split, bins, counts, most) == whole[:most]


def test_predictions_that_are_gone(tmp_path: Path) -> None:
    store, rows, stages = made_store(tmp_path)
    evaluate = stages[rows[0].record.evaluate_key]
    val = detected.shown(store, evaluate, 2)
    (store.folder(evaluate.inputs["predict"].key) / "done").unlink()
    assert detected.seen(store, evaluate, val) is None
    assert len(open_split(store.output(evaluate.inputs["val"].key), None)) == 3 == len(val.whole)
    assert len(val.split) == 2
