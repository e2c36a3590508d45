"""A search of half a minute, and ways to run it: shared by the tests of searches and by the command that kills them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SUITE = """preset: cpu
data: {classes: 8, size: 64, objects: 6, max_instances: 30, val_instances: 2}
input: {min_size: 64, max_size: 64}
schedule: {steps: 24, batch: 4, lr: 0.02, warmup: 5, checkpoint_every: 5}
stages:
  classifier_only: {steps: 16, lr: 0.05}
test: {bins: [5, 15]}
seeds: [0, 1]
rows:
  baseline: {method: baseline}
  BAGS:     {method: bags, beta: 8}
  tau-norm: {method: tau_norm}
search:
  space: {beta: 0.5:32:log, tau: 0:1, schedule.lr: {low: 0.01, high: 0.1, log: true, when: {row: BAGS}}}
  rows: [BAGS, tau-norm]
  trials: 6
  round: 3
"""
# Learning rates of a whole detector, with rungs.
PRUNED = """preset: cpu
data: {classes: 8, size: 64, objects: 6, max_instances: 30, val_instances: 2}
input: {min_size: 64, max_size: 64}
schedule: {steps: 27, batch: 4, lr: 0.02, warmup: 5, checkpoint_every: 5}
test: {bins: [5, 15]}
rows:
  baseline: {method: baseline}
search:
  space: {schedule.lr: 0.005:0.1:log}
  sampler: random
  pruner: hyperband
  rungs: [3, 9]
  trials: 8
  round: 8
"""


def written(folder: Path, text: str = SUITE) -> Path:
    """The suite as a file."""
    path = folder / "tiny.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def command(*words: str | Path) -> list[str]:
    """`python -m bench ...`"""
    return [sys.executable, "-m", "bench", *map(str, words)]


def environment(**more: str) -> dict[str, str]:
    """Of a user's shell."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"} | more


def search(suite: Path, store: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the search to its end."""
    words = command("search", suite, "--store", store, *more)
    return subprocess.run(words, capture_output=True, text=True, env=environment(), cwd=suite.parent, check=False)


def outcome(suite: Path, store: Path) -> dict[str, Any]:
    """All that a search found: its trials with their values, the best, and the numbers on val."""

    def asked(*words: str | Path) -> Any:
        ended = subprocess.run(
            command(*words, "--store", store, "--json"), capture_output=True, text=True, env=environment(), check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return json.loads(ended.stdout)

    status = asked("search", suite, "--status")
    rows = {row["row"]: row["metrics"] for row in asked("report", suite)}
    return {"trials": status["trials"], "best": status["best"], "val": rows}
