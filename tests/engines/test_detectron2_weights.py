"""Weight files of the engine `detectron2`: what is loaded, as detectron2 itself loads it, what stays as initialised.

Runs where detectron2 is installed; how a pickle is read, and what it must not ask for, is tested everywhere
(test_detectron2_pickles).
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import detectron2_oracle as oracle
import pytest
import torch
from engine_scene import PlainSoftmax, batch_of, small_spec
from torch import Tensor
from torchvision.models import resnet18, resnet50

from bench.engines.detectron2.weights import STD, STRIDES, load_file, load_state, read_file, to_foreign
from bench.engines.sections import TwoStage
from bench.errors import UserError

MEAN = (0.485, 0.456, 0.406)
NEAR = 1e-4  # relative to the largest value: a first convolution turned to other images sums other products


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    oracle.demand()


def shaken(model: Any, seed: int = 1) -> Any:
    """Every tensor random, so that one left out shows."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var") or (value.dim() == 1 and name.endswith("norm.weight")):
            value.uniform_(0.7, 1.3, generator=draw)
        elif value.is_floating_point():
            value.normal_(std=0.05, generator=draw)
    return model


def alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    pairs = zip(one.values(), other.values(), strict=True)
    return all(torch.allclose(a, b, atol=NEAR * float(b.abs().max()), rtol=0) for a, b in pairs)


@pytest.mark.parametrize("agnostic", [True, False])
def test_a_zoo_file_comes_in_whole(agnostic: bool, tmp_path: Path) -> None:
    detector = oracle.spec(roi={"class_agnostic": agnostic}, norm="frozen")
    donor = shaken(oracle.ours(detector))
    file = oracle.write_zoo(tmp_path / "model_final.pkl", to_foreign(donor))
    model = oracle.ours(detector.model_copy(update={"weights": str(file)}))
    assert model.fresh == []
    for name, value in donor.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_what_a_file_has_for_other_classes_stays_as_initialised(tmp_path: Path) -> None:
    foreign = to_foreign(shaken(oracle.ours(oracle.spec())))
    predictor = "roi_heads.box_predictor."
    for name in (f"{predictor}cls_score.weight", f"{predictor}cls_score.bias", f"{predictor}bbox_pred.weight"):
        foreign[name] = foreign[name][:-1]
    model = oracle.ours(oracle.spec())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fresh = load_file(model, str(oracle.write_zoo(tmp_path / "other.pkl", foreign)))
    assert sorted(fresh) == ["box_regressor.weight", "classifier.fc.bias", "classifier.fc.weight"]
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in fresh)


class TwoLayers(PlainSoftmax):
    """No classifier of a file fits it: which of its layers would be meant?"""

    def __init__(self, head: Any) -> None:
        super().__init__(head)
        self.more = torch.nn.Linear(head.features, head.num_classes + 1)


def test_a_classifier_without_one_linear_layer_stays_as_initialised(tmp_path: Path) -> None:
    file = oracle.write_zoo(tmp_path / "a.pkl", to_foreign(oracle.ours(oracle.spec())))
    fresh = load_file(oracle.ours(oracle.spec(), classifier=TwoLayers), str(file))
    assert sorted(fresh) == [f"classifier.{layer}.{part}" for layer in ("fc", "more") for part in ("bias", "weight")]


def test_a_checkpoint_that_detectron2_has_written(tmp_path: Path) -> None:
    from detectron2.checkpoint import DetectionCheckpointer

    donor = shaken(oracle.ours(oracle.spec()))
    theirs = oracle.plain(oracle.config(oracle.spec()), to_foreign(donor))
    optimiser = torch.optim.SGD(theirs.parameters(), lr=0.1)
    DetectionCheckpointer(theirs, str(tmp_path), optimizer=optimiser).save("model_final", iteration=7)
    model = oracle.ours(oracle.spec())
    assert load_file(model, str(tmp_path / "model_final.pth")) == []
    assert torch.equal(model.box_head.fc1.weight, donor.box_head.fc1.weight)


# -- images and strides: detectron2's own loading, on images as its zoo expects them


def zoo(detector: TwoStage, first: bool) -> Any:
    """A config as of its zoo: BGR images of values 0..255, less their mean."""
    from detectron2.config import get_cfg

    cfg, plain = oracle.config(detector, first), get_cfg()
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = plain.MODEL.PIXEL_MEAN, plain.MODEL.PIXEL_STD
    return cfg


