"""Hugging Face's Deformable DETR, small and with random weights, and ours of the same shape. Separate because two test
files use them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.detection.contract import Batch, HeadSpec
from bench.detection.per_head import PerHead
from bench.engines.detr.build import build
from bench.engines.detr.detector import DeformableDetr
from bench.engines.detr.matching import shares
from bench.engines.sections import Detr, SetPrediction
from bench.key import canonical
from bench.method import part

transformers = pytest.importorskip("transformers", reason="transformers (extra dev) is not installed")

C, WIDTH, HEADS, POINTS, LAYERS, LEVELS, QUERIES, FFN = 5, 32, 4, 4, 2, 3, 20, 64
CLASS_COST, LOW = 2, -4.0
STRIDE = 32  # of the coarsest level: sides that it divides have no cell that is partly padding
FRAME = (128, 160)


@dataclass(frozen=True)
class Sizes:
    """Of both networks; `layers` of encoder and of decoder."""

    width: int = WIDTH
    heads: int = HEADS
    layers: int = LAYERS
    queries: int = QUERIES
    ffn: int = FFN


SMALL = Sizes()


def theirs(
    *, classes: int = C, seed: int = 0, two_stage: bool = True, sizes: Sizes = SMALL, layers: int | None = None
) -> Any:
    """Their network on a ResNet-18, every tensor of it random. `layers`: of the decoder alone.

    Tokens that must not become queries all have one score in theirs, which may be among the best: here it is low.
    """
    backbone = transformers.ResNetConfig(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic",
        out_features=["stage2", "stage3"],
    )  # fmt: skip
    config = transformers.DeformableDetrConfig(
        backbone_config=backbone, use_timm_backbone=False, two_stage=two_stage, with_box_refine=two_stage,
        disable_custom_kernels=True, d_model=sizes.width, encoder_attention_heads=sizes.heads,
        decoder_attention_heads=sizes.heads, encoder_n_points=POINTS, decoder_n_points=POINTS,
        encoder_layers=sizes.layers, decoder_layers=sizes.layers if layers is None else layers,
        encoder_ffn_dim=sizes.ffn, decoder_ffn_dim=sizes.ffn, num_feature_levels=LEVELS,
        two_stage_num_proposals=sizes.queries, num_queries=sizes.queries, num_labels=classes, dropout=0.0,
        class_cost=CLASS_COST, auxiliary_loss=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.DeformableDetrForObjectDetection(config)
        with torch.no_grad():
            for name, value in [*model.named_parameters(), *model.named_buffers()]:
                _randomise(name, value)
            if two_stage:
                _lower(model)
    return model.eval()


def _randomise(name: str, value: Tensor) -> None:
    if name.endswith("running_var") or (value.dim() == 1 and name.endswith(".weight")):
        value.uniform_(0.7, 1.3)
    elif value.dim() == 1:
        value.normal_(std=0.2)
    elif name.endswith("level_embed"):
        value.normal_()
    else:
        nn.init.xavier_uniform_(value, gain=1.4 if "backbone" in name else 1.0)


def _lower(model: Any) -> None:
    """The score of a token without content becomes `LOW`."""
    token_D = model.model.enc_output_norm(model.model.enc_output.bias)
    scorer = model.class_embed[-1]
    row_D = scorer.weight[0]
    row_D += (LOW - scorer.bias[0] - row_D @ token_D) / (token_D @ token_D) * token_D


def ours(weights: Path | None, *, trunk: str = "resnet18", sizes: Sizes = SMALL, **changes: Any) -> DeformableDetr:
    """Our network of the same shape, through `build`."""
    section = {
        "levels": ("1", "2"), "extra_levels": LEVELS - 2, "width": sizes.width, "heads": sizes.heads, "points": POINTS,
        "encoder": sizes.layers, "decoder": sizes.layers, "ffn": sizes.ffn, "queries": sizes.queries,
        "dropout": 0.0, "base_size": 0.05,
        "cost_class": float(CLASS_COST), "cost_l1": 5.0, "cost_giou": 2.0, "loss_l1": 5.0, "loss_giou": 2.0,
    }  # fmt: skip
    detector = SetPrediction(
        trunk=trunk, norm="frozen", frozen_stages=0, detr=Detr(**{**section, **changes}),
        weights=None if weights is None else str(weights),
    )  # type: ignore[arg-type] # fmt: skip
    counts = (9,) * C
    head = HeadSpec(C, detector.detr.width, (0, 0, 0), counts, counts, 20, counts, counts)
    inner = canonical(part("set_focal:SetFocal", weight=1.0))  # the factor of the class loss in theirs
    return build(detector, head, PerHead(head, inner=inner, count=detector.detr.decoder), seed=0)


def batch(*sizes: tuple[int, int], objects: int = 4, seed: int = 0) -> Batch:
    """Noise, padded with 0 to `FRAME`."""
    draw = torch.Generator().manual_seed(seed)
    images, boxes, labels = torch.zeros(len(sizes), 3, *FRAME), [], []
    for image, (h, w) in zip(images, sizes, strict=True):
        image[:, :h, :w] = torch.randn(3, h, w, generator=draw)
        corner = torch.rand(objects, 2, generator=draw) * torch.tensor([w / 2, h / 2])
        side = 8 + torch.rand(objects, 2, generator=draw) * torch.tensor([w / 2 - 8, h / 2 - 8])
        boxes.append(torch.cat((corner, corner + side), dim=1))
        labels.append(torch.randint(C, (objects,), generator=draw))
    n = len(sizes)
    return Batch(
        images, list(sizes), boxes, labels, [torch.zeros(objects, dtype=torch.bool)] * n,
        [torch.zeros(0, dtype=torch.int64)] * n, list(range(n)), [(1.0, 1.0)] * n, list(sizes),
    )  # fmt: skip


def pixel_mask(shown: Batch) -> Tensor:
    """B x height x width, 1 where a pixel is not padding."""
    mask = torch.zeros(len(shown.sizes), *shown.images.shape[-2:], dtype=torch.long)
    for of, (h, w) in zip(mask, shown.sizes, strict=True):
        of[:h, :w] = 1
    return mask


def their_targets(shown: Batch) -> list[dict[str, Tensor]]:
    """Labels and boxes as their losses take them."""
    return [
        {"class_labels": labels, "boxes": shares(boxes, size)}
        for labels, boxes, size in zip(shown.labels, shown.boxes, shown.sizes, strict=True)
    ]
