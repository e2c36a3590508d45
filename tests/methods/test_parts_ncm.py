"""The nearest class mean: published numbers, what the means are made of, what it refuses, the recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rois import context, head, targets

from bench.cli.open import open_suite
from bench.detection.contract import Classifier, Context, LabelledRois, Taps, Targets
from bench.errors import UserError
from bench.key import Part, canonical, part, resolve
from bench.method import planned
from methods.ncm import NearestClassMean
from methods.parts.ncm import ClassMeans, NearestMean
from methods.parts.softmax import Softmax
from tests.conftest import TINY, Write

TOY = json.loads((Path(__file__).parent / "toy_values.json").read_text())
SOFTMAX = canonical(part("softmax:Softmax"))


class Silent(Classifier):
    """A classifier that knows no background probability, as one of independent sigmoids."""

    def forward(self, taps: Taps) -> torch.Tensor:
        return taps.box_features.new_zeros(len(taps.box_features), self.head.num_classes)

    def loss(self, z_NK: torch.Tensor, targets: Targets, context: Context) -> dict[str, torch.Tensor]:
        return {"classification": z_NK.sum()}

    def scores(self, z_NK: torch.Tensor) -> tuple[torch.Tensor, None]:
        return z_NK.sigmoid(), None


def seen(labels: list[int], **taps: torch.Tensor) -> LabelledRois:
    y = torch.tensor(labels)
    read = Taps(taps.pop("box_features", torch.empty(len(y), 0)), **taps)
    return LabelledRois(read, y, torch.zeros_like(y), torch.arange(len(y)), torch.zeros(len(y), 4), Softmax(head([5])))


def means_of(rows: Any, counts: list[int] | None = None) -> dict[str, torch.Tensor]:
    means = torch.tensor(rows)
    return {"means_CD": means, "count_C": torch.tensor(counts or [1] * len(means))}


def toy(**settings: Any) -> NearestMean:
    classifier = NearestMean(head([5] * 3, 2), inner=SOFTMAX, means=means_of(TOY["ncm"]["centres"]), **settings)
    return classifier.double()


def toy_outputs(classifier: NearestMean) -> torch.Tensor:
    """Raw outputs of the toy's RoIs: the classifier's own cosines, inner logits whose softmax has the toy's p_bg."""
    h, p_bg = (torch.tensor(TOY["ncm"][name], dtype=torch.float64) for name in ("feats", "p_bg"))
    z_NK = classifier(Taps(h, box_features_pre_relu=h))
    z_NK[:, 3:] = torch.cat([((1 - p_bg) / 3).log()[:, None].expand(-1, 3), p_bg.log()[:, None]], dim=1)
    return z_NK


