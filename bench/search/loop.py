"""The rounds of a search: ask, plan as rows on `tune`, bring the store to the plan, tell. Separate from study.py, which
keeps the trials: this file knows stages, and Optuna only through that one.

All that a round decides follows from the values of its trials, never from the order in which they ended; so the trials,
and the winner, are the same on one process, on several and on a cluster, and after any kill.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from bench.data.split import open_split
from bench.errors import UserError
from bench.launch.loop import Ended
from bench.plan import planning
from bench.plan.cost import share_of_pass
from bench.plan.planning import Plan
from bench.record import Result, loads
from bench.search import pruning
from bench.search.plans import Level, check_objective, classes_counted, data_plan, label_of, levels, possible
from bench.search.study import Study
from bench.search.view import Trial, View
from bench.stage import Stage, walk
from bench.store.store import Store
from bench.suite.suite import Suite

RESULT = "result.json"  # of an evaluate stage, named by bench/run/evaluate.py
SECONDS = 3600.0


class Rounds:
    """A search under way.

    Args:
        suite: with `search:`.
        study: its trials.
        store: where stages go.
        bring: brings the store to a plan; how that ended.
        show: is told of every change, with what the round is at.
    """

    def __init__(
        self,
        suite: Suite,
        study: Study,
        store: Store,
        bring: Callable[[Plan], Ended],
        show: Callable[[View], None],
    ) -> None:
        self._suite, self._study, self._store, self._bring, self._show = suite, study, store, bring, show
        self._search = study.search

    def run(self) -> Ended:
        """Ask and measure rounds until the budget is spent.

        Returns:
            How the last round ended; `interrupted`, or with what failed, if it is not finished.

        Raises:
            UserError: no trial can be planned, or none has the objective.
        """
        while trials := self._study.round():
            self._show(self._study.view())
            ended = self._round(trials)
            if ended is not None:
                return ended
        return Ended({}, False)

    def prepare(self) -> Ended | None:
        """Make the data and look whether the objective has classes to count; comes before `run`.

        Returns:
            None once that is known; else how making the data ended.

        Raises:
            UserError: the data have nothing that the objective counts.
        """
        plan = data_plan(self._suite)
        ended = self._bring(plan)
        if any(not planning.fresh(stage, self._store) for stage in plan.stages.values()):
            return ended
        edges = self._suite.sections.test.bins
        for stage in plan.stages.values():
            if stage.spec["split"] in ("tune", "val"):
                check_objective(self._suite, classes_counted(open_split(self._store.output(stage.key), None), edges))
        return None

    def _round(self, trials: Sequence[Trial]) -> Ended | None:
        """One round; None once all of its trials are told."""
        begins = self._brackets(trials)
        alive = {trial.number: trial for trial in trials if trial.state != "failed"}
        stages = levels(self._suite)
        if any(trial.state == "complete" for trial in trials):  # killed while it told the end: all else is settled
            alive = {number: trial for number, trial in alive.items() if trial.state == "running"}
            stages = stages[-1:]
        for level in stages:
            here = {n: t for n, t in alive.items() if begins.get(n, 0) <= level.index}
            if not here:
                continue
            values, failed, ended = self._measure(here, level)
            if ended is not None:
                return ended
            self._tell(values, failed, level, begins, alive)
            self._show(self._study.view())
        return None

    def _tell(
        self,
        values: Mapping[int, tuple[float, ...]],
        failed: Mapping[int, str],
        level: Level,
        begins: Mapping[int, int],
        alive: dict[int, Trial],
    ) -> None:
        """Tell what a level showed; takes the trials that have ended out of `alive`."""
        for number, why in failed.items():
            alive.pop(number)
            self._study.fail(number, why)
        if level.step is None:
            for number in sorted(values):
                self._study.complete(number, values[number])
            return
        for number in list(self._ending(values, level.step, begins)):
            alive.pop(number)
            self._study.prune(number)

    def _brackets(self, trials: Sequence[Trial]) -> dict[int, int]:
        """Hyperband: the level that each trial begins with."""
        if self._search.pruner != "hyperband":
            return {}
        shares = pruning.brackets(len(trials), len(self._search.rungs), self._search.reduction)
        for trial, begin in zip(trials, shares, strict=True):
            self._study.set_bracket(trial.number, begin)
        return {trial.number: begin for trial, begin in zip(trials, shares, strict=True)}

    def _measure(
        self, trials: Mapping[int, Trial], level: Level
    ) -> tuple[dict[int, tuple[float, ...]], dict[int, str], Ended | None]:
        """Values and failures of trials on a level; how it ended, where that was before all are known."""
        chosen = {label_of(number): trial.chosen for number, trial in trials.items()}
        plan, refused = possible(self._suite, chosen, level)
        failed = {number: refused[label_of(number)] for number in trials if label_of(number) in refused}
        if plan is None:
            hint = "settings exclude each other: narrow the space, or make one depend on another with `when`"
            raise _hopeless(failed, self._suite, hint)
        missing = {key for key in plan.stages if not planning.fresh(plan.stages[key], self._store)}
        begun = time.monotonic()
        ended = self._bring(plan)
        self._study.spend((time.monotonic() - begun) / SECONDS, self._machine_seconds(missing) / SECONDS)
        values: dict[int, tuple[float, ...]] = {}
        rows = _evaluated(plan)
        for number in sorted(trials.keys() - failed.keys()):
            stages = rows[label_of(number)]
            if all(planning.fresh(stage, self._store) for stage in stages):
                found, why = self._values(stages)
                if found is None:
                    failed[number] = why
                else:
                    values[number] = found
                    if level.step is not None:
                        self._report(number, level, stages, found)
                continue
            outcomes = [ended.failed[stage.key] for last in stages for stage in walk(last) if stage.key in ended.failed]
            if ended.interrupted or ended.left or not outcomes or any(outcome.code != 1 for outcome in outcomes):
                return {}, {}, ended
            failed[number] = outcomes[0].message.splitlines()[0]
        if len(failed) == len(trials) > 1:  # something that all need: no trial is to blame before somebody has looked
            if not ended.failed:
                raise _hopeless(failed, self._suite, "search for another objective, or take more images for `tune`")
            return {}, {}, ended
        return values, failed, None

    def _report(self, number: int, level: Level, stages: Sequence[Stage], found: tuple[float, ...]) -> None:
        """Wilcoxon's test compares the values of single seeds; a rung is compared by the mean over them."""
        assert level.step is not None
        value = found[0]
        if self._search.pruner == "wilcoxon":
            last, why = self._values(stages[-1:])
            assert last is not None, why
            value = last[0]
        self._study.report(number, level.step, value)

    def _values(self, stages: Sequence[Stage]) -> tuple[tuple[float, ...] | None, str]:
        """The objectives, each the mean over the seeds; or why there are none."""
        found: list[float] = []
        results = [loads(Result, self._store.read(s.key, RESULT), str(self._store.output(s.key))) for s in stages]
        for metric in self._search.objective:
            values = [result.metrics.get(metric) for result in results]
            known = [value for value in values if value is not None]
            if len(known) < len(values):
                return None, f"{metric} is missing: no class that it counts has a box in `tune`"
            found.append(sum(known) / len(known))
        return tuple(found), ""

    def _ending(self, values: Mapping[int, tuple[float, ...]], step: int, begins: Mapping[int, int]) -> Iterator[int]:
        """The trials that end at a rung."""
        if self._search.pruner == "hyperband":
            for bracket in sorted(set(begins.values())):
                mine = {number: value[0] for number, value in values.items() if begins[number] == bracket}
                yield from sorted(set(mine) - pruning.going_on(mine, self._search.reduction)) if mine else ()
            return
        yield from [number for number in sorted(values) if self._study.should_prune(number, step)]

    def _machine_seconds(self, keys: set[str]) -> float:
        """Seconds of the processes that made these stages."""
        found = [done for key in keys if (done := self._store.done(key)) is not None]
        counts = [done.environment.get("processes") for done in found]
        processes = [number if isinstance(number, int) else 1 for number in counts]
        return sum(share_of_pass(done) * number for done, number in zip(found, processes, strict=True))


def _hopeless(failed: Mapping[int, str], suite: Suite, hint: str) -> UserError:
    what = f"none of the {len(failed)} trials of a round has a value: {next(iter(failed.values()))}"
    return UserError(what, where=f"{suite.document.where('search')} search", hint=hint)


def _evaluated(plan: Plan) -> dict[str, list[Stage]]:
    """The evaluate stages of each row, by the order of the seeds."""
    found: dict[str, list[Stage]] = {}
    for row in plan.rows:
        if row.evaluate is None:
            raise UserError(str(row.skipped), where=row.method)
        found.setdefault(row.label, []).append(row.evaluate)
    return found
