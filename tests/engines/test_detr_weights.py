"""Weight files of Hugging Face's Deformable DETR: what is loaded, what stays as initialised, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import detr_oracle as oracle
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torchvision.models import mobilenet_v2, resnet18

from bench.engines.detr.weights import from_huggingface, load_state
from bench.errors import UserError


def changed(state: dict[str, Tensor], *names: tuple[str, str]) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        for old, new in names:
            name = name.replace(old, new)
        found[name] = value
    return found


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return {name: value.clone() for name, value in oracle.theirs().state_dict().items()}


def saved(state: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


def test_a_folder_that_they_save_loads_whole(state: dict[str, Tensor], tmp_path: Path) -> None:
    """`save_pretrained` writes the older names, each tied tensor once, as safetensors."""
    oracle.theirs().save_pretrained(tmp_path)
    model = oracle.ours(tmp_path / "model.safetensors")
    assert model.fresh == []
    expected = oracle.ours(saved(state, tmp_path / "pytorch_model.bin")).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    first, second = "model.decoder.class_embed.0.weight", f"class_embed.{oracle.LAYERS}.weight"
    assert torch.equal(expected["classifier.heads.0.fc.weight"], state[first])
    assert torch.equal(expected["objectness.weight"], state[second][:1])


def test_timm_s_names_of_the_backbone(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    donor = {name: value for name, value in resnet18().state_dict().items() if not name.startswith("fc.")}
    rest = {name: value for name, value in state.items() if not name.startswith("model.backbone.")}
    timm = rest | {f"model.backbone.conv_encoder.model.{name}": value for name, value in donor.items()}
    model = oracle.ours(saved(timm, tmp_path / "pytorch_model.bin"))
    assert model.fresh == []
    assert torch.equal(
        model.state_dict()["backbone.layer3.0.downsample.1.weight"], donor["layer3.0.downsample.1.weight"]
    )


def test_their_resnet_50() -> None:
    """Names and shapes of its wider blocks."""
    with torch.device("meta"):
        theirs = oracle.transformers.ResNetBackbone(oracle.transformers.ResNetConfig())
    model = oracle.ours(None, trunk="resnet50")
    names = {f"model.backbone.model.{name}": value for name, value in theirs.state_dict().items()}
    found = from_huggingface(model, names)
    shapes = {name: value.shape for name, value in found.items() if not name.endswith("num_batches_tracked")}
    assert shapes == {n: v.shape for n, v in model.state_dict().items() if n.startswith("backbone.")}


def test_another_number_of_classes_leaves_only_the_classifiers(tmp_path: Path) -> None:
    other = oracle.theirs(classes=oracle.C + 3).state_dict()
    model = oracle.ours(saved(other, tmp_path / "pytorch_model.bin"))
    assert model.fresh == [
        f"classifier.heads.{k}.fc.{part}" for k in range(oracle.LAYERS) for part in ("weight", "bias")
    ]


def test_outputs_that_are_numbered_by_ids_from_one(tmp_path: Path) -> None:
    other = oracle.theirs(classes=oracle.C + 1).state_dict()
    model = oracle.ours(saved(other, tmp_path / "pytorch_model.bin"))
    assert model.fresh == []
    assert torch.equal(model.state_dict()["classifier.heads.1.fc.bias"], other["class_embed.1.bias"][1:])


def test_more_layers_in_the_file_are_left_out(tmp_path: Path) -> None:
    other = oracle.theirs(layers=oracle.LAYERS + 1).state_dict()
    model = oracle.ours(saved(other, tmp_path / "pytorch_model.bin"))
    assert model.fresh == []
    got = model.state_dict()
    assert torch.equal(got["proposals.box.4.bias"], other[f"bbox_embed.{oracle.LAYERS + 1}.layers.2.bias"])


def test_without_two_stages_proposals_and_boxes_stay_as_initialised(tmp_path: Path) -> None:
    other = oracle.theirs(two_stage=False).state_dict()
    model = oracle.ours(saved(other, tmp_path / "pytorch_model.bin"))
    assert {model.group_of(name) for name in model.fresh} == {"proposals", "objectness", "box_regressor"}


def test_a_backbone_is_still_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = oracle.ours(saved(resnet18().state_dict(), tmp_path / "resnet18.pth"))
    assert not [name for name in model.fresh if name.startswith("backbone.")]
    assert [name for name in model.fresh if name.startswith("encoder.")]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("mobilenet", "nothing in the weights file fits trunk 'resnet18'"),
        ("detr", "of another network than Deformable DETR"),
        ("width", "fits only 8 of the 77 tensors of encoder and decoder"),
        ("backbone", "fits only 0 of the 100 tensors of trunk 'resnet18'"),
    ],
)
def test_another_network_is_refused(file: str, said: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    width: dict[str, Any] = {}
    if file == "mobilenet":
        other = mobilenet_v2().state_dict()
    elif file == "detr":
        other = {name: value for name, value in state.items() if "sampling_offsets" not in name}
    elif file == "backbone":
        other = changed(state, ("encoder.stages", "blocks"), ("embedder.embedder", "stem"))
    else:
        other, width = state, {"width": 64, "ffn": 96}
    with pytest.raises(UserError, match=said) as refused:
        oracle.ours(saved(other, tmp_path / "pytorch_model.bin"), **width)
    assert refused.value.where == "detector.weights"
    assert refused.value.exit_code == 2


def test_damaged_files_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = saved(state, tmp_path / "model.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cannot read .* not written by safetensors"):
        oracle.ours(path)


@pytest.mark.parametrize("value", [torch.tensor(1.0), torch.zeros(0), torch.zeros(3, 2, 1)])
def test_odd_shapes_are_as_if_absent(value: Tensor, state: dict[str, Tensor]) -> None:
    names = [name for name in state if "_proj." in name or "embed" in name]
    model = oracle.ours(None)
    assert load_state(model, state | dict.fromkeys(names, value)) != []
