"""From a suite to unique stages, jobs and an estimate. Separate because planning must be free: no torch, no cluster.

The plan is a desired state. `states` compares it with the store; `jobs` says what to start next for what is missing:
fused groups (classifiers over one frozen trunk), chains (short stages ride in their producer's job).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from bench.engines.facts import facts
from bench.key import digest
from bench.method import planned
from bench.stage import Stage, walk
from bench.suite import Cost, Suite

State = Literal["done", "running", "failed", "partial", "missing"]


class Finished(Protocol):
    """What the planner reads of a finished stage; bench.store.Done is one."""

    @property
    def digest(self) -> str: ...
    @property
    def inputs(self) -> Mapping[str, str]: ...
    @property
    def seconds(self) -> float: ...


class StoreView(Protocol):
    """What the planner asks of a store; bench.store.Store is one."""

    def done(self, key: str) -> Finished | None: ...
    def running(self, key: str) -> object | None: ...
    def failure(self, key: str) -> object | None: ...
    def attempts(self, key: str) -> list[Path]: ...


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

    def consumers(self, key: str) -> list[Stage]:
        return [s for s in self.stages.values() if any(i.key == key for i in s.inputs.values())]


@dataclass(frozen=True)
class JobPlan:
    """Units that one process does in order; a unit of several keys is trained in one pass."""

    units: tuple[tuple[str, ...], ...]
    seconds: float = 0.0

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for unit in self.units for key in unit)


@dataclass
class Estimate:
    """Seconds of a stage, from measured stages of the plan, else from the preset's measured cost."""

    cost: Cost
    measured: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def learn(self, stage: Stage, seconds: float) -> None:
        self.measured[_shape(stage)].append(seconds / _length(stage))

    def __call__(self, stage: Stage) -> float | None:
        """None where nothing is known: run the suite once on a small schedule as a probe."""
        seen = self.measured.get(_shape(stage))
        rate = sum(seen) / len(seen) if seen else self._declared(stage)
        return None if rate is None else rate * _length(stage)

    def _declared(self, stage: Stage) -> float | None:
        if stage.kind == "train":
            if stage.spec["schedule"]["steps"] is None:
                return None  # how many steps an epoch has, the sampler knows
            only = stage.spec["trainable"] == ["classifier"]
            return self.cost.classifier_step if only else self.cost.train_step
        if stage.kind == "patch":
            return 0.1
        if stage.kind == "data" and self.cost.data is not None:
            return self.cost.data * (0.9 if stage.spec["split"] == "train" else 0.1)
        value: float | None = getattr(self.cost, stage.kind)
        return value


def make(suite: Suite) -> Plan:
    """All stages of all rows and seeds; a row whose engine lacks what its method needs is skipped with the reason."""
    provided = facts(suite.sections.detector.engine).provides
    rows: list[RowPlan] = []
    needed: dict[str, list[str]] = defaultdict(list)
    roots: list[Stage] = []
    unshared = 0
    for row in suite.rows:
        lacking = sorted(row.method.needs - provided)
        for seed in suite.sections.seeds:
            if lacking:
                reason = f"engine '{suite.sections.detector.engine}' lacks {', '.join(lacking)}"
                rows.append(RowPlan(row.label, seed, row.method.name, row.settings, None, reason))
                continue
            own = suite.of(row)
            evaluate = own.evaluated(planned(row.method, own, seed, row.schedule), seed)
            rows.append(RowPlan(row.label, seed, row.method.name, row.settings, evaluate))
            roots.append(evaluate)
            for stage in walk(evaluate):
                unshared += 1
                if row.label not in needed[stage.key]:
                    needed[stage.key].append(row.label)
    stages = {stage.key: stage for stage in walk(*roots)}
    return Plan(suite, tuple(rows), stages, {k: tuple(v) for k, v in needed.items()}, unshared)


def fresh(stage: Stage, store: StoreView) -> bool:
    """Done, and made from what its inputs hold now. An input that is missing right now does not make it stale."""
    done = store.done(stage.key)
    if done is None:
        return False
    for name, source in stage.inputs.items():
        other = store.done(source.key)
        if other is not None and done.inputs.get(name) != other.digest:
            return False
    return True


def states(plan: Plan, store: StoreView) -> dict[str, State]:
    """What the store says of each stage. "partial": it has been started and can continue."""
    return {key: _state(stage, store) for key, stage in plan.stages.items()}


def _state(stage: Stage, store: StoreView) -> State:
    if fresh(stage, store):
        return "done"
    if store.running(stage.key) is not None:
        return "running"
    if store.failure(stage.key) is not None:
        return "failed"
    return "partial" if store.attempts(stage.key) and store.done(stage.key) is None else "missing"


def jobs(plan: Plan, missing: Collection[str], estimate: Estimate, *, fuse: bool = True) -> list[JobPlan]:
    """The jobs that would make the missing stages, longest first."""
    units: dict[str, list[tuple[str, ...]]] = {}  # job name -> units
    job_of: dict[str, str] = {}
    for key, stage in plan.stages.items():
        if key not in missing:
            continue
        name = _job_name(stage, job_of, fuse)
        job_of[key] = name
        chain = units.setdefault(name, [])
        if stage.kind == "train" and chain:
            chain[0] = (*chain[0], key)
        else:
            chain.append((key,))
    result = []
    for chain in units.values():
        longest = sum(max((estimate(plan.stages[k]) or 0.0) for k in unit) for unit in chain)
        ordered = [tuple(sorted(chain[0])), *chain[1:]]
        result.append(JobPlan(tuple(ordered), longest))
    return sorted(result, key=lambda job: -_priority(job, plan, estimate))


