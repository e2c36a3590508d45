"""Weight files under torchvision's names, both ways."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_scene import CLASSES, PlainSoftmax, batch_of, head_of, model_of, pyramid_spec, small_spec
from engine_stock import stock_detector
from torchvision.models import mobilenet_v2, resnet18

from bench.detection.contract import Classifier
from bench.engines.torchvision.build import build
from bench.errors import UserError


def test_round_trip_through_torchvisions_names() -> None:
    detector = pyramid_spec()
    first, second = model_of(detector, seed=1), model_of(detector, seed=2)
    torch.nn.init.normal_(first.classifier.get_parameter("fc.bias"))
    assert second.load_foreign(first.to_foreign()) == []
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_background_moves_from_last_to_first() -> None:
    model = model_of(pyramid_spec())
    foreign = model.to_foreign()
    W = model.classifier.get_parameter("fc.weight")
    theirs = foreign["roi_heads.box_predictor.cls_score.weight"]
    assert torch.equal(theirs[0], W[CLASSES])
    assert torch.equal(theirs[1:], W[:CLASSES])
    boxes = foreign["roi_heads.box_predictor.bbox_pred.weight"]
    assert boxes.shape[0] == 4 * (CLASSES + 1)
    assert torch.equal(boxes[4:], model.box_regressor.weight)
    assert not boxes[:4].any()


def test_stock_weights_load_into_ours_whole() -> None:
    detector = pyramid_spec()
    torch.manual_seed(3)
    donor = stock_detector(detector, CLASSES, model_of(detector, seed=8).to_foreign(), batch_of())
    for parameter in donor.parameters():
        torch.nn.init.normal_(parameter)
    model = model_of(detector, seed=4)
    assert model.load_foreign(donor.state_dict()) == []
    mine = model.to_foreign()
    for name, value in donor.state_dict().items():
        start = 4 if "bbox_pred" in name else 0  # the slot torchvision never reads
        assert torch.equal(mine[name][start:], value[start:]), name


def test_names_of_before_torchvision_0_13() -> None:
    """COCO_V1 has `rpn.head.conv.weight` and `fpn.inner_blocks.0.weight`."""
    detector = pyramid_spec()
    donor = model_of(detector, seed=1)
    old = {n.replace(".conv.0.0.", ".conv."): v for n, v in donor.to_foreign().items()}
    old = {n.replace(".0.weight", ".weight").replace(".0.bias", ".bias") if "_blocks." in n else n: v
           for n, v in old.items()}  # fmt: skip
    assert "rpn.head.conv.weight" in old
    assert "backbone.fpn.inner_blocks.0.weight" in old
    assert model_of(detector, seed=2).load_foreign(old) == []


def test_other_class_count_leaves_only_the_class_layers() -> None:
    detector = pyramid_spec()
    donor = build(detector, head_of(detector, 7), PlainSoftmax(head_of(detector, 7)), seed=1)
    fresh = model_of(detector).load_foreign(donor.to_foreign())
    assert set(fresh) == {"box_regressor.weight", "box_regressor.bias", "classifier.fc.weight", "classifier.fc.bias"}


@pytest.mark.parametrize(
    ("trunk", "make", "norm"),
    [
        ("resnet18_fpn", resnet18, "batch"),
        ("resnet18_fpn", resnet18, "frozen"),
        ("mobilenet_v2_fpn", mobilenet_v2, "frozen"),
    ],
)
def test_imagenet_file_fills_the_backbone(trunk: str, make: object, norm: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    donor = make(weights=None)  # type: ignore[operator]
    path = tmp_path / "backbone.pth"
    torch.save(donor.state_dict(), path)
    detector = pyramid_spec(trunk, weights=str(path), norm=norm)
    model = model_of(detector)
    assert not [name for name in model.fresh if name.startswith("backbone.")]
    assert {model.group_of(name) for name in model.fresh} == {"fpn", "rpn", "box_head", "box_regressor", "classifier"}
    donor.eval()
    model.eval()
    images = batch_of().images
    if trunk == "resnet18_fpn":
        x = donor.maxpool(donor.relu(donor.bn1(donor.conv1(images))))
        expected = donor.layer4(donor.layer3(donor.layer2(donor.layer1(x))))
    else:
        expected = donor.features(images)
    assert torch.allclose(model.backbone(images)["3"], expected, atol=1e-4, rtol=1e-4)


def test_classifier_without_a_counterpart_is_left_out() -> None:
    class Wide(PlainSoftmax):
        def __init__(self, head) -> None:  # type: ignore[no-untyped-def]
            Classifier.__init__(self, head)
            self.fc = torch.nn.Linear(head.features, head.num_classes + 4)

    donor = model_of(small_spec(), classifier=Wide)
    assert not [name for name in donor.to_foreign() if "cls_score" in name]
    fresh = model_of(small_spec(), seed=1, classifier=Wide).load_foreign(donor.to_foreign())
    assert fresh == ["classifier.fc.weight", "classifier.fc.bias"]


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    detector = small_spec()
    with pytest.raises(UserError, match="no file"):
        model_of(detector.model_copy(update={"weights": str(tmp_path / "none.pth")}))
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(UserError, match="cannot read"):
        model_of(detector.model_copy(update={"weights": str(tmp_path / "text.pth")}))
    torch.save({"epoch": 3}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match="not a state dict"):
        model_of(detector.model_copy(update={"weights": str(tmp_path / "odd.pth")}))
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"nothing in the weights file fits trunk 'small'.*(.|\n)*122 tensors"):
        model_of(detector.model_copy(update={"weights": str(tmp_path / "resnet.pth")}))


TRUNK = 100  # convolutions and four of each batch norm, of 20 of them: resnet18 without its classifier


def test_a_file_of_which_little_fits_is_of_another_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two counters of batch norm have one shape in all networks; half of a trunk's tensors do not."""
    whole = model_of(pyramid_spec(), seed=1).to_foreign()
    body = [name for name in whole if name.startswith("backbone.body.") and "num_batches" not in name]
    assert len(body) == TRUNK
    head = {name: value for name, value in whole.items() if not name.startswith("backbone.body.")}
    enough = {name: whole[name] for name in body[: TRUNK // 2]}
    fresh = model_of(pyramid_spec()).load_foreign(head | enough)
    assert len([name for name in fresh if name.startswith("backbone.") and "num_batches" not in name]) == TRUNK // 2
    said = capsys.readouterr().err
    assert f"backbone {TRUNK // 2} of {TRUNK}, " in said
    assert "the others are as initialised" in said
    few = {name: whole[name] for name in body[: TRUNK // 2 - 1]}
    with pytest.raises(UserError, match=f"fits only {TRUNK // 2 - 1} of the {TRUNK} tensors of trunk 'resnet18_fpn'"):
        model_of(pyramid_spec()).load_foreign(head | few)
    counters = {"backbone.body.bn1.num_batches_tracked": torch.tensor(7)}
    with pytest.raises(UserError, match="weights file fits"):
        model_of(pyramid_spec(norm="batch")).load_foreign(counters)


@pytest.mark.parametrize("value", ["nan", "inf", "complex", "sparse"])
def test_values_that_are_no_weights(value: str) -> None:
    state = model_of(pyramid_spec(), seed=1).to_foreign()
    name = "backbone.body.conv1.weight"
    good = state[name]
    bad = {
        "nan": torch.full_like(good, torch.nan), "inf": good * torch.inf, "complex": good.to(torch.complex64),
        "sparse": good.to_sparse(),
    }  # fmt: skip
    said = "holds values that are not finite" if value in ("nan", "inf") else "is not of real numbers"
    with pytest.raises(UserError, match=rf"conv1\.weight' of the weights file {said}"):
        model_of(pyramid_spec()).load_foreign(state | {name: bad[value]})
