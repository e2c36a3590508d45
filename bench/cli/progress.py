"""What a run looks like in a terminal. Separate from the loop, which decides: this reads event files and draws."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from bench.cli.readings import number, whole
from bench.cli.say import clock, line
from bench.launch.loop import Progress
from bench.plan import forecast, planning
from bench.plan.planning import Plan
from bench.stage import KINDS, Stage
from bench.store.events import read_events
from bench.store.store import Store

BAR = 10  # characters
PLAIN_SECONDS = 15.0  # between two progress lines of one stage where there is no terminal
WHOLE_SECONDS = 60.0  # between two lines about the whole
TAIL_BYTES = 4096  # the newest progress line lies within


@dataclass(frozen=True)
class StepProgress:
    """The newest progress line of a stage."""

    step: int
    total: int
    loss: float | None
    rate: float | None  # steps a second
    left: float | None  # seconds
    host_mb: float | None = None  # most memory so far, of the process and on its card
    gpu_mb: float | None = None


class Ticks:
    """Reads the newest progress of stages, and their rate from the last lines (a minute or so)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, key: str) -> StepProgress | None:
        """None where the stage has not said anything yet."""
        attempts = self._store.attempts(key)
        if not attempts:
            return None
        path = attempts[-1] / "events.jsonl"
        start = max(0, path.stat().st_size - TAIL_BYTES) if path.exists() else 0
        said = [event for event in read_events(path, start)[0] if event.get("event") == "progress"]
        found = [(event, at) for event in said if (at := _at(event)) is not None]
        if not found:
            return None
        (_, begun), (last, end) = found[0], found[-1]
        rate = (
            (end.step - begun.step) / (end.time - begun.time)
            if end.time > begun.time and end.step > begun.step
            else None
        )
        left = (end.total - end.step) / rate if rate else None
        values = last.get("values")
        loss = number(values.get("loss")) if isinstance(values, dict) else None
        return StepProgress(
            end.step, end.total, loss, rate, left, number(last.get("host_mb")), number(last.get("gpu_mb"))
        )


class _At(NamedTuple):
    step: int
    total: int
    time: float


def _at(event: Mapping[str, Any]) -> _At | None:
    """Where a progress line stands; None of one that does not say it."""
    step, total, when = whole(event.get("step")), whole(event.get("total")), number(event.get("time"))
    return None if step is None or total is None or when is None else _At(step, total, when)


