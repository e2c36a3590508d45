"""MLflow as a mirror: a real sqlite store, real events of real attempts."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.key import digest
from bench.record import PerClass, Protocol, Record, loads
from bench.stage import Stage
from bench.store.store import Store
from bench.tracking import track, ui
from bench.tracking.place import default_uri
from bench.tracking.rows import TrackedRow, TrackedRows
from bench.tracking.stages import TrackedStage, Whose, experiment_of, tracked

mlflow = pytest.importorskip("mlflow")
EXPERIMENT = "longtail"


def made_record(
    row: str, seed: int, metrics: dict[str, float | None], *, suite: str, settings: dict[str, Any] | None = None
) -> Record:
    settings = settings or {}
    protocol = Protocol(
        data="glyphs", train_digest="a" * 64, val_digest="b" * 64, train_images=1783, val_images=115, classes=2,
        split="val", engine="torchvision", engine_version="1", trunk="small", initialisation="random",
        reinitialised=(), steps={"1:base": 900}, batch={"1:base": 16}, precision="float32",
        evaluator="faster-coco-eval", evaluator_version="1.8.0", max_detections=300, score_threshold=1e-4, nms=0.5,
        bins=(10, 100, 1000),
    )  # fmt: skip
    classes = PerClass(
        category_ids=(1, 4), names=("a", 'b,"'), instance_counts=(3, 9), ap=(None, 41.5), ap50=(None, 60.0)
    )
    return Record(
        evaluate_key=digest([row, seed, settings]), model_key="m" * 64, metrics=metrics, classes_per_bin=(1, 0, 0, 0),
        protocol=protocol, per_class=classes, row=row, suite=suite, seed=seed, method=row, settings=settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all tests: the migrations of a new database take seconds."""
    root = tmp_path_factory.mktemp("store")
    assert track.prepare(root, None, EXPERIMENT) is None
    return root


@pytest.fixture
def store(root: Path) -> Store:
    return Store(root)


@pytest.fixture(scope="module")
def client(root: Path) -> Any:
    return mlflow.tracking.MlflowClient(default_uri(root))


def a_stage(store: Store, name: str) -> Stage:
    stage = Stage("train", {"name": name, "schedule": {"steps": 3, "lr": 0.06}})
    store.add(stage)
    return stage


def run_of(client: Any, key: str) -> Any:
    name = EXPERIMENT if key.startswith("suite/") else experiment_of(EXPERIMENT)
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id], f"tags.`bench.key` = '{key}'")
    assert len(runs) == 1
    return runs[0]


def sync(
    root: Path,
    *stages: TrackedStage,
    rows: tuple[TrackedRow, ...] = (),
    more: dict[str, dict[str, float]] | None = None,
) -> track.SyncCount:
    count = track.sync(root, None, EXPERIMENT, stages, TrackedRows(rows, more or {}))
    assert count.notice is None
    return count


def test_prepare_is_absolute_and_repeatable(root: Path, client: Any) -> None:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment.artifact_location == (root / "mlflow-artifacts").resolve().as_uri()
    assert (root / "mlflow.db").is_file()
    assert track.prepare(root, None, EXPERIMENT) is None


def test_curves_once_and_a_cut_line_when_it_is_whole(root: Path, store: Store, client: Any) -> None:
    stage = a_stage(store, "cut line")
    with store.acquire(stage.key) as lease:
        attempt = store.begin(stage.key, lease)
        attempt.events.write("start", key=stage.key)
        for step in range(1500):  # more than one log_batch takes
            attempt.events.write("metrics", step=step, values={"loss": 1.0 / (step + 1)})
        attempt.events.write("progress", step=1500, total=1600, values={"loss": 7.0})
        with attempt.events.path.open("a") as file:
            file.write('{"event": "metrics", "time": 5.0, "step": 1500, ')
        first = sync(root, tracked(store, stage, Whose("baseline")))
        assert (first.runs, first.values) == (1, 1500)
        assert sync(root, tracked(store, stage, Whose("baseline"))) == track.SyncCount(0, 0)
        with attempt.events.path.open("a") as file:
            file.write('"values": {"loss": 0.25}}\n')
        assert sync(root, tracked(store, stage, Whose("baseline"))).values == 1
        run = run_of(client, stage.key)
        history = client.get_metric_history(run.info.run_id, "loss")
        assert len(history) == 1501
        assert {m.step: m.value for m in history}[1500] == 0.25
        assert run.info.status == "RUNNING"
        assert run.data.tags["mlflow.bench.lines"] == "1503"
        assert run.data.params["schedule.lr"] == "0.06"


