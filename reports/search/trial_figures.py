"""Figures over the trials of a search: history, intermediate values, Pareto front. Separate from those over its
dimensions (reports/search/space_figures.py). Each returns the drawing, or why there is none.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.search.view import Trial
from reports.figures.canvas import EDGE, Drawing, blank, calm, finish, handles, palette, tidy
from reports.search.searched import STATES, Searched

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENDED_EARLY = "0.55"  # the grey of what is not in question
MANY = 150  # trials: beyond, small marks
NAMED = 12  # trials of a front that have their number beside them
CROSS, STAR = "x", "*"
WINNER = 3  # colour of the palette: rows have the first ones


def history(found: Searched) -> Drawing | str:
    """Each objective by the number of the trial, the best so far as a line; pruned trials at their last rung."""
    pruned = [trial for trial in found.of_state("pruned") if trial.rungs]
    if not found.complete and not pruned:
        return "no trial has a value"
    from matplotlib.ticker import MaxNLocator

    objectives = found.view.search.objective
    figure, every = blank(6.6, 3.1 * len(objectives), len(objectives))
    for index, (metric, axes) in enumerate(zip(objectives, every, strict=True)):
        values = [trial.values[index] for trial in found.complete]
        numbers = [trial.number for trial in found.complete]
        best = list(itertools.accumulate(values, max))
        if best:
            last = max(trial.number for trial in found.view.trials)
            axes.step([*numbers, last], [*best, best[-1]], where="post", color=palette()[0], linewidth=1.4,
                      label="best so far")  # fmt: skip
        _dots(axes, numbers, values, "complete", palette()[0])
        if index == 0 and pruned:
            at = [trial.rungs[max(trial.rungs)] for trial in pruned]
            _dots(axes, [trial.number for trial in pruned], at, "pruned, at its last rung", ENDED_EARLY, CROSS)
        stars(axes, found, [(trial.number, trial.values[index]) for trial in found.view.finals()])
        _dress(axes, "trial", axis_name(found, metric))
        axes.set_xlim(-0.5, max(trial.number for trial in found.view.trials) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    lost = ", ".join(f"{number} {state}" for state, number in found.states() if state in ("failed", "running"))
    shows = f"Each mark is a trial{f'; without a value: {lost}' if lost else ''}."
    lines = [
        (trial.number, trial.state, *_padded(trial.values, len(objectives)),
         trial.rungs[max(trial.rungs)] if trial.state == "pruned" and trial.rungs else None)
        for trial in found.view.trials
    ]  # fmt: skip
    finish(figure, handles(every[0]), found.caption(shows), None)
    return Drawing(figure, ("trial", "state", *objectives, "last rung"), tuple(lines))


def intermediate(found: Searched) -> Drawing | str:
    """The objective at the rungs, a line for each trial; those that went to the end have their value there."""
    measured = [trial for trial in found.view.trials if trial.rungs]
    if not measured:
        return "the search has no rungs" if found.view.search.pruner == "none" else "no rung was measured"
    steps = sorted({step for trial in measured for step in trial.rungs})
    figure, (axes,) = blank(6.6, 3.3)
    winner = found.winner
    kinds: dict[str, Any] = {}
    for trial in measured:
        path = [(steps.index(step), value) for step, value in sorted(trial.rungs.items())]
        path += [(len(steps), trial.values[0])] if trial.values else []
        name, look = _look(trial, winner)
        (kinds[name],) = axes.plot([x for x, _ in path], [y for _, y in path], marker="o", **look)
        if trial.state == "pruned":
            axes.plot(*path[-1], marker=CROSS, markersize=6, color=look["color"], linestyle="none")
    axes.set_xticks(range(len(steps) + 1), [*map(str, steps), "end"])
    _dress(axes, _rung_name(found), axis_name(found, found.objective))
    lines: list[tuple[object, ...]]
    lines = [(t.number, t.state, step, value) for t in measured for step, value in sorted(t.rungs.items())]
    lines += [(t.number, t.state, None, t.values[0]) for t in measured if t.values]
    legend = {name: kinds[name] for name in ("winner", *STATES) if name in kinds}
    finish(figure, legend, found.caption("A cross is where a trial was ended."), None)
    return Drawing(figure, ("trial", "state", "rung", found.objective), tuple(lines))


def pareto(found: Searched) -> Drawing | str:
    """The first two objectives of the complete trials; those that no other dominates are joined."""
    objectives = found.view.search.objective
    if len(objectives) < 2:
        return "the search has one objective"
    if not found.complete:
        return "no trial is complete"
    front = sorted(found.view.best(), key=lambda trial: trial.values)
    best = {trial.values for trial in front}
    others = [trial for trial in found.complete if trial.values not in best]
    figure, (axes,) = blank(5.6, 4.2)
    _dots(axes, [t.values[0] for t in others], [t.values[1] for t in others], "dominated", ENDED_EARLY)
    joined = len(objectives) == 2
    axes.plot(
        [t.values[0] for t in front], [t.values[1] for t in front], color=palette()[0], linewidth=1.4, marker="o",
        markersize=5, linestyle="-" if joined else "none", label="Pareto front",
    )  # fmt: skip
    stars(axes, found, [(t.values[0], t.values[1]) for t in found.view.finals()])
    for trial in front if len(front) <= NAMED else found.view.finals():
        axes.annotate(
            str(trial.number), (trial.values[0], trial.values[1]), xytext=(5, 5), textcoords="offset points", fontsize=7
        )
    defaults = [one for label in found.rows if (one := found.default_trial(label)) is not None]
    if defaults:
        axes.plot([t.values[0] for t in defaults], [t.values[1] for t in defaults], marker="D", markersize=14, zorder=5,
                  markerfacecolor="none", markeredgecolor="0.15", linestyle="none", label="untouched row")  # fmt: skip
    _dress(axes, axis_name(found, objectives[0]), axis_name(found, objectives[1]))
    axes.grid(axis="both", color="0.9", linewidth=0.7)
    of = "" if joined else f" The front is that of all {len(objectives)} objectives, so it is not joined here."
    finish(figure, handles(axes), found.caption(f"Numbers are those of the trials.{of}"), None)
    lines = tuple((t.number, *t.values, t.values in best) for t in found.complete)
    return Drawing(figure, ("trial", *objectives, "on the front"), lines)


def axis_name(found: Searched, metric: str) -> str:
    """box AP on tune (points)"""
    return f"{'' if metric.startswith('ACC') else 'box '}{metric} on {found.view.measured_on} (points)"


def mark_size(number: int) -> float:
    """Of the marks of so many trials."""
    return 5.0 if number <= MANY else 2.5


def stars(axes: Axes, found: Searched, at: Sequence[tuple[float, float]]) -> None:
    """A star at each of the trials that are trained on all training images."""
    if at:
        label = "winner" if len(found.view.finals()) == 1 else "finals"
        axes.plot(
            [x for x, _ in at], [y for _, y in at], marker=STAR, markersize=11, linestyle="none", zorder=4,
            color=palette()[WINNER], markeredgecolor="0.15", markeredgewidth=0.6, label=label,
        )  # fmt: skip


def _dots(axes: Axes, xs: Sequence[float], ys: Sequence[float], label: str, colour: Any, mark: str = "o") -> None:
    if xs:
        axes.plot(xs, ys, marker=mark, markersize=mark_size(len(xs)), linestyle="none", color=colour, label=label,
                  **EDGE)  # fmt: skip


def _look(trial: Trial, winner: Trial | None) -> tuple[str, dict[str, Any]]:
    """The kind of a trial's line, and how it is drawn."""
    if trial is winner:
        return "winner", {"color": palette()[WINNER], "linewidth": 2.2, "markersize": 4, "zorder": 4, **EDGE}
    if trial.state == "complete":
        return "complete", {"color": palette()[0], "linewidth": 1.1, "markersize": 3, "alpha": 0.7, "zorder": 3}
    style = "-" if trial.state == "pruned" else ":"
    return trial.state, {"color": ENDED_EARLY, "linewidth": 0.9, "markersize": 2.5, "linestyle": style}


def _rung_name(found: Searched) -> str:
    if found.view.search.pruner == "wilcoxon":
        return "seed, in the order of the search; the end is the mean over them"
    unit = "epochs" if found.view.space.schedule.epochs is not None else "steps"
    return f"{unit} of the last training, not to scale"


def _dress(axes: Axes, x: str, y: str) -> None:
    calm(axes)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    tidy(axes)


def _padded(values: Sequence[float], length: int) -> tuple[float | None, ...]:
    return (*values, *(None for _ in range(length - len(values))))
