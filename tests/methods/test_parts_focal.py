"""Focal loss: published values, its limits, what class weights do to it, the weights it shares with softmax."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from rois import TOY, bg_last, context, head, targets, total, toy_rois

from bench.errors import UserError
from bench.key import part, resolve
from methods.parts.focal import ReweightedFocal, SigmoidFocal, focal
from methods.parts.group_softmax import GroupSoftmax
from methods.parts.patches import tau_norm
from methods.parts.softmax import Softmax


def test_every_output_of_the_toy() -> None:
    z, y = toy_rois("focal", "labels")
    torch.testing.assert_close(
        focal(z, torch.tensor(y), 2.0, 0.25), bg_last(TOY["focal"]["elementwise"]), atol=1e-9, rtol=1e-9
    )


@pytest.mark.parametrize(
    ("reduction", "key"), [("mean", "loss_mean_over_N_times_C1"), ("row", "loss_sum_over_classes_mean_over_N")]
)
def test_both_reductions(reduction: str, key: str) -> None:
    z, y = toy_rois("focal", "labels")
    loss = total(SigmoidFocal(head([5, 5]), reduction=reduction).loss(z, targets(y), context()))
    assert loss.item() == pytest.approx(TOY["focal"][key], abs=1e-9)


def test_the_paper_averages_over_all_entries() -> None:
    z, y = toy_rois("focal", "labels")
    loss = total(SigmoidFocal(head([5, 5])).loss(z, targets(y), context()))
    assert loss.item() == pytest.approx(TOY["focal"]["loss_mean_over_N_times_C1"], abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 5.0), st.floats(0.0, 1.0))
def test_the_definition(seed: int, gamma: float, alpha: float) -> None:
    """-a (1 - p_t)^gamma log p_t, entry by entry, where logits are small enough to write it so."""
    g = torch.Generator().manual_seed(seed)
    z, y = 4 * torch.randn(3, 4, generator=g, dtype=torch.float64), torch.randint(0, 4, (3,), generator=g)
    found = focal(z, y, gamma, alpha)
    for i in range(3):
        for k in range(4):
            p = 1 / (1 + math.exp(-z[i, k].item()))
            a, p_t = (alpha, p) if y[i] == k else (1 - alpha, 1 - p)
            assert found[i, k].item() == pytest.approx(-a * (1 - p_t) ** gamma * math.log(p_t), rel=1e-9, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_without_focus_it_is_half_of_binary_cross_entropy(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    z, y = 5 * torch.randn(8, 4, generator=g, dtype=torch.float64), torch.randint(0, 4, (8,), generator=g)
    loss = total(SigmoidFocal(head([5] * 3), gamma=0.0, alpha=0.5).loss(z, targets(y), context()))
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(z, F.one_hot(y, 4).double()) / 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 3.0), st.floats(0.1, 3.0))
def test_more_focus_never_costs_more(seed: int, gamma: float, more: float) -> None:
    g = torch.Generator().manual_seed(seed)
    z, y = 5 * torch.randn(8, 4, generator=g, dtype=torch.float64), torch.randint(0, 4, (8,), generator=g)
    assert (focal(z, y, gamma + more, 0.25) <= focal(z, y, gamma, 0.25)).all()


# -- class weights


def test_equal_classes_weigh_nothing() -> None:
    z, y = toy_rois("focal", "labels")
    plain, weighted = SigmoidFocal(head([7, 7])), ReweightedFocal(head([7, 7]))
    torch.testing.assert_close(
        total(weighted.loss(z, targets(y), context())), total(plain.loss(z, targets(y), context()))
    )


def test_a_roi_counts_by_the_weight_of_its_class() -> None:
    """Figure 5 left of BAGS: beta 0.999, nothing cut, the background a class of three times all instances."""
    toy = TOY["reweight_cb_bg3x"]
    sizes = head([int(n) for n in toy["counts_bg_first"][1:]])
    weighted = ReweightedFocal(sizes, gamma=0.5, beta=0.999, clip=None, background={"count_factor": 3})
    plain = SigmoidFocal(sizes, gamma=0.5)
    z = torch.randn(1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ratios = [
        total(weighted.loss(z, targets([y]), context())) / total(plain.loss(z, targets([y]), context()))
        for y in range(6)
    ]
    torch.testing.assert_close(torch.stack(ratios), bg_last(toy["w"]), atol=1e-6, rtol=1e-6)


# -- scores


def test_scores_are_a_softmax_unless_asked_for_sigmoids() -> None:
    z, _ = toy_rois("focal", "labels")
    for inference, wanted in (("softmax", z.softmax(1)), ("sigmoid", z.sigmoid())):
        p_NC, p_bg = SigmoidFocal(head([5, 5]), inference=inference).scores(z)
        assert p_bg is not None
        torch.testing.assert_close(torch.cat([p_NC, p_bg[:, None]], 1), wanted)
    assert torch.equal(SigmoidFocal(head([5, 5])).scores(z)[0], Softmax(head([5, 5])).scores(z)[0])


# -- the family


@pytest.mark.parametrize("make", [SigmoidFocal, ReweightedFocal])
def test_it_shares_weights_with_softmax(make: type[SigmoidFocal]) -> None:
    plain, mine = Softmax(head([3, 40])), make(head([3, 40]))
    assert mine.load_from(plain) == []
    assert torch.equal(mine.fc.weight, plain.fc.weight)
    assert set(mine.state_dict()) == set(plain.state_dict())
    assert plain.load_from(mine) == []
    assert mine.load_from(GroupSoftmax(head([3]))) == ["fc.weight", "fc.bias"]
    tau_norm(mine, tau=1.0)
    torch.testing.assert_close(mine.fc.weight.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"gamma": -1.0}, "gamma is -1"),
        ({"gamma": math.inf}, "gamma is inf"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"reduction": "rows"}, "Did you mean 'row'"),
        ({"inference": "sigmod"}, "Did you mean 'sigmoid'"),
    ],
)
@pytest.mark.parametrize("make", [SigmoidFocal, ReweightedFocal])
def test_refusals(make: type[SigmoidFocal], wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(head([3, 40]), **wrong)


@pytest.mark.parametrize("wrong", [{"beta": 0.0}, {"clip": (5, 0.01)}, {"background": {"x": 1}}])
def test_weights_are_refused_as_for_softmax(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        ReweightedFocal(head([3, 40]), **wrong)


def test_parts_are_found_by_name() -> None:
    for name, kind in (("SigmoidFocal", SigmoidFocal), ("ReweightedFocal", ReweightedFocal)):
        made, options = resolve(part(f"focal:{name}", gamma=0.5))
        assert made is kind
        assert made(head([3, 40]), **options).fc.out_features == 3
