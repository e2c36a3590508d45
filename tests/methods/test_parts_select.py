"""tau-norm-select: published numbers of both rules, what it keeps, what it refuses, the recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rois import context, head, targets

from bench.cli.open import open_suite
from bench.detection.contract import Taps
from bench.errors import UserError
from bench.key import Part, canonical, part, resolve
from bench.method import planned
from methods.parts.group_softmax import GroupSoftmax
from methods.parts.patches import tau_norm
from methods.parts.select import TauNormSelect
from methods.parts.softmax import Softmax
from methods.tau_norm import TauNormSelect as Recipe
from tests.conftest import TINY, Write

TOY = json.loads((Path(__file__).parent / "toy_values.json").read_text())
SOFTMAX = canonical(part("softmax:Softmax"))


def bg_last(rows: Any) -> torch.Tensor:
    return torch.as_tensor(rows, dtype=torch.float64).roll(-1, dims=-1)


def trained(counts: list[int], seed: int = 0, features: int = 4) -> Softmax:
    """A classifier with weight norms of every size, so that normalising them changes decisions."""
    torch.manual_seed(seed)
    classifier = Softmax(head(counts, features))
    with torch.no_grad():
        classifier.fc.weight.mul_(100 * torch.rand(len(counts) + 1, 1))
    return classifier


def wrapped(inner: Softmax, **options: Any) -> TauNormSelect:
    classifier = TauNormSelect(inner.head, inner=SOFTMAX, **options)
    classifier.wrap(inner)
    return classifier


def all_scores(classifier: Softmax | TauNormSelect, h: torch.Tensor) -> torch.Tensor:
    p_NC, p_bg = classifier.scores(classifier(Taps(h)))
    assert p_bg is not None
    return torch.cat([p_NC, p_bg[:, None]], dim=1)


@pytest.mark.parametrize(("rule", "key"), [("paper", "paper_rule"), ("code", "released_code_rule_tail_mask")])
def test_published_numbers(rule: str, key: str) -> None:
    toy = TOY["tau_norm_select"]
    counts = [5 if tail else 500 for tail in toy["tail_mask"][1:]]
    z_NK = torch.cat([bg_last(toy["p_orig"]).log(), bg_last(toy["p_tau"]).log()], dim=1)
    p_NC, p_bg = TauNormSelect(head(counts), inner=SOFTMAX, rule=rule).scores(z_NK)
    assert p_bg is not None
    torch.testing.assert_close(torch.cat([p_NC, p_bg[:, None]], 1), bg_last(toy[key]), atol=1e-6, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["paper", "code"]), st.sampled_from(["scaled", "kept"]))
def test_every_row_is_one_of_the_two(seed: int, rule: str, background: str) -> None:
    original = trained([5, 50, 500, 5000], seed)
    classifier = wrapped(original, rule=rule, background=background)
    h = torch.randn(64, 4, generator=torch.Generator().manual_seed(seed))
    before, chosen = all_scores(original, h), all_scores(classifier, h)
    after = all_scores(tau_norm(trained([5, 50, 500, 5000], seed), background=background), h)  # type: ignore[arg-type]
    swapped = before.argmax(1) < 4
    if rule == "code":
        swapped &= after.argmax(1) < 2
    torch.testing.assert_close(chosen, torch.where(swapped[:, None], after, before))
    # Decisions for background are the original's and, by the paper's rule, never become fewer.
    assert (chosen.argmax(1) == 4)[before.argmax(1) == 4].all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["paper", "code"]))
def test_tau_0_changes_nothing(seed: int, rule: str) -> None:
    original = trained([5, 50, 500, 5000], seed)
    h = torch.randn(32, 4, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(all_scores(wrapped(original, tau=0.0, rule=rule), h), all_scores(original, h))


def test_the_tail_is_counted_in_full_training_instances() -> None:
    original = trained([5, 99, 100, 5000], 3)
    h = torch.randn(256, 4, generator=torch.Generator().manual_seed(3))
    by_default, by_number = (wrapped(original, rule="code", **more) for more in ({}, {"tail_below": 100}))
    assert torch.equal(all_scores(by_default, h), all_scores(by_number, h))
    every, none = (wrapped(original, rule="code", tail_below=n) for n in (10_000, 0))
    assert torch.equal(all_scores(none, h), all_scores(original, h))
    assert not torch.equal(all_scores(every, h), all_scores(by_default, h))
    assert not torch.equal(all_scores(by_default, h), all_scores(original, h))


def test_both_classifiers_are_stored() -> None:
    original = trained([5, 500])
    classifier = wrapped(original)
    state = classifier.state_dict()
    assert set(state) == {f"{which}.fc.{name}" for which in ("inner", "scaled") for name in ("weight", "bias")}
    torch.testing.assert_close(state["inner.fc.weight"], original.fc.weight.data)
    torch.testing.assert_close(state["scaled.fc.weight"].norm(dim=1), torch.ones(3))
    again = TauNormSelect(original.head, inner=SOFTMAX)
    again.load_state_dict(state)
    h = torch.randn(8, 4)
    assert torch.equal(all_scores(again, h), all_scores(classifier, h))
    assert wrapped(original).load_from(again) == []  # of its own kind: both as they are
    assert classifier.class_weights() is None
    assert not original.fc.weight.norm(dim=1).allclose(torch.ones(3)), "the original is not touched"


def test_what_it_refuses() -> None:
    with pytest.raises(UserError, match=r"no rule 'papers'\. Did you mean 'paper'"):
        TauNormSelect(head([5]), inner=SOFTMAX, rule="papers")
    grouped = GroupSoftmax(head([5, 500]))
    classifier = TauNormSelect(grouped.head, inner=canonical(part("group_softmax:GroupSoftmax")))
    with pytest.raises(UserError, match="GroupSoftmax has no weight row"):
        classifier.wrap(grouped)
    with pytest.raises(UserError, match="has no loss"):
        classifier.loss(torch.zeros(1, 6), targets([0]), context())


def test_the_recipe(write: Write) -> None:
    suite = open_suite(write(TINY))
    made = planned(Recipe(tau=0.7, rule="code", tail_below=20), suite, 0)
    assert (made.kind, made.inputs["model"].key) == ("patch", planned(suite.rows[0].method, suite, 0).key)
    spec = made.spec["classifier"]
    assert isinstance(spec, Part)
    kind, options = resolve(spec)
    classifier = kind(head([5, 50, 500, 5000]), **options)
    assert isinstance(classifier, TauNormSelect)
    assert (classifier.tau, classifier.rule, classifier.tail_L.tolist()) == (0.7, "code", [True] + [False] * 4)
