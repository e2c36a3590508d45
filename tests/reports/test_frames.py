"""Results as data: the same lines from a store, from its real MLflow database, and in the files of a report."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_records import COUNTS, made
from rich.console import Console

import bench
from bench.cli import run
from bench.cli.open import open_suite
from bench.errors import UserError
from bench.plan import planning
from bench.record import PerClass, dumps
from bench.stage import Stage
from bench.store.store import Store
from bench.tracking import records, track
from bench.tracking.mirror import reader
from bench.tracking.place import default_uri
from bench.tracking.rows import TrackedRow, TrackedRows, per_class_csv
from reports import frames
from reports.frames import COLUMNS
from reports.load import frame, load
from tests import done_store
from tests.conftest import ROOT, TINY

pytest.importorskip("mlflow")
TWO_SEEDS = TINY.replace("seeds: [0]", "seeds: [0, 1]")
# (row, seed) -> metrics, in points, as an evaluation might have had them.
VALUES: Mapping[tuple[str, int], Mapping[str, float | None]] = {
    ("baseline", 0): {"AP": 20.25, "AP1": None, "ACC": 50.0},
    ("baseline", 1): {"AP": 1 / 3, "AP1": 0.0, "ACC": 51.0},
    ("BAGS", 0): {"AP": 24.0, "AP1": 7.5, "ACC": None},
    ("BAGS", 1): {"AP": 25.0, "AP1": 8.0, "ACC": None},
}


def finish(root: Path, suite: Path, environment: Mapping[str, object], leave_out: str = "", **options: Any) -> None:
    """Have all stages of a suite done, with VALUES."""
    plan, store = planning.make(open_suite(suite, **options)), Store(root)
    of = {row.evaluate.key: row for row in plan.rows if row.evaluate is not None}

    def contents(stage: Stage) -> dict[str, str]:
        if stage.kind == "predict":
            return {"classifier.json": json.dumps({"weight_norms": [0.5] * 7})}
        if stage.kind != "evaluate":
            return {"result.bin": stage.key}
        row, model = of[stage.key], stage.inputs["predict"].inputs["model"].key
        result = made("any", protocol={"settings": "5" * 64}, **VALUES[row.label, row.seed]).record.result
        return {"result.json": dumps(result.model_copy(update={"evaluate_key": stage.key, "model_key": model}))}

    wanted = [s for key, s in plan.stages.items() if key not in of or of[key].label != leave_out]
    done_store.quick(store, [s for s in wanted if store.done(s.key) is None], environment, contents)


def run_suite(suite: Path, root: Path, **options: Any) -> None:
    """`bench run` where all is done: it notes the suite, brings MLflow up to date and writes the report."""
    assert run.run(open_suite(suite, **options), root, Console(file=io.StringIO())) == 0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a suite that is done, and one file of the same rows with other seeds."""
    folder = tmp_path_factory.mktemp("frames")
    suite = folder / "tiny.yaml"
    suite.write_text(TWO_SEEDS)
    finish(folder / "store", suite, {"commit": "c" * 40, "host": "a"})
    run_suite(suite, folder / "store")
    return folder / "store"


def test_a_line_for_each_row_seed_and_metric(root: Path) -> None:
    found = frame(root)
    assert tuple(found.columns) == COLUMNS
    lines = {(r.row, r.seed, r.metric): r.value for r in found.itertuples()}
    assert len(found) == len(lines) == 4 * 3
    for (row, seed), metrics in VALUES.items():
        for metric, value in metrics.items():
            got = lines[row, seed, metric]
            assert math.isnan(got) if value is None else got == value
    assert list(found["row"]) == ["BAGS"] * 6 + ["baseline"] * 6  # sorted, whatever the table's order
    assert list(found["metric"][:3]) == ["AP", "AP1", "ACC"]
    assert (found["seed"].dtype, found["value"].dtype) == ("int64", "float64")
    first = found.iloc[0]
    assert (first["suite"], first["method"], first["data"], first["split"]) == ("tiny", "bags", "glyphs", "val")
    assert (first["engine"], first["engine_version"], first["trunk"]) == ("torchvision", "1", "small")
    assert (first["bins"], first["evaluator"]) == ("10 100 1000", "faster-coco-eval 1.8.0")
    assert (first["train_digest"], first["val_digest"]) == ("a" * 64, "b" * 64)
    assert (first["settings"], first["commit"]) == ("5" * 64, "c" * 40)
    assert json.loads(first["row_settings"])["beta"] == 8
    rows = planning.make(open_suite(root.parent / "tiny.yaml")).rows
    keys = {(row.label, row.seed): row.evaluate.key for row in rows if row.evaluate}
    assert {(r.row, r.seed): r.evaluate_key for r in found.itertuples()} == keys


