"""What a report makes of stored predictions: AP on a thousand other draws of the val images, the kinds of errors, and
calibration, recall and pooled AP. All are kept beside the evaluation, so that they are made once. Separate from
load.py, which only reads, and from intervals.py, error_figure.py and more_metrics.py, which make tables and
figures of it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from bench.data.split import Split, open_split
from bench.errors import UserError, parsed
from bench.evaluation.ap import DetectedBoxes, lean_ground_truth
from bench.evaluation.calibration import Calibration, ReliabilityBin, calibrations
from bench.evaluation.error_kinds import Costs, Counts, Group, error_kinds
from bench.evaluation.matches import Accumulator, Matches, match_boxes
from bench.evaluation.pooled import PER_CLASS, Pooled, match_by_class, pooled
from bench.evaluation.recall import Recall, Recalls, recalls
from bench.evaluation.resample import BLOCKS, DRAWS, ap_of, bootstrap, class_groups, images_that_show, jackknife
from bench.evaluation.stored import DETECTIONS, PROPOSALS, Proposals, read_detections, read_proposals
from bench.stage import EvaluateSpec, Stage, spec_of
from bench.store.disk import read_bytes, write_atomic
from bench.store.store import Store
from reports.load import Draws, Errors, MoreMetrics, RowResult

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
DRAWS_VERSION = 2  # of what is kept; raise it when a number may change
ERRORS_VERSION = MORE_VERSION = 1  # the same
CLOSE = 1e-6  # points; what is accumulated again is the recorded AP to this
_IMAGES, _WITHOUT = "images of ", "without a block "  # before a metric, in a kept file


def with_predictions(
    store: Store, stages: Mapping[str, Stage], rows: Sequence[RowResult], made: Callable[[RowResult, int], None]
) -> list[RowResult]:
    """The same results, each with its draws, errors and more; without where its predictions are not in the store.

    Args:
        store: where predictions are, and where what is made is kept, if it can be written.
        stages: by key, among them all that evaluated `rows`.
        rows: results; what they have is left as it is.
        made: is told of a row for which draws are being made that so many more of PASSES are done.

    Raises:
        UserError: predictions that were changed, or that do not give the recorded AP.
    """
    return [row if _whole(row) else _made(store, stages[row.record.evaluate_key], row, made) for row in rows]


def with_kept(store: Store, stages: Mapping[str, Stage], rows: Sequence[RowResult]) -> list[RowResult]:
    """The same results, with what is kept of them. Makes nothing."""
    found = []
    for row in rows:
        stage = stages[row.record.evaluate_key]
        errors, more = _kept_errors(_errors_path(store, stage)), _kept_more(_more_path(store, stage))
        found.append(replace(row, draws=_kept_draws(_draws_path(store, stage), row), errors=errors, more=more))
    return found


def kept_paths(store: Store, stage: Stage) -> tuple[Path, ...]:
    """Where it is kept of the evaluation that a stage is, there or not."""
    return _draws_path(store, stage), _errors_path(store, stage), _more_path(store, stage)


def lacking(rows: Sequence[RowResult]) -> list[RowResult]:
    """The results that lack something of it."""
    return [row for row in rows if not _whole(row)]


def _whole(row: RowResult) -> bool:
    return row.draws is not None and row.errors is not None and row.more is not None


def _made(store: Store, stage: Stage, row: RowResult, made: Callable[[RowResult, int], None]) -> RowResult:
    predicted = stage.inputs["predict"].key
    done = store.done(predicted)
    if done is None or DETECTIONS not in done.digests:
        return row
    spec = spec_of(stage, EvaluateSpec)
    edges, most = tuple(spec["bins"]), int(spec["max_detections"])
    split = open_split(store.output(stage.inputs["val"].key), None)
    where = str(store.output(predicted) / DETECTIONS)
    found = read_detections(split, store.read(predicted, DETECTIONS), where)
    draws, errors, more = row.draws, row.errors, row.more
    lean, groups = lean_ground_truth(split.lvis_json()), _groups(split, edges)
    matches = match_boxes(lean, found, most)
    if draws is None:
        draws = _draws(matches, groups, row, where, lambda number: made(row, number))
        _keep(_draws_path(store, stage), _packed(draws))
    if errors is None:
        errors = _errors(lean, found, edges, most)
        _keep(_errors_path(store, stage), json.dumps(asdict(errors)).encode())
    if more is None:
        proposals = None
        if PROPOSALS in done.digests:
            place = str(store.output(predicted) / PROPOSALS)
            proposals = read_proposals(split, store.read(predicted, PROPOSALS), place)
        more = _more(lean, found, proposals, matches, groups, most)
        _keep(_more_path(store, stage), json.dumps(asdict(more)).encode())
    return replace(row, draws=draws, errors=errors, more=more)


def _draws(
    matches: Matches, groups: Mapping[str, Bools], row: RowResult, where: str, made: Callable[[int], None]
) -> Draws:
    ones = ap_of(Accumulator(matches).per_class(np.ones((1, len(matches.image_ids)), np.int64)), groups)
    for name, (fraction,) in ones.items():
        value, recorded = 100.0 * float(fraction), row.record.metrics.get(name)
        if recorded is not None and not abs(value - recorded) < CLOSE:
            what = (
                f"the stored predictions give {name} {value:.6f}, and the record of this evaluation has {recorded:.6f}"
            )
            raise UserError(what, where=where, hint="run the suite again: what was changed is made anew")
    val = row.record.protocol.val_digest
    drawn, without = bootstrap(matches, groups, val, DRAWS, made), jackknife(matches, groups, val, BLOCKS, made)
    made(BLOCKS - len(without["AP"]))  # which a small val does not need
    return Draws(_points(drawn), _points(without), images_that_show(matches, groups), val)


def _points(fractions: Mapping[str, Floats]) -> dict[str, Floats]:
    return {name: 100.0 * values for name, values in fractions.items()}


def _errors(lean: Mapping[str, Any], found: DetectedBoxes, edges: tuple[int, ...], most: int) -> Errors:
    kinds = error_kinds(lean, found, edges, most)
    groups = {"AP": kinds.overall} | {f"AP{i}": group for i, group in enumerate(kinds.bins, start=1)}
    groups |= {f"AP{letter}": group for letter, group in kinds.frequencies.items()}
    return Errors(groups, tuple(tuple(int(n) for n in line) for line in kinds.confusion))


def _more(
    lean: Mapping[str, Any], found: DetectedBoxes, proposals: Proposals | None, matches: Matches,
    groups: Mapping[str, Bools], most: int,
) -> MoreMetrics:  # fmt: skip
    stored, of_class = (
        int(np.unique(ids, return_counts=True)[1].max(initial=0)) for ids in (found.image_id, found.category_id)
    )
    nothing_cut = stored <= most and of_class <= PER_CLASS  # then all are in `matches`
    return MoreMetrics(
        calibration=calibrations(matches, groups),
        pooled=pooled(matches if nothing_cut else match_by_class(lean, found), groups),
        recall=None if proposals is None else recalls(lean, proposals, matches, groups),
        stored=stored,
    )


def _groups(split: Split, edges: tuple[int, ...]) -> dict[str, Bools]:
    counts = [category.instance_count for category in split.categories]
    return class_groups([category.frequency for category in split.categories], counts, edges)


def _keep(path: Path, content: bytes) -> None:
    with contextlib.suppress(UserError):  # a store that others may only read
        write_atomic(path, content)


def _draws_path(store: Store, stage: Stage) -> Path:
    return store.folder(stage.key) / f"draws-{DRAWS_VERSION}-{DRAWS}-{_predicted(store, stage)}.safetensors"


def _errors_path(store: Store, stage: Stage) -> Path:
    return store.folder(stage.key) / f"errors-{ERRORS_VERSION}-{_predicted(store, stage)}.json"


def _more_path(store: Store, stage: Stage) -> Path:
    return store.folder(stage.key) / f"more-{MORE_VERSION}-{_predicted(store, stage)}.json"


def _predicted(store: Store, stage: Stage) -> str:
    """Names a file after what was evaluated, beside the evaluation: it is freed with its stage, and never taken for
    another's."""
    done = store.done(stage.inputs["predict"].key)
    return done.digest[:16] if done is not None else "-"


