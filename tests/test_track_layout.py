"""How MLflow is laid out: a suite's experiment and that of its stages, tags, saved views; mirrors of the layout before;
results that were made again. A real sqlite store throughout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.stage import Stage
from bench.store.store import Store
from bench.tracking import records, track, views
from bench.tracking.place import default_uri
from bench.tracking.rows import TrackedRow, TrackedRows
from bench.tracking.stages import Whose, experiment_of, tracked
from tests.test_track import made_record

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    assert track.prepare(root, None, "first") is None
    return root


@pytest.fixture(scope="module")
def client(root: Path) -> Any:
    return mlflow.tracking.MlflowClient(default_uri(root))


def runs(client: Any, experiment: str) -> dict[str, Any]:
    """`bench.key` -> run, of all that are not deleted."""
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert len({run.data.tags["bench.key"] for run in found}) == len(found)
    return {run.data.tags["bench.key"]: run for run in found}


def sync(root: Path, suite: str, *rows: TrackedRow, stages: Any = (), more: Any = None) -> track.SyncCount:
    count = track.sync(root, None, suite, stages, TrackedRows(rows, more or {}))
    assert count.notice is None
    return count


def done_stage(store: Store, name: str, losses: list[float]) -> Stage:
    stage = Stage("train", {"name": name})
    store.add(stage)
    with store.acquire(stage.key) as lease:
        attempt = store.begin(stage.key, lease)
        attempt.events.write("start", key=stage.key)
        for step, loss in enumerate(losses):
            attempt.events.write("metrics", step=step, values={"loss": loss})
        (attempt.outputs / "model").write_text("x")
        assert store.finish(attempt, inputs={}, seconds=1.0, environment={"commit": "c0ffee"}, extra={})
        attempt.events.write("end", status="FINISHED")
    return stage


def test_a_suite_has_rows_and_seeds_and_its_stages_lie_apart(root: Path, client: Any) -> None:
    store, suite = Store(root), "table1"
    stage = done_stage(store, "BAGS", [3.0, 2.0])
    whose = Whose("train BAGS +1 seed 0", ("BAGS", "tau-norm"), "bags", (0,))
    record = made_record("BAGS", 0, {"AP": 1 / 3, "AP1": 2.0}, suite=suite)
    row = TrackedRow(record, (), began=1000.0, ended=1060.0, trainings=(stage.key, "e" * 64))
    more = {"BAGS": {"AP_low": -1.0, "AP_high": 2.0, "dAP": 0.25}}
    sync(root, suite, row, stages=[tracked(store, stage, whose)], more=more)
    assert sync(root, suite, row, stages=[tracked(store, stage, whose)], more=more) == track.SyncCount()
    (training,) = runs(client, experiment_of(suite)).values()
    assert training.info.run_name == "train BAGS +1 seed 0"
    assert training.data.tags.items() >= {
        "stage": "train", "row": "BAGS", "rows": "BAGS, tau-norm", "method": "bags", "seed": "0",
        "mlflow.source.git.commit": "c0ffee", "mlflow.source.name": "table1.yaml",
    }.items()  # fmt: skip
    by_what = {run.data.tags["bench.what"]: run for run in runs(client, suite).values()}
    assert set(by_what) == {"suite", "row", "seed"}
    for run in by_what.values():
        assert (run.info.start_time, run.info.end_time) == (1_000_000, 1_060_000)
    assert (
        by_what["suite"].data.tags["mlflow.note.content"].splitlines()[2]
        == "| BAGS | 0 | 0.3 [-1.0, 2.0] | 0.2 | 2.0 |"
    )
    assert by_what["row"].data.metrics == {
        "AP": 0.3333, "AP_n": 1, "AP1": 2.0, "AP1_n": 1, "AP_low": -1.0, "AP_high": 2.0, "dAP": 0.25,
    }  # fmt: skip
    assert by_what["row"].data.tags.items() >= {"row": "BAGS", "method": "BAGS", "seeds": "0"}.items()
    seed = by_what["seed"]
    assert seed.info.run_name == "BAGS seed 0"
    assert seed.data.tags.items() >= {"row": "BAGS", "method": "BAGS", "seed": "0"}.items()
    link = f"#/experiments/{training.info.experiment_id}/runs/{training.info.run_id}"
    assert seed.data.tags["mlflow.note.content"] == f"Trained in: [train BAGS +1 seed 0]({link})"
    shown = {name for run in (training, *by_what.values()) for name in run.data.tags if not name.startswith("mlflow.")}
    assert shown == {"bench.key", "bench.what", "stage", "row", "rows", "method", "seed", "seeds", "table",
                     "bench.seconds", "bench.finished", "bench.commit", "bench.attempts", "bench.error"}  # fmt: skip


def test_columns_are_preset_by_saved_views(root: Path, client: Any) -> None:
    """The form that the pages of MLflow 3.17.2 read; looked at in Chromium."""
    record = made_record("RFS", 0, {"AP": 2.0, "AP1": 1.0, "AP2": 3.0, "AP50": 4.0}, suite="seen")
    sync(root, "seen", TrackedRow(record), more={"RFS": {"AP_low": 1.0, "AP_high": 3.0}})
    rows, stages = (client.get_experiment_by_name(name) for name in ("seen", experiment_of("seen")))
    envelope = json.loads(rows.tags["mlflow.sharedViewState.bench-table"])
    assert set(envelope) == {"name", "createdAt", "updatedAt", "state"}
    columns = ["metrics.`AP`", "metrics.`AP_low`", "metrics.`AP_high`", "metrics.`AP1`", "metrics.`AP2`",
               "tags.`table`", "tags.`method`", "tags.`seeds`"]  # fmt: skip
    assert json.loads(envelope["state"]) == {
        "searchFilter": "tags.`bench.what` = 'row'", "orderByKey": "metrics.`AP`", "orderByAsc": False,
        "startTime": "ALL", "lifecycleFilter": "Active", "datasetsFilter": [], "modelVersionFilter": "All Runs",
        "selectedColumns": columns, "columnOrder": columns, "runsHiddenMode": "FIRST_20_RUNS",
    }  # fmt: skip
    trainings = json.loads(json.loads(stages.tags["mlflow.sharedViewState.bench-trainings"])["state"])
    assert trainings["searchFilter"] == "tags.`stage` = 'train'"
    for found, state in ((rows, json.loads(envelope["state"])), (stages, trainings)):
        client.search_runs([found.experiment_id], state["searchFilter"], order_by=[f"{state['orderByKey']} DESC"])
    sync(root, "seen", TrackedRow(record), more={"RFS": {"AP_low": 1.5, "AP_high": 3.0}})
    assert json.loads(client.get_experiment_by_name("seen").tags["mlflow.sharedViewState.bench-table"]) == envelope
    links = dict(views.links(root, "http://127.0.0.1:5000"))
    start = f"http://127.0.0.1:5000/#/experiments/{rows.experiment_id}/runs?workflowType=machine_learning"
    assert links["seen"] == f"{start}&viewStateShareKey=bench-table"
    assert links["seen: stages"].endswith("&viewStateShareKey=bench-trainings&compareRunsMode=CHART")


def test_a_database_without_views_has_no_links(tmp_path: Path) -> None:
    assert views.links(tmp_path, "http://x") == []
    (tmp_path / "mlflow.db").write_text("no database, and long enough not to be taken for an empty one, in no form")
    assert views.links(tmp_path, "http://x") == []


def test_a_result_made_again_is_shown(root: Path, client: Any, tmp_path: Path) -> None:
    """It has the key of the one before: same settings, other machine."""
    before = made_record("BAGS", 0, {"AP": 10.0, "AP1": 5.0}, suite="again")
    sync(root, "again", TrackedRow(before))
    old = {run.data.tags["bench.what"]: run for run in runs(client, "again").values()}
    after = before.model_copy(update={"metrics": {"AP": 11.0, "AP1": 5.0}})
    assert sync(root, "again", TrackedRow(after)).runs == 0
    new = {run.data.tags["bench.what"]: run for run in runs(client, "again").values()}
    assert {what: run.info.run_id for what, run in new.items()} == {what: run.info.run_id for what, run in old.items()}
    assert (new["row"].data.metrics["AP"], new["seed"].data.metrics["AP"]) == (11.0, 11.0)
    assert records.read(default_uri(root), ["again"])[0] == [after]


def test_what_mlflow_cannot_change_is_another_run(root: Path, client: Any) -> None:
    """A metric that is there no longer, and a parameter that is another."""
    before = made_record("BAGS", 0, {"AP": 10.0, "AP1": 5.0}, suite="other")
    sync(root, "other", TrackedRow(before))
    protocol = before.protocol.model_copy(update={"evaluator_version": "1.9"})
    after = before.model_copy(update={"metrics": {"AP": 10.0, "AP1": None}, "protocol": protocol})
    assert sync(root, "other", TrackedRow(after)).runs == 2
    by_what = {run.data.tags["bench.what"]: run for run in runs(client, "other").values()}
    assert set(by_what["seed"].data.metrics) == {"AP"}
    assert by_what["seed"].data.params["protocol.evaluator_version"] == "1.9"
    assert by_what["seed"].data.tags["mlflow.parentRunId"] == by_what["row"].info.run_id
    assert sync(root, "other", TrackedRow(after)) == track.SyncCount()


def test_a_mirror_of_the_layout_before_is_brought_over(root: Path, client: Any) -> None:
    """As version 1 wrote it: stages among the rows, `row/AP` at the suite, tags bench.read and bench.filed."""
    store, suite = Store(root), "old"
    kept, gone = done_stage(store, "kept", [3.0, 2.0, 1.0]), "f" * 64
    number = client.create_experiment(suite, artifact_location=(root / "mlflow-artifacts").resolve().as_uri())

    def made(key: str, name: str, **tags: str) -> str:
        run = client.create_run(number, 1000, {"bench.key": key, **tags}, name).info.run_id
        client.set_terminated(run, "FINISHED", 2000)
        return str(run)

    tags = {"bench.what": "stage", "bench.kind": "train", "bench.read": '{"1": [9, 99]}'}
    stages = [made(key, "train a, b 123456", **tags) for key in (kept.key, gone)]
    for run in stages:
        client.log_param(run, "lr", "0.1")
        for step in range(3):
            client.log_metric(run, "loss", 9.0 - step, 5000 + step, step)
    top = made(f"suite/{suite}", suite, **{"bench.what": "suite"})
    client.log_metric(top, "BAGS/AP", 1.0)
    record = made_record("BAGS", 0, {"AP": 1.0}, suite=suite)
    sync(root, "model", TrackedRow(record.model_copy(update={"suite": "model"})))
    keys = [key.replace("suite/model", f"suite/{suite}") for key in runs(client, "model")]
    row_key, seed_key = sorted((key for key in keys if key != f"suite/{suite}"), key=len)
    row = made(row_key, "BAGS", **{"bench.what": "row", "mlflow.parentRunId": top})
    made(seed_key, "BAGS seed 0", **{"bench.what": "seed", "bench.filed": "yes", "mlflow.parentRunId": row})
    made(f"suite/{suite}/BAGS/another", "BAGS", **{"bench.what": "row", "mlflow.parentRunId": top})

    now = tracked(store, kept, Whose("train a +1 seed 0", ("a", "b"), "a", (0,)))
    assert sync(root, suite, TrackedRow(record), stages=[now]).runs == 5
    assert sync(root, suite, TrackedRow(record), stages=[now]) == track.SyncCount()
    found = runs(client, suite)
    assert set(found) == {f"suite/{suite}", row_key, seed_key, f"suite/{suite}/BAGS/another"}
    assert top not in {run.info.run_id for run in found.values()}
    assert found[f"suite/{suite}"].data.metrics == {}
    assert found[f"suite/{suite}/BAGS/another"].data.tags["mlflow.parentRunId"] == found[f"suite/{suite}"].info.run_id
    apart = runs(client, experiment_of(suite))
    assert set(apart) == {kept.key, gone}

    def curve(key: str) -> list[tuple[int, float]]:
        return [(p.step, p.value) for p in client.get_metric_history(apart[key].info.run_id, "loss")]

    assert curve(kept.key) == [(0, 3.0), (1, 2.0), (2, 1.0)], "from the store"
    assert curve(gone) == [(0, 9.0), (1, 8.0), (2, 7.0)], "from MLflow, which alone has it"
    taken = apart[gone]
    assert (taken.info.start_time, taken.info.end_time, taken.info.status) == (1000, 2000, "FINISHED")
    assert taken.data.params == {"lr": "0.1"}
    assert taken.data.tags.items() >= {"stage": "train", "mlflow.bench.read": '{"1": [9, 99]}'}.items()
    assert records.read(default_uri(root), [suite])[0] == [record]


def of_old_version(client: Any, suite: str) -> None:
    """As the version before wrote rows and seeds: without a table."""
    for run in runs(client, suite).values():
        if "table" in run.data.tags:
            client.delete_tag(run.info.run_id, "table")


def by_name(client: Any, suite: str) -> dict[tuple[str, str, str], Any]:
    """(kind, row, table) -> its run, of rows and seeds."""
    found: dict[tuple[str, str, str], Any] = {}
    for run in runs(client, suite).values():
        tags = run.data.tags
        if tags["bench.what"] != "suite":
            place = (tags["bench.what"], f"{tags['row']} {tags.get('seed', '')}".strip(), tags.get("table", "-"))
            assert place not in found
            found[place] = run
    return found


def test_two_tables_of_a_suite_are_two_rows_and_one_of_an_older_version_is_none(root: Path, client: Any) -> None:
    """The same row at 60 and at 330 steps. Before, both were one run, whose mean was that of the last table."""
    suite = "tables"

    def row(label: str, seed: int, points: float, setup: str = "") -> TrackedRow:
        record = made_record(label, seed, {"AP": points}, suite=suite)
        key = f"{'b' if setup == '330' or points > 2 else 'a'}{record.evaluate_key[1:]}"
        return TrackedRow(record.model_copy(update={"evaluate_key": key}), setup=setup)

    def bring(table: str, *rows: TrackedRow) -> int:
        count = track.sync(root, None, suite, (), TrackedRows(rows, {}, table))
        assert count.notice is None
        return count.runs

    bring("", row("baseline", 0, 1.0), row("baseline", 1, 1.0), row("BAGS", 0, 2.0))
    bring("", row("baseline", 0, 3.0))  # replaces the mean
    of_old_version(client, suite)
    short = [row("baseline", 0, 1.0, "60"), row("baseline", 1, 1.0, "60"), row("BAGS", 0, 2.0, "60")]
    assert bring("60 steps", *short) == 5
    found = by_name(client, suite)
    assert set(found) == {
        ("row", "baseline", "60 steps"), ("seed", "baseline 0", "60 steps"), ("seed", "baseline 1", "60 steps"),
        ("row", "BAGS", "60 steps"), ("seed", "BAGS 0", "60 steps"), ("seed", "baseline 0", "-"),
    }  # fmt: skip
    top = runs(client, suite)[f"suite/{suite}"].info.run_id
    assert found["seed", "baseline 0", "-"].data.tags["mlflow.parentRunId"] == top, "its row's mean is gone"
    assert bring("330 steps", row("baseline", 0, 3.0, "330")) == 2
    found = by_name(client, suite)
    rows = {(label, table): run for (what, label, table), run in found.items() if what == "row"}
    assert {place: (run.data.metrics["AP"], run.data.tags["seeds"]) for place, run in rows.items()} == {
        ("baseline", "60 steps"): (1.0, "0, 1"), ("BAGS", "60 steps"): (2.0, "0"),
        ("baseline", "330 steps"): (3.0, "0"),
    }  # fmt: skip
    assert not any(table == "-" for _, _, table in found)
    note = runs(client, suite)[f"suite/{suite}"].data.tags["mlflow.note.content"]
    assert note.splitlines() == ["Table 330 steps", "", "| row | seeds | AP | dAP | AP1 |", "|---|---|---|---|---|",
                                 "| baseline | 0 | 3.0 | - | - |"]  # fmt: skip
    more = [*short, row("baseline", 2, 1.5, "60"), row("RFS", 0, 1.0, "60")]
    assert bring("60 steps", *more) == 3, "a seed and a row with its seed; the rows are those of before"
    assert bring("60 steps", *more) == 0


def test_experiments_of_stages_are_no_suites(root: Path) -> None:
    assert "seen: stages" not in records.read(default_uri(root), [])[1]
    assert "seen" in records.read(default_uri(root), [])[1]