def ready(job: JobPlan, plan: Plan, done: Collection[str]) -> bool:
    """Whether all that the job reads from outside is done: its inputs, and theirs (a model is put together along its
    lineage, so that a finished classifier is of no use while the trunk below it is being made again)."""
    own = set(job.keys)
    return all(s.key in own or s.key in done for key in job.keys for s in walk(*plan.stages[key].inputs.values()))


def critical_path(plan: Plan, missing: Collection[str], estimate: Estimate) -> float | None:
    """Seconds of the longest chain of missing stages; None if one of them cannot be estimated."""
    finish: dict[str, float] = {}
    for key, stage in plan.stages.items():
        own = estimate(stage) if key in missing else 0.0
        if own is None:
            return None
        finish[key] = own + max((finish[i.key] for i in stage.inputs.values()), default=0.0)
    return max(finish.values(), default=0.0)


def wall_seconds(
    plan: Plan, missing: Collection[str], estimate: Estimate, slots: int, *, fuse: bool = True
) -> float | None:
    """Seconds on `slots` processes: the jobs laid out greedily, each started when its inputs are there."""
    if any(estimate(plan.stages[key]) is None for key in missing):
        return None
    waiting = jobs(plan, missing, estimate, fuse=fuse)
    done = {key: 0.0 for key in plan.stages if key not in missing}
    free = [0.0] * max(1, slots)
    while startable := [job for job in waiting if ready(job, plan, done)]:
        now = {job: max(min(free), _inputs_at(job, plan, done)) for job in startable}
        job = min(startable, key=now.__getitem__)  # the first of equals has the most that waits for it
        waiting.remove(job)
        end = now[job] + estimate.cost.start
        for unit in job.units:
            end += max(estimate(plan.stages[key]) or 0.0 for key in unit)
            done |= dict.fromkeys(unit, end)
        free[free.index(min(free))] = end
    return max(done.values(), default=0.0)


def _inputs_at(job: JobPlan, plan: Plan, done: Mapping[str, float]) -> float:
    """When the last input from outside the job is there."""
    own = set(job.keys)
    return max((done[i.key] for k in own for i in plan.stages[k].inputs.values() if i.key not in own), default=0.0)


def pulled_in(plan: Plan) -> list[str]:
    """Rows that --only left out but whose model is made all the same, because a row that was kept starts from it."""
    suite, seed = plan.suite, plan.suite.sections.seeds[0]
    models = {row.evaluate.inputs["predict"].inputs["model"].key for row in plan.rows if row.evaluate is not None}
    made = set(plan.stages) - models
    return [r.label for r in suite.set_aside if planned(r.method, suite.of(r), seed, r.schedule).key in made]


def fused_groups(plan: Plan, keys: Iterable[str]) -> list[tuple[str, ...]]:
    """The groups of at least two of these train stages that differ in the classifier alone."""
    groups: dict[str, list[str]] = defaultdict(list)
    wanted = set(keys)
    for key, stage in plan.stages.items():
        if key in wanted and stage.kind == "train" and stage.spec["trainable"] == ["classifier"]:
            groups[_trunk(stage)].append(key)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _job_name(stage: Stage, job_of: Mapping[str, str], fuse: bool) -> str:
    if stage.kind == "data":
        return f"data/{stage.spec.get('seed')}"
    if stage.kind == "train":
        return f"trunk/{_trunk(stage)}" if fuse and stage.spec["trainable"] == ["classifier"] else stage.key
    producer = stage.inputs["predict" if stage.kind == "evaluate" else "model"]
    if producer.key in job_of:
        return job_of[producer.key]
    while "model" in producer.inputs:  # what rides on a finished model shares one job
        producer = producer.inputs["model"]
    return f"tail/{producer.key}"


def _trunk(stage: Stage) -> str:
    spec = {k: v for k, v in stage.spec.items() if k not in ("classifier", "keep_classifier")}
    return digest({"spec": spec, "inputs": {name: source.key for name, source in stage.inputs.items()}})


def _priority(job: JobPlan, plan: Plan, estimate: Estimate) -> float:
    """Seconds of the job and of the longest training that waits for it."""
    own = set(job.keys)
    after = [estimate(s) or 0.0 for k in own for s in plan.consumers(k) if s.key not in own and s.kind == "train"]
    return job.seconds + max(after, default=0.0)


def _shape(stage: Stage) -> str:
    """Stages of one shape cost the same per unit of length."""
    if stage.kind == "train":
        spec = stage.spec
        unit = "epoch" if spec["schedule"]["steps"] is None else "step"
        batch = spec["schedule"]["batch"]
        what: Any = [spec["detector"], spec["input"], batch, spec["trainable"], spec["engine"], unit]
    elif stage.kind == "data":
        what = {k: v for k, v in stage.spec.items() if k != "seed"}
    elif stage.kind == "patch":
        what = None
    else:
        val = stage.inputs["val"].spec
        what = {k: v for k, v in val.items() if k != "seed"}
    return digest([stage.kind, what])


def _length(stage: Stage) -> float:
    if stage.kind != "train":
        return 1.0
    schedule = stage.spec["schedule"]
    return float(schedule["steps"] or schedule["epochs"])


def learned(plan: Plan, store: StoreView) -> Estimate:
    """An estimate from the plan's finished stages and the suite's declared cost."""
    estimate = Estimate(plan.suite.sections.cost)
    for key, stage in plan.stages.items():
        done = store.done(key)
        if done is not None:
            estimate.learn(stage, done.seconds)
    return estimate


def describe(plan: Plan, keys: Sequence[str]) -> str:
    """The rows that need some stages, in the table's order, shortened to one line."""
    labels = [r.label for r in plan.rows]
    wanted = {label for key in keys for label in plan.needed_by.get(key, ())}
    return ", ".join(dict.fromkeys(label for label in labels if label in wanted))
