"""Deformable DETR behind the seam: what depends on what, labels after the match, boxes to ignore, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.detection.contract import Batch, Context, Draws, HeadSpec, TrainOutput
from bench.detection.per_head import PerHead
from bench.engines.detr.build import build
from bench.engines.detr.detector import DeformableDetr
from bench.engines.sections import Detr, SetPrediction
from bench.key import canonical
from bench.method import part
from bench.run.step import TrainStep

C, LAYERS, QUERIES, SIDE = 4, 2, 12, 64
COUNTS = (9,) * C


def made(**changes: object) -> DeformableDetr:
    own = {
        "levels": ("1", "2"), "extra_levels": 1, "width": 16, "heads": 2, "points": 2, "encoder": 1, "decoder": LAYERS,
        "ffn": 32, "queries": QUERIES, "dropout": 0.0, "base_size": 0.15, **changes,
    }  # fmt: skip
    detector = SetPrediction(
        engine="detr", trunk="small", norm="group", widths=(8, 8, 16, 16), frozen_stages=0, detr=Detr(**own)
    )  # type: ignore[arg-type]
    head = HeadSpec(C, 16, (0, 0, 0), COUNTS, COUNTS, 20, COUNTS, COUNTS)
    torch.manual_seed(0)
    return build(detector, head, PerHead(head, inner=canonical(part("set_focal:SetFocal")), count=LAYERS), seed=0)


def batch(*sizes: tuple[int, int], seed: int = 0) -> Batch:
    draws = torch.Generator().manual_seed(seed)
    images = torch.zeros(len(sizes), 3, SIDE, SIDE)
    boxes = []
    for image, (h, w) in zip(images, sizes, strict=True):
        image[:, :h, :w] = torch.randn(3, h, w, generator=draws)
        corner = torch.rand(3, 2, generator=draws) * torch.tensor([w - 24, h - 24])
        boxes.append(torch.cat((corner, corner + 12 + 12 * torch.rand(3, 2, generator=draws)), dim=1))
    n = len(sizes)
    return Batch(
        images, list(sizes), boxes, [torch.tensor([0, 1, 3])] * n, [torch.zeros(3, dtype=torch.bool)] * n,
        [torch.zeros(0, dtype=torch.int64)] * n, list(range(n)), [(1.0, 1.0)] * n, list(sizes),
    )  # fmt: skip


def assigned(model: DeformableDetr, shown: Batch) -> TrainOutput:
    out = model.train_forward(shown, Draws(0, 0, 0), trunk_losses=True)
    with torch.no_grad():
        scores = model.classifier.scores(model.classifier(out.taps))[0]
    return model.assign(out, lambda: scores)


def test_every_parameter_learns() -> None:
    """Also those of the proposals, which without losses of their own would be random for ever."""
    model = made().train()
    found = assigned(model, batch((64, 64), (48, 64)))
    own = model.classifier.loss(model.classifier(found.taps), found.targets, Context(0, 0.0, torch.Generator()))
    torch.stack([*found.losses.values(), *own.values()]).sum().backward()  # type: ignore[no-untyped-call]
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert set(found.counts.values()) == {6}


def test_each_true_box_has_a_query_in_each_layer() -> None:
    found = assigned(made().eval(), batch((64, 64), (48, 64)))
    assert found.taps.head_N is not None
    for image in (0, 1):
        for layer in range(LAYERS):
            mine = (found.targets.image_N == image) & (found.taps.head_N == layer)
            assert int(mine.sum()) == QUERIES
            labels = found.targets.labels_N[mine]
            assert sorted(labels[labels < C].tolist()) == [0, 1, 3]
    assert [len(of) for of in found.boxes] == [LAYERS * QUERIES] * 2


def test_the_query_of_a_box_to_ignore_is_in_no_loss() -> None:
    model, shown = made().eval(), batch((64, 64))
    with_it = assigned(model, shown)
    without = assigned(model, replace(shown, ignore=[torch.tensor([False, True, False])]))
    assert len(without.targets.labels_N) == len(with_it.targets.labels_N) - LAYERS
    assert sorted(without.targets.labels_N[without.targets.labels_N < C].tolist()) == [0, 0, 3, 3]
    assert set(without.counts.values()) == {2}
    assert without.targets.present[0].tolist() == [0, 3]
    assert len(without.boxes[0]) == len(without.taps.box_features)


def test_an_image_does_not_depend_on_its_batch_mates() -> None:
    model, both = made().eval(), batch((64, 64), (48, 40))
    together = model.predict_forward(both)
    for i in (0, 1):
        alone = Batch(
            both.images[i : i + 1], both.sizes[i : i + 1], both.boxes[i : i + 1], both.labels[i : i + 1],
            both.ignore[i : i + 1], both.negative[i : i + 1], [i], [(1.0, 1.0)], both.sizes[i : i + 1],
        )  # fmt: skip
        one = model.predict_forward(alone)
        mine = together.image_N == i
        torch.testing.assert_close(one.boxes, together.boxes[mine], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(one.taps.box_features, together.taps.box_features[mine], atol=1e-4, rtol=1e-4)


def test_the_padding_is_not_looked_at() -> None:
    """Whatever lies there, as far as the backbone's own convolutions do not carry it in: maps are given."""
    model, shown = made().eval(), batch((32, 32))
    maps = {name: cells.clone() for name, cells in model.maps(shown.images).items()}
    before = model.predict_forward(shown, maps=maps)
    for cells in maps.values():
        half = cells.shape[-1] // 2
        cells[..., half:, :] = 7.0
        cells[..., half:] = -7.0
    after = model.predict_forward(shown, maps=maps)
    # Bilinear reading at the border takes in half a cell of what is beside it, which the masked values are 0 of.
    torch.testing.assert_close(before.taps.box_features, after.taps.box_features, atol=1e-5, rtol=1e-5)


def test_shown_boxes_see_only_themselves() -> None:
    model, shown = made().eval(), batch((64, 64))
    three = model.box_taps(shown, shown.boxes).box_features
    one = model.box_taps(shown, [shown.boxes[0][1:2]]).box_features
    torch.testing.assert_close(three[1:2], one, atol=1e-5, rtol=1e-5)
    assert model.box_taps(shown, [shown.boxes[0][:0]]).box_features.shape == (0, 16)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_step_has_the_same_bits_again(dropout: float) -> None:
    """What torch's own generator gives has the address of the step, whatever was drawn before, and leaves no trace."""
    model, shown = made(dropout=dropout).train(), batch((64, 64))

    def features(seed: int, number: int) -> torch.Tensor:
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        step = TrainStep(
            model, [shown], Draws(0, 0, number), Context(number, 0.0, torch.Generator()),
            other_view=lambda view: shown, whole=lambda rows: rows, frozen=False, taps=(),
        )  # fmt: skip
        found = step.rois().taps.box_features
        assert torch.equal(torch.get_rng_state(), before)
        return found

    first = features(1, 3)
    assert torch.equal(first, features(2, 3))
    assert torch.equal(first, features(1, 4)) == (dropout == 0.0)


def test_groups_and_what_stays_still() -> None:
    model = made()
    assert model.group_of("encoder.layers.0.attention.offsets.weight") == "offsets"
    assert model.group_of("decoder.0.attention.value.weight") == "decoder"
    model.set_mode(("input_proj", "classifier"))
    moving = {model.group_of(name) for name, p in model.named_parameters() if p.requires_grad}
    assert moving == {"input_proj", "classifier"}
