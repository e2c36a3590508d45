"""The two sides of a comparison: tables of a suite, of a store or of an export, loaded alike. Separate from what is
made of them; of a store no suite's file is needed, since it notes the rows of every table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.errors import UserError
from bench.lineage import read_stage
from bench.plan.planning import RowPlan
from bench.stage import Stage
from bench.store.roots import Root
from bench.store.store import Store
from reports.frames import not_noted
from reports.load import RowResult, load_rows
from reports.predictions import with_kept


@dataclass(frozen=True)
class Side:
    """One side.

    Attributes:
        rows: its results, with what is kept of them.
        order: labels of its rows.
        stages: those that measured them, by key.
    """

    rows: Sequence[RowResult]
    order: tuple[str, ...]
    stages: Mapping[str, Stage]


@dataclass(frozen=True)
class SourceTable:
    """A table that a source has: its name (a suite's, and six digits where options made it another), its suite's name,
    how it is loaded, and why it cannot be."""

    name: str
    suite: str
    load: Callable[[], Side]
    lacking: UserError | None = None


def side_of(store: Store, planned: Sequence[RowPlan], suite: str) -> Side:
    """Rows of a suite in a store, those that are done."""
    stages = {row.evaluate.key: row.evaluate for row in planned if row.evaluate is not None}
    rows = with_kept(store, stages, load_rows(store, planned, suite, ()))
    return Side(rows, tuple(dict.fromkeys(row.label for row in planned)), stages)


def tables_of(store: Store) -> list[SourceTable]:
    """All tables that were run on a store.

    Raises:
        UserError: a root that cannot be read.
    """
    return [_table(store, root) for root in store.roots()]


def _table(store: Store, root: Root) -> SourceTable:
    lacking = not_noted(root, store.root) if root.table is None else None
    return SourceTable(root.name, Path(root.suite).stem, _loader(store, root), lacking)


def _loader(store: Store, root: Root) -> Callable[[], Side]:
    return lambda: _of_root(store, root)


def _of_root(store: Store, root: Root) -> Side:
    if root.table is None:
        raise not_noted(root, store.root)
    stages: dict[str, Stage] = {}
    planned: dict[tuple[str, int], RowPlan] = {}
    for line in root.table:  # of one row and seed the last line is the newest
        if store.done(line.evaluate) is not None:
            evaluate = read_stage(store.load, line.evaluate, stages)
            row = RowPlan(line.row, line.seed, line.method, line.settings, evaluate, mark=line.mark)
            planned[line.row, line.seed] = row
    return side_of(store, tuple(planned.values()), Path(root.suite).stem)


def pairs(
    ours: Sequence[SourceTable], theirs: Sequence[SourceTable], names: tuple[str, str]
) -> list[tuple[SourceTable, SourceTable]]:
    """Which tables are compared: the only ones of both, those of one name, or those of suites of one name. One whose
    rows its store has not noted only where there is no other.

    Raises:
        UserError: there is none, or more than one could be meant.
    """
    ours, theirs = ([table for table in of if table.lacking is None] or of for of in (ours, theirs))
    if len(ours) == len(theirs) == 1:
        return [(ours[0], theirs[0])]
    by_name = {table.name: table for table in theirs}
    found = [(table, by_name[table.name]) for table in ours if table.name in by_name]
    if not found:
        found = [(a, b) for a in ours for b in theirs if a.suite == b.suite]
        twice = len({a.name for a, _ in found}) < len(found) or len({b.name for _, b in found}) < len(found)
        if not found or twice:
            what = "which tables are meant is not clear" if found else "no suite of one name is in both"
            legal = [
                f"{side}: {', '.join(sorted(t.name for t in of)) or 'none'}"
                for side, of in zip(names, (ours, theirs), strict=True)
            ]
            hint = "name one table of a store by its note: STORE/roots/NAME.json"
            raise UserError(what, where="--compare", allowed="; ".join(legal), hint=hint)
    return found


def joined(sides: Sequence[tuple[str, Side]]) -> Side:
    """Several tables of a source as one side, rows as `table: row`; one table as it is."""
    if len(sides) == 1:
        return sides[0][1]
    rows = [
        replace(row, record=row.record.model_copy(update={"row": f"{name}: {row.record.row}"}))
        for name, side in sides
        for row in side.rows
    ]
    order = tuple(f"{name}: {label}" for name, side in sides for label in side.order)
    return Side(rows, order, {key: stage for _, side in sides for key, stage in side.stages.items()})
