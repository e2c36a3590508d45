"""Losses of contrast, the slow copy, the queue: checked values of methods.md 19, and what must hold for any rows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.detection.contract import Context
from bench.errors import StageError, UserError
from bench.frequency import ClassStatistics
from methods.parts import contrast
from methods.parts.aligndet import box_contrast
from methods.parts.drcl import Contrast, Rebalanced, random_boxes, rebalanced
from tests.methods.rois import head

TOY = json.loads((Path(__file__).parent / "toy_values.json").read_text())


def rows(number: int, width: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(number, width, generator=torch.Generator().manual_seed(seed))


def context(step: int = 0, progress: float = 0.0) -> Context:
    return Context(step, progress, torch.Generator())


# -- checked values


def test_infonce_and_cosine() -> None:
    toy = TOY["infonce"]
    q, k, negatives = (torch.tensor(toy[name], dtype=torch.float64) for name in ("q", "k", "negs"))
    assert contrast.infonce(q[None], k[None], negatives, toy["tau"]).item() == pytest.approx(toy["loss"], abs=1e-6)
    toy = TOY["byol_cosine"]
    p, z = torch.tensor([toy["p"]]), torch.tensor([toy["z"]])
    assert contrast.cosine(p, z).item() == pytest.approx(toy["loss_2_minus_2cos"], abs=1e-6)


def test_the_momentum_rises_along_a_cosine() -> None:
    toy = TOY["ema_cosine"]
    found = [contrast.momentum(toy["base"], progress) for progress in (0, 0.5, 1)]
    assert found == pytest.approx([toy["m_at_k0"], toy["m_at_half"], toy["m_at_end"]])


def test_the_contrast_of_boxes() -> None:
    toy = TOY["aligndet_box_contrast"]
    labels = torch.tensor(toy["labels"])
    online, target = torch.tensor(toy["online"]), torch.tensor(toy["target"])
    assert box_contrast(online, target, labels, labels, toy["tau"]).item() == pytest.approx(toy["loss"], abs=1e-6)
    order = torch.tensor([2, 0, 1])  # of rows, it has none; and another name for a label is the same label
    again = box_contrast(online[order], target, 7 - labels[order], 7 - labels, toy["tau"])
    assert again.item() == pytest.approx(toy["loss"], abs=1e-6)


def test_dynamic_rebalancing() -> None:
    toy = TOY["drb_house"]
    for epoch in (0, 6, 12):
        found = rebalanced(toy["f_img"], toy["f_box"], toy["t"], epoch / 12)
        assert found.tolist() == pytest.approx(toy[f"r_epoch{epoch}"])
    assert rebalanced([0.0, 0.5], [0.0, 0.5], 0.1, 0.3).tolist() == [1.0, 1.0]  # a class that is nowhere


def test_the_sampler_moves_from_images_to_boxes() -> None:
    """Class 1 is in 1 of 4 images with 1 of 9 boxes: t = 1 gives sqrt(1 / (1/4)) = 2, then sqrt(1 / (1/9)) = 3; class 0
    is in all images with 8 of 9 boxes: 1, then sqrt(9/8)."""
    stats = ClassStatistics.from_labels([[0, 0], [0, 0], [0, 0], [0, 0, 1]], 2)
    moving, images, boxes = (Rebalanced(stats, t=1.0, mode=mode) for mode in ("dynamic", "image", "instance"))
    for sampler in (moving, images, boxes):
        sampler.lasts(4)
    assert moving.factors(0).tolist() == images.factors(3).tolist() == pytest.approx([1, 1, 1, 2])
    assert boxes.factors(0).tolist() == pytest.approx([math.sqrt(9 / 8)] * 3 + [3])
    half = math.sqrt(1 / (0.5 / 4 + 0.5 / 9))
    assert moving.factors(2).tolist() == pytest.approx([math.sqrt(1 / (0.5 + 0.5 * 8 / 9))] * 3 + [half])
    assert moving.factors(9).tolist() == boxes.factors(0).tolist()  # beyond the end it stays there
    shown = [np.bincount(boxes.epoch(e, np.random.default_rng(e)), minlength=4) for e in range(200)]
    assert all(s[3] == 3 and set(s[:3]) <= {1, 2} for s in shown)
    assert np.mean(shown, axis=0)[:3] == pytest.approx(math.sqrt(9 / 8), abs=0.03)
    with pytest.raises(UserError, match="rebalancing"):
        Rebalanced(stats, mode="often")


# -- what holds for any rows


@given(st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_who_points_the_same_way_has_nothing_to_learn(number: int, seed: int) -> None:
    x = rows(number, seed=seed)
    assert contrast.cosine(3 * x, x).item() == pytest.approx(0.0, abs=1e-5)
    assert contrast.cosine(x, -x).item() == pytest.approx(4.0, abs=1e-5)
    none = x[:0]
    assert contrast.infonce(x, x, none, 0.2).item() == pytest.approx(0.0, abs=1e-6)
    one = torch.zeros(number, dtype=torch.int64)
    assert box_contrast(x, x, one, one, 0.5).item() == pytest.approx(0.0, abs=1e-6)  # no other label: no negatives
    for value in (contrast.cosine(none, none), contrast.infonce(none, none, x, 0.2)):
        assert value.item() == 0.0


def test_boxes_that_are_in_one_view_alone_give_nothing_and_no_nan() -> None:
    q = rows(3).requires_grad_()
    value = box_contrast(q, rows(2, seed=1), torch.tensor([0, 0, 1]), torch.tensor([2, 3]), 0.5)
    value.backward()  # type: ignore[no-untyped-call]
    assert value.item() == 0.0
    assert q.grad is not None
    assert torch.equal(q.grad, torch.zeros_like(q))
    one = rows(2).requires_grad_()
    box_contrast(one, rows(2), torch.zeros(2), torch.zeros(2), 0.5).backward()  # type: ignore[no-untyped-call]
    assert one.grad is not None
    assert one.grad.isfinite().all()


def test_alignment_uniformity_and_spread_by_hand() -> None:
    x, y = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert contrast.alignment(x, y).item() == pytest.approx((2 + 0) / 2)  # unit vectors: |(1,0) - (0,1)|^2 = 2
    assert contrast.uniformity(x).item() == pytest.approx(-4.0)  # log e^(-2 * 2)
    assert contrast.uniformity(x[:1]).item() == 0.0
    assert contrast.spread(x) == pytest.approx(math.sqrt(1 - 0.5))  # the mean is (1/2, 1/2)
    assert contrast.spread(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(1.0)


def test_a_collapse_is_said() -> None:
    same = torch.ones(5, 8)
    with pytest.raises(StageError, match="the holistic embeddings have collapsed at step 8: all 5 are one vector"):
        contrast.refuse_collapse(same * torch.arange(1.0, 6.0)[:, None], "holistic", context(step=7))
    contrast.refuse_collapse(same[:1], "holistic", context())  # of one row there is nothing to say
    contrast.refuse_collapse(same + 0.1 * rows(5, 8), "holistic", context())


def test_the_queue_overwrites_the_oldest() -> None:
    torch.manual_seed(0)
    queue = contrast.Queue(4, 2)
    assert queue.rows_MD.norm(dim=1).tolist() == pytest.approx([1.0] * 4)
    axes = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    begun = queue.rows_MD.clone()
    queue.push(axes)
    assert queue.rows_MD.tolist() == [[1, 0], [0, 1], [-1, 0], begun[3].tolist()]
    queue.push(axes[1:])  # the last place, then the first again
    assert queue.rows_MD.tolist() == [[-1, 0], [0, 1], [-1, 0], [0, 1]]
    assert queue.at.item() == 1
    queue.push(torch.cat((axes, axes)))  # six in a queue of four: the last four
    assert queue.at.item() == 1
    assert sorted(queue.rows_MD.tolist()) == sorted([[-1, 0], [1, 0], [0, 1], [-1, 0]])


def test_a_copy_follows_its_parameters_and_keeps_its_own_statistics() -> None:
    fast = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    slow = contrast.copied(fast)
    assert not any(p.requires_grad for p in slow.parameters())
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in slow.parameters()]
    slow(rows(6, 2))  # in train mode: its statistics move
    moved = slow.get_submodule("1").get_buffer("running_mean").clone()
    contrast.follow(slow, fast, 0.75)
    assert all(torch.allclose(new, old + 0.25) for new, old in zip(slow.parameters(), before, strict=True))
    assert torch.equal(slow.get_submodule("1").get_buffer("running_mean"), moved)


def test_the_mean_of_an_image_leaves_its_padding_out() -> None:
    cells = torch.arange(16.0).reshape(1, 1, 4, 4)
    inside = contrast.inside(cells, [(32, 20)], (32, 32))  # cells of 8 pixels: centres 4, 12, 20, 28; 20 is outside
    assert inside.tolist() == [[[True, True, False, False]] * 4]
    assert contrast.pooled(cells, inside).item() == pytest.approx(sum((0, 1, 4, 5, 8, 9, 12, 13)) / 8)


def test_random_boxes_have_the_sides_that_they_say() -> None:
    boxes = random_boxes(4000, (100, 200), torch.Generator().manual_seed(0))
    x1, y1, x2, y2 = boxes.T
    assert min(x1.min(), y1.min()) >= 0
    assert x2.max() <= 200.001
    assert y2.max() <= 100.001
    side = math.sqrt(100 * 200)
    root = ((x2 - x1) * (y2 - y1)).sqrt()
    assert root.max() <= 0.6 * side + 1e-3
    ratio = (y2 - y1) / (x2 - x1)
    assert 1 / 3 - 1e-3 <= ratio.min() < 0.5
    assert 2 < ratio.max() <= 3 + 1e-3
    uncut = (y2 - y1 < 99.9) & (x2 - x1 < 199.9)
    assert root[uncut].min() >= 0.08 * side - 1e-3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "moco"}, "no contrast 'moco'"), ({"source": "rpn"}, "no source of boxes 'rpn'"),
        ({"masked": 1.5}, "masked 1.5"), ({"rebalance": "often"}, "rebalancing 'often'"), ({"boxes": 0}, "boxes 0"),
        ({"momentum": 1.5}, "momentum is 1.5"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Contrast(head((5, 3, 1)), **given)  # type: ignore[arg-type]
