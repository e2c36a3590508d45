"""Balanced group softmax: layout, loss in its published sampling modes, scores, what must hold for any counts."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.detection.contract import Context, HeadSpec, Taps, Targets
from bench.errors import UserError
from bench.key import part, resolve
from methods.parts.group_softmax import GroupSoftmax, group_layout, segment_losses, select
from methods.parts.softmax import Softmax

TOY = json.loads((Path(__file__).parent / "toy_values.json").read_text())
LVIS = Path(__file__).parents[3] / "shared/reference/lvis_v0.5_train_counts.csv"
COUNTS = TOY["bags_layout"]["counts"]
EDGES = (10, 100, 1000)

any_counts = st.lists(st.integers(0, 5000), min_size=1, max_size=40)
any_edges = st.lists(st.integers(1, 3000), max_size=7, unique=True).map(sorted)


def head(counts: list[int], features: int = 4) -> HeadSpec:
    n = tuple(counts)
    return HeadSpec(len(n), features, (8, 7, 7), n, n, 100, n, n)


def targets(labels: torch.Tensor) -> Targets:
    return Targets(labels, torch.zeros_like(labels), [], [], Taps(torch.empty(0)))


def context(seed: int = 0) -> Context:
    return Context(0, 0.0, torch.Generator().manual_seed(seed))


def toy_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels, background moved from label 0 to label C (the columns of the logits are BAGS' own)."""
    toy = TOY["bags_loss"]
    return torch.tensor(toy["logits"], dtype=torch.float64), (torch.tensor(toy["labels"]) - 1) % 6


def batch(classifier: GroupSoftmax, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classifier.head.num_classes + 1, (n,), generator=g)
    return torch.randn(n, classifier.layout.width, generator=g, dtype=torch.float64), labels


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(losses.values())).sum()


def test_layout() -> None:
    toy = TOY["bags_layout"]
    layout = group_layout(COUNTS, EDGES)
    assert layout.groups == (1, 2, 3, 4)
    assert [[start, stop - start] for start, stop in layout.segments] == toy["slices_start_len"]
    assert layout.width == toy["n_outputs"]
    np.testing.assert_array_equal(layout.place_SL, np.roll(toy["label2bin"], -1, axis=1))
    assert [list(1 + np.flatnonzero(row[:5])) for row in layout.place_SL[1:]] == toy["groups"]


@settings(max_examples=100, deadline=None)
@given(any_counts, any_edges)
def test_groups_partition_the_classes(counts: list[int], edges: list[int]) -> None:
    layout = group_layout(counts, edges)
    own = layout.place_SL[1:, :-1] > 0
    assert (own.sum(axis=0) == 1).all()
    assert own.any(axis=1).all(), "an empty group has no segment"
    assert layout.width == 2 + len(layout.groups) + len(counts)
    starts = np.array([start for start, _ in layout.segments])
    for label, column in enumerate(layout.own_L[:-1]):  # label -> segment and place -> label
        segment = int(np.searchsorted(starts, column, side="right")) - 1
        assert layout.place_SL[segment, label] == column - starts[segment] > 0
    assert len(set(layout.own_L)) == len(counts) + 1
    for low, high in pairwise(own):
        assert max(np.array(counts)[low]) < min(np.array(counts)[high]), "groups are ordered by count"


@pytest.mark.parametrize(
    ("mode", "beta", "everything"),
    [
        ("beta_n_all_others_in_active_groups", math.inf, False),
        ("beta_all_everything", 8.0, True),
        ("beta0_no_others", 0.0, False),
        ("beta1_first_others_by_index", 1.0, False),
        ("beta0p5_int_floor", 0.5, False),
    ],
)
def test_loss(mode: str, beta: float, everything: bool) -> None:
    toy = TOY["bags_loss"][mode]
    z, labels = toy_batch()
    classifier = GroupSoftmax(head(COUNTS), beta=beta, everything=everything)
    place = classifier.place_SL[:, labels]
    keys = torch.arange(8.0).expand(4, 8)  # the lowest indices first, so that the draw is known
    chosen = torch.ones_like(place, dtype=torch.bool) if everything else select(place, beta, keys)
    means = segment_losses(z, classifier.layout.segments, place, chosen)
    assert chosen.sum(1).tolist() == [8, *toy["n_used"]]
    np.testing.assert_allclose([float(m) for m in means], toy["per_group"], atol=1e-6)
    assert sum(float(m) for m in means) == pytest.approx(toy["total"], abs=1e-6)
    if everything or beta in (0.0, math.inf):  # no draw: the public loss must say the same
        losses = classifier.loss(z, targets(labels), context())
        assert list(losses) == ["classification_background", *(f"classification_group{g}" for g in (1, 2, 3, 4))]
        np.testing.assert_allclose([float(v) for v in losses.values()], toy["per_group"], atol=1e-6)


