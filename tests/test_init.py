"""`init`, `--version` and completion: what a new user meets first."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import bench as package
from bench.cli.init import FILES
from tests.conftest import ROOT, Bench


def test_what_init_writes_runs_as_it_stands(call: Bench, bench: Bench, tmp_path: Path) -> None:
    """Every command that it prints, but for the run itself."""
    said = call("init")
    assert said.code == 0
    assert {path.name for path in Path("mine").iterdir()} == set(FILES)
    commands = [line.split("python -m bench ")[1].split() for line in said.out.splitlines() if "python -m" in line]
    assert [words[0] for words in commands] == ["methods", "plan", "run", "plan"]
    planned = call(*commands[1])
    assert "suite: 3 rows x 1 seed" in planned.out
    assert "fused: cls-retrain + mine" in planned.out
    assert "jobs to submit to mine/cluster.yaml" in call(*commands[3]).out
    checked = bench(*commands[0], timeout=300)
    assert checked.code == 0, checked.out + checked.err
    assert "11 passed, 0 failed, 1 skipped" in checked.out


def test_init_overwrites_nothing(call: Bench) -> None:
    Path("own").mkdir()
    Path("own/parts.py").write_text("# mine")
    said = call("init", "own")
    assert said.code == 2
    assert "own: parts.py would be overwritten" in said.err
    assert [path.name for path in Path("own").iterdir()] == ["parts.py"]
    assert Path("own/parts.py").read_text() == "# mine"
    assert call("init", "own/parts.py/below").code == 2


def test_the_version_has_one_source(call: Bench) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert package.__version__ == project["version"]
    assert call("--version").out == f"longtail-bench {project['version']}\n"


def test_a_shell_can_complete_commands() -> None:
    """What the shell asks after `bench met<TAB>`; completion is the console script's, which is called `bench`."""
    script = "import sys; sys.argv[0] = 'bench'; from bench.cli.app import main; main()"
    asked = {"_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": "bench met", "COMP_CWORD": "1", "PYTHONPATH": str(ROOT)}
    said = subprocess.run([sys.executable, "-c", script], env={**os.environ, **asked}, capture_output=True, text=True)
    assert said.stdout.split() == ["methods"], said.stderr
