"""From a suite to unique stages and jobs. Separate because planning must be cheap: no torch, no cluster.

The plan is a desired state; `states` compares it with the store. What is missing is grouped into jobs in jobs.py.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from bench import lineage
from bench.engines.facts import facts
from bench.errors import UserError
from bench.key import canonical
from bench.lineage import N_POST_HOC, Finished, features_stage, pass_of, taps_named
from bench.method import planned, stopped
from bench.plan.cost import Estimate
from bench.plan.cost import learned as learned_from
from bench.plan.looks import wanted
from bench.stage import KINDS, Stage, walk
from bench.store.roots import TableRow
from bench.suite.sections import SCHEDULES
from bench.suite.suite import Suite

State = Literal["done", "running", "failed", "partial", "missing"]


class StoreView(Protocol):
    """What the planner needs of a store; bench.store.store.Store is one."""

    def done(self, key: str) -> Finished | None: ...
    def running(self, key: str) -> object | None: ...
    def failure(self, key: str) -> object | None: ...
    def attempts(self, key: str) -> list[Path]: ...
    def keys(self) -> list[str]: ...
    def load(self, key: str) -> dict[str, Any]: ...
    def output(self, key: str) -> Path: ...


class CachedStore:
    """Reads each `done` of a store once, so that all that one command shows is of one moment. A StoreView."""

    def __init__(self, store: StoreView) -> None:
        self._store = store
        self._done: dict[str, Finished | None] = {}
        self.running, self.failure, self.attempts = store.running, store.failure, store.attempts
        self.keys, self.load, self.output = store.keys, store.load, store.output

    def done(self, key: str) -> Finished | None:
        """See bench.store.store.Store.done."""
        if key not in self._done:
            self._done[key] = self._store.done(key)
        return self._done[key]


@dataclass(frozen=True)
class RowPlan:
    """One row and one seed: the stage that gives its numbers, or why there is none; and what figures need beside it."""

    label: str
    seed: int
    method: str
    settings: Mapping[str, Any]
    evaluate: Stage | None
    skipped: str | None = None
    looks: Mapping[str, Stage] = field(default_factory=dict)
    mark: str = ""  # what its method wants to be said of it

    @property
    def roots(self) -> tuple[Stage, ...]:
        """All that is to be made for it, but for what lies below."""
        return () if self.evaluate is None else (self.evaluate, *self.looks.values())

    @property
    def noted(self) -> TableRow | None:
        """As a store notes it; None where it is skipped."""
        if self.evaluate is None:
            return None
        settings = canonical(self.settings)
        return TableRow(self.label, self.seed, self.method, settings, self.evaluate.key, self.mark)


@dataclass(frozen=True)
class Plan:
    """The unique stages of a suite, inputs before consumers, and the rows that need them."""

    suite: Suite
    rows: tuple[RowPlan, ...]
    stages: Mapping[str, Stage]
    needed_by: Mapping[str, tuple[str, ...]]  # key -> row labels
    unshared: int  # how many stages there would be without sharing
    notes: tuple[str, ...] = ()  # decisions of the planner that are to be shown

    def consumers(self, key: str) -> list[Stage]:
        """The stages that read a stage."""
        return self._consumers.get(key, [])

    @functools.cached_property
    def images_of(self) -> dict[str, frozenset[str]]:
        """key -> the data stages whose images it, or all that is made of it, reads: without one it serves no row."""
        found: dict[str, frozenset[str]] = {}
        for stage in reversed(list(self.stages.values())):  # consumers before what they are made from
            read = KINDS[stage.kind].images
            own = frozenset() if read is None else frozenset({stage.inputs[read].key})
            above = [found[consumer.key] for consumer in self.consumers(stage.key)]
            found[stage.key] = own | (frozenset.intersection(*above) if above else frozenset())
        return found

    @functools.cached_property
    def _consumers(self) -> dict[str, list[Stage]]:
        found: dict[str, list[Stage]] = defaultdict(list)
        for stage in self.stages.values():
            for key in dict.fromkeys(source.key for source in stage.inputs.values()):
                found[key].append(stage)
        return dict(found)

    @functools.cached_property
    def seed_of(self) -> dict[str, int]:
        """The least seed whose rows need a stage, by key."""
        found: dict[str, int] = {}
        for row in self.rows:
            for stage in walk(*row.roots):
                found[stage.key] = min(row.seed, found.get(stage.key, row.seed))
        return found

    @functools.cached_property
    def row_order(self) -> dict[str, int]:
        """A row's position in the table, by label."""
        return {label: i for i, label in enumerate(dict.fromkeys(row.label for row in self.rows))}


