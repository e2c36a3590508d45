"""What the cost of a suite is made of, that it goes on where it stopped, and that it does not mix two settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny
from tiny_suite import undisturbed_run

from bench.store.store import Store
from benchmarks import suite_cost


def cost(cpu: float, wall: float, stages: int = 5) -> dict[str, Any]:
    return {"cpu": cpu, "wall": wall, "stage_seconds": cpu / 2, "stages": stages}


@pytest.mark.slow
def test_a_fused_pass_counts_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    smoke = undisturbed_run(tmp_path_factory.getbasetemp())
    store = Store(smoke.root)
    found = suite_cost.stages_of(store)
    assert found["stages"] == len(smoke.plan.stages)
    heads = [key for key, s in smoke.plan.stages.items() if s.kind == "train" and s.spec["trainable"] == ["classifier"]]
    seconds = [done.seconds for key in heads if (done := store.done(key)) is not None]
    assert len(seconds) == 3
    assert len(set(seconds)) == 1, "they were trained in one pass"
    everything = sum(done.seconds for key in smoke.plan.stages if (done := store.done(key)) is not None)
    assert found["stage_seconds"] <= everything - 2 * seconds[0] + 1e-6
    assert found["passes"] <= found["stages"] - 2


@pytest.mark.parametrize(
    ("walls", "slots", "expected"), [([3, 2, 2], 1, 7), ([3, 2, 2], 2, 4), ([1, 5, 1, 1], 2, 5), ([], 2, 0)]
)
def test_rows_are_laid_out_as_workers_take_them(walls: list[float], slots: int, expected: float) -> None:
    assert suite_cost.makespan(walls, slots) == expected


def test_a_ratio_waits_for_all_rows() -> None:
    found: dict[str, Any] = {"together": cost(30, 20), "rows": {"a": cost(40, 25)}}
    assert suite_cost.summary(found, ["a", "b"], 2) == {}
    found["rows"]["b"] = cost(60, 35)
    assert suite_cost.summary(found, ["a", "b"], 2)["ratio"] == {"cpu": 0.3, "wall": 20 / 35, "stage_seconds": 0.3}


def test_what_the_file_holds_is_not_measured_again(tmp_path: Path) -> None:
    suite, out = tiny(tmp_path), tmp_path / "cost.json"
    _, identity = suite_cost.planned(suite, [])
    rows = {"baseline": cost(40, 25), "BAGS": cost(60, 35)}
    held = {"target": "-", "plan": identity, "processes": 2, "together": cost(30, 20), "rows": rows}
    out.write_text(json.dumps(held))
    assert suite_cost.run(suite, [], 2, out)["ratio"]["cpu"] == 0.3
    assert json.loads(out.read_text()) == held
    with pytest.raises(SystemExit, match="other settings"):
        suite_cost.run(suite, ["schedule.steps=4"], 2, out)
