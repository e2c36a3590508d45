"""`merge`: bring what is done in other stores, or in exports, into one. Separate because it is about no suite."""

from __future__ import annotations

import contextlib
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from bench.cli.options import reachable
from bench.cli.say import count, say
from bench.errors import UserError
from bench.store import merge as stores
from bench.store.existing import existing
from bench.store.merge import Merged
from bench.store.pack import unpacked
from bench.store.store import Store

MOST_KEYS = 5


def each_reachable(paths: list[Path]) -> list[Path]:
    """`reachable` of several."""
    for path in paths:
        reachable(path)
    return paths


def command(
    into: Annotated[
        Path, typer.Argument(callback=reachable, show_default=False, help="The store that gets it; made if missing.")
    ],
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="FROM...", callback=each_reachable, show_default=False, help="Stores and exports."),
    ],
) -> None:
    """Copy what is done in other stores, or in exports, into one store. Nothing that is there is replaced.

    A stage is copied where it is done and whole and each of its files has the sha256 that was written; it appears in
    the store whole or not at all. What is at work, failed or unfinished is left; where both have a result and they
    differ, the one that is here stays. All of it is counted, with the reason. May be repeated, and ended with Ctrl-C.

        python -m bench merge store /scratch/store       what ran on another machine

        python -m bench merge store a.zip b.zip          what others have exported
    """
    merge(into, sources, Console())


def merge(into: Path, sources: Sequence[Path], console: Console) -> None:
    """`bench merge`.

    Raises:
        UserError: a source that is no store and no export; the store cannot be written.
    """
    if into.suffix == ".zip" or into.is_file():
        hint = f"the store comes first: python -m bench merge STORE {shlex.quote(str(into))}"
        raise UserError("this is a file, and stages are copied into a store's folder", where=str(into), hint=hint)
    for source in sources:
        if not source.is_file():
            _check_store(source)
        if into.exists() and source.exists() and source.samefile(into):
            raise UserError("a store cannot be merged into itself", where=str(source), hint="name another one")
    target = Store(into)
    for source in sources:
        with unpacked(source) if source.is_file() else contextlib.nullcontext(source) as folder:
            _say(_merged(target, Store(folder), source, console), source, console)
    say(console, f"{into}: {count(sum(target.done(key) is not None for key in target.keys()), 'stage')} done")  # noqa: SIM118


def _check_store(source: Path) -> None:
    store = existing(source)
    if not store.keys() and not store.roots():
        raise UserError("no store: no stage is in this folder", where=str(source), hint="name the folder of a store")


def _merged(into: Store, source: Store, named: Path, console: Console) -> Merged:
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"stages of {named.name}", total=None)
        return stores.merge(into, source, lambda done, of: bar.update(task, completed=done, total=of))


def _say(found: Merged, source: Path, console: Console) -> None:
    parts = [f"{count(len(found.came), 'stage')} came", f"{len(found.there)} there already"]
    parts += [f"{len(found.left)} left"] if found.left else []
    parts += [f"{count(len(found.roots), 'suite')} noted"] if found.roots else []
    say(console, f"from {source}: {', '.join(parts)}")
    for (why, kind), number in Counter((left.why, left.kind) for left in found.left).items():
        keys = [left.key[:6] for left in found.left if (left.why, left.kind) == (why, kind)]
        more = f" and {number - MOST_KEYS} more" if number > MOST_KEYS else ""
        say(console, f"  left: {count(number, f'{kind} stage'.strip())} ({', '.join(keys[:MOST_KEYS])}{more}): {why}")
