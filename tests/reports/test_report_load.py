"""Loading rows from a real store whose stages were finished by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_records import COUNTS, made

from bench.errors import UserError
from bench.plan.planning import Plan, RowPlan
from bench.record import dumps
from bench.stage import Stage
from bench.store.store import Store
from reports.load import load

NORMS = [0.5, 1.5, 0.7, 1.1, 0.3, 1.0, 2.0]


def finish(store: Store, stage: Stage, files: dict[str, str], **environment: Any) -> None:
    store.add(stage)
    with store.acquire(stage.key) as lease:  # type: ignore[union-attr]
        attempt = store.begin(stage.key, lease)
        for name, text in files.items():
            (attempt.outputs / name).write_text(text)
        digests = {name: done.digest for name, s in stage.inputs.items() if (done := store.done(s.key))}
        assert store.finish(attempt, inputs=digests, seconds=1.0, environment=environment, extra={})


def stages(seed: int) -> tuple[Stage, Stage, Stage]:
    train = Stage("train", {"seed": seed})
    predict = Stage("predict", {}, {"model": train})
    return train, predict, Stage("evaluate", {}, {"predict": predict})


def a_plan(seeds: tuple[int, ...]) -> Plan:
    rows = [RowPlan("BAGS", seed, "bags", {"beta": 8}, stages(seed)[2]) for seed in seeds]
    rows.append(RowPlan("DETR", 0, "detr", {}, None, "engine lacks queries"))
    suite: Any = SimpleNamespace(name="table1", sections=SimpleNamespace(figures=()))
    return Plan(suite, tuple(rows), {}, {}, 0)


def done_rows(store: Store, seed: int, norms: list[float] | None) -> None:
    train, predict, evaluate = stages(seed)
    finish(store, train, {"model.json": "{}"}, host="a", packages={"torch": "2.14"}, processes=4, dirty="d1")
    finish(
        store, predict, {"classifier.json": json.dumps({"weight_norms": norms})}, host="a", packages={"torch": "2.15"},
        processes=1,
    )  # fmt: skip
    result = made("x", AP=31.0, AP1=None).record.result
    finish(store, evaluate, {"result.json": dumps(result)}, host="a", packages={"torch": "2.15"}, processes=1)


def test_rows_that_are_done_with_their_norms_and_surroundings(tmp_path: Path) -> None:
    store = Store(tmp_path)
    done_rows(store, 0, NORMS)
    done_rows(store, 1, None)
    first, second = load(store, a_plan((0, 1, 2)))  # seed 2 is not done, DETR is skipped
    assert (first.record.row, first.record.suite, first.record.seed) == ("BAGS", "table1", 0)
    assert (first.record.method, first.record.settings) == ("bags", {"beta": 8})
    assert first.record.metrics == {"AP": 31.0, "AP1": None}
    assert first.weight_norms == NORMS
    assert first.instance_counts == list(COUNTS)
    # Four that trained together and one that predicted are no mixture.
    changed = "d1 + -"  # the training's checkout was changed, that of the prediction was not
    torch = {"torch": "2.14 + 2.15"}
    assert first.record.environment == {"host": "a", "packages": torch, "processes": 4, "dirty": changed}
    assert second.weight_norms is None


def test_a_row_made_from_an_older_model_is_not_shown(tmp_path: Path) -> None:
    store = Store(tmp_path)
    done_rows(store, 0, NORMS)
    predict = stages(0)[1]
    assert store.discard(predict.key)
    finish(store, predict, {"classifier.json": json.dumps({"weight_norms": [9.0] * 7})})
    assert load(store, a_plan((0,))) == []


def test_a_result_that_cannot_be_read_names_its_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    train, predict, evaluate = stages(0)
    finish(store, train, {"model.json": "{}"})
    finish(store, predict, {"classifier.json": "{}"})
    finish(store, evaluate, {"result.json": json.dumps({"schema_version": 99})})
    with pytest.raises(UserError, match=r"result\.json: written by a newer version"):
        load(store, a_plan((0,)))
