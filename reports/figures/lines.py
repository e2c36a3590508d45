"""Which rows make one line of a sweep. Separate from drawing it: it is decided by settings alone.

A line holds one row at each x. Where several rows would lie at one x (a suite that varies more than `by` names), the
line falls into those whose other settings agree, so that every line changes one thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.key import canonical
from reports.load import RowResult
from reports.settings import ABSENT, setting, text
from reports.stats import Cell, by_row, metrics_of

if TYPE_CHECKING:
    from bench.plan.planning import RowPlan


@dataclass(frozen=True)
class Point:
    """A row of the sweep: its place on the axis, its numbers, and the settings that distinguish it.

    Attributes:
        row: its label.
        method: its recipe.
        x: value of the setting on the axis; ABSENT for a reference.
        cells: metric -> Cell over seeds.
        settings: of the row, with its method.
    """

    row: str
    method: str
    x: Any
    cells: Mapping[str, Cell]
    settings: Mapping[str, Any]

    def rest(self, x: str) -> dict[str, str]:
        """All settings but that on the axis, as text: "schedule.lr" -> "0.2"."""
        return {
            name: value for name, value in leaves(self.settings).items() if name != x and not name.startswith(f"{x}.")
        }


def points(
    rows: Sequence[RowResult],
    x: str,
    *,
    labels: Sequence[str] = (),
    planned: Sequence[RowPlan] = (),
    order: Sequence[str] = (),
) -> list[Point]:
    """The rows of a sweep in suite order, those without a result as well where `planned` has their settings.

    Args:
        rows: one result a row and seed.
        x: the setting on the axis.
        labels: rows to take; () takes all that have the setting. If none of these has it, they are references beside
            all rows that have it.
        planned: the suite's rows.
        order: labels in the order of the suite.
    """
    groups = by_row(rows, order)
    recipes: dict[str, tuple[str, Any]] = {row.label: (row.method, canonical(row.settings)) for row in planned}
    recipes |= {label: (group[0].record.method, group[0].record.settings) for label, group in groups.items()}
    having = [label for label, (_, settings) in recipes.items() if setting(settings, x) is not ABSENT]
    wanted = set(labels) if set(labels) & set(having) else {*labels, *having}
    found = []
    for label in dict.fromkeys([*order, *recipes]):
        if label in wanted and label in recipes:
            method, settings = recipes[label]
            cells = metrics_of(groups.get(label, []))
            found.append(Point(label, method, setting(settings, x), cells, {**settings, "method": method}))
    return found


def lines(swept: Sequence[Point], x: str, by: Sequence[str]) -> dict[str, list[Point]]:
    """Name -> the points of a line, one at each x.

    Args:
        swept: points that have the setting.
        x: names the line where nothing else does.
        by: settings, or "method", one line for each combination of their values.
    """
    named: dict[str, list[Point]] = {}
    for point in swept:
        named.setdefault(", ".join(_value(point, name) for name in by) or x, []).append(point)
    found: dict[str, list[Point]] = {}
    for name, line in named.items():
        alike: dict[str, list[Point]] = {}
        for point in line if len({text(point.x) for point in line}) < len(line) else ():
            alike.setdefault(str(sorted(point.rest(x).items())), []).append(point)
        found |= _split(name, list(alike.values()), x) if alike else {name: line}
    return found


def leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """{"beta": 8, "schedule": {"lr": 0.2}} -> {"beta": "8", "schedule.lr": "0.2"}."""
    found: dict[str, str] = {}
    for name in settings:
        value = setting(settings, name)
        inner = leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": text(value)}
        found |= inner
    return found


def _split(name: str, parts: Sequence[Sequence[Point]], x: str) -> dict[str, list[Point]]:
    """Parts of one line: a single row by its label, a longer one by the settings in which it is not like the others;
    where it is the only one and nothing else names it, like the single rows of its method."""
    long = [part[0] for part in parts if len(part) > 1]
    single = [part[0] for part in parts if len(part) == 1] if len(long) == 1 and name == x else []
    beside = [point for point in single if point.method == long[0].method]
    rests = [point.rest(x) for point in (*long, *beside)]
    names = dict.fromkeys(name for rest in rests for name in rest)
    differing = [name for name in names if len({rest.get(name) for rest in rests}) > 1]
    found: dict[str, list[Point]] = {}
    for part in parts:
        parts_of_name = [_value(part[0], own) for own in differing if setting(part[0].settings, own) is not ABSENT]
        label = part[0].row if len(part) == 1 else ", ".join(parts_of_name) or name
        found.setdefault(label if label not in found else f"{label} ({part[0].row})", []).extend(part)
    return found


def _value(point: Point, name: str) -> str:
    """ "beta 8"; the method by its name alone; a dotted setting by its last word."""
    value, last = setting(point.settings, name), name.rpartition(".")[2]
    if value is ABSENT:
        return f"no {last}"
    return text(value) if name == "method" else f"{last} {text(value)}"
