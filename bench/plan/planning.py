"""From a suite to unique stages and jobs. Separate because planning must be cheap: no torch, no cluster.

The plan is a desired state. `states` compares it with the store; `jobs` groups what is missing into jobs:
units of stages that one pass makes (heads over one frozen trunk, predictions of one trunk) and chains (short stages
run in their producer's job).
"""

from __future__ import annotations

import functools
import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from bench import lineage
from bench.engines.facts import facts
from bench.key import digest
from bench.lineage import N_POST_HOC, Finished, features_stage, job_root, pass_of, taps_named, trunk_of
from bench.method import planned
from bench.plan.cost import Estimate
from bench.plan.cost import learned as learned_from
from bench.stage import KINDS, Stage, walk
from bench.suite.suite import SCHEDULES, Suite

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
    """One row and one seed: the stage that gives its numbers, or why there is none."""

    label: str
    seed: int
    method: str
    settings: Mapping[str, Any]
    evaluate: Stage | None
    skipped: str | None = None


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
            for stage in walk(row.evaluate) if row.evaluate is not None else ():
                found[stage.key] = min(row.seed, found.get(stage.key, row.seed))
        return found

    @functools.cached_property
    def row_order(self) -> dict[str, int]:
        """A row's position in the table, by label."""
        return {label: i for i, label in enumerate(dict.fromkeys(row.label for row in self.rows))}


@dataclass(frozen=True)
class JobPlan:
    """Units that one process does in order; a unit of several keys is trained in one pass."""

    units: tuple[tuple[str, ...], ...]
    seconds: float = 0.0

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for unit in self.units for key in unit)


def make(suite: Suite) -> Plan:
    """All stages of all rows and seeds; a row whose engine lacks what its method needs is skipped with the reason."""
    provided = facts(suite.sections.detector.engine).provides
    rows: list[RowPlan] = []
    needed: dict[str, dict[str, None]] = defaultdict(dict)  # key -> row labels, an ordered set
    roots: list[Stage] = []
    unshared = 0
    asked: set[str] = set()  # schedules, by name
    for row in suite.rows:
        lacking = sorted(row.method.needs - provided)
        own = suite.of(row)
        for seed in suite.sections.seeds:
            if lacking:
                reason = f"engine '{suite.sections.detector.engine}' lacks {', '.join(lacking)}"
                rows.append(RowPlan(row.label, seed, row.method.name, row.settings, None, reason))
                continue
            evaluate = own.evaluated(planned(row.method, own, seed, row.schedule, schedules=asked), seed)
            rows.append(RowPlan(row.label, seed, row.method.name, row.settings, evaluate))
            roots.append(evaluate)
            for stage in walk(evaluate):
                unshared += 1
                needed[stage.key][row.label] = None
    _check_schedules(suite, asked)
    stages = {stage.key: stage for stage in walk(*roots)}
    notes = _keep_features(suite, stages, needed)
    return Plan(suite, tuple(rows), stages, {k: tuple(v) for k, v in needed.items()}, unshared, tuple(notes))


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
            notes.append(f"features of val are not kept: about {size:,.0f} MB, machine.features_mb is {limit}")
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
    return "partial" if store.attempts(key) and store.done(key) is None else "missing"


def jobs(
    plan: Plan,
    missing: Collection[str],
    estimate: Estimate,
    *,
    fuse: bool = True,
    done: Collection[str] | None = None,
    made_by: Mapping[str, str] | None = None,
) -> list[JobPlan]:
    """The jobs that would make the missing stages, longest first. Inside a job inputs come before consumers, and no two
    jobs wait for each other.

    Args:
        plan: all stages.
        missing: keys to be made.
        estimate: for the order of the jobs.
        fuse: make units of stages that one pass can make.
        done: keys that are done; None: all that is not missing. A stage that waits for one that is neither (it failed,
            or another run makes it) is not put into a job with stages that could start.
        made_by: of keys in queued jobs, the job: waiting for several stages of one job counts once.
    """
    chains = _chains(plan, missing, done, fuse, made_by or {})
    found = []
    for members in chains.values():
        units = _units(members, fuse)
        seconds = sum(estimate.unit([plan.stages[key] for key in unit]) or 0.0 for unit in units)
        found.append(JobPlan(tuple(units), seconds))
    return sorted(found, key=lambda job: -_priority(job, plan, estimate))


@dataclass
class _Chain:
    """A job being put together: its stages, and the jobs that it waits for."""

    needs: frozenset[str]
    stages: list[Stage] = field(default_factory=list)


