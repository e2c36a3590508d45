"""Weight files of detectron2's zoo and of torchvision's ImageNet networks under our names. Separate because nothing
else here knows the layouts of files; it needs no detectron2.

Names: `backbone.bottom_up.`, `backbone.fpn_`, `proposal_generator.`, `roi_heads.` (detectors); `stem.` and `res2.`
(torchvision's networks, converted); `conv1_w`, `res2_0_branch2a_w` (Caffe2); `conv1.`, `layer1.` (torchvision).

What images and strides a file was made for is not in it. The rule, by names and trunk:
 * torchvision's names, converted ones, and all of resnet18_fpn: RGB of unit variance, strides in 3 x 3 convolutions;
 * Caffe2's names and detectors: BGR. With trunk resnet50_fpn or resnet101_fpn and batch norm they are Microsoft's:
   values 0..255 less their mean, strides in 1 x 1 convolutions. Else FAIR's: unit variance, strides in the 3 x 3.
So far as input differs, it is made up for in the first convolution, which is exact where `input.mean` and `input.std`
are ImageNet's (the default).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench.engines.detectron2.pickles import read_arrays
from bench.engines.torchvision import weights as torchvision
from bench.engines.torchvision.weights import Model, linear_of, load_named
from bench.errors import UserError

STD = (0.229, 0.224, 0.225)  # of red, green and blue in ImageNet, on [0, 1]
STEM = "backbone.stem.conv1.weight"
STRIDES = "backbone.stride_in_1x1"

# Ours -> detectron2's; where two of theirs fit, the first is meant.
_PREFIXES = {
    "backbone.": "backbone.bottom_up.",
    "fpn.": "backbone.",
    "rpn.": "proposal_generator.",
    "box_head.": "roi_heads.box_head.",
    "box_regressor.": "roi_heads.box_predictor.bbox_pred.",
}
_CLASSES = "roi_heads.box_predictor.cls_score."
_Change = str | Callable[[re.Match[str]], str]
_TORCHVISION: tuple[tuple[re.Pattern[str], _Change], ...] = (
    (re.compile(r"^(conv1|bn1)\."), r"stem.\1."),
    (re.compile(r"^layer([1-4])\."), lambda found: f"res{int(found[1]) + 1}."),
    (re.compile(r"\bbn([123])\."), r"conv\1.norm."),
    (re.compile(r"\bdownsample\.0\."), "shortcut."),
    (re.compile(r"\bdownsample\.1\."), "shortcut.norm."),
)
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_CAFFE = re.compile(r"^(?:res_)?(conv1|res[2-5]_\d{1,3}_branch(?:1|2a|2b|2c))_(w|(?:bn|gn)_(?:s|b|rm|riv))$")
_CAFFE_LAYERS = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_CAFFE_VALUES = {"w": "weight", "s": "norm.weight", "b": "norm.bias", "rm": "norm.running_mean"}
_CAFFE_VALUES["riv"] = "norm.running_var"


@dataclass(frozen=True)
class Origin:
    """What images and strides a file's backbone was made for.

    Attributes:
        bgr: channels come blue first.
        raw: values are 0..255 less their mean, not of unit variance.
        first: strides are in the first, 1 x 1, convolution of a bottleneck.
    """

    bgr: bool = False
    raw: bool = False
    first: bool = False


def load_file(model: Model, path: str) -> list[str]:
    """Load a weights file; the names left as initialised.

    Raises:
        UserError: no such file, one that cannot be read or asks for code, or too little in it fits.
    """
    return load_state(model, read_file(path))


def load_state(model: Model, state: Mapping[str, Tensor]) -> list[str]:
    """As `load_file`, of tensors by name.

    Raises:
        UserError: a backbone of another depth or width; or see `load_named`.
    """
    return load_named(model, state, _of_this_network, to_foreign)


def to_foreign(model: Model) -> dict[str, Tensor]:
    """Our weights under the names of detectron2's GeneralizedRCNN, for images as ours are.

    A classifier without a single linear layer of C + 1 outputs has no counterpart and is left out.
    """
    state = model.state_dict()
    foreign = {}
    for name, value in state.items():
        for ours, theirs in _PREFIXES.items():
            if name.startswith(ours) and name != STRIDES:
                foreign[theirs + name.removeprefix(ours)] = value
    linear = linear_of(model.classifier, model.classifier.head.num_classes + 1)
    if linear is not None:
        for part in ("weight", "bias"):
            foreign[_CLASSES + part] = state[f"classifier.{linear}{part}"]
    return foreign


def to_ours(model: Model, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file under our names, the first convolution turned to our images."""
    linear = linear_of(model.classifier, model.classifier.head.num_classes + 1)
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if caffe := _CAFFE.match(name):
            found["backbone." + _of_caffe(caffe[1], caffe[2])] = value
        elif name.startswith(_CLASSES):
            if linear is not None:
                found[f"classifier.{linear}{name.removeprefix(_CLASSES)}"] = value
        elif prefix := next((ours for ours, theirs in _PREFIXES.items() if name.startswith(theirs)), None):
            found[prefix + name.removeprefix(_PREFIXES[prefix])] = value
        else:
            for theirs, ours in _TORCHVISION:
                name = theirs.sub(ours, name)
            found[f"backbone.{name}"] = value
    origin, current = origin_of(model, state), model.state_dict()
    if STEM in found:
        found[STEM] = _turned(found[STEM], origin)
    if STEM in found and STRIDES in current:
        found[STRIDES] = torch.full_like(current[STRIDES], int(origin.first))
    # Files of Caffe2 have norms without statistics, which are in weight and bias already.
    for name, value in current.items():
        norm, _, last = name.rpartition(".")
        if last in _STATISTICS[:2] and f"{norm}.weight" in found and name not in found:
            found[name] = torch.ones_like(value) if last == "running_var" else torch.zeros_like(value)
    return found


