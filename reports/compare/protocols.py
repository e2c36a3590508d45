"""In what two sides differ beside their numbers: settings, data, engine, versions, commit, machine. Separate from the
numbers, since a difference of numbers means nothing before this is read.

Settings are compared stage by stage, so that a rate says which training it belongs to: `train 2: schedule.lr`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.key import canonical
from bench.stage import Stage, walk
from bench.suite.seeds import seeds_text
from reports.compare.sides import Side
from reports.footnotes import DIGEST, DIGESTS, RECIPE, SHOWN, flat, some_rows, value_text, worded
from reports.load import RowResult
from reports.stats import by_row

GROUPS = ("protocol", "settings", "ran with")
_NOTHING = "-"
_Numbered = tuple[int, Stage]  # a stage and its number among those of one place


@dataclass(frozen=True)
class Differing:
    """One thing in which the sides differ.

    Attributes:
        group: one of GROUPS.
        name: of the field or setting.
        values: (A's, B's, the rows or seeds in which it is so; empty: all that both have), as texts.
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
    found: dict[tuple[str, str], dict[tuple[str, str], dict[tuple[str, int], None]]] = {}
    compared = list(_compared(a, b))
    for label, ours, theirs in compared:
        for group, name, mine, their in _of_pair(a, ours, b, theirs):
            found.setdefault((group, name), {}).setdefault((mine, their), {})[label, ours.record.seed] = None
    every = dict.fromkeys((label, ours.record.seed) for label, ours, _ in compared)
    result = []
    for (group, name), values in sorted(found.items(), key=lambda one: GROUPS.index(one[0][0])):
        rows = [(*pair, _where(cells, every)) for pair, cells in values.items()]
        result.append(Differing(group, name, tuple(rows)))
    return result


def _where(cells: Collection[tuple[str, int]], every: Collection[tuple[str, int]]) -> tuple[str, ...]:
    """Rows, with their seeds where not all of a row's are meant; or seeds alone, where all rows are; (): everywhere."""
    if len(cells) == len(every):
        return ()
    chosen = set(cells)
    seeds = dict.fromkeys(seed for _, seed in cells)
    if chosen == {cell for cell in every if cell[1] in seeds}:
        return (_seeds_text(seeds),)
    found = []
    for label in dict.fromkeys(label for label, _ in cells):
        own = [seed for one, seed in every if one == label]
        have = [seed for seed in own if (label, seed) in chosen]
        found.append(label if have == own else f"{label} {_seeds_text(have)}")
    return tuple(found)


def _seeds_text(seeds: Collection[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {seeds_text(sorted(seeds))}"


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
    stages = a.stages[ours.record.evaluate_key], b.stages[theirs.record.evaluate_key]
    of_stages = list(_of_stages(*stages))
    yield from of_stages
    if not of_stages and stages[0].key != stages[1].key:  # the same ones otherwise put together
        what = "the order in which its stages are used, by key"
        yield "settings", what, stages[0].key[:DIGEST], stages[1].key[:DIGEST]
    for name, values in _unlike(flat(ours.record.environment), flat(theirs.record.environment)):
        yield ("ran with", worded(name), *values)


def _of_stages(ours: Stage, theirs: Stage) -> Iterator[tuple[str, str, str, str]]:
    if ours.key == theirs.key:
        return
    mine, their = _places(ours), _places(theirs)
    for place in dict.fromkeys([*mine, *their]):
        pairs = _paired(mine.get(place, []), their.get(place, []))
        several = len(pairs) > 1 or any(number > 1 for pair in pairs for number, _ in filter(None, pair))
        for one, other in pairs:
            name = _name(place, one, other) if several else place
            if one is None or other is None:
                yield ("settings", name, "there", _NOTHING) if one else ("settings", name, _NOTHING, "there")
            elif one[1].key != other[1].key:
                yield from _of_stage(name, one[1], other[1])


def _of_stage(name: str, ours: Stage, theirs: Stage) -> Iterator[tuple[str, str, str, str]]:
    """Of two stages of one place with different keys."""
    apart = list(_unlike(*(flat(canonical(stage.spec)) for stage in (ours, theirs))))
    for setting, values in apart:
        yield ("settings", f"{name}: {setting}", *values)
    keys = [{name: source.key for name, source in stage.inputs.items()} for stage in (ours, theirs)]
    if not apart and keys[0] == keys[1]:  # nothing else is in a key
        yield "settings", f"{name}: version of this kind of stage, by its key", ours.key[:DIGEST], theirs.key[:DIGEST]


def _places(evaluate: Stage) -> dict[str, list[_Numbered]]:
    """`train`, `data val`, `predict` -> the stages there that a result was made by, inputs first."""
    found: dict[str, list[_Numbered]] = {}
    for stage in walk(evaluate):
        place = f"{stage.kind} {stage.spec['split']}" if "split" in stage.spec else stage.kind
        alike = found.setdefault(place, [])
        alike.append((len(alike) + 1, stage))
    return found


def _paired(mine: list[_Numbered], their: list[_Numbered]) -> list[tuple[_Numbered | None, _Numbered | None]]:
    """The same stage with itself, the others of a place in their order; None: the other side has no more."""
    theirs = {one.key: (number, one) for number, one in their}
    same = {one.key: theirs[one.key] for _, one in mine if one.key in theirs}
    left = iter([one for one in their if one[1].key not in same])
    pairs = [(one, same.get(one[1].key) or next(left, None)) for one in mine]
    return [*pairs, *((None, one) for one in left)]


def _name(place: str, one: _Numbered | None, other: _Numbered | None) -> str:
    """`train 2`, or `train 2 (1 of B)` where the sides count differently."""
    numbers = [found[0] for found in (one, other) if found]
    return f"{place} {numbers[0]}" + (f" ({numbers[1]} of B)" if len(set(numbers)) > 1 else "")


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
