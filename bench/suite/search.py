"""`search:` of a suite: which settings of which rows are searched, for what, how and how long. Separate from
bench/search, which drives Optuna: a suite is checked whole before anything is imported for it.

A dimension is a setting of the suite's rows: of their method (beta, t.images) or of their own schedule (schedule.lr).
With several rows the row itself is a dimension, called `row`; a setting that a row's method lacks is not used in trials
of that row.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from bench.errors import UserError, unknown
from bench.record import metric_names
from bench.spec import Few, Names, Positive, Schedule, Section, Seed, Text
from bench.suite import yamlfile
from bench.suite.rows import Row, with_settings
from bench.suite.yamlfile import Document

ROW = "row"  # the dimension that chooses among the suite's rows
_ABSENT = object()
MOST_POINTS = 10_000  # of a grid; trials of a search
Scalar = bool | int | float | str | None
Bound = Annotated[float, Field(ge=-1e30, le=1e30)]
_FORM = "LOW:HIGH, LOW:HIGH:log, LOW:HIGH:int, LOW:HIGH:STEP, or A,B,C"


def dimension_text(text: str) -> dict[str, Any]:
    """A dimension as it is written on a command line: 0.5:32:log, 100:1337:int, 0:2:0.05, a,b,c.

    Raises:
        ValueError: it is none.
    """
    parts = text.split(":")
    if len(parts) < 2:
        return {"choices": [yamlfile.scalar(part) for part in text.split(",") if part.strip()]}
    found: dict[str, Any] = {}
    try:
        found["low"], found["high"] = (float(part) for part in parts[:2])
        for word in parts[2:]:
            if word in ("log", "int"):
                found[word] = True
            else:
                found["step"] = float(word)
    except ValueError:
        raise ValueError(f"is no dimension; it is {_FORM}") from None
    return found


def _as_mapping(value: Any) -> Any:
    if isinstance(value, str):
        return dimension_text(value)
    return {"choices": value} if isinstance(value, list) else value


class Dimension(Section):
    """The values that a setting may take: `{low: 0.5, high: 32, log: true}`, `{choices: [a, b]}`, or in short
    `0.5:32:log`, `[a, b]`."""

    low: Bound | None = None
    """Least value."""
    high: Bound | None = None
    """Largest value."""
    step: Annotated[float, Field(gt=0, le=1e30)] | None = None
    """Values are low, low + step, ...; null: any between (whole numbers: each)."""
    log: bool = False
    """Whether equal ratios, not equal differences, are equally likely."""
    int: bool = False
    """Whether the values are whole numbers."""
    choices: Annotated[tuple[Scalar, ...], Field(max_length=1000)] = ()
    """The values themselves, in place of a range."""
    when: dict[str, Any] = Field(default={})
    """Other dimensions, each with the value or values for which this one is used; `row: BAGS` is one."""

    @model_validator(mode="after")
    def _a_range_or_choices(self) -> Dimension:
        if self.choices:
            if self.low is not None or self.high is not None or self.step is not None or self.log or self.int:
                raise ValueError("choices, or a range (low, high), not both")
            if len({(type(c), c) for c in self.choices}) < len(self.choices):
                raise ValueError("a choice is there twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("a dimension has low and high, or choices")
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: true needs a low above 0, got {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        if self.int and any(v is not None and v != round(v) for v in (self.low, self.high, self.step)):
            raise ValueError("int: true needs whole numbers")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(f"step {self.step:g} is larger than the range")
        return self

    def values(self) -> tuple[Scalar, ...] | None:
        """All its values; None: there are infinitely many."""
        if self.choices:
            return self.choices
        assert self.low is not None
        assert self.high is not None
        step = self.step or (1.0 if self.int else None)
        if step is None:
            return None
        number = math.floor((self.high - self.low) / step * (1 + 1e-12) + 1e-9) + 1
        if number > MOST_POINTS:
            return None
        found = [self.low + i * step for i in range(number)]
        return tuple(int(v) if self.int else round(v, 12) for v in found)

    def holds(self, value: Any) -> bool:
        """Whether a value is one of it."""
        if self.choices:
            return any(choice == value and type(choice) is type(value) for choice in self.choices)
        assert self.low is not None
        assert self.high is not None
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        step = self.step or (1.0 if self.int else None)
        return step is None or abs((value - self.low) / step - round((value - self.low) / step)) < 1e-9

    def examples(self) -> tuple[Scalar, ...]:
        """Its ends and a value between, or its choices: what is tried on each row before anything starts."""
        if self.choices:
            return self.choices
        assert self.low is not None
        assert self.high is not None
        if self.int:
            return int(self.low), int(self.high)
        return self.low, self.high, self.low + 0.381966 * (self.high - self.low)


class Search(Section):
    """A search over settings of the suite's rows. Each trial is trained on one part of the TRAINING images and measured
    on the other, `tune`; the best and the untouched rows are then trained on all of them and measured on val."""

    HOW_LONG: ClassVar[frozenset[str]] = frozenset({"trials", "hours", "machine_hours", "finals", "storage"})

    space: Annotated[dict[str, Annotated[Dimension, BeforeValidator(_as_mapping)]], Field(max_length=100)]
    """Setting -> its values. A setting of the rows' methods (beta, t.images) or of their schedule (schedule.lr)."""
    rows: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    """Labels of the rows that trials start from; none named: all. The others are controls, reported beside them."""
    objective: Names = ("AP",)
    """Metric of the table that is maximised; a list: a Pareto front of several."""
    sampler: Literal["tpe", "gp", "cmaes", "grid", "random", "qmc", "nsgaii"] = "tpe"
    """How trials are chosen: tree-structured Parzen estimator, Gaussian process, CMA-ES, all points, at random,
    a Sobol sequence, a genetic algorithm for several objectives."""
    pruner: Literal["none", "median", "hyperband", "wilcoxon"] = "none"
    """Which trials end early: below the median of the others at a rung; all but the best of each rung; or worse than
    the best trial over the seeds so far, by Wilcoxon's test."""
    rungs: Few[Positive] = ()
    """Where a trial may end early: steps (epochs, if the schedule counts in them) of its last training."""
    reduction: Annotated[int, Field(ge=2, le=100)] = 3
    """Hyperband: one of so many trials of a rung goes on."""
    trials: Annotated[int, Field(ge=1, le=MOST_POINTS)] | None = None
    """Budget: finished trials, those that ended early included."""
    hours: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Budget: hours on the clock, all runs of the search together. The round that is under way is finished."""
    machine_hours: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Budget: hours of the processes of all stages that the search has made (on GPUs: GPU hours)."""
    round: Annotated[int, Field(ge=1, le=1000)] = 8
    """Trials that are chosen at once; the next round knows their results."""
    seed: Seed = 0
    """Of the sampler."""
    seeds: Few[Seed] = ()
    """Each trial is trained once for each, and counts as their mean; none: the first of the suite's seeds."""
    tune_on: Literal["train", "val"] = "train"
    """`val`: trials are trained on all training images and measured on val. Every number is marked then, since it was
    chosen on what it is measured on."""
    tune: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the training images that trials are measured on, not trained on."""
    tune_seed: Seed = 0
    """Of the division of the training images."""
    finals: Annotated[int, Field(ge=1, le=50)] | None = None
    """Trials that are trained on all training images at the end; null: the best, or five of a Pareto front."""
    storage: Text | None = None
    """Where Optuna keeps the trials: one of its URLs (postgresql://...); null: a journal in the store."""

    @model_validator(mode="after")
    def _fits_together(self) -> Search:
        if not self.space:
            raise ValueError("space is empty: name a setting and its values, e.g. space: {beta: 0.5:32:log}")
        if self.trials is None and self.hours is None and self.machine_hours is None and self.sampler != "grid":
            raise ValueError("a search needs a budget: trials (--trials 16), hours or machine_hours")
        if len(set(self.objective)) < len(self.objective) or not self.objective:
            raise ValueError("objective: different metrics, at least one")
        many = len(self.objective) > 1
        if many and self.pruner != "none":
            raise ValueError("a pruner compares one objective; there are several")
        if many and self.sampler == "cmaes":
            raise ValueError("cmaes has one objective; tpe, gp, nsgaii, random, qmc and grid may have several")
        if self.pruner in ("median", "hyperband") and not self.rungs:
            raise ValueError(f"pruner {self.pruner} needs rungs, e.g. rungs: [100, 300]")
        if self.pruner in ("none", "wilcoxon") and self.rungs:
            raise ValueError(f"pruner {self.pruner} has no rungs; median and hyperband do")
        if any(a >= b for a, b in itertools.pairwise(self.rungs)):
            raise ValueError("rungs must ascend, e.g. [100, 300]")
        if self.pruner == "wilcoxon" and len(self.seeds) < 3:
            raise ValueError("pruner wilcoxon compares over seeds: name three or more in `seeds`")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is there twice")
        if self.pruner == "hyperband" and self.round < self.reduction:
            raise ValueError("pruner hyperband compares the trials of a round: round must be at least reduction")
        return self


@dataclass(frozen=True)
class Space:
    """What is searched, checked against the rows.

    Attributes:
        rows: that trials start from, by label.
        dimensions: by name, those that others depend on first; ROW among them where there are several rows.
        used_by: of each dimension, the rows that have the setting.
        schedule: of the suite, on which those of trials must be legal.
    """

    rows: Mapping[str, Row]
    dimensions: Mapping[str, Dimension]
    used_by: Mapping[str, frozenset[str]]
    schedule: Schedule

    def is_used(self, name: str, chosen: Mapping[str, Scalar]) -> bool:
        """Whether a trial with these values, of the dimensions before it, has this dimension."""
        row = str(chosen[ROW]) if ROW in chosen else next(iter(self.rows))
        when = self.dimensions[name].when
        if name != ROW and row not in self.used_by[name]:
            return False
        return all(other in chosen and chosen[other] in _listed(value) for other, value in when.items())

    def row(self, label: str, chosen: Mapping[str, Scalar]) -> Row:
        """The row of a trial.

        Raises:
            UserError: the settings are legal one by one, but not together.
        """
        base = self.rows[str(chosen[ROW])] if ROW in chosen else next(iter(self.rows.values()))
        settings = {name: value for name, value in chosen.items() if name != ROW}
        return with_settings(base, settings, label, self.schedule, "search.space")

    def untouched(self, label: str) -> dict[str, Scalar] | None:
        """A row's own settings as a point; None where the space does not hold them, or the suite and not the row says
        them (the rest of a schedule)."""
        tree = {**self.rows[label].method.model_dump(mode="json"), "schedule": dict(self.rows[label].schedule or {})}
        chosen: dict[str, Scalar] = {}
        for name, dimension in self.dimensions.items():
            if name == ROW:
                chosen[ROW] = label
            elif self.is_used(name, {**chosen, ROW: label} if ROW in self.dimensions else chosen):
                value: Any = tree
                for word in name.split("."):
                    value = value.get(word, _ABSENT) if isinstance(value, Mapping) else _ABSENT
                if not dimension.holds(value):
                    return None
                chosen[name] = value
        return chosen

    def points(self) -> Iterator[dict[str, Scalar]] | None:
        """Every different point, in order; None: there are infinitely many."""
        values = {name: dimension.values() for name, dimension in self.dimensions.items()}
        if any(found is None for found in values.values()):
            return None
        return self._points(list(self.dimensions), values, {})

    def _points(self, left: list[str], values: Mapping[str, Any], chosen: dict[str, Scalar]) -> Iterator[Any]:
        if not left:
            yield dict(chosen)
            return
        name, *rest = left
        if not self.is_used(name, chosen):
            yield from self._points(rest, values, chosen)
            return
        for value in values[name]:
            yield from self._points(rest, values, {**chosen, name: value})


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def check_search(search: Search, rows: Sequence[Row], schedule: Schedule, bins: int, document: Document) -> Space:
    """The space of a search, checked against its rows: each end of each dimension is tried on each row that has it.

    Args:
        search: the section.
        rows: of the suite.
        schedule: of the suite.
        bins: number of instance bins.
        document: for the lines of errors.

    Raises:
        UserError: what cannot be, with file:line and what is legal.
    """
    at = _At(document)
    for metric in search.objective:
        if metric not in metric_names(bins):
            raise unknown("metric", metric, metric_names(bins), where=at("objective"))
    labels = [row.label for row in rows]
    for label in search.rows:
        if label not in labels:
            raise unknown("row", label, labels, where=at("rows"))
    rows = [row for row in rows if not search.rows or row.label in search.rows]
    used_by: dict[str, frozenset[str]] = {}
    for name, dimension in search.space.items():
        used_by[name] = _rows_with(name, dimension, rows, schedule, at)
    dimensions = dict(search.space)
    if len(rows) > 1:
        dimensions = {ROW: Dimension(choices=tuple(row.label for row in rows)), **dimensions}
        used_by[ROW] = frozenset(row.label for row in rows)
    for name, dimension in dimensions.items():
        for other, value in dimension.when.items():
            _check_when(name, other, value, dimensions, rows, at)
    space = Space({row.label: row for row in rows}, _ordered(dimensions, at), used_by, schedule)
    _check_sampler(search, space, at)
    return space


@dataclass(frozen=True)
class _At:
    """Where an error is: `file:line search.NAME`."""

    document: Document

    def __call__(self, *path: str) -> str:
        return f"{self.document.where('search', *path)} {'.'.join(('search', *path))}"


def _rows_with(name: str, dimension: Dimension, rows: Sequence[Row], schedule: Schedule, at: _At) -> frozenset[str]:
    """The rows that have a setting; its ends are tried on each of them."""
    where = at("space", name)
    first = name.split(".")[0]
    if name == ROW:
        raise UserError("`row` is a dimension by itself where there are several rows", where=where, hint="leave it out")
    if first in ("data", "cluster"):
        raise UserError(
            f"'{first}' cannot be searched: trials are compared on the same data, whatever the machine", where=where,
            allowed="settings of the rows' methods; schedule.NAME",
        )  # fmt: skip
    having = [row for row in rows if first == "schedule" or first in type(row.method).model_fields]
    if not having or name == "schedule":
        legal = {field for row in rows for field in type(row.method).model_fields}
        legal |= {f"schedule.{field}" for field in Schedule.model_fields}
        methods = ", ".join(sorted({row.method.name for row in rows}))
        raise unknown("setting", name, legal, where=where, hint=f"of the methods of the rows: {methods}")
    if when := dimension.when.get(ROW):
        having = [row for row in having if row.label in _listed(when)]
    for row in having:
        for value in dimension.examples():
            with_settings(row, {name: value}, row.label, schedule, where)
    return frozenset(row.label for row in having)


def _check_when(
    name: str, other: str, value: Any, dimensions: Mapping[str, Dimension], rows: Sequence[Row], at: _At
) -> None:
    where = at("space", name, "when")
    if other == ROW:
        labels = [row.label for row in rows]
        for label in _listed(value):
            if label not in labels:
                raise unknown("row", str(label), labels, where=where)
        return
    if other not in dimensions or other == name:
        raise unknown("dimension", other, [n for n in dimensions if n != name], where=where)
    if not dimensions[other].choices:
        raise UserError(
            f"'{other}' is a range; `when` names values of choices", where=where, hint=f"give {other} choices"
        )
    for one in _listed(value):
        if one not in dimensions[other].choices:
            raise UserError(
                f"'{other}' is never {one!r}, so no trial could use '{name}'", where=where,
                allowed=", ".join(map(str, dimensions[other].choices)),
            )  # fmt: skip


def _ordered(dimensions: Mapping[str, Dimension], at: _At) -> dict[str, Dimension]:
    """Dimensions, each after those that it depends on."""
    left, found = dict(dimensions), dict[str, Dimension]()
    while left:
        ready = [n for n, d in left.items() if all(o in found or o not in dimensions for o in d.when)]
        if not ready:
            raise UserError(f"these depend on each other: {', '.join(left)}", where=at("space", next(iter(left))))
        for name in ready:
            found[name] = left.pop(name)
    return found


def _check_sampler(search: Search, space: Space, at: _At) -> None:
    """What a sampler cannot do, and what no trial would ever use."""
    for name in search.space:
        if not space.used_by[name]:
            raise UserError(f"no trial could use '{name}'", where=at("space", name), hint="see its `when`")
    ranges = [d for d in space.dimensions.values() if not d.choices]
    if search.sampler == "cmaes" and len(ranges) < 2:
        raise UserError(
            "cmaes needs two ranges or more; choices are drawn at random",
            where=at("sampler"),
            allowed="tpe, gp, random",
        )
    if search.sampler == "grid":
        points = space.points()
        if points is None:
            endless = next(n for n, d in space.dimensions.items() if d.values() is None)
            raise UserError(
                f"a grid needs a step: '{endless}' has no end of values", where=at("space", endless),
                hint="step: 0.05, or choices: [...]; or another sampler",
            )  # fmt: skip
        number = sum(1 for _ in itertools.islice(points, MOST_POINTS + 1))
        if number > MOST_POINTS:
            raise UserError(f"the grid has more than {MOST_POINTS:,} points", where=at("space"), hint="longer steps")
    for rung in search.rungs[-1:]:
        for row in space.rows.values():
            _check_rung(rung, row, space, at)


def _check_rung(rung: int, row: Row, space: Space, at: _At) -> None:
    """A rung lies inside of the shortest training that the row's own schedule, or the space, asks for."""
    lengths = [space.dimensions[n] for n in ("schedule.steps", "schedule.epochs") if n in space.dimensions]
    least = [min(v for v in d.examples() if isinstance(v, int | float)) for d in lengths]
    own = (row.schedule or {}).get("steps") or (row.schedule or {}).get("epochs")
    shortest = min([*least, *([own] if own and not least else [])], default=None)
    if shortest is not None and rung >= shortest:
        raise UserError(
            f"the rung {rung} is not before the end of a training of {shortest:g}", where=at("rungs"),
            hint="name earlier rungs",
        )  # fmt: skip