def test_mlflow_has_the_same_frame(root: Path) -> None:
    ours = frame(root)
    for uri in (default_uri(root), f"sqlite:////{str(root)[1:]}/mlflow.db", f"sqlite+pysqlite:///{root}/mlflow.db"):
        pd.testing.assert_frame_equal(frame(uri), ours)
    pd.testing.assert_frame_equal(frame(root, default_uri(root)), ours)  # the same lines, once
    pd.testing.assert_frame_equal(frame(default_uri(root), suites="tiny.yaml"), ours)


def test_tables_of_one_suite_are_apart_in_mlflow_as_in_the_store(tmp_path: Path) -> None:
    """Other steps are another table; other seeds, rows or a title are not. MLflow gives the frame of the store."""
    suite, root = tmp_path / "tiny.yaml", tmp_path / "store"
    suite.write_text(TWO_SEEDS)
    finish(root, suite, {"commit": "c" * 40, "host": "a"})
    run_suite(suite, root, only="baseline", seeds="0")
    run_suite(suite, root)
    run_suite(suite, root, sets=["title=another"])
    finish(root, suite, {"commit": "c" * 40, "host": "a"}, sets=["schedule.steps=7"])
    run_suite(suite, root, sets=["schedule.steps=7"])
    client = reader(default_uri(root))
    number = client.get_experiment_by_name("tiny").experiment_id
    found = client.search_runs([number], "tags.`bench.what` = 'row'")
    tables = [(row.data.tags["row"], row.data.tags["table"], row.data.tags["seeds"]) for row in found]
    assert len(tables) == 4
    assert {(label, seeds) for label, _, seeds in tables} == {("baseline", "0, 1"), ("BAGS", "0, 1")}
    assert {table[7:] for _, table, _ in tables} == {"tiny --set title=another", "tiny --set schedule.steps=7"}
    assert len({table[:6] for _, table, _ in tables}) == 2
    pd.testing.assert_frame_equal(frame(default_uri(root)), frame(root))


def test_a_database_elsewhere_and_one_whose_files_the_database_names(root: Path, tmp_path: Path) -> None:
    """Files that lie where MLflow put them, not in a store."""
    rows = load(Store(root), planning.make(open_suite(root.parent / "tiny.yaml")))
    uri = f"sqlite:///{tmp_path}/theirs.db"
    assert track.prepare(root, uri, "tiny") is None
    count = track.sync(root, uri, "tiny", [], TrackedRows([TrackedRow(row.record) for row in rows]))
    assert count.notice is None
    pd.testing.assert_frame_equal(frame(uri), frame(root))
    known = records.read(uri, ["no such"])
    assert known[0] == []
    assert "tiny" in known[1]


def test_a_suite_is_meant_by_its_name_its_file_or_none(root: Path, tmp_path: Path) -> None:
    whole = frame(root)
    file = root.parent / "tiny.yaml"
    for suites in ("tiny", file, str(file), [file], ["tiny", file], tmp_path / "copied" / "tiny.yaml"):
        pd.testing.assert_frame_equal(frame(root, suites=suites), whole)
    pd.testing.assert_frame_equal(bench.results(str(file), store=str(root)), whole)
    pd.testing.assert_frame_equal(bench.results("tiny", store=default_uri(root)), whole)
    for source in (root, default_uri(root)):  # MLflow's own experiment `Default` is no suite
        with pytest.raises(UserError, match=r"no suite 'tny'\. Did you mean 'tiny'\?") as caught:
            frame(source, suites=["tny"])
        assert caught.value.allowed == "tiny"


