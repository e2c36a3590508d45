"""`gc`: what nobody needs goes, what anybody needs stays, also when a run starts in between."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from bench.cli import waste
from bench.cli.waste import Needed, delete, look, sweep
from bench.errors import UserError
from bench.launch import submitted
from bench.launch.submitted import Submitted
from bench.stage import Stage
from bench.store.disk import STALE_SECONDS
from bench.store.store import Store
from tests import done_store
from tests.conftest import Bench

DATA = Stage("data", {"split": "train", "seed": 0})
BASE = Stage("train", {"lr": 1}, {"train": DATA})
OLD = Stage("train", {"lr": 2}, {"train": DATA})
OTHER = Stage("train", {"lr": 3}, {"train": DATA})
ALL = (DATA, BASE, OLD, OTHER)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two users' suites need data, BASE and OTHER; the first one needed OLD once."""
    store = Store(tmp_path / "store")
    (tmp_path / "mine.yaml").write_text("")
    (tmp_path / "theirs.yaml").write_text("")
    mine = tmp_path / "mine.yaml"
    store.register_root("mine", mine, [DATA.key, BASE.key, OLD.key], {BASE.key: "baseline", OLD.key: "lr=2"})
    store.register_root("theirs", tmp_path / "theirs.yaml", [OTHER.key], {OTHER.key: "lr=3"})
    done_store.finish(store, ALL, size=1_000_000)
    store.register_root("mine", mine, [DATA.key, BASE.key], {BASE.key: "baseline"})
    return store


def there(store: Store) -> set[str]:
    return {key for key in (stage.key for stage in ALL) if store.done(key) is not None}


def test_what_no_root_reaches_goes_and_nothing_else(store: Store) -> None:
    found = look(store)
    assert [(one.key, one.kind, one.rows) for one in found.waste] == [(OLD.key, "train", "mine: lr=2")]
    assert found.waste[0].bytes > 1_000_000
    freed = sweep(store, found)
    assert (freed.stages, freed.kept) == (1, 0)
    assert there(store) == {DATA.key, BASE.key, OTHER.key}
    assert not store.folder(OLD.key).exists()
    assert not (store.root / "trash").exists()
    assert not look(store).waste


def test_an_input_that_no_root_names_is_needed_by_its_consumer(store: Store) -> None:
    """`theirs` names OTHER alone; data lies below it."""
    store.register_root("mine", store.root.parent / "mine.yaml", [])
    assert {one.key for one in look(store).waste} == {BASE.key, OLD.key}


def test_a_stage_at_work_stays(store: Store) -> None:
    with done_store.hold(store, OLD.key):
        found = look(store)
        assert (found.waste, found.at_work) == ([], [OLD.key])
        assert not delete(store, OLD.key, Needed(store))
    assert OLD.key in there(store)


def test_a_stage_that_somebody_takes_between_look_and_sweep_stays(store: Store) -> None:
    found = look(store)
    with done_store.hold(store, OLD.key):
        assert sweep(store, found).kept == 1
    assert OLD.key in there(store)


def test_a_run_that_registers_between_look_and_sweep_keeps_its_stages(store: Store) -> None:
    found = look(store)
    store.register_root("late", store.root.parent / "theirs.yaml", [OLD.key])
    freed = sweep(store, found)
    assert (freed.stages, freed.kept, freed.bytes) == (0, 1, 0)
    assert OLD.key in there(store)


class LateRun(Needed):
    """The roots, where a run registers between the first look and the rename: the narrowest moment."""

    def __init__(self, store: Store, adds: bool) -> None:
        super().__init__(store)
        self._adds, self._looks = adds, 0

    def __contains__(self, key: str) -> bool:
        self._looks += 1
        if self._looks == 2:
            self._store.register_root("late", "/late.yaml", [key])
            if self._adds:
                self._store.add(OLD)
        return super().__contains__(key)


@pytest.mark.parametrize("adds", [False, True])
def test_a_run_that_registers_while_a_stage_is_moved_loses_nothing(store: Store, adds: bool) -> None:
    """It gets the stage back; or, where it has begun to write it anew, that stays and the rest is made again."""
    assert delete(store, OLD.key, LateRun(store, adds)) is adds
    assert store.load(OLD.key) == OLD.to_json()
    assert (OLD.key in there(store)) is not adds
    assert store.acquire(OLD.key) is not None  # nobody's lease is left on it


def test_queued_jobs_need_their_stages(store: Store) -> None:
    """And what those are made from, whoever forgot their suite."""
    new = Stage("train", {"lr": 4}, {"init": OLD})
    store.add(new)
    note = Submitted("7", "n", "s.yaml", ((new.key,),), time.time(), "h", "/log", "/report")
    submitted.write(store.root, note)
    assert not look(store).waste
    assert OLD.key in Needed(store)
    submitted.end(store.root, note, "COMPLETED")
    assert {one.key for one in look(store).waste} == {OLD.key, new.key}


