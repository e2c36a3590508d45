"""Whether two engines come to the same conclusions. Separate from agreement.py, which compares with a paper: here both
orders are ours, but numbers of two engines are different experiments and are never subtracted, only their orders are
compared, and what each row gains over the baseline of its own engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from bench.key import digest
from reports.load import RowResult
from reports.stats import MISSING, bases_of, differences, engine_of, kendall, metrics_of, p_text

METRICS = ("AP", "AP1")
FEWEST = 3  # rows that both have; two are in one of two orders


def sentences(groups: Mapping[str, Sequence[RowResult]]) -> Iterator[str]:
    """For below a table, for every two engines with rows of the same methods: how far their orders agree, and on which
    rows they disagree about the sign of the gain."""
    engines = list(dict.fromkeys(engine_of(group) for group in groups.values() if group))
    for one, other in combinations(engines, 2):
        for metric in METRICS:
            found = _sentence(groups, one, other, metric)
            if found:
                yield found


def _sentence(groups: Mapping[str, Sequence[RowResult]], one: str, other: str, metric: str) -> str | None:
    mine, theirs = (_by_recipe(groups, engine) for engine in (one, other))
    pairs = [(mine[recipe], theirs[recipe]) for recipe in mine if recipe in theirs]
    both = [(_mean(groups, a, metric), _mean(groups, b, metric)) for a, b in pairs]
    means = [(a, b) for a, b in both if a is not None and b is not None]
    if len(means) < FEWEST:
        return None
    tau, p = kendall([a for a, _ in means], [b for _, b in means])
    value = (
        "not defined, all rows tie"
        if tau is None or p is None
        else f"{tau:+.2f} ({p_text(p)}, two-sided, of no association)"
    )
    text = f"order by {metric} of the {len(means)} rows that {one} and {other} have: Kendall tau-b {value}"
    gains = _gains(groups, metric)
    apart = [(a, b) for a, b in pairs if gains[a] * gains[b] < 0]
    if not apart:
        return f"{text}. No row gains on one and loses on the other"
    named = "; ".join(f"{a} {gains[a]:+.1f}, {b} {gains[b]:+.1f}" for a, b in apart)
    return f"{text}. Gain over the own baseline of another sign: {named}"


def _by_recipe(groups: Mapping[str, Sequence[RowResult]], engine: str) -> dict[str, str]:
    """Method and settings, the detector apart -> label, of the rows of an engine."""
    found: dict[str, str] = {}
    for label, group in groups.items():
        if group and engine_of(group) == engine:
            record = group[0].record
            own = {name: value for name, value in record.settings.items() if name != "detector"}
            found.setdefault(digest([record.method, own]), label)
    return found


def _mean(groups: Mapping[str, Sequence[RowResult]], label: str, metric: str) -> float | None:
    return metrics_of(groups[label]).get(metric, MISSING).mean


def _gains(groups: Mapping[str, Sequence[RowResult]], metric: str) -> dict[str, float]:
    """Of each row over the baseline of its engine; 0 where there is none."""
    bases = bases_of(groups)
    cells = {label: differences(groups[label], groups[base]).get(metric, MISSING) for label, base in bases.items()}
    return {label: cells[label].mean or 0.0 if label in cells else 0.0 for label in groups}
