"""Searches made for the report tests: every trial and record is set by the test, nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from made_records import made

from bench.search.view import State, Trial, View
from bench.spec import Schedule
from bench.suite.rows import Row, with_settings
from bench.suite.search import ROW, Dimension, Scalar, Search, Space
from methods.bags import Bags
from methods.tau_norm import TauNorm
from reports.load import RowResult
from reports.search.searched import Searched

BAGS = Row("BAGS", Bags(), Bags().model_dump())
TAU = Row("tau-norm", TauNorm(), TauNorm().model_dump())
BETA = Dimension(low=0.5, high=32, log=True)
LR = Dimension(low=0.002, high=0.2, log=True)
STEPS = Dimension(low=300, high=2000, int=True)
BETAS = (8.0, 0.5, 2.0, 32.0)
EDGES = (10, 100, 1000)
TUNE = {"split": "tune", "train_images": 1427, "val_images": 356, "val_digest": "c" * 64}


def space_of(dimensions: Mapping[str, Dimension], rows: Sequence[Row] = (BAGS,)) -> Space:
    """A space; each dimension belongs to the rows whose method has it."""
    labels = frozenset(row.label for row in rows)
    used_by = {
        name: labels
        if name == ROW or name.startswith("schedule.")
        else frozenset(row.label for row in rows if name.split(".")[0] in type(row.method).model_fields)
        for name in dimensions
    }
    if len(rows) > 1:
        dimensions = {ROW: Dimension(choices=tuple(labels_of(rows))), **dimensions}
        used_by[ROW] = labels
    return Space({row.label: row for row in rows}, dimensions, used_by, Schedule())


def labels_of(rows: Sequence[Row]) -> list[str]:
    return [row.label for row in rows]


def view_of(trials: Sequence[Trial], space: Space, **search: Any) -> View:
    """A search with these trials."""
    dimensions = {name: dimension for name, dimension in space.dimensions.items() if name != ROW}
    section = {"sampler": "random", "trials": max(1, len(trials)), **search}
    return View("made-0123456789ab", Search(space=dimensions, **section), space, tuple(trials), hours=0.25)


def trial(number: int, chosen: Mapping[str, Scalar], *values: float, state: State = "complete", **more: Any) -> Trial:
    return Trial(number, state, dict(chosen), values, **more)


def measured(view: View, one: Trial, seeds: Sequence[int] = (0,), **metrics: float | None) -> list[RowResult]:
    """The records of a trial on tune: its values, and these."""
    base = view.space.rows[view.row_of(one)]
    settings = dict(with_settings(base, one.settings(), "-", Schedule(), "-").settings)
    values = dict(zip(view.search.objective, one.values, strict=False))
    protocol = TUNE if view.measured_on == "tune" else {}
    label = f"trial {one.number}"
    return [
        made(label, seed, method=base.method.name, settings=settings, protocol=protocol, key=f"{label} {seed}",
             **{**metrics, **values})
        for seed in seeds
    ]  # fmt: skip


def on_val(label: str, values: Sequence[float | None], metric: str = "AP", **more: Any) -> list[RowResult]:
    """The records of a final row on val: a value for each seed from 0."""
    return [
        made(label, seed, method="bags", key=f"{label} {seed}", **{metric: value}, **more)
        for seed, value in enumerate(values)
    ]


def one_dimension(**search: object) -> View:
    """Four trials of BAGS; the first has its default beta, the third is the best."""
    values = (23.0, 20.0, 24.5, 22.25)
    return view_of([trial(i, {"beta": b}, v) for i, (b, v) in enumerate(zip(BETAS, values, strict=True))],
                   space_of({"beta": BETA}), **search)  # fmt: skip


def conditional() -> View:
    """Two rows, numbers and choices, of which each trial has some; one trial has failed."""
    space = space_of(
        {"beta": BETA, "tau": Dimension(low=0, high=1, step=0.25),
         "trainable": Dimension(choices=("classifier", "head")),
         "schedule.lr": LR, "schedule.steps": STEPS},
        (BAGS, TAU),
    )  # fmt: skip
    trials = [trial(0, {"row": "BAGS", "beta": 1.0}, state="failed", why="settings exclude each other")]
    for i in range(1, 26):
        both = {"schedule.lr": 0.002 * 100 ** ((i * 7 % 25) / 25), "schedule.steps": 300 + (i * 11 % 25) * 68}
        if i % 2:
            own: dict[str, float | str] = {"row": "tau-norm", "tau": (i % 5) / 4}
        else:
            own = {"row": "BAGS", "beta": 0.5 + i, "trainable": ("classifier", "head")[i % 4 // 2]}
        trials.append(trial(i, {**own, **both}, 20.0 + (i * 13 % 25) / 10))
    return view_of(trials, space)


def with_rungs() -> View:
    trials = [
        trial(0, {"beta": 4.0}, 24.0, rungs={100: 15.0, 300: 21.0}),
        trial(1, {"beta": 1.0}, state="pruned", rungs={100: 11.0}),
        trial(2, {"beta": 9.0}, 23.0, rungs={100: 14.0, 300: 20.0}),
        trial(3, {"beta": 2.0}, state="pruned", rungs={100: 14.0, 300: 17.0}),
        trial(4, {"beta": 3.0}, state="running", rungs={100: 13.0}),
    ]
    return view_of(trials, space_of({"beta": BETA}), pruner="median", rungs=(100, 300))


def two_objectives() -> View:
    values = [(8.0, 30.0), (10.0, 29.0), (7.0, 31.0), (7.5, 29.5), (6.0, 28.0)]
    trials = [trial(i, {"beta": 1.0 + i}, *pair) for i, pair in enumerate(values)]
    return view_of(trials, space_of({"beta": BETA}), objective=("AP1", "AP4"))


def records(view: View) -> list[RowResult]:
    done = [one for one in view.trials if one.state == "complete"]
    return [result for one in done for result in measured(view, one, AP1=8.0, AP2=18.0, AP3=25.0, AP4=None)]


def found_of(view: View, importances: Mapping[str, float] | None = None) -> Searched:
    return Searched(view, records(view), [], "made", view.untouched(), importances or {}, EDGES)