def test_a_job_that_nobody_saw_end_needs_nothing_for_ever(store: Store) -> None:
    """It has done all that it was for; or it was submitted longer ago than any queue is."""
    submitted.write(store.root, Submitted("7", "n", "s.yaml", ((OLD.key,),), time.time(), "h", "/log", "/report"))
    assert {one.key for one in look(store).waste} == {OLD.key}
    new = Stage("train", {"lr": 4}, {"init": OLD})
    store.add(new)
    submitted.write(store.root, Submitted("8", "n", "s.yaml", ((new.key,),), 0.0, "h", "/log", "/report"))
    assert {one.key for one in look(store).waste} == {OLD.key, new.key}


def test_what_a_done_stage_does_not_need(store: Store) -> None:
    folder = store.attempts(BASE.key)[0]
    (folder / "checkpoint-9.safetensors").write_bytes(b"x" * 500_000)
    other = store.folder(BASE.key) / "attempts" / "7"
    (other / "outputs").mkdir(parents=True)
    (other / "outputs" / "late.bin").write_bytes(b"x" * 500_000)
    (other / "events.jsonl").write_text("{}\n")
    young, orphan = store.folder(BASE.key) / "done.tmp-1-ab", store.root / "roots" / "mine.json.tmp-1-ab"
    for path in (young, orphan):
        path.write_bytes(b"x" * 1000)
    os.utime(orphan, (0, time.time() - STALE_SECONDS - 1))
    found = look(store)
    assert found.extra_bytes == 1_001_000
    sweep(store, found)
    assert (other / "events.jsonl").exists()  # MLflow reads it
    assert not (other / "outputs").exists()
    assert not list(folder.glob("checkpoint-*"))
    assert young.exists()
    assert not orphan.exists()
    assert store.verify(BASE.key)


def test_checkpoints_of_a_stage_that_is_not_done_stay(store: Store) -> None:
    stage = Stage("train", {"lr": 4}, {"train": DATA})
    store.register_root("more", "/more.yaml", [stage.key])
    attempt = done_store.begin(store, stage)
    (attempt.folder / "checkpoint-9.safetensors").write_bytes(b"x")
    done_store.end(attempt)
    found = look(store)
    assert stage.key not in found.leftovers
    assert stage.key not in {one.key for one in found.waste}


def test_a_suite_whose_file_has_gone_is_told_and_kept(store: Store, call: Bench) -> None:
    (store.root.parent / "theirs.yaml").unlink()
    said = call("gc", "--store", store.root, "--yes")
    assert said.code == 0
    assert "theirs" in said.out
    assert "--forget theirs" in said.out
    assert OTHER.key in there(store)
    said = call("gc", "--store", store.root, "--yes", "--forget", "theirs")
    assert "theirs: lr=3  1 train" in said.out
    assert OTHER.key not in there(store)
    assert not (store.root / "roots" / "theirs.json").exists()


def test_forgetting_a_suite_keeps_what_another_needs(store: Store) -> None:
    sweep(store, look(store, ["mine"]))
    assert there(store) == {DATA.key, OTHER.key}


def test_a_suite_at_work_is_not_forgotten(store: Store) -> None:
    with done_store.hold(store, BASE.key), pytest.raises(UserError, match="1 of its stages are at work"):
        look(store, ["mine"])


def test_nothing_goes_without_a_typed_yes(store: Store, call: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for answer, left in (("no", 4), ("y", 4), ("yes", 3)):
        monkeypatch.setattr("typer.prompt", lambda *_, answer=answer, **__: answer)
        said = call("gc", "--store", store.root)
        assert said.code == 0
        assert len(there(store)) == left
        assert ("nothing was deleted" in said.out) is (left == 4)


def test_nothing_goes_where_nobody_can_type(store: Store, bench: Bench) -> None:
    said = bench("gc", "--store", store.root)
    assert said.code == 2
    assert "--yes" in said.err
    assert len(there(store)) == 4


def test_a_root_that_cannot_be_read_stops_everything(store: Store, call: Bench) -> None:
    (store.root / "roots" / "theirs.json").write_text(json.dumps({"name": "theirs"}))
    said = call("gc", "--store", store.root, "--yes")
    assert said.code == 2
    assert "what this suite needs cannot be read" in said.err
    assert OLD.key in there(store)


def test_a_store_without_roots_is_left_alone(tmp_path: Path, call: Bench) -> None:
    store = Store(tmp_path / "store")
    done_store.finish(store, [DATA])
    said = call("gc", "--store", store.root, "--yes")
    assert said.code == 2
    assert "no suite was ever registered" in said.err
    assert store.done(DATA.key) is not None


def test_nothing_to_free_says_how_to_free_something(store: Store, call: Bench) -> None:
    assert call("gc", "--store", store.root, "--yes").out.splitlines()[-1].startswith("freed ")
    last = call("gc", "--store", store.root).out.splitlines()[-2:]
    assert last == ["0 stages, 0.0 MB in all can be freed", "of a suite that nobody needs any more: gc --forget NAME"]


def test_unknown_roots_are_refused(store: Store) -> None:
    with pytest.raises(UserError, match="Did you mean 'theirs'"):
        look(store, ["their"])


def test_trash_of_a_killed_gc_goes_once_it_is_old(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    left = store.root / "trash" / f"{OLD.key}-00"
    left.mkdir(parents=True)
    (left / "done").write_bytes(b"x" * 10)
    assert not look(store).temporaries
    monkeypatch.setattr(waste, "STALE_SECONDS", -1.0)
    assert look(store).temporaries == [left]
