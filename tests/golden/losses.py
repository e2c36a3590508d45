"""The losses of the first ten steps of three small trainings and the norms of their weights, written down.

Tests of resuming, fusing and several processes compare the code with itself, and so pass for code that clips nothing
or decays no weight. These are numbers, made once, through the same jobs and stores as any run's. The settings are such
that each matters: the gradient's norm is above `clip` at every step, `weight_decay` takes a percent of the weights, and
momentum, Nesterov, warm-up and cosine all move the third digit.

    python -m tests.golden.losses [--update]

Portable: see TOLERANCE. BatchNorm, which spreads rounding, is left out. They were made by the code as it was before any
file was moved, and were the same then.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from bench.cli.open import open_suite
from bench.plan import planning
from bench.plan.planning import Plan
from bench.run.checkpoint import read_tensors
from bench.store.events import read_events
from bench.store.store import Store
from bench.suite.suite import Suite

RECORD = Path(__file__).with_suffix(".json")
ROWS = ("baseline", "cls-retrain", "BAGS")  # the last two in one pass over the first one's trunk
STEPS = 10
# Relative. With ATEN_CPU_CAPABILITY=default and avx2, ONEDNN_MAX_CPU_ISA=SSE41 and AVX2 and MKL_CBWR=COMPATIBLE, one by
# one and together, in place of other kinds of CPU, no value differed by more than 5e-7 (AMD EPYC without AVX-512, torch
# 2.15). Rates that are 1e-4 larger or smaller move values by 3e-4 at most, without a jump: no proposal is near a tie.
# Nesterov, weight decay, clipping and momentum, each left out, moved some value by 0.44, 0.038, 13 and 1.3.
TOLERANCE = 1e-4
SUITE = """\
data: {name: glyphs, seed: 3, classes: 8, size: 64, objects: 6, object_px: [10, 30], max_instances: 60,
  val_instances: 2}
input: {min_size: 64, max_size: 64, mean: [0.46, 0.46, 0.46], std: [0.25, 0.25, 0.25], flip: 0.0,
  channel_permutation: true, invert: 0.5}
detector:
  trunk: small
  widths: [8, 16, 24, 32]
  fpn_channels: 16
  norm: group
  frozen_stages: 0
  rpn: {levels: ["1"], anchor_sizes: [[12, 20, 32]], anchor_ratios: [1.0], fg_iou: 0.6, bg_iou: 0.35, samples: 32,
    pre_nms_train: 64, pre_nms_test: 64, post_nms_train: 32, post_nms_test: 32, min_size: 3}
  roi: {levels: ["0"], pool: 5, sampling_ratio: 1, aligned: true, width: 32, samples: 32, positive_fraction: 0.4,
    class_agnostic: true, clamp_targets: 6}
test: {bins: [5, 15, 40], batch: 8}
schedule: {steps: 10, batch: 4, lr: 0.05, momentum: 0.9, nesterov: true, weight_decay: 0.01, warmup: 4,
  warmup_from: 0.1, decay: cosine, clip: 0.5}
stages:
  classifier_only: {steps: 10, lr: 0.2, warmup: 2, decay: steps, drops: [0.5], clip: 0.05}
machine: {threads: 1, device: cpu, channels_last: false}
seeds: [1]
rows:
  baseline:    {method: baseline}
  cls-retrain: {method: cls_retrain, keep_classifier: true}
  BAGS:        {method: bags, beta: 8}
"""


def suite(folder: Path) -> Suite:
    """The suite, as a file below `folder`."""
    path = folder / "golden.yaml"
    path.write_text(SUITE)
    return open_suite(path)


def current() -> dict[str, Any]:
    """Row -> {"losses": of each step by name, "norms": of each weight}; and the digest of what is trained on."""
    from tests.tiny_suite import bring

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wanted = suite(folder)
        plan, root = planning.make(wanted), folder / "store"
        kinds = {key: stage.kind for key, stage in plan.stages.items()}
        outcomes = bring(wanted, root, only=lambda key: kinds[key] in ("data", "train"))
        assert {outcome.state for outcome in outcomes.values()} == {"done"}, outcomes
        return {"data": _data_digest(plan, Store(root))} | {label: _row(plan, Store(root), label) for label in ROWS}


def _data_digest(plan: Plan, store: Store) -> str:
    done = store.done(next(s.key for s in plan.stages.values() if s.spec.get("split") == "train"))
    assert done is not None
    return done.digest


def _row(plan: Plan, store: Store, label: str) -> dict[str, Any]:
    row = next(row for row in plan.rows if row.label == label)
    assert row.evaluate is not None
    model = row.evaluate.inputs["predict"].inputs["model"]
    events, _ = read_events(store.attempts(model.key)[-1] / "events.jsonl")
    steps = [event["values"] for event in events if event["event"] == "metrics"]
    assert len(steps) == STEPS, "every step is a point of the curve"
    tensors = read_tensors(store.output(model.key) / "model.safetensors")
    weights = {name: tensor.double() for name, tensor in tensors.items() if tensor.is_floating_point()}
    norms = {name: float(torch.linalg.vector_norm(tensor)) for name, tensor in sorted(weights.items())}
    return {"losses": steps, "norms": norms}


def recorded() -> dict[str, Any]:
    """What losses.json says."""
    found: dict[str, Any] = json.loads(RECORD.read_text())
    return found


def differences(was: Any, now: Any, at: str = "") -> Iterator[tuple[str, float]]:
    """(what, relative difference) of every number; infinite where one of the two has it alone."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for name in sorted({*was, *now}):
            yield from differences(was.get(name), now.get(name), f"{at} {name}".strip())
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for step, (before, after) in enumerate(zip(was, now, strict=True)):
            yield from differences(before, after, f"{at} step {step + 1}")
    elif isinstance(was, int | float) and isinstance(now, int | float):
        yield at, abs(was - now) / max(abs(was), 1e-3)
    elif was != now:
        yield at, math.inf


def main(arguments: list[str]) -> int:
    """Compare, or with --update rewrite the record. Exit status 1 when they differ by more than TOLERANCE."""
    now = current()
    if arguments == ["--update"]:
        RECORD.write_text(json.dumps(now, indent=1) + "\n")
        print(f"{RECORD.name}: {', '.join(ROWS)}")
        return 0
    found = sorted(differences(recorded(), now), key=lambda pair: -pair[1])
    print("\n".join(f"{what}: {difference:.2g}" for what, difference in found[:8]))
    return 1 if found[0][1] > TOLERANCE else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
