"""`bench methods check` and `bench engines check`: run the checks and print a table per method or engine. Separate from
checks.py and engine.py because tests print nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.contract_check.built import EngineSubject
from bench.contract_check.checks import CHECKS, named
from bench.contract_check.engine import examine_engine
from bench.contract_check.place import sandboxes
from bench.contract_check.subject import Subject, Verdict, examine
from bench.engines.facts import ENGINES, facts
from bench.errors import UserError, printable

LINES = "\n\t"  # stay in a text of several lines
COLOURS = {"pass": "green", "fail": "bold red", "skip": "yellow"}


def methods_check(words: Sequence[str], engine: str | None, console: Console, *, traceback: bool = False) -> int:
    """Check the methods that the words name; 0: all promises are kept, 1: some are not.

    Args:
        words: names of methods, .py files, folders of these.
        engine: one engine; None: all that can be imported here.
        console: where the table goes.
        traceback: print where a failure came from; BENCH_DEBUG=1 does the same.

    Raises:
        UserError: a word that names nothing, an engine that is not there.
    """
    engines = _here() if engine is None else [facts(engine).name]
    found = [(word, named(word)) for word in words]
    failed: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="bench-check-") as folder:
        here, missing = sandboxes(Path(folder), engines)
        if not here:
            raise UserError("; ".join(missing.values()), where="--engine", allowed=", ".join(ENGINES))
        for word, target in found:
            if target.broken is not None:
                failed += _table(word, [target.broken], console)
            for name, kind in target.methods.items():
                for place in here:
                    with console.status(_shown(f"{name} on {place.engine}")):
                        findings = list(examine(Subject(kind, place), CHECKS))
                    failed += _table(f"{name} on {place.engine}", findings, console)
    for reason in missing.values():
        console.print(
            f"not checked: {printable(reason)}", style="yellow", highlight=False, markup=False, soft_wrap=True
        )
    return _ended(failed, console, traceback)


def engines_check(names: Sequence[str], console: Console, *, traceback: bool = False) -> int:
    """Check the engines of these names; 0: all promises are kept, 1: some are not.

    Args:
        names: of engines.
        console: where the tables go.
        traceback: print where a failure came from; BENCH_DEBUG=1 does the same.

    Raises:
        UserError: an engine that is not there, or whose package cannot be used.
    """
    failed: list[Verdict] = []
    for name in names:
        why = facts(name, "engines check").absent()
        if why is not None:
            raise UserError(why, where="engines check")
    with tempfile.TemporaryDirectory(prefix="bench-check-") as folder:
        for name in dict.fromkeys(names):
            with console.status(_shown(f"engine {name}")):
                findings = list(examine_engine(EngineSubject(name, Path(folder))))
            failed += _table(f"engine {name}", findings, console)
    return _ended(failed, console, traceback)


def _ended(failed: Sequence[Verdict], console: Console, traceback: bool) -> int:
    """The exit code; where failures came from, if that is wanted."""
    if traceback or os.environ.get("BENCH_DEBUG"):
        for finding in failed:
            console.print(
                f"\n{finding.check}:\n{printable(finding.trace, keep=LINES)}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
    elif any(finding.trace for finding in failed):
        console.print("where it failed: the same with --traceback", highlight=False)
    return 1 if failed else 0


def _here() -> list[str]:
    """Engines whose library is installed."""
    return [engine.name for engine in ENGINES.values() if engine.absent() is None]


def _table(title: str, findings: Sequence[Verdict], console: Console) -> list[Verdict]:
    """Print the findings; those that failed."""
    table = Table(
        title=_shown(title), title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="bold"
    )
    table.add_column("check", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("promise, and what was found", overflow="fold")
    for finding in findings:
        text = _shown(finding.promise)
        if finding.message:
            text += f"\n[{'bold' if finding.state == 'fail' else 'dim'}]{_shown(finding.message)}[/]"
        table.add_row(finding.check, f"[{COLOURS[finding.state]}]{finding.state}[/]", text)
    console.print(table)
    count = {state: sum(f.state == state for f in findings) for state in COLOURS}
    console.print(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped\n", highlight=False)
    return [finding for finding in findings if finding.state == "fail"]


def _shown(text: str) -> str:
    """As it is: neither rich nor the terminal obeys it."""
    return escape(printable(text, keep=LINES))
