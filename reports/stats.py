"""Mean, standard deviation and paired differences over seeds. Separate from the tables that print them, since the
JSON, the figures and the tracker's parent runs need the same numbers.

A missing value (None) is left out and n is how many values there are; nothing is ever filled in with 0.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reports.load import RowResult


@dataclass(frozen=True)
class Cell:
    """A metric of one row over its seeds.

    Attributes:
        mean: mean of the values that exist, None where none does.
        sd: sample standard deviation (n - 1), None where n < 2.
        n: how many seeds have the value.
    """

    mean: float | None
    sd: float | None
    n: int


MISSING = Cell(None, None, 0)


def summarise(values: Iterable[float | None]) -> Cell:
    """Mean and sample sd of the values that exist."""
    present = [value for value in values if value is not None]
    if not present:
        return MISSING
    sd = statistics.stdev(present) if len(present) > 1 else None
    return Cell(statistics.fmean(present), sd, len(present))


def by_row(rows: Iterable[RowResult], order: Sequence[str] = ()) -> dict[str, list[RowResult]]:
    """Results grouped by row label, each group by ascending seed.

    Args:
        rows: one result per row and seed.
        order: labels in the order of the suite; labels it lacks follow in order of appearance.
    """
    groups: dict[str, list[RowResult]] = {label: [] for label in order}
    for result in rows:
        groups.setdefault(result.record.row, []).append(result)
    return {label: sorted(group, key=lambda r: r.record.seed) for label, group in groups.items() if group}


def metrics_of(group: Sequence[RowResult]) -> dict[str, Cell]:
    """Metric name -> Cell over the seeds of one row."""
    names = dict.fromkeys(name for result in group for name in result.record.metrics)
    return {name: summarise(result.record.metrics.get(name) for result in group) for name in names}


def baseline_of(groups: Mapping[str, Sequence[RowResult]]) -> str | None:
    """Label of the row the others are compared with: 'baseline', else the first row of that method."""
    if "baseline" in groups:
        return "baseline"
    return next((label for label, group in groups.items() if group[0].record.method == "baseline"), None)


def engine_of(group: Sequence[RowResult]) -> str:
    """The engine of a row."""
    return group[0].record.protocol.engine


def by_engine(groups: Mapping[str, Sequence[RowResult]]) -> dict[str, list[str]]:
    """Engine -> labels of its rows. Only rows of one engine are ranked together."""
    found: dict[str, list[str]] = {}
    for label, group in groups.items():
        found.setdefault(engine_of(group), []).append(label)
    return found


def bases_of(groups: Mapping[str, Sequence[RowResult]]) -> dict[str, str]:
    """Label of each row -> label of the row it is compared with: the baseline, or that of its own engine. A row whose
    engine has none is left out. Numbers of two engines are different experiments and are never subtracted."""
    first = baseline_of(groups)
    legal = [label for label, group in groups.items() if group[0].record.method == "baseline" and label != first]
    own: dict[str, str] = {}
    for label in [first, *legal] if first else legal:
        own.setdefault(engine_of(groups[label]), label)
    engines = {label: engine_of(group) for label, group in groups.items()}
    return {label: own[engine] for label, engine in engines.items() if engine in own}


def kendall(a: Sequence[float], b: Sequence[float]) -> tuple[float | None, float | None]:
    """(Kendall's tau-b, p), both None where one side is all ties. p is exact without ties, else by the normal
    approximation."""
    from scipy.stats import kendalltau

    tau, p = kendalltau(a, b, variant="b")
    return (None, None) if math.isnan(tau) else (float(tau), float(p))


def p_text(p: float) -> str:
    """For people: the far tail of a law is a number that nobody has seen."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def differences(group: Sequence[RowResult], baseline: Sequence[RowResult]) -> dict[str, Cell]:
    """Metric name -> Cell of (row - baseline), paired by seed: only seeds that both have, with both values.

    Two data sets are never subtracted: a seed counts only where both were evaluated on the same val, and for a metric
    over a part of the classes (AP1, APr, ACC1) only where the classes' training counts agree as well.
    """
    seen: dict[str, list[float | None]] = {}
    for ours, theirs in _pairs(group, baseline):
        for name in ours.record.metrics if _alike(ours, theirs) else ():
            seen.setdefault(name, []).append(_difference(ours, theirs, name))
    return {name: summarise(values) for name, values in seen.items()}


def paired(
    group: Sequence[RowResult], baseline: Sequence[RowResult], metric: str
) -> list[tuple[RowResult, RowResult, float]]:
    """(the row's result, the baseline's, difference of a metric) of each seed that `differences` counts."""
    alike = [(ours, theirs) for ours, theirs in _pairs(group, baseline) if _alike(ours, theirs)]
    found = [(ours, theirs, _difference(ours, theirs, metric)) for ours, theirs in alike]
    return [(ours, theirs, value) for ours, theirs, value in found if value is not None]


def other_val(group: Sequence[RowResult], baseline: Sequence[RowResult]) -> bool:
    """Whether a row was evaluated on another val than the baseline, at any seed that both have."""
    return any(
        ours.record.protocol.val_digest != theirs.record.protocol.val_digest for ours, theirs in _pairs(group, baseline)
    )


def other_counts(group: Sequence[RowResult], baseline: Sequence[RowResult]) -> bool:
    """Whether the classes of a row have other training counts than the baseline's, so that its bins are others."""
    return any(ours.instance_counts != theirs.instance_counts for ours, theirs in _pairs(group, baseline))


def _pairs(group: Sequence[RowResult], baseline: Sequence[RowResult]) -> list[tuple[RowResult, RowResult]]:
    base = {result.record.seed: result for result in baseline}
    return [(result, base[result.record.seed]) for result in group if result.record.seed in base]


def _difference(ours: RowResult, theirs: RowResult, metric: str) -> float | None:
    if _by_frequency(metric) and ours.instance_counts != theirs.instance_counts:
        return None
    return _minus(ours.record.metrics.get(metric), theirs.record.metrics.get(metric))


def _alike(ours: RowResult, theirs: RowResult) -> bool:
    mine, their = ours.record.protocol, theirs.record.protocol
    return (mine.val_digest, mine.engine) == (their.val_digest, their.engine)


def _by_frequency(metric: str) -> bool:
    """AP1, ACC2, APr: means over the classes of one frequency. AP50, AP75 and ACCbg are over all of them."""
    rest = metric.removeprefix("AP").removeprefix("ACC")
    return rest in ("r", "c", "f") or (len(rest) == 1 and rest.isdigit())


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
