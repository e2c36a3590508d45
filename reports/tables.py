"""The table of a suite: rows in the suite's order, metrics as columns, mean and sd over seeds. Separate from how it is
written (reports/render.py: terminal, Markdown, LaTeX, CSV), so that all forms hold the same cells and footnotes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.record import metric_names
from reports import controls, engines
from reports.agreement import Agreement, agreements
from reports.differences import Blocks, caption, certain
from reports.footnotes import footnotes, other_data, paper_caption
from reports.load import RowResult
from reports.paper import Published, published
from reports.stats import MISSING, Cell, baseline_of, bases_of, by_row, differences, metrics_of

# The order of columns, in blocks: overall, by instance bin, by LVIS frequency, by box size, accuracy of the classifier.
BLOCKS = (
    ("AP", "AP50", "AP75"),
    ("AP1", "AP2", "AP3", "AP4"),
    ("APr", "APc", "APf"),
    ("APs", "APm", "APl"),
    ("ACC", "ACC1", "ACC2", "ACC3", "ACC4", "ACCbg"),
)
# What a narrow table keeps, most wanted first; `paper`, `delta` and `against` are blocks of their own.
WANTED = (
    *(("own", name) for name in ("AP", "AP1", "AP2", "AP3", "AP4")),
    ("delta", "AP"),
    ("against", "AP"),
    *(("paper", name) for name in ("AP", "AP1", "AP2", "AP3", "AP4")),
    *(("own", name) for name in ("APr", "APc", "APf", "AP50", "AP75", "ACC", "ACCbg", "APs", "APm", "APl")),
    *(("own", name) for name in ("ACC1", "ACC2", "ACC3", "ACC4")),
)


@dataclass(frozen=True)
class Line:
    """One row of the table.

    Attributes:
        row: its label.
        seeds: the seeds that have a record.
        own: metric -> Cell over the seeds.
        delta: metric -> Cell of the difference from the baseline row, paired by seed.
        paper: metric -> published figure, never part of `own`.
        skipped: why the row has no numbers, if it has none.
        mark: what its method wants to be said of it.
        control: label of the row that it has to beat, None without one.
        against: metric -> Cell of the difference from that row, paired by seed.
    """

    row: str
    seeds: tuple[int, ...]
    own: Mapping[str, Cell]
    delta: Mapping[str, Cell]
    paper: Mapping[str, float]
    skipped: str | None = None
    mark: str = ""
    control: str | None = None
    against: Mapping[str, Cell] = field(default_factory=dict)

    def cell(self, block: str, metric: str) -> Cell:
        """The Cell of a column; block is own, delta, against or paper."""
        if block == "paper":
            return Cell(self.paper[metric], None, 1) if metric in self.paper else MISSING
        return {"own": self.own, "delta": self.delta, "against": self.against}[block].get(metric, MISSING)


@dataclass(frozen=True)
class Table:
    """All cells of a suite's table.

    Attributes:
        title: suite name and title.
        metrics: own columns in order.
        baseline: label of the row that `delta` refers to, None where there is none.
        paper_metrics: columns of the published block.
        lines: rows in suite order.
        caption: what the published column is and how its protocol differs; empty without one.
        agreements: our order against the published one; empty without one.
        footnotes: protocol, seeds, and whatever differs between rows.
        certain: block (delta, against) -> of each row, its differences with their intervals; empty where none was made.
        certain_notes: what those intervals are of.
    """

    title: str
    metrics: tuple[str, ...]
    baseline: str | None
    paper_metrics: tuple[str, ...]
    lines: tuple[Line, ...]
    caption: str
    agreements: tuple[Agreement, ...]
    footnotes: tuple[str, ...]
    certain: Blocks = field(default_factory=dict)
    certain_notes: tuple[str, ...] = ()

    @property
    def controls(self) -> tuple[str, ...]:
        """Labels of the rows that others have to beat."""
        return tuple(dict.fromkeys(line.control for line in self.lines if line.control is not None))


def table(
    rows: Sequence[RowResult],
    *,
    suite: str,
    compare_with: str | None = None,
    order: Sequence[str] = (),
    skipped: Mapping[str, str] | None = None,
    against: Mapping[str, str] | None = None,
) -> Table:
    """Build the table.

    Args:
        rows: one result per row and seed.
        suite: name for the title.
        compare_with: name of a published table, or None.
        order: labels in suite order, also of rows without a result.
        skipped: label -> reason, for rows that were not run or failed.
        against: label -> label of the row that it has to beat.

    Raises:
        UserError: no such published table.
    """
    skipped = skipped or {}
    paper = published(compare_with) if compare_with else None
    groups = by_row(rows, order)
    baseline = baseline_of(groups)
    labels = [*order, *(label for label in [*groups, *skipped] if label not in order)]
    bases, found = _bases(groups), certain(rows, order, against)
    lines = [
        _line(label, groups.get(label, []), bases.get(label, []), paper, skipped.get(label))
        for label in dict.fromkeys(labels)
    ]
    lines = [_compared(line, groups, (against or {}).get(line.row)) for line in lines]
    return Table(
        title=suite,
        metrics=_columns(rows),
        baseline=baseline,
        paper_metrics=_paper_columns(paper),
        lines=tuple(lines),
        caption=paper_caption(paper, rows) if paper else "",
        agreements=agreements(groups, paper) if paper else (),
        footnotes=(
            *other_data(groups, baseline),
            *controls.sentences(groups, against or {}),
            *engines.sentences(groups),
            *footnotes(rows),
        ),
        certain=found,
        certain_notes=caption(rows, found),
    )


def to_json(
    rows: Sequence[RowResult],
    *,
    compare_with: str | None = None,
    order: Sequence[str] = (),
    skipped: Mapping[str, str] | None = None,
    against: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """[{row, seeds, metrics: {AP: {mean, sd, n}}, delta, protocol}]; None where a value is missing.

    A row that has one to beat has "against": {row, delta}. `protocol` is that of the first seed. A skipped row has
    "skipped": reason and no metrics. Beside a published table a row that it has too carries its figures, "paper":
    {AP: ...}, and "order": {AP: {here, paper, tau_b, p, rows, per_seed}}, its two ranks and how far the two orders
    agree over all rows.

    Raises:
        UserError: no such published table.
    """
    groups = by_row(rows, order)
    paper = published(compare_with) if compare_with else None
    orders = _orders(agreements(groups, paper)) if paper else {}
    found: list[dict[str, Any]] = []
    bases, sure = _bases(groups), certain(rows, order, against)
    for label in dict.fromkeys([*order, *groups, *(skipped or {})]):
        group = groups.get(label, [])
        entry: dict[str, Any] = {"row": label, "seeds": [result.record.seed for result in group]}
        entry["metrics"] = {name: _plain(cell) for name, cell in metrics_of(group).items()}
        entry["delta"] = {name: _plain(cell) for name, cell in differences(group, bases.get(label, [])).items()}
        apart = [one.plain(metric) for found in sure.values() for metric, one in found.get(label, {}).items()]
        if apart:
            entry["intervals"] = apart
        entry["protocol"] = group[0].record.protocol.model_dump(mode="json") if group else None
        if label in (against or {}):
            control = (against or {})[label]
            delta = differences(group, groups.get(control, []))
            entry["against"] = {"row": control, "delta": {name: _plain(cell) for name, cell in delta.items()}}
        if paper and paper.of(label):
            entry["paper"] = dict(paper.of(label))
        if label in orders:
            entry["order"] = orders[label]
        if group and group[0].record.mark:
            entry["mark"] = group[0].record.mark
        if skipped and label in skipped:
            entry["skipped"] = skipped[label]
        found.append(entry)
    return found


def _orders(found: Sequence[Agreement]) -> dict[str, dict[str, Any]]:
    """Row label -> metric -> its two ranks, with the agreement of the whole order beside them."""
    orders: dict[str, dict[str, Any]] = {}
    for one in found:
        per_seed = {str(seed): tau for seed, tau in one.per_seed.items()}
        whole = {"tau_b": one.tau, "p": one.p, "rows": len(one.places), "per_seed": per_seed}
        for place in one.places:
            orders.setdefault(place.row, {})[one.metric] = {"here": place.here, "paper": place.paper, **whole}
    return orders


def _line(
    label: str,
    group: Sequence[RowResult],
    base: Sequence[RowResult],
    paper: Published | None,
    skipped: str | None,
) -> Line:
    reason = skipped if skipped or group else "no result yet"
    delta = differences(group, base) if base is not group else {}
    figures = paper.of(label) if paper else {}
    mark = group[0].record.mark if group else ""
    return Line(label, tuple(r.record.seed for r in group), metrics_of(group), delta, figures, reason, mark)


def _compared(line: Line, groups: Mapping[str, Sequence[RowResult]], control: str | None) -> Line:
    """A line with its differences from the row that it has to beat, if there is one."""
    if control is None:
        return line
    return replace(line, control=control, against=differences(groups.get(line.row, []), groups.get(control, [])))


def _bases(groups: Mapping[str, Sequence[RowResult]]) -> dict[str, Sequence[RowResult]]:
    """Label of a row -> the results that it is compared with."""
    return {label: groups[base] for label, base in bases_of(groups).items()}


def _columns(rows: Sequence[RowResult]) -> tuple[str, ...]:
    """All metrics of the records' bins in the order of BLOCKS; a fifth bin goes behind the fourth."""
    bins = max((len(result.record.protocol.bins) + 1 for result in rows), default=4)
    legal = metric_names(bins)
    columns: list[str] = []
    for block in BLOCKS:
        columns += [name for name in block if name in legal]
        if block[-1] == "AP4" and bins > 4:
            columns += [f"AP{i}" for i in range(5, bins + 1)]
    extra = [name for name in legal if name not in columns]
    return (*columns, *extra)


def _paper_columns(paper: Published | None) -> tuple[str, ...]:
    if paper is None:
        return ()
    present = {metric for figures in paper.rows.values() for metric in figures}
    return tuple(name for block in BLOCKS for name in block if name in present)


def _plain(cell: Cell) -> dict[str, float | int | None]:
    return {"mean": cell.mean, "sd": cell.sd, "n": cell.n}
