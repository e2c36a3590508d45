"""A search in words and tables: search.txt, search.md, trials.csv. Separate from its figures, which need matplotlib."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.errors import cell_text, printable
from bench.record import format_metric
from bench.search.view import Trial
from bench.suite.search import ROW, Dimension, Scalar
from reports.footnotes import footnotes
from reports.gain import shown, signed
from reports.render import WIDTH, markdown
from reports.search.searched import Final, Searched, chosen_text, row_text
from reports.settings import text
from reports.stats import MISSING, Cell

WHY = 3  # reasons of failed trials that are told


@dataclass(frozen=True)
class Section:
    """A part of the report: a title, a table, sentences."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def sections(found: Searched) -> list[Section]:
    """What was searched, the gain, the optimism, the protocol of the trials."""
    parts = [_what(found), *(_gain(found, final) for final in found.compared())]
    if found.complete:
        parts.append(_optimism(found))
    protocol = [note for note in footnotes(found.trials) if not note.startswith("by row: ")]
    parts += [Section("Protocol of the trials", (), (), tuple(protocol))] if protocol else []
    mark = found.view.mark
    return [Section(f"{part.title} ({mark})" if mark else part.title, *_rest(part)) for part in parts]


def gain_sentences(found: Searched) -> list[str]:
    """One for each final and objective: what was gained on val, and whether that is real."""
    finals = found.compared()
    sentences = [
        f"{final.label} against {final.default} on val: {one.spoken(found.view.mark)}"
        for final in finals
        for one in final.gains
        if one.metric in found.view.search.objective
    ]
    if len(sentences) > 1 and not found.view.mark:
        sentences.append(
            f"each of these {len(sentences)} intervals stands by itself: of 20 without a true difference, about one "
            "excludes zero"
        )
    return sentences


def to_text(found: Searched) -> str:
    """For a terminal."""
    out = [found.heading, *([found.view.mark] if found.view.mark else [])]
    for section in sections(found):
        out += ["", section.title]
        out += [f"  {line}" for line in _grid(section)]
        for note in section.notes:
            out += textwrap.wrap(
                printable(note), WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
            )
    return "\n".join(line.rstrip() for line in out) + "\n"


def to_markdown(found: Searched) -> str:
    """The same as search.txt."""
    out = [f"# {markdown(found.heading)}", *([f"\n**{found.view.mark}**"] if found.view.mark else [])]
    for section in sections(found):
        out.append(f"\n## {markdown(section.title)}\n")
        if section.lines:
            head = section.columns or ("",) * len(section.lines[0])
            out += [f"| {' | '.join(map(markdown, head))} |", "|---|" + ("---:|" if section.columns else "---|") *
                    (len(head) - 1)]  # fmt: skip
            out += [f"| {' | '.join(map(markdown, line))} |" for line in section.lines]
            out.append("")
        out += [f"- {markdown(note)}" for note in section.notes]
    return "\n".join(out) + "\n"


def to_csv(found: Searched) -> str:
    """Every trial: number, state, row, each dimension, each objective, each rung; numbers with all digits."""
    view = found.view
    names = [name for name in found.dimensions if name != ROW]
    rungs = sorted({step for trial in view.trials for step in trial.rungs})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    objectives = [f"{metric} on {view.measured_on}" for metric in view.search.objective]
    at = [f"{found.objective} at {step}" for step in rungs]
    head = ["number", "state", "row", *names, *objectives, *at, "bracket", "why", *(["note"] if view.mark else [])]
    writer.writerow([cell_text(name) for name in head])
    for trial in view.trials:
        values = [*trial.values, *[None] * (len(objectives) - len(trial.values))]
        line: list[Scalar] = [trial.number, trial.state, view.row_of(trial)]
        cells = [*line, *(_used(trial.chosen, name) for name in names), *values, *map(trial.rungs.get, rungs)]
        note = [view.mark] if view.mark else []
        writer.writerow([_csv(cell) for cell in (*cells, trial.bracket, trial.why, *note)])
    return out.getvalue()


def _used(chosen: object, name: str) -> Scalar:
    """The value of a dimension; "" where the trial does not have it. (null is a value.)"""
    assert isinstance(chosen, dict)
    if name not in chosen:
        return ""
    value: Scalar = chosen[name]
    return text(value) if value is None or isinstance(value, bool) else value


def _csv(value: Scalar) -> str:
    if value is None:
        return ""
    return cell_text(value) if isinstance(value, str) else repr(value)


def _rest(part: Section) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...], tuple[str, ...]]:
    return part.columns, part.lines, part.notes


def _what(found: Searched) -> Section:
    view, search = found.view, found.view.search
    pruner = "" if search.pruner == "none" else f", pruner {search.pruner}"
    states = ", ".join(f"{number} {state}" for state, number in found.states()) or "none yet"
    lines = [("search", view.name)]
    lines += [(f"searched: {name}", _dimension_text(found, name)) for name in found.dimensions if name != ROW]
    lines += [
        ("rows", ", ".join(found.rows)),
        ("objective", ", ".join(search.objective)),
        ("sampler", f"{search.sampler}, seed {search.seed}, {search.round} trials a round{pruner}"),
        ("trials", f"{len(view.trials)}: {states}" if view.trials else states),
        ("measured on", found.measured_on()),
    ]
    lines += [("tune", view.divided)] if view.divided else []
    spent = f"{view.hours:.2f} h" + (f", {view.machine_hours:.2f} machine hours" if view.machine_hours else "")
    lines += [("spent", spent)] if view.hours else []
    if len(view.finals()) == 1 and found.winner is not None:
        lines.append(("winner", _winner_text(found, found.winner)))
    else:
        lines += [("final", _winner_text(found, trial)) for trial in view.finals()]
    notes = [] if found.complete else ["no trial is complete: there is no winner yet"]
    failed = list(dict.fromkeys(trial.why for trial in found.of_state("failed") if trial.why))
    notes += [f"failed: {why}" for why in failed[:WHY]]
    return Section("Search", (), tuple(lines), tuple(notes))


