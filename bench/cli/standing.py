"""Where each stage stands, as values and as lines. Separate from overview.py, which says what there is to do.

All of it is read from the store (done files, leases, event files, notes of submitted jobs), so that it needs no driver
and no GPU; where jobs are queued, their queue is asked how they are, if it answers.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.text import Text

from bench.cli.overview import LINES, STYLE, Overview
from bench.cli.progress import TAIL_BYTES, Ticks, name_of
from bench.cli.readings import clock_time, number, whole
from bench.cli.say import LINE, clock, line
from bench.environment import job_of
from bench.errors import parsed, printable
from bench.launch import submitted
from bench.launch.launcher import NoAnswer, QueueEntry
from bench.launch.places import queue_of
from bench.launch.submission import cluster_option
from bench.launch.submitted import Submitted
from bench.launchers import facts_of
from bench.plan import planning
from bench.stage import KINDS
from bench.store.events import read_events

FIRST = ("running", "failed", "queued", "partial", "missing", "done")  # what is not done comes first
STYLES: dict[str, str] = {**{str(state): style for state, style in STYLE.items()}, "queued": "magenta"}
STATE = 9  # characters of the column of states: "2 missing" too
EACH = 15  # lines of one state, where the rest is summarised


@dataclass(frozen=True)
class StageStatus:
    """Where one stage stands.

    Attributes:
        state: that of bench.plan.planning.State, or "queued": handed to a cluster.
        attempt: number of the newest; 0 without one.
        host: where it runs or ran, and `pid` while it runs.
        job: of a cluster.
        step, total: of the newest attempt.
        rate: steps per second; left: seconds.
        seconds: of a finished stage; of a pass that made several: of the pass, and `pass_of` says of how many.
        host_mb, gpu_mb: most memory that its process, and torch on its card, had.
        error: why it failed last, one sentence.
    """

    key: str
    state: str
    attempt: int = 0
    host: str = ""
    pid: int = 0
    job: str = ""
    step: int | None = None
    total: int | None = None
    rate: float | None = None
    left: float | None = None
    seconds: float | None = None
    pass_of: int = 1
    host_mb: float | None = None
    gpu_mb: float | None = None
    error: str = ""


class StatusTable:
    """The standings of a plan's stages at one moment."""

    def __init__(self, view: Overview) -> None:
        self.view, self._store = view, view.store
        self._ticks = Ticks(view.store)
        notes = submitted.of(view.store.root, view.missing, ended=True) if view.missing else []
        self._note = {key: note for note in notes for key in note.keys}  # the newest: they come oldest first
        self._seen = _asked([note for note in notes if not note.ended])
        self.states = {key: self._state(key) for key in view.plan.stages}

    def _state(self, key: str) -> str:
        state = self.view.states[key]
        note = self._note.get(key)
        if state in ("done", "running") or note is None or note.ended:
            return state
        seen = self._seen.get(note.id)
        return "queued" if note.id not in self._seen or (seen and seen.phase in ("waiting", "running")) else state

    def of(self, key: str) -> StageStatus:
        """All that is known of one stage; reads its event file unless it is done."""
        state, done = self.states[key], self.view.done.get(key)
        if state == "done" and done is not None:
            environment: Any = getattr(done, "environment", {})
            extra = done.extra
            return StageStatus(
                key, state, int(getattr(done, "attempt", 0)), str(environment.get("host") or ""),
                job=str(job_of(environment)[1].get("job", "")), seconds=done.seconds,
                pass_of=whole(extra.get("fused")) or 1, host_mb=number(extra.get("host_mb")),
                gpu_mb=number(extra.get("gpu_mb")),
            )  # fmt: skip
        attempts, note = self._store.attempts(key), self._note.get(key)
        first, last = _ends(attempts[-1] / "events.jsonl") if attempts else ({}, {})
        tick = self._ticks.of(key)
        owner = self._store.running(key) if state == "running" else None
        running = state == "running" and tick is not None
        return StageStatus(
            key, state, len(attempts) and int(attempts[-1].name), owner.host if owner else str(first.get("host", "")),
            owner.pid if owner else 0, note.id if note and state in ("running", "queued") else "",
            tick.step if tick else None, tick.total if tick else None,
            tick.rate if tick and running else None, tick.left if tick and running else None,
            host_mb=tick.host_mb if tick else None, gpu_mb=tick.gpu_mb if tick else None,
            error=self._error(key, state, last),
        )  # fmt: skip

    def _error(self, key: str, state: str, last: dict[str, Any]) -> str:
        note = self._note.get(key)
        if state == "queued" and note is not None:
            seen = self._seen.get(note.id)
            if seen is None:
                return f"{facts_of(note.kind).title} was not asked"
            reason = seen.reason or ("what comes before it in this job" if seen.phase == "running" else "")
            return f"{seen.state.lower()}: {reason}".rstrip(": ")
        failure = self._store.failure(key) if state in ("failed", "partial", "missing") else None
        if failure is not None:
            return failure.error.splitlines()[0]
        if state == "partial" and note is not None and note.ended not in ("", "COMPLETED"):
            return f"job {note.id} ended: {note.ended}"
        if state == "partial" and last and last.get("event") != "end":
            return f"its process ended without a word after {_hour(last)}: killed, or its machine went down"
        return str(last.get("error") or "") if state == "partial" else ""

    def passes(self, keys: Iterable[str]) -> list[list[str]]:
        """The stages that one pass makes, or made, and that stand alike, together."""
        unit_of = self._unit_of
        groups: dict[Any, list[str]] = defaultdict(list)
        for key in keys:
            unit, owner = unit_of.get(key, (key,)), None
            if len(unit) > 1 and self.states[key] == "running" and (info := self._store.running(key)) is not None:
                owner = (info.host, info.pid, info.start)
            groups[unit, self.states[key], owner].append(key)
        return list(groups.values())

    @cached_property
    def _unit_of(self) -> dict[str, tuple[str, ...]]:
        jobs = self.view.jobs_of_all if self.view.fuse else []
        return {key: unit for job in jobs for unit in job.units for key in unit}

    # -- as text

    def lines(self, most: int = LINES) -> list[Text]:
        """`status`: the title, and one line per stage or pass; of more than `most`, a summary with what is not done
        first."""
        groups = self.view.alike()
        title, last = [line(self.view.title())], [Text(printable(text), style="dim") for text in self._next()]
        if len(groups) > most:
            return [*title, *self._summary(), *last]
        lines: list[Text] = []
        rest: list[str] = []
        for keys in groups:
            if len(keys) > 1 and {self.states[key] for key in keys} <= {"done", "missing"}:
                lines += [self._line(group) for group in self.passes(rest)]
                rest = []
                lines.append(self._several(keys))
            else:
                rest += keys
        return [*title, *lines, *(self._line(group) for group in self.passes(rest)), *last]

    def _next(self) -> list[str]:
        """What one may want to type now."""
        plan, root = self.view.plan, self._store.root
        failed = planning.labels(plan, [key for key, state in self.states.items() if state == "failed"])
        notes = sorted(self._note.values(), key=lambda note: note.time)
        run = plan.suite.command(plan.suite.verb, root, *cluster_option(notes))
        if failed:
            more = f" (and {len(failed) - 1} rows more)" if len(failed) > 1 else ""
            return [f"{failed[0]} failed{more}: {plan.suite.command('logs', root, failed[0])}", f"try again: {run}"]
        if {"running", "queued"} & set(self.states.values()):
            return []
        if not self.view.missing:
            return [f"the table: {plan.suite.command('report', root)}"]
        none = "" if root.exists() else f" (there is no folder {root} yet)"
        begun = set(self.states.values()) - {"missing"}
        return [f"nothing of it is at work; go on: {run}" if begun else f"start it: {run}{none}"]

    def _several(self, keys: Sequence[str]) -> Text:
        """A stage of several seeds, none of which is at work."""
        counted = Text.from_markup(self.view.counted(keys).rstrip())
        counted.append(" " * max(0, STATE - len(counted)))
        return counted.append(
            f"  {name_of(self.view.plan, keys[0])} (+{len(keys) - 1} seeds)  {self.view.seconds(keys)} s"
        )

    def _line(self, keys: Sequence[str]) -> Text:
        """Of a pass: the stage that has most steps left."""
        found = [self.of(key) for key in keys] if self.states[keys[0]] == "running" else [self.of(keys[0])]
        shown = max(found, key=lambda s: (s.total or 0) - (s.step or 0))
        state = Text(f"{self._state_text(shown):<{STATE}}", style=STYLES[shown.state])
        text = f" {name_of(self.view.plan, shown.key)}{_more(keys)}  {_details(shown)}".rstrip()
        return state.append(printable(text, LINE), style="default")

    def _state_text(self, shown: StageStatus) -> str:
        """The state; "waits" for "missing" where others are at work and what it is made from is not done yet."""
        inputs = self.view.plan.stages[shown.key].inputs.values()
        if shown.state == "missing" and self._at_work and any(self.states[i.key] != "done" for i in inputs):
            return "waits"
        return shown.state

    @cached_property
    def _at_work(self) -> bool:
        return bool({"running", "queued"} & set(self.states.values()))

    def _summary(self) -> list[Text]:
        """What is at work or has failed, as far as anybody reads; how much of each kind is in which state."""
        by_state: dict[str, list[str]] = defaultdict(list)
        for key, state in self.states.items():
            by_state[state].append(key)
        lines = []
        for state in ("running", "failed", "partial"):
            groups = self.passes(by_state[state]) if by_state[state] else []
            lines += [self._line(group) for group in groups[:EACH]]
            if len(groups) > EACH:
                lines.append(Text(f"{state:<8} ... and {len(groups) - EACH} more", style=STYLES[state]))
        kind_of = {key: stage.kind for key, stage in self.view.plan.stages.items()}
        for state in FIRST:
            for kind in KINDS:
                count = sum(kind_of[key] == kind for key in by_state[state])
                if count:
                    lines.append(
                        Text(f"{state:<8}", style=STYLES[state]).append(f" {kind:<8} {count:>6}", style="default")
                    )
        return lines

    def to_json(self) -> dict[str, Any]:
        """{suite, done, slots, stages: [a StageStatus with kind, rows and inputs]}. All stages, however many."""
        plan = self.view.plan
        stages = [
            {
                **asdict(self.of(key)), "kind": stage.kind, "rows": list(plan.needed_by[key]),
                "inputs": {name: source.key for name, source in stage.inputs.items()},
            }
            for key, stage in plan.stages.items()
        ]  # fmt: skip
        done = sum(state == "done" for state in self.states.values())
        return {"suite": plan.suite.name, "done": done, "slots": self.view.slots, "stages": stages}


