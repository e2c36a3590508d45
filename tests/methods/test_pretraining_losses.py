"""What the losses of a pre-training compare: values by hand, on maps and boxes in place of a detector's."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.detection.contract import Context
from methods.parts import aligndet, contrast
from methods.parts.aligndet import BoxContrast
from methods.parts.drcl import Appearance, Contrast, patches
from tests.methods.rois import head

FRAME = (64, 64)


class Cells(nn.Module):
    """A detector whose last map is the mean of red over cells of 16 pixels, in two channels: it, and 1."""

    last = (2, 16)

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def body(self, images: Tensor) -> dict[str, Tensor]:
        cells = nn.functional.avg_pool2d(images[:, :1], 16) * self.factor
        return {"0": torch.cat((cells, torch.ones_like(cells)), dim=1)}


@dataclass
class Shown:
    """A Step over given views: images, and boxes of view 0, which are where they are in each view."""

    student: Cells
    images: list[Tensor]
    boxes: list[Tensor]
    sizes: list[tuple[int, int]]
    features: dict[int, Tensor] = field(default_factory=dict)
    first: int = 0
    context: Context = field(default_factory=lambda: Context(0, 0.0, torch.Generator()))

    def batch(self, view: int = 0) -> Any:
        labels = [torch.zeros(len(one), dtype=torch.int64) for one in self.boxes]
        ignore = [torch.zeros(len(one), dtype=torch.bool) for one in self.boxes]
        return SimpleNamespace(
            images=self.images[view], boxes=self.boxes, labels=labels, ignore=ignore, sizes=self.sizes
        )  # fmt: skip

    def last(self, model: Any = None, view: int = 0) -> Tensor:
        with torch.set_grad_enabled(model is None):
            return (model or self.student).body(self.images[view])["0"]

    def carried(self, boxes: list[Tensor], view: int) -> tuple[list[Tensor], list[Tensor]]:
        return boxes, [torch.ones(len(one)) for one in boxes]

    def taps(self, boxes: list[Tensor], model: Any = None, view: int = 0) -> Any:
        return SimpleNamespace(box_features=self.features[view])

    def generator(self, role: str, image: int) -> torch.Generator:
        return torch.Generator().manual_seed(image)

    def whole(self, rows: Tensor) -> Tensor:
        return rows


def shown(*reds: float, number: int = 2) -> Shown:
    """Views of one colour each (red; the rest is 0), images of which the second has its right half on padding."""
    views = [torch.zeros(number, 3, *FRAME) for _ in reds]
    for view, red in zip(views, reds, strict=True):
        view[:, 0] = red
    boxes = [torch.tensor([[0.0, 0.0, 16.0, 16.0], [16.0, 16.0, 48.0, 48.0]])] * number
    return Shown(Cells(), views, boxes, [FRAME, (64, 32)][:number])


def made(step: Shown, **settings: Any) -> Contrast:
    loss = Contrast(head((5, 3, 1)), **{"holistic": 0.0, "local": 0.0, "semantic": 0.0, "width": 4, **settings})
    loss.begin(step.student)  # type: ignore[arg-type]
    return loss


def test_a_masked_cell_is_told_from_what_the_copy_sees_of_it() -> None:
    """Cells are (1, 1) where seen and (0, 1) where masked: 1 - cos = 1 - 1/sqrt(2) of half of them."""
    step = shown(0.0, 1.0, 1.0, number=1)
    loss = made(step, semantic=2.0, patch=16)
    found = loss.loss(step)  # type: ignore[arg-type]
    assert found.values["semantic"].item() == pytest.approx(2 * 0.5 * (1 - 2**-0.5), abs=1e-6)
    assert found.counts == {"semantic": 1}
    assert made(step, semantic=1.0, masked=0.0).loss(step).values["semantic"].item() == pytest.approx(0.0, abs=1e-6)  # type: ignore[arg-type]
    found.values["semantic"].backward()  # type: ignore[no-untyped-call]
    assert step.student.factor.grad is not None
    assert loss.slow.factor.grad is None  # type: ignore[attr-defined]


class Normed(Cells):
    """`Cells` of normalised images."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def body(self, images: Tensor) -> dict[str, Tensor]:
        return super().body(self.norm(images))


