"""What a search plans: its trials as rows of a suite that is measured on `tune`, and the rows that are reported.
Separate from loop.py because `plan` and `report` need it, which ask nothing and start nothing; no Optuna here.

A round is one plan, so trials share stages, and those over one frozen trunk are trained in one pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.data.split import Split
from bench.errors import UserError, parsed
from bench.frequency import instance_bin
from bench.key import digest
from bench.plan import planning
from bench.plan.planning import Plan
from bench.search.view import View
from bench.seeds import generator
from bench.store.store import Store
from bench.suite.rows import Row
from bench.suite.search import Dimension, Scalar, Search, Space
from bench.suite.suite import Suite
from bench.suite.tuning import Tuning

SPELT = 5  # classes of a list that are spelt out
SHORT = 12  # digits of what is searched, in a study's name


@dataclass(frozen=True)
class Level:
    """One measurement of the trials of a round.

    Attributes:
        index: from 0.
        step: by which it is reported: the rung, or how many seeds; None: the end.
        until: the rung at which the training stops; None: it is whole.
        seeds: with which each trial is trained.
    """

    index: int
    step: int | None
    until: int | None
    seeds: tuple[int, ...]


def searched(suite: Suite) -> tuple[Search, Space]:
    """The search of a suite.

    Raises:
        UserError: it has none.
    """
    if suite.sections.search is None or suite.space is None:
        hint = f"or begin one from its rows: python -m bench search --from {suite.path} --set-space beta=0.5:32:log"
        raise UserError("no section `search`", where=str(suite.path), hint=f"{hint} --trials 16")
    return suite.sections.search, suite.space


def seeds_of(suite: Suite) -> tuple[int, ...]:
    """The seeds that each trial is trained with."""
    search, _ = searched(suite)
    return search.seeds or suite.sections.seeds[:1]


def tuning(suite: Suite) -> Suite:
    """The suite as its trials see it: trained on a part of the training images and measured on the other."""
    search, _ = searched(suite)
    sections = suite.sections.model_copy(update={"seeds": seeds_of(suite)})
    division = None if search.tune_on == "val" else Tuning(fraction=search.tune, seed=search.tune_seed)
    return replace(suite, name=f"{suite.name}-trials", sections=sections, division=division)


def study_name(suite: Suite) -> str:
    """The suite's name and twelve digits of all that decides which trials there are, and what they are measured on."""
    search, space = searched(suite)
    section = search.model_dump(mode="json", exclude={*search.HOW_LONG, "round"})
    rows = planning.make(tuning(suite)).rows
    keys = {f"{row.label}/{row.seed}": row.evaluate.key for row in rows if row.evaluate is not None}
    return f"{suite.name}-{digest([section, keys, sorted(space.rows)])[:SHORT]}"


def plan_of(suite: Suite, trials: Mapping[str, Mapping[str, Scalar]], level: Level) -> Plan:
    """The plan that measures trials, given as label -> chosen values, on a level.

    Raises:
        UserError: settings that are legal one by one, but not together.
    """
    search, space = searched(suite)
    below = tuple(rung for rung in search.rungs if level.until is None or rung < level.until)
    rows = [_row(space, label, chosen, level.until, below) for label, chosen in trials.items()]
    trained = tuning(suite)
    sections = trained.sections.model_copy(update={"seeds": level.seeds})
    try:
        return planning.make(replace(trained, rows=tuple(rows), sections=sections, set_aside=()))
    except ValueError as error:  # of a rung
        where = f"{suite.document.where('search', 'rungs')} search.rungs"
        raise UserError(f"a rung is not before the end of the training: {error}", where=where) from None


def _row(space: Space, label: str, chosen: Mapping[str, Scalar], until: int | None, below: tuple[int, ...]) -> Row:
    return replace(space.row(label, chosen), until=until, rungs=below)


def data_plan(suite: Suite) -> Plan:
    """The data stages alone: they tell whether an objective has anything to count, before anything is trained."""
    plan = planning.make(tuning(suite))
    stages = {key: stage for key, stage in plan.stages.items() if stage.kind == "data"}
    return replace(plan, stages=stages, needed_by={key: plan.needed_by[key] for key in stages})


def check_objective(suite: Suite, counted: Mapping[str, int]) -> None:
    """Refuse an objective over a part of the classes, none of which has a box where trials are measured.

    Args:
        suite: with its search.
        counted: of each such metric (AP1, APr), how many of its classes have a box there.

    Raises:
        UserError: with those that have one.
    """
    search, _ = searched(suite)
    for metric in search.objective:
        if counted.get(metric.replace("ACC", "AP"), 1) == 0:
            split = "val" if search.tune_on == "val" else "`tune`"
            raise UserError(
                f"no class that {metric} counts has a box in {split}",
                where=f"{suite.document.where('search', 'objective')} search.objective",
                allowed=", ".join(["AP", *(name for name, number in counted.items() if number)]),
                hint="search for another metric, or take more images for `tune`",
            )  # fmt: skip


