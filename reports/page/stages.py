"""The plan of a suite in the page of a report: its stages, what they took, and what each row's model is made of.
Separate from page_content.py, which is about results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.lineage import Finished
from bench.plan import planning
from bench.plan.cost import share_of_pass
from bench.plan.planning import CachedStore, Plan, RowPlan, State
from bench.stage import KINDS, Stage, walk
from reports.page.lineage_graph import Box
from reports.page.render import Chain, Column, Entry, Grid, Step

MOST_STAGES = 2000  # lines; a plan with more is told by its first ones
MOST_ROWS = 60  # whose lineage is told
MOST_LABELS = 4  # rows named beside a stage


@dataclass(frozen=True)
class View:
    """A plan beside a store, of one moment: the state of each stage, and those that are done."""

    states: Mapping[str, State]
    done: Mapping[str, Finished]

    def seconds(self, key: str) -> float | None:
        """What a stage took; of a pass that made several, its share."""
        return share_of_pass(self.done[key]) if key in self.done else None


def view(plan: Plan, store: CachedStore) -> View:
    """Read each stage once."""
    states = planning.states(plan, store)
    done = {key: found for key, state in states.items() if state == "done" and (found := store.done(key)) is not None}
    return View(states, done)


def cost(plan: Plan, seen: View) -> tuple[str, ...]:
    """How many stages there are, how many were saved by sharing, and the seconds that were measured."""
    done = len(seen.done)
    shared = sum(len(labels) > 1 for labels in plan.needed_by.values())
    found = [
        f"{len(plan.stages)} stages, {done} of them done; {shared} serve more than one row, and without sharing there "
        f"would be {plan.unshared}."
    ]
    took = {key: share_of_pass(one) for key, one in seen.done.items()}
    if took:
        by_kind: Counter[str] = Counter()
        for key, seconds in took.items():
            by_kind[plan.stages[key].kind] += seconds  # type: ignore[assignment]
        kinds = ", ".join(f"{kind} {_time(by_kind[kind])}" for kind in KINDS if kind in by_kind)
        unshared = sum(seconds * len(plan.needed_by[key]) for key, seconds in took.items())
        found.append(
            f"Measured: {_time(sum(took.values()))} in all ({kinds}). Each row by itself would have taken "
            f"{_time(unshared)}, without what one pass saves."
        )
    return tuple(found)


def grid(plan: Plan, seen: View) -> Grid:
    """A line for each stage."""
    lines, anchors = [], []
    for key, stage in list(plan.stages.items())[:MOST_STAGES]:
        seconds, done = seen.seconds(key), seen.done.get(key)
        size = None if done is None else sum(done.sizes.values()) / 1e6
        labels = plan.needed_by[key]
        numbers = (
            Entry(str(len(labels)), float(len(labels))),
            Entry("-" if seconds is None else f"{seconds:.1f}", seconds),
            Entry("-" if size is None else f"{size:.1f}", size),
        )
        texts = (Entry(_what(plan, stage)), Entry(key[:6]), Entry(_labels(labels)), Entry(seen.states[key]))
        lines.append((*texts, *numbers))
        anchors.append(_anchor(key))
    left = len(plan.stages) - len(lines)
    caption = "Stages, inputs before what is made from them" + (f"; {left:,} more: plan --json" if left else "")
    columns = (
        *(Column(name, number=False) for name in ("stage", "key", "needed by", "state")),
        Column("rows"), Column("seconds", about="measured; of a pass that made several stages, its share"),
        Column("MB", about="on the disk"),
    )  # fmt: skip
    return Grid("stages", caption, columns, tuple(lines), tuple(anchors))


def chains(plan: Plan, seen: View) -> tuple[tuple[Chain, ...], int]:
    """The lineage of each row's model, down to the data; and how many rows were left out."""
    listed = {key for key, _ in zip(plan.stages, range(MOST_STAGES), strict=False)}
    rows: dict[str, list[RowPlan]] = {}
    for row in plan.rows:
        if row.evaluate is not None:
            rows.setdefault(row.label, []).append(row)
    found = []
    for label, of in list(rows.items())[:MOST_ROWS]:
        first, lists = of[0], []
        for row in of:
            assert row.evaluate is not None
            lists.append((row.seed, tuple(_step(plan, stage, listed) for stage in walk(row.evaluate))))
        assert first.evaluate is not None
        found.append(Chain(label, first.seed, _boxes(plan, first.evaluate), tuple(lists)))
    return tuple(found), len(rows) - len(found)


def _boxes(plan: Plan, evaluate: Stage) -> tuple[Box, ...]:
    """The model, its prediction and evaluation; not val, which all of them read."""
    predict = evaluate.inputs["predict"]
    stages = [*walk(predict.inputs["model"]), predict, evaluate]
    keys = {stage.key for stage in stages}
    inputs = {stage.key: tuple((name, s.key) for name, s in stage.inputs.items() if s.key in keys) for stage in stages}
    return tuple(Box(stage.kind, stage.key, _beside(plan, stage), inputs[stage.key]) for stage in stages)


def _step(plan: Plan, stage: Stage, listed: set[str]) -> Step:
    made_from = ", ".join(f"{name}: {source.kind} {source.key[:6]}" for name, source in stage.inputs.items())
    anchor = _anchor(stage.key) if stage.key in listed else ""
    return Step(_what(plan, stage), stage.key[:6], anchor, made_from)


def _what(plan: Plan, stage: Stage) -> str:
    """`data train`, `train baseline`: the kind, and what a stage of it is called."""
    return f"{stage.kind} {_beside(plan, stage)}".strip()


def _beside(plan: Plan, stage: Stage) -> str:
    named = KINDS[stage.kind].named_by
    if named is not None:
        return str(stage.spec[named])
    return plan.needed_by.get(stage.key, ("",))[0]


def _labels(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - MOST_LABELS} more" if len(labels) > MOST_LABELS else ""
    return ", ".join(labels[:MOST_LABELS]) + more


def _anchor(key: str) -> str:
    return f"stage-{key[:16]}"


def _time(seconds: float) -> str:
    """`40 s`, `9 min`, `3.5 h`."""
    if seconds >= 3 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