def test_a_line_that_is_no_event_is_passed_over(root: Path, store: Store, client: Any) -> None:
    stage = a_stage(store, "torn")
    with store.acquire(stage.key) as lease:
        attempt = store.begin(stage.key, lease)
        attempt.events.path.write_text('{"event": "metr\n[1]\n{"event": "metrics", "time": 1.0, "step": 0}\n')
        attempt.events.write("metrics", step=1, values={"loss": 2.0})
        assert sync(root, tracked(store, stage, Whose("x"))).values == 1
    assert [m.value for m in client.get_metric_history(run_of(client, stage.key).info.run_id, "loss")] == [2.0]


def test_true_status_over_attempts(root: Path, store: Store, client: Any) -> None:
    stage = a_stage(store, "statuses")

    def status() -> str:
        sync(root, tracked(store, stage, Whose("x")))
        return str(run_of(client, stage.key).info.status)

    assert sync(root, tracked(store, stage, Whose("x"))).runs == 0  # nobody has begun it: no run
    with store.acquire(stage.key) as lease:
        store.begin(stage.key, lease).events.write("start", key=stage.key)
        assert status() == "RUNNING"
    assert status() == "KILLED"  # no end line, no lease
    with store.acquire(stage.key) as lease:
        attempt = store.begin(stage.key, lease)
        attempt.events.write("start", key=stage.key)
        attempt.events.write("metrics", step=0, values={"loss": 1.0})
        assert status() == "RUNNING"
        attempt.events.write("end", status="FAILED", error="loss is not finite at step 7")
        store.fail(attempt, "loss is not finite at step 7")
    assert status() == "FAILED"
    assert run_of(client, stage.key).data.tags["bench.error"] == "loss is not finite at step 7"
    with store.acquire(stage.key) as lease:  # killed before its first line: the failure before is not the last word
        store.begin(stage.key, lease)
    assert status() == "KILLED"
    with store.acquire(stage.key) as lease:
        attempt = store.begin(stage.key, lease)
        attempt.events.write("start", key=stage.key)
        (attempt.outputs / "model.json").write_text("{}")
        assert store.finish(attempt, inputs={}, seconds=12.0, environment={"host": "a-host"}, extra={})
        attempt.events.write("end", status="FINISHED", seconds=12.0)
    assert status() == "FINISHED"
    run = run_of(client, stage.key)
    assert run.data.tags["bench.error"] == ""
    assert run.data.tags["bench.attempts"] == "4"
    assert (run.data.tags["bench.seconds"], run.data.tags["bench.host"]) == ("12.0", "a-host")
    assert json.loads(run.data.tags["mlflow.bench.read"])["4"][0] == 2


def test_an_end_line_alone_is_not_done(root: Path, store: Store, client: Any) -> None:
    stage = a_stage(store, "end without done")
    with store.acquire(stage.key) as lease:
        attempt = store.begin(stage.key, lease)
        attempt.events.write("end", status="FINISHED")
    sync(root, tracked(store, stage, Whose("x")))
    assert run_of(client, stage.key).info.status == "KILLED"


def test_rows_hang_below_their_suite(root: Path, client: Any, tmp_path: Path) -> None:
    extra = tmp_path / "log.txt"
    extra.write_text("a line")
    values = {0: 10.0, 1: 13.0}
    rows = tuple(
        TrackedRow(made_record("BAGS", seed, {"AP": value, "AP1": value / 2, "ACC": None}, suite="t1"), (extra,))
        for seed, value in values.items()
    )
    assert sync(root, rows=rows[:1]).runs == 3  # suite, row, seed
    assert sync(root, rows=rows).runs == 1
    assert sync(root, rows=rows) == track.SyncCount(0, 0)
    top = run_of(client, "suite/t1")
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    (row,) = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{top.info.run_id}'")
    seeds = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{row.info.run_id}'")
    assert row.data.metrics["AP"] == 11.5
    assert row.data.metrics["AP_sd"] == 2.1213
    assert row.data.metrics["AP_n"] == 2
    assert "ACC" not in row.data.metrics
    assert top.data.metrics == {}, "its chart view would have a chart for each"
    assert "| BAGS | 0,1 | 11.5 | - | 5.8 |" in top.data.tags["mlflow.note.content"]
    assert sorted(run.data.metrics["AP"] for run in seeds) == [10.0, 13.0]
    assert all("ACC" not in run.data.metrics for run in seeds)
    assert {run.info.status for run in (top, row, *seeds)} == {"FINISHED"}
    names = {file.path for file in client.list_artifacts(seeds[0].info.run_id)}
    assert names == {"record.json", "per_class.csv", "log.txt"}
    folder = Path(client.download_artifacts(seeds[0].info.run_id, "", str(tmp_path)))
    assert loads(Record, (folder / "record.json").read_bytes()) in [row.record for row in rows]
    lines = list(csv.DictReader((folder / "per_class.csv").open()))
    assert lines[1] == {"category_ids": "4", "names": 'b,"', "instance_counts": "9", "ap": "41.5", "ap50": "60.0"}
    assert lines[0]["ap"] == ""
    params = seeds[0].data.params
    assert params["method"] == "BAGS"
    assert params["protocol.max_detections"] == "300"
    assert params["protocol.steps.1:base"] == "900"


