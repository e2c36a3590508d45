"""Backbones and feature pyramids. Separate because no code above them depends on which trunk it is.

A trunk is a body (images -> maps) and a pyramid (maps -> maps of one width), with torchvision's names, so that its
weight files fit. Other engines take the body alone.
"""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v2, resnet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from bench.engines.sections import DetectorSection, TwoStage

Norm = Callable[[int], nn.Module]

# eps on EVERY rebuild: torchvision's COCO loader sets 0 and its plain constructor 1e-5, so outputs would differ.
FROZEN_EPS = 1e-5
# Last block at strides 4, 8, 16, 32 of MobileNetV2's 19 feature blocks, and the widths there (Sandler et al., table 2).
# DEVIATION: torchvision's MobileNet detectors read strides 32 and 64 only; small boxes need the finer maps.
_MOBILENET_BLOCKS = {"3": "0", "6": "1", "13": "2", "18": "3"}
_MOBILENET_WIDTHS = [24, 32, 96, 1280]
_MOBILENET_STAGES = ((0, 2), (2, 4), (4, 7), (7, 14), (14, 19))


@dataclass(frozen=True)
class Body:
    """A backbone.

    Attributes:
        body: images -> maps by name, finest first.
        channels: of each map.
        stages: modules that each step of `frozen_stages` adds, stem first.
        last: channels and pixels per cell of the last map.
        classifier_prefix: what ImageNet weight files put before the names of the body.
    """

    body: nn.Module
    channels: Mapping[str, int]
    stages: Sequence[Sequence[nn.Module]]
    last: tuple[int, int]
    classifier_prefix: str = ""


@dataclass(frozen=True)
class Trunk:
    """A backbone with its pyramid.

    Attributes:
        body: the backbone.
        fpn: maps by name -> maps by name, all `fpn_channels` wide.
        strides: pixels per cell of each map the pyramid yields, finest first.
    """

    body: Body
    fpn: nn.Module
    strides: Mapping[str, int]


def norm_layer(name: str) -> Norm:
    """Normalisation by its name in the suite: batch, frozen or group (at most 32 groups, Wu and He 2018)."""
    layers: dict[str, Norm] = {
        "batch": nn.BatchNorm2d,
        "frozen": functools.partial(FrozenBatchNorm2d, eps=FROZEN_EPS),
        "group": lambda channels: nn.GroupNorm(math.gcd(32, channels), channels),
    }
    return layers[name]


def build_body(detector: DetectorSection) -> Body:
    """The backbone of the trunk that a section names, with torchvision's initial weights (drawn from torch's global
    stream)."""
    norm = norm_layer(detector.norm)
    if detector.trunk == "small":
        return _small(detector, norm)
    name = detector.trunk.removesuffix("_fpn")
    return _mobilenet(norm) if name == "mobilenet_v2" else _resnet(name, norm)


def build_trunk(detector: TwoStage) -> Trunk:
    """The trunk that a section names: its backbone, and then the pyramid over all maps of it."""
    body = build_body(detector)
    widths = list(body.channels.values())
    if detector.trunk == "small":
        return Trunk(body, SmallPyramid(widths, detector.fpn_channels), {"0": 4, "1": 8})
    pyramid = FeaturePyramidNetwork(widths, detector.fpn_channels, extra_blocks=LastLevelMaxPool())
    return Trunk(body, pyramid, {"0": 4, "1": 8, "2": 16, "3": 32, "pool": 64})


class SmallBody(nn.Module):
    """Stem and three residual blocks at strides 2, 4, 8, 16; 0.43 M parameters at the default widths."""

    def __init__(self, widths: Sequence[int], norm: Norm) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), norm(widths[0]), nn.ReLU(inplace=True))
        self.layer1 = _basic_block(widths[0], widths[1], norm)
        self.layer2 = _basic_block(widths[1], widths[2], norm)
        self.layer3 = _basic_block(widths[2], widths[3], norm)

    def forward(self, images_B3HW: Tensor) -> dict[str, Tensor]:
        fine = self.layer1(self.stem(images_B3HW))
        middle = self.layer2(fine)
        return {"0": fine, "1": middle, "2": self.layer3(middle)}


class SmallPyramid(nn.Module):
    """Top-down path over three maps that yields the two finest: torchvision's FPN without its unused output convs."""

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.layer_blocks = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        top = self.inner_blocks[2](maps["2"])
        middle = self.inner_blocks[1](maps["1"]) + F.interpolate(top, size=maps["1"].shape[-2:])
        fine = self.inner_blocks[0](maps["0"]) + F.interpolate(middle, size=maps["0"].shape[-2:])
        return {"0": self.layer_blocks[0](fine), "1": self.layer_blocks[1](middle)}


def _small(detector: DetectorSection, norm: Norm) -> Body:
    body = SmallBody(detector.widths, norm)
    stages = ((body.stem,), (body.layer1,), (body.layer2,), (body.layer3,))
    channels = {str(k): width for k, width in enumerate(detector.widths[1:])}
    return Body(body, channels, stages, (detector.widths[-1], 16))


def _basic_block(inputs: int, outputs: int, norm: Norm) -> resnet.BasicBlock:
    shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), norm(outputs))
    return resnet.BasicBlock(inputs, outputs, 2, shortcut, norm_layer=norm)


def _resnet(name: str, norm: Norm) -> Body:
    network = getattr(resnet, name)(weights=None, norm_layer=norm)
    width = network.inplanes // 8
    body = IntermediateLayerGetter(network, {f"layer{k + 1}": str(k) for k in range(4)})
    stages = (
        (body["conv1"], body["bn1"]),
        *((body[f"layer{k}"],) for k in range(1, 5)),
    )
    return Body(body, {str(k): width * 2**k for k in range(4)}, stages, (width * 8, 32))


def _mobilenet(norm: Norm) -> Body:
    network = mobilenet_v2(weights=None, norm_layer=norm)
    body = IntermediateLayerGetter(network.features, dict(_MOBILENET_BLOCKS))
    stages = tuple(tuple(body[str(k)] for k in range(first, last)) for first, last in _MOBILENET_STAGES)
    channels = {str(k): width for k, width in enumerate(_MOBILENET_WIDTHS)}
    return Body(body, channels, stages, (_MOBILENET_WIDTHS[-1], 32), "features.")


def pyramid_maps(fpn: nn.Module, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pyramid maps of a batch by name, from the body's."""
    found: dict[str, Tensor] = fpn(OrderedDict(maps))
    return found