def classes_counted(split: Split, edges: Sequence[int]) -> dict[str, int]:
    """Of each metric over a part of the classes, how many of these have a box in the split that counts."""
    boxes = np.zeros(split.num_classes, np.int64)
    for labels, ignore in zip(split.labels, split.ignore, strict=True):
        np.add.at(boxes, labels[~ignore], 1)
    bins = instance_bin([category.instance_count for category in split.categories], edges)
    found = {f"AP{i + 1}": int(((bins == i) & (boxes > 0)).sum()) for i in range(len(edges) + 1)}
    frequency = np.array([category.frequency for category in split.categories])
    return found | {f"AP{letter}": int(((frequency == letter) & (boxes > 0)).sum()) for letter in "rcf"}


def divided(suite: Suite, store: Store) -> str:
    """How the training images were divided, a sentence for each data set; "" where that is not done yet."""
    lines = []
    for stage in data_plan(suite).stages.values():
        if stage.spec["split"] == "tune" and planning.fresh(stage, store):
            with contextlib.suppress(UserError, OSError, ValueError, KeyError, TypeError):  # it is only said
                lines.append(_divided(parsed(store.read(stage.key, "counts.json"))))
    return "; ".join(dict.fromkeys(lines))


def _divided(counts: Mapping[str, Any]) -> str:
    alone = list(counts["unsplit"])
    text = f"{counts['own']['num_images']:,} of {counts['num_images']:,} training images"
    if not alone:
        return text
    more = f" and {len(alone) - SPELT} more" if len(alone) > SPELT else ""
    named = f"{', '.join(map(str, alone[:SPELT]))}{more}"
    return f"{text}; {len(alone)} of {len(counts['instances'])} classes could not be split and are not there: {named}"


def possible(
    suite: Suite, trials: Mapping[str, Mapping[str, Scalar]], level: Level
) -> tuple[Plan | None, dict[str, str]]:
    """The plan of those trials that can be planned (None: of none), and by label why others cannot: their settings are
    legal one by one, but not together."""
    try:
        return plan_of(suite, trials, level), {}
    except UserError:
        refused = {}
        for label, chosen in trials.items():
            try:
                plan_of(suite, {label: chosen}, level)
            except UserError as error:
                refused[label] = error.what
        legal = {label: chosen for label, chosen in trials.items() if label not in refused}
        return (plan_of(suite, legal, level) if legal else None), refused


def trial_plans(suite: Suite, view: View) -> list[Plan]:
    """A plan for each level that trials were, or may have been, measured on."""
    chosen = {label_of(trial.number): trial.chosen for trial in view.trials}
    found = [possible(suite, chosen, level)[0] for level in (levels(suite) if chosen else ())]
    return [plan for plan in found if plan is not None]


def all_keys(suite: Suite, view: View) -> set[str]:
    """The keys of all stages that a search has asked for so far: `gc` leaves them alone."""
    return {key for plan in trial_plans(suite, view) for key in plan.stages}


def levels(suite: Suite) -> list[Level]:
    """How often the trials of a round are measured: at each rung and at the end; or after each seed."""
    search, _ = searched(suite)
    seeds = seeds_of(suite)
    if search.pruner == "wilcoxon":
        return [Level(i, i + 1 if i + 1 < len(seeds) else None, None, seeds[: i + 1]) for i in range(len(seeds))]
    return [Level(i, rung, rung, seeds) for i, rung in enumerate((*search.rungs, None))]


def label_of(number: int) -> str:
    """A trial as a row of its round's plan."""
    return f"trial {number}"


def final_plan(suite: Suite, view: View) -> Plan:
    """The untouched rows and the best trials, on all training images and val, with all seeds of the suite."""
    best = [view.space.row(view.final_label(t), t.chosen) for t in view.finals()]
    return planning.make(replace(suite, rows=(*suite.rows, *best)))


def drawn(space: Space, number: int, seed: int) -> list[dict[str, Scalar]]:
    """So many points at random, for an estimate of what trials will cost; of a finite space its points in order, again
    from the first where there are no more: a trial that repeats one costs nothing."""
    points = space.points()
    if points is not None:
        found = [point for _, point in zip(range(number), points, strict=False)]
        return [found[i % len(found)] for i in range(number)]
    rng = generator(seed, "search/plan")
    return [_point(space, rng) for _ in range(number)]


def _point(space: Space, rng: np.random.Generator) -> dict[str, Scalar]:
    chosen: dict[str, Scalar] = {}
    for name, dimension in space.dimensions.items():
        if space.is_used(name, chosen):
            chosen[name] = _value(dimension, rng)
    return chosen


def _value(dimension: Dimension, rng: np.random.Generator) -> Scalar:
    values = dimension.values()
    if values is not None:
        return values[int(rng.integers(len(values)))]
    assert dimension.low is not None
    assert dimension.high is not None
    if dimension.log:
        value = float(np.exp(rng.uniform(np.log(dimension.low), np.log(dimension.high))))
    else:
        value = float(rng.uniform(dimension.low, dimension.high))
    return round(value) if dimension.int else value
