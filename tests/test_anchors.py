"""Anchors beside the boxes of a data set, before anything is trained."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from data.photographs import Document, make_folder
from torchvision.models.detection.rpn import AnchorGenerator

from bench.data.folder import inspect
from bench.engines.facts import facts
from bench.engines.sections import TwoStage
from bench.plan.anchors import anchors_note, misfits
from bench.spec import FolderData, Input

Call = Callable[..., Any]


def test_the_share_that_no_anchor_overlaps_by_hand() -> None:
    """IoU of boxes of one centre: 8 x 8 in 32 x 32 is 64 / 1024; 20 x 20 is 0.39; 16 x 64 in 32 x 32 is 512 / 1536."""
    assert misfits([(8.0, 8.0), (20.0, 20.0)], [(32.0, 32.0)], 0.3) == 0.5
    assert misfits([(16.0, 64.0)], [(32.0, 32.0)], 1 / 3 - 1e-9) == 0.0
    assert misfits([(16.0, 64.0)], [(32.0, 32.0)], 1 / 3 + 1e-9) == 1.0
    assert misfits([(8.0, 8.0)], [(32.0, 32.0), (10.0, 10.0)], 0.3) == 0.0
    assert misfits([], [(32.0, 32.0)], 0.3) == misfits([(8.0, 8.0)], [], 0.3) == 0.0


def test_anchors_are_those_of_torchvision() -> None:
    detector = TwoStage()
    generated = AnchorGenerator(detector.rpn.anchor_sizes, (detector.rpn.anchor_ratios,) * 5).cell_anchors
    sides = torch.cat([of_level[:, 2:] - of_level[:, :2] for of_level in generated])
    anchors, iou = facts(detector.engine).anchors(detector)
    assert iou == 0.3
    assert (torch.tensor(anchors) - sides).abs().max() <= 1.0  # it rounds each half to whole pixels


def test_boxes_are_measured_after_the_resize() -> None:
    """20 x 20 of a 400 x 200 image at a short side of 800 is 80 x 80; at 100 it is 10 x 10."""
    detector = TwoStage()
    sides = [(20.0, 20.0, 400, 200)]
    assert anchors_note(sides, Input(min_size=800, max_size=1600), detector) is None
    note = anchors_note(sides, Input(min_size=100, max_size=200), detector)
    assert note is not None
    assert note.startswith("100% of the training boxes (1 were looked at) overlap every anchor by less than 0.3")
    assert "median side is 10 px" in note
    assert note.endswith("with --set 'detector.rpn.anchor_sizes=[[10],[10],[10],[10],[10]]' it is 0%")


def test_from_the_share_on_that_is_named() -> None:
    """One of five is said, one of six is not; what no size of anchors would mend is said without a proposal."""
    small, fitting = (5.0, 5.0, 100, 100), (40.0, 40.0, 100, 100)
    settings, detector = Input(min_size=100, max_size=100), TwoStage()
    assert anchors_note([small, *[fitting] * 4], settings, detector) is not None
    assert anchors_note([small, *[fitting] * 5], settings, detector) is None
    note = anchors_note([(2.0, 90.0, 100, 100)] * 3, settings, detector)
    assert note is not None
    assert "anchor_sizes" not in note


def small_boxes(document: Document) -> None:
    for annotation in document["annotations"]:
        annotation["bbox"][2:] = [4, 4]
        annotation["area"] = 16


def test_plan_says_it_and_what_it_proposes_is_taken(tmp_path: Path, call: Call, write: Call) -> None:
    folder = make_folder(tmp_path / "photos", train=small_boxes)
    suite = write("rows: {baseline: {method: baseline}}\n")
    options = ["plan", suite, "--data", folder, "--set", "data.negatives=optional"]
    said = call(*options)
    assert said.code == 0, said.err
    (note,) = [line for line in said.out.splitlines() if "overlap every anchor" in line]
    proposed = shlex.split(note[note.index("--set ") :])[1]
    mended = call(*options, "--set", proposed)
    assert mended.code == 0, mended.err
    assert "overlap every anchor" not in mended.out


@pytest.mark.parametrize(("count", "sampled"), [(3, 3), (2000, 2000), (5001, 1667)])
def test_sides_are_a_sample_from_the_whole_file(count: int, sampled: int, tmp_path: Path) -> None:
    def many(document: Document) -> None:
        (first, *_) = document["annotations"]
        made = [first | {"id": n + 1, "bbox": [0, 0, 1 + n / count, 2.0], "area": 1.0} for n in range(count)]
        document["annotations"] = made

    folder = make_folder(tmp_path / "photos", train=many)
    sides = inspect(FolderData(name="coco", path=str(folder)), "train").sides
    assert len(sides) == sampled
    assert [side[0] for side in sides[:2]] == [1.0, 1 + -(-count // 2000) / count]
    assert sides[-1][0] > 1 + 1 - 1e-3 - 1 / count
    assert {side[1:] for side in sides} == {(2.0, 64, 48)}
