"""Bad input through the real command line: one message, exit code 2, no traceback, nothing started, nothing lost."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from refused import kept_store, refused, states

from tests.conftest import TINY, Bench, Write, line_of


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """A store that holds something; it is the same afterwards."""
    yield from kept_store(tmp_path / "store")


# -- the suite and the options


@dataclass(frozen=True)
class Case:
    """A change of the tiny suite, more words for the command, and what must be said."""

    name: str
    says: tuple[str, ...]
    old: str = ""
    new: str = ""
    line: str = ""  # a word of the line that is blamed
    words: tuple[str, ...] = ()


def of_set(name: str, value: str, *says: str) -> Case:
    return Case(name, says, words=("--set", value))


CASES = [
    Case("unknown method",
         (r"no method 'bag'\. Did you mean 'bags'\?", "Legal: .*tau_norm", "see: python -m bench methods"),
         "method: bags", "method: bag", "BAGS:"),
    Case("unknown setting",
         (r"no setting 'bta'\. Did you mean 'beta'\?", "Legal: beta, edges"), "beta: 8", "bta: 8", "BAGS:"),
    Case("wrong type", (r"rows\.BAGS\.beta: .*number.*got 'many'",), "beta: 8", "beta: many", "BAGS:"),
    Case("out of range", (r"rows\.BAGS\.beta: .*greater than or equal to 0, got -1",), "beta: 8", "beta: -1", "BAGS:"),
    Case("unknown section",
         (r"no setting 'seedz'\. Did you mean 'seeds'\?", "Legal: .*methods_path, preset, rows, schedule"),
         "seeds: [0]", "seedz: [0]", "seedz"),
    Case("a list for a section", (r"input: must be a mapping, got \[64\]",),
         "{min_size: 64, max_size: 64}", "[64]", "input"),
    Case("bins that fall", (r"test\.bins: must ascend, .*got \[20, 5\]",), "[5, 10, 20]", "[20, 5]", "test:"),
    Case("steps and epochs", ("give either steps or epochs",), "steps: 3", "steps: 3, epochs: 1", "schedule:"),
    Case("a row without a method",
         (r"rows\.BAGS: a row needs a method\. Legal:",), "method: bags, beta: 8", "", "BAGS:"),
    Case("empty rows", ("a suite needs rows", r"Legal: rows: \{label"),
         "rows:\n  baseline: {method: baseline}\n  BAGS: {method: bags, beta: 8}", "rows: {}", "rows:"),
    Case("broken YAML", ("broken YAML: expected",), "seeds: [0]", "seeds: [0", "rows:"),
    Case("a duplicate key", ("duplicate key 'method' \\(first on line \\d+\\)",), "beta: 8", "method: rfs", "BAGS:"),
    Case("a YAML tag that runs code", ("the tag '.*os.system' is not allowed",),
         "seeds: [0]", "seeds: !!python/object/apply:os.system [ls]", "seeds"),
    Case("unknown preset", (r"no preset 'cpo'\. Did you mean 'cpu'\?",), "preset: cpu", "preset: cpo", "preset"),
    Case("unknown comparison", (r"no published table 'bags_tabl1'\. Did you mean 'bags_table1'\?",),
         "seeds: [0]", "seeds: [0]\ncompare_with: bags_tabl1", "compare_with"),
    Case("unknown control", (r"against: no row 'BGS'\. Did you mean 'BAGS'\? Legal: BAGS, baseline",),
         "seeds: [0]", "seeds: [0]\nagainst: BGS", "against"),
    Case("unknown control of a row", (r"rows\.BAGS\.against: no row 'base'\. Did you mean 'baseline'\?",),
         "beta: 8", "beta: 8, against: base", "BAGS:"),
    Case("a control that is no label", (r"rows\.BAGS: against must be the label of a row, got \[1\]\. Legal:",),
         "beta: 8", "beta: 8, against: [1]", "BAGS:"),
    Case("missing method file",
         (r"none\.py: no such method file",), "preset: cpu", "preset: cpu\nmethods_path: none.py"),
    Case("unknown preset option", (r"--preset: no preset 'cpo'\. Did you mean 'cpu'\?",), words=("--preset", "cpo")),
    Case("unknown row",
         (r"--only .*no row 'BAG'\. Did you mean 'BAGS'\? Legal: BAGS, baseline",), words=("--only", "BAG")),
    Case("a seed that is none",
         ("--seeds: 'x' is not a seed. Legal: non-negative integers",), words=("--seeds", "1,x")),
    Case("missing data folder", (r"--data: no such folder nowhere\n",), words=("--data", "nowhere")),
    Case("a folder of data that is nearly named",
         (r"--data: no such folder stroe\. Did you mean 'store'\?",), words=("--data", "stroe")),
    Case("a missing folder of the suite", (r"data\.path: no such folder /nope\n",),
         "{classes: 4, size: 64, objects: 4, object_px: [10, 24], max_instances: 24, val_instances: 2}",
         "{name: lvis, path: /nope}", "data:"),
    Case("a setting below each that is not there",
         (r"rows\.b: no setting 'betta'\. Did you mean 'beta'\?", "Legal: beta, edges"),
         "BAGS: {method: bags, beta: 8}", "b: {method: bags, each: {betta: [1, 2]}}", "  b:"),
    Case("several values as in Hydra", (r"got '1,2,4'.*\n  for several values: each: \{beta: \[1,2,4\]\}",),
         words=("--set", "rows.BAGS.beta=1,2,4")),
    of_set("a set without value", "schedule.steps", r"--set: 'schedule\.steps' is not key=value\. Legal: e\.g\."),
    of_set("a set of nothing known", "schedule.stps=3", r"schedule\.stps: no setting 'stps'\. Did you mean 'steps'\?"),
    of_set("a set of no row", "rows.BGS.beta=3", r"--set rows\.BGS\.beta=3: no row 'BGS'\. Did you mean 'BAGS'\?"),
    of_set("unknown engine",
         "detector.engine=torchvison", r"detector\.engine: no engine 'torchvison'.*'torchvision'\?"),
    of_set("unknown trunk",
         "detector.trunk=smal", r"detector\.trunk: no trunk 'smal'.*'small'\? Legal: .*resnet50_fpn"),
    of_set("anchors that do not fit",
         "detector.rpn.anchor_sizes=[[3], [4]]", r"2 groups of anchor sizes for 1 levels\. Legal"),
    of_set("missing weights file", "detector.weights=none.pth", r"detector\.weights none\.pth: no such weights file"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_suite_or_an_option_that_is_wrong(call: Bench, write: Write, store: Path, case: Case) -> None:
    assert TINY.count(case.old) == 1 or not case.old
    text = TINY.replace(case.old, case.new) if case.old else TINY
    ran = call("run", write(text), "--store", store, *case.words)
    refused(ran, *case.says)
    if case.line:
        assert f"tiny.yaml:{line_of(text, case.line)}" in ran.err
    assert ran.out == ""


def test_a_folder_for_a_suite(call: Bench, write: Write, store: Path) -> None:
    refused(call("plan", write().parent, "--store", store), r": a folder, not a file\. Legal: .*tiny\.yaml")


def test_missing_suite_file(bench: Bench, write: Write, store: Path) -> None:
    write()
    refused(
        bench("run", "tinny.yaml", "--store", store),
        r"tinny\.yaml: no such file\. Did you mean 'tiny\.yaml'\? Legal: tiny\.yaml",
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rnu"], "No such command 'rnu'"),
        (["plan", "tiny.yaml", "--stroe", "x"], "No such option: --stroe"),
        (["plan"], "Missing argument"),
        (["run", "tiny.yaml", "--jobs", "0"], "--jobs"),
        (["run", "tiny.yaml", "--jobs", "two"], "--jobs"),
        (["ui", "--port", "99999"], "--port"),
    ],
)
def test_a_mistyped_command_line(call: Bench, write: Write, words: list[str], says: str) -> None:
    write()
    ran = call(*words)
    assert ran.code == 2
    assert says in ran.err
    assert "Usage:" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["methods", "bag"], r"no method 'bag'\. Did you mean 'bags'\?"),
        (
            ["why", "tiny.yaml", "zzz"],
            r"no stage begins with 'zzz' and no row is called so\. Legal: a key's first digits, or a row: base",
        ),
        (
            ["logs", "tiny.yaml", "BAG"],
            r"no row is called so\. Did you mean 'BAGS'\? Legal: (.|\n)*bench plan tiny\.yaml",
        ),
        (["stop", "tiny.yaml", "basline"], r"Did you mean 'baseline'\?"),
        (["retry", "tiny.yaml", "BAGGS"], r"Did you mean 'BAGS'\?"),
        (["plan", "tiny.yaml", "--cluster", "slrum"], r"no cluster 'slrum'\. Did you mean 'slurm'\?"),
        (["run", "tiny.yaml", "--cluster", "none/c.yaml"], r"none/c\.yaml: no such file\n  name a cluster file"),
        (["run", "tiny.yaml", "--detach"], r"--detach: jobs of kind local end with their driver"),
        (["gc", "--store", "nowhere"], r"nowhere: no such store\n  name it: --store"),
        (["report", "tiny.yaml", "--store", "nowhere"], r"nowhere: no such store\n  name it: --store"),
        (["report", "tiny.yaml", "--json"], r"store: no such store\n  name it: --store"),
        (
            ["report", "tiny.yaml", "--against", "BGS"],
            r"--against: no row 'BGS'\. Did you mean 'BAGS'\? Legal: BAGS, b",
        ),
        (["report", "tiny.yaml", "--columns", ""], r"--columns: a column without a name"),
        (["report", "tiny.yaml", "--columns", "AP, AP"], r"--columns: column 'AP' is named twice"),
        (["report", "tiny.yaml", "--against", ""], r"--against: no row ''. Legal: BAGS, baseline"),
        (
            ["report", "tiny.yaml", "--against", "BAGS", "--only", "baseline"],
            r"--against: row 'BAGS' is left out\n  keep it: --only 'BAGS'",
        ),
        (["sync", "tiny.yaml", "--store", "nowhere"], r"nowhere: no such store\n  name it: --store"),
        (["status", "tiny.yaml", "--store", "tiny.yaml"], r"tiny\.yaml: the store must be a folder"),
        (["why", "tiny.yaml", ""], r"no stage begins with ''"),
        (["data", "check", ".", "--format", "voc"], r"--format: 'voc' is no format\. Legal: lvis, coco"),
        (["data", "check", "nowhere"], r"nowhere.*: no such folder"),
        (["data", "check", ".", "--images", "x" * 300], r"x+.*: file name too long"),
        (["plan", "tiny.yaml", "--store", "x" * 300], r"x+: file name too long"),
        (["data", "fill-negatives", "none.json", "out.json"], r"none\.json: "),
        (["ui", "--store", "nowhere"], r"nowhere.*: nothing has been tracked in this store yet\n  run a suite first"),
        (["plan", "tiny.yaml", "--store", "tiny.yaml"], r"tiny\.yaml: the store must be a folder, but this is a file"),
        (["run", "tiny.yaml", "--store", "tiny.yaml/below"], r"tiny\.yaml: the store must be a folder"),
    ],
)
def test_other_commands(call: Bench, write: Write, words: list[str], says: str) -> None:
    write()
    before = {path.name for path in Path(write().parent).iterdir()}
    refused(call(*words), says)
    assert {path.name for path in Path(write().parent).iterdir()} == before  # no folder for a mistyped name


@pytest.mark.parametrize(
    "words",
    ["status tiny.yaml", "why tiny.yaml BAGS", "logs tiny.yaml BAGS", "stop tiny.yaml", "retry tiny.yaml",
     "report tiny.yaml", "export tiny.yaml a.zip", "sync tiny.yaml", "gc", "ui", "merge new"],
)  # fmt: skip
def test_a_folder_of_other_things_is_no_store(call: Bench, write: Write, words: str) -> None:
    """Nor is a folder of a store."""
    folder = write().parent
    inside = folder / "store" / "roots"
    inside.mkdir(parents=True)
    (inside / "tiny.json").write_text("{}")
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("")
    before = sorted(path for path in folder.rglob("*") if "cache" not in path.parts)
    store = [] if words == "merge new" else ["--store"]
    for name, guess in (("notes", ""), ("store/roots", r"\. Did you mean 'store'\?")):
        refused(call(*words.split(), *store, name), rf"{name}: no store: no suite was run on this folder{guess}\n")
    assert sorted(path for path in folder.rglob("*") if "cache" not in path.parts) == before


def test_a_report_without_a_result_is_not_written(call: Bench, write: Write) -> None:
    """An empty folder is a store on which nothing was run yet."""
    folder = write().parent
    (folder / "empty").mkdir()
    for out in ([], ["--out", "out"], ["--html"]):
        said = call("report", "tiny.yaml", "--store", "empty", *out)
        assert said.code == 0, said.err
        assert "no row has a result yet" in said.out
        assert "nothing was written; run it: python -m bench run tiny.yaml --store" in said.out
    assert call("plan", "tiny.yaml", "--store", "empty").code == 0
    assert call("status", "tiny.yaml", "--store", "empty").code == 0
    assert not list((folder / "empty").iterdir())
    assert not (folder / "out").exists()


# -- the machine


def test_no_gpu(bench: Bench, write: Write, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    ran = bench("run", write(), "--store", store, "--set", "machine.device=cuda")
    refused(ran, r"machine\.device: no GPU on this machine\. Legal: auto, cpu", "--set machine.device=cpu")


def test_gpus_by_uuid(bench: Bench, write: Write, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than all jobs on the CPU without a word."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-5c0e2f1d-77ab")
    ran = bench("run", write(), "--store", store)
    refused(ran, r"CUDA_VISIBLE_DEVICES: .*by number, and this is MIG-5c0e2f1d-77ab\. Legal: e\.g\. 0,1", "--cluster")


def test_an_occupied_port(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "mlflow.db").write_bytes(b"")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(bench("ui", "--port", port), f"--port: port {port} is in use", r"a free one: --port \d+")


def test_a_read_only_store(bench: Bench, write: Write, mounted: Callable[[str], Path]) -> None:
    disk = mounted("size=1m,ro")
    refused(bench("run", write(), "--store", disk), f"{disk}.*: .*the file system is read-only", "choose a store")


def test_a_disk_that_is_full_for_the_first_byte(bench: Bench, write: Write, mounted: Callable[[str], Path]) -> None:
    disk = mounted("size=4k")
    (disk / "filled").write_bytes(b"x" * 4096)
    refused(
        bench("run", write(), "--store", disk / "store"), r"no space left on the disk: free space 0\.0 kB; needs about"
    )
    assert [p.name for p in disk.iterdir()] in (["filled"], ["filled", "store"], ["store", "filled"])


@pytest.mark.slow
def test_a_disk_that_fills_up_in_training_says_what_it_needs(
    bench: Bench, write: Write, mounted: Callable[[str], Path]
) -> None:
    disk = mounted("size=3m")  # the database, the images and 2 MB less than a checkpoint
    ran = bench("run", write(), "--store", disk / "store", "--only", "baseline")
    refused(ran, r"checkpoint-1.*: no space left on the disk: free space .*; needs about \d\.\d MB", "free some space")
    assert {"data"} == {kind for kind, state in states(disk / "store").items() if state == "done"}
