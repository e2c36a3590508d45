"""AP of every row on a thousand other draws of the val images, from stored predictions; kept beside each evaluation, so
that it is made once. Separate from load.py, which only reads, and from intervals.py, which makes intervals of it.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.split import open_split
from bench.errors import UserError
from bench.evaluation.ap import lean_ground_truth
from bench.evaluation.matches import Accumulator, match_boxes
from bench.evaluation.resample import DRAWS, ap_of, bootstrap, class_groups, images_that_show
from bench.evaluation.stored import DETECTIONS, read_detections
from bench.stage import EvaluateSpec, Stage, spec_of
from bench.store.disk import read_bytes, write_atomic
from bench.store.store import Store
from reports.load import Draws, RowResult

Floats = NDArray[np.float64]
VERSION = 1  # of what is kept; raise it when a number may change
CLOSE = 1e-6  # points; what is accumulated again is the recorded AP to this
_IMAGES = "images of "  # before a metric, in a kept file


def with_draws(
    store: Store, stages: Mapping[str, Stage], rows: Sequence[RowResult], made: Callable[[RowResult, int], None]
) -> list[RowResult]:
    """The same results, each with its draws; without where its predictions are not in the store.

    Args:
        store: where predictions are, and where draws are kept, if it can be written.
        stages: by key, among them all that evaluated `rows`.
        rows: results; those that have draws are left as they are.
        made: is told of a row whose draws are being made that so many more are done.

    Raises:
        UserError: predictions that were changed, or that do not give the recorded AP.
    """
    return [
        row if row.draws is not None else replace(row, draws=_made(store, stages[row.record.evaluate_key], row, made))
        for row in rows
    ]


def with_kept(store: Store, stages: Mapping[str, Stage], rows: Sequence[RowResult]) -> list[RowResult]:
    """The same results, with those draws that are kept. Makes none."""
    return [replace(row, draws=_kept(_path(store, stages[row.record.evaluate_key]), row)) for row in rows]


def lacking(rows: Sequence[RowResult]) -> list[RowResult]:
    """The results without draws."""
    return [row for row in rows if row.draws is None]


def _made(store: Store, stage: Stage, row: RowResult, made: Callable[[RowResult, int], None]) -> Draws | None:
    predicted = stage.inputs["predict"].key
    done = store.done(predicted)
    if done is None or DETECTIONS not in done.digests:
        return None
    spec = spec_of(stage, EvaluateSpec)
    split = open_split(store.output(stage.inputs["val"].key), None)
    where = str(store.output(predicted) / DETECTIONS)
    found = read_detections(split, store.read(predicted, DETECTIONS), where)
    matches = match_boxes(lean_ground_truth(split.lvis_json()), found, int(spec["max_detections"]))
    counts = [category.instance_count for category in split.categories]
    groups = class_groups([category.frequency for category in split.categories], counts, tuple(spec["bins"]))
    ones = ap_of(Accumulator(matches).per_class(np.ones((1, len(matches.image_ids)), np.int64)), groups)
    _check({name: 100.0 * float(values[0]) for name, values in ones.items()}, row, where)
    val = row.record.protocol.val_digest
    fractions = bootstrap(matches, groups, val, DRAWS, lambda number: made(row, number))
    draws = Draws({name: 100.0 * values for name, values in fractions.items()}, images_that_show(matches, groups), val)
    with contextlib.suppress(UserError):  # a store that others may only read
        write_atomic(_path(store, stage), _packed(draws))
    return draws


def _check(again: Mapping[str, float], row: RowResult, where: str) -> None:
    """Whether AP accumulated again is the recorded one: then the draws are of what the record says."""
    for name, value in again.items():
        recorded = row.record.metrics.get(name)
        if recorded is not None and not abs(value - recorded) < CLOSE:
            what = (
                f"the stored predictions give {name} {value:.6f}, and the record of this evaluation has {recorded:.6f}"
            )
            raise UserError(what, where=where, hint="run the suite again: what was changed is made anew")


def _path(store: Store, stage: Stage) -> Path:
    """Beside the evaluation, and named after what was evaluated: freed with its stage, never taken for another's."""
    done = store.done(stage.inputs["predict"].key)
    digest = done.digest[:16] if done is not None else "-"
    return store.folder(stage.key) / f"draws-{VERSION}-{DRAWS}-{digest}.npz"


def _packed(draws: Draws) -> bytes:
    file = io.BytesIO()
    arrays: dict[str, Any] = {name: values.astype(np.float32) for name, values in draws.values.items()}
    arrays |= {_IMAGES + name: np.array(number) for name, number in draws.images.items()}
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _kept(path: Path, row: RowResult) -> Draws | None:
    """None where there is no whole file: it is made again."""
    with contextlib.suppress(OSError, UserError, ValueError, zipfile.BadZipFile, KeyError):
        with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as kept:
            found = {name: kept[name] for name in kept.files}
        values = {name: array.astype(np.float64) for name, array in found.items() if not name.startswith(_IMAGES)}
        images = {name.removeprefix(_IMAGES): int(array) for name, array in found.items() if name.startswith(_IMAGES)}
        if values and all(array.shape == (DRAWS,) for array in values.values()):
            return Draws(values, images, row.record.protocol.val_digest)
    return None