def test_scores() -> None:
    toy = TOY["bags_scores"]
    p_NC, p_bg = GroupSoftmax(head(COUNTS)).scores(torch.tensor(toy["logits"], dtype=torch.float64))
    assert p_bg is not None
    wanted = torch.tensor(toy["scores_bg_first"], dtype=torch.float64)
    torch.testing.assert_close(p_NC, wanted[:, 1:], atol=1e-6, rtol=0)
    torch.testing.assert_close(p_bg, wanted[:, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(p_NC.sum(1) + p_bg, torch.tensor(toy["row_sums"]).double(), atol=1e-6, rtol=0)


def test_two_outputs_are_one_sigmoid() -> None:
    toy = TOY["bags_sigmoid_equiv"]
    z = torch.zeros(1, 11, dtype=torch.float64)
    z[0, :2] = torch.tensor([toy["z_bg"], toy["z_fg"]])
    p_bg = GroupSoftmax(head(COUNTS)).scores(z)[1]
    assert p_bg is not None
    assert 1 - float(p_bg) == pytest.approx(toy["softmax2_fg"], abs=1e-6)
    assert 1 - float(p_bg) == pytest.approx(torch.sigmoid(z[0, 1] - z[0, 0]).item(), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(any_counts, any_edges, st.integers(0, 1000), st.floats(0.1, 50))
def test_scores_are_probabilities(counts: list[int], edges: list[int], seed: int, scale: float) -> None:
    classifier = GroupSoftmax(head(counts), edges=edges)
    p_NC, p_bg = classifier.scores(scale * batch(classifier, 7, seed)[0].float())
    assert p_bg is not None
    assert p_NC.shape == (7, len(counts))
    assert ((p_NC >= 0) & (p_NC <= 1)).all()
    assert ((p_bg >= 0) & (p_bg <= 1)).all()


@pytest.mark.parametrize("beta", [0.0, 8.0, math.inf])
def test_without_foreground_only_segment_0_learns(beta: float) -> None:
    classifier = GroupSoftmax(head(COUNTS), beta=beta)
    z = batch(classifier, 20, 1)[0].requires_grad_()
    loss = total(classifier.loss(z, targets(torch.full((20,), 5)), context()))
    expected = torch.nn.functional.cross_entropy(z[:, :2], torch.zeros(20, dtype=torch.int64))
    torch.testing.assert_close(loss, expected)
    (grad,) = torch.autograd.grad(loss, z)
    assert not grad[:, 2:].any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_large_beta_is_infinity(seed: int) -> None:
    one, two = GroupSoftmax(head(COUNTS), beta=1e6), GroupSoftmax(head(COUNTS), beta=math.inf)
    z, labels = batch(one, 12, seed)
    torch.testing.assert_close(
        total(one.loss(z, targets(labels), context())), total(two.loss(z, targets(labels), context()))
    )


@settings(max_examples=60, deadline=None)
@given(any_counts, st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 1.0, 3.0, 8.0]))
def test_selection_takes_its_own_and_the_quota(counts: list[int], seed: int, beta: float) -> None:
    classifier = GroupSoftmax(head(counts))
    place = classifier.place_SL[:, batch(classifier, 64, seed)[1]]
    keys = torch.rand(len(place) - 1, 64, generator=torch.Generator().manual_seed(seed))
    chosen = select(place, beta, keys)
    assert chosen[0].all()
    own = place[1:] > 0
    assert chosen[1:][own].all()
    quota = torch.minimum((beta * own.sum(1)).floor(), (~own).sum(1))
    assert ((chosen[1:] & ~own).sum(1) == quota).all()


def test_the_draw_is_uniform_and_follows_its_generator() -> None:
    place = torch.tensor([[1, 1] + [0] * 10, [1, 1] + [0] * 10])  # 2 RoIs of the group, 10 others
    draws = [select(place, 2.0, torch.rand(1, 12, generator=context(s).generator))[1, 2:] for s in range(2000)]
    often = torch.stack(draws).double().mean(0)
    sigma = math.sqrt(0.4 * 0.6 / 2000)
    assert (abs(often - 0.4) < 4 * sigma).all()
    classifier = GroupSoftmax(head(COUNTS), beta=1.0)
    z, labels = batch(classifier, 64, 5)
    same, again, other = (total(classifier.loss(z, targets(labels), context(s))).item() for s in (1, 1, 2))
    assert same == again != other


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0, 3.0]))
def test_no_gradient_from_rois_outside_the_selection(seed: int, beta: float) -> None:
    classifier = GroupSoftmax(head(COUNTS), beta=beta)
    z, labels = batch(classifier, 24, seed)
    z.requires_grad_()
    (grad,) = torch.autograd.grad(total(classifier.loss(z, targets(labels), context(seed))), z)
    keys = torch.rand(4, 24, generator=context(seed).generator)
    chosen = select(classifier.place_SL[:, labels], beta, keys)
    for (start, stop), chosen_N in zip(classifier.layout.segments, chosen, strict=True):
        assert (grad[~chosen_N, start:stop] == 0).all()
        assert grad[chosen_N, start:stop].ne(0).all()


