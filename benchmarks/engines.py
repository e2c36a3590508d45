"""What an engine of ours costs beside the library that it is made of, or written after.

    python -m benchmarks.engines --out benchmarks/results/engines-cpu.json
    python -m benchmarks.engines --device cuda --out FILE

detectron2 (where it is installed): a training step of the engine and one of plain detectron2, assembled by its own
functions and trained by a plain loop, ResNet-18 and -50 at 320 px; on a GPU ResNet-50 at 800 px, 16 images, bfloat16.
Deformable DETR: a training step of the engine and a forward pass with losses and backward of Hugging Face's of the same
sizes (theirs does not train its proposals). In turns in one process; a CPU is timed in process seconds, by one thread.
The other side of each pair is the one that the parity tests compare with (tests/engines/*_oracle.py).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.detection.contract import Batch, Context, Draws
from bench.engines.facts import ENGINES
from benchmarks.measured import ROOT, write
from benchmarks.step import batch_of
from benchmarks.turns import in_turns

LIMIT = 1.05  # most that a step in detectron2 may cost of plain detectron2's (issue 14)
SIZES = {"width": 96, "heads": 8, "ffn": 192, "layers": 3, "queries": 60}  # about those of preset cpu-detr
Step = Callable[[int], None]


def main() -> int:
    """Measure and write; 1 where a step in detectron2 costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = measured(asked.device, asked.steps)
    for pair in found["pairs"]:
        for kind, one in pair["seconds"].items():
            print(f"{pair['name']}: {kind:5} median {one['median']:.4f} s, {one['ratio']:.3f} of plain")
    for name, why in found["skipped"].items():
        print(f"{name}: not measured, {why}")
    if asked.out is not None:
        write(asked.out, "engines", sys.argv[1:], found)
    ratios = [pair["seconds"]["ours"]["ratio"] for pair in found["pairs"] if pair["engine"] == "detectron2"]
    return 1 if any(ratio > LIMIT for ratio in ratios) else 0


def measured(device: str, steps: int) -> dict[str, Any]:
    """Seconds of a step of each side of each pair; `ratio`: of medians, to the library's."""
    sys.path[:0] = [str(ROOT / "tests" / "engines")]
    why = ENGINES["detectron2"].absent()
    pairs: list[dict[str, Any]] = []
    if why is None:
        for trunk, side, images in _sizes(device):
            kinds = in_detectron2(trunk, batch_of(images, side, 20, 0.28 * side), device)
            name = f"detectron2, {trunk}, {side} px, {images} images"
            pairs.append({"engine": "detectron2", "name": name, "seconds": in_turns(kinds, steps, device, "plain")})
    kinds = deformable_detr(device)
    pairs.append({"engine": "detr", "name": "Deformable DETR", "seconds": in_turns(kinds, steps, device, "plain")})
    return {"device": device, "steps": steps, "pairs": pairs, "skipped": {} if why is None else {"detectron2": why}}


def _sizes(device: str) -> list[tuple[str, int, int]]:
    return [("resnet18_fpn", 320, 2), ("resnet50_fpn", 320, 2)] if device == "cpu" else [("resnet50_fpn", 800, 16)]


def in_detectron2(trunk: str, batch: Batch, device: str) -> dict[str, Step]:
    """A step of ours, and one of plain detectron2 with the same settings and weights."""
    import detectron2_oracle as oracle  # type: ignore[import-not-found]
    from detectron2.utils.events import EventStorage

    labels = [label % oracle.CLASSES for label in batch.labels]
    batch = Batch(**{**batch.__dict__, "labels": labels})
    rpn = {"pre_nms_train": 512, "post_nms_train": 256, "samples": 256}
    wide = {"rpn": rpn, "roi": {"samples": 128, "width": 1024}}
    ours, plain = oracle.pair(oracle.spec(trunk, **wide))
    for model in (ours, plain):
        model.to(device).train()
    here, theirs = batch.to(device), oracle.inputs(batch.to(device))
    rates = [torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9) for model in (ours, plain)]

    def step(number: int) -> None:
        out = ours.train_forward(here, Draws(0, 0, number), trunk_losses=True)
        own = ours.classifier.loss(ours.classifier(out.taps), out.targets, Context(number, 0.0, torch.Generator()))
        _learn([*out.losses.values(), *own.values()], rates[0])

    def plain_step(number: int) -> None:
        with EventStorage(number):
            _learn([*plain(theirs).values()], rates[1])

    return {"plain": _in_bfloat16(plain_step, device), "ours": _in_bfloat16(step, device)}


def deformable_detr(device: str) -> dict[str, Step]:
    """A step of ours, and one of Hugging Face's network of the same sizes."""
    import detr_oracle as oracle  # type: ignore[import-not-found]

    sizes = oracle.Sizes(**SIZES)
    theirs, ours = oracle.theirs(sizes=sizes), oracle.ours(None, sizes=sizes)
    batch = batch_of(8, 128, 13, 34.0)
    batch = Batch(**{**batch.__dict__, "labels": [label % oracle.C for label in batch.labels]}).to(device)
    for name, parameter in ours.named_parameters():  # theirs leaves these as they are
        if name.startswith("backbone."):
            parameter.requires_grad_(False)
    for model in (ours, theirs):
        model.to(device).train()
    targets = oracle.their_targets(batch)
    rates = [torch.optim.AdamW(model.parameters(), 1e-5) for model in (ours, theirs)]

    def step(number: int) -> None:
        out = ours.train_forward(batch, Draws(0, 0, number), trunk_losses=True)
        with torch.no_grad():
            p_NC = ours.classifier.scores(ours.classifier(out.taps))[0]
        out = ours.assign(out, lambda: p_NC)
        own = ours.classifier.loss(ours.classifier(out.taps), out.targets, Context(number, 0.0, torch.Generator()))
        _learn([*out.losses.values(), *own.values()], rates[0])

    def plain_step(_: int) -> None:
        _learn([theirs(batch.images, labels=targets).loss], rates[1])

    return {"plain": plain_step, "ours": step}


def _learn(losses: list[torch.Tensor], optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    torch.autograd.backward(torch.stack(losses).sum())
    optimiser.step()


def _in_bfloat16(step: Step, device: str) -> Step:
    def run(number: int) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            step(number)

    return step if device == "cpu" else run


if __name__ == "__main__":
    sys.exit(main())
