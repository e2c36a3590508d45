"""Balanced group softmax: layout, loss in its published sampling modes, scores, the switches of Tables 4 and 5."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rois import context, head, targets, total

from bench.cli.open import open_suite
from bench.errors import UserError
from bench.key import Part, part, resolve
from bench.method import planned
from bench.stage import Stage
from methods.bags import Bags
from methods.parts.group_softmax import GroupSoftmax, group_layout, segment_losses, select
from methods.parts.softmax import Softmax
from tests.conftest import TINY, Write

TOY = json.loads((Path(__file__).parent / "toy_values.json").read_text())
REFERENCE = Path(__file__).parents[3] / "shared/reference"
COUNTS = TOY["bags_layout"]["counts"]
EDGES = (10, 100, 1000)


def toy_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels, background moved from label 0 to label C (the columns of the logits are BAGS' own)."""
    toy = TOY["bags_loss"]
    return torch.tensor(toy["logits"], dtype=torch.float64), (torch.tensor(toy["labels"]) - 1) % 6


def batch(classifier: GroupSoftmax, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classifier.head.num_classes + 1, (n,), generator=g)
    return torch.randn(n, classifier.layout.width, generator=g, dtype=torch.float64), labels


def test_layout() -> None:
    toy = TOY["bags_layout"]
    layout = group_layout(COUNTS, EDGES)
    assert layout.groups == (1, 2, 3, 4)
    assert [[start, stop - start] for start, stop in layout.segments] == toy["slices_start_len"]
    assert layout.width == toy["n_outputs"]
    np.testing.assert_array_equal(layout.place_SL, np.roll(toy["label2bin"], -1, axis=1))
    assert [list(1 + np.flatnonzero(row[:5])) for row in layout.place_SL[1:]] == toy["groups"]


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
    chosen = torch.ones_like(place, dtype=torch.bool)
    if not everything:
        chosen[1:] = select(place[1:] > 0, beta, keys)
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


# The switches of Table 4, worked out by hand. Classes 0 and 2 are group 1, class 1 group 2, class 4 group 3, class 3
# group 4; raw outputs are the logarithms of the weights below: a probability is a weight over the sum of its segment.
TABLE4: dict[tuple[bool, bool], dict[str, Any]] = {
    (False, False): {  # (background, others): row 1
        "segments": ((0, 2), (2, 3), (3, 4), (4, 6)),
        "weights": [1, 3, 1, 1, 1, 4],
        "scores": [1 / 4, 1, 3 / 4, 1 / 5, 1],
        "background": 4 / 5,
        "losses": [math.log(4), 0, 0, (math.log(5) + math.log(5 / 4)) / 2],
    },
    (True, False): {  # row 2
        "segments": ((0, 2), (2, 4), (4, 5), (5, 6), (6, 7)),
        "weights": [1, 4, 1, 3, 1, 1, 1],
        "scores": [0.8 / 4, 0.8, 0.8 * 3 / 4, 0.8, 0.8],
        "background": 1 / 5,
        "losses": [(2 * math.log(5 / 4) + math.log(5)) / 3, math.log(4), 0, 0, 0],
    },
    (False, True): {  # row 3
        "segments": ((0, 3), (3, 5), (5, 7), (7, 10)),
        "weights": [4, 1, 3, 1, 1, 2, 1, 2, 1, 2],
        "scores": [1 / 8, 1 / 2, 3 / 8, 1 / 5, 1 / 3],
        "background": 2 / 5,
        # beta n: group 1 sees class 0 and two others, group 4 class 3, the background and one other
        "losses": [(math.log(8) + 2 * math.log(2)) / 3, 0, 0, (math.log(5) + 2 * math.log(5 / 2)) / 3],
    },
}