def test_a_table_by_options_is_another_and_its_own_lines_come_once(tmp_path: Path) -> None:
    """--seeds makes another table of the same suite; a row that both have is there once."""
    suite = tmp_path / "tiny.yaml"
    suite.write_text(TINY)
    finish(tmp_path / "store", suite, {})
    suite.write_text(TWO_SEEDS)
    finish(tmp_path / "store", suite, {})
    suite.write_text(TINY)
    run_suite(suite, tmp_path / "store")
    assert set(frame(tmp_path / "store")["seed"]) == {0}
    run_suite(suite, tmp_path / "store", seeds="0,1")
    both = frame(tmp_path / "store", suites="tiny")
    assert len(both) == 12
    pd.testing.assert_frame_equal(both, frame(default_uri(tmp_path / "store")))
    (changed,) = {root.name for root in Store(tmp_path / "store").roots()} - {"tiny"}
    assert set(frame(tmp_path / "store", suites=changed)["seed"]) == {0, 1}


def test_what_is_not_done_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    none = frame(tmp_path / "empty")
    assert tuple(none.columns) == COLUMNS
    assert len(none) == 0
    assert (none["seed"].dtype, none["value"].dtype) == ("int64", "float64")
    suite = tmp_path / "tiny.yaml"
    suite.write_text(TWO_SEEDS)
    finish(tmp_path / "store", suite, {}, leave_out="BAGS")
    plan, store = planning.make(open_suite(suite)), Store(tmp_path / "store")
    noted = [row.noted for row in plan.rows if row.noted]
    store.register_root("tiny", suite, list(plan.stages), table=noted)
    assert set(frame(store.root)["row"]) == {"baseline"}
    # Made anew since: its evaluation is of a model that is gone.
    row = next(row for row in plan.rows if row.label == "baseline" and row.evaluate is not None)
    assert row.evaluate is not None
    assert store.discard(row.evaluate.inputs["predict"].key)
    done_store.finish(store, [row.evaluate.inputs["predict"]])
    assert set(frame(store.root)["seed"]) == {1}


def test_what_cannot_be_read_is_said(tmp_path: Path, root: Path) -> None:
    with pytest.raises(UserError, match="no source of results"):
        frame()
    (tmp_path / "store").mkdir()
    with pytest.raises(UserError, match=r"no such store\. Did you mean 'store'\?"):
        frame(tmp_path / "stroe")
    assert not (tmp_path / "stroe").exists()
    for uri in (f"sqlite:///{tmp_path}/none.db", f"file://{tmp_path}/none", f"sqlite+pysqlite:///{tmp_path}/none.db"):
        with pytest.raises(UserError, match="no such MLflow database"):
            frame(uri)
    assert not any("none" in path.name for path in tmp_path.iterdir())
    (tmp_path / "broken.db").write_text("this is no database, and long enough not to be taken for an empty one")
    with pytest.raises(UserError, match="MLflow cannot be read"):
        frame(f"sqlite:///{tmp_path}/broken.db")
    with pytest.raises(UserError, match="no suite 'tiny'"):
        frame(tmp_path / "store", suites="tiny")
    old = Store(tmp_path / "store")
    old.register_root("older", "/a/older.yaml", [])
    with pytest.raises(UserError, match="which rows suite older has was not noted") as caught:
        frame(old.root, suites="older")
    assert caught.value.hint == "its file /a/older.yaml is not here: bring it back and run it"
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("")
    for folder, more in ((tmp_path / "notes", ""), (old.root / "roots", f". Did you mean '{old.root}'?")):
        with pytest.raises(UserError, match="no store: no suite was run on this folder") as caught:
            frame(folder)
        assert caught.value.what.endswith(f"folder{more}")


