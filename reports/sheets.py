"""A few val images for the figure `contact_sheet`, read where a suite asks for it. Separate from load.py, which reads
what every report needs, and from the drawing, which reads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.data.pixels import Bytes
from bench.errors import UserError
from bench.stage import Stage
from bench.store.store import Store
from reports import detected
from reports.detected import Sheet, Shown
from reports.load import RowResult

MOST = 12  # images
SIDE = 120  # pixels of the longer side: each is in the svg once a row


def with_sheets(store: Store, stages: Mapping[str, Stage], rows: Sequence[RowResult]) -> list[RowResult]:
    """The same results, with a `Sheet` of the first seed of each row; without where images or predictions are gone.

    Args:
        store: where predictions are.
        stages: by key, among them all that evaluated `rows`.
        rows: one result per row and seed.

    Raises:
        UserError: predictions that were changed.
    """
    first: dict[str, int] = {}
    for row in rows:
        first[row.record.row] = min(row.record.seed, first.get(row.record.row, row.record.seed))
    known: dict[str, tuple[Shown, tuple[Bytes, ...]] | None] = {}
    found = []
    for row in rows:
        evaluate = stages[row.record.evaluate_key]
        val = evaluate.inputs["val"].key
        if row.record.seed == first[row.record.row]:
            if val not in known:
                known[val] = _pictures(store, evaluate)
            read = known[val]
            seen = None if read is None else detected.seen(store, evaluate, read[0])
            if read is not None and seen is not None:
                row = replace(row, sheet=Sheet(*read, tuple(seen)))
        found.append(row)
    return found


def _pictures(store: Store, evaluate: Stage) -> tuple[Shown, tuple[Bytes, ...]] | None:
    """The images that can be read; None without any."""
    try:
        val = detected.shown(store, evaluate, MOST)
    except UserError:
        return None
    read = {i: one for i, one in detected.smaller(val, SIDE) if not isinstance(one, UserError)}
    return (val.only(list(read)), tuple(read.values())) if read else None
