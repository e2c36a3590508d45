"""What a run submits to a cluster: its jobs, their stages, dependencies and resources.

Separate from the loop that submits (bench/launch/loop.py) and from the queues: `plan --cluster` prints the same on a
machine without a queue.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.launch.submitted import Submitted
from bench.launchers import LAUNCHERS
from bench.plan import planning
from bench.plan.planning import JobPlan, Plan
from bench.stage import KINDS, walk
from bench.suite.clusters import Cluster, Resources, joined, name_of

T = TypeVar("T")
LINES = 40  # jobs that are shown one by one
SHOWN = 4  # rows, or jobs, of a list that are spelt out


class Dependencies:
    """Which jobs a job has to wait for. Caches the stages below each."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._below: dict[tuple[tuple[str, ...], ...], set[str]] = {}

    def below(self, job: JobPlan) -> set[str]:
        """All that a job reads from other jobs, and its sources (see bench.plan.planning.ready)."""
        if job.units not in self._below:
            inputs = (source for key in job.keys for source in self._plan.stages[key].inputs.values())
            self._below[job.units] = {stage.key for stage in walk(*inputs)} - set(job.keys)
        return self._below[job.units]

    def direct(self, jobs: Mapping[T, JobPlan]) -> set[T]:
        """The jobs that no other of them already waits for."""
        below = {name: self.below(job) for name, job in jobs.items()}
        return {
            name
            for name, job in jobs.items()
            if not any(below[other].intersection(job.keys) for other in jobs if other != name)
        }


def needs(plan: Plan, cluster: Cluster, job: JobPlan) -> Resources:
    """The resources of a job: the maximum over its stages. A shared stage counts as its first row's."""
    rows = {row.label: row.cluster for row in plan.suite.rows}
    found = []
    for key in job.keys:
        stage = plan.stages[key]
        label = next(iter(plan.needed_by.get(key, ())), "")
        found.append(cluster.of({stage.kind}, rows.get(label)))
    asked = joined(found)
    tasks = processes(plan, job, max(asked.tasks, plan.suite.sections.machine.tasks))
    return asked.model_copy(update={"tasks": tasks})


def processes(plan: Plan, job: JobPlan, tasks: int) -> int:
    """How many processes a job has where `tasks` are wanted: several only train together."""
    return tasks if any(KINDS[plan.stages[key].kind].processes for key in job.keys) else 1


@dataclass(frozen=True)
class Submission:
    """One job of a run.

    Attributes:
        number: place in the order of submission, from 1.
        job: what it makes.
        after: numbers of the jobs it waits for.
        queued: ids of jobs in the queue that it waits for too.
        asks: resources requested of the cluster.
    """

    number: int
    job: JobPlan
    after: tuple[int, ...]
    queued: tuple[str, ...]
    asks: Resources


@dataclass(frozen=True)
class Submissions:
    """What a run would submit now.

    Attributes:
        jobs: in the order of submission.
        queued: jobs that wait or run already; they are not submitted again.
        sure: whether the queue has confirmed those.
        later: jobs that can be submitted once stages of another run are done.
    """

    jobs: tuple[Submission, ...]
    queued: tuple[Submitted, ...] = ()
    later: tuple[JobPlan, ...] = ()
    sure: bool = True


def submissions(
    plan: Plan, cluster: Cluster, jobs: Sequence[JobPlan], done: Collection[str], queued: Sequence[Submitted] = ()
) -> Submissions:
    """In the loop's order of submission: what waits for nothing, then what waits for that, and so on.

    Args:
        plan: all stages.
        cluster: where.
        jobs: what makes the stages that are missing and that no queued job makes.
        done: keys that are done.
        queued: jobs in the queue.
    """
    dependencies = Dependencies(plan)
    known: dict[int | str, JobPlan] = {note.id: JobPlan(_of_plan(note, plan)) for note in queued}
    maker = {key: name for name, job in known.items() for key in job.keys}
    found: list[Submission] = []
    left = list(jobs)
    while True:
        ready = [job for job in left if dependencies.below(job) - set(done) <= set(maker)]
        groups: dict[frozenset[int | str], list[JobPlan]] = defaultdict(list)
        for job in ready:
            below = {maker[key]: known[maker[key]] for key in dependencies.below(job) - set(done)}
            groups[frozenset(dependencies.direct(below))].append(job)
        for after, group in groups.items():
            for job in group:
                numbers = tuple(sorted(name for name in after if isinstance(name, int)))
                ids = tuple(sorted(name for name in after if isinstance(name, str)))
                found.append(Submission(len(found) + 1, job, numbers, ids, needs(plan, cluster, job)))
        for one in found[len(found) - len(ready) :]:
            known[one.number] = one.job
            maker |= dict.fromkeys(one.job.keys, one.number)
        left = [job for job in left if job not in ready]
        if not ready:
            return Submissions(tuple(found), tuple(queued), tuple(left))


def _of_plan(note: Submitted, plan: Plan) -> tuple[tuple[str, ...], ...]:
    """The stages of a plan that a job, perhaps of another suite, makes."""
    units = (tuple(key for key in unit if key in plan.stages) for unit in note.units)
    return tuple(unit for unit in units if unit)


