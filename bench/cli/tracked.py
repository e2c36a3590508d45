"""A plan as MLflow shows it: what each stage is made for, each row with its numbers. Separate from sync.py, which
brings it there, since jobs and a run at work need the first alone.
"""

from __future__ import annotations

import datetime
from collections import Counter, defaultdict
from collections.abc import Sequence

from bench.plan.planning import Plan
from bench.stage import KINDS, Stage, walk
from bench.store.store import Store
from bench.tracking.live import Live
from bench.tracking.rows import TrackedRow, TrackedRows
from bench.tracking.stages import Whose, tracked
from bench.tracking.track import sync_stages
from reports.load import RowResult


def whose(plan: Plan) -> dict[str, Whose]:
    """key -> what a stage is made for. Of stages with one name, as the trainings of one row, those after the first have
    a number, in the order in which they are made."""
    seeds: dict[str, set[int]] = defaultdict(set)
    for row in plan.rows:
        for stage in walk(*row.roots):
            seeds[stage.key].add(row.seed)
    methods = {row.label: row.method for row in plan.rows}
    found, times = {}, Counter[str]()
    for key, stage in plan.stages.items():
        rows, own = plan.needed_by[key], tuple(sorted(seeds[key]))
        name = _name(stage, rows, own)
        times[name] += 1
        name = name if times[name] == 1 else f"{name} ({times[name]})"
        found[key] = Whose(name, rows, methods[rows[0]], own)
    return found


def _name(stage: Stage, rows: Sequence[str], seeds: Sequence[int]) -> str:
    """`train baseline +5 seed 0`: kind, the first row that needs it and how many more do; a split is not named by
    rows."""
    named_by = KINDS[stage.kind].named_by
    shared = f" +{len(rows) - 1}" if len(rows) > 1 else ""
    what = f"{rows[0]}{shared}" if named_by is None else str(stage.spec[named_by])
    seed = f" seed {seeds[0]}" if len(seeds) == 1 else f" {len(seeds)} seeds" if seeds else ""
    return f"{stage.kind} {what}{seed}"


def rows_of(plan: Plan, store: Store, results: Sequence[RowResult]) -> TrackedRows:
    """The rows of a plan that have a result."""
    from reports.tracked import numbers

    order = [row.label for row in plan.suite.rows]
    return TrackedRows([_row(plan, store, result) for result in results], numbers(results, order, plan.suite.controls))


def _row(plan: Plan, store: Store, result: RowResult) -> TrackedRow:
    """A row and seed. It ends with the last of its stages, and lasts as long as they do together, shared ones
    included: one that was made weeks ago for another row is no time of waiting."""
    evaluate = plan.stages[result.record.evaluate_key]
    made = [done for stage in walk(evaluate) if (done := store.done(stage.key)) is not None]
    ended = max(datetime.datetime.fromisoformat(done.finished).timestamp() for done in made)
    began = ended - sum(done.seconds for done in made)
    chain = tuple(stage.key for stage in walk(evaluate) if stage.kind == "train")
    files = (store.output(evaluate.key) / "result.json",)
    return TrackedRow(result.record, files, began, ended, chain)


def live(plan: Plan, store: Store, uri: str | None) -> Live:
    """Brings the curves of a plan's stages into MLflow while they are made: those that were not done when this was
    called, each until it is."""
    told = whose(plan)
    own = Store(store.root)  # a second one: a Store caches what it has read, and is not thread-safe
    left = {key: stage for key, stage in plan.stages.items() if store.done(key) is None}

    def bring() -> str | None:
        found = [tracked(own, stage, told[key]) for key, stage in left.items() if own.attempts(key)]
        if not found:
            return None
        notice = sync_stages(own.root, uri, plan.suite.name, found)
        for stage in found if notice is None else ():
            if stage.done:
                left.pop(stage.key)
        return notice

    return Live(bring)
