"""`search`: find the best settings on a part of the training images, then measure them on val."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from bench.cli import trials
from bench.cli.bring import MANY, Bringing, How, say_left, show_mistakes
from bench.cli.open import check_negatives_early, config_text, open_suite
from bench.cli.options import (
    DEFAULT_STORE,
    ClusterName,
    DataPath,
    Fuse,
    Jobs,
    Only,
    Out,
    Preset,
    Seeds,
    Sets,
    StoreOption,
    TrackingUri,
)
from bench.cli.run import INTERRUPTED
from bench.cli.say import listed, say
from bench.cli.sync import tracking_option
from bench.cli.wanted import whole_view
from bench.errors import UserError
from bench.launch.loop import Ended
from bench.launch.requests import Requests
from bench.plan.planning import Plan
from bench.search import plans
from bench.search.view import View
from bench.store.disk import create_exclusive
from bench.store.existing import existing
from bench.store.lease import Observer, acquire
from bench.store.store import Store
from bench.suite.search import dimension_text
from bench.suite.suite import Suite

SearchSuite = Annotated[
    Path | None, typer.Argument(help="Suite file with a section `search`, e.g. suites/search_tau.yaml.")
]
From = Annotated[
    Path | None, typer.Option("--from", help="Begin a search over rows of a suite that has no section `search`.")
]
SetSpace = Annotated[
    list[str] | None,
    typer.Option(
        "--set-space", help="A setting and its values: beta=0.5:32:log, tau=0:1:0.025, schedule.steps=100:900:int, "
        "trainable=classifier,all. Several add up, and replace the space of the file.",
    ),
]  # fmt: skip


def command(
    suite: SearchSuite = None,
    store: StoreOption = DEFAULT_STORE,
    begin: From = None,
    row: Annotated[list[str] | None, typer.Option("--row", help="With --from: the row or rows to search.")] = None,
    set_space: SetSpace = None,
    trials_: Annotated[int | None, typer.Option("--trials", min=1, help="Budget: finished trials.")] = None,
    objective: Annotated[
        list[str] | None, typer.Option("--objective", help="Metric to maximise; several: a Pareto front.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="tpe, gp, cmaes, grid, random, qmc or nsgaii.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="With --from: the file to write (default: search_SUITE_ROW.yaml).")
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Only show the trials.")] = False,
    best: Annotated[bool, typer.Option("--best", help="Only show the best trial, as a row for a suite.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --status or --best: for scripts.")] = False,
    preset: Preset = None, data: DataPath = None, sets: Sets = None, only: Only = None, seeds: Seeds = None,
    jobs: Jobs = None, fuse: Fuse = True, cluster: ClusterName = "local", tracking_uri: TrackingUri = None,
    out: Out = None,
) -> None:  # fmt: skip
    """Search over settings of rows, as the suite's section `search` says.

    Trials are trained on one part of the TRAINING images and measured on the other (`tune`), so that val, which is
    reported, has chosen nothing. At the end the best and the untouched rows are trained on all training images and
    measured on val.

    Run it again: it continues; what is done costs nothing. Ctrl-C saves and stops. What it would do and cost:
    `bench plan SUITE`. Table and figures again: `bench report SUITE`.

        python -m bench search suites/search_tau.yaml

        python -m bench search --from suites/table1.yaml --row BAGS --set-space beta=0.5:32:log --trials 16
    """
    searched = _sets(set_space, trials_, objective, sampler)
    options: dict[str, Any] = {"preset": preset, "data": data, "seeds": seeds}
    sets = [*(sets or []), *searched]
    if begin is not None:
        if suite is not None:
            raise UserError("a suite and --from exclude each other", where=f"--from {begin}", hint="name one file")
        if not set_space:
            allowed = "--set-space SETTING=VALUES, e.g. beta=0.5:32:log"
            raise UserError("nothing to search", where=f"--from {begin}", allowed=allowed)
        try:
            suite = begin_file(open_suite(begin, only=[*(row or []), *(only or [])], sets=sets, **options), write)
        except UserError as error:
            where = error.where.replace("--only", "--row", 1) if row else error.where
            raise UserError(error.what, where=where, allowed=error.allowed, hint=error.hint) from None
        options, only, sets = {}, None, []
    if suite is None:
        hint = "or --from SUITE --row LABEL --set-space beta=0.5:32:log --trials 16"
        raise UserError("which search?", where="search", allowed="a suite with a section `search`", hint=hint)
    loaded = open_suite(suite, only=only, sets=sets, **options)
    plans.searched(loaded)
    console = Console()
    if status or best:
        existing(store)
        trials.show(loaded, Store(store), console, best=best, as_json=as_json)
        return
    check_negatives_early(loaded)
    how = How(console, jobs, fuse, True, tracking_uri, cluster)
    more = [] if jobs is None else ["--jobs", str(jobs)]
    more += [] if cluster == "local" else ["--cluster", cluster]
    more += tracking_option(tracking_uri)
    raise typer.Exit(search(loaded, Store(store), how, out=out, again=loaded.command("search", store, *more)))


def search(suite: Suite, store: Store, how: How, *, out: Path | None = None, again: str = "") -> int:
    """`bench search`; returns the exit code. `again`: the command that continues, shown after an interruption."""
    from bench.search.loop import Rounds

    console, requests = how.console, Requests(store.root)
    again = again or suite.command("search", store.root, *tracking_option(how.tracking_uri))
    store.check_writable()
    with _alone(suite, store) as study, trials.Table(whole_view(study, suite, store), suite, console) as table:
        held = plans.all_keys(suite, study.view())

        def bring(plan: Plan) -> Ended:
            held.update(plan.stages)
            bringing = Bringing(plan, store, how, requests, held=held)
            return bringing.bring(above=table.drawn) if bringing.view.missing else Ended({}, False)

        def changed(view: View) -> None:
            table.changed(replace(view, divided=table.divided))
            trials.mirror(suite, store, view, how)

        try:
            rounds = Rounds(suite, study, store, bring, changed)
            ended = rounds.prepare()
            table.tell(plans.divided(suite, store))
            ended = rounds.run() if ended is None else ended
            view = whole_view(study, suite, store)
            if ended.failed or ended.interrupted or not view.finals():
                return _stopped(suite, store, console, ended, view, again)
            plan = plans.final_plan(suite, view)
            table.finals(plan)
            ended = bring(plan)
        except KeyboardInterrupt:  # the second one
            say_left(console, suite, store, again)
            return INTERRUPTED
    trials.report(suite, store, view, how, out, ended)
    return _stopped(suite, store, console, ended, view, again) if ended.failed or ended.interrupted else 0


def _stopped(suite: Suite, store: Store, console: Console, ended: Ended, view: View, again: str) -> int:
    if ended.failed:
        first = next(iter(ended.failed.values())).message.splitlines()[0]
        say(console, f"failed: {first}")
    elif not ended.interrupted:
        states = [trial.why for trial in view.trials if trial.why]
        say(console, f"no trial has a value: {listed(list(dict.fromkeys(states)), MANY)}")
    say(console, f"{'saved. ' if ended.interrupted else ''}Continue: {again}")
    show_mistakes(ended)
    return ended.code or (0 if ended.interrupted else 1)


@contextlib.contextmanager
def _alone(suite: Suite, store: Store) -> Iterator[Any]:
    """The study of the search, which no other driver of it has meanwhile."""
    from bench.search import study

    name = plans.study_name(suite)
    section, space = plans.searched(suite)
    folder = study.folder_of(store.root, name)
    lease = acquire(folder, Observer())
    if lease is None:
        owner = Observer().live(folder)
        whose = f" (process {owner.pid} on {owner.host}, since {owner.since})" if owner else ""
        hint = f"watch it: {suite.command('search', store.root, '--status')}"
        raise UserError(f"another driver runs this search{whose}", where=str(folder), hint=hint)
    with lease:
        facts = {"suite": str(suite.path.resolve()), "store": str(store.root.resolve()), "space": section.model_dump()}
        yield study.opened(store.root, name, section, space, json.loads(json.dumps(facts)), write=True)


def begin_file(loaded: Suite, write: Path | None) -> Path:
    """Write the suite of a search that was begun from another suite's rows; its path.

    Raises:
        UserError: the file is there and says something else.
    """
    labels = "_".join(row.label for row in loaded.rows)
    name = "".join(c if c.isalnum() else "_" for c in f"search_{loaded.name}_{labels}")[:80]
    path = write or Path(f"{name}.yaml")
    text = f"# A search begun from {loaded.path}: python -m bench search {path}\n{_sparse(loaded)}"
    if not create_exclusive(path, text.encode()) and path.read_text() != text:
        raise UserError(
            "the file is there and says something else", where=str(path),
            hint=f"continue it: python -m bench search {path}; or name another: --write FILE",
        )  # fmt: skip
    return path


def _sparse(suite: Suite) -> str:
    """The whole configuration; of `search` what was asked for alone."""
    tree = yaml.safe_load(config_text(suite))
    search = suite.sections.search
    assert search is not None
    section = search.model_dump(mode="json", exclude_defaults=True)
    section["space"] = {
        name: dimension.model_dump(mode="json", exclude_defaults=True) for name, dimension in search.space.items()
    }
    text: str = yaml.safe_dump({**tree, "search": section}, sort_keys=False, allow_unicode=True, width=120)
    return text


def _sets(space: list[str] | None, number: int | None, objective: list[str] | None, sampler: str | None) -> list[str]:
    """What the command line says of the section `search`, as values of --set: all commands know those."""
    found = []
    if space:
        found.append(f"search.space={json.dumps(dict(_dimension(text) for text in space))}")
    if number is not None:
        found.append(f"search.trials={number}")
    if objective:
        words = [word for text in objective for word in text.split(",") if word]
        found.append(f"search.objective={json.dumps(words)}")
    if sampler is not None:
        found.append(f"search.sampler={sampler}")
    return found


def _dimension(text: str) -> tuple[str, dict[str, Any]]:
    name, equals, values = text.partition("=")
    try:
        if not equals or not name.strip():
            raise ValueError("is not SETTING=VALUES")
        return name.strip(), dimension_text(values)
    except ValueError as error:
        allowed = "beta=0.5:32:log, schedule.steps=100:900:int, tau=0:1:0.025, trainable=classifier,all"
        raise UserError(f"'{text}' {error}", where="--set-space", allowed=allowed) from None
