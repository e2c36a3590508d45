"""detectron2's Faster R-CNN behind the seam. Separate from its pieces: it only puts them in order.

Its own are the networks, anchors, poolers, losses and the choice of proposals; ours the sampling (addressed draws,
boxes to ignore), post-processing and the classifier. Parameter names start with their group. Input are the harness's
images, RGB of unit variance; weights of detectron2's zoo, which expect BGR, are turned to that when they are read.

DEVIATION: where a training diverges, detectron2 raises FloatingPointError; here such proposals are dropped, as it does
at test time, and the harness says that a loss is not finite.

Legend: B images, N RoIs of the batch, A anchors of an image, D features, C foreground classes (background is index C).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from torch import Tensor
from torch.nn import functional as F

from bench.detection.boxes import clip
from bench.detection.contract import Batch, Classifier, Draws, Maps, PredictOutput, Taps, Targets, TrainOutput
from bench.detection.grouped import Grouped
from bench.detection.sampling import draw, image_of, match, sample_rois
from bench.engines.detectron2 import network
from bench.engines.detectron2.facts import GROUPS, levels_of, maps_read
from bench.engines.sections import TwoStage


@dataclass(frozen=True)
class RpnOutput:
    """What detectron2's RPN says of a batch, level by level.

    Attributes:
        anchors: detectron2's boxes of each level.
        objectness: logits of each level, B x A_level, float32.
        deltas: box deltas of each level, B x A_level x 4, float32.
    """

    anchors: list[Boxes]
    objectness: list[Tensor]
    deltas: list[Tensor]


class Detectron2Detector(Grouped):
    """Faster R-CNN with the classifier outside (see bench.detection.contract.Detector).

    Attributes:
        fresh: names a weights file left as initialised; all names without one.
    """

    body_prefix = ""  # of names in ImageNet weight files (bench.engines.torchvision.weights.Model)

    GROUPS = GROUPS

    def __init__(self, detector: TwoStage, num_classes: int, classifier: Classifier) -> None:
        super().__init__()
        cfg, roi = network.config(detector, num_classes), detector.roi
        trunk = network.build_trunk(detector, cfg)
        self.spec, self.num_classes = detector, num_classes
        self.backbone, self.fpn, self.last = trunk.body, trunk.fpn, trunk.last
        self.rpn = RPN(cfg, dict(trunk.shapes))
        pooled = ShapeSpec(channels=detector.fpn_channels, height=roi.pool, width=roi.pool)
        self.box_head = FastRCNNConvFCHead(cfg, pooled)
        self.box_regressor, self._rules = network.box_predictor(detector, cfg)
        self.classifier = classifier
        self.class_agnostic = roi.class_agnostic
        self._read, self._pool = maps_read(detector), network.roi_pool(detector, trunk.shapes)
        self.settle([m for stage in trunk.stages[: detector.frozen_stages] for m in stage])

    def body(self, images: Tensor) -> Maps:
        """The backbone's maps, finest first (B x channels x H x W), of B x 3 x H x W images.

        Padded by 0 to a multiple of the last map's stride, as detectron2 pads: its pyramid doubles maps exactly.
        """
        height, width = images.shape[-2:]
        stride = self.last[1]
        if height % stride or width % stride:
            images = F.pad(images, (0, -width % stride, 0, -height % stride))
        found: Maps = self.backbone(images)
        return found

    def maps(self, images: Tensor, body: Maps | None = None) -> Maps:
        """The maps p2, p3, ... that the heads read, finest first (B x channels x H x W), of B x 3 x H x W images."""
        found: Maps = self.fpn(self.body(images) if body is None else body)
        return {level: found[level] for level in self._read}

    def train_forward(
        self, batch: Batch, draws: Draws, *, trunk_losses: bool, taps: Sequence[str] = (), maps: Maps | None = None
    ) -> TrainOutput:
        """Sampled RoIs with taps and targets, and the trunk's losses if `trunk_losses`.

        Args:
            batch: images and boxes; boxes marked `ignore` are no targets, and nothing near them is sampled.
            draws: addressed as ("rpn_sample" | "roi_sample", image in the batch).
            trunk_losses: compute loss_objectness, loss_rpn_box_reg and loss_box_reg.
            taps: tap names wanted beside those of `classifier.inputs`.
            maps: `maps(batch.images)`, where the caller has them.
        """
        truth = [boxes[~ignore] for boxes, ignore in zip(batch.boxes, batch.ignore, strict=True)]
        labels = [values[~ignore] for values, ignore in zip(batch.labels, batch.ignore, strict=True)]
        ignored = [boxes[ignore] for boxes, ignore in zip(batch.boxes, batch.ignore, strict=True)]
        maps = self.maps(batch.images) if maps is None else maps
        found = self._run_rpn(maps)
        sampled, labels_N, target_N4 = self._sample(self._propose(found, batch, True), truth, labels, ignored, draws)
        image_N = image_of(sampled)
        tap_values = self._taps(maps, sampled, taps)
        losses: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        if trunk_losses:
            losses = self._rpn_losses(found, truth, ignored, draws)
            counts = dict.fromkeys(losses, self.spec.rpn.samples * len(truth)) | {"loss_box_reg": len(labels_N)}
            deltas = self.box_regressor(tap_values.box_features).float()
            losses["loss_box_reg"] = self._rules.box_reg_loss(torch.cat(sampled), target_N4, deltas, labels_N)
        present = [torch.unique(values) for values in labels]
        targets = Targets(labels_N, image_N, present, batch.negative, tap_values)
        return TrainOutput(losses, tap_values, targets, counts, sampled)

    def assign(self, out: TrainOutput, scores: Callable[[], Tensor]) -> TrainOutput:
        """Targets depend on boxes alone."""
        return out

    @torch.no_grad()
    def predict_forward(self, batch: Batch, *, taps: Sequence[str] = (), maps: Maps | None = None) -> PredictOutput:
        """All test proposals with taps and refined boxes, clipped to the image. Ground truth is not read."""
        maps = self.maps(batch.images) if maps is None else maps
        proposals = self._propose(self._run_rpn(maps), batch, False)
        image_N, proposals_N4 = image_of(proposals), torch.cat(proposals)
        tap_values = self._taps(maps, proposals, taps)
        deltas = self.box_regressor(tap_values.box_features).float()
        boxes = self._rules.box2box_transform.apply_deltas(deltas, proposals_N4)
        if not self.class_agnostic:
            boxes = boxes.view(len(boxes), self.num_classes, 4)
        sizes_N2 = torch.tensor(batch.sizes, device=boxes.device)[image_N]
        return PredictOutput(tap_values, proposals_N4, clip(boxes, sizes_N2), image_N)

    def box_taps(
        self, batch: Batch, boxes: Sequence[Tensor], *, taps: Sequence[str] = (), maps: Maps | None = None
    ) -> Taps:
        """Taps at given boxes (per image n x 4, pixels of the resized image), in their order."""
        maps = self.maps(batch.images) if maps is None else maps
        return self._taps(maps, boxes, taps)

    def matched_taps(
        self,
        batch: Batch,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        *,
        taps: Sequence[str] = (),
        maps: Maps | None = None,
    ) -> Taps:
        """Of the boxes themselves: a RoI needs no match."""
        return self.box_taps(batch, boxes, taps=taps, maps=maps)

    def _run_rpn(self, maps: Maps) -> RpnOutput:
        """Anchors are in the order of detectron2: level by level, cell by cell (row-major), anchor by anchor."""
        features = [maps[level] for level in self.rpn.in_features]
        objectness, deltas = self.rpn.rpn_head(features)
        return RpnOutput(
            self.rpn.anchor_generator(features),
            [level.permute(0, 2, 3, 1).flatten(1).float() for level in objectness],
            [level.permute(0, 2, 3, 1).reshape(len(level), -1, 4).float() for level in deltas],
        )

    @torch.no_grad()
    def _propose(self, found: RpnOutput, batch: Batch, training: bool) -> list[Tensor]:
        """Proposals of each image, n x 4 by falling objectness; n may be 0."""
        rpn = self.spec.rpn
        pre, post = (rpn.pre_nms_train, rpn.post_nms_train) if training else (rpn.pre_nms_test, rpn.post_nms_test)
        decoded = self.rpn._decode_proposals(found.anchors, found.deltas)
        # Its flag `training` does no more than raise where a number is not finite.
        top = find_top_rpn_proposals(
            decoded, found.objectness, batch.sizes, rpn.nms, pre, post, self.rpn.min_box_size, False
        )
        return [of_image.proposal_boxes.tensor for of_image in top]

    def _rpn_losses(
        self, found: RpnOutput, truth: Sequence[Tensor], ignored: Sequence[Tensor], draws: Draws
    ) -> dict[str, Tensor]:
        """detectron2's two losses of the anchors that we sample, divided by (anchors per image) * images."""
        rpn = self.spec.rpn
        anchors_A4 = Boxes.cat(found.anchors).tensor
        labels, targets = [], []
        for image, (truth_G4, ignore_I4) in enumerate(zip(truth, ignored, strict=True)):
            matched = match(anchors_A4, truth_G4, ignore_I4, high=rpn.fg_iou, low=rpn.bg_iou, rescue=True)
            hit, miss = draw(matched, rpn.samples, rpn.positive_fraction, draws.generator("rpn_sample", image))
            label_A = anchors_A4.new_full((len(anchors_A4),), -1, dtype=torch.int8)
            label_A[hit], label_A[miss] = 1, 0
            labels.append(label_A)
            targets.append(truth_G4[matched.index_N] if len(truth_G4) else anchors_A4)
        with EventStorage():  # where detectron2 writes down how many were sampled
            losses = self.rpn.losses(found.anchors, found.objectness, labels, found.deltas, targets)
        return {"loss_objectness": losses["loss_rpn_cls"], "loss_rpn_box_reg": losses["loss_rpn_loc"]}

    def _sample(
        self,
        proposals: Sequence[Tensor],
        truth: Sequence[Tensor],
        labels: Sequence[Tensor],
        ignored: Sequence[Tensor],
        draws: Draws,
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """(RoIs of each image, label of each RoI, true box of each RoI - itself where it is background)."""
        roi = self.spec.roi
        return sample_rois(
            proposals, truth, labels, ignored, draws, count=roi.samples, fraction=roi.positive_fraction,
            fg_iou=roi.fg_iou, background=self.num_classes,
        )  # fmt: skip

    def _taps(self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor], wanted: Sequence[str]) -> Taps:
        asked = {*wanted, *self.classifier.inputs}
        # roi_align reads NCHW memory: a channels-last map would be copied inside, once more in the backward pass.
        read = [maps[level].float().contiguous() for level in levels_of(self.spec.roi.levels)]
        map_NCPP: Tensor = self._pool(read, [Boxes(of_image) for of_image in boxes])
        *layers, last = self.box_head
        before_ND = map_NCPP
        for layer in layers:
            before_ND = layer(before_ND)
        return Taps(
            last(before_ND),
            before_ND if "box_features_pre_relu" in asked else None,
            map_NCPP if "roi_map" in asked else None,
        )
