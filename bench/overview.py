"""What `plan`, `status` and `why` say. Separate from commands.py because it is all about wording; no torch.

An overview compares a plan with a store once; the texts and the JSON come from the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench import plan as planning
from bench.errors import UserError
from bench.key import canonical, digest
from bench.plan import Estimate, Plan, State
from bench.progress import Ticks, clock, name_of, summary_estimate
from bench.stage import Stage
from bench.store import Store

STYLE: Mapping[str, str] = {
    "done": "green",
    "running": "cyan",
    "failed": "bold red",
    "partial": "yellow",
    "missing": "dim",
}


@dataclass(frozen=True)
class Overview:
    """A plan beside a store."""

    plan: Plan
    store: Store
    states: dict[str, State]
    estimate: Estimate
    slots: int
    fuse: bool = True

    @property
    def missing(self) -> set[str]:
        return {key for key, state in self.states.items() if state != "done"}

    def headline(self) -> list[str]:
        """The two or three lines that `run` and `plan` open with."""
        p, missing = self.plan, self.missing
        rows = len({row.label for row in p.rows})
        seeds = len(p.suite.sections.seeds)
        done = len(p.stages) - len(missing)
        stages = f"{len(p.stages)} stages ({p.unshared} unshared), {done} done"
        head = f"{p.suite.name}: {rows} rows x {seeds} seed{'s' * (seeds > 1)} -> {stages}"
        if missing:
            wall, path = summary_estimate(p, missing, self.estimate, self.slots, self.fuse)
            head += f"; {wall} on {self.slots} process{'es' * (self.slots > 1)}, critical path {path}"
        lines = [head]
        shared = [s for s in p.stages.values() if s.kind == "train" and len(p.needed_by[s.key]) > 1]
        parts = [f"{p.needed_by[s.key][0]} by {len(p.needed_by[s.key])} rows" for s in shared if s.spec["phase"] == 0]
        parts = list(dict.fromkeys(parts))
        groups = planning.fused_groups(p, missing) if self.fuse else []
        fused = list(dict.fromkeys(" + ".join(p.needed_by[k][0] for k in group) for group in groups))
        notes = [f"shared: {', '.join(parts)}"] if parts else []
        notes += [f"fused: {'; '.join(fused)}"] if fused else []
        lines += [f"  {'; '.join(notes)}"] if notes else []
        pulled = planning.pulled_in(p)
        lines += [f"  --only pulls in the training of: {', '.join(pulled)}"] if pulled else []
        lines += [f"  note: {note}" for note in p.suite.notes]
        skipped = {row.label: row.skipped for row in p.rows if row.skipped}
        lines += [f"  skipped: {label}: {reason}" for label, reason in skipped.items()]
        return lines

    def print(self, console: Console) -> None:
        """`plan`: every unique stage."""
        for line in self.headline():
            console.print(escape(line), highlight=False, soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("stage", "key", "needed by", "state", "seconds"):
            table.add_column(name, justify="right" if name == "seconds" else "left", overflow="fold")
        for key, stage in self.plan.stages.items():
            state = self.states[key]
            table.add_row(
                stage.kind,
                key[:6],
                escape(planning.describe(self.plan, [key])),
                f"[{STYLE[state]}]{state}[/]",
                self._seconds(stage),
            )
        console.print(table)
        console.print(
            "start it: python -m bench run", escape(str(self.plan.suite.path)), highlight=False, soft_wrap=True
        )

    def print_status(self, console: Console) -> None:
        """`status`: state, progress, host, the last error."""
        console.print(escape(self.headline()[0]), highlight=False, soft_wrap=True)
        ticks = Ticks(self.store)
        for key, state in self.states.items():
            text = escape(f"{name_of(self.plan, key)}  {self._detail(key, state, ticks)}")
            line = f"[{STYLE[state]}]{state:<8}[/] {text}"
            console.print(line.rstrip(), highlight=False, soft_wrap=True)

    def to_json(self) -> dict[str, Any]:
        """{"stages": [{key, kind, rows, state, seconds}], ...}; seconds: measured, else estimated, or None."""
        stages = [
            {
                "key": key, "kind": stage.kind, "rows": list(self.plan.needed_by[key]), "state": self.states[key],
                "seconds": self._number(stage), "inputs": {n: s.key for n, s in stage.inputs.items()},
            }
            for key, stage in self.plan.stages.items()
        ]  # fmt: skip
        wall = planning.wall_seconds(self.plan, self.missing, self.estimate, self.slots, fuse=self.fuse)
        return {
            "suite": self.plan.suite.name,
            "stages": stages,
            "unshared": self.plan.unshared,
            "done": len(self.plan.stages) - len(self.missing),
            "fused": [list(group) for group in planning.fused_groups(self.plan, self.missing)] if self.fuse else [],
            "seconds": wall,
            "critical_path_seconds": planning.critical_path(self.plan, self.missing, self.estimate),
            "skipped": {row.label: row.skipped for row in self.plan.rows if row.skipped},
        }

    def _number(self, stage: Stage) -> float | None:
        done = self.store.done(stage.key) if self.states[stage.key] == "done" else None
        value = done.seconds if done else self.estimate(stage)
        return None if value is None else round(value, 2)

    def _seconds(self, stage: Stage) -> str:
        value = self._number(stage)
        if value is None:
            return "-"
        return f"{value:.0f}" if self.states[stage.key] == "done" else f"~{value:.0f}"

    def _detail(self, key: str, state: State, ticks: Ticks) -> str:
        if state == "done":
            done = self.store.done(key)
            return f"{done.seconds:.0f} s" if done else ""
        tick = ticks.of(key)
        step = f"step {tick.step}/{tick.total}" if tick else ""
        if state == "running":
            owner = self.store.running(key)
            return f"{step}  {owner.host}:{owner.pid}" if owner else step
        failure = self.store.failure(key)
        return f"{step}  {failure.error.splitlines()[0]}" if failure else step


def compare(plan: Plan, store: Store, slots: int, *, fuse: bool = True) -> Overview:
    """An overview of a plan and a store."""
    return Overview(plan, store, planning.states(plan, store), planning.learned(plan, store), slots, fuse)


def find(plan: Plan, word: str) -> Stage:
    """The stage that a word means: the first digits of a key, or a row's label (its model).

    Raises:
        UserError: none, or several.
    """
    hits = [stage for key, stage in plan.stages.items() if key.startswith(word.lower())] if word else []
    for row in plan.rows:
        if row.label == word and row.evaluate is not None:
            hits = [row.evaluate.inputs["predict"].inputs["model"]]
    if len(hits) == 1:
        return hits[0]
    what = (
        f"{len(hits)} stages begin with '{word}'" if hits else f"no stage begins with '{word}' and no row is called so"
    )
    raise UserError(
        what,
        where=str(plan.suite.path),
        allowed="a key's first digits, or a row's label",
        hint="see: python -m bench plan",
    )


def explain(plan: Plan, store: Store, stage: Stage, console: Console) -> None:
    """`why`: spec, inputs, who needs it, and what differs from the nearest stage of its kind that is done."""

    def say(text: str) -> None:
        console.print(escape(text), highlight=False, soft_wrap=True)

    state = planning.states(plan, store)[stage.key]
    say(f"{stage.kind} {stage.key}\n  state: {state}\n  needed by: {planning.describe(plan, [stage.key])}")
    for name, source in stage.inputs.items():
        say(f"  input {name}: {source.kind} {source.key[:6]}")
    failure = store.failure(stage.key)
    if failure:
        say(f"  last failure ({failure.time}): {failure.error}")
    for name, value in flat(canonical(stage.spec)).items():
        say(f"  {name} = {value}")
    if state == "done":
        done = store.done(stage.key)
        assert done is not None
        say(
            f"  done {done.finished} in {clock(done.seconds)} (attempt {done.attempt})"
            f" on {done.environment.get('host', '-')}"
        )
        say(f"  outputs: {store.output(stage.key)}")
        return
    near = nearest(store, stage)
    if near is None:
        say(f"not reused: no {stage.kind} stage in this store is done")
        return
    key, differences = near
    say(f"not reused: the nearest {stage.kind} stage that is done is {key[:6]}; it differs in")
    for name, (here, there) in differences.items():
        say(f"  {name}: {here} here, {there} there")


def nearest(store: Store, stage: Stage) -> tuple[str, dict[str, tuple[Any, Any]]] | None:
    """The done stage of the same kind with the fewest differing settings, and those settings."""
    own = flat({"spec": canonical(stage.spec), "inputs": {n: s.key[:12] for n, s in stage.inputs.items()}})
    best: tuple[str, dict[str, tuple[Any, Any]]] | None = None
    for key in store.keys():  # noqa: SIM118 (a method, not a mapping)
        if key == stage.key or store.done(key) is None:
            continue
        other = store.load(key)
        if other["kind"] != stage.kind:
            continue
        theirs = flat({"spec": other["spec"], "inputs": {n: k[:12] for n, k in other["inputs"].items()}})
        names = sorted(set(own) | set(theirs))
        differing = {n: (own.get(n, "-"), theirs.get(n, "-")) for n in names if own.get(n) != theirs.get(n)}
        if best is None or len(differing) < len(best[1]):
            best = (key, differing)
    return best


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names."""
    if isinstance(value, dict) and value:
        return {k: v for name, inner in value.items() for k, v in flat(inner, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): value}


def label(plan: Plan) -> str:
    """The name of what is asked for: the suite's, and six digits where options make it another table."""
    if not plan.suite.changed:
        return plan.suite.name
    return f"{plan.suite.name}-{digest([row.evaluate.key if row.evaluate else row.skipped for row in plan.rows])[:6]}"


def default_report_folder(store: Store, plan: Plan) -> Path:
    """Where a report goes unless told otherwise."""
    return store.root / "reports" / label(plan)