def test_published_numbers() -> None:
    classifier = toy()
    z_NK = toy_outputs(classifier)
    torch.testing.assert_close(z_NK[:, :3], torch.tensor(TOY["ncm"]["cos"]).double(), atol=1e-6, rtol=0)
    p_NC, p_bg = classifier.scores(z_NK)
    assert p_bg is not None
    torch.testing.assert_close(p_NC, torch.tensor(TOY["ncm"]["scores_fg"]).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(p_bg, torch.tensor(TOY["ncm"]["p_bg"]).double())
    decided = torch.cat([p_bg[:, None], p_NC], dim=1).argmax(dim=1)
    assert decided.tolist() == TOY["ncm"]["argmax_incl_bg"]


def test_a_low_temperature_is_the_nearest_mean_alone() -> None:
    classifier = toy(temperature=1e-3)
    p_NC, p_bg = classifier.scores(toy_outputs(classifier))
    assert p_bg is not None
    wanted = (1 - p_bg)[:, None] * torch.eye(3, dtype=torch.float64)[[0, 1]]  # of the cosines of the toy
    torch.testing.assert_close(p_NC, wanted, atol=1e-12, rtol=0)


def test_a_class_without_instances_takes_no_part() -> None:
    h = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    taps = Taps(h, box_features_pre_relu=h)
    with_gap = NearestMean(
        head([5] * 3, 2), inner=SOFTMAX, means=means_of([[1.0, 0.0], [0.0, 0.0], [3.0, 3.0]], [4, 0, 1])
    )
    z_NK = with_gap(taps)
    assert torch.isneginf(z_NK[:, 1]).all()
    p_NC, p_bg = with_gap.scores(z_NK)
    assert p_bg is not None
    assert not p_NC[:, 1].any()
    torch.testing.assert_close(p_NC.sum(dim=1), 1 - p_bg)
    without = NearestMean(head([5] * 2, 2), inner=SOFTMAX, means=means_of([[1.0, 0.0], [3.0, 3.0]]))
    shares = p_NC[:, [0, 2]] / (1 - p_bg)[:, None]
    torch.testing.assert_close(shares, without(taps)[:, :2].softmax(dim=1))


def test_it_wraps_a_trained_classifier() -> None:
    trained = Softmax(head([5] * 3, 2))
    classifier = NearestMean(head([5] * 3, 2), inner=SOFTMAX, means=means_of(TOY["ncm"]["centres"]))
    classifier.wrap(trained)
    h = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    before_relu = torch.randn(6, 2, generator=torch.Generator().manual_seed(2))
    p_bg, wanted = (c.scores(c(Taps(h, before_relu)))[1] for c in (classifier, trained))
    torch.testing.assert_close(p_bg, wanted)
    assert classifier.class_weights() is None
    assert classifier.inputs == ("box_features_pre_relu", "box_features")
    assert set(classifier.state_dict()) == {"inner.fc.weight", "inner.fc.bias"}  # the means come from their own stage


def test_grouped_softmax_may_be_inside() -> None:
    inner = canonical(part("group_softmax:GroupSoftmax", edges=[10]))
    classifier = NearestMean(head([5, 50], 2), inner=inner, means=means_of([[1.0, 0.0], [0.0, 1.0]]))
    h = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    z_NK = classifier(Taps(h, box_features_pre_relu=h))
    p_NC, p_bg = classifier.scores(z_NK)
    torch.testing.assert_close(p_bg, z_NK[:, 2:4].softmax(dim=1)[:, 0])  # its columns: cosines, [bg, fg], groups
    torch.testing.assert_close(p_NC.sum(dim=1), z_NK[:, 2:4].softmax(dim=1)[:, 1])


def test_cosines_keep_float32_under_autocast() -> None:
    h = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    means = means_of(torch.randn(5, 8, generator=torch.Generator().manual_seed(2)).tolist())
    classifier = NearestMean(head([5] * 5, 8), inner=SOFTMAX, means=means)
    taps = Taps(h, box_features_pre_relu=h)
    exact = classifier(taps)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = classifier(taps)
    assert torch.equal(rounded[:, :5], exact[:, :5])
    # Features that bfloat16 has rounded (2^-9 of each): a cosine is off by that at most.
    rounded = classifier(Taps(h, box_features_pre_relu=h.bfloat16()))
    torch.testing.assert_close(rounded[:, :5], exact[:, :5], atol=2**-8, rtol=0)


def test_means_over_batches() -> None:
    means = ClassMeans(head([5] * 3, 2))
    means.update(seen([0, 2, 0], box_features_pre_relu=torch.tensor([[1.0, 2.0], [-5.0, 0.0], [3.0, 0.0]])))
    means.update(seen([0], box_features_pre_relu=torch.tensor([[8.0, 1.0]])))
    result = means.result()
    assert result["count_C"].tolist() == [3, 0, 1]
    assert result["means_CD"].tolist() == [[4.0, 1.0], [0.0, 0.0], [-5.0, 0.0]]
    assert result["means_CD"].dtype == torch.float32
    assert means.inputs == ("box_features_pre_relu",)


def test_many_features_are_summed_in_float64() -> None:
    means = ClassMeans(head([5], 1))
    for value in (2.0**25, *[1.0] * 64):  # a float32 sum would stay at 2^25
        means.update(seen([0], box_features_pre_relu=torch.tensor([[value]])))
    assert result_of(means) == pytest.approx((2**25 + 64) / 65, rel=1e-7)


def result_of(means: ClassMeans) -> float:
    return float(means.result()["means_CD"][0, 0])


def test_the_roi_map_is_flattened() -> None:
    spec = head([5, 5], 2, roi_shape=(3, 2, 2))
    maps = torch.arange(24.0).reshape(2, 3, 2, 2)
    means = ClassMeans(spec, rois="proposals", tap="roi_map")
    assert (means.rois, means.inputs) == ("proposals", ("roi_map",))
    means.update(seen([1, 0], roi_map=maps))
    result = means.result()
    assert torch.equal(result["means_CD"], maps.flatten(1)[[1, 0]])
    classifier = NearestMean(spec, inner=SOFTMAX, means=result, tap="roi_map")
    cos_NC = classifier(Taps(torch.zeros(2, 2), roi_map=maps))[:, :2]
    torch.testing.assert_close(cos_NC.diagonal(offset=1)[0], torch.tensor(1.0))
    torch.testing.assert_close(cos_NC[1, 0], torch.tensor(1.0))


def test_what_it_refuses() -> None:
    good = means_of(TOY["ncm"]["centres"])
    spec = head([5] * 3, 2)
    with pytest.raises(UserError, match="temperature is 0"):
        NearestMean(spec, inner=SOFTMAX, means=good, temperature=0)
    with pytest.raises(UserError, match=r"class means of shape \(3, 2\) do not fit.*3 classes x 8 values of roi_map"):
        NearestMean(spec, inner=SOFTMAX, means=good, tap="roi_map")
    with pytest.raises(UserError, match="do not fit"):
        NearestMean(head([5] * 2, 2), inner=SOFTMAX, means=good)
    with pytest.raises(UserError, match="no class has a mean"):
        NearestMean(spec, inner=SOFTMAX, means=good | {"count_C": torch.zeros(3, dtype=torch.int64)})
    with pytest.raises(UserError, match=r"no tap 'roi_maps'\. Did you mean 'roi_map'"):
        ClassMeans(spec, tap="roi_maps")
    classifier = NearestMean(spec, inner={"part": f"{__file__}:Silent", "settings": {}}, means=good)
    h = torch.ones(1, 2)
    with pytest.raises(UserError, match="Silent has no background probability"):
        classifier.scores(classifier(Taps(h, h)))
    with pytest.raises(UserError, match="has no loss"):
        classifier.loss(h, targets([0]), context())


@pytest.mark.parametrize(
    ("settings", "tap", "rois"),
    [
        ({}, "box_features_pre_relu", "gt"),
        ({"feature": "conv", "boxes": "proposals", "temperature": 0.1}, "roi_map", "proposals"),
    ],
)
def test_the_recipe(write: Write, settings: dict[str, Any], tap: str, rois: str) -> None:
    suite = open_suite(write(TINY))
    made = planned(NearestClassMean(**settings), suite, 0)
    baseline = planned(suite.rows[0].method, suite, 0)
    fit = made.inputs["means"]
    assert (fit.kind, made.inputs["model"].key, fit.inputs["model"].key) == ("fit", baseline.key, baseline.key)
    assert fit.spec["fit"].settings == {"rois": rois, "tap": tap}
    spec = made.spec["classifier"]
    assert isinstance(spec, Part)
    kind, options = resolve(spec, {"means": means_of(torch.ones(4, 4 if tap != "roi_map" else 8).tolist())})
    classifier = kind(head([5] * 4), **options)
    assert isinstance(classifier, NearestMean)
    assert isinstance(classifier.inner, Softmax)
    assert (classifier.tap, classifier.temperature) == (tap, settings.get("temperature", 1.0))
