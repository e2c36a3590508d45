"""In what two sides differ beside their numbers: settings, data, engine, versions, commit, machine. Separate from the
numbers, since a difference of numbers means nothing before this is read.

Settings are compared stage by stage, so that a rate says which training it belongs to: `train 2: schedule.lr`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.key import canonical
from bench.stage import Stage, walk
from reports.compare.sides import Side
from reports.footnotes import DIGEST, DIGESTS, RECIPE, SHOWN, flat, some_rows, value_text, worded
from reports.load import RowResult
from reports.stats import by_row

GROUPS = ("protocol", "settings", "ran with")
_NOTHING = "-"


@dataclass(frozen=True)
class Differing:
    """One thing in which the sides differ.

    Attributes:
        group: one of GROUPS.
        name: of the field or setting.
        values: (A's, B's, the rows in which it is so; empty: all that both have), as texts.
    """

    group: str
    name: str
    values: tuple[tuple[str, str, tuple[str, ...]], ...]

    def __str__(self) -> str:
        texts = []
        for a, b, rows in self.values[:SHOWN]:
            texts.append(f"A {a}, B {b}" + (f" ({some_rows(rows)})" if rows else ""))
        more = len(self.values) - len(texts)
        return f"{self.name}: {'; '.join(texts)}" + (f"; and {more} more pairs of values" if more else "")


def differing(a: Side, b: Side) -> list[Differing]:
    """Over the rows that both have: at each seed that both have, else at the first of each."""
    found: dict[tuple[str, str], dict[tuple[str, str], dict[str, None]]] = {}
    compared = list(_compared(a, b))
    for label, ours, theirs in compared:
        for group, name, mine, their in _of_pair(a, ours, b, theirs):
            found.setdefault((group, name), {}).setdefault((mine, their), {})[label] = None
    every = {label for label, _, _ in compared}
    result = []
    for (group, name), values in sorted(found.items(), key=lambda one: GROUPS.index(one[0][0])):
        alike = len(values) == 1 and set(next(iter(values.values()))) == every
        rows = [(*pair, () if alike else tuple(labels)) for pair, labels in values.items()]
        result.append(Differing(group, name, tuple(rows)))
    return result


def _compared(a: Side, b: Side) -> Iterator[tuple[str, RowResult, RowResult]]:
    ours, theirs = by_row(a.rows, a.order), by_row(b.rows, b.order)
    for label in (label for label in ours if label in theirs):
        other = {result.record.seed: result for result in theirs[label]}
        same = [(label, result, other[result.record.seed]) for result in ours[label] if result.record.seed in other]
        yield from same or [(label, ours[label][0], theirs[label][0])]


def _of_pair(a: Side, ours: RowResult, b: Side, theirs: RowResult) -> Iterator[tuple[str, str, str, str]]:
    """(group, name, A's text, B's text) of all in which two results differ."""
    mine, their = (one.record.protocol.model_dump(mode="json", exclude_none=True) for one in (ours, theirs))
    # `settings` says the recipe stage by stage; digests follow the seed where the data do.
    left_out = RECIPE if ours.record.seed == theirs.record.seed else (*RECIPE, *DIGESTS)
    for name, values in _unlike(mine, their):
        if name not in left_out:
            yield ("protocol", worded(name), *values)
    if ours.record.method != theirs.record.method:
        yield "settings", "method", ours.record.method, theirs.record.method
    yield from _of_stages(a.stages[ours.record.evaluate_key], b.stages[theirs.record.evaluate_key])
    for name, values in _unlike(flat(ours.record.environment), flat(theirs.record.environment)):
        yield ("ran with", worded(name), *values)


def _of_stages(ours: Stage, theirs: Stage) -> Iterator[tuple[str, str, str, str]]:
    if ours.key == theirs.key:
        return
    mine, their = _named(ours), _named(theirs)
    for name in dict.fromkeys([*mine, *their]):
        if name not in mine or name not in their:
            yield ("settings", name, "there", _NOTHING) if name in mine else ("settings", name, _NOTHING, "there")
        elif mine[name].key != their[name].key:
            yield from _of_stage(name, mine[name], their[name])


def _of_stage(name: str, ours: Stage, theirs: Stage) -> Iterator[tuple[str, str, str, str]]:
    """Of two stages of one place with different keys."""
    apart = list(_unlike(*(flat(canonical(stage.spec)) for stage in (ours, theirs))))
    for setting, values in apart:
        yield ("settings", f"{name}: {setting}", *values)
    keys = [{name: source.key for name, source in stage.inputs.items()} for stage in (ours, theirs)]
    if not apart and keys[0] == keys[1]:  # nothing else is in a key
        yield "settings", f"{name}: version of this kind of stage, by its key", ours.key[:DIGEST], theirs.key[:DIGEST]


def _named(evaluate: Stage) -> dict[str, Stage]:
    """The stages that a result was made by, inputs first: `train 1`, `data val`, `predict`."""
    stages = list(walk(evaluate))
    found: dict[str, Stage] = {}
    for stage in stages:
        alike = [one for one in stages if one.kind == stage.kind]
        number = "" if len(alike) == 1 else f" {alike.index(stage) + 1}"
        found[f"{stage.kind} {stage.spec['split']}" if "split" in stage.spec else stage.kind + number] = stage
    return found


def _unlike(mine: Mapping[str, Any], their: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    for name in dict.fromkeys([*mine, *their]):
        if mine.get(name) != their.get(name):
            yield name, _apart(mine.get(name), their.get(name))


def _apart(mine: Any, their: Any) -> tuple[str, str]:
    """Two values as texts that differ: of long ones more than their beginning is shown."""
    texts = value_text(mine), value_text(their)
    return texts if texts[0] != texts[1] else (repr(mine), repr(their))


def seeds_of(rows: Sequence[RowResult]) -> str:
    """`0, 1, 2`."""
    return ", ".join(map(str, sorted({result.record.seed for result in rows}))) or _NOTHING
