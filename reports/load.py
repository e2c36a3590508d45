"""What a report is made of: one value per row and seed, read from the store. Separate because tables, figures and the
tracker take these values and do not read the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError, parsed
from bench.evaluation.calibration import Calibration
from bench.evaluation.error_kinds import Group
from bench.evaluation.pooled import Pooled
from bench.evaluation.recall import Recalls
from bench.plan.planning import Plan, RowPlan, fresh
from bench.record import Record
from bench.spec import Figure
from bench.stage import Stage
from bench.store.store import Store
from reports.frames import frame as frame
from reports.looks import NO_LOOKS, Looks, looks
from reports.records import RESULT, record_of
from reports.trainings import Training, trainings

if TYPE_CHECKING:
    from reports.detected import Sheet  # reads images, which most commands do not

CLASSIFIER = "classifier.json"  # named by bench/run/predict.py, which imports torch and so is not imported here
NEED_TRAININGS = frozenset(
    {"counts", "losses", "embeddings", "cost", "curves", "gain"}
)  # figures that look at `RowResult.trainings`


@dataclass(frozen=True, eq=False)
class Draws:
    """One evaluation on other draws of its val images (reports/predictions.py makes them).

    Attributes:
        values: metric -> AP points of each draw, float64; NaN where a draw shows no box of its classes.
        without: the same without each block of the val images.
        images: metric -> val images that show a counted box of one of its classes.
        val: digest of val; evaluations of one val have the same draws and blocks.
    """

    values: Mapping[str, NDArray[np.float64]]
    without: Mapping[str, NDArray[np.float64]]
    images: Mapping[str, int]
    val: str


@dataclass(frozen=True)
class Errors:
    """The kinds of errors of one evaluation (reports/predictions.py makes them).

    Attributes:
        groups: AP (all classes), AP1.., APr, APc, APf -> counts, and costs as fractions of AP50.
        confusion: bin of a box x bin of what it is taken for, as in `bench.evaluation.error_kinds.ErrorKinds`.
    """

    groups: Mapping[str, Group]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class MoreMetrics:
    """What the predictions of one evaluation say beside AP (reports/predictions.py makes it); fractions.

    Attributes:
        calibration, pooled: AP (all classes), AP1.., APr, APc, APf -> of these classes.
        recall: of the same groups; None where no proposals are stored.
        stored: detections of the image that has most: no more could be looked at.
    """

    calibration: Mapping[str, Calibration]
    pooled: Mapping[str, Pooled]
    recall: Recalls | None
    stored: int


@dataclass(frozen=True)
class RowResult:
    """The evaluation of one row and seed, with what the figures need.

    Attributes:
        record: metrics in AP points and the protocol.
        weight_norms: ||W_j|| of the C foreground classes and, last, of the background; None where the classifier has
            no weight row per class.
        instance_counts: training instances of the C classes, in the same order.
        per_class_ap: AP points of the C classes; None where val has no instance of a class.
        trainings: those that made its model, where a figure of the suite needs them.
        looks: what figures had measured or kept of its models.
        draws: what its AP is on other draws of val; None: not made.
        errors: their kinds; None: not made.
        more: calibration, recall of proposals, AP-pool and AP-fixed; None: not made.
        sheet: a few val images with its detections, where a figure of the suite shows them.
    """

    record: Record
    weight_norms: list[float] | None
    instance_counts: list[int]
    per_class_ap: list[float | None]
    trainings: Sequence[Training] = ()
    looks: Looks = NO_LOOKS
    draws: Draws | None = None
    errors: Errors | None = None
    more: MoreMetrics | None = None
    sheet: Sheet | None = None

    @classmethod
    def of(
        cls,
        record: Record,
        weight_norms: list[float] | None,
        trainings: Sequence[Training] = (),
        looks: Looks = NO_LOOKS,
    ) -> RowResult:
        """Counts and AP of the classes are in the record; a record without them has no norms either."""
        classes = record.per_class
        if classes is None:
            return cls(record, None, [], [], trainings, looks)
        return cls(record, weight_norms, list(classes.instance_counts), list(classes.ap), trainings, looks)


def load(store: Store, plan: Plan) -> list[RowResult]:
    """The rows and seeds of a plan that are done, in suite order. Reads only.

    Raises:
        UserError: a result.json that cannot be read, or was changed after it was written.
    """
    return load_rows(store, plan.rows, plan.suite.name, plan.suite.sections.figures)


def load_rows(store: Store, planned: Sequence[RowPlan], suite: str, figures: Sequence[Figure]) -> list[RowResult]:
    """`load` of some rows of a suite of this name, with what these figures look at.

    Raises:
        UserError: as `load`.
    """
    found = []
    kinds = {figure.kind for figure in figures}
    for row in planned:
        noted = row.noted
        if row.evaluate is None or noted is None or not fresh(row.evaluate, store):
            continue
        record = record_of(store, row.evaluate, noted, suite)
        predict = row.evaluate.inputs["predict"]
        model = predict.inputs["model"]
        chain = trainings(store, model) if kinds & NEED_TRAININGS else []
        seen = looks(store, row.looks, model, examples="reconstructions" in kinds)
        found.append(RowResult.of(record, _norms(store, predict), chain, seen))
    return found


def changed(store: Store, plan: Plan) -> dict[str, str]:
    """Of the stages that `load` reads, those with a file that is no longer what was written; key -> what is wrong."""
    rows = [row for row in plan.rows if row.evaluate is not None and fresh(row.evaluate, store)]
    read = {row.evaluate.key: RESULT for row in rows if row.evaluate is not None}
    read |= {row.evaluate.inputs["predict"].key: CLASSIFIER for row in rows if row.evaluate is not None}
    found = {}
    for key, name in read.items():
        done = store.done(key)
        if done is not None and name in done.digests:
            try:
                store.read(key, name)
            except UserError as error:
                found[key] = error.what
    return found


def _norms(store: Store, predict: Stage) -> list[float] | None:
    done = store.done(predict.key)
    if done is None or CLASSIFIER not in done.digests:
        return None
    content = parsed(store.read(predict.key, CLASSIFIER))
    norms = content.get("weight_norms") if isinstance(content, dict) else None
    return [float(norm) for norm in norms] if norms else None