def _chains(
    plan: Plan, missing: Collection[str], done: Collection[str] | None, fuse: bool, made_by: Mapping[str, str]
) -> dict[str, list[Stage]]:
    """The stages of each job, by a name for it.

    All stages of a job wait for the same other jobs: one that waits for more, or less, goes into another job. So jobs
    wait for earlier ones only, and no stage delays the start of the job it is in.
    """
    found: dict[str, _Chain] = {}
    job_of: dict[str, str] = {}
    needs_of: dict[str, frozenset[str]] = {}  # all jobs that make something below a stage
    for key, stage in plan.stages.items():
        below = [needs_of[source.key] for source in stage.inputs.values()]
        direct = {job_of[source.key] for source in stage.inputs.values() if source.key in job_of}
        needs_of[key] = needs = frozenset(direct).union(*below)
        if key not in missing:
            if done is not None and key not in done:
                needs_of[key] = needs | {f"elsewhere/{made_by.get(key, key)}"}
            continue
        name = _job_name(stage, job_of, fuse)
        # A stage in a chain may wait for its own job; a head that is fused with others may not wait for its own unit.
        inside = frozenset() if KINDS[stage.kind].rides_with is None else frozenset({name})
        if name in found and needs - inside != found[name].needs:
            name = f"{name}/{digest(sorted(needs))[:12]}"
        found.setdefault(name, _Chain(needs - {name})).stages.append(stage)
        job_of[key] = name
    return {name: chain.stages for name, chain in found.items()}


def _job_name(stage: Stage, job_of: Mapping[str, str], fuse: bool) -> str:
    kind = KINDS[stage.kind]
    if kind.rides_with is None:
        shared = None if kind.job_by is None else f"{stage.kind}/{stage.spec.get(kind.job_by)}"
        return shared or (pass_of(stage) if fuse else stage.key)
    producer = stage.inputs[kind.rides_with]
    if producer.key in job_of:
        return job_of[producer.key]
    return f"tail/{trunk_of(job_root(stage)).key}"  # short stages over finished models of one trunk share one job


def _units(stages: Sequence[Stage], fuse: bool) -> list[tuple[str, ...]]:
    """The stages of a job as units in the order of work: inputs first, else by kind."""
    groups: dict[str, list[Stage]] = defaultdict(list)
    for stage in stages:
        groups[pass_of(stage) if fuse else stage.key].append(stage)
    unit_of = {stage.key: name for name, group in groups.items() for stage in group}
    waits = {
        name: {unit_of[i.key] for stage in group for i in stage.inputs.values() if i.key in unit_of}
        for name, group in groups.items()
    }
    order = sorted(groups, key=lambda name: _order(groups[name][0]))  # stable: the plan's order among equals
    rank = {name: i for i, name in enumerate(order)}
    after: dict[str, list[str]] = defaultdict(list)
    for name in order:
        for other in waits[name]:
            after[other].append(name)
    free = [rank[name] for name in order if not waits[name]]
    ordered: list[tuple[str, ...]] = []
    while free:  # a heap: the first unit that waits for nothing
        name = order[heapq.heappop(free)]
        ordered.append(tuple(sorted(stage.key for stage in groups[name])))
        for other in after[name]:
            waits[other].discard(name)
            if not waits[other]:
                heapq.heappush(free, rank[other])
    return ordered


def _order(stage: Stage) -> tuple[int, bool]:
    """By kind; val before train, so that a stage that waits for train finds both and its predictions fit in its job."""
    return KINDS[stage.kind].order, stage.spec.get("split") == "train"


def ready(job: JobPlan, plan: Plan, done: Collection[str]) -> bool:
    """Whether all that the job reads from other jobs is done: its inputs, and theirs (a model is assembled along its
    lineage, so that a finished classifier cannot be used while the trunk below it is being made again)."""
    own = set(job.keys)
    return all(s.key in own or s.key in done for key in job.keys for s in walk(*plan.stages[key].inputs.values()))


def pulled_in(plan: Plan) -> list[str]:
    """Rows that --only left out but whose model is made, because a row that was kept starts from it."""
    suite, seed = plan.suite, plan.suite.sections.seeds[0]
    models = {row.evaluate.inputs["predict"].inputs["model"].key for row in plan.rows if row.evaluate is not None}
    made = set(plan.stages) - models
    return [r.label for r in suite.set_aside if planned(r.method, suite.of(r), seed, r.schedule).key in made]


def fused_groups(
    plan: Plan, keys: Iterable[str], kind: str = "train", *, found: Iterable[JobPlan] | None = None
) -> list[tuple[str, ...]]:
    """The groups of at least two of these train stages (or predict stages) that one pass makes.

    `found`: the jobs that make them, where the caller has computed them already.
    """
    if found is None:
        found = jobs(plan, set(keys), Estimate(plan.suite.sections.cost))
    units = [unit for job in found for unit in job.units if len(unit) > 1 and plan.stages[unit[0]].kind == kind]
    order = {key: i for i, key in enumerate(plan.stages)}
    return sorted((tuple(sorted(unit, key=order.__getitem__)) for unit in units), key=lambda unit: order[unit[0]])


def _priority(job: JobPlan, plan: Plan, estimate: Estimate) -> float:
    """Seconds of the job and of the longest job that waits for it."""
    own = set(job.keys)
    waiting = (s for k in own for s in plan.consumers(k) if s.key not in own)
    after = [estimate(stage) or 0.0 for stage in waiting if KINDS[stage.kind].rides_with is None]
    return job.seconds + max(after, default=0.0)


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
