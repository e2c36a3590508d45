"""A job runs what it was told to run, whatever somebody has written into the store since. The jobs are real."""

from __future__ import annotations

import json
import os
import py_compile
from pathlib import Path
from typing import Any

import pytest
from tiny_suite import Undisturbed, copied, key_of, work

from bench.errors import UserError
from bench.key import canonical, part, resolve
from bench.lineage import asides_of, submitted_stage
from bench.plan import planning
from bench.stage import Stage
from bench.store.disk import json_bytes
from bench.store.store import Store
from bench.suite import suite as suites
from tests.conftest import ROOT

EVIL = """
import os
open({mark!r}, "a").write("ran")
class Evil:
    def __init__(self, *rest): raise SystemExit
"""


def rewritten(store: Store, key: str, change: dict[str, Any]) -> None:
    path = store.folder(key) / "stage.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


@pytest.mark.parametrize("whose", ["its own", "of its init"])
def test_code_that_somebody_wrote_into_a_stage_is_not_run(smoke: Undisturbed, tmp_path: Path, whose: str) -> None:
    """The attack: stage.json between the driver's `add` and the job's reading, with the digest of the file right."""
    key = key_of(smoke.plan, "BAGS")
    target = key if whose == "its own" else key_of(smoke.plan, "baseline")
    root = copied(smoke.root, tmp_path / "store", set(smoke.plan.stages) - {key})
    store = Store(root)
    store.add(smoke.plan.stages[key])
    mark, file = tmp_path / "mark", tmp_path / "evil.py"
    file.write_text(EVIL.format(mark=str(mark)))
    spec = json.loads((store.folder(target) / "stage.json").read_text())["spec"]
    rewritten(store, target, {"spec": spec | {"classifier": canonical(part(f"{file}:Evil"))}})
    outcome = work(root, smoke.suite, (key,))[key]
    assert (outcome.state, outcome.code) == ("failed", 2)
    assert "its stage.json is not what was submitted" in outcome.message
    assert "Run the suite again: it writes its stages anew" in outcome.message
    assert not mark.exists()
    assert store.attempts(key) == [], "nothing was begun"
    store.add(smoke.plan.stages[target])
    assert work(root, smoke.suite, (key,))[key].state == "done", "what the hint says helps"


@pytest.mark.parametrize("entry", ["kind", "version", "spec", "inputs"])
def test_whatever_is_changed_gives_another_key(entry: str, tmp_path: Path) -> None:
    stage = Stage("patch", {"a": 1.5, "n": [float("inf")]}, {"model": Stage("data", {"seed": 0})}, {"source": "/mine"})
    store = Store(tmp_path)
    for one in (stage, *stage.inputs.values()):
        store.add(one)
    told = asides_of(stage)
    assert submitted_stage(store.load, stage.key, told) == stage
    other: dict[str, Any] = {"kind": "fit", "version": 9, "spec": {"a": 2}, "inputs": {}}
    rewritten(store, stage.key, {entry: other[entry]})
    with pytest.raises(UserError, match="not what was submitted"):
        submitted_stage(store.load, stage.key, told)


def test_what_is_in_no_key_comes_from_the_submission(tmp_path: Path) -> None:
    stage = Stage("data", {"seed": 0}, {}, {"source": "/mine"})
    store = Store(tmp_path)
    store.add(stage)
    rewritten(store, stage.key, {"aside": {"source": "/somebody's"}})
    assert submitted_stage(store.load, stage.key, asides_of(stage)).not_in_key == {"source": "/mine"}
    assert submitted_stage(store.load, stage.key, {}).not_in_key == {}


def test_what_stores_hold_gives_the_keys_that_people_have() -> None:
    """Every stage of every suite, as its stage.json has it: the keys of tests/golden are found by the content alone."""
    golden = json.loads((ROOT / "tests" / "golden" / "keys.json").read_text())
    text = json.dumps(golden)
    seen = 0
    for path in sorted((ROOT / "suites").glob("*.yaml")):
        try:
            plan = planning.make(suites.load(path, source=suites.Source(lambda data, split: "f" * 64, lambda name: 1)))
        except UserError:  # it asks for files that are not here
            continue
        written = {key: json.loads(json_bytes(stage.to_json())) for key, stage in plan.stages.items()}
        for key in plan.stages:
            assert submitted_stage(written.__getitem__, key, {}).key == key
        seen += sum(key in text for key in plan.stages)
    assert seen > 100


def test_the_text_that_has_the_digest_is_what_runs(tmp_path: Path) -> None:
    """Not a compiled file beside it, which Python would take for the source's where time and size agree."""
    mark, file = tmp_path / "mark", tmp_path / "mine.py"
    good = "class Mine:\n    value = 1\n"
    evil = f"open({str(mark)!r}, 'a')\n"
    file.write_text(evil)
    size = max(len(good), len(evil))
    file.write_text(evil.ljust(size, "\n"))
    os.utime(file, (1_000_000_000, 1_000_000_000))
    py_compile.compile(str(file))
    file.write_text(good.ljust(size, "\n"))
    os.utime(file, (1_000_000_000, 1_000_000_000))
    planned = canonical(part(f"{file}:Mine"))
    assert resolve(planned)[0].value == 1
    assert not mark.exists()
    file.write_text(good + "value = 2\n")
    with pytest.raises(UserError, match="has changed since the stage was planned"):
        resolve(planned)
