"""Two sides as one value: the rows of both beside each other, and why a difference is not taken where it would mean
nothing. Separate from how it is written (reports/compare/render.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.record import metric_names
from reports.compare.protocols import Differing, differing, seeds_of
from reports.compare.sides import Side
from reports.differences import SHOWN, Difference, between, too_few, without
from reports.load import RowResult
from reports.stats import MISSING, Cell, by_row, differences, engine_of, metrics_of, other_counts, other_val


@dataclass(frozen=True)
class Pair:
    """A row of both sides.

    Attributes:
        row: its label.
        seeds: those of A, of B, and of both.
        a, b: metric -> Cell over the seeds that the side has.
        difference: metric -> B - A over the seeds of both, paired; with its interval where there is one.
        why: why there is no difference, or none of some metrics; empty otherwise.
    """

    row: str
    seeds: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    a: Mapping[str, Cell]
    b: Mapping[str, Cell]
    difference: Mapping[str, Difference]
    why: str


@dataclass(frozen=True)
class Comparison:
    """Two sides beside each other.

    Attributes:
        names: of A and B.
        metrics: in the order of a table, those that a row has.
        pairs: rows, A's first.
        differing: in what the protocols differ.
        notes: in words, what is to be known beside them.
        undrawn: rows of both of which a side lacks what intervals are made from.
        alike: rows of both whose difference, in some metric, is the same on all draws of the images.
        thin: in words, the metrics that too few images show for an interval.
    """

    names: tuple[str, str]
    metrics: tuple[str, ...]
    pairs: tuple[Pair, ...]
    differing: tuple[Differing, ...]
    notes: tuple[str, ...]
    undrawn: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()
    thin: tuple[str, ...] = ()


def compare(names: tuple[str, str], a: Side, b: Side) -> Comparison:
    """B beside A, row by row."""
    ours, theirs = by_row(a.rows, a.order), by_row(b.rows, b.order)
    both = [label for label in ours if label in theirs]
    groups = {f"A {label}": ours[label] for label in both} | {f"B {label}": theirs[label] for label in both}
    certain = between(groups, {f"B {label}": f"A {label}" for label in both})
    labels = dict.fromkeys([*ours, *theirs])
    found = tuple(
        _pair(label, ours.get(label, []), theirs.get(label, []), certain.get(f"B {label}", {})) for label in labels
    )
    have = {name for pair in found for side in (pair.a, pair.b) for name, cell in side.items() if cell.n}
    bins = max((len(one.record.protocol.bins) + 1 for one in (*a.rows, *b.rows)), default=4)
    metrics = tuple(name for name in metric_names(bins) if name in have)
    notes = (*_identical(ours, theirs, both), *_seeds(a, b), *_alone(ours, theirs))
    undrawn = tuple(label for label in both if any(one.draws is None for one in (*ours[label], *theirs[label])))
    alike = tuple(name.removeprefix("B ") for name in without(groups, certain).get("alike", ()))
    thin = too_few([row for group in groups.values() for row in group])
    return Comparison(names, metrics, found, tuple(differing(a, b)), notes, undrawn, alike, tuple(thin))


def _pair(
    label: str, ours: Sequence[RowResult], theirs: Sequence[RowResult], certain: Mapping[str, Difference]
) -> Pair:
    seeds = tuple(one.record.seed for one in ours), tuple(one.record.seed for one in theirs)
    both = tuple(seed for seed in seeds[0] if seed in seeds[1])
    cells = differences(theirs, ours)
    plain = {name: Difference("A", cell, None, None) for name, cell in cells.items() if cell.n and name not in SHOWN}
    return Pair(
        label, (*seeds, both), metrics_of(ours), metrics_of(theirs), {**certain, **plain}, _why(ours, theirs, both)
    )


def _why(ours: Sequence[RowResult], theirs: Sequence[RowResult], both: Sequence[int]) -> str:
    if not ours or not theirs:
        return f"only in {'A' if ours else 'B'}"
    if engine_of(ours) != engine_of(theirs):
        return "no difference: numbers of two engines are different experiments"
    if not both:
        return "no difference: no seed in common"
    if other_val(theirs, ours):
        return "no difference: evaluated on another val"
    return "no difference of bins: the classes have other training counts" if other_counts(theirs, ours) else ""


def _identical(
    ours: Mapping[str, Sequence[RowResult]], theirs: Mapping[str, Sequence[RowResult]], both: Sequence[str]
) -> list[str]:
    """How many results are of one key, and whether such agree."""
    couples = [
        (one.record, other.record)
        for label in both
        for one in ours[label]
        for other in theirs[label]
        if one.record.seed == other.record.seed
    ]
    same = [(one, other) for one, other in couples if one.evaluate_key == other.evaluate_key]
    apart = [one for one, other in same if one.metrics != other.metrics]
    if not same:
        return []
    text = (
        f"{len(same)} of the {len(couples)} results that both have are of the same stages (one key: the same settings, "
    )
    text += "data and versions of the code)"
    if not apart:
        return [f"{text}, with the same numbers"]
    named = ", ".join(f"{one.row} seed {one.seed}" for one in apart[:5])
    more = f" and {len(apart) - 5} more" if len(apart) > 5 else ""
    return [f"{text}; other numbers for {named}{more}: two runs of one experiment, see what they ran with"]


def _seeds(a: Side, b: Side) -> list[str]:
    ours, theirs = seeds_of(a.rows), seeds_of(b.rows)
    if ours == theirs:
        return [f"seeds {ours} in both"]
    return [f"seeds: A {ours}, B {theirs}; a difference is over the seeds that a row has in both"]


def _alone(ours: Mapping[str, Sequence[RowResult]], theirs: Mapping[str, Sequence[RowResult]]) -> list[str]:
    only_a, only_b = ([label for label in one if label not in other] for one, other in ((ours, theirs), (theirs, ours)))
    notes = [f"rows only in {side}: {', '.join(labels)}" for side, labels in (("A", only_a), ("B", only_b)) if labels]
    keys = {one.record.evaluate_key: label for label in only_b for one in theirs[label]}
    found = ((label, keys.get(one.record.evaluate_key)) for label in only_a for one in ours[label])
    renamed = dict.fromkeys(f"{mine} of A is {their} of B" for mine, their in found if their is not None)
    return [*notes, *([f"under other labels, by their keys: {', '.join(renamed)}"] if renamed else [])]


def cell_of(pair: Pair, side: str, metric: str) -> Cell:
    """The Cell of a side, a or b."""
    return {"a": pair.a, "b": pair.b}[side].get(metric, MISSING)
