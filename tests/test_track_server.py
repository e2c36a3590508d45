"""A tracking server, real and started here: a job brings its own curves to it, and a driver adds nothing.

By name only, since MLflow's server takes 20 s and more to start:

    python -m pytest -m slow tests/test_track_server.py
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.stage import Stage
from bench.store.store import Store
from bench.tracking import curves, mirror, track, ui
from bench.tracking.curves import Curves, Tracking
from bench.tracking.mirror import KEY, Mirror, experiment_id
from bench.tracking.rows import TrackedRow, TrackedRows
from bench.tracking.stages import Whose, experiment_of, tracked
from reports.load import frame
from tests.test_track import made_record

mlflow = pytest.importorskip("mlflow")
EXPERIMENT = "served"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root, port = tmp_path_factory.mktemp("server"), free_port()
    assert track.prepare(root, None, "Default") is None
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen(
        ui.ui_command(root, port), env={**os.environ, **quiet}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 300
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < end, "the server did not start"
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        ui.stop(process)


@pytest.fixture
def client(server: str) -> Any:
    return mlflow.tracking.MlflowClient(tracking_uri=server)


def runs_of(client: Any, key: str) -> list[Any]:
    experiment = client.get_experiment_by_name(experiment_of(EXPERIMENT))
    return list(client.search_runs([experiment.experiment_id], f"tags.`{KEY}` = '{key}'"))


@pytest.mark.slow
def test_a_job_and_a_driver_write_one_run(
    server: str, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(curves, "EVERY_S", 0.2)
    store, stage = Store(tmp_path / "store"), Stage("train", {"name": "served", "schedule": {"lr": 0.06}})
    store.add(stage)
    lease = store.acquire(stage.key)
    assert lease is not None
    with (
        Curves(
            Tracking(
                server, EXPERIMENT, {stage.key: Whose("train baseline seed 0", ("baseline", "x2"), "baseline", (0,))}
            ),
            store,
            [stage.key],
        ),
        lease,
    ):
        attempt = store.begin(stage.key, lease)
        attempt.events.write("start", key=stage.key)
        for step in range(20):
            attempt.events.write("metrics", step=step, values={"loss": 1.0 / (step + 1)})
        end = time.monotonic() + 120
        while not (client.get_experiment_by_name(experiment_of(EXPERIMENT)) and runs_of(client, stage.key)):
            assert time.monotonic() < end, "nothing is seen while the job works"
            time.sleep(0.2)
        while len(client.get_metric_history(runs_of(client, stage.key)[0].info.run_id, "loss")) < 20:
            assert time.monotonic() < end
            time.sleep(0.2)
        assert runs_of(client, stage.key)[0].info.status == "RUNNING"
        (attempt.outputs / "model").write_text("x")
        attempt.events.write("end", status="FINISHED")
        assert store.finish(attempt, inputs={}, seconds=1.0, environment={}, extra={})
    (run,) = runs_of(client, stage.key)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "train baseline seed 0"
    assert {name: run.data.tags[name] for name in ("row", "rows", "seed", "method", "stage")} == {
        "row": "baseline", "rows": "baseline, x2", "seed": "0", "method": "baseline", "stage": "train",
    }  # fmt: skip
    same = tracked(store, stage, Whose("train baseline seed 0", ("baseline", "x2"), "baseline", (0,)))
    again = track.sync(store.root, server, EXPERIMENT, [same], TrackedRows())
    assert again == track.SyncCount(0, 0)
    assert capfd.readouterr().out == "", "MLflow writes two lines of links a run"
    (after,) = runs_of(client, stage.key)
    assert after.info.run_id == run.info.run_id
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 20


@pytest.mark.slow
def test_two_that_make_a_run_at_once_agree_on_one(server: str, client: Any, tmp_path: Path) -> None:
    """Two hosts without a common lock: each has looked before the other wrote."""
    experiment = experiment_id(client, tmp_path, server, experiment_of(EXPERIMENT))
    mirrors = [Mirror(client, experiment, "x.yaml", ["both"], shared=True) for _ in range(2)]
    made = [mirror.create("both", "train", time.time(), {}) for mirror in mirrors]
    (left,) = runs_of(client, "both")
    assert made[1].info.run_id == left.info.run_id, "who came second has seen both"
    assert Mirror(client, experiment, "x.yaml", ["both"], shared=True).find("both").info.run_id == left.info.run_id


@pytest.mark.slow
def test_results_are_read_back_from_a_server_alone(server: str, tmp_path: Path) -> None:
    rows = [made_record("BAGS", seed, {"AP": 20.0 + seed, "AP1": None}, suite="far") for seed in (0, 1)]
    assert track.sync(tmp_path, server, "far", [], TrackedRows([TrackedRow(row) for row in rows])).notice is None
    found = frame(server, suites="far")
    lines = list(zip(found["row"], found["seed"], found["metric"], found["value"].fillna(-1), strict=True))
    assert lines == [("BAGS", 0, "AP", 20.0), ("BAGS", 0, "AP1", -1), ("BAGS", 1, "AP", 21.0), ("BAGS", 1, "AP1", -1)]
    assert list(found["evaluate_key"].unique()) == [row.evaluate_key for row in rows]
    with pytest.raises(UserError, match=r"no suite 'fra'\. Did you mean 'far'"):
        frame(server, suites="fra")


def test_a_server_that_is_gone_is_a_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in mirror.HTTP:
        monkeypatch.setenv(name, "1")
    with pytest.raises(UserError, match="MLflow cannot be read: MlflowException"):
        frame(f"http://127.0.0.1:{free_port()}")


def test_a_server_that_is_gone_ends_ends_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in mirror.HTTP:
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(curves, "PATIENCE_S", 120.0)
    store, stage = Store(tmp_path / "store"), Stage("train", {"name": "alone"})
    store.add(stage)
    with Curves(Tracking(f"http://127.0.0.1:{free_port()}", EXPERIMENT), store, [stage.key]):
        pass
    told = capsys.readouterr().err
    assert "the curves stay in the store; the next driver sends them" in told


def test_a_database_is_left_to_the_driver(tmp_path: Path) -> None:
    """One file that many jobs write to is what breaks on a network disk: no thread, no mlflow, no database."""
    script = (
        "import sys, threading; from pathlib import Path; from bench.tracking.curves import Curves, Tracking;"
        "from bench.store.store import Store\n"
        f"with Curves(Tracking('sqlite:///{tmp_path}/x.db', 'x'), Store(Path('{tmp_path}')), ['k']):\n"
        "    assert threading.active_count() == 1\n"
        "assert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert not (tmp_path / "x.db").exists()


def test_hosts_without_a_common_lock_share_a_new_database(tmp_path: Path) -> None:
    """Without flock both migrate it; the slower one looks again."""
    script = (
        "import sys, pathlib, contextlib; from bench.tracking import track;"
        "track.turn = lambda root: contextlib.nullcontext();"
        "sys.exit(track.prepare(pathlib.Path(sys.argv[1]), None, 'x'))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert track.prepare(tmp_path, None, "x") is None