def test_what_a_method_wants_to_be_said_is_at_its_runs(root: Path, client: Any) -> None:
    marked = made_record("2DRCL", 0, {"AP": 1.0}, suite="t6").model_copy(update={"mark": "a reconstruction"})
    sync(root, rows=(TrackedRow(marked), TrackedRow(made_record("x2", 0, {"AP": 2.0}, suite="t6"))))
    top = run_of(client, "suite/t6")
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    runs = client.search_runs([experiment], "tags.`bench.mark` = 'a reconstruction'")
    assert sorted(run.data.tags["bench.what"] for run in runs) == ["row", "seed"]
    assert {run.data.params["method"] for run in runs} == {"2DRCL"}
    note = top.data.tags["mlflow.note.content"]
    assert "| 2DRCL (a reconstruction) | 0 | 1.0 | - | - |" in note
    assert "| x2 | 0 | 2.0 | - | - |" in note


def test_the_report_hangs_at_its_suite(root: Path, client: Any, tmp_path: Path) -> None:
    table, figure = tmp_path / "table.txt", tmp_path / "ap_by_bin.png"
    table.write_text("| row |")
    figure.write_bytes(b"\x89PNG")

    def attach() -> str | None:
        return track.attach(root, None, EXPERIMENT, (table, figure))

    assert attach() is None  # no row is done
    sync(root, rows=(TrackedRow(made_record("RFS", 0, {"AP": 1.0}, suite=EXPERIMENT)),))
    assert attach() is None
    run = run_of(client, f"suite/{EXPERIMENT}").info
    names = {file.path for file in client.list_artifacts(run.run_id, "report")}
    assert names == {"report/table.txt", "report/ap_by_bin.png"}
    there = Path(run.artifact_uri.removeprefix("file://")) / "report"
    (there / "table.txt").unlink()
    assert attach() is None
    assert not (there / "table.txt").exists(), "what was brought is not brought again"
    table.write_text("| row | AP |")
    assert attach() is None
    assert (there / "table.txt").read_text() == "| row | AP |"
    gone = track.attach(root, f"sqlite:///{tmp_path}/none/x.db", EXPERIMENT, (table,))
    assert gone is not None
    assert "MLflow was not updated" in gone
    assert f"{tmp_path}/none" in gone


def test_a_server_that_is_down_is_told_before_long(tmp_path: Path) -> None:
    """MLflow alone would ask for 4 minutes, and we three times; nothing has been started by then."""
    script = (
        "import sys, pathlib as p; from bench.tracking import track; "
        "print(track.prepare(p.Path(sys.argv[1]), sys.argv[2], 'x'))"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    begun = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), uri], capture_output=True, text=True, check=True
    )
    assert "MLflow was not updated" in ended.stdout
    assert time.monotonic() - begun < 60


def test_the_suite_runs_while_a_stage_does(root: Path, store: Store, client: Any) -> None:
    stage = a_stage(store, "of suite t2")
    rows = (TrackedRow(made_record("RFS", 0, {"AP": 1.0}, suite="t2")),)
    with store.acquire(stage.key) as lease:
        store.begin(stage.key, lease)
        sync(root, tracked(store, stage, Whose("x")), rows=rows)
        assert run_of(client, "suite/t2").info.status == "RUNNING"
    sync(root, tracked(store, stage, Whose("x")), rows=rows)
    assert run_of(client, "suite/t2").info.status == "KILLED"


