"""What the torchvision engine promises at the seam: modes, draws, ignored boxes, edge cases, every trunk."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from engine_scene import CLASSES, PlainSoftmax, batch_of, head_of, losses_of, model_of, pyramid_spec, small_spec
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d, box_iou

from bench.detection.contract import Batch, Draws, Taps
from bench.engines.facts import ENGINES, check, facts
from bench.engines.torchvision.build import build
from bench.engines.torchvision.detector import TwoStageDetector
from bench.engines.torchvision.facts import GROUPS, head_widths
from bench.errors import UserError


def step(model: TwoStageDetector, batch: Batch, number: int, optimiser: torch.optim.Optimizer) -> None:
    losses = losses_of(model, batch, Draws(0, 0, number))
    optimiser.zero_grad()
    sum(losses.values(), torch.zeros(())).backward()
    optimiser.step()


def frozen_copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}


@pytest.mark.parametrize("trunk", ENGINES["torchvision"].trunks)
@pytest.mark.parametrize("norm", ["batch", "frozen", "group"])
def test_every_trunk_learns_and_predicts(trunk: str, norm: str) -> None:
    detector = small_spec(norm=norm) if trunk == "small" else pyramid_spec(trunk, norm=norm)
    model, batch = model_of(detector), batch_of()
    before = frozen_copy(model)
    step(model, batch, 0, torch.optim.SGD(model.parameters(), lr=0.01))
    assert {model.group_of(name) for name in changed(before, model)} == set(GROUPS)
    out = model.eval().predict_forward(batch)
    rows = len(out.image_N)
    assert out.boxes.shape == (rows, CLASSES, 4)
    assert out.taps.box_features.shape == (rows, head_widths(detector)[0])
    for (height, width), image in zip(batch.sizes, range(2), strict=True):
        mine = out.boxes[out.image_N == image]
        assert (mine >= 0).all()
        assert (mine[..., 2] <= width).all()
        assert (mine[..., 3] <= height).all()


def test_initial_weights_are_a_function_of_the_seed_alone() -> None:
    detector = small_spec()
    head = head_of(detector)
    built = []
    for stream, seed in ((5, 1), (6, 1), (6, 2)):
        classifier = PlainSoftmax(head)
        torch.manual_seed(stream)
        before = torch.random.get_rng_state()
        built.append(build(detector, head, classifier, seed=seed).state_dict())
        assert torch.equal(torch.random.get_rng_state(), before), "build moved the global stream"
    first, again, other = built
    below = [name for name in first if not name.startswith("classifier.")]
    assert all(torch.equal(first[name], again[name]) for name in below)
    assert not torch.equal(first["backbone.stem.0.weight"], other["backbone.stem.0.weight"])


def test_draws_are_addressed() -> None:
    model, batch = model_of(small_spec()).eval(), batch_of(objects=6)

    def rois(draws: Draws) -> tuple[Tensor, Tensor]:
        out = model.train_forward(batch, draws, trunk_losses=True, taps=("roi_map",))
        assert out.taps.roi_map is not None
        return out.taps.roi_map, out.losses["loss_objectness"]

    first, again, later = rois(Draws(0, 0, 4)), rois(Draws(0, 0, 4)), rois(Draws(0, 0, 5))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert first[0].shape != later[0].shape or not torch.equal(first[0], later[0])
    assert not torch.equal(first[1], later[1])


def test_a_batch_mate_does_not_change_an_images_samples() -> None:
    """Frozen norm, no padding: image 0 gives the same RoIs alone and in company."""
    model, batch = model_of(small_spec(norm="frozen")).eval(), batch_of(images=2)
    alone = Batch(**{f.name: getattr(batch, f.name)[:1] for f in dataclasses.fields(batch)})
    both = model.train_forward(batch, Draws(0, 0, 0), trunk_losses=False)
    one = model.train_forward(alone, Draws(0, 0, 0), trunk_losses=False)
    rows = both.targets.image_N == 0
    assert torch.equal(both.targets.labels_N[rows], one.targets.labels_N)
    assert torch.allclose(both.taps.box_features[rows], one.taps.box_features, atol=1e-5)


def test_taps_only_on_request() -> None:
    model, batch = model_of(small_spec()), batch_of()
    plain = model.train_forward(batch, Draws(0, 0, 0), trunk_losses=False)
    assert plain.losses == {}
    assert plain.taps.box_features_pre_relu is None
    assert plain.taps.roi_map is None
    asked: Taps = model.predict_forward(batch, taps=("box_features_pre_relu", "roi_map")).taps
    assert asked.box_features_pre_relu is not None
    assert torch.equal(asked.box_features_pre_relu.relu(), asked.box_features)
    assert asked.roi_map is not None
    assert tuple(asked.roi_map.shape[1:]) == head_widths(model.spec)[1]


def test_targets_say_what_is_present() -> None:
    model, batch = model_of(small_spec()), batch_of(objects=6)
    targets = model.train_forward(batch, Draws(0, 0, 0), trunk_losses=False).targets
    for image, labels in enumerate(batch.labels):
        assert targets.present[image].tolist() == sorted(set(labels.tolist()))
        mine = targets.labels_N[targets.image_N == image]
        assert len(mine) <= model.spec.roi.samples
        assert set(mine.tolist()) <= {*labels.tolist(), CLASSES}
    assert (targets.labels_N < CLASSES).any()


def test_ignored_boxes_are_never_sampled() -> None:
    """RoIs and anchors near an ignored box take no part, unless a true box claims them."""
    model, batch = model_of(small_spec(roi={"samples": 200}, rpn={"samples": 1000})).eval(), batch_of(objects=4)
    for flags in batch.ignore:
        flags[:2] = True
    sampled: list[list[Tensor]] = []
    pool = model._pool

    def spy(maps: dict[str, Tensor], boxes: list[Tensor], image_N: Tensor) -> Tensor:
        sampled.append(list(boxes))
        return pool(maps, boxes, image_N)

    model._pool = spy  # type: ignore[assignment]
    out = model.train_forward(batch, Draws(0, 0, 0), trunk_losses=False)
    near_before = 0
    for image, rois in enumerate(sampled[0]):
        labels = out.targets.labels_N[out.targets.image_N == image]
        near = box_iou(rois, batch.boxes[image][:2]).amax(1) >= 0.5
        assert not (near & (labels == CLASSES)).any()
        assert set(labels.tolist()) <= {*batch.labels[image][2:].tolist(), CLASSES}
        assert out.targets.present[image].tolist() == sorted(set(batch.labels[image][2:].tolist()))
    for flags in batch.ignore:
        flags[:] = False
    sampled.clear()
    model.train_forward(batch, Draws(0, 0, 0), trunk_losses=False)
    for image, rois in enumerate(sampled[0]):
        near_before += int((box_iou(rois, batch.boxes[image][:2]).amax(1) >= 0.5).sum())
    assert near_before > 0, "nothing was near these boxes: the test says nothing"


@pytest.mark.parametrize(
    ("trainable", "moving"),
    [((), set(GROUPS)), (("classifier",), {"classifier"}), (("box_head", "classifier"), {"box_head", "classifier"})],
)
def test_what_is_frozen_stays_bit_identical(trainable: tuple[str, ...], moving: set[str]) -> None:
    """Three SGD steps with weight decay; BN statistics count as state."""
    model, batch = model_of(small_spec(frozen_stages=2)), batch_of()
    model.set_mode(trainable)
    model.train()  # as a runner would; must not wake what is frozen
    before = frozen_copy(model)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(learning, lr=0.05, momentum=0.9, weight_decay=1e-4)
    for number in range(3):
        step(model, batch, number, optimiser)
    moved = changed(before, model)
    assert {model.group_of(name) for name in moved} == moving
    assert not {n for n in moved if n.startswith(("backbone.stem.", "backbone.layer1."))}
    if "backbone" in moving:
        assert "backbone.layer2.bn1.running_mean" in moved
        assert "backbone.layer3.conv1.weight" in moved


def test_a_copy_keeps_its_frozen_stages_and_leaves_the_original_alone() -> None:
    model = model_of(small_spec(frozen_stages=2))
    twin = copy.deepcopy(model)
    twin.set_mode(("classifier",))
    twin.set_mode(())
    assert not twin.get_parameter("backbone.stem.0.weight").requires_grad
    assert not twin.get_submodule("backbone.layer1").training
    assert twin.get_parameter("backbone.layer2.conv1.weight").requires_grad
    twin.eval()
    assert model.get_submodule("backbone.layer2").training


def test_set_mode_comes_back_and_refuses_unknown_groups() -> None:
    model = model_of(small_spec())
    model.set_mode(("classifier",))
    assert not model.box_head.fc6.weight.requires_grad
    assert not model.backbone.training
    model.set_mode(())
    assert all(p.requires_grad for p in model.parameters())
    assert model.backbone.training
    with pytest.raises(UserError, match="Did you mean 'backbone'"):
        model.set_mode(("bakbone",))


@pytest.mark.parametrize("trunk", ["small", "resnet18_fpn", "mobilenet_v2_fpn"])
def test_frozen_stages_count_from_the_stem(trunk: str) -> None:
    fixed = []
    for stages in (0, 1, 2, 5):
        detector = (small_spec if trunk == "small" else lambda **k: pyramid_spec(trunk, **k))(
            norm="batch", frozen_stages=stages
        )
        model = model_of(detector)
        fixed.append({name for name, p in model.named_parameters() if not p.requires_grad})
    assert fixed[0] == set()
    assert fixed[0] < fixed[1] < fixed[2] < fixed[3]
    assert fixed[3] == {name for name, _ in model.named_parameters() if model.group_of(name) == "backbone"}


def test_frozen_norm_has_torchvisions_default_epsilon_on_every_rebuild() -> None:
    for trunk in ("resnet18_fpn", "mobilenet_v2_fpn"):
        model = model_of(pyramid_spec(trunk))
        again = model_of(pyramid_spec(trunk))
        again.load_state_dict(model.state_dict())
        for built in (model, again):
            layers = [m for m in built.modules() if isinstance(m, FrozenBatchNorm2d)]
            assert len(layers) > 15
            assert {layer.eps for layer in layers} == {1e-5}


def empty(batch: Batch, image: int) -> Batch:
    batch.boxes[image], batch.labels[image] = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    batch.ignore[image] = torch.zeros(0, dtype=torch.bool)
    return batch


@pytest.mark.parametrize("images", [(1,), (0, 1)])
def test_images_without_boxes_give_finite_losses(images: tuple[int, ...]) -> None:
    batch = batch_of()
    for image in images:
        batch = empty(batch, image)
    losses = losses_of(model_of(small_spec()), batch, Draws(0, 0, 0))
    assert all(torch.isfinite(value) for value in losses.values())
    if images == (0, 1):
        assert float(losses["loss_box_reg"].detach()) == 0


def test_no_proposals_at_all() -> None:
    """A smallest side above the image's: training falls back on true boxes, prediction is empty."""
    model, batch = model_of(small_spec(rpn={"min_size": 1000.0})), empty(batch_of(), 1)
    out = model.train_forward(batch, Draws(0, 0, 0), trunk_losses=True)
    assert set(out.targets.image_N.tolist()) == {0}
    assert all(torch.isfinite(value) for value in out.losses.values())
    sum(out.losses.values(), torch.zeros(())).backward()
    nothing = model.train_forward(empty(batch, 0), Draws(0, 0, 0), trunk_losses=True)
    assert nothing.targets.labels_N.numel() == 0
    assert all(torch.isfinite(value) for value in nothing.losses.values())
    predicted = model.eval().predict_forward(batch)
    assert predicted.boxes.shape == (0, CLASSES, 4)
    assert predicted.taps.box_features.shape == (0, model.spec.roi.width)


