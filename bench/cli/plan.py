"""`plan`: what would run, what is shared, what is done, and what the rest will cost. Starts nothing."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.cli import submissions
from bench.cli.open import check_negatives_early, config_text, open_suite
from bench.cli.options import (
    DEFAULT_STORE,
    DataPath,
    Fuse,
    Jobs,
    MaybeCluster,
    Only,
    Preset,
    Seeds,
    Sets,
    ShowConfig,
    StoreOption,
    SuitePath,
)
from bench.cli.overview import Overview, overview, slots_of
from bench.cli.say import say
from bench.cli.search_plan import SearchPlan
from bench.store.store import Store
from bench.suite import clusters


def command(
    suite: SuitePath, store: StoreOption = DEFAULT_STORE, preset: Preset = None, data: DataPath = None,
    sets: Sets = None, only: Only = None, seeds: Seeds = None, jobs: Jobs = None, fuse: Fuse = True,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    show_config: ShowConfig = False,
    cluster: MaybeCluster = None,
) -> None:  # fmt: skip
    """Show the unique stages, who shares them, what is done and what the rest will cost. Starts nothing.

    With `--cluster slurm` also the jobs that `run --cluster slurm` would submit: which stages ride in which, who waits
    for whom, what each asks for. It works on a machine that has no such queue.
    """
    loaded = open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    if show_config:
        typer.echo(config_text(loaded), nl=False)
        return
    where = clusters.read(cluster) if cluster is not None else None
    check_negatives_early(loaded)
    words = [word for word in sys.argv[2:] if word != "--json"]
    if loaded.sections.search is not None:
        planned = SearchPlan(loaded, Store(store), slots_of(loaded, jobs, where), fuse=fuse)
        if as_json:
            typer.echo(json.dumps(planned.to_json(), indent=1))
        else:
            planned.print(Console())
            say(Console(), f"start it: {shlex.join(['python', '-m', 'bench', 'search', *words])}")
        return
    view = overview(loaded, store, jobs=jobs, fuse=fuse, cluster=where)
    if as_json:
        typer.echo(json.dumps(to_json(view, cluster), indent=1))
    else:
        show(view, Console(), cluster, shlex.join(["python", "-m", "bench", "run", *words]))


def show(view: Overview, console: Console, cluster: str | None, start: str) -> None:
    """`bench plan`; `start`: the command that runs it."""
    view.print(console)
    verb = "start it" if view.missing else "nothing to do; the table"
    if cluster is not None and view.missing:
        settings = clusters.read(cluster)
        found = submissions.of(view, settings)
        submissions.show(view.plan, found, settings, cluster, console)
        verb = verb if found.jobs else "watch it"
    say(console, f"{verb}: {start}")


def to_json(view: Overview, cluster: str | None) -> dict[str, Any]:
    """What `plan --json` prints; with a cluster, what would be submitted as well."""
    if cluster is None:
        return view.to_json()
    found = submissions.of(view, clusters.read(cluster))
    return view.to_json() | {"cluster": cluster, "submissions": submissions.to_json(found)}
