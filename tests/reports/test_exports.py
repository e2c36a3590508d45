"""An export: what is in it, that its bytes are the same each time, and that its report elsewhere is the one that came.

With real detections: end_to_end/test_exported_detections.py. Bad ones: faults/test_bad_exports.py.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shlex
import shutil
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from bench.errors import UserError
from bench.store.excerpt import Excerpt
from bench.store.pack import FORMAT
from bench.store.store import Store
from reports.load import RowResult, frame
from tests.conftest import Bench, Write
from tests.made_stores import TWO_SEEDS, a_plan, finish, tree
from tests.reports.made_records import made_draws


@pytest.fixture
def suite(write: Write, tmp_path: Path) -> Path:
    """A suite that is done in the folder `store`."""
    path = write(TWO_SEEDS)
    finish(tmp_path / "store", a_plan(path))
    return path


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as packed:
        return packed.namelist()


def test_what_is_in_it_and_what_never_is(suite: Path, call: Bench, tmp_path: Path) -> None:
    said = call("export", suite, "a.zip")
    assert said.code == 0, said.err
    assert "wrote a.zip: 2 rows, 4 results" in said.out
    outputs = Counter(name.rsplit("/", 1)[1] for name in names(tmp_path / "a.zip") if "/outputs/" in name)
    assert outputs == {"result.json": 4, "classifier.json": 4, "train.json": 4, "counts.json": 4}
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        manifest = json.loads(packed.read("export.json"))
        assert (manifest["format"], manifest["version"], manifest["predictions"]) == (FORMAT, 1, False)
        assert {"report/table.txt", "report/suite.yaml", "report/report.html", "README.txt"} <= set(packed.namelist())
        stages = [json.loads(packed.read(name)) for name in packed.namelist() if name.endswith("/stage.json")]
        assert [stage["aside"] for stage in stages] == [{}] * 16  # no paths of this machine
        assert len([name for name in packed.namelist() if name.endswith("/done")]) == 16
        assert "bench report THIS.zip" in packed.read("README.txt").decode()


def test_figures_as_pdf_from_a_zip(suite: Path, call: Bench, tmp_path: Path) -> None:
    assert call("export", suite, "a.zip").code == 0
    said = call("report", "a.zip", "--pdf")
    assert said.code == 0, said.err
    assert (tmp_path / "a-report" / "ap_by_bin.pdf").read_bytes().startswith(b"%PDF")


def test_the_bytes_do_not_depend_on_the_time(suite: Path, call: Bench, tmp_path: Path) -> None:
    assert call("export", suite, "a.zip").code == 0
    before = (tmp_path / "a.zip").read_bytes()
    for path in (tmp_path / "store").rglob("*"):
        os.utime(path, (1, 1))
    assert call("export", suite, "a.zip").code == 0  # an export may be replaced by an export
    assert (tmp_path / "a.zip").read_bytes() == before
    assert names(tmp_path / "a.zip") == sorted(names(tmp_path / "a.zip"))


def test_its_report_elsewhere_is_the_one_it_came_with(suite: Path, call: Bench, tmp_path: Path) -> None:
    """Without the store, the suite and the data; from the zip, and from the folder that it was unpacked into."""
    there = call("report", suite).out.split("report: ")[0]
    assert call("export", suite, "a.zip").code == 0
    suite.unlink()
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "away").mkdir()
    shutil.move(tmp_path / "a.zip", tmp_path / "away" / "b.zip")
    here = call("report", "away/b.zip")
    assert here.code == 0, here.err
    assert here.out.startswith(there.rstrip())
    with zipfile.ZipFile("away/b.zip") as packed:
        packed.extractall("folder")
    came, made = tree(tmp_path / "folder/report"), tree(tmp_path / "away/b-report")
    assert came.keys() - made.keys() == {"report.html"}
    assert here.out.splitlines()[-1] == "as they were exported, in exported/: report.html"
    assert made.pop("exported/report.html") == came["report.html"]
    assert [name for name in made if made[name] != came[name]] == ["made_by.txt"]
    assert b"exported by:" in made["made_by.txt"]
    assert call("report", "folder", "--out", "again").code == 0
    again = tree(tmp_path / "again")
    assert [name for name in made if made[name] != again[name]] == ["made_by.txt"]
    with (tmp_path / "again/table.csv").open() as file:
        lines = {line["row"]: line for line in csv.DictReader(file)}
    assert (lines["baseline"]["AP"], lines["baseline"]["AP1"], lines["baseline"]["AP1_n"]) == ("21.0", "0.0", "1")
    assert (lines["BAGS"]["AP"], lines["BAGS"]["delta_AP"], lines["BAGS"]["ACC"]) == ("24.5", "3.5", "")


ASKED = ("--against", "BAGS", "--columns", "AP,cAP1", "--pdf", "--no-intervals")


@pytest.mark.parametrize("source", ["suite", "zip"])
def test_the_command_in_made_by_makes_the_report_again(
    suite: Path, call: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """With a control, columns, PDFs and a store whose name has a space; the default of none of them is meant."""

    def drawn(store: object, stages: object, results: list[RowResult]) -> list[RowResult]:
        found = []
        for result in results:
            ap, val = result.record.metrics["AP"] or 0.0, result.record.protocol.val_digest
            found.append(replace(result, draws=made_draws({"AP": np.array([ap - 1, ap + 2])}, {"AP": 50}, val)))
        return found

    monkeypatch.setattr("reports.predictions.with_kept", drawn)
    shutil.move(tmp_path / "store", tmp_path / "a store")
    if source == "zip":
        assert call("export", suite, "a b.zip", "--store", "a store").code == 0
    words = ["a b.zip"] if source == "zip" else [suite, "--store", "a store", "--seeds", "0,1", "--html", "--images"]
    said = call("report", *words, *ASKED, "--out", "first")
    assert said.code == 0, said.err
    made = dict(line.split(":", 1) for line in (tmp_path / "first/made_by.txt").read_text().splitlines())
    again = shlex.split(made["made again by"])
    assert again[:4] == ["python", "-m", "bench", "report"]
    assert call(*again[3:], "--out", "second").code == 0
    first, second = tree(tmp_path / "first"), tree(tmp_path / "second")
    apart = {"made_by.txt", "report.html"}  # the command as it was typed
    assert first.keys() == second.keys() >= {"table.tex", "table.md", "suite.yaml", "ap_by_bin.pdf"}
    tables = [name for name in first if name not in apart and not name.endswith((".pdf", ".png"))]
    assert {name: first[name] for name in tables} == {name: second[name] for name in tables}
    assert ("intervals.csv" in first) == (source == "suite")
    config = yaml.safe_load(first["suite.yaml"])
    assert (config["against"], config["columns"]) == ("BAGS", ["AP", "cAP1"])
    (tmp_path / "first/suite.yaml").rename(tmp_path / "tiny.yaml")
    if source == "suite":
        plain = call("report", "tiny.yaml", "--store", "a store", "--no-intervals", "--out", "third")
        assert plain.code == 0, plain.err
        third = tree(tmp_path / "third")
        for name in ("table.tex", "table.md", "intervals.csv", "suite.yaml"):
            assert third[name] == first[name]


def test_only_what_was_exported_is_laid_beside_a_report(suite: Path, call: Bench, tmp_path: Path) -> None:
    """Of names that a report may have, with the bytes that were exported, and below a folder of its own."""
    assert call("export", suite, "a.zip").code == 0
    with zipfile.ZipFile("a.zip") as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    files |= {f"report/{name}": b"evil" for name in (".bashrc", "pyproject.toml", "other.md", "deep/own.csv")}
    manifest = json.loads(files["export.json"])
    digest = hashlib.sha256(b"evil").hexdigest()
    manifest["report"] |= dict.fromkeys((".bashrc", "pyproject.toml", "../up.md", "deep/own.csv", "/tmp/up.md"), digest)
    files["export.json"] = json.dumps(manifest).encode()
    packed_again("b.zip", files)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.md").write_text("mine")
    said = call("report", "b.zip", "--out", "out")
    assert said.code == 0, said.err
    assert {path.name for path in (tmp_path / "out" / "exported").iterdir()} == {"report.html"}
    assert not any(
        "evil" in path.read_text(errors="replace") for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
    packed_again("c.zip", files | {"report/report.html": b"<script>"})
    said = call("report", "c.zip", "--out", "new")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: c.zip: report/report.html: changed since it was exported\n  export it again")
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile("a.zip") as packed:
        packed.extractall(folder)
    (folder / "report" / "report.html").unlink()
    (folder / "report" / "report.html").symlink_to(suite)
    assert call("report", "unpacked", "--out", "linked").code == 0
    assert not (tmp_path / "linked" / "exported").exists()


def packed_again(name: str, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(name, "w") as packed:
        for entry, content in files.items():
            packed.writestr(entry, content)


def test_unpacked_it_is_a_small_store(suite: Path, call: Bench, tmp_path: Path) -> None:
    assert call("export", suite, "a.zip").code == 0
    with zipfile.ZipFile("a.zip") as packed:
        packed.extractall("folder")
    plain, excerpt, plan = Store(tmp_path / "folder"), Excerpt(tmp_path / "folder"), a_plan(suite)
    assert plain.keys() == sorted(plan.stages)
    for key, stage in plan.stages.items():
        left_out = stage.kind in ("data", "train")  # pixels, weights
        assert (plain.done(key) is None) == left_out
        whole, part = Store(tmp_path / "store").done(key), excerpt.done(key)
        assert whole is not None
        assert part is not None
        assert part.digest == whole.digest
        assert (set(part.digests) < set(whole.digests)) == left_out
        if stage.kind == "train":
            with pytest.raises(UserError, match="left out of the export"):
                excerpt.read(key, "model.safetensors")
    ours = frame(tmp_path / "store")
    for source in (tmp_path / "folder", "a.zip"):
        pd.testing.assert_frame_equal(frame(source), ours)
    assert sorted(ours[ours.metric == "AP"].value) == [20.25, 21.75, 24.0, 25.0]


def test_json_control_and_columns_of_an_export(suite: Path, call: Bench, tmp_path: Path) -> None:
    assert call("export", suite, "a.zip").code == 0
    there = json.loads(call("report", suite, "--json").out)
    shown = call("report", "a.zip", "--json")
    assert json.loads(shown.out) == there
    assert there[0]["metrics"]["AP"]["mean"] == 21.0
    assert not (tmp_path / "a-report").exists()
    assert call("report", "a.zip", "--against", "BAGS", "--columns", "AP,cAP").code == 0
    with (tmp_path / "a-report/table.csv").open() as file:
        assert next(csv.DictReader(file))["against_AP"] == "-3.5"


def test_a_row_that_is_not_done_is_there_with_its_reason(write: Write, call: Bench, tmp_path: Path) -> None:
    path = write(TWO_SEEDS)
    finish(tmp_path / "store", a_plan(path), leave_out="BAGS")
    said = call("export", path, "a.zip")
    assert "without a result: BAGS" in said.out
    shown = call("report", "a.zip")
    assert shown.code == 0, shown.err
    assert "BAGS: not run" in shown.out
    assert call("export", path, "b.zip", "--seeds", "0", "--only", "baseline").code == 0
    assert [row["seeds"] for row in json.loads(call("report", "b.zip", "--json").out)] == [[0]]
