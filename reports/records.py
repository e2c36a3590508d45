"""The record of a finished evaluate stage, in its row. Separate because a report takes the rows of a plan, and a frame
those that a store has noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.environment import PER_ATTEMPT
from bench.record import Record, Result, loads
from bench.stage import KINDS, Stage, walk
from bench.store.roots import TableRow
from bench.store.store import Store

RESULT = "result.json"  # named by bench/run/evaluate.py, which imports torch and so is not imported here


def record_of(store: Store, evaluate: Stage, row: TableRow, suite: str) -> Record:
    """The result of a stage that is done, in a row of a suite.

    Raises:
        UserError: a result.json that cannot be read, or was changed after it was written.
    """
    path = store.output(evaluate.key) / RESULT
    return Record.of(
        loads(Result, store.read(evaluate.key, RESULT), str(path)),
        row=row.row,
        suite=suite,
        seed=row.seed,
        method=row.method,
        settings=row.settings,
        environment=_environment(store, evaluate),
        mark=row.mark,
    )


def _environment(store: Store, evaluate: Stage) -> dict[str, Any]:
    """What a row's stages ran on; where they differ, all the values ("1.2 + 1.3"). Data are made anywhere alike."""
    stages = [stage for stage in walk(evaluate) if not KINDS[stage.kind].direct_only]
    found = [(stage.kind, done.environment) for stage in stages if (done := store.done(stage.key)) is not None]
    merged = _together([{n: value for n, value in one.items() if n not in PER_ATTEMPT} for _, one in found])
    # Several processes train together; a prediction by one is no mixture with that.
    return merged | _together(
        [{"processes": one["processes"]} for kind, one in found if KINDS[kind].processes and "processes" in one]
    )


def _together(environments: list[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for environment in environments for name in environment):
        values = [environment.get(name) for environment in environments]
        if all(isinstance(value, Mapping) for value in values):
            merged[name] = _together([dict(value or {}) for value in values])
        else:
            distinct = [value for i, value in enumerate(values) if value not in values[:i]]
            texts = ("-" if value is None else str(value) for value in distinct)
            merged[name] = distinct[0] if len(distinct) == 1 else " + ".join(texts)
    return merged
