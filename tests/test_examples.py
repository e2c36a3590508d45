"""The examples, as their own first lines say that they are used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Bench

EXAMPLES = ROOT / "examples"


def example(name: str, *words: str | Path, store: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as a user does, from another folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / name), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=store.parent, env=environment, check=False)


def test_every_example_is_in_the_list() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.iterdir():
        assert path.name in listed or path.name in ("README.md", "__pycache__"), path.name


def test_the_data_that_it_writes_are_clean_and_never_overwritten(call: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    assert example("own_data.py", folder, store=tmp_path / "store").returncode == 0
    assert call("data", "check", folder).out == "0 errors, 0 warnings\n"
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    again = example("own_data.py", folder, store=tmp_path / "store")
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert before == sorted((path.name, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    planned = call("plan", EXAMPLES / "own_data.yaml", "--data", folder)
    assert planned.code == 0
    assert "4 rows x 1 seed -> 14 stages" in planned.out


@pytest.mark.slow
def test_from_own_data_to_the_ap_of_each_class(bench: Bench, tmp_path: Path) -> None:
    folder, store, suite = tmp_path / "shapes", tmp_path / "store", EXAMPLES / "own_data.yaml"
    assert example("own_data.py", folder, store=store).returncode == 0
    ran = bench("run", suite, "--data", folder, "--store", store, "--only", "baseline,RFS", timeout=600)
    assert ran.code == 0, ran.out + ran.err
    read = example(
        "rare_classes.py", suite, "--data", folder, "--store", store, "--rows", "baseline,RFS", store=store
    )  # fmt: skip
    assert read.returncode == 0, read.stderr
    head, _, *rows = read.stdout.splitlines()
    assert head.split() == ["row", "baseline", "RFS"]
    instances = [int(found[0]) for row in rows if (found := re.findall(r"[\d.]+", row))]
    assert len(rows) == 6
    assert instances == sorted(instances)
    aps = [float(value) for row in rows for value in re.findall(r"\d+\.\d", row)]
    assert len(aps) == 12
    assert all(0 <= value <= 100 for value in aps)


@pytest.mark.slow
def test_the_method_of_ones_own_is_a_row(bench: Bench, tmp_path: Path) -> None:
    short = ["--set", "schedule.steps=3", "--set", "stages.classifier_only.steps=2"]
    small = [
        "--set",
        "data={classes: 4, size: 64, objects: 4, object_px: [10, 24], max_instances: 24, val_instances: 2}",
    ]
    suite = EXAMPLES / "own_method" / "suite.yaml"
    ran = bench("run", suite, "--store", tmp_path / "store", *short, *small, timeout=600)
    assert ran.code == 0, ran.out + ran.err
    assert re.search(r"^mine +\d", ran.out, re.M), ran.out