def test_masked_images_stay_out_of_the_running_statistics() -> None:
    step = shown(0.0, 1.0, 2.0)
    step.student = Normed().train()
    loss = made(step, semantic=1.0, patch=16)
    loss.loss(step)  # type: ignore[arg-type]
    norm = step.student.norm
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == [0.0, 0.0, 0.0]
    step.last(None, 1)  # a whole image counts, as ever: 0.1 of its mean, 1
    assert norm.running_mean.tolist() == pytest.approx([0.1, 0.0, 0.0])


def test_examples_are_of_view_1_and_painted_by_the_finished_decoder() -> None:
    """View 1 is red 4 everywhere: cells are 4, or 0 where masked. The decoder doubles a cell's red, all over it."""
    step = shown(0.0, 4.0)
    loss = Appearance(head((5, 3, 1)), patch=16)
    loss.begin(step.student)  # type: ignore[arg-type]
    doubled = nn.Conv2d(2, 3, 1, bias=False)
    with torch.no_grad():
        doubled.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 0.0]]).view(3, 2, 1, 1))
    loss.decoder = nn.Sequential(nn.Upsample(scale_factor=8), doubled)
    found = loss.examples(step)  # type: ignore[arg-type]
    assert found["view"].shape == (2, 3, 32, 32)  # of 64 x 64
    assert found["sizes_N2"].tolist() == [[32, 32], [32, 16]]
    assert found["view"][:, 0].unique().tolist() == [4.0]
    assert found["view_painted"][:, 0].unique().tolist() == [8.0]
    assert found["masked"][:, 0].mean().item() == 2.0  # half of the squares
    assert torch.equal(found["masked_painted"][:, 0], 2 * found["masked"][:, 0])
    assert (found["masked_painted"][:, 1:] == 0).all()


def test_half_of_the_squares_are_masked() -> None:
    step = shown(0.0, 1.0)
    hidden = patches(step, 2, (64, 80), 16, 0.5)  # type: ignore[arg-type]
    assert hidden.sum(dim=(1, 2)).tolist() == [10 * 256] * 2  # of 4 x 5 squares
    squares = hidden.view(2, 4, 16, 5, 16).float().mean(dim=(2, 4))
    assert set(squares.flatten().tolist()) == {0.0, 1.0}
    assert not torch.equal(hidden[0], hidden[1])


def test_the_error_of_what_is_painted_is_a_mean_over_the_image() -> None:
    """Painted black, the image is 3, 0, 0 everywhere: the mean of 9, 0, 0."""
    step = shown(0.0, 3.0)
    loss = Appearance(head((5, 3, 1)), weight=0.5, width=8)
    loss.begin(step.student)  # type: ignore[arg-type]
    assert len([m for m in loss.decoder if isinstance(m, nn.Upsample)]) == 3  # stride 16: up to half the resolution
    with torch.no_grad():
        last = loss.decoder[-1]
        assert isinstance(last, nn.Conv2d)
        last.weight.zero_()
        assert last.bias is not None
        last.bias.zero_()
    assert loss.loss(step).values["appearance"].item() == pytest.approx(0.5 * 9 / 3)  # type: ignore[arg-type]
    with torch.no_grad():
        last.bias.copy_(torch.tensor([3.0, 0.0, 0.0]))
    assert loss.loss(step).values["appearance"].item() == pytest.approx(0.0, abs=1e-6)  # type: ignore[arg-type]
    step.images[1][1, :, :, 32:] = 100.0  # on the padding of the second image
    assert loss.loss(step).values["appearance"].item() == pytest.approx(0.0, abs=1e-6)  # type: ignore[arg-type]