def _of_this_network(model: Model, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As `to_ours`; refuses a backbone of which a part fits: ResNets of different depth share most names and shapes."""
    found, ours = to_ours(model, state), model.state_dict()
    blocks = [name for name in found if name.startswith("backbone.res") and not name.endswith(_STATISTICS)]
    fits = {name for name in blocks if name in ours and ours[name].shape == found[name].shape}
    strange = next((name for name in blocks if name not in fits), None)
    if fits and strange is not None:
        here = f"of shape {list(ours[strange].shape)}" if strange in ours else "not there"
        raise UserError(
            f"the weights file is of another network than trunk '{model.spec.trunk}'", where="detector.weights",
            hint=f"its {strange} is of shape {list(found[strange].shape)}; in the trunk it is {here}",
        )  # fmt: skip
    return found


def origin_of(model: Model, state: Mapping[str, Tensor]) -> Origin:
    """What the backbone of a file was made for, by the rule above."""
    theirs = any(_CAFFE.match(name) or name.startswith("backbone.bottom_up.") for name in state)
    if not theirs or model.spec.trunk == "resnet18_fpn":
        return Origin()
    microsoft = STRIDES in model.state_dict() and model.spec.norm != "group"
    return Origin(bgr=True, raw=microsoft, first=microsoft)


def _turned(stem: Tensor, origin: Origin) -> Tensor:
    """The first convolution, O x 3 x k x k, for RGB images of unit variance."""
    if stem.dim() != 4 or stem.shape[1] != len(STD):
        return stem
    stem = stem.flip(1) if origin.bgr else stem
    return stem * (255 * stem.new_tensor(STD)[:, None, None]) if origin.raw else stem


def _of_caffe(layer: str, value: str) -> str:
    """A name of Caffe2 below `backbone.`."""
    last = _CAFFE_VALUES[value.rpartition("_")[2]]
    if layer == "conv1":
        return f"stem.conv1.{last}"
    stage, block, branch = layer.split("_")
    return f"{stage}.{block}.{_CAFFE_LAYERS[branch.removeprefix('branch')]}.{last}"


# -- reading


def read_file(path: str) -> Mapping[str, Tensor]:
    """The tensors of a .pkl of detectron2's zoo, of a checkpoint that detectron2 has written, or of a state dict. No
    code of the file runs.

    Raises:
        UserError: no such file, one that cannot be read, or a pickle that asks for anything but arrays.
    """
    if Path(path).suffix == ".pkl" and Path(path).is_file():
        return read_arrays(path)
    try:
        return torchvision.read_file(path)
    except UserError as error:
        nested = _nested(path)
        if nested is None:
            raise error from None
        return nested


def _nested(path: str) -> dict[str, Tensor] | None:
    """The entry `model` of a training's checkpoint, if the file is one."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["model"]
        named = {str(name): value for name, value in state.items()}
    except Exception:  # the error of torchvision.read_file says it
        return None
    return named if all(isinstance(value, Tensor) for value in named.values()) else None
