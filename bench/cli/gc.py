"""`gc`: show what no suite needs, and free it after a typed yes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.cli.options import DEFAULT_STORE, StoreOption
from bench.cli.say import say, size
from bench.cli.waste import Found, Waste, look, sweep
from bench.errors import UserError
from bench.stage import KINDS
from bench.store.existing import existing

LINES = 20  # of a list


def command(
    store: StoreOption = DEFAULT_STORE,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    forget: Annotated[
        list[str] | None, typer.Option("--forget", help="A suite that nobody needs any more (repeatable).")
    ] = None,
) -> None:
    """Free what no suite needs: shows it first, deletes after a typed yes.

    A suite that was ever run on the store needs its stages, whoever ran it, until it is forgotten. Stages that somebody
    works on stay.
    """

    def confirmed() -> bool:
        try:
            return yes or str(typer.prompt("delete it? (yes/no)", default="no", show_default=False)).strip() == "yes"
        except typer.Abort:
            raise UserError("nobody can type yes here; nothing was deleted", where="gc", hint="--yes") from None

    gc(store, forget or [], Console(), confirmed)


def gc(store_path: Path, forget: Sequence[str], console: Console, confirm: Callable[[], bool]) -> None:
    """`bench gc`: show what can go, and let it go if that is confirmed."""
    store = existing(store_path)
    found = look(store, forget)
    show(found, console)
    if not (found.waste or found.leftovers or found.temporaries or found.forgotten):
        if found.needs:
            say(console, "of a suite that nobody needs any more: gc --forget NAME")
        return
    if not confirm():
        say(console, "nothing was deleted")
        return
    freed = sweep(store, found)
    kept = f"; {freed.kept} were kept, since they are needed or at work by now" if freed.kept else ""
    for root in found.forgotten:
        say(console, f"forgotten: {root.file}")
    say(console, f"freed {freed.bytes / 1e6:.1f} MB, {freed.stages} stages{kept}")


def show(found: Found, console: Console) -> None:
    """What is needed by whom, and what would go."""
    for need in found.needs:
        root = need.root
        who = f"  by {root.user} on {root.host}, {root.time[:10]}" if root.user else ""
        sizes = f"{len(need.keys)} stages, {_size(need.bytes)} (its alone: {_size(need.own)})"
        say(console, f"needed: {root.file}  {sizes}  {root.suite}{who}")
        if need.gone:
            say(console, f"  its suite file is not here; kept all the same. Let it go: --forget {root.file}")
    for root in found.forgotten:
        say(console, f"would be forgotten: {root.file}  {root.suite}")
    groups: dict[str, list[Waste]] = defaultdict(list)
    for one in found.waste:
        groups[one.rows].append(one)
    for rows, group in _largest(groups):
        counted = Counter(one.kind for one in group)
        kinds = ", ".join(f"{counted[kind]} {kind}" for kind in (*KINDS, "unknown") if kind in counted)
        say(
            console,
            f"free: {'rows not known' if rows == '-' else rows}  {kinds}  {_size(sum(one.bytes for one in group))}",
        )
    if len(groups) > LINES:
        say(console, f"free: ... and what {len(groups) - LINES} more rows have left")
    extra = len(found.temporaries) + sum(map(len, found.leftovers.values()))
    if extra:
        say(console, f"free: {extra} old checkpoints, half-written and temporary files  {_size(found.extra_bytes)}")
    if found.at_work:
        say(console, f"kept: {len(found.at_work)} stages that no suite needs, since somebody works on them")
    say(console, f"{len(found.waste)} stages, {_size(found.bytes)} in all can be freed")


def _largest(groups: dict[str, list[Waste]]) -> list[tuple[str, list[Waste]]]:
    return sorted(groups.items(), key=lambda item: -sum(one.bytes for one in item[1]))[:LINES]


def _size(count: int) -> str:
    return size(count / 1e6, tenths=True)
