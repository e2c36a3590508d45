"""Curves in the store's MLflow while a run works: a real store, a real database, a thread."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from bench.cli.tracked import live, whose
from bench.store.store import Store
from bench.tracking import live as turns
from bench.tracking import track
from bench.tracking.live import Live
from bench.tracking.place import default_uri
from tests.done_store import begin, end
from tests.planned import SEVEN, plan_of


def suite(folder: Path, text: str = SEVEN) -> Path:
    path = folder / "seven.yaml"
    path.write_text(text)
    return path


def wait(found: Any, what: str) -> None:
    until = time.monotonic() + 60
    while not found():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def test_curves_are_there_while_a_training_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setattr(turns, "EVERY_S", 0.1)
    plan, store = plan_of(suite(tmp_path)), Store(tmp_path / "store")
    stage = next(stage for stage in plan.stages.values() if stage.kind == "train")
    store.root.mkdir()
    assert track.prepare(store.root, None, "seven") is None
    client = mlflow.tracking.MlflowClient(default_uri(store.root))
    number = client.get_experiment_by_name("seven: stages").experiment_id

    def curve() -> list[float]:
        found = client.search_runs([number], "tags.`stage` = 'train'")
        return [p.value for run in found for p in client.get_metric_history(run.info.run_id, "loss")]

    with live(plan, store, None) as curves:
        attempt = begin(store, stage)
        attempt.events.write("start", key=stage.key)
        attempt.events.write("metrics", step=1, values={"loss": 2.0})
        wait(lambda: curve() == [2.0], "nothing while it works")
        (run,) = client.search_runs([number])
        assert (run.info.run_name, run.info.status) == ("train baseline +5 seed 0", "RUNNING")
        attempt.events.write("metrics", step=2, values={"loss": 1.0})
        wait(lambda: curve() == [2.0, 1.0], "nothing of the next step")
        (attempt.outputs / "model").write_text("x")
        assert store.finish(attempt, inputs={}, seconds=1.0, environment={}, extra={})
        end(attempt)
        wait(lambda: client.get_run(run.info.run_id).info.status == "FINISHED", "its end")
    assert curves.notice is None
    assert client.get_experiment(number).tags["mlflow.sharedViewState.bench-trainings"]


def test_a_tracker_that_fails_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error is a notice at the end, the next turn's success takes it back, and a slow turn is not waited for."""
    monkeypatch.setattr(turns, "EVERY_S", 0.01)
    monkeypatch.setattr(turns, "SHARE", 1.0)
    asked: list[int] = []

    def bring() -> str | None:
        asked.append(len(asked))
        if len(asked) == 2:
            raise OSError("disk full")
        return None

    with Live(bring) as curves:
        wait(lambda: len(asked) >= 2, "it stopped")
        wait(lambda: len(asked) >= 4, "it did not go on after an error")
    assert curves.notice is None

    def broken() -> str | None:
        raise OSError("disk full")

    with Live(broken) as curves:
        wait(lambda: curves.notice, "nothing was told")
    assert curves.notice == "OSError: disk full"
    monkeypatch.setattr(turns, "PATIENCE_S", 0.1)
    begun = time.monotonic()
    with Live(lambda: time.sleep(5)):
        time.sleep(0.1)
    assert time.monotonic() - begun < 3


def test_a_short_run_does_not_import_mlflow(tmp_path: Path) -> None:
    asked: list[int] = []
    with Live(lambda: asked.append(1)):
        pass
    assert not asked


def test_names_of_stages_are_readable(tmp_path: Path) -> None:
    """Seven rows of two seeds; the baseline's training serves all but x2's second half and RFS's own."""
    plan = plan_of(suite(tmp_path, SEVEN.replace("seeds: [0]", "seeds: [0, 1]")))
    told = whose(plan)
    names = [one.name for one in told.values()]
    assert len(set(names)) == len(names)
    trainings = {told[key].name for key, stage in plan.stages.items() if stage.kind == "train"}
    assert trainings == {
        f"train {name} seed {seed}"
        for seed in (0, 1)
        for name in ("baseline +5", "x2", "RFS", "cls-retrain", "re-weight-cls", "BAGS")
    }
    (baseline,) = [one for one in told.values() if one.name == "train baseline +5 seed 1"]
    assert baseline.tags == {
        "row": "baseline", "rows": "baseline, x2, cls-retrain, re-weight-cls, tau-norm, BAGS", "method": "baseline",
        "seed": "1",
    }  # fmt: skip
    assert {one.name for key, one in told.items() if plan.stages[key].kind == "data"} == {
        "data train seed 0", "data val seed 0", "data train seed 1", "data val seed 1",
    }  # fmt: skip


def test_trainings_of_one_row_are_numbered(tmp_path: Path) -> None:
    text = "preset: cpu\nrows:\n  base: {method: baseline}\n  step: {method: stepwise}\n"
    plan = plan_of(suite(tmp_path, text))
    told = whose(plan)
    found = [told[key].name for key, stage in plan.stages.items() if stage.kind == "train"]
    assert found == ["train base +1 seed 0", "train step seed 0", "train step seed 0 (2)"]


def test_what_seeds_share_names_them(tmp_path: Path) -> None:
    text = SEVEN.replace("seeds: [0]", "seeds: [0, 1]\ndata: {seed: 7}")
    plan = plan_of(suite(tmp_path, text))
    told = whose(plan)
    shared = {one.name: one.tags["seed"] for key, one in told.items() if plan.stages[key].kind == "data"}
    assert shared == {"data train 2 seeds": "0, 1", "data val 2 seeds": "0, 1"}
