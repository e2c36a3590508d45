"""The time, trainings, disk and memory of a plan, and how to measure what is unknown. Separate from the plan, which
decides the order of work, and from cost.py, which estimates single stages.
"""

from __future__ import annotations

import functools
import heapq
import shlex
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.lineage import Finished
from bench.plan.cost import Estimate, Peak
from bench.plan.jobs import JobPlan, make_jobs
from bench.plan.planning import Plan
from bench.stage import KINDS, walk

PROBE_STEPS = 20  # of each training of a probe: enough that starting up does not show


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
    plan: Plan,
    missing: Collection[str],
    estimate: Estimate,
    slots: int,
    *,
    fuse: bool = True,
    waiting: Sequence[JobPlan] | None = None,
) -> float | None:
    """Seconds on `slots` processes: the jobs laid out greedily, each started when its inputs are there.

    `waiting`: the jobs that make what is missing, where the caller has computed them already.
    """
    if any(estimate(plan.stages[key]) is None for key in missing):
        return None
    if waiting is None:
        # Among equals the job with the most dependants comes first.
        waiting = make_jobs(plan, missing, estimate, fuse=fuse)
    lacking = set(missing)
    needs = [_outside(job, plan) & lacking for job in waiting]
    after: dict[str, list[int]] = defaultdict(list)
    for number, keys in enumerate(needs):
        for key in keys:
            after[key].append(number)
    done: dict[str, float] = {}
    free = [0.0] * max(1, slots)  # heaps: when each process is free; jobs that could start now, or at a later time
    now = [number for number, keys in enumerate(needs) if not keys]
    later: list[tuple[float, int]] = []
    while now or later:
        while later and later[0][0] <= free[0]:
            heapq.heappush(now, heapq.heappop(later)[1])
        begin, number = (free[0], heapq.heappop(now)) if now else heapq.heappop(later)
        end = begin + estimate.cost.start
        for unit in waiting[number].units:
            end += estimate.unit([plan.stages[key] for key in unit]) or 0.0
            done |= dict.fromkeys(unit, end)
        heapq.heapreplace(free, end)
        for key in waiting[number].keys:
            for other in after[key]:
                needs[other].discard(key)
                if not needs[other]:
                    ready = max(done[inner] for inner in _outside(waiting[other], plan) if inner in done)
                    heapq.heappush(later, (ready, other))
    return max(done.values(), default=0.0)


def _outside(job: JobPlan, plan: Plan) -> set[str]:
    own = set(job.keys)
    return {i.key for key in own for i in plan.stages[key].inputs.values() if i.key not in own}


@dataclass(frozen=True)
class Passes:
    """Counts of passes with sharing and fusing, and if each row were run alone with all below it; seconds are None
    where unknown."""

    passes: int
    seconds: float | None
    singly: int
    singly_seconds: float | None


def passes(
    plan: Plan,
    estimate: Estimate,
    kind: str = "train",
    *,
    fuse: bool = True,
    found: Iterable[JobPlan] | None = None,
) -> Passes:
    """Of the whole plan, including what is done already. `found`: its jobs, where computed already."""
    units = [unit for job in found or make_jobs(plan, plan.stages, estimate, fuse=fuse) for unit in job.units]
    together = [[plan.stages[key] for key in unit] for unit in units if plan.stages[unit[0]].kind == kind]
    alone = [stage for row in plan.rows for stage in walk(*row.roots) if stage.kind == kind]
    return Passes(
        len(together), _sum(estimate.unit(unit) for unit in together),
        len(alone), _sum(estimate(stage) for stage in alone),
    )  # fmt: skip


@dataclass(frozen=True)
class Disk:
    """Megabytes: of the finished stages, of the missing ones, and the number of stages where that is not known."""

    there: float
    to_come: float
    unknown: int


