"""torchvision's two-stage detector behind the seam. Separate from its pieces: it only puts them in order.

Parameter names start with their group (backbone, fpn, rpn, box_head, box_regressor, classifier); weights.py maps them
to torchvision's. Legend: B images, N RoIs of the batch, D features, C foreground classes (background is index C).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.detection.boxes import clip, decode, encode
from bench.detection.contract import Batch, Classifier, Draws, Maps, PredictOutput, Taps, Targets, TrainOutput
from bench.detection.grouped import Grouped
from bench.detection.sampling import image_of, sample_rois
from bench.engines.sections import TwoStage
from bench.engines.torchvision import heads, trunks, weights
from bench.engines.torchvision.facts import GROUPS
from bench.engines.torchvision.proposals import Anchors, RpnOutput, propose, rpn_losses, run_rpn


class TwoStageDetector(Grouped):
    """Faster R-CNN with the classifier outside (see bench.detection.contract.Detector).

    Attributes:
        fresh: names a weights file left as initialised; all names without one.
    """

    GROUPS = GROUPS

    def __init__(self, detector: TwoStage, num_classes: int, classifier: Classifier) -> None:
        super().__init__()
        trunk = trunks.build_trunk(detector)
        self.spec, self.num_classes = detector, num_classes
        self.backbone, self.fpn = trunk.body.body, trunk.fpn
        self.rpn = heads.rpn_head(detector, trunks.norm_layer(detector.norm))
        self.box_head = heads.box_head(detector)
        self.box_regressor = heads.box_regressor(detector, num_classes)
        self.classifier = classifier
        self.last = trunk.body.last
        self.class_agnostic = detector.roi.class_agnostic
        self.body_prefix = trunk.body.classifier_prefix
        self._anchors = Anchors(detector.rpn)
        self._pool = heads.RoiPool(detector.roi, trunk.strides)
        self.settle([m for stage in trunk.body.stages[: detector.frozen_stages] for m in stage])

    def body(self, images: Tensor) -> Maps:
        """The backbone's maps, finest first (B x channels x H x W), of B x 3 x H x W images."""
        found: Maps = self.backbone(images)
        return found

    def maps(self, images: Tensor, body: Maps | None = None) -> Maps:
        """The feature maps by level, finest first (B x channels x H x W), of B x 3 x H x W images."""
        return trunks.pyramid_maps(self.fpn, self.body(images) if body is None else body)

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
        found, proposals = self._propose(batch, maps, training=True)
        sampled, labels_N, target_N4 = self._sample(proposals, truth, labels, ignored, draws)
        image_N = image_of(sampled)
        tap_values = self._taps(maps, sampled, image_N, taps)
        losses: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        if trunk_losses:
            losses, anchors = rpn_losses(found, truth, ignored, self.spec.rpn, draws)
            counts = dict.fromkeys(losses, anchors) | {"loss_box_reg": len(labels_N)}
            losses["loss_box_reg"] = self._box_loss(tap_values.box_features, torch.cat(sampled), labels_N, target_N4)
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
        _, proposals = self._propose(batch, maps, training=False)
        image_N, proposals_N4 = image_of(proposals), torch.cat(proposals)
        tap_values = self._taps(maps, proposals, image_N, taps)
        deltas = self.box_regressor(tap_values.box_features).float()
        roi = self.spec.roi
        sizes_N2 = _sizes(batch)[image_N]
        if roi.class_agnostic:
            boxes = clip(decode(deltas, proposals_N4, roi.box_weights), sizes_N2)
        else:
            deltas_NC4 = deltas.view(len(deltas), self.num_classes, 4)
            boxes = clip(decode(deltas_NC4, proposals_N4[:, None], roi.box_weights), sizes_N2)
        return PredictOutput(tap_values, proposals_N4, boxes, image_N)

    def box_taps(
        self, batch: Batch, boxes: Sequence[Tensor], *, taps: Sequence[str] = (), maps: Maps | None = None
    ) -> Taps:
        """Taps at given boxes (per image n x 4, pixels of the resized image), in their order."""
        maps = self.maps(batch.images) if maps is None else maps
        return self._taps(maps, boxes, image_of(boxes), taps)

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

    def to_foreign(self) -> Mapping[str, Tensor]:
        """The state dict under torchvision's names (see weights.to_foreign)."""
        return weights.to_foreign(self)

    def load_foreign(self, state: Mapping[str, Tensor]) -> list[str]:
        """Load a torchvision state dict; the names left as initialised (see weights.load_foreign)."""
        return weights.load_foreign(self, state)

    def _propose(self, batch: Batch, maps: Maps, *, training: bool) -> tuple[RpnOutput, list[Tensor]]:
        rpn = self.spec.rpn
        found = run_rpn(self.rpn, self._anchors, batch.images, [maps[level] for level in rpn.levels])
        pre, post = (rpn.pre_nms_train, rpn.post_nms_train) if training else (rpn.pre_nms_test, rpn.post_nms_test)
        return found, propose(found, _sizes(batch), rpn, pre_nms=pre, post_nms=post)

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

    def _taps(
        self, maps: Mapping[str, Tensor], boxes: Sequence[Tensor], image_N: Tensor, wanted: Sequence[str]
    ) -> Taps:
        asked = {*wanted, *self.classifier.inputs}
        map_NCPP = self._pool(maps, boxes, image_N)
        after_ND, before_ND = heads.box_features(self.box_head, map_NCPP)
        return Taps(
            after_ND,
            before_ND if "box_features_pre_relu" in asked else None,
            map_NCPP if "roi_map" in asked else None,
        )

    def _box_loss(self, features_ND: Tensor, boxes_N4: Tensor, labels_N: Tensor, target_N4: Tensor) -> Tensor:
        """Smooth-L1 summed over the positives / sampled RoIs (methods.md 0.3), indexed by the original label."""
        roi = self.spec.roi
        positive = (labels_N < self.num_classes).nonzero()[:, 0]
        wanted_P4 = encode(target_N4[positive], boxes_N4[positive], roi.box_weights)
        if roi.clamp_targets is not None:
            wanted_P4 = wanted_P4.clamp(-roi.clamp_targets, roi.clamp_targets)
        deltas = self.box_regressor(features_ND[positive]).float()
        if not roi.class_agnostic:
            rows = torch.arange(len(positive), device=positive.device)
            deltas = deltas.view(len(positive), self.num_classes, 4)[rows, labels_N[positive]]
        return F.smooth_l1_loss(deltas, wanted_P4, beta=roi.beta, reduction="sum") / max(len(labels_N), 1)


def _sizes(batch: Batch) -> Tensor:
    return torch.tensor(batch.sizes, device=batch.images.device)
