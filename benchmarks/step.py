"""What a training step costs, against the prototype and stock torchvision. Separate: a time is a measurement.

    python -m benchmarks.step --prototype PATH --out step.json      # CPU, one thread
    python -m benchmarks.step --device cuda --out step.json

A and B take turns step by step in one process, so that a load that others put on the machine falls on both; the CPU is
timed in process seconds. Images are noise with the embedded data's number and sizes of boxes. CPU: (a) the CPU preset
against the prototype's `det.py` (skipped without --prototype), (b) ResNet-18-FPN at 320 px against torchvision's
FasterRCNN with the same RoI counts (it also normalises its images, a few ms). CUDA: images per second of (b) and of
ResNet-50-FPN at 800 px, both in bfloat16.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
import yaml
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import TwoMLPHead

from bench.detection.contract import Batch, Context, Draws, HeadSpec
from bench.engines.sections import Roi, Rpn, TwoStage
from bench.engines.torchvision.build import build
from bench.engines.torchvision.facts import head_widths
from benchmarks.measured import write
from methods.parts.softmax import Softmax

C = 80
PRESET = Path(__file__).resolve().parent.parent / "suites" / "_presets" / "cpu.yaml"
Step = Callable[[int], object]


def cpu_preset() -> TwoStage:
    return TwoStage.model_validate(yaml.safe_load(PRESET.read_text())["detector"])


def pyramid(trunk: str, norm: str, proposals: int, rois: int) -> TwoStage:
    """torchvision's detector with its defaults but for the numbers of proposals and RoIs."""
    rpn = Rpn(
        pre_nms_train=2 * proposals, post_nms_train=proposals, pre_nms_test=2 * proposals, post_nms_test=proposals
    )
    return TwoStage.model_validate(
        {"trunk": trunk, "norm": norm, "frozen_stages": 0, "rpn": rpn, "roi": Roi(samples=rois, beta=1 / 9)}
    )


def batch_of(images: int, side: int, objects: int, longest: float) -> Batch:
    """Noise images with boxes whose long sides go up to `longest` pixels."""
    draw = torch.Generator().manual_seed(0)
    boxes, labels = [], []
    for _ in range(images):
        size = longest * (0.3 + 0.7 * torch.rand(objects, 2, generator=draw))
        corner = torch.rand(objects, 2, generator=draw) * (side - size)
        boxes.append(torch.cat((corner, corner + size), 1))
        labels.append(torch.randint(C, (objects,), generator=draw))
    none = [torch.zeros(0, dtype=torch.int64)] * images
    ignore = [torch.zeros(objects, dtype=torch.bool)] * images
    noise = torch.randn(images, 3, side, side, generator=draw)
    sizes = [(side, side)] * images
    return Batch(noise, sizes, boxes, labels, ignore, none, list(range(images)), [(1.0, 1.0)] * images, sizes)


def our_step(detector: TwoStage, batch: Batch, device: str, *, channels_last: bool, bfloat16: bool) -> Step:
    """A full step of ours: forward, losses, backward, SGD."""
    counts = (1,) * C
    head = HeadSpec(C, *head_widths(detector), counts, counts, C, counts, counts)
    model = build(detector, head, Softmax(head), seed=0).to(device)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    batch = batch.to(device)
    images = batch.images.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    batch = Batch(**{**batch.__dict__, "images": images})
    optimiser = torch.optim.SGD(model.parameters(), 0.001, momentum=0.9)
    context = Context(0, 0.0, torch.Generator())

    def step(number: int) -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            out = model.train_forward(batch, Draws(0, 0, number), trunk_losses=True)
            own = model.classifier.loss(model.classifier(out.taps), out.targets, context)
            losses = [*out.losses.values(), *own.values()]
        optimiser.zero_grad()
        torch.autograd.backward(torch.stack(losses).sum())
        optimiser.step()

    return step


def stock_step(detector: TwoStage, batch: Batch, device: str, *, bfloat16: bool) -> Step:
    """A full step of torchvision's FasterRCNN with the same numbers of anchors, proposals and RoIs."""
    rpn, roi = detector.rpn, detector.roi
    norm = nn.BatchNorm2d if detector.norm == "batch" else torchvision.ops.FrozenBatchNorm2d
    name = detector.trunk.removesuffix("_fpn")
    backbone = resnet_fpn_backbone(backbone_name=name, weights=None, norm_layer=norm, trainable_layers=5)
    side = batch.images.shape[-1]
    model = FasterRCNN(
        backbone, C + 1, min_size=side, max_size=side,
        rpn_anchor_generator=AnchorGenerator(rpn.anchor_sizes, (rpn.anchor_ratios,) * len(rpn.levels)),
        rpn_pre_nms_top_n_train=rpn.pre_nms_train, rpn_post_nms_top_n_train=rpn.post_nms_train,
        box_batch_size_per_image=roi.samples, box_head=TwoMLPHead(detector.fpn_channels * roi.pool**2, roi.width),
    ).to(device)  # fmt: skip
    batch = batch.to(device)
    images = list(batch.images)
    targets = [{"boxes": b, "labels": y + 1} for b, y in zip(batch.boxes, batch.labels, strict=True)]
    optimiser = torch.optim.SGD(model.parameters(), 0.001, momentum=0.9)

    def step(_: int) -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            losses = model(images, targets)
        optimiser.zero_grad()
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        optimiser.step()

    return step


