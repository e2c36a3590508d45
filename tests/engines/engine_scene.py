"""Small detectors, batches and a plain classifier for the engine tests. Separate because all of them use it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.detection.contract import Batch, Classifier, Context, HeadSpec, Taps, Targets
from bench.engines.sections import Roi, Rpn, TwoStage
from bench.engines.torchvision.build import build
from bench.engines.torchvision.detector import TwoStageDetector
from bench.engines.torchvision.facts import head_widths

CLASSES = 5


class PlainSoftmax(Classifier):
    """Softmax cross-entropy over C + 1."""

    def __init__(self, head: HeadSpec) -> None:
        super().__init__(head)
        self.fc = nn.Linear(head.features, head.num_classes + 1)
        nn.init.normal_(self.fc.weight, std=head.init_std, generator=torch.Generator().manual_seed(1))
        nn.init.zeros_(self.fc.bias)

    def forward(self, taps: Taps) -> Tensor:
        z_NK: Tensor = self.fc(taps.box_features)
        return z_NK

    def loss(self, z_NK: Tensor, targets: Targets, context: Context) -> dict[str, Tensor]:
        return {"loss_classifier": F.cross_entropy(z_NK, targets.labels_N)}

    def scores(self, z_NK: Tensor) -> tuple[Tensor, Tensor | None]:
        p_NK = z_NK.softmax(1)
        return p_NK[:, :-1], p_NK[:, -1]


def small_spec(**changes: Any) -> TwoStage:
    """Trunk "small", narrow, with 16 RoIs per image; `rpn` and `roi` in `changes` are dicts laid over the default."""
    rpn = {
        "levels": ("1",), "anchor_sizes": ((12, 20, 32),), "anchor_ratios": (1.0,), "fg_iou": 0.6, "bg_iou": 0.35,
        "samples": 24, "pre_nms_train": 60, "pre_nms_test": 50, "post_nms_train": 24, "post_nms_test": 20,
        "min_size": 3.0,
    }  # fmt: skip
    roi = {"levels": ("0",), "sampling_ratio": 1, "aligned": True, "width": 32, "samples": 16, "positive_fraction": 0.4}
    fields: dict[str, Any] = {"trunk": "small", "widths": (8, 12, 16, 24), "fpn_channels": 16, "norm": "batch"}
    fields |= {"frozen_stages": 0} | {k: v for k, v in changes.items() if k not in ("rpn", "roi")}
    return TwoStage(
        **fields, rpn=Rpn(**{**rpn, **changes.get("rpn", {})}), roi=Roi(**{**roi, **changes.get("roi", {})})
    )


def pyramid_spec(trunk: str = "resnet18_fpn", **changes: Any) -> TwoStage:
    """A torchvision trunk with torchvision's anchors, thin heads and few samples."""
    rpn = {"anchor_sizes": ((8,), (16,), (32,), (64,), (128,)), "samples": 32, "pre_nms_train": 40, "pre_nms_test": 30}
    rpn |= {"post_nms_train": 40, "post_nms_test": 30}
    roi = {"width": 32, "samples": 24}
    fields = {"trunk": trunk, "fpn_channels": 32, "norm": "frozen", "frozen_stages": 0}
    fields |= {k: v for k, v in changes.items() if k not in ("rpn", "roi")}
    return TwoStage(
        **fields, rpn=Rpn(**{**rpn, **changes.get("rpn", {})}), roi=Roi(**{**roi, **changes.get("roi", {})})
    )


def head_of(detector: TwoStage, classes: int = CLASSES) -> HeadSpec:
    counts = tuple(range(1, classes + 1))
    return HeadSpec(classes, *head_widths(detector), counts, counts, 9, counts, counts)


def model_of(detector: TwoStage, *, seed: int = 0, classifier: type[Classifier] = PlainSoftmax) -> TwoStageDetector:
    head = head_of(detector)
    return build(detector, head, classifier(head), seed=seed)


def batch_of(images: int = 2, side: int = 64, objects: int = 4, seed: int = 0) -> Batch:
    """Noise images padded by 0 at the right of the last one, `objects` boxes each, none ignored."""
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(images, 3, side, side, generator=draw)
    sizes = [(side, side)] * (images - 1) + [(side, side - 8)]
    noise[-1, :, :, side - 8 :] = 0
    boxes, labels = [], []
    for _ in range(images):
        corner = torch.rand(objects, 2, generator=draw) * (side * 0.5)
        boxes.append(torch.cat((corner, corner + 8 + torch.rand(objects, 2, generator=draw) * side * 0.3), 1))
        labels.append(torch.randint(CLASSES, (objects,), generator=draw))
    nothing = [torch.zeros(0, dtype=torch.int64)] * images
    ignore = [torch.zeros(objects, dtype=torch.bool) for _ in range(images)]
    return Batch(noise, sizes, boxes, labels, ignore, nothing, list(range(images)), [(1.0, 1.0)] * images, list(sizes))


def context() -> Context:
    return Context(step=0, progress=0.0, generator=torch.Generator())


def losses_of(model: TwoStageDetector, batch: Batch, draws: Any) -> dict[str, Tensor]:
    """All losses of one step, the classifier's among them."""
    out = model.train_forward(batch, draws, trunk_losses=True)
    return {**out.losses, **model.classifier.loss(model.classifier(out.taps), out.targets, context())}
