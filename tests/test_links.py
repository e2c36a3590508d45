"""Links that somebody puts into a store are not followed: not to write, not to remove, not to rename, not to copy.

Each attack is made as another member of a group would make it: with a plain symlink, before the victim's command.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import done_store
import pytest

from bench.cli import waste
from bench.cli.open import open_suite
from bench.cli.tables import default_report_folder
from bench.errors import UserError
from bench.plan import planning
from bench.plan.planning import Plan
from bench.stage import Stage
from bench.store import below, disk
from bench.store.store import Store
from bench.tracking import track
from bench.tracking.place import artifacts_uri, default_uri, follow_store, is_of_store
from bench.tracking.rows import TrackedRows
from bench.tracking.stages import Whose, tracked
from tests.conftest import Bench, Write
from tests.made_stores import finish_any

STAGE = Stage("data", {"a": 1})
TREASURE = {"thesis.tex": "precious", "outputs/a.tex": "precious", "checkpoint-1.safetensors": "mine", "k.tmp-1-2": "k"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of the victim's, outside the store, with names that gc removes in one."""
    folder = tmp_path / "victim"
    for name, text in TREASURE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def intact(folder: Path) -> bool:
    found = {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}
    return found == TREASURE


def finished(store: Store) -> Path:
    """A done stage that a suite needs."""
    store.register_root("a", "/a.yaml", [STAGE.key])
    done_store.finish(store, [STAGE])
    return store.folder(STAGE.key)


def test_gc_empties_no_folder_that_trash_leads_to(store: Store, victim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waste, "STALE_SECONDS", -1.0)
    finished(store)
    (store.root / "trash").symlink_to(victim)
    found = waste.look(store)
    assert found.temporaries == []
    waste.sweep(store, found)
    assert intact(victim)
    unneeded = Stage("data", {"a": 2})
    done_store.finish(store, [unneeded])
    with pytest.raises(UserError, match="nothing in a store is followed out of it"):
        waste.sweep(store, waste.look(store))
    assert intact(victim)
    assert store.done(unneeded.key) is not None


@pytest.mark.parametrize("where", ["attempts/7", "attempts", "."])
def test_gc_removes_nothing_behind_an_attempt(store: Store, victim: Path, where: str) -> None:
    folder = finished(store)
    place = folder / where
    if where != "attempts/7":
        (victim / "7").symlink_to(victim)
        shutil.move(place, folder.parent / "aside")
    Path(os.path.normpath(place)).symlink_to(victim)
    if where == ".":
        shutil.copy(store.root / "aside" / "done", victim / "done")
        shutil.copy(store.root / "aside" / "stage.json", victim / "stage.json")
    if where == ".":
        with pytest.raises(UserError, match="this is a link"):
            waste.look(store)
    else:
        found = waste.look(store)
        assert found.leftovers == {}
        waste.sweep(store, found)
    for name in ("7", "done", "stage.json"):
        (victim / name).unlink(missing_ok=True)
    assert intact(victim)


def test_what_lies_behind_a_link_is_not_done(store: Store, victim: Path) -> None:
    folder = finished(store)
    assert store.done(STAGE.key) is not None
    moved = folder.parent / "elsewhere"
    for name in ("attempts", "attempts/1", "attempts/1/outputs", "attempts/1/outputs/result.bin"):
        (folder / name).rename(moved)
        (folder / name).symlink_to(moved)
        assert store.done(STAGE.key) is None, name
        (folder / name).unlink()
        moved.rename(folder / name)
    assert store.done(STAGE.key) is not None


ACTIONS: dict[str, Callable[[Path], object]] = {
    "write_atomic": lambda path: disk.write_atomic(path, b"x"),
    "write_json": lambda path: disk.write_json(path, {}),
    "create_exclusive": lambda path: disk.create_exclusive(path, b"x"),
    "make_folder": lambda path: disk.make_folder(path / "new"),
    "rename": lambda path: disk.rename(path, path.with_name("other")),
    "open": lambda path: below.opened(path, os.O_WRONLY | os.O_CREAT),
    "read": lambda path: disk.read_bytes(path),
    "make": below.make,
    "remove_empty": below.remove_empty,
}