def test_an_old_table_does_not_hide_the_others(tmp_path: Path) -> None:
    """Of a store that was filled before it noted rows: left out and told, unless it alone is asked for."""
    suite = tmp_path / "tiny.yaml"
    suite.write_text(TWO_SEEDS)
    store = tmp_path / "store"
    finish(store, suite, {})
    plan = planning.make(open_suite(suite))
    Store(store).register_root("tiny", suite, list(plan.stages), table=[row.noted for row in plan.rows if row.noted])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = frame(store)
    Store(store).register_root("tiny-3fa2c1", suite, [])
    Store(store).register_root("older", "/a/older.yaml", [])
    for suites, told in ((None, "older, tiny-3fa2c1"), ("tiny", "tiny-3fa2c1"), (suite, "tiny-3fa2c1")):
        with pytest.warns(UserWarning, match=f"left out, .* were last run: {told}\n") as caught:
            pd.testing.assert_frame_equal(frame(store, suites=suites), whole)
        (one,) = caught
        assert one.filename == __file__
    command = f"python -m bench run {suite} --store {store}, with the options that it was run with"
    with pytest.raises(UserError, match="which rows suite tiny-3fa2c1 has") as raised:
        bench.results("tiny-3fa2c1", store=store)
    assert raised.value.hint == f"{command}  (starts nothing where all is done)"
    with pytest.raises(UserError, match=r"no suite 'oldr'\. Did you mean 'older'") as raised:
        frame(store, suites="oldr")
    assert raised.value.allowed == "older, tiny, tiny-3fa2c1"


def test_a_search_keeps_the_tables_of_its_rounds(tmp_path: Path) -> None:
    """As long as it needs their stages; a row that is called otherwise since has its new name alone."""
    suite = tmp_path / "tiny.yaml"
    suite.write_text(TWO_SEEDS)
    plan, store = planning.make(open_suite(suite)), Store(tmp_path / "store")
    noted = [row.noted for row in plan.rows if row.noted]
    first, second, third, fourth = noted
    store.register_root("s", suite, [first.evaluate, second.evaluate], table=[first, second])
    store.register_root("s", suite, [first.evaluate, third.evaluate], table=[third])
    store.register_root("s", suite, [row.evaluate for row in noted], table=[fourth])
    (root,) = store.roots()
    assert root.table == (first, third, fourth)
    (tmp_path / "store" / "roots" / "s.json").write_text(
        (tmp_path / "store" / "roots" / "s.json").read_text().replace('"seed": 0', '"seed": "0"')
    )
    with pytest.raises(UserError, match="what this suite needs cannot be read"):
        store.roots()


# -- CSV

ATTACKS = {
    "=1+1": "'=1+1",
    "@SUM(A1)": "'@SUM(A1)",
    "-2+3": "'-2+3",
    "+cmd|' /C calc'!A0": "'+cmd|' /C calc'!A0",
    "\uff1d1+1": "'\uff1d1+1",  # a wide equals sign
    "\x1b[31mred": r"\x1b[31mred",
    "\u202egnp.exe": r"\u202egnp.exe",
    "\t=1": r"\t=1",
    'a,"b"': 'a,"b"',
    "類別 \u05d0\u05d1": "類別 \u05d0\u05d1",
}


