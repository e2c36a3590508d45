"""A search as its report sees it: trials, their records, the final rows. Separate from what is written and drawn of it,
since text and figures ask the same: which trial is the default, what was measured where, what was gained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.record import metric_names
from bench.search.view import State, Trial, View
from bench.suite.search import ROW, Dimension, Scalar
from reports.gain import Gain, gain
from reports.load import RowResult
from reports.settings import setting, text
from reports.stats import Cell, by_row, metrics_of

STATES: tuple[State, ...] = ("complete", "pruned", "failed", "running")


@dataclass(frozen=True)
class Final:
    """A trial that was trained on all training images, beside the row that it started from.

    Attributes:
        label, default: of the two rows.
        trial: the trial.
        gains: of AP, each bin and each objective.
        own, base: metric -> Cell of the two rows on val.
    """

    label: str
    default: str
    trial: Trial
    gains: tuple[Gain, ...]
    own: Mapping[str, Cell]
    base: Mapping[str, Cell]


@dataclass(frozen=True)
class Searched:
    """What a search's report is made of.

    Attributes:
        view: the search.
        trials: records of the complete trials where they were measured, rows "trial N", one per seed.
        finals: records on val of all rows of the final plan.
        heading: the suite's.
        untouched: label of each searched row, in the order of `View.finals` -> the row that it started from.
        importances: dimension -> its share, the largest first.
        edges: of the instance bins.
    """

    view: View
    trials: Sequence[RowResult]
    finals: Sequence[RowResult]
    heading: str
    untouched: Mapping[str, str]
    importances: Mapping[str, float]
    edges: Sequence[int]

    @property
    def objective(self) -> str:
        """The first."""
        return self.view.search.objective[0]

    @property
    def dimensions(self) -> Mapping[str, Dimension]:
        return self.view.space.dimensions

    @property
    def rows(self) -> list[str]:
        """Labels of the rows that trials start from."""
        return list(self.view.space.rows)

    @property
    def metrics(self) -> list[str]:
        """AP, that of each bin, and the objectives."""
        legal = metric_names(len(self.edges) + 1)
        bins = [f"AP{i + 1}" for i in range(len(self.edges) + 1)]
        return list(dict.fromkeys(["AP", *bins, *(name for name in self.view.search.objective if name in legal)]))

    def of_state(self, state: State) -> list[Trial]:
        return [trial for trial in self.view.trials if trial.state == state]

    @cached_property
    def complete(self) -> list[Trial]:
        return self.of_state("complete")

    @cached_property
    def records(self) -> dict[str, list[RowResult]]:
        """ "trial 3" -> its records."""
        return by_row(self.trials)

    @cached_property
    def winner(self) -> Trial | None:
        """The first of the finals."""
        return next(iter(self.view.finals()), None)

    def numeric(self) -> list[str]:
        """The dimensions whose values are all numbers."""
        return [name for name, dimension in self.dimensions.items() if is_numeric(dimension)]

    def default_trial(self, label: str) -> Trial | None:
        """The complete trial with the settings that a row has untouched; None: there is none, or the row takes a
        setting from elsewhere (a rate of the suite's schedule), so that nobody can tell."""
        own = self.view.space.rows[label].settings
        for trial in self.complete:
            pairs = [(value, setting(own, name)) for name, value in trial.settings().items()]
            if self.view.row_of(trial) == label and all(_equal(a, b) for a, b in pairs):
                return trial
        return None

    def compared(self) -> list[Final]:
        """Each final beside its default."""
        groups = by_row(self.finals)
        found = []
        for (label, default), trial in zip(self.untouched.items(), self.view.finals(), strict=False):
            own, base = groups.get(label, []), groups.get(default, [])
            gains = tuple(gain(own, base, metric) for metric in self.metrics)
            found.append(Final(label, default, trial, gains, metrics_of(own), metrics_of(base)))
        return found

    def measured_on(self) -> str:
        """Where the trials were measured, for captions and texts."""
        protocols = [result.record.protocol for result in self.trials]
        seeds = sorted({result.record.seed for result in self.trials})
        by = f", seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else ""
        number = _between({protocol.val_images for protocol in protocols})
        if self.view.mark:
            return f"val{f', {number} images' if number else ''}{by}: {self.view.mark}"
        search = self.view.search
        division = f"({100 * search.tune:g} %, division seed {search.tune_seed})"
        rest = _between({protocol.train_images for protocol in protocols})
        how = f"{number} of the training images {division}" if number else f"a part of the training images {division}"
        others = f", by models trained on the other {rest}" if rest else ""
        return f"`tune`, {how}{others}{by}; no trial was measured on val"

    def caption(self, shows: str) -> str:
        """For below a figure: what was searched, where it was measured, what the marks show."""
        search = self.view.search
        protocols = [result.record.protocol for result in self.trials]
        ran = [f"{self.heading}; search {self.view.name}, sampler {search.sampler}, seed {search.seed}"]
        for name in ("data", "engine", "trunk"):
            values = {str(getattr(protocol, name)) for protocol in protocols}
            ran += [f"{name} {values.pop()}"] if len(values) == 1 else []
        return f"{'; '.join(ran)}; measured on {self.measured_on()}. {shows}"

    def states(self) -> Iterator[tuple[State, int]]:
        """How many trials there are of each state that occurs."""
        for state in STATES:
            if number := len(self.of_state(state)):
                yield state, number


def is_numeric(dimension: Dimension) -> bool:
    """A range, or choices that are numbers."""
    return all(isinstance(c, int | float) and not isinstance(c, bool) for c in dimension.choices)


def chosen_text(trial: Trial, digits: int = 0) -> str:
    """beta=4.2 schedule.lr=0.02; `digits`: of a float at most, 0: all, so that the setting can be used."""
    settings = trial.settings().items()
    return " ".join(f"{n}={text_of(v, digits)}" for n, v in settings) or "no setting"


def row_text(found: Searched, trial: Trial) -> str:
    """The row of a trial where there are several."""
    return f"{found.view.row_of(trial)}, " if ROW in found.dimensions else ""


def text_of(value: Scalar, digits: int = 0) -> str:
    """A setting as text; `digits`: of a float at most, 0: all."""
    if isinstance(value, float):
        return f"{value:.{digits}g}" if digits else repr(value)
    return text(value)


def _equal(a: object, b: object) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _between(numbers: set[int]) -> str:
    """356, or 355 to 357 where the data follow the seed; "" of none."""
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