@pytest.mark.parametrize(("background", "others"), TABLE4)
def test_the_switches_of_table_4(background: bool, others: bool) -> None:
    wanted = TABLE4[background, others]
    classifier = GroupSoftmax(head(COUNTS), beta=math.inf, background=background, others=others)
    assert classifier.layout.segments == wanted["segments"]
    z = torch.tensor(wanted["weights"], dtype=torch.float64).log().expand(3, -1)
    p_NC, p_bg = classifier.scores(z)
    assert p_bg is not None
    np.testing.assert_allclose(p_NC[0], wanted["scores"], atol=1e-12)
    assert float(p_bg[0]) == pytest.approx(wanted["background"])
    losses = classifier.loss(z, targets([0, 3, 5]), context())  # a RoI of group 1, one of group 4, the background
    assert [name.removeprefix("classification_") for name in losses] == [
        *(["background"] if background else []), "group1", "group2", "group3", "group4",
    ]  # fmt: skip
    np.testing.assert_allclose([float(v) for v in losses.values()], wanted["losses"], atol=1e-12)


def test_all_trains_every_group_on_every_roi_also_where_the_background_has_joined_one() -> None:
    classifier = GroupSoftmax(head(COUNTS), everything=True, background=False)
    z = torch.tensor(TABLE4[False, True]["weights"], dtype=torch.float64).log().expand(3, -1)
    losses = classifier.loss(z, targets([0, 3, 5]), context())
    group1, group4 = TABLE4[False, True]["losses"][::3]
    wanted = [group1, math.log(2), math.log(3 / 2), group4]  # groups 2 and 3: three others each
    np.testing.assert_allclose([float(v) for v in losses.values()], wanted, atol=1e-12)


def test_the_draw_is_uniform_and_follows_its_generator() -> None:
    own = torch.tensor([[True, True] + [False] * 10])  # 2 RoIs of the group, 10 others
    draws = [select(own, 2.0, torch.rand(1, 12, generator=context(s).generator))[0, 2:] for s in range(2000)]
    often = torch.stack(draws).double().mean(0)
    sigma = math.sqrt(0.4 * 0.6 / 2000)
    assert (abs(often - 0.4) < 4 * sigma).all()
    classifier = GroupSoftmax(head(COUNTS), beta=1.0)
    z, labels = batch(classifier, 64, 5)
    same, again, other = (total(classifier.loss(z, targets(labels), context(s))).item() for s in (1, 1, 2))
    assert same == again != other


def test_class_weights_are_the_rows_of_the_classes() -> None:
    classifier = GroupSoftmax(head(COUNTS))
    W = classifier.class_weights()
    assert W is not None
    assert W.shape == (6, 4)
    assert torch.equal(W[5], classifier.fc.weight[0])  # background: segment 0
    assert torch.equal(W[1], classifier.fc.weight[6])  # class with 50 instances: first of the second group
    assert torch.equal(W[3], classifier.fc.weight[10])  # class with 2,000: first of the fourth
    joined = GroupSoftmax(head(COUNTS), background=False)
    W = joined.class_weights()
    assert W is not None
    assert torch.equal(W[5], joined.fc.weight[9])  # background: last of the fourth group


def test_load_from() -> None:
    same, plain = GroupSoftmax(head(COUNTS), beta=1.0), Softmax(head(COUNTS))
    other_groups = GroupSoftmax(head(COUNTS[::-1]))
    classifier = GroupSoftmax(head(COUNTS))
    assert classifier.load_from(plain) == classifier.load_from(other_groups) == ["fc.weight", "fc.bias"]
    assert classifier.load_from(GroupSoftmax(head(COUNTS), others=False)) == ["fc.weight", "fc.bias"]
    assert not torch.equal(classifier.fc.weight, other_groups.fc.weight)
    assert classifier.load_from(same) == []
    assert torch.equal(classifier.fc.weight, same.fc.weight)


def test_settings() -> None:
    made, options = resolve(part("group_softmax:GroupSoftmax", beta=math.inf, edges=[100]))
    classifier = made(head(COUNTS), **options)
    assert (classifier.beta, classifier.layout.groups) == (math.inf, (1, 2))
    assert GroupSoftmax(head([3, 5])).layout.groups == (1,)  # no class reaches the other groups
    assert GroupSoftmax(head([3, 2000])).layout.groups == (1, 4)
    wrong: list[dict[str, Any]] = [
        {"beta": -1.0}, {"beta": math.nan}, {"edges": (100, 10)}, {"edges": (10, 10)},
        {"everything": True, "others": False},
    ]  # fmt: skip
    for options in wrong:
        with pytest.raises(UserError):
            GroupSoftmax(head(COUNTS), **options)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the published counts are not beside the checkout")
