"""A search whose stages are made at once: their values are a function of the trial's settings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.cli.open import open_suite
from bench.launch.loop import Ended
from bench.plan.planning import Plan
from bench.record import dumps
from bench.run.job import Outcome
from bench.search.loop import Rounds
from bench.search.plans import study_name
from bench.search.study import Study, opened
from bench.search.view import View
from bench.stage import Stage, length_of
from bench.store.store import Store
from bench.suite.suite import Suite
from tests import done_store
from tests.reports.made_records import made

ROWS = """preset: cpu
schedule: {steps: 90}
stages: {classifier_only: {steps: 27}}
seeds: [0, 1]
rows:
  baseline: {method: baseline}
  BAGS: {method: bags, beta: 8}
  tau-norm: {method: tau_norm}
search:
"""
Value = Callable[[Mapping[str, Any], int, Stage], "dict[str, float | None]"]


def of_beta(settings: Mapping[str, Any], seed: int, train: Stage) -> dict[str, float | None]:
    """Best at beta 4, more so the longer it was trained; seeds differ by a point."""
    beta = float(settings.get("beta", 1.0))
    return {"AP": 30 - abs(math.log2(beta / 4)) + seed + length_of(train) / 1000, "AP1": beta, "AP4": 50 - beta}


class Driven:
    """A search in a folder, whose stages are done as soon as they are asked for.

    Attributes:
        plans: that were brought. trained: steps of all trainings that were made.
    """

    def __init__(self, folder: Path, section: str, value: Value = of_beta) -> None:
        self.path = folder / "s.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        self.path.write_text(ROWS + section)
        self.suite: Suite = open_suite(self.path)
        self.store, self.value = Store(folder / "store"), value
        self.plans: list[Plan] = []
        self.trained: list[tuple[int, int]] = []  # (from, to)
        self.failing: Callable[[str], bool] = lambda label: False
        self.stops_after = 10**9
        assert self.suite.sections.search is not None
        assert self.suite.space is not None
        self.search, self.space = self.suite.sections.search, self.suite.space

    def study(self) -> Study:
        return opened(self.store.root, study_name(self.suite), self.search, self.space, {}, write=True)

    def run(self) -> tuple[Ended, View]:
        study = self.study()
        rounds = Rounds(self.suite, study, self.store, self.bring, lambda view: None)
        return rounds.prepare() or rounds.run(), study.view()

    def bring(self, plan: Plan) -> Ended:
        if not plan.rows or all(stage.kind == "data" for stage in plan.stages.values()):
            self._data(plan)
            return Ended({}, False)
        self.plans.append(plan)
        if len(self.plans) > self.stops_after:
            return Ended({}, True)
        of: dict[str, tuple[Mapping[str, Any], int]] = {}
        failed = {}
        for row in plan.rows:
            assert row.evaluate is not None
            of[row.evaluate.key] = (row.settings, row.seed)
            if self.failing(row.label):
                failed[row.evaluate.inputs["predict"].inputs["model"].key] = Outcome("failed", "it diverged\nmore", 1)
        lost = set(failed)
        for key, stage in plan.stages.items():
            if any(source.key in lost for source in stage.inputs.values()):
                lost.add(key)
            if key in lost or self.store.done(key) is not None:
                continue
            if stage.kind == "train":
                done = [r for r in stage.not_in_key.get("rungs", []) if self._is_done(stage, r)]
                self.trained.append((max(done, default=0), length_of(stage)))
            done_store.quick(self.store, [stage], {}, lambda s: self._contents(s, of))
        return Ended(failed, False)

    def _is_done(self, stage: Stage, until: int) -> bool:
        from bench.stage import rung

        return self.store.done(rung(stage, until).key) is not None

    def _contents(self, stage: Stage, of: Mapping[str, tuple[Mapping[str, Any], int]]) -> dict[str, str]:
        if stage.kind != "evaluate":
            return {"result.bin": stage.key}
        model = stage.inputs["predict"].inputs["model"]
        trained = model
        while trained.kind == "patch":
            trained = trained.inputs["model"]
        settings, seed = of[stage.key]
        split = "tune" if stage.inputs["val"].spec["split"] == "tune" else "val"
        result = made("x", protocol={"split": split}, **self.value(settings, seed, trained)).record.result
        return {"result.json": dumps(result.model_copy(update={"evaluate_key": stage.key, "model_key": model.key}))}

    def _data(self, plan: Plan) -> None:
        for stage in plan.stages.values():
            if self.store.done(stage.key) is None:
                done_store.quick(
                    self.store, [stage], {}, lambda s: {"annotations.json": ANNOTATIONS, "counts.json": COUNTS}
                )


_CLASSES = [(1, "r", 5), (2, "c", 50), (3, "f", 2000)]  # none in bin 3
ANNOTATIONS = json.dumps(
    {
        "info": {"exhaustive": True},
        "images": [{"id": 1, "file_name": "1", "width": 9, "height": 9}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": i, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 0}
            for i, *_ in _CLASSES
        ],
        "categories": [
            {"id": i, "name": str(i), "frequency": f, "image_count": n, "instance_count": n} for i, f, n in _CLASSES
        ],
    }
)
COUNTS = json.dumps({"instances": [5, 50, 2000], "num_images": 1000, "own": {"num_images": 200}, "unsplit": ["1"]})
BETA = "  space: {beta: 0.5:32:log}\n  rows: [BAGS]\n"
