"""Queued jobs run the code that was submitted, from a checkout of one's own that is edited meanwhile."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import environment
from bench.launch import submitted
from bench.launch.submitted import Submitted
from bench.store.events import read_events
from bench.store.store import Store
from tests.cluster.conftest import HOLD, SETTINGS
from tests.cluster.slurm_up import Slurm
from tests.conftest import ROOT, TINY

pytestmark = pytest.mark.slow

PRODUCT = ("bench", "methods", "reports", "suites")
OUTSIDE = """
from pathlib import Path
from typing import ClassVar
from bench.method import Builder, Method, part
from bench.stage import Stage

class Mine(Method):
    '''A head of one's own.'''
    name: ClassVar[str] = "mine"

    def plan(self, b: Builder) -> Stage:
        head = part(f"{Path(__file__).parent / 'head.py'}:Mine")
        return b.train(init=b.train(), keep_classifier=True, classifier=head, trainable=("classifier",))
"""
HEAD = "from methods.parts.softmax import Softmax\n\n\nclass Mine(Softmax):\n    pass\n"


@dataclass(frozen=True)
class Checkout:
    """A copy of this one under version control, and a suite beside it."""

    folder: Path
    slurm: Slurm

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(["git", *who, *words], cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def bench(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command as a user types it in the checkout."""
        return subprocess.run(
            [sys.executable, "-m", "bench", *words], cwd=self.folder, capture_output=True, text=True, timeout=120,
            env={**os.environ, "PYTHONPATH": str(self.folder)}, check=False,
        )  # fmt: skip

    def submit(self) -> list[Submitted]:
        """Submitted, and held."""
        ran = self.bench("run", "tiny.yaml", "--cluster", "cluster.yaml", "--detach")
        assert ran.returncode == 0, ran.stderr
        paths = (self.folder / "store" / "submitted").glob("*.json")
        found = [submitted.read(self.folder / "store", path.stem) for path in paths]
        return sorted((note for note in found if note is not None), key=lambda note: note.id)

    def release(self, notes: list[Submitted]) -> None:
        """Let them run, and wait for their end."""
        for note in notes:
            self.slurm.command("scontrol", "release", note.id.split("_")[0])
        end = time.monotonic() + 120
        while self.slurm.command("squeue", "-h", "--me", "-o", "%i").strip():
            assert time.monotonic() < end, self.slurm.command("squeue", "--me")
            time.sleep(0.2)


@pytest.fixture
def checkout(slurm: Slurm, tmp_path: Path) -> Checkout:
    folder = tmp_path / "checkout"
    for name in PRODUCT:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "cluster.yaml").write_text(SETTINGS + HOLD)
    (folder / ".gitignore").write_text("store/\n__pycache__/\n")
    found = Checkout(folder, slurm)
    found.git("init", "-q")
    found.git("add", ".")
    found.git("commit", "-q", "-m", "one")
    return found


def test_an_edit_does_not_reach_what_is_queued(checkout: Checkout) -> None:
    """The whole loop of training replaced, and a module that every job imports, after they were submitted."""
    notes = checkout.submit()
    assert len(notes) > 1
    commit = checkout.git("rev-parse", "HEAD")
    for name in ("bench/run/train.py", "bench/errors.py", "methods/parts/softmax.py"):
        (checkout.folder / name).write_text("raise SystemExit('edited')\n")
    checkout.git("commit", "-q", "-a", "-m", "two")
    checkout.release(notes)
    store = Store(checkout.folder / "store")
    logs = "\n".join(Path(note.log).read_text() for note in notes if Path(note.log).exists())
    for key in {key for note in notes for key in note.keys}:
        done = store.done(key)
        assert done is not None, logs
        assert done.environment["commit"] == commit, "of what ran, not of what is there now"
        assert done.environment["dirty"] is None
    assert "edited" not in logs
    assert "edited" in checkout.bench("plan", "tiny.yaml").stderr + checkout.bench("plan", "tiny.yaml").stdout


