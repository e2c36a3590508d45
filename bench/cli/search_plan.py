"""`plan` of a suite with a search: rounds, trainings with and without sharing, and what trials and rows will cost.
Separate from plan.py: which settings trials will have is not known, so a sample of them is planned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from bench.cli import trials
from bench.cli.overview import Overview, compare
from bench.cli.say import count, estimate_text, say
from bench.cli.wanted import seen
from bench.errors import UserError
from bench.plan import forecast, planning
from bench.search import plans
from bench.search.view import FRONT, View
from bench.store.store import Store
from bench.suite.search import Scalar
from bench.suite.suite import Suite


class SearchPlan:
    """A search beside a store.

    Attributes:
        view: its trials so far.
        left: trials that the budget has left; None: it is a time.
        round: what the next round needs, with settings drawn at random.
        seconds: of all rounds that are left; None where stages or slots are not known.
        finals: the rows that are reported, with the settings of the best so far, or drawn ones.
    """

    def __init__(self, suite: Suite, store: Store, slots: int | None, *, fuse: bool) -> None:
        search, space = plans.searched(suite)
        self.suite, self.view = suite, begun(suite, store)
        self.left = self._left()
        asked = search.round if self.left is None else min(search.round, self.left)
        first = len(self.view.trials)
        drawn = plans.drawn(space, first + 2 * asked, search.seed)[first:]
        self.round = self._planned(drawn[:asked], store, slots, fuse=fuse)
        self.seconds = self._seconds(self._planned(drawn[asked:], store, slots, fuse=fuse))
        if self.view.finals():
            final = plans.final_plan(suite, self.view)
        else:
            several = search.finals or (1 if len(search.objective) == 1 else FRONT)
            points = plans.drawn(space, several, search.seed)
            best = [space.row(f"best {i + 1}", chosen) for i, chosen in enumerate(points)]
            final = planning.make(replace(suite, rows=(*suite.rows, *best)))
        self.finals = compare(final, store, slots, fuse=fuse)

    def _left(self) -> int | None:
        search, budget = self.view.search, self.view.search.trials
        if search.sampler == "grid":
            points = sum(1 for _ in self.view.space.points() or ())
            budget = points if budget is None else min(points, budget)
        return None if budget is None else max(0, budget - sum(trial.finished for trial in self.view.trials))

    def _planned(
        self, drawn: Sequence[Mapping[str, Scalar]], store: Store, slots: int | None, *, fuse: bool
    ) -> Overview | None:
        if not drawn:
            return None
        labelled = {plans.label_of(number): chosen for number, chosen in enumerate(drawn)}
        return compare(plans.plan_of(self.suite, labelled, plans.levels(self.suite)[-1]), store, slots, fuse=fuse)

    def _seconds(self, following: Overview | None) -> float | None:
        """The next round, and those after it as what one of them adds."""
        if self.round is None or self.rounds is None:
            return None
        total, rounds = self.round.wall, self.rounds - 1
        if not rounds or following is None or total is None or following.slots is None:
            return total
        new = following.missing - set(self.round.plan.stages)
        each = forecast.wall_seconds(following.plan, new, following.estimate, following.slots, fuse=following.fuse)
        return None if each is None else total + rounds * each

    @property
    def rounds(self) -> int | None:
        """Rounds that are left; None: not known."""
        return None if self.left is None else -(-self.left // self.view.search.round)

    def print(self, console: Console) -> None:
        """What `plan` says."""
        for text in trials.opening(self.view, self.suite):
            say(console, text)
        if self.round is None:
            say(console, "trials: all done")
        else:
            number = "" if self.rounds is None else f"{count(self.rounds, 'round')}, {estimate_text(self.seconds)}; "
            say(console, f"trials: {number}the next, with settings drawn at random:")
            for line in self.round.headline():
                say(console, f"  {line}")
        say(console, "final rows, on all training images and val:")
        for line in self.finals.headline():
            say(console, f"  {line}")

    def to_json(self) -> dict[str, Any]:
        """What `plan --json` prints."""
        return {
            "search": trials.to_json(self.view), "trials_left": self.left, "rounds_left": self.rounds,
            "seconds": self.seconds, "round": None if self.round is None else self.round.to_json(),
            "finals": self.finals.to_json(),
        }  # fmt: skip


def begun(suite: Suite, store: Store) -> View:
    """The search as it stands; one without trials where it has not begun."""
    try:
        return seen(suite, store)
    except UserError:
        search, space = plans.searched(suite)
        return View(plans.study_name(suite), search, space, ())
