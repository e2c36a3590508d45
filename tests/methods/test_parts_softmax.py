"""Softmax, re-weighted softmax and tau-normalisation: published formulas, properties, precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rois import LVIS, TOY, bg_last, context, head, targets, total, toy_rois

from bench.detection.contract import Taps
from bench.errors import UserError
from bench.key import part, resolve
from methods.parts.group_softmax import GroupSoftmax
from methods.parts.losses import ReweightedSoftmax, class_balanced_weights
from methods.parts.patches import tau_norm
from methods.parts.softmax import Softmax


def test_plain_cross_entropy() -> None:
    z, y = toy_rois()
    loss = total(Softmax(head([5, 5])).loss(z, targets(y), context()))
    assert loss.item() == pytest.approx(TOY["reweight_ce"]["plain_ce"], abs=1e-6)
    for i, wanted in enumerate(TOY["reweight_ce"]["ce"]):
        alone = total(Softmax(head([5, 5])).loss(z[i : i + 1], targets(y[i : i + 1]), context()))
        assert alone.item() == pytest.approx(wanted, abs=1e-6)


def test_scores_are_the_softmax_with_background_apart() -> None:
    z, _ = toy_rois()
    p_NC, p_bg = Softmax(head([5, 5])).scores(z)
    assert p_bg is not None
    torch.testing.assert_close(torch.cat([p_NC, p_bg[:, None]], 1), z.softmax(1))


def test_new_weights_follow_the_head() -> None:
    torch.manual_seed(0)
    fc = Softmax(head([5] * 99, features=64)).fc
    assert fc.weight.shape == (100, 64)
    assert fc.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not fc.bias.any()


@pytest.mark.parametrize(
    ("key", "beta", "clip", "weights"),
    [
        ("inverse", 1.0, None, "w_raw"),
        ("inverse", 1.0, (0.01, 5.0), "w_paper_clip_0p01_5"),
        ("inverse", 1.0, (0.1, 5.0), "w_code_clip_0p1_5"),
        *(
            (f"cb_beta{beta}", beta, clip, weights)
            for beta in (0.9, 0.99, 0.999)
            for clip, weights in ((None, "w_raw"), ((0.01, 5.0), "w_clip_0p01_5"), ((0.1, 5.0), "w_clip_0p1_5"))
        ),
    ],
)
def test_class_balanced_weights(key: str, beta: float, clip: tuple[float, float] | None, weights: str) -> None:
    toy = TOY[f"reweight_{key}"]
    np.testing.assert_allclose(class_balanced_weights(toy["counts"], beta, clip), toy[weights], atol=1e-6)


def test_the_mean_that_scales_inverse_frequency() -> None:
    toy = TOY["reweight_inverse"]
    alpha_of_one = 1.0  # a class of one instance
    assert alpha_of_one / class_balanced_weights(toy["counts"], 1.0, None)[0] == pytest.approx(toy["mean_alpha"])


def test_background_weighs_one() -> None:
    made = ReweightedSoftmax(head([int(n) for n in TOY["reweight_inverse"]["counts"]]))
    assert made.weights_K[-1].item() == TOY["reweight_inverse"]["w_bg"]
    wanted = torch.tensor(TOY["reweight_inverse"]["w_paper_clip_0p01_5"])
    torch.testing.assert_close(made.weights_K[:-1], wanted, atol=1e-6, rtol=1e-6)


def test_background_as_a_class_of_three_times_all_instances() -> None:
    toy = TOY["reweight_cb_bg3x"]
    counts = [int(n) for n in toy["counts_bg_first"][1:]]
    made = ReweightedSoftmax(head(counts), beta=0.999, clip=None, background={"count_factor": 3})
    torch.testing.assert_close(made.weights_K.double(), bg_last(toy["w"]), atol=1e-6, rtol=1e-6)


def test_reweighted_loss_divides_by_rois() -> None:
    z, y = toy_rois()
    classifier = ReweightedSoftmax(head([5, 5])).double()
    classifier.weights_K.copy_(bg_last(TOY["reweight_ce"]["class_w"]))
    loss = total(classifier.loss(z, targets(y), context())).item()
    assert loss == pytest.approx(TOY["reweight_ce"]["loss_div_by_N"], abs=1e-6)
    assert abs(loss - TOY["reweight_ce"]["loss_div_by_sumw_NOT_used"]) > 0.1


def test_beta_towards_one_is_inverse_frequency() -> None:
    counts = [1, 2, 10, 100, 1000]
    np.testing.assert_allclose(
        class_balanced_weights(counts, 1 - 1e-9, None), class_balanced_weights(counts, 1.0, None), rtol=1e-3
    )


def test_a_class_without_instances_does_not_set_the_scale() -> None:
    with_empty = class_balanced_weights([0, 1, 10, 100], 1.0, (0.01, 2.5))
    np.testing.assert_allclose(with_empty[1:], class_balanced_weights([1, 10, 100], 1.0, (0.01, 2.5)))
    assert with_empty[0] == 2.5
    assert class_balanced_weights([0, 1, 10], 1.0, None)[0] == class_balanced_weights([0, 1, 10], 1.0, None)[1]


def test_the_softmax_family_shares_weights() -> None:
    plain, weighted = Softmax(head([3, 40])), ReweightedSoftmax(head([3, 40]))
    assert weighted.load_from(plain) == []
    assert torch.equal(weighted.fc.weight, plain.fc.weight)
    assert set(weighted.state_dict()) == set(plain.state_dict())
    assert plain.load_from(weighted) == []
    assert plain.load_from(Softmax(head([3, 40, 5]))) == ["fc.weight", "fc.bias"]
    assert plain.load_from(GroupSoftmax(head([3]))) == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    "wrong", [{"beta": 0.0}, {"beta": 1.5}, {"clip": (5, 0.01)}, {"background": -1.0}, {"background": {"x": 1}}]
)
def test_reweight_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        ReweightedSoftmax(head([3, 40]), **wrong)


def test_a_head_without_instances_is_refused() -> None:
    with pytest.raises(UserError, match="no class has a training instance"):
        ReweightedSoftmax(head([0, 0]))


def normed(classifier: Softmax, tau: float, background: str) -> Softmax:
    patched = tau_norm(classifier, tau=tau, background=background)
    assert patched is classifier
    return classifier


def tau_head() -> Softmax:
    toy = TOY["tau_norm"]
    classifier = Softmax(head([5, 5], features=2)).double()
    with torch.no_grad():
        classifier.fc.weight.copy_(torch.tensor(toy["W_row0_is_bg"], dtype=torch.float64).roll(-1, 0))
        classifier.fc.bias.copy_(bg_last(toy["bias"]))
    return classifier


@pytest.mark.parametrize(
    ("tau", "background", "W_key", "p_key"),
    [
        (1.0, "scaled", "W_tau1_all", "p_tau1_all"),
        (1.0, "kept", "W_tau1_skip_bg", "p_tau1_skip_bg"),
        (0.5, "scaled", "W_tau05_all", None),
        (0.0, "scaled", "W_row0_is_bg", "p_orig"),
    ],
)
def test_tau_norm(tau: float, background: str, W_key: str, p_key: str | None) -> None:
    toy = TOY["tau_norm"]
    classifier = normed(tau_head(), tau, background)
    wanted = torch.tensor(toy[W_key], dtype=torch.float64).roll(-1, 0)
    torch.testing.assert_close(classifier.fc.weight.data, wanted, atol=1e-6, rtol=0)
    assert torch.equal(classifier.fc.bias, tau_head().fc.bias)
    if p_key:
        p_NC, p_bg = classifier.scores(classifier(Taps(torch.tensor(toy["x"], dtype=torch.float64))))
        assert p_bg is not None
        torch.testing.assert_close(torch.cat([p_NC, p_bg[:, None]], 1), bg_last(toy[p_key]), atol=1e-6, rtol=0)


def test_weight_norms_of_the_toy() -> None:
    W = tau_head().class_weights()
    assert W is not None
    torch.testing.assert_close(W.norm(dim=1), bg_last(TOY["tau_norm"]["norms"]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["scaled", "kept"]))
def test_tau_norm_identity_and_idempotence(seed: int, background: str) -> None:
    torch.manual_seed(seed)
    classifier = Softmax(head([5] * 7, features=6))
    with torch.no_grad():
        classifier.fc.weight[2] = 0.0
    before = classifier.fc.weight.detach().clone()
    assert torch.equal(normed(classifier, 0.0, background).fc.weight, before)
    once = normed(classifier, 1.0, background).fc.weight.detach().clone()
    torch.testing.assert_close(normed(classifier, 1.0, background).fc.weight.data, once, atol=0, rtol=2e-7)
    assert not once[2].any()
    norms = once.norm(dim=1)[[0, 1, 3, 4, 5, 6]]
    torch.testing.assert_close(norms, torch.ones(6))


def test_tau_norm_refuses() -> None:
    with pytest.raises(UserError, match="GroupSoftmax has no weight row"):
        tau_norm(GroupSoftmax(head([5, 500])))
    with pytest.raises(UserError, match="Did you mean 'kept'"):
        tau_norm(tau_head(), background="keep")
    with pytest.raises(UserError, match="tau is -1"):
        tau_norm(tau_head(), tau=-1)


def test_parts_are_found_by_name() -> None:
    made, options = resolve(part("losses:ReweightedSoftmax", background={"count_factor": 3}))
    assert made is ReweightedSoftmax
    assert made(head([3, 40]), **options).weights_K.shape == (3,)
    function, options = resolve(part("patches:tau_norm", tau=1))
    assert function(tau_head(), **options) is not None
    made, options = resolve(part("softmax:Softmax"))
    assert (made, options) == (Softmax, {})


@pytest.mark.skipif(not LVIS.is_file(), reason="LVIS v0.5 counts are not beside the checkout")
def test_lvis_weights() -> None:
    counts = np.genfromtxt(LVIS, delimiter=",", names=True, dtype=None, encoding="utf-8")["instance_count"]
    weights = class_balanced_weights(counts, 1.0, None)
    assert (weights > 5).sum() == 57
    assert (weights < 0.01).sum() == 200
    assert (weights < 0.1).sum() == 501
    assert weights.max() == pytest.approx(8.811127, abs=1e-6)
    assert weights.min() == pytest.approx(3.369714e-4, abs=1e-9)