def prototype_step(folder: str, batch: Batch, *, channels_last: bool) -> Step:
    """A full step of the prototype in its base configuration."""
    sys.path.insert(0, folder)
    import det  # type: ignore[import-not-found]

    torch.manual_seed(0)
    model = det.Det(C, 128, sizes=(12, 20, 32))
    if channels_last:
        model.trunk.to(memory_format=torch.channels_last)
    pixels = (batch.images * 64 + 118).clamp(0, 255).to(torch.uint8)
    if channels_last:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    boxes, labels = torch.stack(batch.boxes), torch.stack(batch.labels)
    valid = torch.ones(labels.shape, dtype=torch.bool)
    optimiser = torch.optim.SGD(model.parameters(), 0.001, momentum=0.9)

    def step(_: int) -> None:
        losses = model.losses(pixels, boxes, labels, valid)
        optimiser.zero_grad()
        sum(losses).backward()
        optimiser.step()

    return step


def alternate(steps: dict[str, Step], rounds: int, device: str, warm: int = 3) -> dict[str, float]:
    """Median seconds of each step; they take turns, in an order that turns round every round."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + warm):
        for name in list(steps) if number % 2 else list(reversed(steps)):
            if device == "cuda":
                torch.cuda.synchronize()
            start = clock()
            steps[name](number)
            if device == "cuda":
                torch.cuda.synchronize()
            if number >= warm:
                times[name].append(clock() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def compare(name: str, steps: dict[str, Step], images: int, rounds: int, device: str) -> dict[str, Any]:
    medians = alternate(steps, rounds, device)
    ours = medians["ours"]
    others = {key: ours / value for key, value in medians.items() if key != "ours"}
    shown = "  ".join(f"{key} {value * 1000:.1f} ms ({images / value:.1f} img/s)" for key, value in medians.items())
    print(f"{name}: {shown}", *(f" ours/{key} = {ratio:.3f}" for key, ratio in others.items()), flush=True)
    return {"name": name, "images": images, "rounds": rounds, "seconds": medians, "ratio": others}


def on_cpu(prototype: str | None, rounds: int) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    found = []
    batch = batch_of(16, 128, 13, 34.0)
    for layout in ("contiguous", "channels_last"):
        last = layout == "channels_last"
        steps = {"ours": our_step(cpu_preset(), batch, "cpu", channels_last=last, bfloat16=False)}
        if prototype:
            steps["prototype"] = prototype_step(prototype, batch, channels_last=last)
        found.append(compare(f"CPU preset, 128 px, batch 16, {layout}", steps, 16, rounds, "cpu"))
    detector, batch = pyramid("resnet18_fpn", "batch", 256, 128), batch_of(2, 320, 20, 90.0)
    steps = {
        "ours": our_step(detector, batch, "cpu", channels_last=False, bfloat16=False),
        "torchvision": stock_step(detector, batch, "cpu", bfloat16=False),
    }
    found.append(compare("ResNet-18-FPN, 320 px, batch 2", steps, 2, max(3, rounds // 2), "cpu"))
    return found


def on_cuda(rounds: int) -> list[dict[str, Any]]:
    found = []
    for trunk, norm, side, images, proposals, rois, objects in (
        ("resnet18_fpn", "batch", 320, 64, 256, 128, 20),
        ("resnet50_fpn", "frozen", 800, 16, 2000, 512, 12),
    ):
        detector, batch = pyramid(trunk, norm, proposals, rois), batch_of(images, side, objects, side * 0.28)
        steps = {
            "ours": our_step(detector, batch, "cuda", channels_last=True, bfloat16=True),
            "torchvision": stock_step(detector, batch, "cuda", bfloat16=True),
        }
        found.append(compare(f"{trunk}, {side} px, batch {images}, bfloat16", steps, images, rounds, "cuda"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--prototype", help="folder with the prototype's det.py")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    cuda = arguments.device == "cuda"
    results = on_cuda(arguments.rounds) if cuda else on_cpu(arguments.prototype, arguments.rounds)
    if arguments.out:
        write(arguments.out, "step", sys.argv[1:], {"device": arguments.device, "results": results})


if __name__ == "__main__":
    main()