@pytest.mark.parametrize("name", ACTIONS)
def test_no_action_goes_through_a_folder_that_is_a_link(store: Store, victim: Path, name: str) -> None:
    store.root.mkdir()
    (store.root / "deep").mkdir()
    (store.root / "deep" / "link").symlink_to(victim)
    with pytest.raises(UserError, match="this is a link") as caught:
        ACTIONS[name](store.root / "deep" / "link" / "thesis.tex")
    assert caught.value.where == str(store.root / "deep" / "link")
    disk.remove(store.root / "deep" / "link" / "thesis.tex")
    assert disk.stale_temporaries(store.root / "deep" / "link") == []
    assert intact(victim)


def test_a_link_in_the_place_of_a_file_is_replaced_or_refused(store: Store, victim: Path) -> None:
    store.root.mkdir()
    link = store.root / "table.md"
    link.symlink_to(victim / "thesis.tex")
    for action in ("open", "read"):
        with pytest.raises(UserError, match="this is a link"):
            ACTIONS[action](link)
    assert not disk.create_exclusive(link, b"x")
    disk.write_atomic(link, b"table")
    assert (link.is_symlink(), link.read_text()) == (False, "table")
    (store.root / "folder").symlink_to(victim)
    disk.remove(store.root / "folder")
    assert not (store.root / "folder").is_symlink()
    assert intact(victim)


