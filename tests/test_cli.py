"""What the commands print and exit with, as far as nothing has to run. (Bad input: faults/test_bad_input.py.)"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import commands
from bench import plan as planning
from tests.conftest import ROOT, Bench, Write

TABLE1 = ROOT / "suites" / "table1.yaml"
SMOKE = ROOT / "suites" / "smoke.yaml"
COMMANDS = ("run", "plan", "status", "report", "why", "methods", "sync", "ui")


def test_help_teaches(call: Bench) -> None:
    said = call("--help")
    assert said.code == 0
    for word in (*COMMANDS, "data", "suites/table1.yaml", "store"):
        assert word in said.out
    for name in COMMANDS:
        said = call(name, "--help")
        assert said.code == 0
        assert len(said.out) > 300
    assert "only what is missing runs" in " ".join(call("run", "--help").out.split())


def test_plan_names_stages_and_what_is_shared(call: Bench) -> None:
    said = call("plan", SMOKE)
    assert said.code == 0
    assert "smoke: 7 rows x 1 seed -> 23 stages (40 unshared), 0 done" in said.out
    assert "shared: baseline by 6 rows; fused: cls-retrain + re-weight-cls + BAGS" in said.out
    for kind in ("data", "train", "patch", "predict", "evaluate"):
        assert said.out.count(f"\n{kind} ") == {"data": 2, "train": 6, "patch": 1}.get(kind, 7)
    assert not Path("store").exists()  # planning writes nothing


def test_plan_json(call: Bench) -> None:
    said = json.loads(call("plan", SMOKE, "--json").out)
    assert len(said["stages"]) == 23
    known = {stage["key"] for stage in said["stages"]}
    for stage in said["stages"]:
        assert {"key", "kind", "rows", "state", "seconds"} <= set(stage)
        assert stage["kind"] in ("data", "train", "patch", "predict", "evaluate")
        assert stage["state"] == "missing"
        assert set(stage["inputs"].values()) <= known
        assert stage["seconds"] is None or stage["seconds"] > 0
        assert len(stage["key"]) == 64
    assert said["stages"][0]["rows"] == ["baseline", "x2", "RFS", "cls-retrain", "re-weight-cls", "tau-norm", "BAGS"]
    assert (said["suite"], said["unshared"], said["done"], said["skipped"]) == ("smoke", 40, 0, {})
    assert len(said["fused"]) == 1
    assert len(said["fused"][0]) == 3
    assert json.loads(call("plan", SMOKE, "--json", "--no-fuse").out)["fused"] == []


def test_options_reach_the_plan(call: Bench) -> None:
    words = ["plan", TABLE1, "--json", "--only", "tau-norm", "--seeds", "1,2", "--set", "rows.tau-norm.tau=0.5"]
    said = json.loads(call(*words, "--preset", "cpu").out)
    assert len(said["stages"]) == 2 * (2 + 1 + 1 + 1 + 1)
    assert {tuple(stage["rows"]) for stage in said["stages"]} == {("tau-norm",)}


def test_status_without_a_store(call: Bench) -> None:
    said = call("status", SMOKE)
    assert said.code == 0
    assert said.out.count("missing ") == 18  # of 23 stages; heads and predictions of one pass are one line
    assert not Path("store").exists()
    assert json.loads(call("status", SMOKE, "--json").out)["stages"][0]["state"] == "missing"


def test_show_config_is_yaml_that_gives_the_same_keys(call: Bench, tmp_path: Path) -> None:
    said = call("plan", TABLE1, "--show-config", "--set", "schedule.lr=0.05", "--set", "rows.BAGS.beta=.inf")
    assert said.code == 0
    (tmp_path / "shown.yaml").write_text(said.out)
    again = planning.make(commands.open_suite(tmp_path / "shown.yaml"))
    sets = ["schedule.lr=0.05", "rows.BAGS.beta=.inf"]
    assert list(again.stages) == list(planning.make(commands.open_suite(TABLE1, sets=sets)).stages)


def test_why_explains_a_row_and_a_key(call: Bench, write: Write) -> None:
    said = call("why", write(), "BAGS")
    assert said.code == 0
    assert "state: missing" in said.out
    assert "needed by: BAGS" in said.out
    assert "classifier.settings.beta = 8" in said.out
    assert "not reused: no train stage in this store is done" in said.out
    key = json.loads(call("plan", write(), "--json").out)["stages"][0]["key"]
    assert f"data {key}" in call("why", write(), key[:8]).out


def test_methods_are_listed_and_described(call: Bench) -> None:
    said = call("methods")
    for name in ("baseline", "x2", "rfs", "cls_retrain", "reweight", "tau_norm", "bags"):
        assert name in said.out
    said = call("methods", "bags")
    assert said.code == 0
    for word in ("beta = 8.0", "edges = None", "Li et al. 2020", "DEVIATION: group 0"):
        assert word in said.out


def test_a_row_that_is_skipped_is_said(call: Bench, write: Write, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from typing import ClassVar\nfrom bench.method import Method\n\n"
        'class Mine(Method):\n    """x\n\n    Source: x\n    """\n    name: ClassVar[str] = "mine"\n'
        '    needs: ClassVar[frozenset[str]] = frozenset({"masks"})\n    def plan(self, b): return b.train()\n'
    )
    suite = write("preset: cpu\nmethods_path: mine.py\nrows: {a: {method: baseline}, M: {method: mine}}\n")
    reason = "engine 'torchvision' lacks masks"
    assert f"skipped: M: {reason}" in call("plan", suite).out
    assert json.loads(call("plan", suite, "--json").out)["skipped"] == {"M": reason}


def test_the_store_of_the_environment(call: Bench, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a-file").write_text("")
    monkeypatch.setenv("BENCH_STORE", "a-file")
    said = call("plan", write())
    assert said.code == 2
    assert said.err.startswith("error: a-file: the store must be a folder")
    assert call("plan", write(), "--store", "elsewhere").code == 0


def test_a_report_of_what_is_not_done_has_no_numbers(call: Bench, write: Write) -> None:
    rows = json.loads(call("report", write(), "--json").out)
    assert [row["row"] for row in rows] == ["baseline", "BAGS"]
    assert all(not row["metrics"] for row in rows)
