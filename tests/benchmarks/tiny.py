"""The smallest suite that trains, predicts and evaluates; numbers mean nothing."""

from __future__ import annotations

from pathlib import Path

TINY = """\
preset: cpu
data: {classes: 4, size: 64, objects: 4, object_px: [10, 24], max_instances: 24, val_instances: 2}
input: {min_size: 64, max_size: 64}
schedule: {steps: 3, batch: 4, lr: 0.01, warmup: 1, checkpoint_every: 1}
stages:
  classifier_only: {steps: 2, lr: 0.01}
test: {bins: [5, 10, 20]}
seeds: [0]
rows:
  baseline: {method: baseline}
  BAGS: {method: bags, beta: 8}
"""


def tiny(folder: Path) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(TINY)
    return path