def test_other_settings_are_another_run(root: Path) -> None:
    rows = [TrackedRow(made_record("BAGS", 0, {"AP": 1.0}, suite="t3", settings={"beta": b})) for b in (4, 8)]
    assert sync(root, rows=(rows[0],)).runs == 3
    assert sync(root, rows=(rows[1],)).runs == 2


@pytest.mark.slow
def test_drivers_share_a_new_store(tmp_path: Path) -> None:
    """Without turns, processes that migrate one new database break it."""
    script = (
        "import sys, pathlib; from bench.tracking.track import prepare; "
        "sys.exit(prepare(pathlib.Path(sys.argv[1]), None, 'x'))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    drivers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in drivers:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


def test_a_broken_tracker_is_a_notice(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, and long enough not to be taken for an empty one")
    notice = track.prepare(tmp_path, None, EXPERIMENT)
    assert notice is not None
    assert "MLflow was not updated" in notice
    assert track.sync(tmp_path, None, EXPERIMENT, [], TrackedRows()).notice is not None


def test_a_database_of_a_newer_mlflow_is_a_notice(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("create table alembic_version (version_num varchar(32) not null)")
        database.execute("insert into alembic_version values ('from_the_future')")
        database.commit()
    notice = track.prepare(tmp_path, None, EXPERIMENT)
    assert notice is not None
    assert "from_the_future" in notice


def test_without_mlflow_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "mlflow"]:
        monkeypatch.setitem(sys.modules, name, None)
    notice = track.prepare(tmp_path, None, EXPERIMENT)
    assert notice is not None
    assert "events stay in the store" in notice
    count = track.sync(tmp_path, None, EXPERIMENT, [], TrackedRows())
    assert (count.runs, count.values) == (0, 0)
    assert count.notice is not None


def test_importing_track_does_not_import_mlflow() -> None:
    script = (
        "import sys, bench.tracking.track, bench.tracking.ui; "
        "sys.exit(any(m in sys.modules for m in ('mlflow', 'torch', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_ui_refuses_an_occupied_port_and_names_a_free_one(root: Path, taken: int) -> None:
    with pytest.raises(UserError, match=f"port {taken} is in use") as caught:
        ui.ui_command(root, taken)
    free = int(caught.value.hint.rsplit(" ", 1)[1])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free))


def test_ui_refuses_what_cannot_work(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="nothing has been tracked"):
        ui.ui_command(tmp_path, 5000)
    with pytest.raises(UserError, match="this machine only"):
        ui.ui_command(root, 5000, "0.0.0.0")
    with pytest.raises(UserError, match="70000 is no port"):
        ui.ui_command(root, 70000)
    monkeypatch.setattr(ui.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="mlflow is not installed"):
        ui.ui_command(root, 5000)


@pytest.mark.slow
def test_ui_serves_the_store_on_loopback(root: Path, taken: int, tmp_path: Path) -> None:
    """Starts the real server (20 s and more) and reads the experiment through its REST interface."""
    sync(root, rows=(TrackedRow(made_record("RFS", 0, {"AP": 1.0}, suite="t5")),))
    with pytest.raises(UserError) as caught:
        ui.ui_command(root, taken)
    port = int(caught.value.hint.rsplit(" ", 1)[1])
    script = f"import pathlib; from bench.tracking.ui import ui; ui(pathlib.Path({str(root)!r}), {port})"
    said = tmp_path / "said.txt"
    with said.open("w") as file:
        server = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL, stdout=file)
    try:
        url = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}"
        deadline = time.monotonic() + 180
        answer = None
        while answer is None and time.monotonic() < deadline:
            try:
                answer = json.load(urllib.request.urlopen(url, timeout=5))
            except OSError:
                time.sleep(1)
        assert answer is not None
        assert answer["experiment"]["name"] == EXPERIMENT
        links = [line.split()[-1] for line in said.read_text().splitlines()[1:]]
        number = answer["experiment"]["experiment_id"]
        start = f"http://127.0.0.1:{port}/#/experiments/{number}/runs?workflowType=machine_learning"
        assert links[0] == f"{start}&viewStateShareKey=bench-table"
        assert len(links) == 2, "the suite and its stages, and nothing that MLflow says"
    finally:
        os.kill(server.pid, 2)  # as Ctrl-C does
        server.wait(30)
    with socket.socket() as probe:  # nothing of it is left
        assert probe.connect_ex(("127.0.0.1", port)) != 0