def plain(loss: Contrast, what: str) -> None:
    """Projectors and predictors that change nothing."""
    for modules in (loss.project, loss.predict, loss.project_slow):
        modules[what] = nn.Identity()


def test_the_same_boxes_are_compared_across_views() -> None:
    """cos of (1, 0) and (0, 1) is 0, of (1, 0) and (1, 0) is 1: 2 - 2 cos is 2 and 0; the mean over two boxes of both
    directions is 1. Features of four images' boxes: two each."""
    one, other = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    step = shown(0.0, 1.0, 1.0, number=1)
    step.features = {1: one, 2: other}
    loss = made(step, local=3.0)
    plain(loss, "local")
    with pytest.MonkeyPatch.context() as patch:  # in view 1 both boxes are alike, on purpose
        patch.setattr(contrast, "refuse_collapse", lambda *_: None)
        found = loss.loss(step)  # type: ignore[arg-type]
    assert found.values["local"].item() == pytest.approx(3 * 1.0)
    assert found.counts["local"] == 2
    assert found.shown["local_alignment"].item() == pytest.approx(1.0)  # |(1,0) - (0,1)|^2 = 2, and 0


def test_the_image_vectors_are_compared_crosswise() -> None:
    """Vectors are (red, 1): (1, 1) in view 1 and (-1, 1) in view 2, at a right angle: 2 - 2 cos = 2, both ways."""
    step = shown(0.0, 1.0, -1.0)
    loss = made(step, holistic=1.0)
    plain(loss, "holistic")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrast, "refuse_collapse", lambda *_: None)
        assert loss.loss(step).values["holistic"].item() == pytest.approx(2.0, abs=1e-6)  # type: ignore[arg-type]


def test_boxes_are_drawn_by_their_classes_factors() -> None:
    """Class 1 is in 1 of 100 images, class 0 in all: sqrt(0.25 / 0.01) = 5 beside 1. One of two boxes: 5 of 6."""
    from dataclasses import replace

    spec = replace(head((100, 1)), image_counts=(100, 1), num_images=100)
    step = shown(0.0, 1.0, 1.0, number=1)
    loss = Contrast(spec, holistic=0.0, semantic=0.0, boxes=1, rebalance="image", t=0.25, width=4)
    labels = [torch.tensor([0, 1])]
    drawn = []
    for seed in range(600):
        step.generator = lambda role, image, seed=seed: torch.Generator().manual_seed(seed)  # type: ignore[method-assign, misc]
        batch = step.batch()
        batch.labels = labels
        step.batch = lambda view=0, batch=batch: batch  # type: ignore[method-assign, misc]
        drawn.append(float(loss._chosen(step, 0)[0, 0]))  # type: ignore[arg-type]
        del step.__dict__["batch"]
    assert drawn.count(16.0) / 600 == pytest.approx(5 / 6, abs=0.05)


def test_rois_of_one_box_have_one_name_in_both_views() -> None:
    """Image 0 has one box, image 1 two; the first process's batch begins at image 3 of all."""
    loss = BoxContrast(head((5, 3, 1)))
    truth = [torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 10, 10], [20.0, 20, 40, 40]])]
    rois = [
        torch.tensor([[30.0, 30, 40, 40], [0.0, 0, 10, 9]]),  # beside its box; on it (IoU 0.9)
        torch.tensor([[21.0, 20, 40, 40], [0.0, 0, 10, 4], [1.0, 0, 10, 10]]),  # box 1; IoU 0.4 with box 0; box 0
    ]
    rows, labels = loss._positives(rois, truth, 3)
    assert rows.tolist() == [1, 2, 4]
    assert labels.tolist() == [3 * aligndet._BOXES, 4 * aligndet._BOXES + 1, 4 * aligndet._BOXES]
    gone = [truth[0], torch.full((2, 4), float("nan"))]  # boxes that view 1 does not show
    assert loss._positives(rois, gone, 3)[0].tolist() == [1]
    assert loss._positives([rois[0][:0], rois[1][:0]], truth, 0)[0].tolist() == []
