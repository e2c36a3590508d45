"""A teacher's features and scores to imitate. Separate from losses.py, whose losses are a classifier's own.

Shape legend: B images, N RoIs, C foreground classes, F channels, G boxes of an image, H x W cells of a feature map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bench.detection.contract import Batch, Detector, HeadSpec
from bench.detection.losses import ExtraLoss, Losses, Step
from bench.errors import UserError
from bench.frequency import levels_of

POOLED = "pool"  # a level that is made from the one before it, without weights: it holds nothing more to imitate


class _OfHeadClasses(ExtraLoss):
    """What both losses share: a teacher, and the classes that it is an expert of."""

    known_C: Tensor

    def __init__(
        self,
        head: HeadSpec,
        teacher: Detector,
        weight: float,
        edges: Sequence[float | Mapping[str, float]],
        levels: int,
        inclusive: bool,
        teacher_train_mode: bool,
    ) -> None:
        super().__init__(head)
        if not weight >= 0.0:
            raise UserError(f"weight is {weight}", where=type(self).__name__, allowed="a number >= 0")
        level_C = levels_of(head.image_counts, edges, head.num_images, inclusive)
        self.teacher, self.weight, self.teacher_train_mode = teacher, float(weight), teacher_train_mode
        known = torch.from_numpy(level_C < levels)
        if not known.any():
            raise UserError(
                "no class is common enough to be the teacher's", where=type(self).__name__, hint="lower the first edge"
            )
        # Not persistent: it follows from settings and data.
        self.register_buffer("known_C", known, persistent=False)


class Features(_OfHeadClasses):
    """Imitate the teacher's feature maps where there are objects of its classes:
    L_fm = mean over levels k and images j of sum_cells,channels M (s - t)^2 / (2 sum M), M the union of their boxes.

    Source: Dong et al. (ICCV 2023), L_fm, as released (methods.md 18.5): a sum over channels, no mean.

    Args:
        head: counts of the classes.
        teacher: the model to imitate.
        weight: factor on the loss.
        edges, inclusive: levels of classes by training images, see `exemplars.replay`.
        levels: the teacher's classes are those of so many levels, the frequent first.
        teacher_train_mode: see bench.detection.losses.ExtraLoss.

    Raises:
        UserError: a negative weight, or no class of the teacher's.
    """

    VERSION = 1

    def __init__(
        self,
        head: HeadSpec,
        *,
        teacher: Detector,
        weight: float = 0.1,
        edges: Sequence[float | Mapping[str, float]] = ({"images": 30},),
        levels: int = 1,
        inclusive: bool = True,
        teacher_train_mode: bool = False,
    ) -> None:
        super().__init__(head, teacher, weight, edges, levels, inclusive, teacher_train_mode)

    def loss(self, step: Step) -> Losses:
        batch = step.batch()
        boxes = [self._boxes(batch, i) for i in range(len(batch.boxes))]
        own, theirs = step.maps(), step.maps(self.teacher)
        found = []
        for level in own:
            if level == POOLED:
                continue
            s_BFHW, t_BFHW = own[level], theirs[level]
            mask_BHW = torch.stack([cells(box_G4, batch.images.shape[-2:], s_BFHW.shape[-2:]) for box_G4 in boxes])
            found.append(imitation(s_BFHW, t_BFHW, mask_BHW))
        value = torch.stack(found).mean() * self.weight
        return Losses({"imitation": value}, {"imitation": len(boxes)})

    def _boxes(self, batch: Batch, i: int) -> Tensor:
        return batch.boxes[i][self.known_C[batch.labels[i]] & ~batch.ignore[i]]


class Scores(_OfHeadClasses):
    """Judge as the teacher does, of its classes: L_cls = mean over RoIs of KL(q || p), q and p the softmax over the
    teacher's classes of its logits and of the student's.

    Source: Dong et al. (ICCV 2023), L_cls, as released (methods.md 18.5): all queries, no temperature.
    DEVIATION: a two-stage detector's RoIs take the place of queries: those sampled from the teacher's proposals.

    Args:
        head: counts of the classes.
        teacher: the model to imitate.
        shared: whether the student's classifier judges the teacher's features of the teacher's RoIs ("shared queries");
            else its own of its own RoIs, the n-th of an image beside the teacher's n-th.
        weight, edges, levels, inclusive, teacher_train_mode: see `Features`.

    Raises:
        UserError: a negative weight, or no class of the teacher's.
    """

    VERSION = 1

    def __init__(
        self,
        head: HeadSpec,
        *,
        teacher: Detector,
        weight: float = 1.0,
        shared: bool = True,
        edges: Sequence[float | Mapping[str, float]] = ({"images": 30},),
        levels: int = 1,
        inclusive: bool = True,
        teacher_train_mode: bool = False,
    ) -> None:
        super().__init__(head, teacher, weight, edges, levels, inclusive, teacher_train_mode)
        self.shared = shared

    def loss(self, step: Step) -> Losses:
        theirs, student = step.rois(self.teacher), step.student.classifier
        with torch.no_grad():
            t_NC = self.teacher.classifier.class_logits(self.teacher.classifier(theirs.taps))
        if self.shared:
            s_NC = student.class_logits(student(theirs.taps))
        else:
            own = step.rois()
            s_NC = student.class_logits(student(own.taps))
            pairs = pairs_of(own.boxes, theirs.boxes)
            s_NC, t_NC = s_NC[pairs[:, 0]], t_NC[pairs[:, 1]]
        # Of an engine with several heads (decoder layers): the mean of each, summed, as in the released code.
        heads = 1 if theirs.taps.head_N is None else int(theirs.taps.head_N.max()) + 1
        value = divergence(s_NC[:, self.known_C], t_NC[:, self.known_C]) * self.weight * heads
        return Losses({"transfer": value}, {"transfer": len(s_NC)})


def cells(box_G4: Tensor, frame: Sequence[int], grid: Sequence[int]) -> Tensor:
    """The cells of an H x W grid that boxes (pixels of a frame, height and width) cover: bool H x W.

    Left and right are rounded down, top and bottom up, as in the released code (methods.md 18.5).
    """
    (height, width), (rows, columns) = frame, grid
    x1, x2 = ((box_G4[:, k] * (columns / width)).floor() for k in (0, 2))
    y1, y2 = ((box_G4[:, k] * (rows / height)).ceil() for k in (1, 3))
    x, y = torch.arange(columns, device=box_G4.device), torch.arange(rows, device=box_G4.device)
    across_GW = (x >= x1[:, None]) & (x < x2[:, None])
    down_GH = (y >= y1[:, None]) & (y < y2[:, None])
    return (down_GH[:, :, None] & across_GW[:, None, :]).any(dim=0)


def imitation(s_BFHW: Tensor, t_BFHW: Tensor, mask_BHW: Tensor) -> Tensor:
    """Mean over images of sum M (s - t)^2 / (2 sum M); 0 of an image whose mask is empty."""
    off_BHW = (s_BFHW.float() - t_BFHW.float()).square().sum(dim=1)
    covered_B = mask_BHW.sum(dim=(1, 2)).clamp(min=1)
    return ((off_BHW * mask_BHW).sum(dim=(1, 2)) / (2 * covered_B)).mean()


def divergence(s_NH: Tensor, t_NH: Tensor) -> Tensor:
    """Mean over rows of KL(q || p), q and p the softmax of teacher's and student's logits; 0 without rows."""
    log_q, log_p = t_NH.float().log_softmax(dim=1), s_NH.float().log_softmax(dim=1)
    return (log_q.exp() * (log_q - log_p)).sum() / max(len(s_NH), 1)


def pairs_of(own: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Rows (own, theirs) of the n-th RoI of each image in both: P x 2."""
    found, a, b = [torch.zeros((0, 2), dtype=torch.int64)], 0, 0
    for one, other in zip(own, theirs, strict=True):
        rows = torch.arange(min(len(one), len(other)))
        found.append(torch.stack((rows + a, rows + b), dim=1))
        a, b = a + len(one), b + len(other)
    return torch.cat(found)