def pictures() -> tuple[Tensor, Tensor]:
    """(as detectron2's zoo has them before the mean, as ours are), B x 3 x H x W."""
    rgb = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    ours = (rgb - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    return rgb.flip(1) * 255, ours


def their_maps(theirs: Any, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        found: dict[str, Tensor] = theirs.eval().backbone((images - theirs.pixel_mean) / theirs.pixel_std)
    return found


def our_maps(model: Any, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        found: dict[str, Tensor] = model.eval().maps(images)
    return found


def test_a_detector_of_the_zoo_sees_what_it_saw(tmp_path: Path) -> None:
    """Microsoft's ResNet-50: BGR, raw values, strides in 1 x 1 convolutions; also once its state went elsewhere."""
    detector = oracle.spec("resnet50_fpn", norm="frozen")
    theirs = shaken(oracle.plain(zoo(detector, first=True)))
    file = oracle.write_zoo(tmp_path / "model_final_b275ba.pkl", theirs.state_dict())
    model, (raw, images) = oracle.ours(detector), pictures()
    assert load_file(model, str(file)) == []
    assert alike(our_maps(model, images), their_maps(theirs, raw))
    assert model.backbone.res3[0].conv1.stride == (2, 2)
    again = oracle.ours(detector, seed=5)
    assert not alike(our_maps(again, images), our_maps(model, images))
    again.load_state_dict(model.state_dict())
    for name, value in our_maps(again, images).items():
        assert torch.equal(value, our_maps(model, images)[name])


def caffe(name: str) -> str:
    """The name that Caffe2 has for a tensor of detectron2's ResNet."""
    for theirs, ours in (
        ("shortcut", "branch1"), ("conv1", "branch2a"), ("conv2", "branch2b"), ("conv3", "branch2c"),
    ):  # fmt: skip
        name = re.sub(rf"^(res\d)\.(\d+)\.{theirs}", rf"\1_\2_{ours}", name)
    name = name.replace("stem.conv1.norm", "res_conv1.norm").replace("stem.", "")
    for theirs, ours in ((".norm.weight", "_bn_s"), (".norm.bias", "_bn_b"), (".weight", "_w")):
        name = name.replace(theirs, ours)
    return name


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_microsofts_imagenet_file_is_read_as_detectron2_reads_it(norm: str, tmp_path: Path) -> None:
    from detectron2.checkpoint import DetectionCheckpointer

    detector = oracle.spec("resnet50_fpn", norm=norm)
    body = shaken(oracle.plain(zoo(detector, first=True))).backbone.bottom_up.state_dict()
    content: dict[str, Any] = {
        caffe(name): value.numpy() for name, value in body.items() if not re.search("running|tracked", name)
    }
    content |= {"pred_w": content["conv1_w"][:, 0, 0], "conv1_w_momentum": content["conv1_w"]}
    file = tmp_path / "R-50.pkl"
    file.write_bytes(pickle.dumps({"blobs": content}, protocol=2))
    theirs, model = oracle.plain(zoo(detector, first=True)), oracle.ours(detector)
    pyramid = {f"backbone.{name}": value for name, value in model.fpn.state_dict().items()}
    theirs.load_state_dict(pyramid, strict=False)
    DetectionCheckpointer(theirs).load(str(file))
    fresh = load_file(model, str(file))
    assert {name.partition(".")[0] for name in fresh if "tracked" not in name} == {
        "fpn", "rpn", "box_head", "box_regressor", "classifier",
    }  # fmt: skip
    raw, images = pictures()
    assert alike(our_maps(model, images), their_maps(theirs, raw))


@pytest.mark.parametrize(("trunk", "network"), [("resnet18_fpn", resnet18), ("resnet50_fpn", resnet50)])
def test_torchvisions_imagenet_file_gives_torchvisions_maps(trunk: str, network: Any, tmp_path: Path) -> None:
    donor = shaken(network(weights=None)).eval()
    torch.save(donor.state_dict(), tmp_path / "net.pth")
    model = oracle.ours(oracle.spec(trunk, norm="frozen"))
    fresh = load_file(model, str(tmp_path / "net.pth"))
    assert not [name for name in fresh if name.startswith("backbone.")]
    images = batch_of().images
    with torch.no_grad():
        x = donor.maxpool(donor.relu(donor.bn1(donor.conv1(images))))
        for k, value in enumerate(model.eval().body(images).values(), start=1):
            x = getattr(donor, f"layer{k}")(x)
            assert alike({"": value}, {"": x}), k
    if STRIDES in model.state_dict():
        assert not int(model.state_dict()[STRIDES])


def test_a_torchvision_network_that_detectron2s_tool_has_converted(tmp_path: Path) -> None:
    """Its author is in the file; names are detectron2's, without a prefix, and images stay RGB."""
    donor = shaken(oracle.ours(oracle.spec(norm="frozen")))
    body = {name: value.numpy() for name, value in donor.backbone.state_dict().items()}
    content = {"model": body, "__author__": "torchvision", "matching_heuristics": True}
    (tmp_path / "r18.pkl").write_bytes(pickle.dumps(content))
    model = oracle.ours(oracle.spec(norm="frozen"))
    load_file(model, str(tmp_path / "r18.pkl"))
    for name, value in donor.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name


# -- refusals


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    file = oracle.write_zoo(tmp_path / "a.pkl", {"transformer.weight": torch.zeros(3, 3)})
    with pytest.raises(UserError, match=r"nothing in the weights file fits trunk 'resnet18_fpn'") as refused:
        oracle.ours(oracle.spec(weights=str(file)))
    assert "backbone.bottom_up.stem.conv1.weight" in refused.value.allowed
    with pytest.raises(UserError, match="nothing in the weights file fits trunk 'small'"):
        load_state(oracle.ours(small_spec(engine="detectron2")), dict(resnet18(weights=None).state_dict()))


@pytest.mark.parametrize(
    ("theirs", "ours"), [("resnet50", "resnet18"), ("resnet18", "resnet50"), ("resnet101", "resnet50")]
)
def test_a_backbone_of_another_depth_is_refused_though_most_of_it_would_fit(theirs: str, ours: str) -> None:
    state = to_foreign(oracle.ours(oracle.spec(f"{theirs}_fpn")))
    with pytest.raises(UserError, match=f"of another network than trunk '{ours}_fpn'"):
        load_state(oracle.ours(oracle.spec(f"{ours}_fpn")), state)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    foreign = to_foreign(oracle.ours(oracle.spec()))
    foreign["roi_heads.box_head.fc1.bias"][0] = float("inf")
    file = oracle.write_zoo(tmp_path / "a.pkl", foreign)
    assert len(read_file(str(file))) == len(foreign)
    with pytest.raises(UserError, match="not finite"):
        load_file(oracle.ours(oracle.spec()), str(file))
