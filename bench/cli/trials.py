"""The trials of a search on the terminal, in MLflow and in a report. Separate from search.py, which is the command."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer
import yaml
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from bench.cli import sync
from bench.cli.bring import How
from bench.cli.intervals import with_intervals
from bench.cli.say import cell, clock, count, say
from bench.cli.tables import USUAL, Forms, default_report_folder, write_report
from bench.cli.wanted import reported, seen, study_of, whole_view
from bench.key import canonical, plain
from bench.launch.loop import Ended
from bench.plan.planning import Plan
from bench.record import format_metric
from bench.search import plans
from bench.search.view import Trial, View
from bench.store.store import Store
from bench.suite.search import ROW
from bench.suite.suite import Suite
from bench.tracking.trials import TrackedSearch, TrackedTrial
from bench.tracking.trials import sync as sync_search
from reports.load import RowResult, load

SHOWN = 12  # trials of the table that is drawn while a round runs; all are in the report
STYLE = {"complete": "green", "pruned": "yellow", "failed": "bold red", "running": "cyan"}


class Table:
    """The live table of trials, drawn above the progress of a round; without a terminal, a line for each that ends.

    Args:
        view: the search as it is when the command begins.
        suite: its suite.
        console: where it is drawn.
    """

    def __init__(self, view: View, suite: Suite, console: Console) -> None:
        self._view, self._suite, self._console = view, suite, console
        self._said = {trial.number for trial in view.trials if trial.state != "running"}
        self._begun, self._before = time.monotonic(), len(self._said)

    def __enter__(self) -> Table:
        for text in opening(self._view, self._suite):
            say(self._console, text)
        return self

    def __exit__(self, *_: object) -> None:
        if self._view.trials:
            self._console.print(grid(self._view, len(self._view.trials)))

    def drawn(self) -> Grid | None:
        """The newest trials and the best; None while there are none."""
        return grid(self._view, SHOWN, self._left()) if self._view.trials else None

    @property
    def divided(self) -> str:
        """See View.divided."""
        return self._view.divided

    def tell(self, divided: str) -> None:
        """The training images have been divided."""
        if divided and not self._view.divided:
            say(self._console, f"  tune: {divided}")
        self._view = replace(self._view, divided=divided)

    def changed(self, view: View) -> None:
        """Trials have ended, or a rung was measured."""
        self._view = view
        ended = [trial for trial in view.trials if trial.state != "running" and trial.number not in self._said]
        self._said.update(trial.number for trial in ended)
        if not self._console.is_terminal:
            for trial in ended:
                left = self._left()
                say(self._console, f"{sentence(view, trial)}{f'; about {clock(left)} left' if left else ''}")

    def finals(self, plan: Plan) -> None:
        """The trials are done."""
        view = self._view
        labels = [row.label for row in plan.suite.rows][len(self._suite.rows) :]
        seeds = count(len(plan.suite.sections.seeds), "seed")
        say(self._console, f"best on {view.measured_on}: {sentence(view, view.finals()[0])}")
        say(self._console, f"now on all training images and val, {seeds}: untouched rows, {', '.join(labels)}")

    def _left(self) -> float | None:
        """Seconds until the budget is spent, by the trials of this run."""
        ended, search = len(self._said) - self._before, self._view.search
        if search.trials is None or not ended:
            return None
        open_ = search.trials - sum(trial.finished for trial in self._view.trials)
        return (time.monotonic() - self._begun) / ended * max(0, open_)


def opening(view: View, suite: Suite) -> list[str]:
    """What a search says of itself before it begins or goes on."""
    search = view.search
    budget = [f"{search.trials} trials"] if search.trials is not None else []
    budget += [f"{search.hours:g} h"] if search.hours is not None else []
    budget += [f"{search.machine_hours:g} machine hours"] if search.machine_hours is not None else []
    if search.sampler == "grid" and not budget:
        budget = [f"{sum(1 for _ in view.space.points() or ())} trials"]
    over = ", ".join(name if name != ROW else f"row ({len(view.space.rows)})" for name in view.space.dimensions)
    done = sum(trial.finished for trial in view.trials)
    pruner = "" if search.pruner == "none" else f", pruner {search.pruner}"
    head = f"{suite.name}: {search.sampler}{pruner} over {over}; {' or '.join(budget)}, {search.round} a round"
    lines = [f"{head}; {done} done" if done else head]
    if view.mark:
        return [*lines, f"  WARNING: {view.mark}"]
    tuned = f"trials are trained on {100 - 100 * search.tune:g} % of the training images and measured on the other"
    lines.append(f"  {tuned} {100 * search.tune:g} % (tune, seed {search.tune_seed}); val chooses nothing")
    return [*lines, *([f"  tune: {view.divided}"] if view.divided else [])]


def settings_text(trial: Trial) -> str:
    """beta=4.2 schedule.lr=0.02"""
    return " ".join(f"{n}={v:.4g}" if isinstance(v, float) else f"{n}={v}" for n, v in trial.settings().items())


def values_text(view: View, trial: Trial) -> str:
    """AP 23.1, AP1 8.0; of one that ended early, the last rung."""
    if trial.values:
        pairs = zip(view.search.objective, trial.values, strict=True)
        return ", ".join(f"{metric} {format_metric(value)}" for metric, value in pairs)
    if trial.rungs:
        step = max(trial.rungs)
        return f"{view.search.objective[0]} {format_metric(trial.rungs[step])} at {step}"
    return trial.why[:60] or "-"


def sentence(view: View, trial: Trial) -> str:
    """One trial as a line."""
    row = f"{trial.chosen[ROW]} " if ROW in trial.chosen else ""
    best = view.finals()
    shown = "" if not best or best[0] is trial else f" (best: trial {best[0].number}, {values_text(view, best[0])})"
    state = "" if trial.state == "complete" else f" {trial.state}"
    return f"trial {trial.number}{state}: {row}{settings_text(trial)}: {values_text(view, trial)}{shown}"


def grid(view: View, most: int, left: float | None = None) -> Grid:
    """The trials as a table, the newest last; the best has a star."""
    best = {trial.number for trial in view.finals()}
    table = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    several = ROW in view.space.dimensions
    for name in ("trial", *(("row",) if several else ()), "settings", "state", f"on {view.measured_on}"):
        table.add_column(name, header_style="dim")
    shown = [t for t in view.trials if t.number in best or t.number >= len(view.trials) - most]
    for trial in shown:
        row = [cell(view.row_of(trial))] if several else []
        star = " *" if trial.number in best else ""
        table.add_row(
            str(trial.number), *row, cell(settings_text(trial)), Text(trial.state, style=STYLE[trial.state]),
            f"{values_text(view, trial)}{star}",
        )  # fmt: skip
    if left is not None:
        table.caption, table.caption_justify = f"about {clock(left)} left for trials", "left"
    return table


def show(suite: Suite, store: Store, console: Console, *, best: bool, as_json: bool) -> None:
    """`bench search --status` and `--best`.

    Raises:
        UserError: nothing was searched yet.
    """
    view = seen(suite, store)
    if best:
        found = [as_row(view, trial) for trial in view.finals()]
        if as_json:
            typer.echo(json.dumps(found, indent=1))
            return
        for entry in found:
            say(console, f"{entry['values']} on {view.measured_on}, trial {entry['trial']}; as a row of a suite:")
            line = yaml.safe_dump(
                {entry["row"]: entry["settings"]}, default_flow_style=None, sort_keys=False, width=200
            )
            say(console, line.rstrip())
        if not found:
            say(console, "no trial is complete yet")
        return
    if as_json:
        typer.echo(json.dumps(to_json(view), indent=1))
        return
    for text in opening(view, suite):
        say(console, text)
    console.print(grid(view, len(view.trials)))
    spent = f"{view.hours:.2f} h" + (f", {view.machine_hours:.2f} machine hours" if view.machine_hours else "")
    say(console, f"{count(sum(t.finished for t in view.trials), 'trial')} finished in {spent}")


def as_row(view: View, trial: Trial) -> dict[str, Any]:
    """A trial as a row that a suite may have."""
    row = view.space.rows[view.row_of(trial)]
    tried = view.space.row(row.label, trial.chosen)
    settings = {"method": tried.method.name, **plain(canonical(tried.method.model_dump(exclude_defaults=True)))}
    if tried.schedule is not None:
        settings["schedule"] = dict(tried.schedule)
    return {
        "trial": trial.number, "row": view.row_of(trial), "settings": settings, "values": values_text(view, trial),
        "chosen": dict(trial.chosen),
    }  # fmt: skip


def to_json(view: View) -> dict[str, Any]:
    """What `--status --json` prints."""
    return {
        "study": view.name, "objective": list(view.search.objective), "measured_on": view.measured_on,
        "hours": view.hours, "machine_hours": view.machine_hours, "best": [t.number for t in view.finals()],
        "trials": [
            {
                "number": t.number, "state": t.state, "row": view.row_of(t), "settings": t.settings(),
                "values": list(t.values), "rungs": {str(k): v for k, v in t.rungs.items()}, "bracket": t.bracket,
                "why": t.why,
            }
            for t in view.trials
        ],
    }  # fmt: skip


def mirror(suite: Suite, store: Store, view: View, how: How) -> None:
    """Bring the trials into MLflow."""
    search = view.search
    split = view.measured_on
    found = [
        TrackedTrial(
            t.number, t.state, {**({ROW: view.row_of(t)} if ROW in t.chosen else {}), **t.settings()},
            {f"{split} {m}": v for m, v in zip(search.objective, t.values, strict=False)}, t.rungs, t.why,
        )
        for t in view.trials
    ]  # fmt: skip
    params = {
        "objective": ", ".join(search.objective), "sampler": search.sampler, "pruner": search.pruner,
        "round": search.round, "seed": search.seed, "measured on": split, "tune": search.tune,
        **{f"space.{name}": d.model_dump(exclude_defaults=True) for name, d in search.space.items()},
    }  # fmt: skip
    best = view.finals()
    note = f"best: {sentence(view, best[0])}" if best else ""
    if view.mark:
        note = f"{view.mark}. {note}"
    tags = {"bench.searched_on": split}
    ended = not any(trial.state == "running" for trial in view.trials)
    tracked = TrackedSearch(view.name, search.objective[0], params, found, ended, note, tags)
    sync.print_notice(sync_search(store.root, how.tracking_uri, suite.name, tracked), how.console)


def report(suite: Suite, store: Store, view: View, how: How, out: Path | None, ended: Ended) -> None:
    """Bring a search that has ended into MLflow, and write its report."""
    plan = _marked(reported(suite, view), view)
    results = with_intervals(plan, store, load(store, plan), how.console)
    notice = sync.mirror(plan, store, results, how.tracking_uri, how.console).notice
    sync.print_notice(notice, how.console)
    files = write(suite, store, how.console, out, ended=ended)
    sync.attach(plan, store, how.console, how.tracking_uri, files)


def plan_of(suite: Suite, store: Store) -> Plan:
    """The untouched and the searched rows on val, of the search as it stands."""
    view = seen(suite, store)
    return _marked(reported(suite, view), view)


def write(
    suite: Suite,
    store: Store,
    console: Console,
    out: Path | None,
    forms: Forms = USUAL,
    *,
    ended: Ended | None = None,
) -> tuple[Path, ...]:
    """The table of the untouched and the searched rows on val, the gain, the figures of the search; their files.

    Args:
        suite: with `search:`.
        store: where its trials and rows are.
        console: where the table and the gain are printed.
        out: folder; None: below the store's reports.
        forms: what the table of the rows is written as.
        ended: how the final rows ended.

    Raises:
        UserError: nothing was searched yet.
    """
    from reports.search.report import write_search
    from reports.search.text import gain_sentences

    study = study_of(suite, store)
    view = whole_view(study, suite, store)
    plan = _marked(reported(suite, view), view)
    finals = with_intervals(plan, store, load(store, plan), console)
    folder = out or default_report_folder(store, plan)
    written = write_search(
        view, records(suite, store, view), finals, folder, plan.suite.heading, untouched=view.untouched(),
        importances=study.importances(), edges=suite.sections.test.bins, formats=forms.formats,
    )  # fmt: skip
    files = write_report(plan, store, finals, console, folder, forms, failed=ended, search=written)
    for text in gain_sentences(written.found):
        say(console, text)
    if written.lacking:
        say(console, "; ".join(written.lacking))
    say(console, f"search: {folder}  ({written.spoken()})")
    return (*files, *written.files)


def records(suite: Suite, store: Store, view: View) -> list[RowResult]:
    """The records of the complete trials, where they were measured."""
    complete = {plans.label_of(trial.number): trial.chosen for trial in view.trials if trial.state == "complete"}
    return load(store, plans.plan_of(suite, complete, plans.levels(suite)[-1])) if complete else []


def _marked(plan: Plan, view: View) -> Plan:
    """With the mark of a search on val in the heading of each table and the caption of each figure."""
    if not view.mark:
        return plan
    sections = plan.suite.sections
    title = f"{sections.title}; {view.mark}" if sections.title else view.mark
    return replace(plan, suite=replace(plan.suite, sections=sections.model_copy(update={"title": title})))
