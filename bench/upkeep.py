"""What `status`, `logs`, `stop`, `retry` and `gc` do with their arguments. Separate from commands.py, which is about
what is run and reported: these look after what is at work, and after the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import control
from bench import gc as waste
from bench import logs as files
from bench import overview as overviews
from bench import plan as planning
from bench import status as standings
from bench.commands import overview
from bench.store import Store
from bench.suite import Suite


def status(suite: Suite, store_path: Path, console: Console, *, fuse: bool = True, watch: bool = False) -> None:
    """`bench status`; `watch`: redrawn until all is done."""
    view = overview(suite, store_path, fuse=fuse)
    if not watch:
        standings.show(view, console)
        return
    standings.watch(lambda: overviews.compare(view.plan, view.store, view.slots, fuse=fuse), console)


def status_json(suite: Suite, store_path: Path) -> dict[str, Any]:
    """What `status --json` prints."""
    return standings.Board(overview(suite, store_path)).to_json()


def stop(suite: Suite, store_path: Path, word: str | None, console: Console) -> None:
    """`bench stop`: of a row, the stages that no other row needs."""
    plan = planning.make(suite)
    control.show_stop(plan, Store(store_path), overviews.own(plan, word), console)


def retry(suite: Suite, store_path: Path, word: str | None, console: Console) -> None:
    """`bench retry`."""
    plan = planning.make(suite)
    control.show_retry(plan, Store(store_path), overviews.chosen(plan, word), console)


def gc(store_path: Path, forget: Sequence[str], console: Console, confirm: Callable[[], bool]) -> None:
    """`bench gc`: show what can go, and let it go if that is confirmed."""
    store = Store(store_path)
    found = waste.look(store, forget)
    waste.show(found, console)
    if not (found.waste or found.leftovers or found.temporaries or found.forgotten):
        return
    if not confirm():
        console.print("nothing was deleted", highlight=False)
        return
    freed = waste.sweep(store, found)
    kept = f"; {freed.kept} were kept, since they are needed or at work by now" if freed.kept else ""
    console.print(f"freed {freed.bytes / 1e6:.1f} MB, {freed.stages} stages{kept}", highlight=False, soft_wrap=True)


def logs(suite: Suite, store_path: Path, word: str, console: Console, *, follow: bool, lines: int) -> None:
    """`bench logs`: of a row, the stage of it that is at work, has failed, or ran last."""
    plan, store = planning.make(suite), Store(store_path)
    key = files.newest(plan, store, overviews.chosen(plan, word))
    if follow:
        files.follow(plan, store, key, console, lines)
    else:
        files.show(plan, store, key, console, lines)
