"""The store: what counts as done, who wins, what a reader sees of broken files."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.stage import Stage
from bench.store import done as done_files
from bench.store.done import Done
from bench.store.events import read_events
from bench.store.lease import Lease
from bench.store.store import Attempt, Store

STAGE = Stage("patch", {"a": 1.5}, {"model": Stage("data", {"seed": 0})}, {"images": "/somewhere"})
KEY = STAGE.key


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.add(STAGE)
    return store


def hold(store: Store, key: str = KEY) -> Lease:
    lease = store.acquire(key)
    assert lease is not None
    return lease


def finish(store: Store, attempt: Attempt, content: bytes = b"weights", **extra: object) -> bool:
    (attempt.outputs / "sub").mkdir(exist_ok=True)
    (attempt.outputs / "model.bin").write_bytes(content)
    (attempt.outputs / "sub" / "more.json").write_text("{}")
    return store.finish(attempt, inputs={"model": "d" * 64}, seconds=1.5, environment={"host": "h"}, extra=extra)


def make(store: Store, content: bytes = b"weights", key: str = KEY) -> Done:
    with hold(store, key) as lease:
        assert finish(store, store.begin(key, lease), content)
    done = store.done(key)
    assert done is not None
    return done


def test_a_stage_comes_back_as_it_was_added(store: Store) -> None:
    assert store.load(KEY) == STAGE.to_json()
    assert store.keys() == [KEY]
    before = os.stat(store.folder(KEY) / "stage.json").st_mtime_ns
    store.add(STAGE)
    assert os.stat(store.folder(KEY) / "stage.json").st_mtime_ns == before
    store.add(Stage(STAGE.kind, STAGE.spec, STAGE.inputs, {"images": "/moved"}))
    assert store.load(KEY)["aside"] == {"images": "/moved"}


def test_missing_and_corrupt_stages_are_refused(store: Store) -> None:
    with pytest.raises(UserError, match="no stage"):
        store.load("ab" * 32)
    (store.folder(KEY) / "stage.json").write_text('{"key": "ot')
    with pytest.raises(UserError, match="corrupt"):
        store.load(KEY)
    store.add(STAGE)
    assert store.load(KEY) == STAGE.to_json()
    for key in ("../x", "", "roots", "a/b"):
        with pytest.raises(UserError, match="not the key"):
            store.folder(key)


def test_reading_makes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "absent")
    assert (store.keys(), store.roots(), store.done(KEY), store.running(KEY), store.attempts(KEY)) == (
        [],
        [],
        None,
        None,
        [],
    )
    assert store.failure(KEY) is None
    assert not store.verify(KEY)
    assert not (tmp_path / "absent").exists()
    store.check_writable()
    assert list((tmp_path / "absent").iterdir()) == []


def test_a_file_cannot_be_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="must be a folder"):
            Store(path)


def test_finish_makes_done(store: Store) -> None:
    assert store.done(KEY) is None
    with pytest.raises(UserError, match="not done"):
        store.output(KEY)
    done = make(store, b"weights")
    assert (done.attempt, done.inputs, done.seconds, done.environment) == (1, {"model": "d" * 64}, 1.5, {"host": "h"})
    assert set(done.digests) == {"model.bin", "sub/more.json"}
    assert done.sizes["model.bin"] == 7
    assert (store.output(KEY) / "model.bin").read_bytes() == b"weights"
    assert store.verify(KEY)
    assert Store(store.root).done(KEY) == done
    assert not list(store.folder(KEY).rglob("*tmp*"))


def test_extra_may_hold_what_stages_tell(store: Store) -> None:
    import numpy as np

    extra: dict[Any, Any] = {
        "ap": float("nan"),
        10: "ten",
        9: "nine",
        "tuple": (1, 2),
        "numpy": np.float32(0.5),
        "path": Path("x"),
    }
    with hold(store) as lease:
        attempt = store.begin(KEY, lease)
        (attempt.outputs / "a").write_text("a")
        assert store.finish(attempt, inputs={}, seconds=1, environment={}, extra=extra)
    done = store.done(KEY)
    assert done is not None
    assert {**done.extra, "ap": 0} == {"ap": 0, "10": "ten", "9": "nine", "tuple": [1, 2], "numpy": 0.5, "path": "x"}


def test_the_digest_is_of_the_content(store: Store) -> None:
    first = make(store, b"weights")
    assert store.discard(KEY)
    again = make(store, b"weights")
    assert store.discard(KEY)
    other = make(store, b"Weights")
    assert [d.attempt for d in (first, again, other)] == [1, 2, 3]
    assert first.digest == again.digest != other.digest
    assert len(first.digest) == 64


@pytest.mark.parametrize("content", ["", "{", "null", "[]", '{"attempt": 1}', "edited"])
def test_a_corrupt_done_is_not_done_and_is_redone(store: Store, content: str) -> None:
    make(store)
    path = store.folder(KEY) / "done"
    path.write_text(path.read_text().replace("1.5", "1.6") if content == "edited" else content)
    assert store.done(KEY) is None
    assert not store.verify(KEY)
    assert make(store).attempt == 2
    assert store.verify(KEY)
    assert len(list(store.folder(KEY).glob("done.broken-*"))) == 1


def test_a_done_corrupted_while_the_next_works_does_not_cost_its_work(store: Store) -> None:
    with hold(store) as lease:
        attempt = store.begin(KEY, lease)
        (store.folder(KEY) / "done").write_text("{")
        assert finish(store, attempt)
    assert store.verify(KEY)


@pytest.mark.parametrize("damage", ["cut", "missing", "folder gone"])
def test_outputs_that_are_cut_or_gone_are_not_done(store: Store, damage: str) -> None:
    make(store)
    path = store.output(KEY) / "model.bin"
    if damage == "cut":
        path.write_bytes(b"weigh")
    elif damage == "missing":
        path.unlink()
    else:
        path.parent.rename(path.parent.with_name("elsewhere"))
    assert store.done(KEY) is None
    assert make(store, b"weights").attempt == 2
    assert (store.output(KEY) / "model.bin").read_bytes() == b"weights"


def test_verify_finds_a_flipped_bit_and_discard_leads_to_a_new_attempt(store: Store) -> None:
    done = make(store, b"weights")
    (store.output(KEY) / "model.bin").write_bytes(b"weighty")
    assert store.done(KEY) == done, "the cheap look sees sizes only"
    assert not store.verify(KEY)
    assert store.discard(KEY)
    assert store.done(KEY) is None
    assert make(store).digest == done.digest
    assert store.verify(KEY)


def test_discard_spares_the_living_and_the_new(store: Store) -> None:
    old = make(store)
    with hold(store) as lease:
        assert not Store(store.root).discard(KEY), "a live owner works on it"
        assert store.done(KEY) == old
        assert store.discard(KEY, lease=lease)
        assert finish(store, store.begin(KEY, lease), b"new")
    new = store.done(KEY)
    assert not store.discard(KEY, stale=old), "it has been redone since"
    assert store.done(KEY) == new
    assert store.discard(KEY, stale=new)
    assert store.done(KEY) is None
    assert not store.discard(KEY, lease=lease), "a released lease gives no right"


def test_two_finish_the_first_wins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_HOST", "node-a")
    zombie = Store(store.root, beat=1000.0)
    sleeper = hold(zombie)
    asleep = zombie.begin(KEY, sleeper)
    monkeypatch.setenv("BENCH_HOST", "node-b")
    now = [0.0]
    taker = Store(store.root, clock=lambda: now[0])
    assert taker.acquire(KEY) is None
    live = taker.running(KEY)
    assert live is not None
    assert live.host == "node-a"
    now[0] = 3001.0
    with hold(taker) as lease:
        attempt = taker.begin(KEY, lease)
        assert (asleep.number, attempt.number) == (1, 2)
        assert sleeper.lost
        assert finish(taker, attempt, b"taker")
    asleep.outputs.mkdir(exist_ok=True)
    assert not finish(zombie, asleep, b"zombie")
    assert (taker.output(KEY) / "model.bin").read_bytes() == b"taker"
    assert zombie.verify(KEY)
    assert not (asleep.folder / "outputs").exists()
    sleeper.release()


def test_a_zombie_that_was_tidied_away_loses_in_peace(store: Store) -> None:
    lease = hold(store)
    zombie = store.begin(KEY, lease)
    (zombie.outputs / "half").write_text("x")
    winner = store.begin(KEY, lease)
    assert finish(store, winner)
    assert not zombie.outputs.exists()
    assert not store.finish(zombie, inputs={}, seconds=0, environment={}, extra={})
    lease.release()


def _finisher(root: Path, start: object, queue: object, number: int) -> None:
    store = Store(root)
    attempt = Attempt(KEY, number, store.folder(KEY) / "attempts" / str(number), None)  # type: ignore[arg-type]
    (attempt.outputs / "model.bin").write_text(f"from {number}")
    start.wait()  # type: ignore[attr-defined]
    won = store.finish(attempt, inputs={}, seconds=0, environment={}, extra={})
    queue.put((won, number))  # type: ignore[attr-defined]


def test_of_racing_finishers_exactly_one_wins(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for round_ in range(6):
        store = Store(tmp_path / str(round_))
        store.add(STAGE)
        with hold(store) as lease:
            attempts = [store.begin(KEY, lease) for _ in range(4)]
            start, queue = context.Barrier(4, timeout=20), context.SimpleQueue()
            racers = [
                context.Process(daemon=True, target=_finisher, args=(store.root, start, queue, a.number))
                for a in attempts
            ]
            for racer in racers:
                racer.start()
            results = [queue.get() for _ in racers]
            for racer in racers:
                racer.join()
        winners = [number for won, number in results if won]
        done = store.done(KEY)
        assert done is not None
        assert winners == [done.attempt]
        assert (store.output(KEY) / "model.bin").read_text() == f"from {done.attempt}"
        assert store.verify(KEY)


def test_failures_are_told_until_it_is_done(store: Store) -> None:
    with hold(store) as lease:
        store.fail(store.begin(KEY, lease), "loss is nan")
        store.fail(store.begin(KEY, lease), "out of memory")
        failure = store.failure(KEY)
        assert failure is not None
        assert (failure.attempt, failure.error) == (2, "out of memory")
        assert store.done(KEY) is None
        assert finish(store, store.begin(KEY, lease))
    assert store.failure(KEY) is None
    assert store.discard(KEY)
    assert store.failure(KEY) is None, "older than the last success"
    with hold(store) as lease:
        store.fail(store.begin(KEY, lease), "again")
    failure = store.failure(KEY)
    assert failure is not None
    assert failure.error == "again"


def test_attempts_are_ordered_by_number(store: Store) -> None:
    with hold(store) as lease:
        for _ in range(11):
            store.begin(KEY, lease)
    assert [int(path.name) for path in store.attempts(KEY)] == list(range(1, 12))


def test_winning_removes_checkpoints_and_half_outputs(store: Store) -> None:
    with hold(store) as lease:
        old = store.begin(KEY, lease)
        (old.folder / "checkpoint-5.safetensors").write_text("x")
        (old.outputs / "half").write_text("x")
        old.events.write("step", step=5)
        new = store.begin(KEY, lease)
        (new.folder / "checkpoint-6.safetensors").write_text("x")
        assert finish(store, new)
    assert [path.name for path in old.folder.iterdir()] == ["events.jsonl"]
    assert [path.name for path in new.folder.iterdir()] == ["outputs"]


def test_old_temporary_files_are_ignored_and_swept(store: Store) -> None:
    with hold(store) as lease:
        first = store.begin(KEY, lease)
    names = [
        store.folder(KEY) / "done.tmp-7-ab",
        store.folder(KEY) / "stage.json.tmp-7-ab",
        first.folder / "x.tmp-7-cd",
    ]
    fresh = store.folder(KEY) / "done.tmp-8-ef"
    for path in (*names, fresh):
        path.write_text("half")
    for path in names:
        os.utime(path, (time.time() - 700, time.time() - 700))
    assert store.done(KEY) is None
    with hold(store) as lease:
        store.begin(KEY, lease)
    assert not any(path.exists() for path in names)
    assert fresh.exists(), "its writer may be at work"


def test_events_are_read_on_from_where_one_was(store: Store) -> None:
    with hold(store) as lease:
        attempt = store.begin(KEY, lease)
    path = attempt.folder / "events.jsonl"
    assert read_events(path) == ([], 0)
    attempt.events.write("step", step=1, loss=0.5)
    first, position = read_events(path)
    assert [(e["event"], e["step"], e["loss"]) for e in first] == [("step", 1, 0.5)]
    with path.open("ab") as file:
        file.write(b'{"event": "st')  # a writer in the middle of its line
    assert read_events(path, position) == ([], position)
    with path.open("ab") as file:
        file.write(b'ep", "step": 2}\n')
    more, position = read_events(path, position)
    assert more == [{"event": "step", "step": 2}]
    assert read_events(path, position) == ([], position)
    with path.open("ab") as file:
        file.write(b"rotten\n")
    attempt.events.write("step", step=3)
    more, position = read_events(path, position)
    assert [e["step"] for e in more] == [3]


def test_roots_say_who_needs_what(store: Store) -> None:
    store.register_root("table1", "/a/table1.yaml", ["k1", "k2"])
    store.register_root("table1", "/a/table1.yaml", ["k3"])
    store.register_root("table1", "/b/table1.yaml", ["k4"])
    assert {(r.name, r.suite, r.keys) for r in store.roots()} == {
        ("table1", "/a/table1.yaml", ("k3",)),
        ("table1", "/b/table1.yaml", ("k4",)),
    }
    assert (store.root / "roots" / "table1.json").exists()
    assert store.keys() == [KEY]
    with pytest.raises(UserError, match="cannot name a suite"):
        store.register_root("../x", "y", [])


def test_done_is_read_once_a_change(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    done = make(store)
    reads: list[Path] = []
    real = done_files.read_bytes

    def counted(path: Path) -> bytes:
        reads.append(path)
        return real(path)

    monkeypatch.setattr(done_files, "read_bytes", counted)
    other = Store(store.root)
    assert [other.done(KEY) for _ in range(5)] == [done] * 5
    assert reads == [store.folder(KEY) / "done"]
    assert json.loads((store.folder(KEY) / "done").read_text())["attempt"] == 1
