"""Deformable DETR behind the seam. Separate from its pieces: it only puts them in order.

Parameter names start with their group. The rows of a step are all queries of all decoder layers, image by
image, layer by layer; which of them answers for a true box is known once the classifier has spoken (`assign`).

Shape legend: L decoder layers, B images, Q queries, N rows (B x L x Q), T tokens, D width, C foreground classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bench.detection.boxes import clip
from bench.detection.contract import Batch, Classifier, Draws, Maps, PredictOutput, Taps, TrainOutput
from bench.detection.contract import Targets as Labels
from bench.detection.focal import focal_of, prior_bias
from bench.detection.grouped import Grouped
from bench.engines.detr.attention import DecoderLayer, Memory, correction
from bench.engines.detr.facts import GROUPS
from bench.engines.detr.matching import Truth, Weights, box_losses, match, pixels, shares
from bench.engines.detr.network import NEVER, Decoded, Encoder, InputProjection, Proposals, decode
from bench.engines.sections import SetPrediction
from bench.engines.torchvision import trunks
from bench.errors import UserError

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss of the objectness (Lin et al. 2017, section 5)
OFFSETS = "attention.offsets"  # part of the names of the group `offsets`
OBJECTNESS = "loss_objectness"
LEVEL = "level{}"  # names of the projected maps


@dataclass(frozen=True)
class Pending:
    """What waits for the classifier: the queries' boxes and the truth; `losses`: whether those of boxes are wanted."""

    boxes_LBQ4: Tensor
    truth: Truth
    losses: bool