def _winner_text(found: Searched, trial: Trial) -> str:
    values = ", ".join(
        f"{metric} {format_metric(value)}"
        for metric, value in zip(found.view.search.objective, trial.values, strict=False)
    )
    return f"trial {trial.number}: {row_text(found, trial)}{chosen_text(trial)}; {values} on {found.view.measured_on}"


def _dimension_text(found: Searched, name: str) -> str:
    dimension = found.dimensions[name]
    used_by = found.view.space.used_by[name]
    only = (
        f"; only of {', '.join(row for row in found.rows if row in used_by)}" if len(used_by) < len(found.rows) else ""
    )
    conditions = {other: value for other, value in dimension.when.items() if other != ROW}
    when = f"; only with {text(conditions)}" if conditions else ""
    return f"{_range_text(dimension)}{only}{when}"


def _range_text(dimension: Dimension) -> str:
    if dimension.choices:
        return ", ".join(map(text, dimension.choices))
    kinds = [
        *(["log"] if dimension.log else []), *(["whole numbers"] if dimension.int else []),
        *([f"steps of {dimension.step:g}"] if dimension.step is not None else []),
    ]  # fmt: skip
    return ", ".join([f"{dimension.low:g} to {dimension.high:g}", *kinds])


def _gain(found: Searched, final: Final) -> Section:
    seeds = max((cell.n for cells in (final.own, final.base) for cell in cells.values()), default=0)
    lines = tuple(
        (
            one.metric, shown(one.default, seeds), shown(one.winner, seeds),
            "-" if one.difference.mean is None else signed(one.difference.mean), one.interval(),
            str(one.difference.n),
        )
        for one in final.gains
    )  # fmt: skip
    spoken = [one.spoken(found.view.mark) for one in final.gains if one.metric in found.view.search.objective]
    how = "Student's, of the differences paired by seed"
    if any(one.images for one in final.gains):
        how = "of the differences paired by seed and image, over val images and seeds"
    notes = [*spoken, f"interval: 95 %, {how}; n: seeds that both rows have"]
    notes.append("each interval stands by itself: of 20 without a true difference, about one excludes zero")
    columns = ("metric", final.default, final.label, "gain", "interval", "n")
    return Section(f"Gain on val: {final.label} against {final.default}, untouched", columns, lines, tuple(notes))


def _optimism(found: Searched) -> Section:
    """The objective where the search chose by it, beside the same metric on val."""
    lines = list(dict.fromkeys(_optimism_lines(found)))
    on = found.view.measured_on
    chosen = "val, in the search" if found.view.mark else on
    notes = [
        f"the best of {len(found.complete)} complete trials was chosen by its number on {on}: the luck of the best is "
        f"in it{'' if found.view.mark else '; val has chosen nothing'}",
    ]
    if not found.view.mark:
        notes.append(
            "the images differ too, and trials train on fewer: compare the winner's difference with the default's"
        )
    if any(line[1] == "-" for line in lines):
        notes.append("-: no trial is known to have the settings of the untouched row")
    columns = ("row", "trial", "metric", f"on {chosen}", "on val", "difference")
    return Section("Optimism: what was chosen by, beside what is reported", columns, tuple(lines), tuple(notes))


def _optimism_lines(found: Searched) -> Iterator[tuple[str, ...]]:
    for final in found.compared():
        default = found.default_trial(final.default)
        for index, metric in enumerate(found.view.search.objective):
            own, base = final.own.get(metric, MISSING), final.base.get(metric, MISSING)
            yield _optimism_line(final.label, final.trial.number, final.trial.values[index], metric, own)
            if default is not None:
                yield _optimism_line(final.default, default.number, default.values[index], metric, base)
            else:
                yield _optimism_line(final.default, None, None, metric, base)


def _optimism_line(label: str, number: int | None, value: float | None, metric: str, val: Cell) -> tuple[str, ...]:
    known = value is not None and val.mean is not None
    return (
        label, "-" if number is None else str(number), metric, format_metric(value), shown(val, val.n),
        signed(value - val.mean) if known else "-",  # type: ignore[operator]
    )  # fmt: skip


def _grid(section: Section) -> list[str]:
    """Aligned columns, the first to the left, numbers to the right; without a head: names and what they are."""
    if not section.lines:
        return []
    every = [*([section.columns] if section.columns else []), *section.lines]
    every = [tuple(printable(cell) for cell in line) for line in every]
    widths = [max(len(line[i]) for line in every) for i in range(len(every[0]))]
    if not section.columns:
        return [part for name, value in every for part in _pair(name, value, widths[0])]
    return [_aligned(line, widths) for line in every]


def _pair(name: str, value: str, wide: int) -> list[str]:
    """A name and what it is, over several lines where it is long."""
    room = max(40, WIDTH - wide - 2)
    parts = textwrap.wrap(value, room, break_on_hyphens=False, break_long_words=False) or [""]
    return [f"{(name if i == 0 else '').ljust(wide)}  {part}" for i, part in enumerate(parts)]


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.rjust(wide) if i else cell.ljust(wide) for i, (cell, wide) in enumerate(zip(line, widths, strict=True))
    )
    return "  ".join(cells)
