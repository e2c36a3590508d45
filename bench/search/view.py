"""A search as it stands: its trials with their settings and values. Separate from study.py because terminal, tracker
and report read it, none of which knows Optuna.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bench.suite.search import ROW, Scalar, Search, Space

State = Literal["running", "complete", "pruned", "failed"]
MARK = "searched on val: these numbers were chosen on what they are measured on"


@dataclass(frozen=True)
class Trial:
    """One setting that was, or is being, tried.

    Attributes:
        number: Optuna's, from 0; never used twice.
        state: "running" also after its driver has ended: it is asked again.
        chosen: dimension -> value; those that it does not use are left out.
        values: of the objectives, in AP points, mean over the search's seeds; () where it has none.
        rungs: step (or number of seeds) -> the objective there.
        bracket: hyperband: the rung that it began with, from 0.
        why: it failed.
    """

    number: int
    state: State
    chosen: Mapping[str, Scalar]
    values: tuple[float, ...] = ()
    rungs: Mapping[int, float] = field(default_factory=dict)
    bracket: int | None = None
    why: str = ""

    @property
    def finished(self) -> bool:
        """Whether it counts for the budget."""
        return self.state in ("complete", "pruned")

    def settings(self) -> dict[str, Scalar]:
        """What it changes of its row."""
        return {name: value for name, value in self.chosen.items() if name != ROW}


@dataclass(frozen=True)
class View:
    """A search and all its trials, by number.

    Attributes:
        name: of the study: the suite's name and twelve digits of what is searched.
        search, space: what is searched.
        trials: those of earlier runs too.
        hours, machine_hours: spent so far.
        divided: how many training images are in `tune`, and which classes cannot be there; "" before that is known.
    """

    name: str
    search: Search
    space: Space
    trials: tuple[Trial, ...]
    hours: float = 0.0
    machine_hours: float = 0.0
    divided: str = ""

    @property
    def measured_on(self) -> Literal["tune", "val"]:
        """The split that trials are measured on."""
        return "val" if self.search.tune_on == "val" else "tune"

    @property
    def mark(self) -> str:
        """What stands beside every number of a search on val; "" otherwise."""
        return MARK if self.search.tune_on == "val" else ""

    def row_of(self, trial: Trial) -> str:
        """Label of the row that a trial starts from."""
        return str(trial.chosen.get(ROW, next(iter(self.space.rows))))

    def best(self) -> list[Trial]:
        """The complete trials to be reported, best first: by the objective, the lower number of equals; of several
        objectives the Pareto front, by the first."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        front = [t for t in complete if not any(dominates(other.values, t.values) for other in complete)]
        seen: dict[tuple[float, ...], Trial] = {}
        for trial in front:  # equal values: one of them is enough
            seen.setdefault(trial.values, trial)
        return sorted(seen.values(), key=lambda trial: (*(-value for value in trial.values), trial.number))

    def finals(self) -> list[Trial]:
        """Those of the best that are trained on all training images: of a front that is longer, spread over it."""
        if len(self.search.objective) == 1:
            complete = [trial for trial in self.trials if trial.state == "complete"]
            ranked = sorted(complete, key=lambda trial: (-trial.values[0], trial.number))
            return ranked[: self.search.finals or 1]
        front, number = self.best(), self.search.finals or FRONT
        if len(front) <= number:
            return front
        if number == 1:
            return front[:1]
        return [front[round(i * (len(front) - 1) / (number - 1))] for i in range(number)]

    def final_label(self, trial: Trial) -> str:
        """The row of a trial that is trained on all training images."""
        searched = "searched on val" if self.mark else "searched"  # a label is in every table, figure and MLflow run
        if len(self.finals()) > 1:
            return f"{self.row_of(trial)} (trial {trial.number}{f', {searched}' if self.mark else ''})"
        return f"{self.row_of(trial)} ({searched})"

    def untouched(self) -> dict[str, str]:
        """Label of the row of each of the finals, in order -> the row that it started from."""
        return {self.final_label(trial): self.row_of(trial) for trial in self.finals()}


FRONT = 5  # of a Pareto front: so many are trained on all training images unless the search says otherwise


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether `a` is at least as good in every objective, and better in one."""
    return all(x >= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)
