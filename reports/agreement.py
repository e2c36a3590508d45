"""Whether our rows come in the paper's order. Separate from the table that prints it, since the numbers themselves are
measured under two protocols and must not be subtracted: only their order is compared.

Rank 1 is the best row; rows that tie share the mean of their ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.load import RowResult
from reports.paper import Published
from reports.stats import baseline_of, engine_of, kendall, metrics_of, other_val, p_text, summarise

METRICS = ("AP", "AP1")  # overall, and where the paper's methods differ most
FEWEST = 3  # common rows; two are in one of two orders
PLACES = 3  # a row is named where its two ranks differ by at least this much


@dataclass(frozen=True)
class Place:
    """One row's rank among the common rows, here and in the paper."""

    row: str
    here: float
    paper: float

    @property
    def apart(self) -> float:
        return abs(self.here - self.paper)


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau-b between our order (means over seeds) and the published one.

    Attributes:
        metric: by which both are ordered.
        tau: in [-1, 1]; None where all rows tie in one of the two.
        p: two-sided, of no association; None where tau is.
        places: the rows that both have, in table order.
        per_seed: seed -> tau of that seed's order alone, for seeds that have all of these rows.
    """

    metric: str
    tau: float | None
    p: float | None
    places: tuple[Place, ...]
    per_seed: Mapping[int, float | None]

    @property
    def apart(self) -> tuple[Place, ...]:
        """The rows that disagree most, widest first."""
        wide = [place for place in self.places if place.apart >= PLACES]
        return tuple(sorted(wide, key=lambda place: -place.apart))


def agreements(groups: Mapping[str, Sequence[RowResult]], paper: Published) -> tuple[Agreement, ...]:
    """One per metric of METRICS that at least FEWEST rows have in both; a row on other val data than the baseline's, or
    on another engine, is left out.

    Args:
        groups: row label -> its results, one per seed.
        paper: the published table.
    """
    base = groups.get(baseline_of(groups) or "", [])
    engine = engine_of(base) if base else None
    alike = {
        label: group
        for label, group in groups.items()
        if not other_val(group, base) and engine in (None, engine_of(group))
    }
    found = [_agreement(metric, alike, paper) for metric in METRICS]
    return tuple(agreement for agreement in found if agreement is not None)


def sentences(agreement: Agreement) -> str:
    """For below a table: tau, how sure, over what, its spread over seeds, and the rows that disagree most."""
    value = "not defined, all rows tie" if agreement.tau is None else f"{agreement.tau:+.2f}"
    sure = "" if agreement.p is None else f" ({p_text(agreement.p)}, two-sided, of no association)"
    over = f"over {len(agreement.places)} rows{_spread(agreement.per_seed)}"
    text = f"order by {agreement.metric} against the paper's: Kendall tau-b {value}{sure} {over}"
    named = [f"{place.row} {place.here:g} here, {place.paper:g} there" for place in agreement.apart]
    if named:
        return f"{text}. At least {PLACES} places apart (1 is the best): {'; '.join(named)}"
    return f"{text}. No row is {PLACES} places apart"


def _agreement(metric: str, groups: Mapping[str, Sequence[RowResult]], paper: Published) -> Agreement | None:
    from scipy.stats import rankdata

    ours = {label: metrics_of(group)[metric].mean for label, group in groups.items() if metric in metrics_of(group)}
    pairs = {
        label: (mean, paper.of(label)[metric])
        for label, mean in ours.items()
        if mean is not None and metric in paper.of(label)
    }
    if len(pairs) < FEWEST:
        return None
    here, there = zip(*pairs.values(), strict=True)
    ranks = zip(pairs, rankdata([-v for v in here]), rankdata([-v for v in there]), strict=True)
    places = tuple(Place(label, float(a), float(b)) for label, a, b in ranks)
    tau, p = kendall(here, there)
    seeds = sorted({result.record.seed for label in pairs for result in groups[label]})
    per_seed: dict[int, float | None] = {}
    for seed in seeds if len(seeds) > 1 else []:
        values = [_of_seed(groups[label], seed, metric) for label in pairs]
        present = [value for value in values if value is not None]
        if len(present) == len(pairs):
            per_seed[seed] = kendall(present, there)[0]
    return Agreement(metric, tau, p, places, per_seed)


def _of_seed(group: Sequence[RowResult], seed: int, metric: str) -> float | None:
    return next((r.record.metrics.get(metric) for r in group if r.record.seed == seed), None)


def _spread(per_seed: Mapping[int, float | None]) -> str:
    cell = summarise(per_seed.values())
    if cell.sd is None:
        return ""
    present = [tau for tau in per_seed.values() if tau is not None]
    return f"; of one seed's order {min(present):+.2f} to {max(present):+.2f} (sd {cell.sd:.2f}, {cell.n} seeds)"