@pytest.mark.parametrize(
    ("file", "column", "edges", "sizes", "width"),
    [
        ("lvis_v0.5_train_counts", "instance_count", (100,), [747, 483], 1234),
        ("lvis_v0.5_train_counts", "instance_count", EDGES, [294, 453, 302, 181], 1236),
        ("lvis_v0.5_train_counts", "instance_count", (5, 10, 50, 100, 500, 1000, 5000),
         [178, 116, 327, 126, 224, 78, 156, 25], 1240),
        ("lvis_v1_train_counts", "instance_count", EDGES, [200, 412, 334, 257], 1209),
        ("coco_lt_bags_targets", "target_instances", EDGES, None, 86),
    ],
)  # fmt: skip
def test_published_groups(file: str, column: str, edges: tuple[int, ...], sizes: list[int] | None, width: int) -> None:
    table = np.genfromtxt(REFERENCE / f"{file}.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    layout = group_layout(table[column].tolist(), edges)
    assert layout.width == width
    if sizes:
        assert [stop - start - 1 for start, stop in layout.segments[1:]] == sizes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_draws_what_the_cpu_draws() -> None:
    classifier = GroupSoftmax(head(COUNTS), beta=1.0)
    z, labels = batch(classifier, 512, 4)
    here = total(classifier.loss(z, targets(labels), context(4)))
    classifier.to("cuda")
    there = total(classifier.loss(z.to("cuda"), targets(labels.to("cuda")), context(4)))
    torch.testing.assert_close(there.cpu(), here)


# -- the recipe


def stage(write: Write, **settings: Any) -> Stage:
    text = TINY.replace("stages:", "stages:\n  tune: {steps: 5, lr: 0.0001}")
    return planned(Bags(**settings), open_suite(write(text)), 0)


def built(made: Stage) -> GroupSoftmax:
    """The classifier that a stage names, on the toy's counts."""
    spec = made.spec["classifier"]
    assert isinstance(spec, Part)
    kind, settings = resolve(spec)
    classifier = kind(head(COUNTS), **settings)
    assert isinstance(classifier, GroupSoftmax)
    return classifier


def test_words_for_beta(write: Write) -> None:
    key = stage(write, beta="n").key
    assert key == stage(write, beta=math.inf).key != stage(write, beta=8).key
    assert built(stage(write, beta="n")).beta == math.inf
    everything = stage(write, beta="all")
    assert built(everything).everything
    assert everything.key != key
    assert not built(stage(write)).everything
    without = stage(write, others=False)
    assert without.key == stage(write, others=False, beta=2).key  # no others, no number of them
    assert not built(without).layout.others
    assert not built(stage(write, background=False)).layout.background


@pytest.mark.parametrize("wrong", [{"beta": "every"}, {"beta": -1}, {"beta": math.nan}, {"tune": "classifier"}])
def test_the_recipe_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"beta|tune"):
        Bags(**wrong)


def test_a_suite_that_wants_every_roi_without_others_is_told(write: Write) -> None:
    with pytest.raises(UserError, match=r"tiny.yaml:\d+ rows.BAGS: beta: all needs others: true"):
        open_suite(write(TINY.replace("beta: 8", "beta: all, others: false")))


def test_the_rows_of_table_5(write: Write) -> None:
    only, head_too = stage(write), stage(write, trainable="head")
    tuned = {what: stage(write, tune=what) for what in ("head", "all")}
    groups = ["box_head", "box_regressor", "classifier"]
    assert (only.spec["trainable"], head_too.spec["trainable"]) == (["classifier"], groups)
    assert only.spec["schedule"] == head_too.spec["schedule"]
    assert not only.spec["keep_classifier"]
    for what, trainable in (("head", groups), ("all", [])):
        assert tuned[what].inputs["init"].key == only.key
        assert tuned[what].spec["keep_classifier"]
        assert tuned[what].spec["trainable"] == trainable
        assert tuned[what].spec["classifier"] == only.spec["classifier"]
        schedule = tuned[what].spec["schedule"]
        assert (schedule["steps"], schedule["lr"]) == (5, 0.0001)
