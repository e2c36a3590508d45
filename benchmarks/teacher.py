"""What a teacher adds to a training step of step-wise learning.

    python -m benchmarks.teacher --out benchmarks/results/teacher-cpu.json
    python -m benchmarks.teacher --device cuda --out FILE

The CPU preset's detector, its FPN and classifier trained as in the unified stage. Steps take turns in one process:
without a teacher, with each of its two losses, with both; the CPU is timed in process seconds. Images are noise with
the embedded data's number and sizes of boxes. `whole`: a step that trains all of the detector, for comparison.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from bench.detection.contract import Batch, HeadSpec
from bench.detection.losses import ExtraLoss
from bench.engines.torchvision.build import build
from bench.engines.torchvision.facts import head_widths
from bench.run.step import frozen
from benchmarks.step import C, batch_of, cpu_preset
from benchmarks.turns import command, in_turns, one_step
from methods.parts.distill import Features, Scores
from methods.parts.softmax import Softmax

LIMIT = 1.6  # most that a step with a teacher may cost of one without (issue 12)
UNIFIED = ("fpn", "classifier")


def main() -> int:
    """Measure and write; 1 where a teacher costs more than it may."""
    ratios = command("teacher", __doc__, measured, "one without")
    return 0 if ratios["both"] <= LIMIT else 1


def measured(device: str, steps: int) -> dict[str, Any]:
    """Seconds of a step of each kind, in turns; `ratio`: of medians, to the step without a teacher."""
    batch = batch_of(16, 128, 13, 34.0).to(device)
    kinds: dict[str, tuple[Sequence[str], Sequence[type[ExtraLoss]]]] = {
        "without": (UNIFIED, ()), "features": (UNIFIED, (Features,)), "scores": (UNIFIED, (Scores,)),
        "both": (UNIFIED, (Features, Scores)), "whole": ((), ()),
    }  # fmt: skip
    made = {name: trained(trainable, losses, device, batch) for name, (trainable, losses) in kinds.items()}
    return {"device": device, "steps": steps, "seconds": in_turns(made, steps, device, "without")}


def trained(
    trainable: Sequence[str], kinds: Sequence[type[ExtraLoss]], device: str, batch: Batch
) -> Callable[[int], None]:
    """A step of a student, its losses over one teacher, and its optimiser."""
    counts = (100,) * C
    head = HeadSpec(C, *head_widths(cpu_preset()), counts, counts, 1000, counts, counts)
    student, teacher = (build(cpu_preset(), head, Softmax(head), seed=seed).to(device) for seed in (0, 1))
    student.set_mode(trainable)
    frozen(teacher, device)
    losses = [kind(head, teacher=teacher).to(device) for kind in kinds]  # type: ignore[call-arg]
    learning = [p for p in student.parameters() if p.requires_grad]
    return functools.partial(one_step, student, losses, torch.optim.SGD(learning, 1e-4, momentum=0.9), [batch])


if __name__ == "__main__":
    sys.exit(main())
