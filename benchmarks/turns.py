"""Steps of several kinds that take turns in one process. Shared by benchmarks of what a loss adds to a step."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.detection.contract import Batch, Context, Draws
from bench.detection.losses import ExtraLoss
from bench.engines.torchvision.detector import TwoStageDetector
from bench.run.step import TrainStep
from benchmarks.measured import write

WARM = 2  # first steps, which are not counted


def command(
    name: str, doc: str | None, measured: Callable[[str, int], dict[str, Any]], beside: str
) -> dict[str, float]:
    """The command line of a benchmark: measure, print, write; the ratios by kind of step."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = measured(asked.device, asked.steps)
    for kind, one in found["seconds"].items():
        print(f"{kind:10} best {one['best']:.4f} s, median {one['median']:.4f} s, {one['ratio']:.2f} of {beside}")
    if asked.out is not None:
        write(asked.out, name, sys.argv[1:], found)
    return {kind: float(one["ratio"]) for kind, one in found["seconds"].items()}


def in_turns(kinds: Mapping[str, Callable[[int], None]], steps: int, device: str, beside: str) -> dict[str, Any]:
    """Seconds of a step of each kind; `ratio`: of medians, to the kind `beside`."""
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(steps + WARM):
        for name, step in kinds.items():
            begun = now(device)
            step(number)
            taken[name].append(now(device) - begun)
    median = {name: statistics.median(values[WARM:]) for name, values in taken.items()}
    return {
        name: {
            "best": round(min(values[WARM:]), 5), "median": round(median[name], 5),
            "ratio": round(median[name] / median[beside], 3),
        }
        for name, values in taken.items()
    }  # fmt: skip


def now(device: str) -> float:
    """Seconds: of this process on a CPU, else of the clock once the device has done all that was asked."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def one_step(
    model: TwoStageDetector,
    losses: Sequence[ExtraLoss],
    optimiser: torch.optim.Optimizer,
    batches: Sequence[Batch],
    number: int,
    *,
    detection: bool = True,
) -> None:
    """As bench/run/loop.py does one."""
    context = Context(number, 0.0, torch.Generator())
    step = TrainStep(
        model, batches, Draws(0, 0, number), context, other_view=lambda view: batches[view], whole=lambda rows: rows,
        frozen=False, taps=(),
    )  # fmt: skip
    values = []
    if detection:
        out = step.rois()
        own = model.classifier.loss(model.classifier(out.taps), out.targets, context)
        values = [*out.losses.values(), *own.values()]
    values += [value for loss in losses for value in loss.loss(step).values.values()]
    optimiser.zero_grad()
    torch.autograd.backward(torch.stack(values).sum())
    optimiser.step()
    for loss in losses:
        loss.updated(model, context)
