"""The set of LVIS v1's size, on a few images: it is read without a finding, and the file says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.data.check import check
from bench.spec import FolderData
from benchmarks import lvis_size


def test_the_set_is_clean_and_long_tailed(tmp_path: Path) -> None:
    lvis_size.make(tmp_path, (60, 20), (2000, 400), 50)
    assert check(FolderData(name="lvis", path=str(tmp_path))) == []
    document = json.loads((tmp_path / "annotations" / "train.json").read_text())
    assert (len(document["images"]), len(document["annotations"]), len(document["categories"])) == (60, 2000, 50)
    counts = [category["instance_count"] for category in document["categories"]]
    assert sum(counts) == 2000
    assert counts[0] > 500 > 20 > counts[-1] > 0
    assert all(len(a["segmentation"][0]) == 2 * lvis_size.CORNERS for a in document["annotations"])


@pytest.mark.slow
def test_the_commands_are_measured(tmp_path: Path) -> None:
    out = tmp_path / "lvis_size.json"
    small = ["--images", "40", "10", "--boxes", "300", "60", "--classes", "20"]
    lvis_size.main([*small, "--decode", "--out", str(out)])
    written = json.loads(out.read_text())
    names = ["data check --no-decode", "plan", "plan again", "data stages", "data check"]
    assert list(written["costs"]) == names
    assert all(cost["cpu"] > 0 < cost["peak_mb"] for cost in written["costs"].values())
    assert written["command"] == f"python -m benchmarks.lvis_size {' '.join(small)} --decode"