def test_the_store_itself_may_be_a_link(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    store = Store(tmp_path / "store")
    finished(store)
    assert store.done(STAGE.key) is not None
    for root in (tmp_path / "store", tmp_path / "disk"):  # some write by the one path, some by the other
        (tmp_path / "disk" / "link").unlink(missing_ok=True)
        (tmp_path / "disk" / "link").symlink_to(victim)
        with pytest.raises(UserError, match="this is a link"):
            disk.write_atomic(root / "link" / "thesis.tex", b"x")
    assert intact(victim)


def test_a_pipe_ends_no_command(store: Store) -> None:
    """Opened to be read, it would wait for a writer for ever."""
    folder = finished(store)
    for name in ("stage.json", "done", "lease.7"):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
    begun = time.monotonic()
    assert store.done(STAGE.key) is None
    assert store.running(STAGE.key) is not None, "nobody knows whose it is, so it is watched"
    with pytest.raises(UserError, match="corrupt"):
        store.load(STAGE.key)
    assert time.monotonic() - begun < 5


def test_an_attempt_that_is_no_number_is_no_path(store: Store, victim: Path) -> None:
    """`done` has a checksum, which anybody can compute."""
    from bench.store.done import format_done, read_done

    folder = finished(store)
    done = read_done(folder / "done")
    assert done is not None
    for change in (
        {"attempt": "../../../victim"},
        {"attempt": True},
        {"sizes": {"../../thesis.tex": 8}},
        {"digests": []},
    ):
        (folder / "done").write_bytes(format_done(type(done)(**(vars(done) | change))))
        assert store.done(STAGE.key) is None
        assert store.discard(STAGE.key)
    assert intact(victim)


# -- reports and MLflow


@pytest.fixture
def plan(write: Write, surroundings: None) -> Plan:
    return planning.make(open_suite(write()))


def test_a_report_overwrites_nothing_that_its_tables_lead_to(
    plan: Plan, store: Store, victim: Path, call: Bench
) -> None:
    finish_any(store.root, plan.suite.path)
    folder = default_report_folder(store, plan)
    folder.mkdir(parents=True)
    for name in ("table.txt", "table.md", "table.tex", "table.csv", "table.json"):
        (folder / name).symlink_to(victim / "thesis.tex")
    assert call("report", plan.suite.path, "--store", store.root).code == 0
    assert intact(victim)
    assert "baseline" in (folder / "table.md").read_text()
    shutil.rmtree(store.root / "reports")
    (store.root / "reports").symlink_to(victim)
    said = call("report", plan.suite.path, "--store", store.root)
    assert said.code == 2
    assert "nothing in a store is followed out of it" in said.err
    assert intact(victim)


def test_a_folder_of_ones_own_may_have_links(plan: Plan, store: Store, tmp_path: Path, call: Bench) -> None:
    """`--out paper`, where table.tex leads to the paper's: that is the user's own, and stays."""
    finish_any(store.root, plan.suite.path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "table.tex").symlink_to(tmp_path / "paper.tex")
    assert call("report", plan.suite.path, "--store", store.root, "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "table.tex").is_symlink()
    assert "tabular" in (tmp_path / "paper.tex").read_text()


@pytest.mark.parametrize("name", ["mlflow.db", "mlflow.db-journal", "mlflow.db-wal", "mlflow-artifacts"])
def test_the_database_is_not_followed_either(store: Store, victim: Path, name: str) -> None:
    store.root.mkdir()
    (store.root / name).symlink_to(victim / "thesis.tex")
    said = track.prepare(store.root, None, "x")
    assert said is not None
    assert "nothing in a store is followed out of it" in said
    assert intact(victim)
    (store.root / name).unlink()
    (store.root / "mlflow.lock").unlink(missing_ok=True)
    (store.root / "mlflow.lock").symlink_to(victim / "thesis.tex")
    with pytest.raises(UserError, match="this is a link"):
        track.prepare(store.root, None, "x")
    assert intact(victim)


def test_where_the_files_of_a_run_lie_is_not_for_the_database_to_say(
    store: Store, tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member of the group writes another place into it; a copy of the store has the place of the first."""
    monkeypatch.setattr("bench.tracking.track.PAUSE_S", 0.0)
    assert track.prepare(store.root, None, "x") is None
    done_store.finish(store, [STAGE])
    stages = [tracked(store, STAGE, Whose("label"))]
    assert track.sync(store.root, None, "x", stages, TrackedRows()).runs == 1
    with sqlite3.connect(store.root / "mlflow.db") as database:
        run = database.execute("select run_uuid from runs").fetchone()[0]
        assert database.execute("select artifact_uri from runs").fetchone()[0] == (
            f"{(store.root / 'mlflow-artifacts').as_uri()}/{run}/artifacts"
        )
        database.execute("update runs set artifact_uri = ?", (f"file://{victim}",))
        database.execute("update experiments set artifact_location = ?", (f"file://{victim}",))
    follow_store(store.root)
    shutil.copytree(store.root, tmp_path / "copy")
    shutil.rmtree(store.root)
    assert track.sync(tmp_path / "copy", None, "x", stages, TrackedRows()).runs == 0
    with sqlite3.connect(tmp_path / "copy" / "mlflow.db") as database:
        here = (tmp_path / "copy" / "mlflow-artifacts").as_uri()
        assert database.execute("select artifact_uri from runs").fetchone()[0] == f"{here}/{run}/artifacts"
        names = dict(database.execute("select name, artifact_location from experiments"))
        assert names["x"] == here
    assert intact(victim)


def test_a_path_with_signs_that_addresses_use(tmp_path: Path) -> None:
    root = tmp_path / "q%41z ?#é"
    root.mkdir()
    assert default_uri(root).startswith("sqlite+pysqlite:///")
    assert default_uri(tmp_path / "plain é") == f"sqlite:///{tmp_path}/plain é/mlflow.db", "as it always was"
    assert is_of_store(root, None)
    begun = time.monotonic()
    assert track.prepare(root, None, "x") is None
    assert time.monotonic() - begun < 60
    assert (root / "mlflow.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [root.name], "no folder of another spelling beside it"
    assert artifacts_uri(root).endswith("/q%2541z%20%3F%23%C3%A9/mlflow-artifacts")
    assert json.loads(json.dumps(default_uri(root))) == default_uri(root)
