"""The detector section of a suite, by engine. Separate from bench/spec.py, whose sections are those of every suite: an
engine says in its facts which of these has its settings. No torch here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bench.spec import Amount, Few, Fraction, Levels, Positive, Rate, Section, Size, Text


class Rpn(Section):
    """Region proposal network. methods.md 0.3 and 24."""

    levels: Levels = ("0", "1", "2", "3", "pool")
    """The feature maps it runs on, finest first."""
    anchor_sizes: Annotated[tuple[Few[Size], ...], Field(max_length=16)] = ((32,), (64,), (128,), (256,), (512,))
    """Anchor sizes of each level, pixels of the resized image: the root of an anchor's area."""
    anchor_ratios: Few[Rate] = (0.5, 1.0, 2.0)
    """Height / width of the anchors, on every level."""
    fg_iou: Fraction = 0.7
    """An anchor is foreground from this IoU with a true box."""
    bg_iou: Fraction = 0.3
    """An anchor is background below this IoU with every true box; between the two it is left out."""
    samples: Size = 256
    """Anchors per image in the loss."""
    positive_fraction: Fraction = 0.5
    """Most of these that are foreground, as a share."""
    pre_nms_train: Size = 2000
    """Anchors of each level that enter NMS, in training."""
    pre_nms_test: Size = 1000
    """Anchors of each level that enter NMS, at test time."""
    post_nms_train: Size = 2000
    """Proposals per image after NMS, in training."""
    post_nms_test: Size = 1000
    """Proposals per image after NMS, at test time."""
    nms: Fraction = 0.7
    """IoU from which NMS drops the lower-scored proposal."""
    min_size: Amount = 1e-3
    """Proposals with a shorter side are dropped, pixels."""
    beta: Amount = 1 / 9
    """Where the smooth-L1 loss of the boxes turns from square to linear."""


class Roi(Section):
    """RoI pooling, sampling and box head. methods.md 0.3 and 24."""

    levels: Levels = ("0", "1", "2", "3")
    """The feature maps that RoIs are pooled from, finest first."""
    pool: Annotated[int, Field(ge=1, le=256)] = 7
    """Side of a pooled RoI, cells."""
    sampling_ratio: Annotated[int, Field(ge=-1, le=256)] = 2
    """Points per cell and axis in RoIAlign; 0 or less: as many as the RoI has pixels."""
    aligned: bool = False
    """Whether RoIAlign shifts by half a pixel; torchvision's MultiScaleRoIAlign does not."""
    width: Size = 1024
    """Features of each of the two fully connected layers."""
    samples: Size = 512
    """RoIs per image in the loss."""
    positive_fraction: Fraction = 0.25
    """Most of these that are foreground, as a share."""
    fg_iou: Fraction = 0.5
    """A RoI is foreground from this IoU with a true box, else background."""
    class_agnostic: bool = False
    """Whether all classes share one box regression."""
    beta: Amount = 1.0
    """Where the smooth-L1 loss of the boxes turns from square to linear."""
    box_weights: tuple[Rate, Rate, Rate, Rate] = (10.0, 10.0, 5.0, 5.0)
    """Factors on the regression targets dx, dy, dw, dh."""
    clamp_targets: Rate | None = None
    """Regression targets are cut to at most this, either way; null: not at all."""


class Detr(Section):
    """Encoder, decoder and queries. methods.md 18.1; the defaults are the paper's."""

    levels: Levels = ("1", "2", "3")
    """The backbone's maps that are read, finest first."""
    extra_levels: Annotated[int, Field(ge=0, le=4)] = 1
    """Further levels, each of half the size of the one before."""
    width: Size = 256
    """Features of tokens and queries."""
    heads: Size = 8
    """Attention heads; a divisor of the width."""
    points: Size = 4
    """Points that each attention head reads of each level."""
    encoder: Size = 6
    """Layers of the encoder."""
    decoder: Size = 6
    """Layers of the decoder, each with a classifier and a box regressor."""
    ffn: Size = 1024
    """Width inside a layer's feed-forward part."""
    queries: Size = 300
    """Boxes that the decoder refines, the best of what the encoder proposes."""
    dropout: Fraction = 0.1
    """Of attention and feed-forward parts."""
    base_size: Rate = 0.05
    """Side of the boxes that the finest level's cells start from, a share of the image; doubled from level to level."""
    prior: Fraction = 0.01
    """Probability that every sigmoid says at the start."""
    cost_class: Amount = 2.0
    """Weight of the classifier's score in the match."""
    cost_l1: Amount = 5.0
    """Weight of the L1 distance of boxes in the match."""
    cost_giou: Amount = 2.0
    """Weight of the generalised IoU in the match."""
    loss_class: Amount = 2.0
    """Weight of the focal loss, of classes and of proposals."""
    loss_l1: Amount = 5.0
    """Weight of the L1 loss of matched boxes."""
    loss_giou: Amount = 2.0
    """Weight of the generalised IoU loss of matched boxes."""


class Start(Section):
    """Parameter groups that come from a trained baseline, of this engine or another: a DETR from Faster R-CNN's
    backbone. The baseline is a stage that suites share."""

    preset: Text
    """What the baseline is trained by: its detector, input and schedule. The data are the suite's own."""
    groups: Few[Text] = ("backbone",)
    """Groups that both engines have, with the same names and shapes."""
    steps: Positive | None = None
    """Length of the baseline's training; null: the preset's."""


class DetectorSection(Section):
    """Engine and backbone: what detectors of every engine have. The section of an engine adds what is its own."""

    # A stage has the engine with its version, the digest of the weights, and what it starts from as an input.
    NOT_IN_KEY = frozenset({"engine", "weights", "start"})

    engine: str = "torchvision"
    """The library that the detector is built from."""
    trunk: str = "resnet50_fpn"
    """Backbone (and pyramid): one that the engine has."""
    widths: Few[Size] = (24, 48, 96, 128)
    """Channels of trunk `small` at strides 2, 4, 8 and 16."""
    norm: Literal["batch", "frozen", "group"] = "frozen"
    """Normalisation; `frozen`: batch norm whose statistics come from the weights and stay (eps 1e-5)."""
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 2
    """Stages of the backbone that stay as they are, stem first (2: stem and layer1)."""
    weights: Text | None = None
    """File with an ImageNet backbone or a whole detector: torchvision's, of a Deformable DETR Hugging Face's. A bare
    name is looked for in $BENCH_WEIGHTS, in folders `weights` beside the data or one above, and in torch's cache."""
    classifier_std: Rate = 0.01
    """A new classifier's weights are drawn from N(0, std^2); biases are 0."""
    start: Start | None = None
    """What begins as in another, trained model."""


class TwoStage(DetectorSection):
    """Faster R-CNN: a pyramid, an RPN, RoIs."""

    fpn_channels: Size = 256
    """Channels of the feature pyramid."""
    rpn: Rpn = Rpn()
    roi: Roi = Roi()


class SetPrediction(DetectorSection):
    """Deformable DETR: queries that are matched with the true boxes."""

    engine: str = "detr"
    """The library that the detector is built from."""
    trunk: str = "resnet50"
    """The backbone: one that the engine has."""
    detr: Detr = Detr()
