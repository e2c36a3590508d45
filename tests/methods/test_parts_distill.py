"""Imitation of a teacher: the checked values of methods.md 18, and what must hold for any maps and logits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.detection.contract import HeadSpec, Taps
from bench.errors import UserError
from methods.parts.distill import Features, Scores, cells, divergence, imitation, pairs_of

TOY = json.loads((Path(__file__).parent / "toy_values.json").read_text())


def test_the_cells_of_a_box_and_the_loss_on_them() -> None:
    toy = TOY["stepwise_fm"]
    cx, cy, w, h = toy["head_box_cxcywh"]
    frame = (toy["H"] * 8, toy["W"] * 8)
    box = torch.tensor(
        [[(cx - w / 2) * frame[1], (cy - h / 2) * frame[0], (cx + w / 2) * frame[1], (cy + h / 2) * frame[0]]]
    )
    mask = cells(box, frame, (toy["H"], toy["W"]))
    x1, y1, x2, y2 = toy["grid_x1y1x2y2"]
    wanted = torch.zeros(toy["H"], toy["W"], dtype=torch.bool)
    wanted[y1:y2, x1:x2] = True
    assert torch.equal(mask, wanted)
    assert mask.sum() == toy["n_mask"]
    student = torch.arange(50.0).reshape(1, 2, 5, 5) / 10
    assert imitation(student, student / 2, mask[None]).item() == pytest.approx(toy["loss"], abs=1e-6)


def test_the_divergence_of_the_head_classes() -> None:
    toy = TOY["stepwise_kl"]
    student, teacher = (torch.tensor(toy[f"{who}_logits"])[:, toy["head_idx"]] for who in ("student", "teacher"))
    assert divergence(student, teacher).item() == pytest.approx(toy["loss"], abs=1e-6)


def test_the_mean_is_over_images_and_an_empty_mask_gives_nothing() -> None:
    student = torch.arange(50.0).reshape(1, 2, 5, 5) / 10
    both, empty = student.repeat(2, 1, 1, 1), torch.zeros(2, 5, 5, dtype=torch.bool)
    assert imitation(both, both / 2, empty).item() == 0.0
    empty[0, 2:4, 1:3] = True  # one image of two: half of 2.1625
    assert imitation(both, both / 2, empty).item() == pytest.approx(2.1625 / 2, abs=1e-6)
    assert cells(torch.zeros(0, 4), (40, 40), (5, 5)).sum() == 0
    assert divergence(torch.zeros(0, 3), torch.zeros(0, 3)).item() == 0.0


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_who_equals_the_teacher_has_nothing_to_learn_and_the_order_of_classes_is_none(seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    maps, other = (torch.randn(2, 3, 6, 4, generator=draws) for _ in range(2))
    mask = torch.rand(2, 6, 4, generator=draws) < 0.4
    s, t = (4 * torch.randn(7, 5, generator=draws) for _ in range(2))
    order = torch.randperm(5, generator=draws)
    assert imitation(maps, maps, mask).item() == 0.0
    assert divergence(t, t).item() == 0.0
    assert imitation(maps, other, mask) >= 0
    assert divergence(s, t).item() >= -1e-6
    assert divergence(s[:, order], t[:, order]).item() == pytest.approx(divergence(s, t).item(), rel=1e-5, abs=1e-6)
    shifted = divergence(s + torch.randn(7, 1, generator=draws), t)  # a softmax does not see what all classes share
    assert shifted.item() == pytest.approx(divergence(s, t).item(), rel=1e-4, abs=1e-5)


def test_the_n_th_roi_of_an_image_stands_beside_the_n_th() -> None:
    own = [torch.zeros(2, 4), torch.zeros(3, 4)]
    theirs = [torch.zeros(3, 4), torch.zeros(1, 4)]
    assert pairs_of(own, theirs).tolist() == [[0, 0], [1, 1], [2, 3]]


@pytest.mark.parametrize(
    ("kind", "given_", "message"),
    [
        (Features, {"weight": -1}, "weight is -1"),
        (Scores, {"weight": float("nan")}, "weight is nan"),
        (Scores, {"edges": [{"images": 90}]}, "no class is common enough to be the teacher's"),
        (Features, {"edges": [{"images": 3}, {"images": 30}]}, "Legal: one or more, falling"),
        (Features, {"edges": [{"boxes": 3}]}, "'boxes'"),
    ],
)
def test_settings_out_of_range_are_refused(kind: type, given_: dict[str, object], message: str) -> None:
    head = HeadSpec(3, 4, (1, 1, 1), (50, 40, 2), (50, 31, 2), 100, (50, 40, 2), (50, 31, 2))
    with pytest.raises(UserError) as error:
        kind(head, teacher=None, **given_)
    assert message in str(error.value)


def test_whose_classes_the_teacher_knows() -> None:
    head = HeadSpec(4, 4, (1, 1, 1), (9,) * 4, (60, 30, 29, 2), 100, (9,) * 4, (9,) * 4)

    def known(**more: object) -> Tensor:
        return Features(head, teacher=None, **more).known_C  # type: ignore[arg-type]

    assert known().tolist() == [True, True, False, False]
    assert known(inclusive=False).tolist() == [True, False, False, False]
    assert known(edges=[0.3]).tolist() == [True, True, False, False]
    assert known(edges=[{"images": 30}, {"images": 10}], levels=2).tolist() == [True, True, True, False]


@dataclass
class Shown:
    """A step whose answers are set by the test."""

    student: Any
    given_maps: dict[int, dict[str, Tensor]]
    given_rois: dict[int, Any]
    given_batch: Any = None

    def batch(self) -> Any:
        return self.given_batch

    def maps(self, model: Any = None) -> dict[str, Tensor]:
        return self.given_maps[id(model or self.student)]

    def rois(self, model: Any = None) -> Any:
        return self.given_rois[id(model or self.student)]


def stub(logits: Tensor | None = None) -> Any:
    """A model whose classifier gives the taps as logits; with `logits`, these whatever the taps."""
    return SimpleNamespace(classifier=Given(logits))


class Given:
    def __init__(self, logits: Tensor | None) -> None:
        self.logits = logits

    def __call__(self, taps: Taps) -> Tensor:
        return taps.box_features if self.logits is None else self.logits

    def class_logits(self, z: Tensor) -> Tensor:
        return z


HEAD = HeadSpec(4, 4, (1, 1, 1), (9,) * 4, (60, 40, 30, 2), 100, (9,) * 4, (9,) * 4)


def test_the_imitation_of_a_step_is_the_weighted_mean_over_levels() -> None:
    """The checked value on one level, nothing to learn on another, a pooled level left out: 0.1 x 2.1625 / 2. A box of
    a tail class and one to ignore count for nothing."""
    s = torch.arange(50.0).reshape(1, 2, 5, 5) / 10
    student, teacher = stub(), stub()
    whole = [0.0, 0.0, 40.0, 40.0]
    batch = SimpleNamespace(
        images=torch.zeros(1, 3, 40, 40), boxes=[torch.tensor([[10.0, 10.0, 30.0, 30.0], whole, whole])],
        labels=[torch.tensor([0, 3, 1])], ignore=[torch.tensor([False, False, True])],
    )  # fmt: skip
    maps = {
        id(student): {"0": s, "1": s, "pool": s}, id(teacher): {"0": s / 2, "1": s, "pool": 9 * s},
    }  # fmt: skip
    found = Features(HEAD, teacher=teacher, weight=0.1).loss(Shown(student, maps, {}, batch))
    assert found.values["imitation"].item() == pytest.approx(0.1 * 2.1625 / 2, abs=1e-6)
    assert found.counts == {"imitation": 1}


def test_the_transfer_of_a_step_judges_the_teacher_s_rois() -> None:
    """The checked value, times the weight; unshared, the student judges its own RoIs, of which the pairs count."""
    toy = TOY["stepwise_kl"]
    s, t = (torch.tensor(toy[f"{who}_logits"]) for who in ("student", "teacher"))
    teacher, student = stub(t), stub(s)
    boxes = [torch.zeros(2, 4)]
    rois = {id(teacher): SimpleNamespace(taps=Taps(t), boxes=boxes), id(student): None}
    found = Scores(HEAD, teacher=teacher, weight=0.5).loss(Shown(student, {}, rois))
    assert found.values["transfer"].item() == pytest.approx(0.5 * toy["loss"], abs=1e-6)
    assert found.counts == {"transfer": 2}
    own = stub()  # its logits are its taps: four RoIs, of which two have a partner
    rois = {
        id(teacher): rois[id(teacher)],
        id(own): SimpleNamespace(taps=Taps(torch.cat((s, s))), boxes=[torch.zeros(4, 4)]),
    }
    apart = Scores(HEAD, teacher=teacher, weight=1.0, shared=False).loss(Shown(own, {}, rois))
    assert apart.values["transfer"].item() == pytest.approx(toy["loss"], abs=1e-6)
    assert apart.counts == {"transfer": 2}


def test_the_transfer_of_several_heads_is_the_sum_of_their_means() -> None:
    """The checked value is the mean of its two rows; as the rows of two heads they count in full (methods.md 18.5)."""
    toy = TOY["stepwise_kl"]
    s, t = (torch.tensor(toy[f"{who}_logits"]) for who in ("student", "teacher"))
    teacher, student = stub(t), stub(s)
    rois = {id(teacher): SimpleNamespace(taps=Taps(t, head_N=torch.tensor([0, 1])), boxes=[torch.zeros(2, 4)])}
    found = Scores(HEAD, teacher=teacher, weight=1.0).loss(Shown(student, {}, rois))
    assert found.values["transfer"].item() == pytest.approx(2 * toy["loss"], abs=1e-6)
