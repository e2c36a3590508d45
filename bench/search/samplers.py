"""Optuna's samplers by the names of a suite. Separate from study.py because it is a table.

A sampler is made anew for each trial, and for each dimension of it, seeded by their numbers: what it draws does not
depend on how often the driver was started, nor on what it had drawn when it was killed. What it knows of earlier trials
it reads from the study.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from bench.seeds import address
from bench.suite.search import Dimension, Scalar, Search, Space

_NUMPY_SEEDS = 2**32  # RandomState takes less than this


class InOrder(BaseSampler):
    """The points of a grid by the number of the trial, so that a search that is continued goes on where it was."""

    def __init__(self, points: Sequence[dict[str, Scalar]]) -> None:
        self._points = points

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._points[trial.number][param_name]


class CmaEs(optuna.samplers.CmaEsSampler):
    """Optuna's CMA-ES, its state made again from the trials of each generation.

    Optuna keeps the state pickled in the storage and loads it from there: whoever may write to the store would decide
    what code runs as whoever searches. Nothing is kept, and nothing of that kind is read.
    """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        complete = self._get_trials(study)
        if not search_space or len(complete) < self._n_startup_trials:
            return {}
        space = _SearchSpaceTransform(search_space, transform_0_1=True)
        optimizer = self._init_optimizer(space, study.direction)
        while len(told := self._get_solution_trials(complete, optimizer.generation)) >= optimizer.population_size:
            best = told[: optimizer.population_size]  # the study maximises, cmaes minimises
            optimizer.tell([(space.transform(one.params), -one.values[0]) for one in best])
        optimizer._rng.seed(self._cma_rng.rng.randint(1, 2**16) + trial.number)
        values = space.untransform(optimizer.ask())
        attributes = study._storage
        attributes.set_trial_system_attr(trial._trial_id, self._attr_key_generation, optimizer.generation)
        return values


class Sobol(optuna.samplers.QMCSampler):
    """Optuna's Sobol sequence from the first trial on, the point being that of the trial's number.

    Optuna draws the first round at random, since it reads the dimensions from finished trials, and counts points in the
    study, where an ask that was killed and is repeated counts twice.
    """

    def __init__(self, seed: int, space: Space) -> None:
        random = optuna.samplers.RandomSampler(seed=seed)
        super().__init__(
            seed=seed, scramble=True, independent_sampler=random, warn_independent_sampling=False,
            warn_asynchronous_seeding=False,
        )  # fmt: skip
        self._space, self._number = space, 0

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {name: distribution(dimension) for name, dimension in self._space.dimensions.items()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._number = trial.number
        return super().sample_relative(study, trial, search_space)

    def _find_sample_id(self, study: optuna.Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._number


def distribution(dimension: Dimension) -> BaseDistribution:
    """A dimension as Optuna has it."""
    if dimension.choices:
        return optuna.distributions.CategoricalDistribution(dimension.choices)
    assert dimension.low is not None
    assert dimension.high is not None
    low, high, step = dimension.low, dimension.high, dimension.step
    if step is not None:  # the last of its values
        high = low + step * math.floor((high - low) / step + 1e-9)
    if dimension.int:
        return optuna.distributions.IntDistribution(int(low), int(high), log=dimension.log, step=int(step or 1))
    return optuna.distributions.FloatDistribution(low, high, log=dimension.log, step=step)


def sampler_of(
    search: Search, space: Space, number: int, points: Sequence[dict[str, Scalar]], step: int = 0
) -> BaseSampler:
    """The sampler that chooses the trial with this number.

    Args:
        search, space: what is searched.
        number: of the trial.
        points: of a grid.
        step: 0: what is chosen together; i: the i-th dimension alone.
    """
    seed = address(search.seed, "search", step=step, index=number) % _NUMPY_SEEDS
    conditional = any(not _always_used(space, name) for name in space.dimensions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match search.sampler:
            case "tpe":  # `group`: dimensions that only some trials have are modelled with those that they have
                return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=conditional, constant_liar=True)
            case "gp":
                return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
            case "cmaes":
                return CmaEs(seed=seed, warn_independent_sampling=False)
            case "grid":
                return InOrder(points)
            case "qmc":
                return Sobol(search.seed % _NUMPY_SEEDS, space)
            case "nsgaii":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, search.round))
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)


def _always_used(space: Space, name: str) -> bool:
    return not space.dimensions[name].when and len(space.used_by[name]) == len(space.rows)
