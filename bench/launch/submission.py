"""What a run submits to a cluster: its jobs, their stages, dependencies and resources.

Separate from the loop that submits (bench/launch/loop.py) and from the queues: `plan --cluster` prints the same
(bench/cli/submissions.py) on a machine without a queue.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bench.launch.submitted import Submitted
from bench.lineage import asides_of
from bench.plan.jobs import JobPlan
from bench.plan.planning import Plan
from bench.stage import KINDS, walk
from bench.suite.clusters import Cluster, Resources, joined, name_of

T = TypeVar("T")


class Dependencies:
    """Which jobs a job has to wait for. Caches the stages below each."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._below: dict[tuple[tuple[str, ...], ...], set[str]] = {}

    def below(self, job: JobPlan) -> set[str]:
        """All that must be done before a job can start: what it reads from other jobs, and all below that (a model is
        assembled along its lineage: a finished classifier cannot be used while the trunk below it is made again).

        And the images that every row made of it is evaluated on: a set that is refused stops trainings that it makes
        pointless.
        """
        if job.units not in self._below:
            stages = [self._plan.stages[key] for key in job.keys]
            found = {stage.key for stage in walk(*(source for one in stages for source in one.inputs.values()))}
            found |= {key for one in stages if one.inputs for key in self._plan.images_of[one.key]}
            self._below[job.units] = found - set(job.keys)
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


def asides(plan: Plan, job: JobPlan) -> dict[str, Mapping[str, Any]]:
    """What a job needs that is in no key: it gets that from its submission, never from the store."""
    return asides_of(*(plan.stages[key] for key in job.keys))


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
