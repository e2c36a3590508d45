"""What the commands print and exit with, as far as nothing has to run. (Bad input: faults/test_bad_*.py.)"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import bench
from bench.cli.open import open_suite
from bench.launch import submitted
from bench.launch.submitted import Submitted
from bench.plan import planning
from tests.conftest import ROOT, Bench, Write
from tests.made_stores import finish_any

TABLE1 = ROOT / "suites" / "table1.yaml"
SMOKE = ROOT / "suites" / "smoke.yaml"
COMMANDS = (
    "run",
    "search",
    "plan",
    "status",
    "logs",
    "why",
    "stop",
    "retry",
    "report",
    "export",
    "merge",
    "methods",
    "engines",
    "gc",
    "sync",
    "ui",
    "init",
    "settings",
    "schema",
)


def test_help_teaches(call: Bench) -> None:
    said = call("--help")
    assert said.code == 0
    for word in (*COMMANDS, "data", "suites/table1.yaml", "store"):
        assert word in said.out
    for name in COMMANDS:
        said = call(name, "--help")
        assert said.code == 0
        assert len(said.out) > 300
    listed = re.findall(r"^│ (\w+)  ", call("--help").out, re.M)
    assert listed == [*COMMANDS[:-6], "data", *COMMANDS[-6:]]  # what one does first comes first
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


def test_plan_says_what_starts_it(call: Bench, write: Write) -> None:
    """The very same table: options and all."""
    words = [write(), "--store", "elsewhere", "--set", "schedule.lr=0.02", "--only", "BAGS", "--seeds", "1,2"]
    last = call("plan", *words).out.splitlines()[-1]
    assert last == f"start it: python -m bench run {' '.join(map(str, words))}"


def test_plan_on_a_cluster_needs_none(
    call: Bench, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Beside a real one: cluster/test_plan_says.py."""
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "mine.yaml").write_text(
        "kind: slurm\ntime_min: 30\nsignal_delay_s: 30\ngpus: 1\ncpus: 4\npartition: gpu\nstages: {data: {gpus: 0}}\n"
    )
    said = call("plan", write(), "--cluster", "mine.yaml")
    assert said.code == 0
    assert "with 64 jobs at a time" in said.out
    assert "3 jobs to submit to mine.yaml: 2 wait for others" in said.out
    lines = {line.split()[0]: line for line in said.out.splitlines()}
    assert re.search(r"^  1  - +2 data +baseline, BAGS +30 min, 4 CPUs, partition gpu *$", lines["1"])
    assert re.search(r"^  2  1 +train, predict, evaluate +baseline, BAGS +30 min, 4 CPUs, 1 GPU, part", lines["2"])
    assert re.search(r"^  3  2 +train, predict, evaluate +BAGS +30 min, 4 CPUs, 1 GPU, partition gpu", lines["3"])
    found = json.loads(call("plan", write(), "--cluster", "mine.yaml", "--json").out)["submissions"]
    assert [(one["number"], one["after"], one["asks"]["gpus"]) for one in found["jobs"]] == [
        (1, [], 0), (2, [1], 1), (3, [2], 1),
    ]  # fmt: skip
    assert "submissions" not in json.loads(call("plan", write(), "--json").out)
    many = call("plan", write(), "--cluster", "mine.yaml", "--seeds", ",".join(map(str, range(15)))).out
    assert re.search(r"^ +30 +train, predict, evaluate +30 min", many, re.M)  # 45 jobs: one line a shape
    key = next(stage["key"] for stage in json.loads(call("plan", write(), "--json").out)["stages"])
    submitted.write(Path("store"), Submitted("77", "n-00", "s", ((key,),), 0.0, "h", "/l", "/r"))
    said = call("plan", write(), "--cluster", "mine.yaml")
    assert "1 job that may be in the queue (no Slurm answers here): 77, for 1 stage" in said.out


def test_status_without_a_store(call: Bench) -> None:
    said = call("status", SMOKE)
    assert said.code == 0
    assert said.out.count("missing ") == 18  # of 23 stages; heads and predictions of one pass are one line
    assert said.out.splitlines()[-1] == f"start it: python -m bench run {SMOKE} (there is no folder store yet)"
    assert not Path("store").exists()
    assert json.loads(call("status", SMOKE, "--json").out)["stages"][0]["state"] == "missing"