def test_class_names_are_text_in_a_csv() -> None:
    counts = (2, 9, 10, 99, 100, 999, 1000, 0, 5, 7)
    record = made("=HYPERLINK(1)", 3, counts=counts, AP=1.0).record
    classes = PerClass(
        category_ids=tuple(range(11, 21)), names=tuple(ATTACKS), instance_counts=counts,
        ap=(1.5, None, *(0.1 + i for i in range(8))), ap50=(None, 1 / 3, *(50.0,) * 8),
    )  # fmt: skip
    text = frames.per_class_to_csv([record.model_copy(update={"per_class": classes})])
    found = list(csv.DictReader(io.StringIO(text)))
    assert list(found[0]) == ["row", "seed", "class_id", "class", "instances", "bin", "AP", "AP50"]
    assert [line["class"] for line in found] == list(ATTACKS.values())
    assert {(line["row"], line["seed"]) for line in found} == {("'=HYPERLINK(1)", "3")}
    assert [line["bin"] for line in found] == ["1", "1", "2", "2", "3", "3", "4", "1", "1", "1"]  # 1-9, 10-99, ...
    assert [line["class_id"] for line in found] == [str(i) for i in range(11, 21)]
    assert [(line["AP"], line["AP50"]) for line in found[:2]] == [("1.5", ""), ("", "0.3333333333333333")]
    of_mlflow = list(csv.DictReader(io.StringIO(per_class_csv(classes))))
    assert [line["names"] for line in of_mlflow] == list(ATTACKS.values())
    assert frames.per_class_to_csv([record.model_copy(update={"per_class": None})]).count("\n") == 1


def test_results_csv_is_the_frame(root: Path) -> None:
    text = (root / "reports" / "tiny" / "results.csv").read_text()
    read = pd.read_csv(io.StringIO(text), dtype={"engine_version": str}).sort_values(["row", "seed"], kind="stable")
    whole = frame(root)
    assert list(read["value"].dropna()) == list(whole["value"].dropna())  # every digit
    assert list(read["row"]) == list(whole["row"])
    assert list(read["evaluate_key"]) == list(whole["evaluate_key"])
    assert next(csv.reader(io.StringIO(text))) == list(COLUMNS)
    assert text.splitlines()[1].startswith("tiny,baseline,baseline,0,AP,20.25,")  # in the table's order
    classes = list(csv.DictReader((root / "reports" / "tiny" / "per_class.csv").open()))
    assert [(c["row"], c["seed"]) for c in classes[:: len(COUNTS)]] == [
        ("baseline", "0"), ("baseline", "1"), ("BAGS", "0"), ("BAGS", "1"),
    ]  # fmt: skip


def test_a_parquet_file_gives_the_frame_back(root: Path, tmp_path: Path) -> None:
    """Read with pyarrow alone: a missing value is null, numbers are doubles with all digits."""
    parquet = pytest.importorskip("pyarrow.parquet")
    found = frame(root)
    found.to_parquet(tmp_path / "results.parquet")
    table = parquet.read_table(tmp_path / "results.parquet").to_pydict()
    lines = zip(table["row"], table["seed"], table["metric"], table["value"], strict=True)
    values = {(row, seed, metric): value for row, seed, metric, value in lines}
    assert values["baseline", 1, "AP"] == 1 / 3
    assert values["BAGS", 1, "AP1"] == 8.0
    missing = values["baseline", 0, "AP1"]
    assert missing is None or math.isnan(missing)
    assert len(values) == len(found)


def test_the_document_names_every_column_and_file(root: Path) -> None:
    text = (ROOT / "docs" / "results.md").read_text()
    table = text.split("| column | |")[1].split("\n\n")[0]
    told = [name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1] if line else "")]
    assert sorted(told) == sorted(COLUMNS)
    classes = next(line for line in text.splitlines() if line.startswith("| `per_class.csv`"))
    assert tuple(re.findall(r"`(\w+)`", classes)) == frames.PER_CLASS
    written = {path.name for path in (root / "reports" / "tiny").iterdir() if not path.name.startswith(".")}
    of_tables = {
        f"table{end}" for end in re.findall(r"`(?:table)?(\.\w+)`", text.split("| `table.txt`")[1].split("|")[0])
    }
    files = {*of_tables, "table.txt", "results.csv", "per_class.csv", "suite.yaml", "made_by.txt"}
    assert files <= written
    assert all(f"`{name}`" in text for name in files - of_tables)


def test_pandas_is_imported_where_a_frame_is_made() -> None:
    script = (
        "import sys, bench, reports.load, reports.write; "
        "sys.exit(any(m in sys.modules for m in ('pandas', 'mlflow', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
    script = "import sys, bench; sys.exit(any(m in sys.modules for m in ('pandas', 'reports', 'pydantic')))"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
