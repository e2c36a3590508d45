"""`report A B --compare`: two suites, stores or exports side by side. Separate from report.py: one suite is shown."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console

from bench.cli.say import listed, say
from bench.cli.tables import label
from bench.cli.wanted import reported, seen
from bench.errors import UserError, unknown
from bench.plan import planning
from bench.store import roots
from bench.store.disk import make_folder, put
from bench.store.existing import existing
from bench.store.pack import is_export, unpacked
from bench.store.store import Store
from bench.suite.suite import Suite
from reports.compare.sides import Side, SourceTable, joined, pairs, side_of, tables_of
from reports.exports.read import open_export

SUITES = (".yaml", ".yml")
MOST = 8  # names of a list
LEGAL = "a suite's file, a store's folder, STORE/roots/NAME.json, an export"


@dataclass(frozen=True)
class Sources:
    """How suites' files are read.

    Attributes:
        store: where their results are.
        open: opens one with --preset, --data, --set, --only and --seeds.
        given: those of them that were given.
    """

    store: Path
    open: Callable[[Path], Suite]
    given: tuple[str, ...]


def check(a: Path, b: Path | None, *, asked: bool, refused: Sequence[str]) -> None:
    """Refuse half of a comparison, and options that it has no use for.

    Raises:
        UserError: no B, or no --compare; one of these options.
    """
    if b is None:
        hint = f"python -m bench report {a} OTHER --compare"
        raise UserError("two sources are compared, and one was named", where="--compare", allowed=LEGAL, hint=hint)
    if not asked:
        hint = f"put them side by side: python -m bench report {a} {b} --compare"
        raise UserError("a report is of one suite", where=str(b), hint=hint)
    if refused:
        raise UserError("a comparison has no use for it", where=refused[0], hint="leave it out with --compare")


def compare(a: Path, b: Path, sources: Sources, console: Console, out: Path | None, *, as_json: bool) -> None:
    """`bench report A B --compare`.

    Raises:
        UserError: a side that is nothing of the kind, without a result, or without a table that the other has; options
            where neither is a suite's file.
    """
    from reports.compare import comparison, render
    from reports.render import WIDTH
    from reports.write import writing

    if sources.given and a.suffix not in SUITES and b.suffix not in SUITES:
        what = "options change a suite's file, and neither A nor B is one"
        raise UserError(what, where=", ".join(sources.given), hint="leave them out, or name the suite's file")
    names = (str(a), str(b))
    with contextlib.ExitStack() as stack:
        ours, theirs = (_tables(path, sources, stack) for path in (a, b))
        chosen = pairs(ours, theirs, names)
        _say_left_out(names, (ours, theirs), chosen)
        sides = tuple(joined([(table[i].name, table[i].load()) for table in chosen]) for i in (0, 1))
        for name, side in zip(names, sides, strict=True):
            if not side.rows:
                raise UserError("no row has a result yet", where=name, hint="run it first: python -m bench run SUITE")
        named = tuple(_title(name, [one[i] for one in chosen]) for i, name in enumerate(names))
        found = comparison.compare((named[0], named[1]), sides[0], sides[1])
    if as_json:
        typer.echo(json.dumps(render.to_json(found), indent=1, allow_nan=False))
        return
    say(console, render.to_text(found, console.width if console.is_terminal else WIDTH))
    if out is None:
        say(console, f"--out FOLDER writes all of it: {', '.join(render.files_of(found))}")
        return
    with writing(out):
        make_folder(out)
        for name, text in render.files_of(found).items():
            put(out / name, text.encode())
    say(console, f"comparison: {out}  ({', '.join(render.files_of(found))})")


def _say_left_out(
    names: tuple[str, str], sides: Sequence[Sequence[SourceTable]], chosen: Sequence[tuple[SourceTable, SourceTable]]
) -> None:
    compared = [table for pair in chosen for table in pair]
    for name, tables in dict(zip(names, sides, strict=True)).items():
        old = [table for table in tables if table.lacking is not None and table not in compared]
        if old and old[0].lacking is not None:
            told = f"{name}: left out, since which rows they have was not noted: {listed([t.name for t in old], MOST)}"
            say(Console(stderr=True), f"{told}\n  {old[0].lacking.hint}")


def _title(name: str, tables: Sequence[SourceTable]) -> str:
    text = ", ".join(table.name for table in tables)
    return name if Path(name).stem == text else f"{name} ({text})"


def _tables(path: Path, sources: Sources, stack: contextlib.ExitStack) -> list[SourceTable]:
    if path.suffix in SUITES:
        return [_of_suite(path, sources)]
    if path.suffix == ".json" and path.parent.name == roots.FOLDER:
        store = existing(path.parent.parent)
        notes = {root.file: table for table, root in zip(tables_of(store), store.roots(), strict=True)}
        if path.stem not in notes:
            raise unknown("table", path.stem, notes, where=str(path.parent))
        return [notes[path.stem]]
    if path.suffix == ".zip" or is_export(path):
        opened = open_export(stack.enter_context(unpacked(path)))
        shown, name = opened.shown, next((root.name for root in opened.store.roots()), opened.shown.suite)
        return [SourceTable(name, shown.suite, lambda: Side(opened.rows, shown.order, shown.evaluations))]
    if not path.is_dir():
        what = "no such file or folder" if not path.exists() else "nothing that has results"
        raise UserError(what, where=str(path), allowed=LEGAL)
    tables = tables_of(Store(path))
    if not tables:
        raise UserError("no store: no suite was run on this folder", where=str(path), allowed=LEGAL)
    return tables


def _of_suite(path: Path, sources: Sources) -> SourceTable:
    suite, store = sources.open(path), existing(sources.store)
    if suite.sections.search is not None:
        suite = reported(suite, seen(suite, store)).suite
    plan = planning.make(suite)
    return SourceTable(label(plan), suite.name, lambda: side_of(store, plan.rows, suite.name))
