"""A plan beside a store: what there is to do and what the rest costs, which `plan`, `status` and `run` say. No torch.

An overview compares the two once; the texts and the JSON come from the same values.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.cli.readings import whole
from bench.cli.say import cell, estimate_text, listed, say, say_wrapped, size, span
from bench.cli.wanted import wanted
from bench.errors import UserError
from bench.key import digest
from bench.launch.local import Slots
from bench.launchers import LAUNCHERS
from bench.lineage import Finished
from bench.plan import forecast, planning
from bench.plan.cost import Estimate, Peak
from bench.plan.jobs import JobPlan, fused_groups, make_jobs
from bench.plan.planning import Plan, State
from bench.stage import KINDS, Stage
from bench.store.store import Store
from bench.suite.clusters import Cluster
from bench.suite.suite import Suite

STYLE: Mapping[State, str] = {
    "done": "green",
    "running": "cyan",
    "failed": "bold red",
    "partial": "yellow",
    "missing": "dim",
}
COMMAND = "python -m bench "
SHOWN = 6  # labels of a list that are spelt out
LINES = 150  # that somebody reads; a plan with more is summarised by kind


@dataclass(frozen=True)
class Overview:
    """A plan beside a store.

    Attributes:
        slots: how many jobs run at a time; None: not known here (a login node without the GPUs that jobs use).
    """

    plan: Plan
    store: Store
    states: dict[str, State]
    estimate: Estimate
    slots: int | None
    done: Mapping[str, Finished]  # the finished stages as they were when this overview was made
    fuse: bool = True

    @cached_property
    def missing(self) -> set[str]:
        return {key for key, state in self.states.items() if state != "done"}

    @cached_property
    def jobs(self) -> list[JobPlan]:
        """What makes the stages that are missing."""
        return make_jobs(self.plan, self.missing, self.estimate, fuse=self.fuse)

    @cached_property
    def jobs_of_all(self) -> list[JobPlan]:
        """What would make the whole plan."""
        return make_jobs(self.plan, self.plan.stages, self.estimate, fuse=self.fuse)

    def fused(self, kind: str = "train") -> list[tuple[str, ...]]:
        """The groups of stages that are missing and that one pass makes."""
        return fused_groups(self.plan, (), kind, found=self.jobs) if self.fuse else []

    @cached_property
    def wall(self) -> float | None:
        """Seconds until all is done; None where stages or slots are not known."""
        if self.slots is None:
            return None
        return forecast.wall_seconds(
            self.plan, self.missing, self.estimate, self.slots, fuse=self.fuse, waiting=self.jobs
        )

    def title(self) -> str:
        """How much there is, how much is done, and how long the rest takes."""
        p, missing = self.plan, self.missing
        rows = len({row.label for row in p.rows})
        seeds = len(p.suite.sections.seeds)
        done = len(p.stages) - len(missing)
        stages = f"{len(p.stages)} stages ({p.unshared} unshared), {done} done"
        head = f"{p.suite.name}: {rows} row{'s' * (rows > 1)} x {seeds} seed{'s' * (seeds > 1)} -> {stages}"
        if missing:
            slots = "slots unknown (no GPU here)" if self.slots is None else f"{self.slots} job"
            slots += "s" * (self.slots is not None and self.slots > 1)
            wall = "" if self.slots is None else f"{estimate_text(self.wall)} with "
            slots += " at a time" * (self.slots is not None)
            head += f"; {wall}{slots}, critical path {_critical_text(p, missing, self.estimate)}"
        return head

    def headline(self) -> list[str]:
        """The few lines that `run` and `plan` open with."""
        p, missing = self.plan, self.missing
        lines = [self.title(), f"  {self._trainings()}; {self._disk()}{self._memory()}"]
        shared = [s for s in p.stages.values() if s.kind == "train" and len(p.needed_by[s.key]) > 1]
        parts = [f"{p.needed_by[s.key][0]} by {len(p.needed_by[s.key])} rows" for s in shared if s.spec["phase"] == 0]
        parts = list(dict.fromkeys(parts))
        groups = self.fused()
        fused = list(dict.fromkeys(_shortened([p.needed_by[k][0] for k in group]) for group in groups))
        notes = [f"shared: {', '.join(parts)}"] if parts else []
        notes += [f"fused: {'; '.join(fused)}"] if fused else []
        lines += [f"  {'; '.join(notes)}"] if notes else []
        lines += [f"  {text}" for text in (self._predictions(), self._features()) if text]
        words = forecast.probe(p, missing, self.estimate)
        lines += [f"  time: measure it first: {forecast.probe_text(self._here(words))}"] if words else []
        lines += [f"  time: {self._declared()}"] if self._declared() else []
        lines += [f"  note: {note}" for note in p.notes]
        pulled = planning.pulled_in(p)
        lines += [f"  --only pulls in the training of: {', '.join(pulled)}"] if pulled else []
        lines += [f"  note: {note}" for note in p.suite.notes]
        skipped = {row.label: row.skipped for row in p.rows if row.skipped}
        lines += [f"  skipped: {label}: {reason}" for label, reason in skipped.items()]
        return lines

    def _here(self, words: list[str]) -> list[str]:
        """A command with the store that this overview is of."""
        return words if str(self.store.root) == "store" else [*words, "--store", str(self.store.root)]

    def _declared(self) -> str:
        """Where what is missing is estimated by the suite's declared seconds: of what machine, and times what."""
        measured_on = self.plan.suite.sections.cost.measured_on
        priced = (self.plan.stages[key] for key in self.missing if self.plan.stages[key].kind != "patch")
        declared = any(self.estimate(stage) is not None and not self.estimate.knows(stage) for stage in priced)
        pace = self.estimate.pace
        times = "" if pace == 1.0 else f", times {pace:.2f} as the trainings that are done took"
        return f"as declared, measured on {measured_on}{times}" if declared and measured_on != "-" else ""

    def _trainings(self) -> str:
        """`trainings: 4 for about 11 min (rows run singly: 12 for about 34 min)`."""
        found = forecast.passes(self.plan, self.estimate, found=self.jobs_of_all)
        together, alone = (
            f"{number}" if seconds is None else f"{number} in {span(seconds)}"
            for number, seconds in ((found.passes, found.seconds), (found.singly, found.singly_seconds))
        )
        return f"trainings: {together} (rows run singly: {alone})"

    def _disk(self) -> str:
        found = forecast.disk(self.plan, self.estimate, self.done)
        least = "at least " if found.unknown else "about " if self.missing else ""
        there = f" ({size(found.there)} there)" if self.missing and found.there else ""
        return f"disk: {least}{size(found.there + found.to_come)}{there}"

    def _memory(self) -> str:
        """`; memory: 1053 MB a job, 3.1 GB on its card`, of what is to be done, or where all is done of that."""
        found = self._peak()
        if found is None or not found.host:
            return ""
        return f"; memory: {size(found.host)} a job" + (f", {size(found.gpu)} on its card" if found.gpu else "")

    def _peak(self) -> Peak | None:
        return forecast.peak(self.plan, self.missing or self.plan.stages, self.estimate)

    def _predictions(self) -> str:
        """How many passes over the images make the predictions that are missing."""
        keys = [key for key in self.missing if self.plan.stages[key].kind == "predict"]
        groups = self.fused("predict")
        passes = len(keys) - sum(len(group) - 1 for group in groups)
        return f"predictions: {len(keys)} in {passes} passes over {self.plan.suite.measured_on}" if groups else ""

    def _features(self) -> str:
        """What is kept for later post-hoc rows."""
        kept = [stage for stage in self.plan.stages.values() if KINDS[stage.kind].cache]
        if not kept:
            return ""
        sizes = [self._size(stage) for stage in kept]
        total = "of unknown size" if None in sizes else size(sum(size or 0.0 for size in sizes))
        rows = len({label for stage in kept for label in self.plan.needed_by[stage.key]})
        return f"features of {self.plan.suite.measured_on} kept for {rows} post-hoc rows, and rows to come: {total}"

    def _size(self, stage: Stage) -> float | None:
        done = self.done.get(stage.key)
        return sum(done.sizes.values()) / 1e6 if done else self.estimate.megabytes(stage)

    def print_headline(self, console: Console) -> None:
        """The lines that `run` and `plan` open with; a command in them stays one line, to be copied."""
        for line in self.headline():
            (say if COMMAND in line else say_wrapped)(console, line)

    def print(self, console: Console) -> None:
        """`plan`: every unique stage; of several seeds, one line for what is the same stage in each."""
        self.print_headline(console)
        groups = self.alike()
        console.print(self._table(groups) if len(groups) <= LINES else self.by_kind())

    def _table(self, groups: Sequence[Sequence[str]]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("stage", "key", "needed by", "state", "seconds"):
            table.add_column(name, justify="right" if name == "seconds" else "left", overflow="fold")
        for keys in groups:
            first = self.plan.stages[keys[0]]
            table.add_row(
                first.kind,
                first.key[:6] if len(keys) == 1 else f"{first.key[:6]} +{len(keys) - 1}",
                cell(_shortened(planning.labels(self.plan, keys), ", ")),
                self.counted(keys),
                self.seconds(keys),
            )
        return table

    def by_kind(self) -> Table:
        """One line per kind, where there are too many stages to read. The seconds are those of the passes."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("stage", "stages", "passes", "state", "seconds of all"):
            table.add_column(name, justify="left" if name in ("stage", "state") else "right")
        for kind in KINDS:
            keys = [key for key, stage in self.plan.stages.items() if stage.kind == kind]
            if keys:
                found = forecast.passes(self.plan, self.estimate, kind, found=self.jobs_of_all)
                seconds = "-" if found.seconds is None else f"~{found.seconds:.0f}"
                table.add_row(kind, str(len(keys)), str(found.passes), self.counted(keys), seconds)
        table.caption = "every stage: --json"
        return table

    def to_json(self) -> dict[str, Any]:
        """{"stages": [{key, kind, rows, state, seconds, mb}], ...}; seconds and MB: measured, else estimated, or None.

        The seconds of a stage that was made in one pass with others are those of the pass; `pass_of` says of how many.
        """
        stages = [
            {
                "key": key, "kind": stage.kind, "rows": list(self.plan.needed_by[key]), "state": self.states[key],
                "seconds": self._number(stage), "pass_of": self._pass_of(stage), "mb": _rounded(self._size(stage)),
                "inputs": {n: s.key for n, s in stage.inputs.items()},
            }
            for key, stage in self.plan.stages.items()
        ]  # fmt: skip
        disk = forecast.disk(self.plan, self.estimate, self.done)
        peak = self._peak()
        return {
            "suite": self.plan.suite.name,
            "stages": stages,
            "unshared": self.plan.unshared,
            "done": len(self.plan.stages) - len(self.missing),
            "fused": [list(group) for group in self.fused()],
            "seconds": self.wall,
            "slots": self.slots,
            "critical_path_seconds": forecast.critical_path(self.plan, self.missing, self.estimate),
            "trainings": asdict(forecast.passes(self.plan, self.estimate, found=self.jobs_of_all)),
            "predictions": asdict(forecast.passes(self.plan, self.estimate, "predict", found=self.jobs_of_all)),
            "disk_mb": {name: round(value, 2) for name, value in asdict(disk).items()},
            "memory_mb": None if peak is None else asdict(peak),
            "probe": forecast.probe(self.plan, self.missing, self.estimate),
            "notes": list(self.plan.notes),
            "skipped": {row.label: row.skipped for row in self.plan.rows if row.skipped},
        }

    def _number(self, stage: Stage) -> float | None:
        done = self.done.get(stage.key)
        value = done.seconds if done else self.estimate(stage)
        return None if value is None else round(value, 2)

    def _pass_of(self, stage: Stage) -> int:
        done = self.done.get(stage.key)
        return (whole(done.extra.get("fused")) or 1) if done else 1

    def alike(self) -> list[list[str]]:
        """Stages that differ in the seed alone, in the plan's order."""
        seeds = len(self.plan.suite.sections.seeds)
        groups: dict[Any, list[str]] = defaultdict(list)
        for key, stage in self.plan.stages.items():
            # Which of a row's trainings it is: the stages of two seeds answer to one place in the row's lineage.
            place = (stage.kind, self.plan.needed_by[key], stage.spec.get("phase"), stage.spec.get("split"))
            shape = digest({n: v for n, v in stage.spec.items() if n != "seed"}) if seeds > 1 else key
            groups[place, shape].append(key)
        return list(groups.values())

    def counted(self, keys: Sequence[str]) -> str:
        counted = Counter(self.states[key] for key in keys)
        if len(keys) == 1:
            return f"[{STYLE[self.states[keys[0]]]}]{self.states[keys[0]]:<8}[/]"
        return ", ".join(f"[{STYLE[state]}]{counted[state]} {state}[/]" for state in STYLE if state in counted)

    def seconds(self, keys: Sequence[str]) -> str:
        """`12`; `~12` where some of it is an estimate; `12 (pass of 3)` of a pass that made three stages."""
        stages = [self.plan.stages[key] for key in keys]
        values = [self._number(stage) for stage in stages]
        if None in values:
            return "-"
        about = "" if all(self.states[key] == "done" for key in keys) else "~"
        several = max(self._pass_of(stage) for stage in stages)
        return f"{about}{sum(value or 0.0 for value in values):.0f}" + (f" (pass of {several})" if several > 1 else "")


def _shortened(labels: Sequence[str], joint: str = " + ") -> str:
    """A list of labels, of which the first few are spelt out."""
    return listed(labels, SHOWN if len(labels) > SHOWN + 1 else len(labels), joint)  # never `1 more`


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def compare(plan: Plan, store: Store, slots: int | None, *, fuse: bool = True) -> Overview:
    """An overview of a plan and a store."""
    once = planning.CachedStore(store)
    states = planning.states(plan, once)
    done = {key: found for key, state in states.items() if state == "done" and (found := once.done(key)) is not None}
    return Overview(plan, store, states, planning.learned(plan, once), slots, done, fuse)


def overview(
    suite: Suite, store_path: Path, *, jobs: int | None = None, fuse: bool = True, cluster: Cluster | None = None
) -> Overview:
    """What `plan` and `status` show."""
    return compare(wanted(suite, store_path), Store(store_path), slots_of(suite, jobs, cluster), fuse=fuse)


def slots_of(suite: Suite, jobs: int | None, cluster: Cluster | None = None) -> int | None:
    """How many jobs run at a time; None on a machine without the GPUs that jobs use."""
    if cluster is not None and LAUNCHERS[cluster.kind].asks_resources:
        return min(jobs or cluster.array_parallelism, cluster.array_parallelism)
    with contextlib.suppress(UserError):  # a login node; `run` refuses there
        return Slots(suite.sections.machine, jobs).count
    return jobs


def _critical_text(plan: Plan, missing: set[str], estimate: Estimate) -> str:
    """Of the critical path: `6 min`, or `-`."""
    path = forecast.critical_path(plan, missing, estimate)
    return "-" if path is None else estimate_text(path).removeprefix("about ")
