"""A password of a tracking server is in nothing that is stored or shown; who may open the pages is said."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.environment import capture, masked
from bench.errors import UserError
from bench.tracking import credentials, ui
from bench.tracking.mirror import notice
from tests.conftest import ROOT, TINY, Bench, Write

PASSWORD = "S3CRET/pass"
ADDRESS = "http://user:S3CRET%2Fpass@127.0.0.1:9/"  # port 9 (discard): nobody answers


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("http://user:pass@host/x", "http://***@host/x"),
        ("--tracking-uri=https://user:p%40ss@host:5000", "--tracking-uri=https://***@host:5000"),
        ("postgresql+psycopg2://me:pw@db/mlflow", "postgresql+psycopg2://***@db/mlflow"),
        ("failed for url: http://a:b@c/d and http://e:f@g/h", "failed for url: http://***@c/d and http://***@g/h"),
        ("data.token=abc def", "data.token=***"),
        ("rows.x.api_key=1", "rows.x.api_key=***"),
        ("cluster.my_password='a'", "cluster.my_password=***"),
        ("rows.x.tokens=3", "rows.x.tokens=3"),
        ("schedule.steps=300", "schedule.steps=300"),
        ("suites/a@b.yaml", "suites/a@b.yaml"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_what_is_shown_of_a_word(word: str, shown: str) -> None:
    assert masked(word) == shown


def test_an_address_is_taken_apart_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (credentials.USER, credentials.PASSWORD):
        monkeypatch.setenv(name, "before")
    assert credentials.taken(ADDRESS) == "http://127.0.0.1:9/"
    assert (os.environ[credentials.USER], os.environ[credentials.PASSWORD]) == ("user", PASSWORD)
    assert "others on this machine can see a password" in capsys.readouterr().err
    monkeypatch.setenv(credentials.ADDRESS, ADDRESS)
    credentials.taken(ADDRESS)
    assert os.environ[credentials.ADDRESS] == "http://127.0.0.1:9/", "jobs inherit it"
    assert capsys.readouterr().err == "", "an environment is not seen by others"
    for other in (None, "sqlite:////a/b.db", "http://host:5000", "databricks"):
        assert credentials.taken(other) == other


@pytest.mark.slow
def test_a_failed_row_and_an_absent_server_leave_no_password(write: Write, bench: Bench, tmp_path: Path) -> None:
    """Everything that the run has written and printed: store, job files, messages, the command to go on with."""
    suite = write(TINY.replace("  BAGS", "  broken: {method: baseline, schedule: {lr: 1.0e+30}}\n  BAGS"))
    ran = bench("run", suite, "--only", "broken", "--store", tmp_path / "store", "--tracking-uri", ADDRESS, timeout=300)
    assert ran.code == 1, ran.err
    assert "http://***@127.0.0.1:9/" in ran.out, "the command to go on with"
    assert "MLflow was not updated" in ran.out
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".pkl" for path in files), "a job that failed keeps its files"
    for path in files:
        content = path.read_bytes()
        assert b"S3CRET" not in content, path
    assert "S3CRET" not in ran.out + ran.err


def test_of_the_environment_a_record_has_what_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = capture()
    for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "SLURM_JWT", "GITHUB_TOKEN", "SLURM_SECRET"):
        monkeypatch.setenv(name, "S3CRET")
    after = capture()
    assert after == before
    assert b"S3CRET" not in pickle.dumps(after)
    assert set(after) == {
        "commit", "dirty", "python", "packages", "cuda", "host", "system", "cpu", "cpus", "omp_num_threads", "gpus",
        "gpu_driver",
    }  # fmt: skip
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert capture()["slurm"] == {"job": "4711"}


def test_what_a_database_says_of_its_address() -> None:
    assert "pw" not in notice(OSError("cannot connect to postgresql://me:pw@db/x"))


# -- the pages


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_authentication_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surroundings: None) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "flask_wtf" else object())
    with pytest.raises(UserError, match="needs Flask-WTF, which is not installed"):
        ui.authentication(tmp_path)


def test_authentication_is_this_users_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surroundings: None
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    environment, said = ui.authentication(tmp_path / "store")
    password = Path(said.split("password: in ")[1].split(",")[0])
    assert environment["MLFLOW_AUTH_ADMIN_PASSWORD"] == password.read_text()
    assert len(password.read_text()) == 32
    assert password.stat().st_mode & 0o077 == password.parent.stat().st_mode & 0o077 == 0
    assert environment["MLFLOW_FLASK_SERVER_SECRET_KEY"] not in (password.read_text(), "")
    assert ui.authentication(tmp_path / "store") == (environment, said)
    assert ui.authentication(tmp_path / "other")[0] != environment
    config = Path(environment["MLFLOW_AUTH_CONFIG_PATH"]).read_text()
    assert "default_permission = NO_PERMISSIONS" in config
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "mlflow.db").write_bytes(b"")
    command = ui.ui_command(tmp_path / "store", free_port(), auth=True)
    assert command[-2:] == ["--app-name", "basic-auth"]
    assert password.read_text() not in " ".join(command)
    assert command[command.index("--host") + 1] == "127.0.0.1"


def test_without_a_password_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"")
    script = f"""
import subprocess, sys
from pathlib import Path
from bench.tracking import ui
class Quick:
    pid = 2 ** 22 + 1
    def wait(self, *_): return 0
subprocess.Popen = lambda *_, **__: Quick()
ui.stop = lambda server: None
ui.ui(Path({str(tmp_path)!r}), {free_port()})
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )  # fmt: skip
    assert "anybody with an account on this machine can open these pages and change what they show" in ran.stdout
