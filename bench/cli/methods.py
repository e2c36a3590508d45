"""`methods`: the list, and one method with its settings and departures from its paper; `methods check`.

Separate because it is about recipes alone: no suite, no store.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.cli.options import MethodsPath
from bench.cli.say import cell, say
from bench.engines.contract import CAPABILITIES
from bench.engines.facts import ENGINES
from bench.method import Method
from bench.suite.catalogue import discover, method_named
from bench.suite.reference import described, words


def show_command(
    name: Annotated[str | None, typer.Argument(help="A method; without one: the list.", show_default=False)] = None,
    path: MethodsPath = None,
) -> None:  # fmt: skip
    """The methods there are; with a name: what it does, its source, settings, and where it departs from the paper."""
    show(name, path or [], Console())


def check_command(
    targets: Annotated[
        list[str], typer.Argument(metavar="NAME_OR_PATH...", help="Methods, .py files or folders (this runs them).")
    ],
    engine: Annotated[str | None, typer.Option(help="One engine (default: all that can be imported here).")] = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where a failure came from.")] = False,
) -> None:
    """Hold methods to what is promised of all: pure plans, honest keys, exact resume, fusing, well-formed scores.

    Runs a few steps of a tiny suite in a store of its own, seconds a method. Exit code: 0 all promises are kept, 1 some
    are not, 2 your mistake.
    """
    from bench.contract_check.show import methods_check as check

    raise typer.Exit(check(targets, engine, Console(), traceback=traceback))


def show(name: str | None, paths: Sequence[Path], console: Console) -> None:
    """`bench methods [NAME]`."""
    known = discover(paths)
    if name is None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("method", "settings", "what it does", "not on (what it lacks)"):
            table.add_column(column, overflow="fold")
        for method in sorted(known.values(), key=lambda m: m.name):
            settings = ", ".join(method.model_fields) or "-"
            table.add_row(*map(cell, (method.name, settings, _first_sentence(method), _not_on(method) or "-")))
        console.print(table)
        say(console, "one of them: python -m bench methods NAME")
        return
    _describe_method(method_named(name, known, "methods"), console)


def _describe_method(method: type[Method], console: Console) -> None:
    console.print(f"[bold]{cell(method.name)}[/]  ({cell(_file_of(method))})", highlight=False)
    say(console, inspect.getdoc(method) or "-")
    say(console, "needs of an engine:")
    for word in sorted(method.needs):
        say(console, f"  {word}: {CAPABILITIES.get(word, 'a word that no engine of the house knows')}")
    if _not_on(method):
        say(console, f"cannot run on: {_not_on(method)}")
    say(console, "settings:" if method.model_fields else "settings: none")
    schema, texts = method.model_json_schema(), described(method)
    for name, field in method.model_fields.items():
        form = words(schema["properties"][name], schema.get("$defs", {}))
        say(console, f"  {name} = {field.default!r}    {form}")
        if name in texts:
            say(console, f"      {texts[name]}")
    for deviation in method.deviations():
        say(console, f"DEVIATION: {deviation}")


def _not_on(method: type[Method]) -> str:
    """`detr (background), grid (maps)`: the engines that cannot run it, and what they lack."""
    lacking = {engine.name: engine.missing(method.needs) for engine in ENGINES.values()}
    return ", ".join(f"{name} ({', '.join(words)})" for name, words in lacking.items() if words)


def _file_of(method: type[Method]) -> str:
    return Path(inspect.getsourcefile(method) or "-").name


def _first_sentence(method: type[Method]) -> str:
    text = " ".join((inspect.getdoc(method) or "-").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".")