def test_show_config_is_yaml_that_gives_the_same_keys(call: Bench, tmp_path: Path) -> None:
    said = call("plan", TABLE1, "--show-config", "--set", "schedule.lr=0.05", "--set", "rows.BAGS.beta=.inf")
    assert said.code == 0
    (tmp_path / "shown.yaml").write_text(said.out)
    again = planning.make(open_suite(tmp_path / "shown.yaml"))
    sets = ["schedule.lr=0.05", "rows.BAGS.beta=.inf"]
    assert list(again.stages) == list(planning.make(open_suite(TABLE1, sets=sets)).stages)


def test_why_explains_a_row_and_a_key(call: Bench, write: Write) -> None:
    said = call("why", write(), "BAGS")
    assert said.code == 0
    assert "state: missing" in said.out
    assert "needed by: BAGS" in said.out
    assert "classifier.settings.beta = 8" in said.out
    assert "not reused: no train stage in this store is done" in said.out
    key = json.loads(call("plan", write(), "--json").out)["stages"][0]["key"]
    assert f"data {key}" in call("why", write(), key[:8]).out


def test_a_store_that_is_not_there(call: Bench, write: Write) -> None:
    """Nothing to stop, to try again or to read: said, not raised, and nothing is written."""
    for words, says in (
        (("stop",), "none of its stages runs on this machine"),
        (("retry",), "no failure is noted"),
        (("logs", "BAGS"), "has not been started yet\nstart it: python -m bench run"),
    ):
        said = call(words[0], write(), *words[1:], "--store", "elsewhere", "--seeds", "3")
        assert said.code == 0, said.err
        assert says in said.out
        assert said.out.rstrip().endswith(f"run {write()} --store elsewhere --seeds 3")
    assert not Path("elsewhere").exists()


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
    Path("store").mkdir()
    rows = json.loads(call("report", write(), "--json").out)
    assert [row["row"] for row in rows] == ["baseline", "BAGS"]
    assert all(not row["metrics"] for row in rows)


def test_a_report_says_what_made_it(call: Bench, write: Write, tmp_path: Path) -> None:
    finish_any(tmp_path / "store", write(), seeds="1,2", sets=["schedule.lr=0.02"])
    words = ["report", write(), "--seeds", "1,2", "--set", "schedule.lr=0.02", "--out", "out"]
    said = call(*words)
    assert said.code == 0, said.err
    files = "table.txt .md .tex .csv .json .parquet, table_protocol.tex, results.csv .parquet, per_class.csv, "
    files += "suite.yaml, made_by.txt"
    assert f"report: out  ({files}" in said.out
    made = dict(line.split(":", 1) for line in Path("out/made_by.txt").read_text().splitlines())
    assert list(made) == ["made by", "made again by", "version", "commit"]
    assert made["made by"].strip() == f"python -m bench {' '.join(map(str, words))}"
    assert made["made again by"].strip() == f"python -m bench report {words[1]} --seeds 1,2 --set schedule.lr=0.02"
    assert made["version"].strip() == f"longtail-bench {bench.__version__}"
    assert re.match(r"[0-9a-f]{40}(, with changes \(sha256 of the difference [0-9a-f]{64}\))?$", made["commit"].strip())
    shown = call("plan", *words[1:-2], "--show-config").out
    assert Path("out/suite.yaml").read_text() == shown
    asked = open_suite(Path("tiny.yaml"), seeds="1,2", sets=["schedule.lr=0.02"])
    again = open_suite(Path("out/suite.yaml"))
    assert list(planning.make(again).stages) == list(planning.make(asked).stages)


def test_a_report_s_files_hold_no_password(call: Bench, write: Write, tmp_path: Path) -> None:
    finish_any(tmp_path / "store", write())
    assert call("report", write(), "--set", "title=http://me:pass@host/x", "--out", "out").code == 0
    assert "http://***@host/x" in Path("out/made_by.txt").read_text()
    assert "me:pass" not in Path("out/made_by.txt").read_text()
