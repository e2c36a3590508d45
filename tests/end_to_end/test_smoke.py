"""From the command line to the table, MLflow and the report; and a second run that has nothing to do."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_suite import SETS, SMOKE, Undisturbed, attempts, copied, drive
from typer.testing import CliRunner

import bench
from bench.cli.app import app
from bench.cli.open import open_suite
from bench.cli.tables import default_report_folder
from bench.plan import planning
from bench.record import METRICS
from bench.store.store import Store
from reports.load import frame
from tests.chaos.checks import runs

LABELS = ["baseline", "x2", "RFS", "cls-retrain", "re-weight-cls", "tau-norm", "BAGS"]


def ask(smoke: Undisturbed, command: str) -> Any:
    words = [word for text in SETS for word in ("--set", text)]
    result = CliRunner().invoke(app, [command, str(SMOKE), "--store", str(smoke.root), *words, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_every_row_has_a_number(smoke: Undisturbed) -> None:
    rows = ask(smoke, "report")
    assert [row["row"] for row in rows] == LABELS
    for row in rows:
        assert set(row) >= {"row", "seeds", "metrics", "protocol"}
        assert row["seeds"] == [0]
        ap = row["metrics"]["AP"]
        assert set(ap) >= {"mean", "sd", "n"}
        assert math.isfinite(ap["mean"])
        assert 0.0 <= ap["mean"] <= 100.0
        assert ap["n"] == 1
        assert ap["sd"] is None  # of one run no spread is known
        assert row["protocol"]["val_digest"] == rows[0]["protocol"]["val_digest"]


def test_the_table_closes_the_output(smoke: Undisturbed) -> None:
    lines = smoke.output.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("row ") and " AP " in line)
    assert [line.split()[0] for line in lines[header + 2 : header + 2 + len(LABELS)]] == LABELS
    assert "fused: cls-retrain + re-weight-cls + BAGS" in smoke.output  # the order of the table
    assert "shared: baseline by 6 rows" in smoke.output
    assert "report:" in lines[-1]


def test_plan_knows_what_is_done_and_what_it_cost(smoke: Undisturbed) -> None:
    plan = ask(smoke, "plan")
    assert {stage["key"] for stage in plan["stages"]} == set(smoke.plan.stages)
    for stage in plan["stages"]:
        assert set(stage) >= {"key", "kind", "rows", "state", "seconds"}
        assert stage["state"] == "done"
        assert stage["seconds"] >= 0
        assert set(stage["rows"]) <= set(LABELS)
    shared = next(s for s in plan["stages"] if s["kind"] == "train" and len(s["rows"]) > 1)
    assert shared["rows"] == [label for label in LABELS if label != "RFS"]
    assert plan["unshared"] > len(plan["stages"])
    assert plan["done"] == len(plan["stages"])


def test_report_files(smoke: Undisturbed) -> None:
    folder = default_report_folder(Store(smoke.root), smoke.plan)
    for name in ("table.txt", "table.md", "table.tex", "table.csv", "ap_by_bin.png", "weight_norms.png"):
        assert (folder / name).stat().st_size > 100, name
    assert all(label in (folder / "table.csv").read_text() for label in LABELS)


def test_store_mlflow_and_report_have_the_same_results(smoke: Undisturbed) -> None:
    """Of a run from the command line: 7 rows of one seed, 20 metrics each, as measured."""
    pytest.importorskip("mlflow")
    import pandas as pd

    found = frame(smoke.root)
    assert len(found) == len(LABELS) * len(METRICS)
    assert set(found["row"]) == set(LABELS)
    assert set(found["split"]) == {"val"}
    assert found["commit"].notna().all()
    pd.testing.assert_frame_equal(frame(f"sqlite:///{smoke.root / 'mlflow.db'}"), found)
    pd.testing.assert_frame_equal(bench.results("smoke", store=smoke.root), found)
    table = {row["row"]: row["metrics"] for row in ask(smoke, "report")}
    for line in found.itertuples():
        mean = table[line.row][line.metric]["mean"]
        assert (mean == line.value) if mean is not None else math.isnan(line.value)
    folder = default_report_folder(Store(smoke.root), smoke.plan)
    written = pd.read_csv(folder / "results.csv").set_index(["row", "metric"])["value"]
    pd.testing.assert_series_equal(found.set_index(["row", "metric"])["value"].loc[list(written.index)], written)
    assert "bench run " in (folder / "made_by.txt").read_text().splitlines()[0]
    assert list(planning.make(open_suite(folder / "suite.yaml")).stages) == list(smoke.plan.stages)


def test_mlflow_holds_every_stage_and_row_as_finished(smoke: Undisturbed) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{smoke.root / 'mlflow.db'}")
    ids = [client.get_experiment_by_name(name).experiment_id for name in ("smoke", "smoke: stages")]
    results, stages = (client.search_runs([number], max_results=1000) for number in ids)
    assert {run.info.status for run in (*results, *stages)} == {"FINISHED"}
    assert sorted(run.data.tags["bench.key"] for run in stages) == sorted(smoke.plan.stages)
    names = sorted(run.info.run_name for run in results)
    assert names == sorted(["smoke", *LABELS, *(f"{label} seed 0" for label in LABELS)])
    assert all(run.info.end_time - run.info.start_time >= 1000 for run in results), "as long as its stages took"
    rows = {run.info.run_name: run.data.metrics for run in results if run.data.tags["bench.what"] == "row"}
    assert all("AP" in metrics for metrics in rows.values())
    assert {label for label, metrics in rows.items() if "dAP" not in metrics} == {"baseline"}
    baseline = next(r for r in stages if r.data.tags["bench.key"] == next(iter(_trained(smoke))))
    assert baseline.data.tags["row"] == "baseline"
    curve = client.get_metric_history(baseline.info.run_id, "loss")
    assert [point.step for point in curve] == sorted({point.step for point in curve})
    assert all(math.isfinite(point.value) for point in curve)
    assert len(curve) >= 10


def _trained(smoke: Undisturbed) -> list[str]:
    return [key for key, stage in smoke.plan.stages.items() if stage.kind == "train"]


def test_each_stage_took_one_attempt(smoke: Undisturbed) -> None:
    assert {len(found) for found in attempts(smoke.plan, smoke.root).values()} == {1}


def test_second_run_trains_nothing_and_is_quick(smoke: Undisturbed) -> None:
    before, held = attempts(smoke.plan, smoke.root), smoke.digests()
    begun = time.monotonic()
    ended = drive(smoke.root)
    seconds = time.monotonic() - begun
    assert ended.returncode == 0, ended.stderr
    assert seconds < 10
    assert attempts(smoke.plan, smoke.root) == before
    assert smoke.digests() == held
    assert f"{len(before)} done" in ended.stdout
    assert all(f"\n{label} " in ended.stdout for label in LABELS)


@pytest.mark.slow
def test_what_nobody_has_told_is_told_by_the_next_run(smoke: Undisturbed, tmp_path: Path) -> None:
    """A driver was killed while its jobs went on, or its tracker or disk failed: nothing is left to do but that."""
    root = copied(smoke.root, tmp_path / "store", set(smoke.plan.stages))
    database = root / "mlflow.db"
    database.write_bytes(b"no database" * 1000)
    ended = drive(root)
    assert ended.returncode == 0, ended.stderr
    assert "MLflow was not updated" in ended.stdout
    database.unlink()
    assert drive(root).returncode == 0
    told = runs(root)
    assert {told.get(key) for key in smoke.plan.stages} == {"FINISHED"}
    table = default_report_folder(Store(root), smoke.plan) / "table.txt"
    whole = table.read_text()
    table.unlink()
    assert drive(root).returncode == 0
    assert table.read_text() == whole
    stamp = table.stat().st_mtime_ns
    assert drive(root).returncode == 0
    assert table.stat().st_mtime_ns == stamp, "once all is told, nothing is written again"


def test_options_do_not_overwrite_the_report_of_the_file(smoke: Undisturbed) -> None:
    store = Store(smoke.root)
    plain = planning.make(open_suite(SMOKE))
    assert default_report_folder(store, plain) == smoke.root / "reports" / "smoke"
    folder = default_report_folder(store, smoke.plan)
    assert folder.parent == smoke.root / "reports"
    assert folder.name.startswith("smoke-")
