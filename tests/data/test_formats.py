"""Data formats are a table: a new one is an entry in it and a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.formats import FORMATS, reckoned
from bench.key import module_version
from bench.spec import FolderData, GlyphsData
from tests.conftest import ROOT

# The table with one more entry, before anything has read it.
SCRIPT = """
import sys, types
from pathlib import Path

formats = types.ModuleType("bench.data.formats")
text = Path("bench/data/formats.py").read_text()
entry = '        Format("csv", FolderData, "tests.data.boxes_csv", "tests.data.boxes_csv"),\\n'
end = "    )\\n}  # fmt: skip"
assert text.count(end) == 1
sys.modules[formats.__name__] = formats
exec(compile(text.replace(end, entry + end), "formats.py", "exec"), formats.__dict__)

from bench.cli.open import open_suite
from bench.errors import UserError
from bench.plan import planning
from bench.store.store import Store
from tests.tiny_suite import bring

path, root = Path(sys.argv[1]), Path(sys.argv[2])
suite = open_suite(path)
plan = planning.make(suite)
data = {s.spec["split"]: s for s in plan.stages.values() if s.kind == "data"}
assert data["train"].spec["reader"] == 7 and data["train"].spec["data"] == {"name": "csv"}, data["train"].spec
assert "path" not in data["train"].spec
outcomes = bring(suite, root, only={stage.key for stage in data.values()}.__contains__)
print({outcome.state for outcome in outcomes.values()})
print((Store(root).output(data["train"].key) / "counts.json").read_text())
try:
    open_suite(path, sets=["data.name=cvs"])
except UserError as error:
    print(error)
"""
BOXES = """file,class,x,y,width,height
a.png,newt,1,2,20,20
a.png,cat,30,2,10,12
b.png,newt,5,6,12,12
"""


def test_a_format_is_an_entry_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "images" / name)
    for name in ("train.csv", "val.csv"):
        (tmp_path / name).write_text(BOXES)
    suite = tmp_path / "own.yaml"
    section = f"{{name: csv, path: {tmp_path}, train: train.csv, val: val.csv}}"
    suite.write_text(f"preset: cpu\ndata: {section}\nrows:\n  baseline: {{method: baseline}}\n")
    command = [sys.executable, "-c", SCRIPT, str(suite), str(tmp_path / "store")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    states, counts, refused = done.stdout.splitlines()[:3]
    assert states == "{'done'}"
    assert json.loads(counts) == {"instances": [1, 2], "images": [1, 2], "num_images": 2}
    assert "no data set 'cvs'. Did you mean 'csv'? Legal: coco, csv, glyphs, lvis" in refused


@pytest.mark.parametrize("name", ["glyphs", "lvis", "coco"])
def test_what_a_key_holds_of_a_format(name: str) -> None:
    form = FORMATS[name]
    assert module_version(form.version) == 1
    data = GlyphsData() if form.generated else FolderData(name=name, path="/somewhere")
    train, val = (form.in_key(data, split) for split in ("train", "val"))
    if form.generated:
        assert set(val) - set(train) == {"val_instances"}
        assert "seed" not in val
        assert train["classes"] == 80
    else:
        assert train == val == {"name": name}


def test_what_is_reckoned_before_glyphs_are_made() -> None:
    """80 classes, 20 instances of each in val, 13 on an image of 128 x 128 pixels: 123.08 images of 49,152 bytes."""
    settings = GlyphsData().model_dump()
    found = reckoned(settings, "val")
    assert found is not None
    assert found.images == pytest.approx(80 * 20 / 13)
    assert (found.classes, found.image_bytes) == (80, 49152)
    assert reckoned({"name": "lvis"}, "val") is None
    assert reckoned({"name": "of another version"}, "val") is None