def test_a_part_of_ones_own_that_was_edited_is_refused_once(checkout: Checkout) -> None:
    own = checkout.folder.parent / "own"  # inside of it parts have a VERSION instead
    own.mkdir()
    (own / "mine.py").write_text(OUTSIDE)
    (own / "head.py").write_text(HEAD)
    text = TINY.replace(
        "  BAGS: {method: bags, beta: 8}\n", "  mine: {method: mine}\n  BAGS: {method: bags, beta: 8}\n"
    )
    (checkout.folder / "tiny.yaml").write_text(text + "methods_path: ../own/mine.py\n")
    notes = checkout.submit()
    (own / "head.py").write_text(HEAD + "    # edited\n")
    checkout.release(notes)
    store = Store(checkout.folder / "store")
    undone = [key for note in notes for key in note.keys if store.done(key) is None]
    told = {key: failure.error for key in undone if (failure := store.failure(key)) is not None}
    reports = [json.loads(Path(note.report).read_text()) for note in notes]
    said = {o["message"] for report in reports for o in report.values() if o["state"] == "failed"}
    (message,) = said
    assert "head.py:Mine: this file has changed since the stage was planned" in message
    assert "run the suite again: it plans with the file as it is now; or put the old file back" in message
    assert {report[key]["code"] for report in reports for key in report if report[key]["state"] == "failed"} == {2}
    assert {store.load(key)["kind"] for key in undone} == {"train", "predict", "evaluate"}
    assert not told or set(told.values()) == said
    assert not any("Traceback" in Path(note.log).read_text() for note in notes if Path(note.log).exists())


def test_a_stage_that_is_rewritten_while_its_job_is_queued_is_refused(checkout: Checkout) -> None:
    """By anybody who may write to the store: with code of theirs, whose digest is right."""
    notes = checkout.submit()
    store, mark = Store(checkout.folder / "store"), checkout.folder / "mark"
    evil = checkout.folder.parent / "evil.py"
    evil.write_text(f"open({str(mark)!r}, 'a')\n\n\nclass Evil:\n    def __init__(self, *rest): raise SystemExit\n")
    version = hashlib.sha256(evil.read_bytes()).hexdigest()[:16]
    for key in store.keys():  # noqa: SIM118 (a method, not a mapping)
        stage = store.load(key)
        if stage["kind"] == "train":
            stage["spec"]["classifier"] = {"part": f"{evil}:Evil", "version": version, "settings": {}}
            (store.folder(key) / "stage.json").write_text(json.dumps(stage))
    checkout.release(notes)
    assert not mark.exists()
    reports = [json.loads(Path(note.report).read_text()) for note in notes if Path(note.report).exists()]
    failed = [o for report in reports for o in report.values() if o["state"] == "failed"]
    said = {o["message"].splitlines()[0].partition(": ")[2] for o in failed}
    assert said == {"its stage.json is not what was submitted: its content has another key"}
    assert {o["code"] for o in failed} == {2}
    kinds = {store.load(key)["kind"] for key in store.keys() if store.done(key) is not None}  # noqa: SIM118
    assert kinds == {"data"}
    assert all(submitted.is_own(note) for note in notes)


def test_what_a_done_file_says_of_a_job(checkout: Checkout) -> None:
    """Commit, difference, versions, cards, host, threads, seed and what Slurm calls the job."""
    (checkout.folder / "methods" / "rfs.py").write_text(
        (checkout.folder / "methods" / "rfs.py").read_text() + "# not committed\n"
    )
    difference = environment.capture(checkout.folder)["dirty"]
    notes = checkout.submit()
    checkout.release(notes)
    store = Store(checkout.folder / "store")
    for note in notes:
        for key in note.keys:
            done = store.done(key)
            assert done is not None
            found = done.environment
            assert found["commit"] == checkout.git("rev-parse", "HEAD")
            assert found["dirty"] == difference is not None
            assert {"torch", "torchvision", "numpy", "submitit"} <= set(found["packages"])
            assert found["slurm"]["job"] == note.id
            assert found["slurm"]["node"] == found["host"].split(".")[0]
            assert found["slurm"]["partition"] == "debug"
            assert (found["threads"], found["processes"], found["gpus"], found["gpu_driver"]) == (1, 1, [], None)
            assert ("seed" in found) == (store.load(key)["kind"] in ("train", "data"))
            first = read_events(store.attempts(key)[0] / "events.jsonl")[0][0]
            known = {name: value for name, value in found.items() if name != "workers"}  # not before its split is read
            assert (first["event"], first["environment"]) == ("start", known), (
                "of an attempt that fails it is all there is"
            )
