"""Stores with a tiny suite that is done, with numbers that a test sets. Shared by the tests of exports, merges and
comparisons; the files are those that jobs write, as far as reports read them. There are no detections.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.cli.open import open_suite
from bench.cli.tables import label
from bench.plan import planning
from bench.plan.planning import Plan
from bench.record import dumps
from bench.stage import Stage
from bench.store.store import Store
from tests import done_store
from tests.conftest import TINY
from tests.reports.made_records import made

TWO_SEEDS = TINY.replace("seeds: [0]", "seeds: [0, 1]")
Values = Mapping[tuple[str, int], Mapping[str, float | None]]
VALUES: Values = {
    ("baseline", 0): {"AP": 20.25, "AP1": None, "ACC": 50.0},
    ("baseline", 1): {"AP": 21.75, "AP1": 0.0, "ACC": 51.0},
    ("BAGS", 0): {"AP": 24.0, "AP1": 7.5, "ACC": None},
    ("BAGS", 1): {"AP": 25.0, "AP1": 8.0, "ACC": None},
}
ENVIRONMENT: Mapping[str, Any] = {"commit": "c" * 40, "host": "a", "packages": {"torch": "2.14"}}


def a_plan(suite: Path, **options: Any) -> Plan:
    return planning.make(open_suite(suite, **options))


def finish(
    root: Path,
    plan: Plan,
    values: Values = VALUES,
    environment: Mapping[str, Any] = ENVIRONMENT,
    leave_out: str = "",
    *,
    model: str = "weights",
    **protocol: Any,
) -> Store:
    """Have all stages of a plan done, but for the evaluations of a row that is left out, and the suite noted.

    `model`: what a model file holds; another text is another result of the training.
    """
    store = Store(root)
    of = {row.evaluate.key: row for row in plan.rows if row.evaluate is not None}

    def contents(stage: Stage) -> dict[str, str]:
        if stage.kind == "data":
            return {"counts.json": json.dumps({"instances": [1] * 6}), "pixels.npy": "pixels"}
        if stage.kind == "train":
            return {"train.json": json.dumps({"steps": 3}), "model.safetensors": model}
        if stage.kind == "predict":
            norms = json.dumps({"weight_norms": [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]})
            return {"classifier.json": norms}
        row, trained = of[stage.key], stage.inputs["predict"].inputs["model"].key
        result = made("any", protocol={"settings": "5" * 64, **protocol}, **values[row.label, row.seed]).record.result
        return {"result.json": dumps(result.model_copy(update={"evaluate_key": stage.key, "model_key": trained}))}

    wanted = [stage for key, stage in plan.stages.items() if key not in of or of[key].label != leave_out]
    done_store.quick(store, [stage for stage in wanted if store.done(stage.key) is None], environment, contents)
    table = [noted for row in plan.rows if (noted := row.noted) is not None]
    store.register_root(label(plan), plan.suite.path.resolve(), plan.stages, {}, table)
    return store


def finish_any(root: Path, suite: Path, **options: Any) -> Store:
    """As `finish`, with an AP of 20 for every row and seed: for what a report says beside numbers."""
    plan = a_plan(suite, **options)
    return finish(root, plan, {(row.label, row.seed): {"AP": 20.0} for row in plan.rows})


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
