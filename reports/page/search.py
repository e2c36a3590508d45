"""The part of the page that a search has alone: what was gained, all trials, the figures over them. Separate from
content.py, which holds what every suite has.
"""

from __future__ import annotations

from bench.record import format_metric
from bench.search.view import Trial
from bench.suite.search import ROW
from reports.page.render import Column, Drawing, Entry, Grid, SearchPart
from reports.search.report import SearchReport
from reports.search.searched import Searched, text_of
from reports.search.text import Section, sections, to_csv

NO_VALUE = Entry("-")


def part_of(written: SearchReport, figures: tuple[Drawing, ...]) -> SearchPart:
    """Of a search's report that was just written, with its figures."""
    found = written.found
    parts = [(part.title, _grid(part, number), part.notes) for number, part in enumerate(sections(found), 1)]
    return SearchPart(tuple(parts), trials(found) if found.view.trials else None, figures, written.lacking)


def trials(found: Searched) -> Grid:
    """Every trial: its settings, state and objectives; of one that ended early what it was at its last rung."""
    view, several = found.view, ROW in found.dimensions
    names = [name for name in found.dimensions if name != ROW]
    numeric = set(found.numeric())
    columns = [Column("trial"), *([Column("row", number=False)] if several else [])]
    columns += [Column(name, number=name in numeric) for name in names]
    columns += [
        Column("state", number=False),
        *(Column(f"{metric} on {view.measured_on}") for metric in _objective(found)),
    ]
    columns += [Column("last rung", about=f"{found.objective} where it was measured last")] if _rungs(found) else []
    lines = tuple(_line(found, trial, names) for trial in view.trials)
    caption = f"{len(lines)} trials, measured on {found.measured_on()}; bold: of the final rows"
    return Grid("trials", caption, tuple(columns), lines, file=("trials.csv", to_csv(found)))


def _line(found: Searched, trial: Trial, names: list[str]) -> tuple[Entry, ...]:
    view = found.view
    final = trial.number in {one.number for one in view.finals()}
    cells = [Entry(str(trial.number), float(trial.number))]
    cells += [Entry(view.row_of(trial))] if ROW in found.dimensions else []
    cells += [_setting(trial, name) for name in names]
    cells.append(Entry(trial.state))
    for index in range(len(_objective(found))):
        value = trial.values[index] if index < len(trial.values) else None
        cells.append(Entry(format_metric(value), value, strong=final))
    if _rungs(found):
        last = max(trial.rungs, default=None)
        value = None if last is None else trial.rungs[last]
        cells.append(NO_VALUE if value is None else Entry(f"{format_metric(value)} at {last}", value))
    return tuple(cells)


def _setting(trial: Trial, name: str) -> Entry:
    if name not in trial.chosen:  # it does not use it
        return NO_VALUE
    value = trial.chosen[name]
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    return Entry(text_of(value, 5), number)


def _objective(found: Searched) -> list[str]:
    return list(found.view.search.objective)


def _rungs(found: Searched) -> bool:
    return any(trial.rungs for trial in found.view.trials)


def _grid(part: Section, number: int) -> Grid | None:
    """A section's table; None where it has sentences alone."""
    if not part.lines:
        return None
    head = part.columns or ("of the search", "is")
    numbers = bool(part.columns)
    columns = tuple(Column(name, number=numbers and place > 0) for place, name in enumerate(head))
    lines = tuple(tuple(map(Entry, line)) for line in part.lines)
    return Grid(f"search-{number}", part.title, columns, lines, plain=True)
