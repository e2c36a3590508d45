"""A second queue is one entry of LAUNCHERS and one file: every command works with it, and none of them names Slurm."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.cli.bring import also_queued
from bench.cli.open import open_suite
from bench.launch import submitted
from bench.launchers import LAUNCHERS
from bench.plan import planning
from bench.store.store import Store
from tests.conftest import Bench, Ran, Write
from tests.second_queue import FACTS

CLUSTER = "kind: shelf\ntime_min: 30\nsignal_delay_s: 30\narray_parallelism: 5\nstages: {data: {time_min: 7}}\n"
WORDS = ("--cluster", "shelf.yaml")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write) -> Path:
    """The queue's folder; on this machine there is no Slurm."""
    monkeypatch.setitem(LAUNCHERS, FACTS.kind, FACTS)  # type: ignore[misc]
    monkeypatch.setenv("SHELF", str(tmp_path / "shelf"))
    monkeypatch.setenv("PATH", "/nowhere")
    (tmp_path / "shelf").mkdir()
    write(CLUSTER, "shelf.yaml")
    write()
    return tmp_path / "shelf"


def states(shelf: Path) -> dict[str, str]:
    return {path.stem: json.loads(path.read_text())["state"] for path in sorted(shelf.glob("*.json"))}


def ok(ran: Ran) -> str:
    assert ran.code == 0, ran.err
    assert "slurm" not in (ran.out + ran.err).lower()
    return ran.out


def test_a_kind_is_legal_once_it_is_in_the_table(shelf: Path, call: Bench) -> None:
    Path("shelf.yaml").write_text(CLUSTER.replace("shelf", "shelves"))
    ran = call("plan", "tiny.yaml", *WORDS)
    assert ran.code == 2
    assert "shelf.yaml:1 kind: input should be 'local', 'slurm', 'debug' or 'shelf', got 'shelves'" in ran.err
    Path("shelf.yaml").write_text(CLUSTER.replace("time_min: 30\n", "time_min: 0.5\n"))
    assert "shelf.yaml:2 time_min" in call("plan", "tiny.yaml", *WORDS).err
    Path("shelf.yaml").write_text(CLUSTER.replace("time_min: 30\n", "") + "time_min: 1\n")
    Path("shelf.yaml").write_text(Path("shelf.yaml").read_text().replace("signal_delay_s: 30", "signal_delay_s: 60"))
    assert "signal_delay_s must be less than time_min (1 min)" in call("plan", "tiny.yaml", *WORDS).err


def test_submitted_seen_and_stopped_without_a_driver(shelf: Path, call: Bench, tmp_path: Path) -> None:
    """Two data sets, then the baseline, then BAGS on top of it: three jobs, of which two wait."""
    text = ok(call("plan", "tiny.yaml", *WORDS))
    assert "with 5 jobs at a time" in text
    assert "3 jobs to submit to shelf.yaml: 2 wait for others\n" in text
    asked = [re.split(r"  +", line.strip()) for line in text.splitlines() if re.match(r" +[123]  ", line)]
    assert [(words[0], words[1], words[-1]) for words in asked] == [
        ("1", "-", "7 min, 1 CPU"), ("2", "1", "30 min, 1 CPU"), ("3", "2", "30 min, 1 CPU"),
    ]  # fmt: skip

    text = ok(call("run", "tiny.yaml", *WORDS, "--detach"))
    assert "3 jobs in the queue go on without this terminal: S1, S2, S3" in text
    assert states(shelf) == {"S1": "Laid", "S2": "Laid", "S3": "Laid"}
    assert [json.loads((shelf / f"S{n}.json").read_text())["after"] for n in (1, 2, 3)] == [[], ["S1"], ["S2"]]
    assert [json.loads(path.read_text())["kind"] for path in Path("store/submitted").glob("*.json")] == ["shelf"] * 3

    text = ok(call("status", "tiny.yaml"))
    assert "with 5 jobs at a time" in text
    assert len(re.findall(r"^queued +\w+ .* job S\d  laid: below others$", text, re.M)) == 8
    assert "3 jobs in the queue: S1, S2, S3, for 8 stages" in ok(call("plan", "tiny.yaml", *WORDS))
    plan, store = planning.make(open_suite(Path("tiny.yaml"))), Store(Path("store"))
    first, *_, last = also_queued(plan, store, list(plan.stages))
    assert first == "3 jobs for the same are in the queue of Shelf: S1, S2, S3"
    assert last.endswith("python -m bench stop tiny.yaml")

    text = ok(call("stop", "tiny.yaml"))
    assert re.findall(r"^cancelled: job (S\d)  \(", text, re.M) == ["S1", "S2", "S3"]
    assert text.endswith("continue: python -m bench run tiny.yaml --cluster shelf.yaml\n")
    assert set(states(shelf).values()) == {"Withdrawn"}
    assert "queued" not in ok(call("status", "tiny.yaml"))


def test_a_queue_that_does_not_answer(shelf: Path, call: Bench) -> None:
    ok(call("run", "tiny.yaml", *WORDS, "--detach"))
    shelf.rename(shelf.with_name("away"))
    assert ok(call("status", "tiny.yaml")).count("Shelf was not asked") == 8
    assert "3 jobs that may be in the queue (no Shelf answers here)" in ok(call("plan", "tiny.yaml", *WORDS))
    text = ok(call("stop", "tiny.yaml"))
    hint = "stop again later, or shelf withdraw S1 S2 S3"
    assert f"no Shelf answers here, and jobs may be queued or at work: {hint}\n" in text
    assert set(states(shelf.with_name("away")).values()) == {"Laid"}


def test_jobs_of_a_queue_that_this_version_does_not_have(
    shelf: Path, call: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note by a later version, or by a colleague's: nothing is known of its job, and nothing breaks."""
    ok(call("run", "tiny.yaml", *WORDS, "--detach"))
    monkeypatch.delitem(LAUNCHERS, FACTS.kind)  # type: ignore[misc]
    assert ok(call("status", "tiny.yaml")).count("queue 'shelf' was not asked") == 8
    assert "stop again later (jobs S1 S2 S3)\n" in ok(call("stop", "tiny.yaml"))


def test_notes_from_when_there_was_one_queue(tmp_path: Path) -> None:
    """They lie in people's stores without a kind, and are Slurm's."""
    old = '{"id": "7", "name": "n-0", "suite": "s", "units": [["k"]], "time": 0.0, "host": "", "log": "", "report": ""}'
    submitted.folder(tmp_path).mkdir()
    (submitted.folder(tmp_path) / "7.json").write_text(old)
    assert [note.kind for note in submitted.of(tmp_path, ["k"])] == ["slurm"]


def test_a_driver_brings_the_suite_to_its_end(shelf: Path, call: Bench) -> None:
    """It takes up what was submitted before it, so that nothing is made twice."""
    ok(call("run", "tiny.yaml", *WORDS, "--detach"))
    text = ok(call("run", "tiny.yaml", *WORDS))
    assert states(shelf) == {"S1": "Made", "S2": "Made", "S3": "Made"}
    plan, store = planning.make(open_suite(Path("tiny.yaml"))), Store(Path("store"))
    assert planning.all_fresh(plan, store) == set(plan.stages)
    assert [len(store.attempts(key)) for key in plan.stages] == [1] * 8
    assert re.search(r"^baseline +\d+\.\d", text, re.M)
    ended = {note.id: note.ended for note in submitted.of(store.root, plan.stages.keys(), ended=True)}
    assert (ended["S2"], ended["S3"]) == ("COMPLETED", "COMPLETED")
