"""What the sweep benchmark counts and divides, and one small sweep as it is really run."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny

from bench.cli.open import open_suite
from bench.data.split import open_split
from bench.plan import planning
from bench.store.store import Store
from benchmarks import sweeps
from benchmarks.sweeps import Bill, Spent


def bill(train: float, predict: float, network: float, post: float, evaluate: float, ap: float) -> Bill:
    stages = {"train": Spent(1, train), "predict": Spent(1, predict), "evaluate": Spent(1, evaluate)}
    inside = {"network": Spent(1, network), "postprocess": Spent(1, post), "ap": Spent(1, ap)}
    return Bill({kind: spent for kind, spent in stages.items() if spent.cpu}, inside)


def test_the_beta_sweep_may_cost_one_training_and_an_evaluation_each() -> None:
    one = bill(train=80, predict=3, network=1, post=1, evaluate=2, ap=1)
    bills = {"before": one, "after": one, "sweep": bill(train=90, predict=10, network=1, post=8, evaluate=16, ap=8)}
    found = sweeps.compared(bills, "cpu", "beta", 8)
    assert found["sweep"] == 116
    assert found["allowed"] == 80 + 8 * (3 + 2)
    assert found["strictly"] == 80 + 1 + 8 * (1 + 1)
    assert found["one_by_one"] == 8 * 85


def test_the_tau_sweep_may_cost_one_network_pass() -> None:
    ones = [bill(train=0, predict=p, network=2, post=1, evaluate=2, ap=1) for p in (2.9, 3.1)]
    bills = {"before": ones[0], "after": ones[1], "sweep": bill(0, predict=20, network=2, post=15, evaluate=30, ap=20)}
    found = sweeps.compared(bills, "cpu", "tau", 21)
    assert found["sweep"] == 50
    assert found["allowed"] == pytest.approx(2 + 21 * (3 - 2 + 2))
    assert found["sweep_over_allowed"] == pytest.approx(50 / 65)


@pytest.mark.slow
def test_a_sweep_starts_from_the_baseline_and_is_counted(tmp_path: Path) -> None:
    source, store, log = tiny(tmp_path), tmp_path / "store", tmp_path / "log"
    below = sweeps.suite_with(source, {"baseline": {"method": "baseline"}}, tmp_path / "below.yaml")
    made = sweeps.bill_of(store, below, log, baseline_only=True)
    assert {kind: spent.calls for kind, spent in made.stages.items()} == {"data": 2, "train": 1}
    every = sweeps.suite_with(source, sweeps.rows("tau_norm", "tau", [0.0, 0.5, 1.0]), tmp_path / "all.yaml")
    found = sweeps.bill_of(store, every, log)
    counted = {kind: spent.calls for kind, spent in found.stages.items()}
    assert counted == {"patch": 3, "predict": 3, "evaluate": 3}
    assert found.inside["ap"].calls == 3
    assert ["predict", 3] in found.units
    plan = planning.make(open_suite(every))
    val = next(key for key, stage in plan.stages.items() if stage.spec.get("split") == "val")
    images = len(open_split(Store(store).output(val), None).images)
    assert found.inside["network"].pictures == images > 0, "one pass for all values"
    assert all(spent.cpu > 0 for spent in [*found.stages.values(), *found.inside.values()])
    numbers = sweeps.metrics(store, every)
    assert list(numbers) == ["tau_norm tau=0", "tau_norm tau=0.5", "tau_norm tau=1"]
    assert all(set(row) == {"AP", "AP1", "AP2", "AP3", "AP4"} for row in numbers.values())