def disk(plan: Plan, estimate: Estimate, done: Mapping[str, Finished]) -> Disk:
    """What a plan takes in the store. Checkpoints, which are removed when a stage is done, and logs are left out."""
    sizes = [estimate.megabytes(stage) for key, stage in plan.stages.items() if key not in done]
    known = [size for size in sizes if size is not None]
    return Disk(sum(map(_megabytes, done.values())), sum(known), len(sizes) - len(known))


def peak(plan: Plan, keys: Collection[str], estimate: Estimate) -> Peak | None:
    """Most memory that one of these stages takes; None where nothing is known of any training among them.

    A job makes its stages one after another, so that this is what each job has to be given.
    """
    found = {key: estimate.peak(plan.stages[key]) for key in keys}
    lacking = any(peak is None for key, peak in found.items() if plan.stages[key].kind == "train")
    known = [peak for peak in found.values() if peak is not None]
    return None if lacking or not known else functools.reduce(Peak.__or__, known)


def probe(plan: Plan, missing: Collection[str], estimate: Estimate) -> list[str] | None:
    """The words of the command that measures the stages without an estimate; None where all have one.

    One row, or a few, whose stages have the unknown shapes, with every training cut to a few steps: it measures what a
    step takes, whatever the length.
    """
    lacking = [stage for key in missing if estimate(stage := plan.stages[key]) is None and not KINDS[stage.kind].cache]
    unknown = {shape for stage in lacking for shape in estimate.shapes(stage)}
    labels: list[str] = []
    have = _taught(plan, estimate)
    while best := max(have, key=lambda name: len(have[name] & unknown), default=None):
        if not have[best] & unknown:
            break
        labels.append(best)
        unknown -= have[best]
    if not labels:
        return None
    kept = plan.suite.options_without("--only", "--seeds")
    sets = [name for path in _lengths(plan, labels) for name in ("--set", f"{path}.steps={PROBE_STEPS}")]
    words = ["python", "-m", "bench", "run", str(plan.suite.path), "--only", ",".join(labels)]
    return [*words, "--seeds", str(plan.suite.sections.seeds[0]), *kept, *sets]


def _taught(plan: Plan, estimate: Estimate) -> dict[str, set[str]]:
    """The unknown shapes that a short run of each row would measure, without rows that cannot be named and cut on a
    command line."""
    entries = plan.suite.document.value.get("rows", {})
    own = {row.label for row in plan.suite.rows if _has_length(row.schedule or {})}
    rows = {row.label: row.evaluate for row in plan.rows if row.evaluate is not None and "," not in row.label}
    # Rows without options first: of equals the first is taken.
    order = sorted(rows, key=lambda label: label in own)
    return {
        label: {shape for stage in walk(rows[label]) for shape in estimate.shapes(stage)}
        for label in order
        if label not in own or (label in entries and "." not in label)
    }


def probe_text(words: list[str]) -> str:
    """As one types it."""
    return shlex.join(words)


def _lengths(plan: Plan, labels: Collection[str]) -> list[str]:
    """Dotted names of the schedules that say how long a training of these rows is."""
    found = ["schedule"]
    roots = [row.evaluate for row in plan.rows if row.evaluate is not None and row.label in labels]
    used = [stage.spec["schedule"] for stage in walk(*roots) if stage.kind == "train"]
    for name, section in plan.suite.sections.stages.items():
        own = {word: section[word] for word in ("steps", "epochs") if word in section}
        found += [f"stages.{name}"] if own and any(own.items() <= schedule.items() for schedule in used) else []
    for row in plan.suite.rows:
        found += [f"rows.{row.label}.schedule"] if row.label in labels and _has_length(row.schedule or {}) else []
    return found


def _has_length(section: Mapping[str, Any]) -> bool:
    return "steps" in section or "epochs" in section


def _sum(values: Any) -> float | None:
    listed = list(values)
    return None if None in listed else float(sum(listed))


def _megabytes(done: Finished) -> float:
    return sum(done.sizes.values()) / 1e6