def _asked(notes: Sequence[Submitted]) -> dict[str, QueueEntry | None]:
    """How queued jobs are; without those whose queue does not answer."""
    found: dict[str, QueueEntry | None] = {}
    for kind, jobs in submitted.by_kind(notes).items():
        with contextlib.suppress(NoAnswer):
            found |= queue_of(kind).ask(jobs)
    return found


def _details(s: StageStatus) -> str:
    parts = []
    if s.state == "done":
        seconds = f"{s.seconds or 0:.0f} s" + (f" for a pass of {s.pass_of}" if s.pass_of > 1 else "")
        parts += [seconds, *([f"attempt {s.attempt}"] if s.attempt > 1 else []), s.host]
    else:
        where = f"{s.host}:{s.pid}" if s.pid else s.host
        parts += [f"attempt {s.attempt}" if s.attempt else "", where, f"job {s.job}" if s.job else ""]
        parts += [f"step {s.step}/{s.total}"] if s.step is not None else []
        parts += [f"{s.rate:.1f} step/s"] if s.rate else []
        parts += [f"{clock(s.left)} left"] if s.left is not None else []
    parts += [f"{s.host_mb:.0f} MB"] if s.host_mb else []
    parts += [f"{s.gpu_mb:.0f} MB on its card"] if s.gpu_mb else []
    return "  ".join(part for part in [*parts, s.error] if part)


def _more(keys: Sequence[str]) -> str:
    return f" (+{len(keys) - 1} in the same pass)" if len(keys) > 1 else ""


def _ends(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first and the last event of an attempt."""
    try:
        with path.open("rb") as file:
            head = parsed(file.readline())
    except (OSError, ValueError):
        return {}, {}
    found = read_events(path, max(0, path.stat().st_size - TAIL_BYTES))[0]
    return head if isinstance(head, dict) else {}, found[-1] if found else {}


def _hour(event: dict[str, Any]) -> str:
    return clock_time(event, "%Y-%m-%d %H:%M:%S")
