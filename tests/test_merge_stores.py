"""Merging stores: what comes, what stays, what is left and why; whole or not at all; again without effect."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from bench.cli.tables import label
from bench.plan import planning
from bench.plan.planning import Plan
from bench.store import merge as merging
from bench.store.merge import ANOTHER, Merged, merge
from bench.store.store import Store
from reports.load import frame, load
from tests import done_store
from tests.conftest import Bench, Write
from tests.made_stores import TWO_SEEDS, VALUES, a_plan, finish, tree


@pytest.fixture
def plan(write: Write) -> Plan:
    return a_plan(write(TWO_SEEDS))


def seed(plan: Plan, number: int) -> Plan:
    return a_plan(plan.suite.path, seeds=str(number))


def key_of(plan: Plan, label: str, number: int, kind: str) -> str:
    (row,) = [row for row in plan.rows if (row.label, row.seed) == (label, number)]
    assert row.evaluate is not None
    predict = row.evaluate.inputs["predict"]
    return {"evaluate": row.evaluate, "predict": predict, "train": predict.inputs["model"]}[kind].key


def whys(found: Merged) -> Mapping[str, int]:
    return Counter(left.why for left in found.left)


def test_what_is_done_comes_and_all_of_it_is_the_same(plan: Plan, tmp_path: Path) -> None:
    """Two halves, a seed each, become the whole."""
    into, source = finish(tmp_path / "a", seed(plan, 0)), finish(tmp_path / "b", seed(plan, 1))
    kept = source.folder(key_of(plan, "BAGS", 1, "evaluate")) / "draws-1-1000-0123456789abcdef.safetensors"
    kept.write_bytes(b"kept")
    found = merge(into, source)
    assert (len(found.came), len(found.there), found.left) == (8, 0, [])
    assert sorted(into.keys()) == sorted(plan.stages)
    for key in found.came:
        mine, their = into.done(key), source.done(key)
        assert mine is not None
        assert their is not None
        assert into.verify(key)
        assert mine == their  # inputs, seconds, when it was made, where
        for name in their.digests:
            status = (into.output(key) / name).stat()
            assert status.st_nlink == 1
            assert status.st_ino != (source.output(key) / name).stat().st_ino
        assert into.running(key) is None
        events = into.attempts(key)[0] / "events.jsonl"
        assert events.read_bytes() == (source.attempts(key)[0] / "events.jsonl").read_bytes()
    assert (into.folder(kept.parent.name) / kept.name).read_bytes() == b"kept"
    assert planning.states(plan, into) == dict.fromkeys(plan.stages, "done")
    assert sorted(row.record.metrics["AP"] for row in load(into, plan)) == [20.25, 21.75, 24.0, 25.0]
    lines = frame(tmp_path / "a", suites="tiny")
    assert {(line.row, line.seed): line.value for line in lines[lines.metric == "AP"].itertuples()} == {
        name: values["AP"] for name, values in VALUES.items()
    }


def test_again_nothing_changes(plan: Plan, tmp_path: Path) -> None:
    into, source = Store(tmp_path / "new" / "a"), finish(tmp_path / "b", plan)
    assert len(merge(into, source).came) == 16
    before, theirs = tree(into.root), tree(source.root)
    found = merge(into, source)
    assert (found.came, len(found.there), found.left, found.roots) == ([], 16, [], [])
    assert tree(into.root) == before
    assert tree(source.root) == theirs


def test_results_of_an_export_are_read_where_it_came(write: Write, call: Bench, tmp_path: Path) -> None:
    """Without the data and models that it left out, also beside another suite; what is missing is still missing."""
    plan = a_plan(write(TWO_SEEDS))
    other = a_plan(write(TWO_SEEDS.replace("instances: 24", "instances: 20"), "other.yaml"))
    finish(tmp_path / "store", plan)
    assert call("export", plan.suite.path, "a.zip").code == 0
    into = finish(tmp_path / "into", other)
    before = frame(into.root)
    for folder in ("new", "into"):
        assert call("merge", folder, "a.zip").code == 0
        pd.testing.assert_frame_equal(frame(folder, suites="tiny"), frame("a.zip"))
        said = call("report", folder, "a.zip", "--compare")
        assert said.code == 0, said.err
        states = planning.states(plan, Store(tmp_path / folder))
        assert Counter((plan.stages[key].kind, state) for key, state in states.items()) == {
            ("evaluate", "done"): 4, ("predict", "done"): 4, ("train", "missing"): 4, ("data", "missing"): 4,
        }  # fmt: skip
    pd.testing.assert_frame_equal(frame(into.root, suites="other"), before)
    left = [key for key, state in states.items() if state == "missing"]
    for key in left:  # as an older merge left it
        shutil.rmtree(into.folder(key))
    assert call("merge", "into", "a.zip").code == 0
    assert len(frame(into.root)) == 2 * len(before)
    whole = tree(into.root)
    assert call("merge", "into", "a.zip").code == 0
    assert tree(into.root) == whole
    assert "0 stages, 0.0 MB in all can be freed" in call("gc", "--store", "into").out


def test_a_result_without_its_lineage_does_not_come(plan: Plan, tmp_path: Path) -> None:
    """It would be a stage that nobody can read."""
    into, source = Store(tmp_path / "a"), finish(tmp_path / "b", plan)
    gone = plan.stages[key_of(plan, "BAGS", 1, "train")]
    shutil.rmtree(source.folder(gone.key))
    found = merge(into, source)
    above = {key_of(plan, "BAGS", 1, kind) for kind in ("predict", "evaluate")}
    assert {left.key for left in found.left} == above
    assert {left.why.partition(":")[0] for left in found.left} == {"its lineage is not whole"}
    into.add(gone)
    assert set(merge(into, source).came) == above


def test_another_result_stays_and_nothing_is_made_stale(plan: Plan, tmp_path: Path) -> None:
    """The baseline was trained on both with other weights: what was made of theirs does not come either."""
    into = finish(tmp_path / "a", a_plan(plan.suite.path, only="baseline"), model="ours")
    source = finish(tmp_path / "b", plan, model="theirs")
    before = tree(into.root)
    found = merge(into, source)
    base = {key_of(plan, "baseline", number, "train") for number in (0, 1)}
    assert {left.key for left in found.left if left.why == ANOTHER} == base
    assert whys(found)["made from another result of its input init than the one here"] == 2  # BAGS on their trunk
    assert {name: content for name, content in tree(into.root).items() if name in before and "roots" not in name} == {
        name: content for name, content in before.items() if "roots" not in name
    }
    assert all(planning.states(plan, into)[key] == "done" for key in a_plan(plan.suite.path, only="baseline").stages)


def test_a_model_does_not_come_where_other_numbers_were_made_of_another_one(plan: Plan, tmp_path: Path) -> None:
    into = finish(tmp_path / "a", a_plan(plan.suite.path, only="baseline"), model="ours")
    trained = key_of(plan, "baseline", 0, "train")
    shutil.rmtree(into.folder(trained))
    found = merge(into, finish(tmp_path / "b", a_plan(plan.suite.path, only="baseline"), model="theirs"))
    assert [left.why for left in found.left if left.key == trained] == [
        "a stage here was made from another result of it"
    ]
    assert into.done(trained) is None


def test_what_is_not_whole_stays_where_it_is(plan: Plan, tmp_path: Path) -> None:
    """Changed, cut short, failed, at work there, at work here, not begun, not what its key names."""
    into, source = Store(tmp_path / "a"), finish(tmp_path / "b", plan)
    stages = {(label, n, kind): key_of(plan, label, n, kind) for label, n in VALUES for kind in ("evaluate", "predict")}
    changed, cut, failed, there, here, unbegun, faked, linked = list(stages.values())
    (source.output(changed) / "result.json").write_bytes((source.output(changed) / "result.json").read_bytes()[::-1])
    (source.output(cut) / "classifier.json").write_bytes(b"")
    for key in (failed, there, unbegun):
        (source.folder(key) / "done").unlink()
    with done_store.hold(source, failed) as lease:
        source.fail(source.begin(failed, lease), "loss is nan")
    value = json.loads((source.folder(faked) / "stage.json").read_bytes())
    (source.folder(faked) / "stage.json").write_text(json.dumps({**value, "spec": {"code": "mine.py"}}))
    file = source.output(linked) / "classifier.json"
    file.rename(tmp_path / "classifier.json")
    file.symlink_to(tmp_path / "classifier.json")
    with done_store.hold(source, there), done_store.hold(into, here):
        found = merge(into, source)
    assert {left.key: left.why for left in found.left} == {
        changed: "result.json is not what was written: its sha256 differs",
        cut: "not whole: files of it are missing or cut short (an export leaves weights and images out)",
        failed: "failed there",
        there: "at work there",
        here: "at work here",
        unbegun: "not finished there",
        faked: "its stage.json cannot be read, or is not what its key names",
        linked: "not whole: files of it are missing or cut short (an export leaves weights and images out)",
    }
    assert all(into.done(key) is None for key in stages.values() if key not in found.came)
    assert len(found.came) == 16 - 8
    assert not list(into.root.glob("*/attempts/*/outputs.tmp"))


def test_an_interrupted_merge_is_repeated(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a file: that stage is not done, those before it are; the next merge brings the rest."""
    into, source = Store(tmp_path / "a"), finish(tmp_path / "b", plan)
    whole, copied = merging._copy_file, []

    def interrupted(file: Path, target: Path) -> str:
        copied.append(file)
        if len(copied) == 9:
            target.write_bytes(file.read_bytes()[:3])
            raise KeyboardInterrupt
        return whole(file, target)

    monkeypatch.setattr(merging, "_copy_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge(into, source)
    monkeypatch.undo()
    done = [key for key in plan.stages if into.done(key) is not None]
    assert 0 < len(done) < 9
    assert all(into.verify(key) for key in done)
    found = merge(into, source)
    assert (len(found.came), len(found.there), found.left) == (16 - len(done), len(done), [])
    assert all(into.verify(key) for key in plan.stages)
    assert not list(into.root.glob("*/attempts/*/outputs.tmp"))


def test_a_failure_here_is_over_once_the_stage_has_come(plan: Plan, tmp_path: Path) -> None:
    into, source = Store(tmp_path / "a"), finish(tmp_path / "b", plan)
    key = key_of(plan, "BAGS", 0, "train")
    attempt = done_store.begin(into, plan.stages[key])
    into.fail(attempt, "loss is nan")
    done_store.end(attempt)
    assert into.failure(key) is not None
    merge(into, source)
    assert into.failure(key) is None
    assert into.verify(key)
    assert [path.name for path in into.attempts(key)] == ["1", "2"]


def test_roots_are_joined(write: Write, tmp_path: Path) -> None:
    """One suite on both: rows of both, its own last, and who ran it here; two suites of one name are kept apart, with
    who ran them there."""
    plan = a_plan(write(TWO_SEEDS))
    first, second = seed(plan, 0), seed(plan, 1)
    rows = {number: [row.noted for row in half.rows if row.noted] for number, half in enumerate((first, second))}
    into, source = finish(tmp_path / "a", first), finish(tmp_path / "b", second)
    into.register_root("mine", "/there/mine.yaml", first.stages, {}, rows[0])
    source.register_root("mine", "/there/mine.yaml", second.stages, {}, [*rows[0], *rows[1]])
    source.register_root("mine", "/elsewhere/mine.yaml", [], {}, rows[1])
    for path in (source.root / "roots").glob("*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "user": "somebody"}))
    assert sorted(merge(into, source).roots) == ["mine", "mine", label(second)]
    of = {(root.name, root.suite): root for root in into.roots()}
    joined, apart = of["mine", "/there/mine.yaml"], of["mine", "/elsewhere/mine.yaml"]
    assert [(row.row, row.seed) for row in joined.table or ()] == [
        ("baseline", 1), ("BAGS", 1), ("baseline", 0), ("BAGS", 0),
    ]  # fmt: skip
    assert set(joined.keys) == set(plan.stages)
    assert (joined.user == "somebody", apart.user) == (False, "somebody")
    assert [(row.row, row.seed) for row in apart.table or ()] == [("baseline", 1), ("BAGS", 1)]
    assert merge(into, source).roots == []


def test_the_command_counts_and_says_why(plan: Plan, call: Bench, tmp_path: Path) -> None:
    finish(tmp_path / "store", plan)
    assert call("export", plan.suite.path, "a.zip").code == 0
    said = call("merge", "new", "a.zip", "store")
    assert said.code == 0, said.err
    assert "from a.zip: 8 stages came, 0 there already, 8 left, 1 suite noted" in said.out
    assert "left: 4 train stages (" in said.out
    assert "left: 4 data stages (" in said.out
    assert "not whole: files of it are missing" in said.out
    assert "from store: 8 stages came, 8 there already, 1 suite noted" in said.out
    assert said.out.rstrip().endswith("new: 16 stages done")
    assert {row["row"]: row["metrics"]["AP"]["mean"] for row in json.loads(
        call("report", plan.suite.path, "--store", "new", "--json").out
    )} == {"baseline": 21.0, "BAGS": 24.5}  # fmt: skip
    assert os.listdir(tmp_path / "new" / "roots")
