"""The jobs that `run --cluster` would submit now, and how `plan --cluster` shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.cli.overview import Overview
from bench.cli.say import cell, count, listed, say
from bench.launch import submission, submitted
from bench.launch.launcher import NoAnswer
from bench.launch.places import alive
from bench.launch.submission import Submission, Submissions
from bench.launchers import LAUNCHERS
from bench.plan import planning
from bench.plan.jobs import make_jobs
from bench.plan.planning import Plan
from bench.stage import KINDS
from bench.suite.clusters import Cluster, Resources

LINES = 40  # jobs that are shown one by one
SHOWN = 4  # rows, or jobs, of a list that are spelt out


def of(view: Overview, cluster: Cluster) -> Submissions:
    """The jobs that `run --cluster` would submit now."""
    notes = submitted.by_kind(submitted.of(view.store.root, view.missing)).get(cluster.kind, [])
    try:
        queued, sure = alive(notes), True
    except NoAnswer:
        queued, sure = notes, False
    made_by = {key: note.id for note in queued for key in note.keys}
    done = view.plan.stages.keys() - view.missing
    mine = {key for key in view.missing if key not in made_by and view.states[key] != "running"}
    jobs = make_jobs(view.plan, mine, view.estimate, fuse=view.fuse, done=done, made_by=made_by)
    return replace(submission.submissions(view.plan, cluster, jobs, done, queued), sure=sure)


def show(plan: Plan, found: Submissions, cluster: Cluster, name: str, console: Console) -> None:
    """The jobs one by one; of very many, how many of each shape."""
    facts = LAUNCHERS[cluster.kind]
    mine = {key for note in found.queued for key in note.keys}
    if found.queued:
        ids = listed([note.id for note in found.queued], SHOWN)
        where = "in the queue" if found.sure else f"that may be in the queue (no {facts.title} answers here)"
        say(
            console,
            f"{count(len(found.queued), 'job')} {where}: {ids}, for {count(len(mine & set(plan.stages)), 'stage')}",
        )
    arrays = Counter((one.after, one.queued, str(one.asks)) for one in found.jobs)
    several = sum(number > 1 for number in arrays.values()) if facts.makes_arrays else 0
    waiting = sum(bool(one.after or one.queued) for one in found.jobs)
    more = [f"{waiting} wait for others"] if waiting else []
    more += [f"alike ones in {count(several, 'array')}"] if several else []
    if found.jobs:
        say(console, f"{count(len(found.jobs), 'job')} to submit to {name}{': ' if more else ''}{', '.join(more)}")
        console.print(_table(plan, found, cluster) if len(found.jobs) <= LINES else _by_shape(plan, found))
    if found.later:
        say(console, f"{count(len(found.later), 'job')} more once what another run does at this moment is done")


def _table(plan: Plan, found: Submissions, cluster: Cluster) -> Table:
    columns: dict[str, Callable[[Submission], str]] = {
        "job": lambda one: str(one.number),
        "waits for": lambda one: listed([*map(str, one.after), *one.queued], SHOWN) or "-",
        "makes": lambda one: kinds_text(plan, one.job.units),
        "for": lambda one: listed(planning.labels(plan, one.job.keys), SHOWN),
        "asks for": lambda one: asks_text(one.asks),
    }
    if not LAUNCHERS[cluster.kind].asks_resources:
        del columns["asks for"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns:
        table.add_column(title, justify="right" if title == "job" else "left", overflow="fold")
    for one in found.jobs:
        table.add_row(*(cell(text(one)) for text in columns.values()))
    return table


def _by_shape(plan: Plan, found: Submissions) -> Table:
    shapes = Counter((kinds_text(plan, one.job.units), asks_text(one.asks)) for one in found.jobs)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("jobs", "each makes", "and asks for"):
        table.add_column(title, justify="right" if title == "jobs" else "left", overflow="fold")
    for (kinds, asks), number in shapes.most_common():
        table.add_row(str(number), cell(kinds), cell(asks))
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


def asks_text(asks: Resources) -> str:
    """`720 min, 8 CPUs, 1 GPU, 32 GB, partition gpu`."""
    parts = [f"{asks.time_min} min", count(asks.cpus, "CPU")]
    parts += [count(asks.gpus, "GPU")] if asks.gpus else []
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
        many = "" if passes[kind] == counts[kind] else f" in {count(passes[kind], 'pass', 'passes')}"
        parts.append((f"{counts[kind]} {kind}" if counts[kind] > 1 else kind) + many)
    return ", ".join(parts)
