"""What several test files need: a tiny suite, and the command line as a user runs it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.cli import app as cli
from tests.tiny_suite import Undisturbed, undisturbed_run

ROOT = Path(__file__).resolve().parent.parent

# Two rows that share a baseline; three steps each. Line numbers matter to the tests of messages: see `line_of`.
TINY = """\
preset: cpu
data: {classes: 4, size: 64, objects: 4, object_px: [10, 24], max_instances: 24, val_instances: 2}
input: {min_size: 64, max_size: 64}
schedule: {steps: 3, batch: 4, lr: 0.01, warmup: 1, checkpoint_every: 1}
stages:
  classifier_only: {steps: 2, lr: 0.01}
test: {bins: [5, 10, 20]}
seeds: [0]
rows:
  baseline: {method: baseline}
  BAGS: {method: bags, beta: 8}
"""


def pytest_configure() -> None:
    """Ctrl-C reaches what the tests start: a shell has it ignored in what runs behind it, which children inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """All rows of the tiny suite, done: the one undisturbed run of the session, by the command that a user types."""
    return undisturbed_run(tmp_path_factory.getbasetemp())


@dataclass(frozen=True)
class Ran:
    """What a command did: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


Bench = Callable[..., Ran]
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the store and tracking server of the person who runs the tests."""
    for name in ("BENCH_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws without a generator of its own is the same whichever tests ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One thread, a wide terminal, and job files in the test's folder."""
    monkeypatch.setenv("MPLCONFIGDIR", os.environ.get("MPLCONFIGDIR") or str(Path.home() / ".cache" / "matplotlib"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("COLUMNS", "250")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(text, name="tiny.yaml")`: a suite file in the test's folder."""

    def make(text: str = TINY, name: str = "tiny.yaml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return make


@pytest.fixture
def bench(tmp_path: Path, surroundings: None) -> Bench:
    """The command line in a process of its own, with `tmp_path` as working folder."""

    def run(*words: str | Path, timeout: float = 120) -> Ran:
        command = [sys.executable, "-m", "bench", *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=timeout, check=False
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, surroundings: None
) -> Bench:
    """The command line in this process: quicker, for commands that start nothing."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, words)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        return Ran(int(str(code or 0)), said.out, said.err)

    return run


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`mounted("size=2m")`: a small disk of one's own; skips where that is not allowed."""
    made: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(made)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
            pytest.skip("only root can mount a small disk")
        made.append(folder)
        return folder

    yield mount
    for folder in made:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def line_of(text: str, word: str) -> int:
    """The number of the line that holds a word, once."""
    found = [n for n, line in enumerate(text.splitlines(), start=1) if word in line]
    assert len(found) == 1, f"{word!r} is on lines {found}"
    return found[0]
