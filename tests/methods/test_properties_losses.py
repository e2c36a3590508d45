"""What holds for every loss on the softmax layout: any counts, any order of classes, any batch, any precision.

Separate from the tests of each part, which hold published values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rois import context, head, targets, total

from bench.detection.contract import HeadSpec, Taps
from methods.parts.ecm import EffectiveMargin
from methods.parts.focal import ReweightedFocal, SigmoidFocal
from methods.parts.group_softmax import GroupSoftmax
from methods.parts.losses import ReweightedSoftmax, class_balanced_weights, weights_with_background
from methods.parts.softmax import Softmax

BF3X = {"count_factor": 3.0}
LOSSES: dict[str, Callable[[HeadSpec], Softmax]] = {
    "softmax": Softmax,
    "inverse frequency": ReweightedSoftmax,
    "effective number": partial(ReweightedSoftmax, beta=0.99, clip=None, background=BF3X),
    "focal": SigmoidFocal,
    "ecm": EffectiveMargin,
    "focal by rows": partial(SigmoidFocal, gamma=0.5, alpha=0.4, reduction="row", inference="sigmoid"),
    "weighted focal": partial(ReweightedFocal, gamma=0.5, beta=0.999, clip=None, background=BF3X),
}
COUNTS = [3, 40, 500, 6000]
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=list(LOSSES))
any_counts = st.lists(st.integers(1, 30_000), min_size=1, max_size=50)
any_beta = st.sampled_from([1.0, 0.9, 0.999, 0.999999])


def rois(seed: int, n: int = 9, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, 5, generator=g, dtype=dtype), torch.randint(0, 5, (n,), generator=g)


@settings(max_examples=50, deadline=None)
@given(any_counts, any_beta)
def test_mean_weight_is_one_before_truncation(counts: list[int], beta: float) -> None:
    weights = class_balanced_weights(counts, beta, None)
    assert weights.mean() == pytest.approx(1.0)
    assert (np.diff(weights[np.argsort(counts)]) <= 1e-12).all()  # a rarer class never weighs less
    with_background = weights_with_background(counts, beta, None, BF3X)
    assert with_background.mean() == pytest.approx(1.0)
    assert with_background[-1] == with_background.min()


@settings(max_examples=30, deadline=None)
@given(any_counts, any_beta, st.floats(0.001, 1.0), st.floats(1.0, 10.0))
def test_truncated_weights_stay_inside_and_the_others_as_they_are(
    counts: list[int], beta: float, low: float, high: float
) -> None:
    raw, cut = (class_balanced_weights(counts, beta, clip) for clip in (None, (low, high)))
    assert ((low <= cut) & (cut <= high)).all()
    inside = (low <= raw) & (raw <= high)
    np.testing.assert_array_equal(cut[inside], raw[inside])


@every_loss
@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(4)), seed=st.integers(0, 10_000))
def test_permuted_classes_permute_results(make: Callable[[HeadSpec], Softmax], order: list[int], seed: int) -> None:
    z, y = rois(seed)
    columns = torch.tensor([*order, 4])
    one, two = make(head(COUNTS)), make(head([COUNTS[c] for c in order]))
    torch.testing.assert_close(
        total(one.loss(z, targets(y), context())),
        total(two.loss(z[:, columns], targets(columns.argsort()[y]), context())),
    )
    (p_NC, p_bg_N), (q_NC, q_bg_N) = one.scores(z), two.scores(z[:, columns])
    torch.testing.assert_close(p_NC[:, torch.tensor(order)], q_NC)
    torch.testing.assert_close(p_bg_N, q_bg_N)
    if isinstance(one, ReweightedSoftmax | ReweightedFocal):
        assert isinstance(two, ReweightedSoftmax | ReweightedFocal)
        torch.testing.assert_close(one.weights_K[columns], two.weights_K)


@every_loss
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_scores_are_shares(make: Callable[[HeadSpec], Softmax], seed: int) -> None:
    p_NC, p_bg_N = make(head(COUNTS)).scores(20 * rois(seed)[0])
    assert p_bg_N is not None
    assert p_NC.shape == (9, 4)
    for p in (p_NC, p_bg_N):
        assert (p >= 0).all()
        assert (p <= 1).all()


@every_loss
def test_gradients(make: Callable[[HeadSpec], Softmax]) -> None:
    classifier, (z, _) = make(head(COUNTS)), rois(3, 6)
    y = targets([0, 1, 2, 3, 4, 4])
    assert torch.autograd.gradcheck(
        lambda x: total(classifier.loss(x, y, context())), (z.requires_grad_(),), atol=1e-8, rtol=1e-6
    )


@pytest.mark.parametrize("make", [*LOSSES.values(), GroupSoftmax], ids=[*LOSSES, "group softmax"])
def test_bfloat16_logits(make: Callable[[HeadSpec], Softmax]) -> None:
    """Only the rounding of the logits (2^-9 relative) may remain: the arithmetic itself is float32."""
    torch.manual_seed(3)
    classifier = make(head(COUNTS))
    z, y = 3 * torch.randn(512, classifier.fc.out_features), targets(torch.randint(0, 5, (512,)))
    exact, rounded = (total(classifier.loss(x, y, context())) for x in (z, z.bfloat16()))
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=5e-3, atol=0)
    torch.testing.assert_close(classifier.scores(z.bfloat16())[0], classifier.scores(z)[0], rtol=0, atol=2e-2)


@pytest.mark.parametrize("make", [*LOSSES.values(), GroupSoftmax], ids=[*LOSSES, "group softmax"])
def test_no_roi_gives_zero_with_a_graph(make: Callable[[HeadSpec], Softmax]) -> None:
    classifier = make(head([5, 500]))
    z = classifier(Taps(torch.zeros(0, 4)))
    loss = total(classifier.loss(z, targets([]), context()))
    assert loss.item() == 0.0
    assert torch.autograd.grad(loss, classifier.fc.weight)[0].shape == classifier.fc.weight.shape


@every_loss
def test_a_batch_without_foreground(make: Callable[[HeadSpec], Softmax]) -> None:
    """Finite, and what it teaches is background: that output goes up, every other one down."""
    classifier, z = make(head(COUNTS)), torch.zeros(7, 5, requires_grad=True)
    loss = total(classifier.loss(z, targets([4] * 7), context()))
    loss.backward()
    assert loss.isfinite()
    assert z.grad is not None
    assert (z.grad[:, -1] < 0).all()
    assert (z.grad[:, :-1] > 0).all()


@every_loss
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_extreme_logits(make: Callable[[HeadSpec], Softmax], size: float) -> None:
    """As far right and as far wrong as can be: loss and gradient stay finite, and only the wrong ones cost anything."""
    classifier = make(head(COUNTS))
    right = size * (2 * torch.eye(5) - 1)
    costs = []
    for z in (right, -right):
        z.requires_grad_()
        loss = total(classifier.loss(z, targets(range(5)), context()))
        loss.backward()
        assert loss.isfinite()
        assert z.grad is not None
        assert z.grad.isfinite().all()
        costs.append(loss.item())
    assert costs[0] < 1e-6 < costs[1]


@every_loss
def test_a_loss_over_rois_is_the_mean_of_their_losses(make: Callable[[HeadSpec], Softmax]) -> None:
    classifier, (z, y) = make(head(COUNTS)), rois(5)
    alone = [total(classifier.loss(z[i : i + 1], targets(y[i : i + 1]), context())) for i in range(len(z))]
    torch.testing.assert_close(total(classifier.loss(z, targets(y), context())), torch.stack(alone).mean())