class Display:
    """Shows a run: a live block in a terminal, plain lines elsewhere. A context manager."""

    def __init__(
        self, plan: Plan, store: Store, console: Console, above: Callable[[], RenderableType | None] | None = None
    ) -> None:
        self._plan, self._store, self._console, self._above = plan, store, console, above
        self._ticks = Ticks(store)
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._shown: dict[str, float] = {}
        self._done: set[str] | None = None
        self._noted = 0
        self._queue = ""
        self._missing: set[str] | None = None
        self._left_s: float | None = None
        self._left_at = 0.0  # when that was reckoned
        self._said_all = time.monotonic()  # when the whole was last said, where there is no terminal
        self._stopping = False
        self._begun = time.monotonic()
        self._estimate = planning.learned(plan, store)

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, progress: Progress) -> None:
        """Draw what changed."""
        self._finished(progress)
        claimed = progress.elsewhere.union(*(running.job.keys for running in progress.running))
        active = self._passes([k for k in self._plan.stages if k in claimed and self._active(k, progress)], progress)
        if self._live:
            head = self._above() if self._above else None
            lines: list[RenderableType] = [] if head is None else [head]
            lines += [self._line(group, progress) for group in active]
            self._live.update(Group(*lines, self._footer(progress)), refresh=True)
        else:
            self._plain(active, progress)

    def _active(self, key: str, progress: Progress) -> bool:
        return key not in progress.done and self._store.running(key) is not None

    def _finished(self, progress: Progress) -> None:
        if self._done is None:
            self._done = set(progress.done)
        for key in self._plan.stages:
            if key in progress.done and key not in self._done:
                done = self._store.done(key)
                seconds = f"{done.seconds:.0f} s" if done else ""
                self._done.add(key)
                count = f"[{len(self._done)}/{len(self._plan.stages)}]"
                self._console.print(line(f"done   {name_of(self._plan, key)}  {seconds}  {count}", style="green"))
        for key, outcome in progress.failed.items():
            if key not in self._shown or self._shown[key] >= 0:
                failed = line(f"FAILED {name_of(self._plan, key)}: {outcome.message}", style="bold red")
                self._console.print(failed, soft_wrap=True)
                self._shown[key] = -1.0
        for note in progress.notes[self._noted :]:
            self._console.print(line(note, style="yellow"), soft_wrap=True)
        self._noted = len(progress.notes)

    def _passes(self, active: list[str], progress: Progress) -> list[list[str]]:
        """The stages of each pass, the one that stands for it first: of 24 heads in one pass, one line."""
        unit_of = {key: unit for running in progress.running for unit in running.job.units for key in unit}
        groups: dict[tuple[str, ...], list[str]] = {}
        for key in active:
            groups.setdefault((key,) if key in progress.elsewhere else unit_of[key], []).append(key)
        return [sorted(group, key=self._total, reverse=True) for group in groups.values()]

    def _total(self, key: str) -> int:
        """Steps in all; of heads with schedules of their own, the longest says when the pass ends. It does not change
        from one look to the next, so that a pass has one name throughout."""
        tick = self._ticks.of(key)
        return tick.total if tick else 0

    def _line(self, group: list[str], progress: Progress) -> Text:
        key, others = group[0], len(group) - 1
        tick = self._ticks.of(key)
        text = name_of(self._plan, key) + (f" (+{others} in the same pass)" if others else "")
        owner = self._store.running(key) if key in progress.elsewhere else None
        whose = [f"(another run does it, on {owner.host})"] if owner else []
        if tick is None:
            return line("  ".join([text, *(whose or ["starting"])]))
        filled = min(BAR, max(0, round(BAR * tick.step / max(tick.total, 1))))
        bar = "#" * filled + "." * (BAR - filled)
        parts = [f"{text}  [{bar}] {tick.step}/{tick.total}"]
        parts += [f"loss {tick.loss:.2f}"] if tick.loss is not None else []
        parts += [f"{tick.rate:.1f} step/s"] if tick.rate else []
        parts += [f"{clock(tick.left)} left"] if tick.left is not None else []
        return line("  ".join([*parts, *whose]))

    def _footer(self, progress: Progress) -> Text:
        lost = self._lost(progress)
        missing = {key for key in self._plan.stages if key not in progress.done and key not in lost}
        total = len(self._plan.stages)
        if missing != self._missing:  # to lay out ten thousand stages takes longer than a turn
            self._missing = missing
            self._left_s = forecast.wall_seconds(self._plan, missing, self._estimate, progress.slots)
            self._left_at = time.monotonic()
        left = self._left(progress)
        about = f", about {clock(left)} left" if left else ""
        stop = "  stopping: saving" if progress.stopping else ""
        stop += f"  jobs: {progress.queue}" if progress.queue else ""
        elapsed = clock(time.monotonic() - self._begun)
        failed = f", {len(lost)} failed or waiting for one that did" if lost else ""
        count = total - len(missing) - len(lost)
        return Text(f"{count}/{total} stages{failed}  {elapsed}{about}{stop}", style="dim")

    def _left(self, progress: Progress) -> float | None:
        """Seconds: what was reckoned when a stage last ended, less what has passed since, but no less than a stage that
        is at work takes."""
        if self._left_s is None:
            return None
        at_work = [tick.left for one in progress.running for key in one.job.keys if (tick := self._ticks.of(key))]
        since = time.monotonic() - self._left_at
        return max(self._left_s - since, *(left for left in at_work if left is not None), 0.0)

    def _lost(self, progress: Progress) -> set[str]:
        """What failed, and what is made from it: this run does not make them any more."""
        lost = set(progress.failed)
        if lost:
            for key, stage in self._plan.stages.items():  # inputs come before consumers
                if key not in progress.done and any(source.key in lost for source in stage.inputs.values()):
                    lost.add(key)
        return lost

    def _plain(self, active: list[list[str]], progress: Progress) -> None:
        now = time.monotonic()
        if progress.stopping and not self._stopping:
            self._console.print(line("stopping: what is at work saves first"))
        self._stopping = progress.stopping
        if progress.queue not in ("", self._queue):
            self._console.print(line(f"jobs: {progress.queue}"), soft_wrap=True)
        self._queue = progress.queue
        for group in active:
            name = min(group)  # of the pass, whichever of its stages comes first
            if now - self._shown.get(name, -PLAIN_SECONDS) >= PLAIN_SECONDS:
                self._shown[name] = now
                self._console.print(self._line(group, progress), soft_wrap=True)
        if active and now - self._said_all >= WHOLE_SECONDS:
            self._said_all = now
            self._console.print(self._footer(progress), soft_wrap=True)
        sys.stdout.flush()


def name_of(plan: Plan, key: str) -> str:
    """`train  baseline  3f2a91`: kind, the row it is made for, six digits of the key."""
    stage = plan.stages[key]
    return f"{stage.kind:<8} {_label(plan, stage):<14} {key[:6]}"


def _label(plan: Plan, stage: Stage) -> str:
    """The row that names a stage: the first that needs it; the split for data; the seed where there are several."""
    named_by = KINDS[stage.kind].named_by
    text = plan.needed_by[stage.key][0] if named_by is None else str(stage.spec[named_by])
    several = len(plan.suite.sections.seeds) > 1 and stage.key in plan.seed_of
    return f"{text} s{plan.seed_of[stage.key]}" if several else text