def cluster_option(jobs: Sequence[Submitted]) -> tuple[str, ...]:
    """The option with which `run` continues on the cluster of the newest of these jobs."""
    return ("--cluster", name_of(jobs[-1].cluster)) if jobs and jobs[-1].cluster else ()


# -- as text


def asks_text(asks: Resources) -> str:
    """`720 min, 8 CPUs, 1 GPU, 32 GB, partition gpu`."""
    parts = [f"{asks.time_min} min", _count(asks.cpus, "CPU")]
    parts += [_count(asks.gpus, "GPU")] if asks.gpus else []
    parts += [f"{asks.mem_gb:g} GB"] if asks.mem_gb is not None else []
    parts += [f"{asks.tasks} processes"] if asks.tasks > 1 else []
    names = {"partition": asks.partition, "account": asks.account, "qos": asks.qos}
    parts += [f"{name} {value}" for name, value in names.items() if value is not None]
    return ", ".join([*parts, *(f"{name}={value}" for name, value in asks.sbatch.items())])


def kinds_text(plan: Plan, units: Iterable[Sequence[str]]) -> str:
    """`train (3 in one pass), 3 predict, 3 evaluate`: what a job does, kind by kind."""
    counts: Counter[str] = Counter()
    passes: Counter[str] = Counter()
    for unit in units:
        kind = plan.stages[unit[0]].kind
        counts[kind] += len(unit)
        passes[kind] += 1
    parts = []
    for kind in sorted(counts, key=lambda kind: KINDS[kind].order):
        many = "" if passes[kind] == counts[kind] else f" in {_count(passes[kind], 'pass', 'passes')}"
        parts.append((f"{counts[kind]} {kind}" if counts[kind] > 1 else kind) + many)
    return ", ".join(parts)


def show(plan: Plan, found: Submissions, cluster: Cluster, name: str, console: Console) -> None:
    """The jobs one by one; of very many, how many of each shape."""

    def write(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    facts = LAUNCHERS[cluster.kind]
    mine = {key for note in found.queued for key in note.keys}
    if found.queued:
        ids = _some([note.id for note in found.queued])
        where = "in the queue" if found.sure else f"that may be in the queue (no {facts.title} answers here)"
        write(f"{_count(len(found.queued), 'job')} {where}: {ids}, for {_count(len(mine & set(plan.stages)), 'stage')}")
    arrays = Counter((one.after, one.queued, str(one.asks)) for one in found.jobs)
    several = sum(number > 1 for number in arrays.values()) if facts.makes_arrays else 0
    waiting = sum(bool(one.after or one.queued) for one in found.jobs)
    more = [f"{waiting} wait for others"] if waiting else []
    more += [f"alike ones in {_count(several, 'array')}"] if several else []
    if found.jobs:
        write(f"{_count(len(found.jobs), 'job')} to submit to {name}{': ' if more else ''}{', '.join(more)}")
        console.print(_table(plan, found, cluster) if len(found.jobs) <= LINES else _by_shape(plan, found))
    if found.later:
        write(f"{_count(len(found.later), 'job')} more once what another run does at this moment is done")


def _table(plan: Plan, found: Submissions, cluster: Cluster) -> Table:
    columns: dict[str, Callable[[Submission], str]] = {
        "job": lambda one: str(one.number),
        "waits for": lambda one: _some([*map(str, one.after), *one.queued]) or "-",
        "makes": lambda one: kinds_text(plan, one.job.units),
        "for": lambda one: _some(planning.labels(plan, one.job.keys)),
        "asks for": lambda one: asks_text(one.asks),
    }
    if not LAUNCHERS[cluster.kind].asks_resources:
        del columns["asks for"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns:
        table.add_column(title, justify="right" if title == "job" else "left", overflow="fold")
    for one in found.jobs:
        table.add_row(*(escape(text(one)) for text in columns.values()))
    return table


def _by_shape(plan: Plan, found: Submissions) -> Table:
    shapes = Counter((kinds_text(plan, one.job.units), asks_text(one.asks)) for one in found.jobs)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("jobs", "each makes", "and asks for"):
        table.add_column(title, justify="right" if title == "jobs" else "left", overflow="fold")
    for (kinds, asks), number in shapes.most_common():
        table.add_row(str(number), escape(kinds), escape(asks))
    return table


def to_json(found: Submissions) -> dict[str, Any]:
    """{jobs: [{number, after, queued, units, asks}], queued: [{id, units}], later: [units]}; units hold keys."""
    return {
        "jobs": [
            {
                "number": one.number, "after": list(one.after), "queued": list(one.queued),
                "units": [list(unit) for unit in one.job.units], "asks": one.asks.model_dump(mode="json"),
            }
            for one in found.jobs
        ],
        "queued": [{"id": note.id, "units": [list(unit) for unit in note.units]} for note in found.queued],
        "later": [[list(unit) for unit in job.units] for job in found.later],
    }  # fmt: skip


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _some(words: Sequence[str]) -> str:
    return ", ".join([*words[:SHOWN], f"{len(words) - SHOWN} more"] if len(words) > SHOWN else words)
