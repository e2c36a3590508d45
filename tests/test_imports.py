"""A login node answers at once: what plans and explains imports no heavy library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

HEAVY = {"torch", "torchvision", "mlflow", "optuna", "pandas", "submitit", "lvis", "faster_coco_eval"}
PROBE = """
import sys
from bench.cli.app import main
try:
    main()
except SystemExit as end:
    code = end.code or 0
import json
print(json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]), file=sys.stderr)
"""
TABLE1 = str(ROOT / "suites" / "table1.yaml")
CASES = [
    ["--help"],
    ["run", "--help"],
    ["plan", TABLE1],
    ["plan", TABLE1, "--json"],
    ["plan", TABLE1, "--show-config"],
    ["status", TABLE1],
    ["why", TABLE1, "BAGS"],
    ["methods"],
    ["methods", "bags"],
    ["engines"],
    ["engines", "detr"],
    ["plan", "no-such-file.yaml"],
]


def loaded(words: list[str], folder: Path) -> tuple[int, set[str]]:
    """Exit code and top-level modules after a command."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words], capture_output=True, text=True, cwd=folder, env=environment, check=True
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, set(modules)


@pytest.mark.parametrize("words", CASES, ids=[" ".join(c).replace(TABLE1, "table1") for c in CASES])
def test_heavy_libraries_stay_unimported(words: list[str], tmp_path: Path) -> None:
    code, modules = loaded(words, tmp_path)
    assert code == (2 if "no-such-file.yaml" in words else 0)
    assert "bench" in modules
    assert not modules & (HEAVY | {"matplotlib", "seaborn"})


def test_a_plan_of_photographs_needs_no_torch_either(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"not opened to plan")
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 1, "name": "a"}],
    }
    for name in ("train.json", "val.json"):
        (tmp_path / name).write_text(json.dumps(document))
    sets = ["--set", "data.name=coco", "--set", "data.train=train.json", "--set", "data.val=val.json"]
    code, modules = loaded(["plan", TABLE1, "--data", str(tmp_path), *sets], tmp_path)
    assert code == 0
    assert not modules & HEAVY


def test_a_job_needs_no_driver_s_library() -> None:
    """A lean GPU node has torch, torchvision, numpy, pydantic, safetensors and the evaluator."""
    script = (
        "import importlib, pkgutil, sys, bench.run\n"
        "for m in pkgutil.iter_modules(bench.run.__path__): importlib.import_module(f'bench.run.{m.name}')\n"
        "import bench.engines.torchvision.build\n"
        "bad = {'mlflow', 'optuna', 'pandas', 'submitit', 'seaborn', 'typer'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=120)