def _packed(draws: Draws) -> bytes:
    images = {_IMAGES + name: np.array([number]) for name, number in draws.images.items()}
    points = {**draws.values, **{_WITHOUT + name: values for name, values in draws.without.items()}}
    return safetensors.numpy.save({name: values.astype(np.float32) for name, values in points.items()} | images)


def _kept_draws(path: Path, row: RowResult) -> Draws | None:
    """None where there is no whole file: it is made again."""
    with contextlib.suppress(OSError, UserError, ValueError, SafetensorError):
        found = safetensors.numpy.load(read_bytes(path))
        images = {n.removeprefix(_IMAGES): int(array[0]) for n, array in found.items() if n.startswith(_IMAGES)}
        points = {n: array.astype(np.float64) for n, array in found.items() if not n.startswith(_IMAGES)}
        without = {n.removeprefix(_WITHOUT): array for n, array in points.items() if n.startswith(_WITHOUT)}
        values = {n: array for n, array in points.items() if not n.startswith(_WITHOUT)}
        whole = "AP" in images and values.keys() == without.keys()
        if whole and values and all(array.shape == (DRAWS,) for array in values.values()):
            return Draws(values, without, images, row.record.protocol.val_digest)
    return None


def _kept_errors(path: Path) -> Errors | None:
    with contextlib.suppress(OSError, UserError, ValueError, TypeError, KeyError, AttributeError):
        content = parsed(read_bytes(path))
        groups = {name: _group(one) for name, one in content["groups"].items()}
        return Errors(groups, tuple(tuple(int(n) for n in line) for line in content["confusion"]))
    return None


def _group(one: dict[str, Any]) -> Group:
    return Group(**{**one, "counts": Counts(**one["counts"]), "costs": Costs(**one["costs"])})


def _kept_more(path: Path) -> MoreMetrics | None:
    with contextlib.suppress(OSError, UserError, ValueError, TypeError, KeyError, AttributeError):
        content = parsed(read_bytes(path))
        calibration = {name: _calibration(one) for name, one in content["calibration"].items()}
        of_pool = {name: Pooled(**one) for name, one in content["pooled"].items()}
        recall = content["recall"]
        if calibration.keys() == of_pool.keys() and "AP" in of_pool:
            return MoreMetrics(calibration, of_pool, None if recall is None else _recalls(recall), content["stored"])
    return None


def _calibration(one: dict[str, Any]) -> Calibration:
    return Calibration(**{**one, "bins": tuple(ReliabilityBin(**each) for each in one["bins"])})


def _recalls(one: dict[str, Any]) -> Recalls:
    groups = {name: Recall(**{**of, "proposals": tuple(of["proposals"])}) for name, of in one["groups"].items()}
    return Recalls(groups, one["most"])
