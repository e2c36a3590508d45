"""What an attempt leaves behind: where it ran, what memory it needed, and what a full disk says. The disk is real."""

from __future__ import annotations

import contextlib
import io
import itertools
import mmap
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny_suite import bring, copied, key_of, tiny, work

from bench import environment
from bench.cli import why
from bench.plan import planning
from bench.run import checkpoint
from bench.store.events import Events, read_events
from bench.store.store import Store
from reports.load import load

SUITE = tiny(only="baseline")
PLAN = planning.make(SUITE)
TRAIN = key_of(PLAN, "baseline")
BALLAST = "ballast"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The baseline's row, done as a Slurm job would do it."""
    root = tmp_path_factory.mktemp("attempt") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_JOB_ID", "4711")
        patch.setenv("SLURM_RESTART_COUNT", "2")
        patch.setenv("SLURM_JOB_PARTITION", "gpu")
        environment.of_this_process.cache_clear()
        outcomes = bring(SUITE, root)
        environment.of_this_process.cache_clear()
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    return root


def said(root: Path, key: str) -> str:
    """`bench why`."""
    text = io.StringIO()
    why.explain(PLAN, Store(root), PLAN.stages[key], Console(file=text, width=300))
    return text.getvalue()


def test_where_it_ran_and_what_it_needed(root: Path) -> None:
    store = Store(root)
    done = store.done(TRAIN)
    assert done is not None
    assert done.environment["slurm"] == {"job": "4711", "restarts": "2", "partition": "gpu"}
    assert done.environment["seed"] == 0
    assert done.environment["threads"] == SUITE.sections.machine.threads
    assert done.extra["host_mb"] > 100, "torch alone has more"
    events = read_events(store.attempts(TRAIN)[0] / "events.jsonl")[0]
    start = next(event for event in events if event["event"] == "start")
    assert start["slurm"]["job"] == "4711"
    assert start["host"] == done.environment["host"]
    told = [event["host_mb"] for event in events if event["event"] == "progress"]
    assert told == sorted(told), "a peak does not fall"
    assert told[-1] <= done.extra["host_mb"]


def test_why_tells_of_it(root: Path) -> None:
    text = said(root, TRAIN)
    commit = environment.capture()["commit"]
    assert f"made with: {f'commit {commit[:12]}' if commit else 'python'}" in text
    assert "1 thread, seed 0" in text
    assert "slurm: job 4711, partition gpu, restarts 2" in text
    assert "needed at most: " in text
    assert "MB of host memory" in text


def test_a_record_does_not_mix_job_numbers(root: Path) -> None:
    """Each stage has another job; where they ran is still in the record."""
    result = next(iter(load(Store(root), PLAN)))
    assert not {"slurm", "seed"} & set(result.record.environment)
    assert result.record.environment["host"]


MEMORY = """
import numpy as np
from bench.run import memory
memory.begin()
found = [memory.peak()["host_mb"]]
held = np.ones(25_000_000)  # 200 MB
found += [memory.peak()["host_mb"]]
del held
found += [memory.peak()["host_mb"]]
memory.begin()
print(*found, memory.peak()["host_mb"])
"""


def test_memory_is_counted_from_the_beginning_of_a_stage() -> None:
    """In a process of its own: one that has run other tests may have room for the array."""
    said = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout
    before, during, after, next_stage = map(float, said.split())
    assert during - before > 150
    assert after == pytest.approx(during, abs=30), "a peak stays"
    assert during - next_stage > 150, "an earlier stage's is not counted again"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(mount)]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"may not mount a tmpfs: {made.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def fill(disk: Path) -> None:
    """Up to the last byte: also the rest of the pages that event files have already."""
    for path in disk.rglob("events.jsonl"):
        with path.open("ab") as file:
            file.write(b"\n" * (-path.stat().st_size % mmap.PAGESIZE))
    with (disk / BALLAST).open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * mmap.PAGESIZE)


@pytest.mark.parametrize(
    ("file", "owner", "name", "call"),
    [
        ("events.jsonl", Events, "write", 12),
        ("checkpoint-", checkpoint, "save", 2),
        ("model.safetensors", checkpoint, "write_tensors", 1),
    ],
)
def test_a_disk_that_fills_during_a_stage(
    root: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, file: str, owner: object, name: str, call: int
) -> None:
    """It fills right before the file is written; the stage says what it needs, and goes on when there is room."""
    data = {key for key, stage in PLAN.stages.items() if stage.kind == "data"}
    store = Store(copied(root, small_disk / "store", data))
    store.add(PLAN.stages[TRAIN])
    real, calls = getattr(owner, name), itertools.count(1)

    def after_filling(*arguments: Any, **named: Any) -> Any:
        if next(calls) == call:
            fill(small_disk)
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, after_filling)
    outcome = work(store.root, SUITE, (TRAIN,))[TRAIN]
    monkeypatch.undo()
    assert next(calls) > call
    assert (outcome.state, outcome.code) == ("failed", 2)
    assert "no space left on the disk: free space 0.0 kB; needs about" in outcome.message
    assert file in outcome.message
    assert store.running(TRAIN) is None
    assert not list(store.root.rglob("*.tmp-*"))
    (small_disk / BALLAST).unlink()
    assert work(store.root, SUITE, (TRAIN,))[TRAIN].state == "done"
    done, expected = store.done(TRAIN), Store(root).done(TRAIN)
    assert done is not None
    assert expected is not None
    assert done.digest == expected.digest
