"""`status`: a line per stage, once or until all is done."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from bench.cli.open import open_suite
from bench.cli.options import DEFAULT_STORE, DataPath, Fuse, Only, Preset, Seeds, Sets, StoreOption, SuitePath
from bench.cli.overview import LINES, Overview, compare, overview
from bench.cli.standing import StatusTable
from bench.errors import UserError
from bench.launch import submitted
from bench.store.existing import not_another
from bench.suite import clusters

WATCH_SECONDS = 2.0


def command(
    suite: SuitePath, store: StoreOption = DEFAULT_STORE, preset: Preset = None, data: DataPath = None,
    sets: Sets = None, only: Only = None, seeds: Seeds = None, fuse: Fuse = True,
    again: Annotated[bool, typer.Option("--watch", help="Again every 2 s, until all is done or Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: every stage.")] = False,
) -> None:  # fmt: skip
    """One line per stage: state, attempt, host, step, rate, time left, memory, the last error.

    Reads the store alone: it needs no driver and no GPU. Stages that one pass makes are one line (+11).
    """
    loaded = open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    not_another(store)
    view = _with_slots_of_its_jobs(overview(loaded, store, fuse=fuse or as_json))
    if as_json:
        typer.echo(json.dumps(StatusTable(view).to_json(), indent=1))
    elif again:
        watch(lambda: compare(view.plan, view.store, view.slots, fuse=fuse), Console())
    else:
        show(view, Console())


def show(view: Overview, console: Console) -> None:
    """`status`."""
    for line in StatusTable(view).lines():
        console.print(line, highlight=False, soft_wrap=True)


def watch(make: Callable[[], Overview], console: Console, every: float = WATCH_SECONDS) -> None:
    """`status --watch`: draw again and again until all is done.

    Args:
        make: gives a new Overview.
        console: a terminal is redrawn; elsewhere what has changed is printed anew.
        every: seconds.
    """
    before: list[str] = []
    most = min(LINES, console.height - 4) if console.is_terminal else LINES
    redrawn = Live(console=console, auto_refresh=False, transient=False)
    with redrawn if console.is_terminal else contextlib.nullcontext(_Plain(console)) as live:
        while True:
            view = make()
            lines = StatusTable(view).lines(most)
            if [line.plain for line in lines] != before:
                before = [line.plain for line in lines]
                live.update(Text("\n").join(lines), refresh=True)
            if not view.missing:
                return
            time.sleep(every)


class _Plain:
    """Live's update, for a file or a pipe."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def update(self, text: Text, *, refresh: bool) -> None:
        """Print it."""
        self._console.print(text, highlight=False, soft_wrap=True)


def _with_slots_of_its_jobs(view: Overview) -> Overview:
    """While jobs of it wait or run on a cluster, the rest takes as long as there, not as on this machine."""
    notes = [note for note in submitted.of(view.store.root, view.missing) if note.cluster]
    with contextlib.suppress(UserError):  # the file has gone, or is broken by now
        return replace(view, slots=clusters.read(notes[-1].cluster).array_parallelism) if notes else view
    return view