def test_permuted_classes_permute_scores() -> None:
    order = [3, 0, 4, 2, 1]
    one, two = GroupSoftmax(head(COUNTS)), GroupSoftmax(head([COUNTS[c] for c in order]))
    features = Taps(torch.randn(6, 4, generator=context().generator))
    columns = torch.arange(11)  # bg, fg and the others keep their places: the groups do not change
    columns[two.own_L[:-1]] = one.own_L[:-1][torch.tensor(order)]
    with torch.no_grad():
        two.fc.weight.copy_(one.fc.weight[columns])
    torch.testing.assert_close(one.scores(one(features))[0][:, torch.tensor(order)], two.scores(two(features))[0])


def test_gradients() -> None:
    classifier = GroupSoftmax(head(COUNTS), beta=1.0)
    z, labels = batch(classifier, 8, 2)
    assert torch.autograd.gradcheck(
        lambda x: total(classifier.loss(x, targets(labels), context(7))), (z.requires_grad_(),)
    )


def test_class_weights_are_the_rows_of_the_classes() -> None:
    classifier = GroupSoftmax(head(COUNTS))
    W = classifier.class_weights()
    assert W is not None
    assert W.shape == (6, 4)
    assert torch.equal(W[5], classifier.fc.weight[0])  # background: segment 0
    assert torch.equal(W[1], classifier.fc.weight[6])  # class with 50 instances: first of the second group
    assert torch.equal(W[3], classifier.fc.weight[10])  # class with 2,000: first of the fourth


def test_load_from() -> None:
    same, plain = GroupSoftmax(head(COUNTS), beta=1.0), Softmax(head(COUNTS))
    other_groups = GroupSoftmax(head(COUNTS[::-1]))
    classifier = GroupSoftmax(head(COUNTS))
    assert classifier.load_from(plain) == classifier.load_from(other_groups) == ["fc.weight", "fc.bias"]
    assert not torch.equal(classifier.fc.weight, other_groups.fc.weight)
    assert classifier.load_from(same) == []
    assert torch.equal(classifier.fc.weight, same.fc.weight)


def test_settings() -> None:
    made, options = resolve(part("group_softmax:GroupSoftmax", beta=math.inf, edges=[100]))
    classifier = made(head(COUNTS), **options)
    assert (classifier.beta, classifier.layout.groups) == (math.inf, (1, 2))
    assert GroupSoftmax(head([3, 5])).layout.groups == (1,)  # no class reaches the other groups
    assert GroupSoftmax(head([3, 2000])).layout.groups == (1, 4)
    for wrong in ({"beta": -1.0}, {"beta": math.nan}, {"edges": (100, 10)}, {"edges": (10, 10)}):
        with pytest.raises(UserError):
            GroupSoftmax(head(COUNTS), **wrong)


@pytest.mark.skipif(not LVIS.is_file(), reason="LVIS v0.5 counts are not beside the checkout")
@pytest.mark.parametrize(
    ("edges", "sizes"),
    [
        ((100,), [747, 483]),
        ((10, 100, 1000), [294, 453, 302, 181]),
        ((5, 10, 50, 100, 500, 1000, 5000), [178, 116, 327, 126, 224, 78, 156, 25]),
    ],
)
def test_lvis_groups(edges: tuple[int, ...], sizes: list[int]) -> None:
    counts = np.genfromtxt(LVIS, delimiter=",", names=True, dtype=None, encoding="utf-8")["instance_count"]
    layout = group_layout(counts.tolist(), edges)
    assert [stop - start - 1 for start, stop in layout.segments[1:]] == sizes
    assert layout.width == {2: 1234, 4: 1236, 8: 1240}[len(sizes)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_draws_what_the_cpu_draws() -> None:
    classifier = GroupSoftmax(head(COUNTS), beta=1.0)
    z, labels = batch(classifier, 512, 4)
    here = total(classifier.loss(z, targets(labels), context(4)))
    classifier.to("cuda")
    there = total(classifier.loss(z.to("cuda"), targets(labels.to("cuda")), context(4)))
    torch.testing.assert_close(there.cpu(), here)
