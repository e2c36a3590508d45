"""What must hold for grouped softmax and class means with any counts, edges and settings."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rois import context, head, targets, total

from bench.detection.contract import LabelledRois, Taps
from bench.key import canonical, part
from methods.parts.group_softmax import GroupSoftmax, group_layout, select
from methods.parts.ncm import ClassMeans, NearestMean
from methods.parts.softmax import Softmax

COUNTS = [3, 50, 7, 2000, 300]
counts_lists = st.lists(st.integers(0, 5000), min_size=1, max_size=40)
edges_lists = st.lists(st.integers(1, 3000), max_size=7, unique=True).map(sorted)
seeds = st.integers(0, 10_000)
SWITCHES = [(True, True), (True, False), (False, True), (False, False)]  # (others, background)
switches = st.sampled_from(SWITCHES)


def batch(classifier: GroupSoftmax, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classifier.head.num_classes + 1, (n,), generator=g)
    return torch.randn(n, classifier.layout.width, generator=g, dtype=torch.float64), labels


@settings(max_examples=150, deadline=None)
@given(counts_lists, edges_lists, switches)
def test_groups_partition_the_classes(counts: list[int], edges: list[int], switch: tuple[bool, bool]) -> None:
    others, background = switch
    layout = group_layout(counts, edges, others=others, background=background)
    places = layout.place_SL[-len(layout.groups) :]
    own = places >= int(others)
    assert (own[:, :-1].sum(axis=0) == 1).all(), "every class is in one segment"
    assert own[:, -1].tolist() == [not background and g == layout.groups[-1] for g in layout.groups]
    assert own.any(axis=1).all(), "an empty group has no segment"
    assert layout.width == len(counts) + len(layout.groups) * others + (2 if background else 1)
    assert [stop for _, stop in layout.segments[:-1]] == [start for start, _ in layout.segments[1:]]
    starts = np.array([start for start, _ in layout.segments])
    for label, column in enumerate(layout.own_L[:-1]):  # label -> segment and place -> label
        segment = int(np.searchsorted(starts, column, side="right")) - 1
        assert layout.place_SL[segment, label] == column - starts[segment] >= int(others)
    assert len(set(layout.own_L)) == len(counts) + 1
    for low, high in pairwise(own[:, :-1]):
        assert max(np.array(counts)[low]) < min(np.array(counts)[high]), "groups are ordered by count"


@settings(max_examples=100, deadline=None)
@given(counts_lists, edges_lists, switches, seeds, st.floats(0.1, 50))
def test_scores_are_probabilities(
    counts: list[int], edges: list[int], switch: tuple[bool, bool], seed: int, scale: float
) -> None:
    others, background = switch
    classifier = GroupSoftmax(head(counts), edges=edges, others=others, background=background)
    p_NC, p_bg = classifier.scores(scale * batch(classifier, 7, seed)[0])
    assert p_bg is not None
    assert p_NC.shape == (7, len(counts))
    assert ((p_NC >= 0) & (p_NC <= 1)).all()
    assert ((p_bg >= 0) & (p_bg <= 1)).all()
    if not others:  # nothing of a group is left out: its classes share p(foreground), or 1
        groups = len(classifier.layout.groups)
        whole = groups * (1 - p_bg) if background else groups - p_bg
        torch.testing.assert_close(p_NC.sum(dim=1), whole, atol=1e-9, rtol=0)


@pytest.mark.parametrize("beta", [0.0, 1.0, 8.0, math.inf])
@pytest.mark.parametrize(("others", "background"), SWITCHES)
@settings(max_examples=15, deadline=None)
@given(counts=counts_lists, seed=seeds)
def test_without_foreground_only_the_segment_of_the_background_learns(
    beta: float, others: bool, background: bool, counts: list[int], seed: int
) -> None:
    classifier = GroupSoftmax(head(counts), beta=beta, others=others, background=background)
    z = batch(classifier, 20, seed)[0].requires_grad_()
    loss = total(classifier.loss(z, targets(torch.full((20,), len(counts))), context()))
    start, stop = classifier.layout.segments[0 if background else -1]
    column = int(classifier.layout.own_L[-1])
    expected = torch.nn.functional.cross_entropy(z[:, start:stop], torch.full((20,), column - start))
    torch.testing.assert_close(loss, expected)
    (grad,) = torch.autograd.grad(loss, z)
    grad[:, start:stop] = 0
    assert not grad.any()


@settings(max_examples=30, deadline=None)
@given(seeds, st.booleans())
def test_a_large_beta_is_infinity(seed: int, background: bool) -> None:
    one, two = (GroupSoftmax(head(COUNTS), beta=beta, background=background) for beta in (1e6, math.inf))
    z, labels = batch(one, 12, seed)
    torch.testing.assert_close(
        total(one.loss(z, targets(labels), context())), total(two.loss(z, targets(labels), context()))
    )


@settings(max_examples=60, deadline=None)
@given(counts_lists, seeds, st.sampled_from([0.0, 0.5, 1.0, 3.0, 8.0, math.inf]))
def test_selection_takes_its_own_and_the_quota(counts: list[int], seed: int, beta: float) -> None:
    classifier = GroupSoftmax(head(counts))
    own = classifier.place_SL[1:, batch(classifier, 64, seed)[1]] > 0
    chosen = select(own, beta, torch.rand(own.shape, generator=torch.Generator().manual_seed(seed)))
    assert chosen[own].all()
    wanted = [min(math.floor(beta * n) if n * beta < 64 else 64, 64 - n) if n else 0 for n in own.sum(1).tolist()]
    assert (chosen & ~own).sum(1).tolist() == wanted


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([0.0, 1.0, 3.0]), switches)
def test_no_gradient_from_rois_outside_the_selection(seed: int, beta: float, switch: tuple[bool, bool]) -> None:
    others, background = switch
    classifier = GroupSoftmax(head(COUNTS, 4), edges=(100,), beta=beta, others=others, background=background)
    z, labels = batch(classifier, 24, seed)
    z.requires_grad_()
    (grad,) = torch.autograd.grad(total(classifier.loss(z, targets(labels), context(seed))), z)
    place = classifier.place_SL[-2:, labels]
    own = place >= int(others)
    chosen = select(own, beta if others else 0.0, torch.rand(2, 24, generator=context(seed).generator))
    for (start, stop), chosen_N in zip(classifier.layout.segments[-2:], chosen, strict=True):
        assert (grad[~chosen_N, start:stop] == 0).all()
        assert grad[chosen_N, start:stop].ne(0).all()


@pytest.mark.parametrize(("others", "background"), SWITCHES)
@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(5)), seed=seeds)
def test_permuted_classes_permute_scores_and_keep_the_loss(
    others: bool, background: bool, order: list[int], seed: int
) -> None:
    one, two = (
        GroupSoftmax(head(counts), others=others, background=background, beta=math.inf)
        for counts in (COUNTS, [COUNTS[c] for c in order])
    )
    z, labels = batch(one, 6, seed)
    columns = torch.arange(one.layout.width)  # others and [bg, fg] keep their places: the groups do not change
    columns[two.own_L[:-1]] = one.own_L[:-1][torch.tensor(order)]
    torch.testing.assert_close(one.scores(z)[0][:, torch.tensor(order)], two.scores(z[:, columns])[0])
    renamed = torch.tensor([*order, 5]).argsort()
    torch.testing.assert_close(
        total(one.loss(z, targets(labels), context())),
        total(two.loss(z[:, columns], targets(renamed[labels]), context())),
    )


@pytest.mark.parametrize(("others", "background"), SWITCHES)
@pytest.mark.parametrize("beta", [0.0, 1.0, math.inf])
def test_gradients(others: bool, background: bool, beta: float) -> None:
    classifier = GroupSoftmax(head(COUNTS), beta=beta, others=others, background=background)
    z, labels = batch(classifier, 8, 2)
    assert torch.autograd.gradcheck(
        lambda x: total(classifier.loss(x, targets(labels), context(7))), (z.requires_grad_(),)
    )


@pytest.mark.parametrize(("others", "background"), SWITCHES)
def test_precision(others: bool, background: bool) -> None:
    """float32 agrees with float64 to 1e-5; of bfloat16 only the rounding of the logits (2^-8 relative) may remain."""
    classifier = GroupSoftmax(head(COUNTS), beta=math.inf, others=others, background=background)
    z, labels = batch(classifier, 512, 11)
    exact = total(classifier.loss(3 * z, targets(labels), context()))
    for dtype, rtol, atol in ((torch.float32, 1e-5, 1e-6), (torch.bfloat16, 5e-3, 2e-2)):
        rounded = total(classifier.loss((3 * z).to(dtype), targets(labels), context()))
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded.double(), exact, rtol=rtol, atol=0)
        p_NC = classifier.scores((3 * z).to(dtype))[0]
        torch.testing.assert_close(p_NC.double(), classifier.scores(3 * z)[0], rtol=0, atol=atol)


# -- class means


def measured(features: torch.Tensor, labels: torch.Tensor, classes: int) -> dict[str, torch.Tensor]:
    means = ClassMeans(head([5] * classes, features.shape[1]))
    taps, none = Taps(features, box_features_pre_relu=features), torch.zeros_like(labels)
    means.update(LabelledRois(taps, labels, none, none, torch.zeros(len(none), 4), Softmax(head([5] * classes))))
    return means.result()


def nearest(means: dict[str, torch.Tensor], width: int) -> NearestMean:
    classes = len(means["count_C"])
    torch.manual_seed(classes)
    inner = canonical(part("softmax:Softmax"))
    return NearestMean(head([5] * classes, width), inner=inner, means=means)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), seeds, st.floats(0.01, 100), st.floats(0.01, 100))
def test_class_means_do_not_care_for_scale(classes: int, seed: int, a: float, b: float) -> None:
    g = torch.Generator().manual_seed(seed)
    features, labels = torch.randn(30, 6, generator=g), torch.randint(0, classes, (30,), generator=g)
    means, scaled = measured(features, labels, classes), measured(a * features, labels, classes)
    h = torch.randn(9, 6, generator=g)
    one, two = nearest(means, 6), nearest(scaled, 6)
    z_one = one(Taps(h, box_features_pre_relu=h))
    z_two = two(Taps(h, box_features_pre_relu=b * h))  # the inner classifier sees the same
    torch.testing.assert_close(z_one, z_two, atol=1e-5, rtol=0)
    p_NC, p_bg = one.scores(z_one)
    assert p_bg is not None
    assert ((p_NC >= 0) & (p_NC <= 1)).all()
    torch.testing.assert_close(p_NC.sum(1) + p_bg, torch.ones(9), atol=1e-5, rtol=0)
    assert not p_NC[:, means["count_C"] == 0].any()


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(6)), seeds)
def test_permuted_classes_permute_the_nearest_mean(order: list[int], seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    features, labels = torch.randn(20, 4, generator=g), torch.randint(0, 6, (20,), generator=g)
    there = torch.tensor(order)
    means, permuted = measured(features, labels, 6), measured(features, there.argsort()[labels], 6)
    torch.testing.assert_close(permuted["means_CD"], means["means_CD"][there])
    one, two = nearest(means, 4), nearest(permuted, 4)
    h = torch.randn(5, 4, generator=g)
    with torch.no_grad():
        rows = torch.cat([there, torch.tensor([6])])
        two.inner.get_parameter("fc.weight").copy_(one.inner.get_parameter("fc.weight")[rows])
    taps = Taps(h, box_features_pre_relu=h)
    (p, p_bg), (q, q_bg) = one.scores(one(taps)), two.scores(two(taps))
    torch.testing.assert_close(p[:, there], q)
    torch.testing.assert_close(p_bg, q_bg)
