"""The comparison of evaluators on a few images: it runs, agrees, and counts what is cut and dropped."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import evaluation
from benchmarks.measured import measure


def test_the_evaluators_agree_and_the_file_says_what_was_measured(tmp_path: Path) -> None:
    pytest.importorskip("lvis")
    out = tmp_path / "evaluation.json"
    measure(
        [sys.executable, "-m", "benchmarks.evaluation", "--case", "12", "320", "--classes", "30", "--out", str(out)],
        log=tmp_path / "log",
    )
    written = json.loads(out.read_text())
    (case,) = written["cases"]
    assert case["largest_difference"] <= evaluation.TOLERANCE
    assert set(case["evaluators"]) == {"ours", "keep_all", "official"}
    assert all(values["peak_mb"] > 0 < values["evaluation_cpu"] for values in case["evaluators"].values())
    given, capped, judged = (case["detections"][name] for name in ("given", "after_cap", "after_drop"))
    assert (given, capped) == (12 * 320, 12 * 300)
    assert 0 < judged < capped
    assert 0 < case["metrics"]["AP"] < 1
    assert written["command"].startswith("python -m benchmarks.evaluation --case 12 320")
    assert written["environment"]["packages"]["lvis"]
    assert "host" not in written["environment"]


def test_the_scene_is_lvis_like_and_repeats() -> None:
    gt, found = evaluation.scene(200, 20, 400, seed=3)
    again, _ = evaluation.scene(200, 20, 400, seed=3)
    assert gt == again
    assert {category["frequency"] for category in gt["categories"]} == {"r", "c", "f"}
    positive = {(a["image_id"], a["category_id"]) for a in gt["annotations"]}
    negative = {(i["id"], c) for i in gt["images"] for c in i["neg_category_ids"]}
    assert not positive & negative
    assert 2.5 < len(positive) / 200 < 3.5
    assert 8 < len(negative) / 200 < 11
    assert len(found["score"]) == 200 * 20
    assert found["xywh"].shape == (4000, 4)
    assert np.isfinite(found["xywh"]).all()
    assert (found["xywh"][:, 2:] >= 1).all()


def test_a_number_that_one_side_lacks_is_an_infinite_difference() -> None:
    assert evaluation.difference({"AP": 0.5, "APr": None}, {"AP": 0.25, "APr": None}) == 0.25
    assert evaluation.difference({"AP": 0.5, "APr": None}, {"AP": 0.5, "APr": 0.1}) == float("inf")


def test_the_cost_counts_orphans_and_not_the_size_of_the_caller(tmp_path: Path) -> None:
    work = "import time\nheld = bytearray(200_000_000)\nwhile time.process_time() < 0.6: pass"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {work!r}])"
    orphan = measure([sys.executable, "-c", parent], log=tmp_path / "log")
    assert orphan.cpu >= 0.6
    assert orphan.peak_mb > 200
    held = bytearray(300_000_000)
    small = measure([sys.executable, "-c", "pass"], log=tmp_path / "log")
    assert small.peak_mb < 100 < len(held) / 1e6
    with pytest.raises(RuntimeError, match="exit code 3"):
        measure([sys.executable, "-c", "raise SystemExit(3)"], log=tmp_path / "log")
