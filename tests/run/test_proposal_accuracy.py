"""Proposal accuracy from a trunk's output to ACC, ACC1..4 and ACCbg, with every number worked out by hand.

Four classes, one in each instance bin; two images in one batch, in the other order than in the split, the second one
shown at half its size. A swapped column, bin, image or scale gives other numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from bench.data.split import Category, Image, Split
from bench.detection.contract import BatchGeometry, HeadSpec, PredictOutput, Taps
from bench.detection.postprocess import detections
from bench.evaluation.stored import PROPOSALS
from bench.record import points
from bench.run import predict
from bench.run.evaluate import proposal_accuracy
from bench.run.predict import Head, predict_batch
from bench.run.work import Work
from bench.spec import Inference
from methods.parts.softmax import Softmax

COUNTS = (5, 50, 500, 5000)  # training instances: one class per bin
BG = 4
# (image in the split, x1 y1 x2 y2 in pixels of the shown image, class it decides for, class it is)
PROPOSALS_OF_BATCH = [
    (1, (10, 10, 30, 30), 3, 2),  # at twice the size the box of class 2
    (1, (50, 50, 90, 90), 3, 3),
    (1, (50, 50, 90, 88), 3, 3),
    (1, (50, 50, 90, 86), BG, 3),
    (1, (0, 0, 5, 5), BG, BG),
    (1, (0, 50, 10, 60), BG, BG),
    (0, (10, 10, 30, 30), 0, 0),
    (0, (10, 10, 30, 28), BG, 0),  # IoU 0.9
    (0, (50, 50, 90, 90), 1, 1),
    (0, (0, 60, 20, 80), BG, BG),
    (0, (60, 0, 80, 20), 0, BG),  # only a box to ignore lies there
    (0, (10, 10, 30, 19), 0, BG),  # IoU 0.45
]


@dataclass
class Out:
    """What is read of a Work when outputs are written."""

    out: Path


class NoPixels:
    """A PixelSource: ACC reads boxes alone."""

    def read(self, row: int) -> np.ndarray:
        raise AssertionError(row)


def split() -> Split:
    boxes = [[[10, 10, 30, 30], [50, 50, 90, 90], [60, 0, 80, 20]], [[20, 20, 60, 60], [100, 100, 180, 180]]]
    return Split(
        categories=tuple(Category(i + 1, f"class{i}", "f", n, n) for i, n in enumerate(COUNTS)),
        images=(Image(1, "a.jpg", 100, 100), Image(2, "b.jpg", 200, 200)),
        boxes=[np.array(b, np.float32) for b in boxes],
        labels=[np.array([0, 1, 3]), np.array([2, 3])],
        ignore=[np.array([False, False, True]), np.array([False, False])],
        annotated=[np.zeros((3, 5)), np.zeros((2, 5))],
        annotation_ids=[np.arange(3), np.arange(2)],
        source=NoPixels(),  # type: ignore[arg-type]
        rows=np.arange(2),
    )


def classifier() -> Softmax:
    """Its logits are its features."""
    head = HeadSpec(4, 5, (1, 1, 1), COUNTS, COUNTS, 100, COUNTS, COUNTS, (10, 100, 1000), 0.01)
    made = Softmax(head)
    with torch.no_grad():
        made.fc.weight.copy_(torch.eye(5))
        made.fc.bias.zero_()
    return made


def test_acc_from_a_trunks_output(tmp_path: Path) -> None:
    frame = BatchGeometry(sizes=[(100, 100), (100, 100)], scale=[(0.5, 0.5), (1.0, 1.0)], image_index=[1, 0])
    boxes = torch.tensor([box for _, box, _, _ in PROPOSALS_OF_BATCH], dtype=torch.float32)
    z_NK = torch.zeros(len(boxes), 5)
    for row, (_, _, decided, _) in enumerate(PROPOSALS_OF_BATCH):
        z_NK[row, decided] = 1.0
    image_N = torch.tensor([frame.image_index.index(image) for image, *_ in PROPOSALS_OF_BATCH])
    out = PredictOutput(Taps(z_NK), boxes, boxes, image_N)
    made = classifier()
    found, decided = predict_batch(made, out, frame, Inference(), detections)
    assert decided.tolist() == [d for _, _, d, _ in PROPOSALS_OF_BATCH]
    fields = {name: getattr(found, name) for name in predict.FIELDS}
    head = Head(cast(Work, Out(tmp_path)), made, [fields], [decided])
    predict._write(head, [predict._proposals(out, frame)])

    acc = proposal_accuracy(split(), tmp_path / PROPOSALS, (10, 100, 1000))
    assert acc.proposals_per_bin == (2, 1, 1, 3, 5)
    assert points(acc.metrics()) == pytest.approx(
        {"ACC": 100 * 7 / 12, "ACC1": 50, "ACC2": 100, "ACC3": 0, "ACC4": 100 * 2 / 3, "ACCbg": 60}
    )
