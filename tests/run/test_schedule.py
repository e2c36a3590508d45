"""Learning rates step by step, and how long a schedule in epochs is."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from tiny_suite import Undisturbed, key_of

from bench.data.loader import Loader
from bench.data.split import Split, open_split
from bench.run.loop import rate
from bench.run.train import loader_steps
from bench.spec import Input, Schedule
from bench.store.store import Store
from methods.parts.samplers import RepeatFactor, Shuffle

PAPER = Schedule(steps=12_000, lr=0.01, warmup=500, warmup_from=1 / 3, decay="steps", drops=(8 / 12, 11 / 12))


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 1 / 3 + 2 / 3 / 500),
        (249, 1 / 3 + 2 / 3 / 2),  # half-way
        (498, 1 / 3 + 2 / 3 * 499 / 500),
        (499, 1.0),
        (500, 1.0),
        (7_999, 1.0),
        (8_000, 0.1),
        (10_999, 0.1),
        (11_000, 0.01),
        (11_999, 0.01),
    ],
)
def test_warmup_and_drops_of_the_papers(step: int, factor: float) -> None:
    assert rate(PAPER, step, 12_000) == pytest.approx(0.01 * factor, rel=1e-12)


def test_a_warmup_from_nothing_does_something_at_once() -> None:
    schedule = PAPER.model_copy(update={"warmup": 4, "warmup_from": 0.0, "decay": "none"})
    assert [rate(schedule, s, 100) / 0.01 for s in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_cosine() -> None:
    schedule = PAPER.model_copy(update={"warmup": 0, "decay": "cosine"})
    assert [rate(schedule, s, 100) / 0.01 for s in (0, 25, 50, 75)] == pytest.approx(
        [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    )
    rates = [rate(schedule, s, 100) for s in range(100)]
    assert all(a > b > 0 for a, b in pairwise(rates))


def test_drops_land_on_whole_steps() -> None:
    schedule = PAPER.model_copy(update={"warmup": 0})
    rates = [rate(schedule, s, 100) for s in range(100)]
    assert [s for s in range(1, 100) if rates[s] < rates[s - 1]] == [67, 92]  # 66.7 and 91.7


@pytest.fixture
def split(smoke: Undisturbed) -> Split:
    key = smoke.plan.stages[key_of(smoke.plan, "baseline")].inputs["train"].key
    return open_split(Store(smoke.root).output(key), None)


def test_epochs_are_those_of_the_sampler(split: Split) -> None:
    schedule = Schedule(steps=None, epochs=3, batch=5)
    plain = Loader(split, Input(), sampler=Shuffle(split.statistics()), batch=5, seed=0, phase=0)
    assert loader_steps(plain, schedule) == math.ceil(3 * len(split.images) / 5)
    repeat = RepeatFactor(split.statistics(), t=0.9, rounding="ceil")
    length = len(repeat.epoch(0, np.random.default_rng(0)))
    assert length > len(split.images)
    longer = Loader(split, Input(), sampler=repeat, batch=5, seed=0, phase=0)
    assert loader_steps(longer, schedule) == math.ceil(3 * length / 5)


def test_epochs_that_chance_makes_longer_and_shorter(split: Split) -> None:
    repeat = RepeatFactor(split.statistics(), t=0.9, rounding="stochastic")
    loader = Loader(split, Input(), sampler=repeat, batch=4, seed=0, phase=0)
    lengths = [loader.epoch_length(e) for e in range(8)]
    assert len(set(lengths)) > 1
    assert loader_steps(loader, Schedule(steps=None, epochs=8, batch=4)) == math.ceil(sum(lengths) / 4)


def test_a_second_schedule_and_another_seed_see_other_batches(smoke: Undisturbed, split: Split) -> None:
    """Of one address always the same: pictures, their order and their augmentation."""

    def batches(seed: int, phase: int) -> list[tuple[list[int], float]]:
        section = smoke.suite.sections.input
        loader = Loader(split, section, sampler=Shuffle(split.statistics()), batch=4, seed=seed, phase=phase)
        made = [loader.batch(t) for t in range(4)]
        return [(batch.image_index, float(batch.images.double().sum())) for batch in made]

    assert smoke.plan.stages[key_of(smoke.plan, "x2")].spec["phase"] == 1
    assert smoke.plan.stages[key_of(smoke.plan, "baseline")].spec["phase"] == 0
    first = batches(0, 0)
    assert batches(0, 0) == first
    for seed, phase in ((0, 1), (1, 0)):
        other = batches(seed, phase)
        assert [indices for indices, _ in other] != [indices for indices, _ in first]
        assert not {total for _, total in other} & {total for _, total in first}


def test_a_linear_fall_by_hand() -> None:
    """Flat to three quarters of 100 steps, then to 0 in the 25 that are left."""
    schedule = Schedule(lr=0.5, warmup=0, decay="linear", drops=(0.75,))
    found = [rate(schedule, step, 100) for step in (0, 75, 80, 99)]
    assert found == pytest.approx([0.5, 0.5, 0.4, 0.02])
    whole = Schedule(lr=0.5, warmup=0, decay="linear", drops=())
    assert [rate(whole, step, 100) for step in (0, 50)] == pytest.approx([0.5, 0.25])
