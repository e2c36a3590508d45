"""How fast is growing post-processing? Separate from the tests because a time is a measurement, not a truth.

    python -m benchmarks.postprocess --out benchmarks/results/postprocess.json

The CPU default, then 1000 proposals x 80 and x 1203 classes; `plain` is torchvision's NMS class by class. Scores are
synthetic: proposals cluster around objects, each object has a few likely classes, the rest is a softmax tail, so that
most (proposal, class) pairs are above a threshold of 1e-4, as in a detector with a long tail.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor

from bench.detection.postprocess import postprocess
from bench.spec import Inference
from benchmarks.measured import write


def scene(images: int, proposals: int, C: int, side: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(p_NC, class-agnostic boxes N x 4, image_N) of a batch of synthetic images."""
    draw = torch.Generator().manual_seed(seed)
    N = images * proposals
    objects = max(proposals // 20, 3)
    of = torch.randint(0, objects, (N,), generator=draw)
    center = torch.rand(images, objects, 2, generator=draw) * side
    extent = (0.05 + 0.3 * torch.rand(images, objects, 2, generator=draw)) * side
    image_N = torch.arange(images).repeat_interleave(proposals)
    size = extent[image_N, of] * (1 + 0.2 * torch.randn(N, 2, generator=draw)).clamp(0.3, 2)
    middle = center[image_N, of] + 0.15 * size * torch.randn(N, 2, generator=draw)
    z_NC = 1.5 * torch.randn(images, objects, C, generator=draw)[image_N, of] + torch.randn(N, C, generator=draw)
    return z_NC.softmax(1), torch.cat([middle - size / 2, middle + size / 2], 1), image_N


def plain(p_NC: Tensor, boxes: Tensor, image_N: Tensor, num_images: int, side: int, test: Inference) -> list[Tensor]:
    """Full per-class NMS with torchvision, one class at a time; scores of the final boxes of each image."""
    final = []
    for i in range(num_images):
        p, b = p_NC[image_N == i], boxes[image_N == i].clamp(0, side)
        wide = ((b[:, 2:] - b[:, :2]) >= 1e-2).all(1)
        scores = []
        for c in range(p.shape[1]):
            rows = ((p[:, c] > test.score_threshold) & wide).nonzero().squeeze(1)
            scores.append(p[rows, c][torchvision.ops.nms(b[rows], p[rows, c], test.nms)])
        final.append(torch.cat(scores).sort(descending=True).values[: test.max_detections])
    return final


def best_of(repeat: int, work: Callable[[], object]) -> float:
    """Least CPU time of several runs, seconds; one thread."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def compare(images: int, proposals: int, C: int, side: int, repeat: int) -> dict[str, Any]:
    """The time of both ways, seconds.

    Raises:
        AssertionError: they do not keep the same boxes.
    """
    test = Inference()
    p_NC, boxes, image_N = scene(images, proposals, C, side, seed=0)
    sizes = [(side, side)] * images

    def growing() -> object:
        return postprocess(p_NC, boxes, image_N, images, sizes, test)

    fast = best_of(repeat, growing)
    slow = best_of(1 if C > 200 else repeat, lambda: plain(p_NC, boxes, image_N, images, side, test))
    found = postprocess(p_NC, boxes, image_N, images, sizes, test)
    for i, expected in enumerate(plain(p_NC, boxes, image_N, images, side, test)):
        assert torch.equal(found.scores[found.image == i], expected), f"image {i} differs"
    above = float((p_NC > test.score_threshold).float().mean())
    print(
        f"{images} images x {proposals} proposals x {C} classes ({above:.0%} above the threshold): "
        f"growing {1e3 * fast:.1f} ms, plain {1e3 * slow:.0f} ms, {slow / fast:.0f}x",
        flush=True,
    )
    return {
        "images": images, "proposals": proposals, "classes": C, "above_threshold": above,
        "growing": fast, "plain": slow, "plain_over_growing": slow / fast,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = ((16, 64, 80, 128), (2, 1000, 80, 800), (2, 1000, 1203, 800))
    cases = [compare(*size, arguments.repeat) for size in sizes]
    if arguments.out:
        write(arguments.out, "postprocess", sys.argv[1:], {"unit": "CPU seconds, best of several runs", "cases": cases})


if __name__ == "__main__":
    main()
