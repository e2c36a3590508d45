"""The jobs that would make what is missing of a plan. Separate from planning.py, which says what there is to make.

A job is a list of units; a unit is what one pass makes (heads over one frozen trunk, predictions of one trunk). Short
stages run in their producer's job.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.key import digest
from bench.lineage import job_root, pass_of, trunk_of
from bench.plan.cost import Estimate
from bench.plan.planning import Plan
from bench.stage import KINDS, Stage


@dataclass(frozen=True)
class JobPlan:
    """Units that one process does in order; a unit of several keys is trained in one pass."""

    units: tuple[tuple[str, ...], ...]
    seconds: float = 0.0

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for unit in self.units for key in unit)


def make_jobs(
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
        # A stage in a chain may wait for its own job, and so may a part of a data set; a head that is fused with others
        # may not wait for its own unit.
        kind = KINDS[stage.kind]
        inside = frozenset() if kind.rides_with is None and kind.job_by is None else frozenset({name})
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
    """By kind; val before train, so that a stage that waits for train finds both and its predictions fit in its job.
    So tune before rest."""
    return KINDS[stage.kind].order, stage.spec.get("split") in ("train", "rest")


def fused_groups(
    plan: Plan, keys: Iterable[str], kind: str = "train", *, found: Iterable[JobPlan] | None = None
) -> list[tuple[str, ...]]:
    """The groups of at least two of these train stages (or predict stages) that one pass makes.

    `found`: the jobs that make them, where the caller has computed them already.
    """
    if found is None:
        found = make_jobs(plan, set(keys), Estimate(plan.suite.sections.cost))
    units = [unit for job in found for unit in job.units if len(unit) > 1 and plan.stages[unit[0]].kind == kind]
    order = {key: i for i, key in enumerate(plan.stages)}
    return sorted((tuple(sorted(unit, key=order.__getitem__)) for unit in units), key=lambda unit: order[unit[0]])


def _priority(job: JobPlan, plan: Plan, estimate: Estimate) -> float:
    """Seconds of the job and of the longest job that waits for it."""
    own = set(job.keys)
    waiting = (s for k in own for s in plan.consumers(k) if s.key not in own)
    after = [estimate(stage) or 0.0 for stage in waiting if KINDS[stage.kind].rides_with is None]
    return job.seconds + max(after, default=0.0)
