"""A plan as MLflow shows it: what each stage is made for, each row with its numbers. Separate from sync.py, which
brings it there, since jobs and a run at work need the first alone.
"""

from __future__ import annotations

import datetime
import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence

from bench.environment import masked
from bench.key import digest
from bench.plan.planning import Plan
from bench.stage import KINDS, Stage, walk
from bench.store.store import Store
from bench.suite.suite import Suite
from bench.tracking.live import Live
from bench.tracking.rows import TrackedRow, TrackedRows
from bench.tracking.stages import Whose, tracked
from bench.tracking.track import sync_stages
from reports.load import RowResult

SHOWN = 6  # digits of a table's settings


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
    suite = plan.suite
    common = _setup(suite)
    # A row may have data and detector of its own.
    setups = {row.label: digest([common, _setup(suite.of(row))]) for row in suite.rows}
    found = [_row(plan, store, result, setups[result.record.row]) for result in results]
    options = map(masked, suite.options_without("--only", "--seeds", "--against"))
    table = " ".join([common[:SHOWN], suite.name, shlex.join(options)]).strip()
    return TrackedRows(found, numbers(results, order, suite.controls), table)


def _setup(suite: Suite) -> str:
    """A digest of the settings that rows have in common and that their numbers depend on: the same for all seeds and
    whichever rows are asked for, and in any version of the code."""
    s = suite.sections
    splits = [suite.data_stage(split, 0).spec for split in ("train", "val")]
    content = {
        "data": [{name: value for name, value in spec.items() if name != "reader"} for spec in splits],
        "weights": suite.train_spec()[0]["weights"],
        "stages": s.stages,
        "test": [s.test.in_key(), s.test.max_detections, s.test.bins],
        **{part: getattr(s, part).in_key() for part in ("detector", "input", "schedule", "machine")},
    }
    return digest(content)


def _row(plan: Plan, store: Store, result: RowResult, setup: str) -> TrackedRow:
    """A row and seed. It ends with the last of its stages, and lasts as long as they do together, shared ones
    included: one that was made weeks ago for another row is no time of waiting."""
    evaluate = plan.stages[result.record.evaluate_key]
    made = [done for stage in walk(evaluate) if (done := store.done(stage.key)) is not None]
    ended = max(datetime.datetime.fromisoformat(done.finished).timestamp() for done in made)
    began = ended - sum(done.seconds for done in made)
    chain = tuple(stage.key for stage in walk(evaluate) if stage.kind == "train")
    files = (store.output(evaluate.key) / "result.json",)
    return TrackedRow(result.record, files, began, ended, chain, setup)


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
