"""`engines`: the list, and one engine with what it has and which methods it cannot run; `engines check`.

Separate because it is about engines alone: no suite, no store.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from bench.cli.say import cell, listed, say, say_wrapped
from bench.engines.contract import CAPABILITIES, EngineFacts
from bench.engines.facts import ENGINES, ORIGINS, REFUSED, facts, no_engine
from bench.errors import UserError
from bench.key import module_version
from bench.suite.catalogue import discover


def show_command(
    name: Annotated[str | None, typer.Argument(help="An engine; without one: the list.", show_default=False)] = None,
) -> None:
    """The engines there are; with a name: its trunks and groups, what it provides, which methods it cannot run."""
    show(name, Console())


def check_command(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Engines (this runs them).")],
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where a failure came from.")] = False,
) -> None:
    """Hold engines to what is promised of all: honest facts, seeded weights, finite losses, frozen groups, boxes inside
    their image, exact resume.

    Looks at the engine's tiny detector and trains it for a few steps in a store of its own, seconds an engine. Exit
    code: 0 all promises are kept, 1 some are not, 2 your mistake.
    """
    from bench.contract_check.show import engines_check as check

    raise typer.Exit(check(names, Console(), traceback=traceback))


def show(name: str | None, console: Console) -> None:
    """`bench engines [NAME]`."""
    if name is not None:
        return _describe(facts(name, "engines"), console)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("engine", "trunks", "lacks", "from"):
        table.add_column(column, overflow="fold")
    for engine in ENGINES.values():
        lacking = [word for word in CAPABILITIES if word not in engine.provides]
        table.add_row(*map(cell, (engine.name, _words(engine.trunks), _words(lacking), _origin(engine.name))))
    console.print(table)
    for refused in REFUSED:
        say(console, f"not usable: {_reason(refused)}")
    say(console, "one of them: python -m bench engines NAME")


def _describe(engine: EngineFacts, console: Console) -> None:
    console.print(f"[bold]{cell(engine.name)}[/]  ({cell(_origin(engine.name))})", highlight=False)
    say(console, f"version {engine.version}; built by {engine.module}")
    say(console, f"boxes by {engine.postprocess}, version {_version(engine.postprocess)}")
    say(console, f"settings: python -m bench settings detector ({engine.section.__name__})")
    for line in _classifier(engine):
        say(console, line)
    say(console, "trunks, with their feature maps:")
    for trunk, maps in engine.trunks.items():
        say(console, f"  {trunk}: {_words(maps)}")
    say(console, f"parameter groups: {_words(engine.groups)}")
    for title, groups in (("projector", engine.projector), ("head", engine.head), ("judges", engine.judges)):
        say(console, f"  {title}: {_words(groups)}")
    for title, provided in (("provides:", True), ("lacks:", False)):
        say(console, title)
        for word, text in CAPABILITIES.items():
            if (word in engine.provides) is provided:
                say(console, f"  {word}: {text}")
    _say_methods(engine, console)
    say(console, f"does it keep its promises: python -m bench engines check {engine.name}")


def _say_methods(engine: EngineFacts, console: Console) -> None:
    """Which methods it cannot run, by the reason."""
    reasons: dict[str, list[str]] = {}
    for method in sorted(discover().values(), key=lambda one: one.name):
        reasons.setdefault(", ".join(engine.missing(method.needs)), []).append(method.name)
    can = reasons.pop("", [])
    say(console, f"methods: runs {len(can)}; cannot run:" if reasons else f"methods: runs all {len(can)}")
    for lacking, names in reasons.items():
        say_wrapped(console, f"  {', '.join(names)} (lacks {lacking})")


def _classifier(engine: EngineFacts) -> list[str]:
    """What a baseline's classifier is, in the tiny detector or, without one, by the defaults."""
    given: dict[str, Any] = {"engine": engine.name, **dict(engine.tiny.get("detector", {}))}
    try:
        section = engine.section.model_validate(given)
        ref, _ = engine.classifier(section, None, {})
        by_class = engine.proposals(section, 2)[1] > 1
    except ValidationError:
        return []
    return [f"classifier of a baseline: {ref}", f"box regression: {'per class' if by_class else 'one for all classes'}"]


def _version(module: str) -> str:
    try:
        return str(module_version(module))
    except UserError:
        return "unknown"


def _origin(name: str) -> str:
    found = f"package {ORIGINS[name].package}" if name in ORIGINS else "built in"
    why = ENGINES[name].absent()
    return found if why is None else f"{found}; {why}"


def _reason(name: str) -> str:
    error = no_engine(name, "")
    return f"{error.what}; {error.hint}"


def _words(words: Iterable[str]) -> str:
    return listed(list(words), 20) or "-"
