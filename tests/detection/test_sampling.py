"""Matching and sampling: torchvision's rules, addressed draws, ignored boxes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from bench.detection.contract import Draws
from bench.detection.sampling import IGNORE_IOU, Matched, draw, match

NONE = torch.zeros(0, 4)


def boxes(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 40, (count, 2), generator=generator).float()
    return torch.cat((corner, corner + torch.randint(4, 30, (count, 2), generator=generator)), 1)


def labelled(positive: int, negative: int) -> Matched:
    total = positive + negative
    return Matched(
        torch.zeros(total, dtype=torch.int64), torch.arange(total) < positive, torch.arange(total) >= positive
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), truths=st.integers(1, 6), low=st.sampled_from([0.3, 0.5]), rescue=st.booleans())
def test_matching_equals_torchvision(seed: int, truths: int, low: float, rescue: bool) -> None:
    """Integer coordinates make ties common. Only true boxes that touch some anchor: see the next test."""
    anchors, truth = boxes(60, seed), boxes(truths, seed + 1)
    overlap = box_iou(truth, anchors)
    truth = truth[overlap.amax(1) > 0]
    got = match(anchors, truth, NONE, high=0.6, low=low, rescue=rescue)
    if not len(truth):
        assert got.negative_N.all()
        return
    expected = Matcher(0.6, low, allow_low_quality_matches=rescue)(box_iou(truth, anchors))
    assert torch.equal(got.positive_N, expected >= 0)
    assert torch.equal(got.negative_N, expected == Matcher.BELOW_LOW_THRESHOLD)
    assert torch.equal(got.index_N[got.positive_N], expected[expected >= 0])


def test_a_true_box_that_meets_no_anchor_rescues_none() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 15]])
    far = torch.tensor([[500.0, 500, 510, 510]])
    assert match(anchors, far, NONE, high=0.7, low=0.3, rescue=True).negative_N.all()


def test_ignored_boxes_silence_only_what_no_true_box_claims() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 19], [50, 50, 60, 60], [0, 0, 10, 21]])
    ignored, truth = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[50.0, 50, 60, 60]])
    got = match(anchors, truth, ignored, high=0.5, low=0.5)
    assert got.positive_N.tolist() == [False, False, True, False]
    assert got.negative_N.tolist() == [False, False, False, True]  # IoU 1, 10/19, 0, 10/21 around IGNORE_IOU
    assert IGNORE_IOU == 0.5
    claimed = match(anchors, ignored, ignored, high=0.5, low=0.5)
    assert claimed.positive_N.tolist() == [True, True, False, False]
    assert not match(anchors[:1], NONE, ignored, high=0.5, low=0.5).negative_N.any()


@settings(max_examples=60, deadline=None)
@given(
    positive=st.integers(0, 40), negative=st.integers(0, 200), count=st.integers(1, 64),
    fraction=st.sampled_from([0.0, 0.25, 0.4, 0.5, 1.0]), step=st.integers(0, 5),
)  # fmt: skip
def test_draw_counts_and_membership(positive: int, negative: int, count: int, fraction: float, step: int) -> None:
    matched = labelled(positive, negative)
    hit, miss = draw(matched, count, fraction, Draws(0, 0, step).generator("roi_sample", 0))
    assert len(hit) == min(positive, int(count * fraction))
    assert len(miss) == min(negative, count - len(hit))
    assert matched.positive_N[hit].all()
    assert matched.negative_N[miss].all()
    for chosen in (hit, miss):
        assert torch.equal(chosen, torch.unique(chosen))  # ascending, no repeats


@pytest.mark.parametrize("negative", [300, 50_000])
def test_same_address_same_samples_other_address_other_samples(negative: int) -> None:
    matched = labelled(0, negative)

    def at(step: int, index: int = 0, seed: int = 0, phase: int = 0, role: str = "rpn_sample") -> list[int]:
        generator = Draws(seed, phase, step).generator(role, index)
        return draw(matched, 64, 0.5, generator)[1].tolist()

    first = at(3)
    assert first == at(3)
    others = [at(4), at(3, index=1), at(3, seed=1), at(3, phase=1), at(3, role="roi_sample")]
    assert all(other != first for other in others)


@pytest.mark.parametrize("total", [40, 6000])
def test_every_candidate_is_as_likely_as_any(total: int) -> None:
    """Both ways of drawing (permutation, rejection) are uniform: chi-square over tenths of the range."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(10)
    for _ in range(300):
        _, miss = draw(labelled(0, total), 20, 0.5, generator)
        counts += torch.bincount(miss * 10 // total, minlength=10)
    expected = 300 * 20 / 10
    assert float(((counts - expected) ** 2 / expected).sum()) < 27.9  # chi-square, 9 degrees of freedom, p = 0.001