def test_all_anchors_ignored_gives_zero_loss() -> None:
    """One ignored box of an anchor's size on every anchor leaves the RPN nothing to learn from."""
    detector = small_spec(rpn={"anchor_sizes": ((64,),)})
    model, batch = model_of(detector), batch_of(images=1, side=64)
    centers = [(x + 0.0, y + 0.0) for x in range(0, 64, 8) for y in range(0, 64, 8)]
    batch.boxes[0] = torch.tensor([[x - 32, y - 32, x + 32, y + 32] for x, y in centers])
    batch.labels[0], batch.ignore[0] = torch.zeros(64, dtype=torch.int64), torch.ones(64, dtype=torch.bool)
    losses = model.train_forward(batch, Draws(0, 0, 0), trunk_losses=True).losses
    assert float(losses["loss_objectness"].detach()) == 0
    assert float(losses["loss_rpn_box_reg"].detach()) == 0


def test_prediction_before_training_shares_nothing_inferential() -> None:
    model, batch = model_of(small_spec()), batch_of()
    with torch.inference_mode():
        model.eval().predict_forward(batch)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step(model.train(), batch, 0, torch.optim.SGD(model.parameters(), lr=0.01))
    assert any(not torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_bfloat16_keeps_boxes_in_float32() -> None:
    model, batch = model_of(pyramid_spec(norm="group")), batch_of(side=96)
    with torch.autocast("cpu", torch.bfloat16):
        out = model.train_forward(batch, Draws(0, 0, 0), trunk_losses=True)
        predicted = model.predict_forward(batch)
    assert predicted.boxes.dtype == torch.float32
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in out.losses.values())


def test_facts_refuse_what_cannot_be_built() -> None:
    check(small_spec())
    check(pyramid_spec())
    with pytest.raises(UserError, match=r"no engine 'torchvison'.*torchvision"):
        facts("torchvison")
    for bad, words in (
        (small_spec(rpn={"levels": ("2",)}), "no feature map"),
        (pyramid_spec(roi={"levels": ("0", "2")}), "neighbours"),
        (pyramid_spec(rpn={"anchor_sizes": ((8,),)}), "1 groups of anchor sizes for 5 levels"),
        (small_spec(widths=(8, 8, 8)), "4 widths"),
        (small_spec().model_copy(update={"trunk": "resnet1"}), "no trunk"),
    ):
        with pytest.raises(UserError, match=words):
            check(bad)