def make(suite: Suite) -> Plan:
    """All stages of all rows and seeds; a row whose engine lacks what its method needs, or is not installed, is skipped
    with the reason.

    Raises:
        UserError: there is no row whose engine is installed; a schedule that no recipe uses.
    """
    rows: list[RowPlan] = []
    needed: dict[str, dict[str, None]] = defaultdict(dict)  # key -> row labels, an ordered set
    roots: list[Stage] = []
    unshared, absent = 0, None
    asked: set[str] = set()  # schedules, by name
    for row in suite.rows:
        own = suite.of(row)
        engine = facts(own.sections.detector.engine)
        absent = engine.absent()
        lacking = absent or engine.lacking(row.method.needs)
        for seed in suite.sections.seeds:
            if lacking:
                rows.append(RowPlan(row.label, seed, row.method.name, row.settings, None, lacking))
                continue
            model = planned(row.method, own, seed, row.schedule, schedules=asked)
            if row.until is not None or row.rungs:
                model = stopped(model, row.until, row.rungs)
            evaluate = own.evaluated(model, seed)
            looks = wanted(own, row.label, model, seed)
            mark = row.method.mark
            rows.append(RowPlan(row.label, seed, row.method.name, row.settings, evaluate, looks=looks, mark=mark))
            roots += rows[-1].roots
            for stage in walk(*rows[-1].roots):
                unshared += 1
                needed[stage.key][row.label] = None
    if not roots and absent:
        raise UserError(absent, where="detector.engine", hint="other engines: python -m bench engines")
    _check_schedules(suite, asked)
    stages = {stage.key: stage for stage in walk(*roots)}
    notes = _keep_features(suite, stages, needed)
    return Plan(suite, tuple(rows), stages, {k: tuple(v) for k, v in needed.items()}, unshared, tuple(notes))


def joined(first: Plan, *others: Plan) -> Plan:
    """The stages and rows of several plans, as the plan of the first one's suite."""
    stages, needed = dict(first.stages), {key: dict.fromkeys(labels) for key, labels in first.needed_by.items()}
    for plan in others:
        stages |= plan.stages
        for key, labels in plan.needed_by.items():
            needed.setdefault(key, {}).update(dict.fromkeys(labels))
    every = (first, *others)
    rows = tuple(row for plan in every for row in plan.rows)
    notes = dict.fromkeys(note for plan in every for note in plan.notes)
    unshared = sum(plan.unshared for plan in every)
    return Plan(first.suite, rows, stages, {k: tuple(v) for k, v in needed.items()}, unshared, tuple(notes))


def _check_schedules(suite: Suite, asked: set[str]) -> None:
    """Refuse schedules that no recipe uses, those of rows that are left out or skipped included."""
    if suite.sections.stages.keys() - asked - set(SCHEDULES):
        for row in (*suite.rows, *suite.set_aside):
            planned(row.method, suite.of(row), suite.sections.seeds[0], row.schedule, schedules=asked)
    suite.check_schedules(asked)


def _keep_features(suite: Suite, stages: dict[str, Stage], needed: dict[str, dict[str, None]]) -> list[str]:
    """Add a features stage per trunk that enough post-hoc predictions share; returns notes on those too large."""
    groups: dict[str, list[Stage]] = defaultdict(list)
    for stage in stages.values():
        if stage.kind == "predict" and stage.inputs["model"].kind == "patch":
            groups[pass_of(stage)].append(stage)
    estimate, limit = Estimate(suite.sections.cost), suite.sections.machine.features_mb
    notes = []
    for group in groups.values():
        if len(group) < N_POST_HOC:
            continue
        added = features_stage(group[0], sorted(set().union(*(taps_named(s.inputs["model"]) for s in group))))
        size = estimate.megabytes(added)
        if size is not None and size > limit:
            what = f"features of {suite.measured_on} are not kept"
            notes.append(f"{what}: about {size:,.0f} MB, machine.features_mb is {limit}")
            continue
        stages[added.key] = added
        needed[added.key] = {label: None for stage in group for label in needed[stage.key]}
    return list(dict.fromkeys(notes))


def fresh(stage: Stage, store: StoreView) -> bool:
    """Done, and made from the present content of its inputs: see bench.lineage.fresh."""
    return lineage.fresh(stage, store.done)


def all_fresh(plan: Plan, store: StoreView) -> set[str]:
    """The keys of all stages that are `fresh`; reads the store once per stage."""
    found = {key: store.done(key) for key in plan.stages}
    return {key for key, stage in plan.stages.items() if found[key] is not None and lineage.fresh(stage, found.get)}


def states(plan: Plan, store: StoreView) -> dict[str, State]:
    """The state of each stage in the store. "partial": it has been started and can continue."""
    done = all_fresh(plan, store)
    return {key: "done" if key in done else _state(key, store) for key in plan.stages}


def _state(key: str, store: StoreView) -> State:
    """Of a stage that is not fresh."""
    if store.running(key) is not None:
        return "running"
    if store.failure(key) is not None:
        return "failed"
    return "partial" if store.done(key) is None and store.attempts(key) else "missing"


def pulled_in(plan: Plan) -> list[str]:
    """Rows that --only left out but whose model is made, because a row that was kept starts from it."""
    suite, seed = plan.suite, plan.suite.sections.seeds[0]
    models = {row.evaluate.inputs["predict"].inputs["model"].key for row in plan.rows if row.evaluate is not None}
    made = set(plan.stages) - models
    return [r.label for r in suite.set_aside if planned(r.method, suite.of(r), seed, r.schedule).key in made]


def learned(plan: Plan, store: StoreView) -> Estimate:
    """An estimate for a plan from the store's measurements and the suite's declared cost."""
    return learned_from(plan.stages.values(), plan.suite.sections.cost, store)


def labels(plan: Plan, keys: Sequence[str]) -> list[str]:
    """The rows that need some stages, in the table's order."""
    wanted = {label for key in keys for label in plan.needed_by.get(key, ())}
    return sorted(wanted, key=plan.row_order.__getitem__)


def describe(plan: Plan, keys: Sequence[str]) -> str:
    """The rows that need some stages, as text."""
    return ", ".join(labels(plan, keys))
