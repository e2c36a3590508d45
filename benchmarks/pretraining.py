"""What a step of pre-training costs beside a step of the detector.

    python -m benchmarks.pretraining --out benchmarks/results/pretraining-cpu.json
    python -m benchmarks.pretraining --device cuda --out FILE

The CPU preset's detector. Steps take turns in one process: the detector's own, then 2DRCL's losses one after the
other, all of them, SoCo's and AlignDet's; the CPU is timed in process seconds. Images are noise with the embedded
data's number and sizes of boxes; the views are other noise with the same boxes, and are not made anew in each step.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from bench.detection.contract import Batch, HeadSpec
from bench.detection.losses import ExtraLoss
from bench.engines.torchvision.build import build
from bench.engines.torchvision.facts import head_widths
from benchmarks.step import C, batch_of, cpu_preset
from benchmarks.turns import command, in_turns, one_step
from methods.parts.aligndet import BoxContrast
from methods.parts.drcl import Appearance, Contrast
from methods.parts.softmax import Softmax

LIMIT = 2.5  # most that a step of pre-training may cost of one of the detector (issue 13)
FEATURES = ("backbone", "fpn", "box_head")
HOLISTIC: Mapping[str, Any] = {"local": 0.0, "semantic": 0.0}
# name -> (groups that learn, the detector's own losses too, the others)
KINDS: Mapping[str, tuple[Sequence[str], bool, Sequence[tuple[type[ExtraLoss], Mapping[str, Any]]]]] = {
    "detector": ((), True, ()),
    "HCL": (FEATURES, False, ((Contrast, HOLISTIC),)),
    "+ LCL": (FEATURES, False, ((Contrast, {"semantic": 0.0}),)),
    "+ AR": (FEATURES, False, ((Contrast, {"semantic": 0.0}), (Appearance, {}))),
    "2DRCL": (FEATURES, False, ((Contrast, {}), (Appearance, {}))),
    "SoCo": (FEATURES, False, ((Contrast, {"holistic": 0.0, "semantic": 0.0, "boxes": 4, "source": "random"}),)),
    "AlignDet": (FEATURES[1:], True, ((BoxContrast, {}),)),
}


def main() -> int:
    """Measure and write; 1 where a step of pre-training costs more than it may."""
    ratios = command("pretraining", __doc__, measured, "the detector's")
    return 0 if max(ratios.values()) <= LIMIT else 1


def measured(device: str, steps: int) -> dict[str, Any]:
    """Seconds of a step of each kind, in turns; `ratio`: of medians, to the detector's own."""
    plain = batch_of(16, 128, 13, 34.0)
    plain = replace(plain, placed=[(1.0, 0.0, 1.0, 0.0)] * len(plain.boxes))
    draw = torch.Generator().manual_seed(1)
    others = [replace(plain, images=torch.randn(plain.images.shape, generator=draw)) for _ in range(2)]
    batches = [one.to(device) for one in (plain, *others)]
    made = {name: trained(kind, device, batches) for name, kind in KINDS.items()}
    return {"device": device, "steps": steps, "seconds": in_turns(made, steps, device, "detector")}


def trained(
    kind: tuple[Sequence[str], bool, Sequence[tuple[type[ExtraLoss], Mapping[str, Any]]]],
    device: str,
    batches: Sequence[Batch],
) -> Callable[[int], None]:
    """A step of a detector, its losses, and its optimiser."""
    trainable, detection, parts = kind
    counts = (100,) * C
    head = HeadSpec(C, *head_widths(cpu_preset()), counts, counts, 1000, counts, counts)
    student = build(cpu_preset(), head, Softmax(head), seed=0).to(device)
    student.set_mode(trainable)
    losses = []
    for part, settings in parts:
        loss = part(head, **settings)
        loss.begin(student)
        losses.append(loss.to(device).train())
    learning = [p for module in (student, *losses) for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(learning, 1e-4, momentum=0.9)
    return functools.partial(one_step, student, losses, optimiser, batches, detection=detection)


if __name__ == "__main__":
    sys.exit(main())
