"""Detections that leave the store: COCO results whose AP, by the official lvis package and from the files alone, is
that of the record; and an export with predictions, from which intervals are made elsewhere.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tiny_suite import SETS, SMOKE, Undisturbed, key_of

from bench.plan import planning
from bench.store.merge import merge
from bench.store.pack import unpack
from bench.store.store import Store
from reports.load import load
from tests.conftest import ROOT, Bench

WORDS = [word for text in SETS for word in ("--set", text)]
ONLY = ["--only", "baseline,BAGS"]


def official(val: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """AP, AP50, ... as fractions, by lvis.LVISEval on two files."""
    monkeypatch.setattr(np, "float", float, raising=False)  # gone since numpy 1.24
    drawing = ModuleType("lvis.vis")
    drawing.__dict__["LVISVis"] = None  # imports OpenCV
    monkeypatch.setitem(sys.modules, "lvis.vis", drawing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lvis import LVIS, LVISEval, LVISResults

        truth = LVIS(str(val))
        evaluation = LVISEval(truth, LVISResults(truth, str(results), max_dets=300), "bbox")
        evaluation.params.max_dets = 300
        evaluation.run()
    return dict(evaluation.results)


def test_ap_of_the_files_is_that_of_the_record(
    smoke: Undisturbed, call: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lvis")
    said = call("export", SMOKE, "coco", "--format", "coco", "--store", smoke.root, *WORDS, *ONLY)
    assert said.code == 0, said.err
    with (tmp_path / "coco" / "index.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["file"], line["row"], line["seed"]) for line in lines] == [
        ("baseline-seed0.json", "baseline", "0"), ("BAGS-seed0.json", "BAGS", "0"),
    ]  # fmt: skip
    records = {row.record.row: row.record for row in load(Store(smoke.root), smoke.plan)}
    for line in lines:
        found = official(tmp_path / "coco" / line["val"], tmp_path / "coco" / line["file"], monkeypatch)
        for metric in ("AP", "AP50", "AP75", "APr", "APc", "APf"):
            recorded = records[line["row"]].metrics[metric]
            assert found[metric] == pytest.approx(-1.0 if recorded is None else recorded / 100, abs=1e-9)
        assert float(line["AP"]) == records[line["row"]].metrics["AP"] > 0
        assert f"{line['file']}: {int(line['detections']):,} detections of {line['row']}, seed 0; goes with" in said.out


def test_the_lines_of_the_document_give_the_ap(smoke: Undisturbed, call: Bench, tmp_path: Path) -> None:
    """As they stand in docs/results.md, in a process of their own."""
    pytest.importorskip("lvis")
    pytest.importorskip("cv2")
    assert call("export", SMOKE, "results", "--format", "coco", "--store", smoke.root, *WORDS, *ONLY).code == 0
    text = (ROOT / "docs" / "results.md").read_text()
    lines = text.split("```python title=official_ap.py\n")[1].split("```")[0]
    ended = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = [line.split() for line in ended.stdout.splitlines() if line.startswith(("baseline", "BAGS"))]
    assert [(row, seed) for row, seed, *_ in found] == [("baseline", "0"), ("BAGS", "0")]
    for *_, official_ap, recorded in found:
        assert float(official_ap) == pytest.approx(float(recorded), abs=1e-7)
        assert float(recorded) > 0


def test_pycocotools_reads_them(smoke: Undisturbed, call: Bench, tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    assert call("export", SMOKE, "coco", "--format", "coco", "--store", smoke.root, *WORDS, *ONLY).code == 0
    (val,) = (tmp_path / "coco").glob("val-*.json")
    truth = coco.COCO(str(val))
    results = truth.loadRes(str(tmp_path / "coco" / "BAGS-seed0.json"))
    one = json.loads((tmp_path / "coco" / "BAGS-seed0.json").read_text())[0]
    assert set(one) == {"image_id", "category_id", "bbox", "score"}
    image = truth.imgs[one["image_id"]]
    x, y, width, height = one["bbox"]
    assert 0 <= x < x + width <= image["width"] + 1e-3
    assert 0 <= y < y + height <= image["height"] + 1e-3
    assert 0 < one["score"] <= 1
    assert results.getCatIds() == truth.getCatIds()


def test_intervals_are_made_from_an_export_with_predictions(smoke: Undisturbed, call: Bench, tmp_path: Path) -> None:
    """What nobody had kept there is made here, and is what is made there."""
    store = Path(shutil.copytree(smoke.root, tmp_path / "store", symlinks=True))
    words = ["--store", store, *WORDS, *ONLY]
    assert call("export", SMOKE, "a.zip", "--predictions", *words).code == 0
    with zipfile.ZipFile("a.zip") as packed, zipfile.ZipFile("b.zip", "w") as without:
        outputs = Counter(name.rsplit("/", 1)[1] for name in packed.namelist() if "/outputs/" in name)
        assert outputs == {
            "result.json": 2, "classifier.json": 2, "train.json": 2, "counts.json": 2, "detections.safetensors": 2,
            "proposals.safetensors": 2, "annotations.json": 1,
        }  # fmt: skip
        for name in packed.namelist():
            if not name.rsplit("/", 1)[-1].startswith(("draws-", "errors-", "more-")):
                without.writestr(name, packed.read(name))
        there = packed.read("report/intervals.csv")
        more = packed.read("report/more_metrics.csv")
    said = call("report", "b.zip", "--out", "made")
    assert said.code == 0, said.err
    assert (tmp_path / "made/intervals.csv").read_bytes() == there
    assert (tmp_path / "made/more_metrics.csv").read_bytes() == more
    assert there.count(b"\n") > 2


def test_its_predictions_and_results_come_into_another_store(smoke: Undisturbed, call: Bench, tmp_path: Path) -> None:
    words = ["--store", smoke.root, *WORDS, *ONLY]
    assert call("export", SMOKE, "a.zip", "--predictions", *words).code == 0
    (tmp_path / "unpacked").mkdir()
    unpack(tmp_path / "a.zip", tmp_path / "unpacked")
    into = Store(tmp_path / "into")
    found = merge(into, Store(tmp_path / "unpacked"))
    kinds = Counter(smoke.plan.stages[key].kind for key in found.came)
    assert kinds == {"predict": 2, "evaluate": 2}
    assert Counter(left.kind for left in found.left) == {"train": 2, "data": 2}
    assert into.done(key_of(smoke.plan, "BAGS", "predict")) is not None
    states = planning.states(smoke.plan, into)
    assert [states[key_of(smoke.plan, row, "evaluate")] for row in ("baseline", "BAGS")] == ["done", "done"]
    (root,) = into.roots()
    assert [line.row for line in root.table or ()] == ["baseline", "BAGS"]