class DeformableDetr(Grouped):
    """Two-stage Deformable DETR with box refinement, its classifiers outside (see bench.detection.contract.Detector).

    Source: Zhu et al. 2021 (Deformable DETR); backbones are those of the torchvision engine.

    Attributes:
        fresh: names a weights file left as initialised; all names without one.
    """

    GROUPS = GROUPS

    def __init__(self, detector: SetPrediction, num_classes: int, classifier: Classifier) -> None:
        super().__init__()
        section = detector.detr
        body = trunks.build_body(detector)
        levels, D = len(section.levels) + section.extra_levels, section.width
        self.spec, self.num_classes = detector, num_classes
        self.queries, self.levels = section.queries, section.levels
        self.backbone = body.body
        self.input_proj = InputProjection([body.channels[level] for level in section.levels], D, section.extra_levels)
        self.encoder = Encoder(section, levels)
        shape = (D, section.heads, levels, section.points, section.ffn, section.dropout)
        self.decoder = nn.ModuleList(DecoderLayer(*shape) for _ in range(section.decoder))
        self.proposals = Proposals(section)
        self.objectness = nn.Linear(D, 1)
        nn.init.normal_(self.objectness.weight, std=detector.classifier_std)
        nn.init.constant_(self.objectness.bias, prior_bias(section.prior))
        self.box_regressor = nn.ModuleList(correction(D) for _ in range(section.decoder))
        self.classifier = classifier
        self.last = body.last
        self.class_agnostic = True
        self.body_prefix = body.classifier_prefix
        self.cost = Weights(section.cost_class, section.cost_l1, section.cost_giou)
        self.loss = Weights(section.loss_class, section.loss_l1, section.loss_giou)
        self.settle([m for stage in body.stages[: detector.frozen_stages] for m in stage])

    def body(self, images: Tensor) -> Maps:
        """The backbone's maps, finest first (B x channels x H x W), of B x 3 x H x W images."""
        found: Maps = self.backbone(images)
        return found

    def maps(self, images: Tensor, body: Maps | None = None) -> Maps:
        """The projected maps by level, finest first: B x D x H x W."""
        body = self.body(images) if body is None else body
        projected = self.input_proj([body[level] for level in self.levels])
        return {LEVEL.format(v): cells for v, cells in enumerate(projected)}

    def train_forward(
        self, batch: Batch, draws: Draws, *, trunk_losses: bool, taps: Sequence[str] = (), maps: Maps | None = None
    ) -> TrainOutput:
        """All queries of all decoder layers, and the losses of the proposals if `trunk_losses`; labels and box losses
        come with `assign`."""
        memory = self._memory(batch, maps)
        tokens_BTD, boxes_BT4, legal_BT = self.proposals(memory)
        object_BT = self.objectness(tokens_BTD)[..., 0].masked_fill(~legal_BT, NEVER)
        start_BQ4 = self._best(object_BT, boxes_BT4)
        found = decode(self.decoder, self.box_regressor, self.proposals, memory, start_BQ4)
        truth = _truth(batch)
        losses = self._proposal_losses(object_BT, boxes_BT4, truth) if trunk_losses else {}
        B, L, Q = len(batch.sizes), len(self.decoder), self.queries
        features_ND = found.hidden_LBQD.transpose(0, 1).flatten(0, 2)
        image_N = torch.arange(B, device=features_ND.device).repeat_interleave(L * Q)
        head_N = torch.arange(L, device=features_ND.device).repeat_interleave(Q).repeat(B)
        read = Taps(features_ND, head_N=head_N)
        present = [torch.unique(label[~out]) for label, out in zip(batch.labels, batch.ignore, strict=True)]
        nothing_N = torch.full_like(image_N, self.num_classes)
        boxes = [pixels(found.boxes_LBQ4[:, i].detach().flatten(0, 1), size) for i, size in enumerate(batch.sizes)]
        return TrainOutput(
            losses, read, Labels(nothing_N, image_N, present, batch.negative, read),
            _counts(losses, truth), boxes, Pending(found.boxes_LBQ4, truth, trunk_losses),
        )  # fmt: skip

    def assign(self, out: TrainOutput, scores: Callable[[], Tensor]) -> TrainOutput:
        """Labels of the queries that are matched with a true box, and the box losses of these. A query that is matched
        with a box to ignore is left out of every loss."""
        waiting = out.pending
        assert isinstance(waiting, Pending)
        L, B, Q, _ = waiting.boxes_LBQ4.shape
        p_LBQC = scores().view(B, L, Q, -1).transpose(0, 1)
        pairs = match(_focal_score(p_LBQC), waiting.boxes_LBQ4.detach(), waiting.truth, self.cost)
        left_out = waiting.truth.flat_ignore(pairs)
        labels_N = out.targets.labels_N.clone()
        row_P = (pairs.image * L + pairs.layer) * Q + pairs.query
        labels_N[row_P] = waiting.truth.flat_labels(pairs)
        losses = dict(out.losses)
        if waiting.losses:
            losses |= box_losses(waiting.boxes_LBQ4, waiting.truth, pairs.of(~left_out), self.loss, "loss_box")
        counts = {**out.counts, **dict.fromkeys(losses.keys() - out.losses.keys(), waiting.truth.number)}
        keep_N = torch.ones(len(labels_N), dtype=torch.bool, device=labels_N.device)
        keep_N[row_P[left_out]] = False
        taps = out.taps.each(lambda value: value[keep_N])
        targets = replace(out.targets, labels_N=labels_N[keep_N], image_N=out.targets.image_N[keep_N], taps=taps)
        boxes = [of[keep] for of, keep in zip(out.boxes, keep_N.view(B, -1), strict=True)]
        return TrainOutput(losses, taps, targets, counts, boxes)

    @torch.no_grad()
    def predict_forward(self, batch: Batch, *, taps: Sequence[str] = (), maps: Maps | None = None) -> PredictOutput:
        """The queries of the last layer, and the boxes that it refines. Ground truth is not read."""
        found = self._decoded(self._memory(batch, maps))
        features_ND = found.hidden_LBQD[-1].flatten(0, 1)
        image_N = torch.arange(len(batch.sizes), device=features_ND.device).repeat_interleave(self.queries)
        before, after = (
            torch.cat([pixels(of[i], size) for i, size in enumerate(batch.sizes)])
            for of in (found.entered_LBQ4[-1], found.boxes_LBQ4[-1])
        )
        sizes_N2 = torch.tensor(batch.sizes, device=image_N.device)[image_N]
        return PredictOutput(Taps(features_ND), before, clip(after, sizes_N2), image_N)

    def box_taps(
        self, batch: Batch, boxes: Sequence[Tensor], *, taps: Sequence[str] = (), maps: Maps | None = None
    ) -> Taps:
        """States of the last layer at given boxes: a query is made of a box alone, and each sees only itself."""
        memory = self._memory(batch, maps)
        most = max([1, *(len(of) for of in boxes)])
        shown = memory.tokens_BTD.new_full((len(boxes), most, 4), 0.5)
        for i, (of, size) in enumerate(zip(boxes, batch.sizes, strict=True)):
            shown[i, : len(of)] = shares(of, size)
        found: Decoded = decode(self.decoder, self.box_regressor, self.proposals, memory, shown, alone=True)
        last_BSD = found.hidden_LBQD[-1]
        return Taps(torch.cat([last_BSD[i, : len(of)] for i, of in enumerate(boxes)]))

    def matched_taps(
        self,
        batch: Batch,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        *,
        taps: Sequence[str] = (),
        maps: Maps | None = None,
    ) -> Taps:
        """States of the last layer of the queries that are matched with the boxes."""
        memory = self._memory(batch, maps)
        found = self._decoded(memory)
        last_BQD = found.hidden_LBQD[-1]
        p_NC = self.classifier.scores(self.classifier(Taps(last_BQD.flatten(0, 1))))[0]
        truth = Truth(
            [shares(of, size) for of, size in zip(boxes, batch.sizes, strict=True)], labels,
            [torch.zeros_like(of, dtype=torch.bool) for of in labels],
        )  # fmt: skip
        p_1BQC = p_NC.view(1, *last_BQD.shape[:2], -1)
        pairs = match(_focal_score(p_1BQC), found.boxes_LBQ4[-1:], truth, self.cost)
        if len(pairs.box) != sum(len(of) for of in labels):
            most = max(len(of) for of in labels)
            raise UserError(
                f"an image has {most} true boxes, and there are {self.queries} queries", where="detector.detr.queries",
                allowed=f"at least {most}",
            )  # fmt: skip
        order = torch.argsort(truth.rows(pairs))
        return Taps(last_BQD[pairs.image, pairs.query][order])

    def group_of(self, name: str) -> str:
        """As of all engines; where the attention heads look is a group of its own."""
        return "offsets" if OFFSETS in name else super().group_of(name)

    def _memory(self, batch: Batch, maps: Maps | None) -> Memory:
        maps = self.maps(batch.images) if maps is None else maps
        frame = (batch.images.shape[-2], batch.images.shape[-1])
        memory: Memory = self.encoder(list(maps.values()), batch.sizes, frame)
        return memory

    def _decoded(self, memory: Memory) -> Decoded:
        """What the queries become, without losses."""
        tokens_BTD, boxes_BT4, legal_BT = self.proposals(memory)
        object_BT = self.objectness(tokens_BTD)[..., 0].masked_fill(~legal_BT, NEVER)
        return decode(self.decoder, self.box_regressor, self.proposals, memory, self._best(object_BT, boxes_BT4))

    def _best(self, object_BT: Tensor, boxes_BT4: Tensor) -> Tensor:
        """Where the queries start: the boxes of the best tokens, without gradient."""
        best_BQ = object_BT.detach().topk(self.queries, dim=1).indices
        return boxes_BT4.detach().gather(1, best_BQ[..., None].expand(-1, -1, 4))

    def _proposal_losses(self, object_BT: Tensor, boxes_BT4: Tensor, truth: Truth) -> dict[str, Tensor]:
        """Of the first stage, all classes taken as one. Source: Zhu et al. 2021, A.4."""
        one = Truth(truth.boxes, [torch.zeros_like(labels) for labels in truth.labels], truth.ignore)
        p_1BT1 = object_BT.detach().sigmoid()[None, ..., None]
        pairs = match(_focal_score(p_1BT1), boxes_BT4[None].detach(), one, self.cost)
        left_out = one.flat_ignore(pairs)
        wanted_BT, counted_BT = torch.zeros_like(object_BT), object_BT > NEVER
        wanted_BT[pairs.image, pairs.query] = 1.0
        counted_BT[pairs.image[left_out], pairs.query[left_out]] = False
        off = focal_of(object_BT, wanted_BT, GAMMA, ALPHA)[counted_BT].sum() / max(truth.number, 1)
        boxes = box_losses(boxes_BT4[None], truth, pairs.of(~left_out), self.loss, "loss_proposal")
        return {OBJECTNESS: self.loss.score * off, **boxes}


def _counts(losses: Iterable[str], truth: Truth) -> dict[str, int]:
    """What each loss was divided by. The objectness is at least 1: where a process has images without a box, what its
    cells say of them counts all the same."""
    return {name: max(truth.number, 1) if name == OBJECTNESS else truth.number for name in losses}


def _focal_score(p: Tensor) -> Tensor:
    """By how much the focal loss of an output falls where its target is 1 instead of 0. Source: the released code of
    Deformable DETR, which matches by it."""
    p = p.float().clamp(1e-8, 1 - 1e-8)
    return (1 - ALPHA) * p**GAMMA * -(1 - p).log() - ALPHA * (1 - p) ** GAMMA * -p.log()


def _truth(batch: Batch) -> Truth:
    solid = [(boxes[:, 2:] > boxes[:, :2]).all(dim=1) for boxes in batch.boxes]
    return Truth(
        [shares(b[keep], size) for b, keep, size in zip(batch.boxes, solid, batch.sizes, strict=True)],
        [labels[keep] for labels, keep in zip(batch.labels, solid, strict=True)],
        [ignore[keep] for ignore, keep in zip(batch.ignore, solid, strict=True)],
    )
