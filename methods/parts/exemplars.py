"""Exemplars: which annotations of a class a further stage sees, chosen by how sure a trained model is of them. Separate
from annotations.py, which chooses by class alone.

Shape legend: A annotations of a split, C classes, D box-head features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bench.data.split import Split
from bench.detection.contract import HeadSpec, LabelledRois
from bench.errors import UserError, unknown
from bench.frequency import RARE_IMAGES, Bools, Ints, levels_of
from methods.parts.annotations import without

VERSION = 1

SCORES = ("max", "own")
UNSELECTED = ("ignore", "drop", "keep")
SURE = 0.5  # of the first choice, an annotation has a higher score (released code of Dong et al.)


class Scores:
    """How sure a model is of each annotation of the training set; fit part.

    Source: Dong et al. (ICCV 2023), confidence-guided exemplar replay, and its released code.
    A box has the score of the query that it is matched with.
    DEVIATION: a two-stage detector is asked at the true box itself, whose RoI needs no match.

    Args:
        head: number of classes.
        score: "max": the highest score of all classes (released code); "own": that of the annotation's class.

    Raises:
        UserError: another `score`.
    """

    inputs: tuple[str, ...] = ()
    rois = "matched"

    def __init__(self, head: HeadSpec, *, score: str = "max") -> None:
        if score not in SCORES:
            raise unknown("score", score, SCORES, where="Scores")
        self._own = score == "own"
        self._counts = {"image_counts_C": torch.tensor(head.image_counts), "num_images": torch.tensor(head.num_images)}
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def update(self, seen: LabelledRois) -> None:
        """Score the true boxes of a batch."""
        p_AC = seen.classifier.scores(seen.classifier(seen.taps))[0]
        of_own = p_AC[torch.arange(len(p_AC), device=p_AC.device), seen.labels_N]
        score_A = of_own if self._own else p_AC.amax(dim=1)
        self._seen.append((seen.image_N.cpu(), seen.box_N.cpu(), score_A.float().cpu()))

    def result(self) -> dict[str, Tensor]:
        """image_A, box_A: int64, position of the image in the split and row of the box in it, ascending; score_A:
        float32; image_counts_C, num_images: int64, training images of each class and of all."""
        image_A, box_A, score_A = (torch.cat(parts) for parts in zip(*self._seen, strict=True))
        order = np.lexsort((box_A.numpy(), image_A.numpy()))
        return {"image_A": image_A[order], "box_A": box_A[order], "score_A": score_A[order], **self._counts}


def replay(
    split: Split,
    *,
    scores: Mapping[str, Tensor],
    quotas: Sequence[int | None],
    edges: Sequence[float | Mapping[str, float]] = ({"images": 30},),
    inclusive: bool = True,
    rare: int | str | None = None,
    unselected: str = "ignore",
) -> Split:
    """The images of chosen annotations: so many of each class, those that the model is surest of first.

    Source: Dong et al. (ICCV 2023); `select` is the released code's choice.
    DEVIATION: `unselected` is "ignore", not the released "drop", by which true objects become background.

    Args:
        split: the training annotations; boxes already marked `ignore` are not chosen.
        scores: the result of `Scores`.
        quotas: annotations of a class, one for each level of `edges`, the frequent classes first; None: all of them.
        edges: where levels end, falling, on training images of a class: a share of them, or {"images": n}.
        inclusive: whether a class that is at an edge is above it (>=, the paper's; the released code has >).
        rare: quota of classes with at most 10 training images, or "level": that of their level (None: all of them).
        unselected: what becomes of the other boxes in these images: "ignore" (nothing near them is sampled), "drop"
            (background), "keep" (they are trained on too).

    Raises:
        UserError: a setting out of range, scores of other annotations, or no annotation is chosen.
    """
    if unselected not in UNSELECTED:
        raise unknown("treatment of unselected boxes", unselected, UNSELECTED, where="replay")
    counts_C = scores["image_counts_C"].numpy()
    level_C = levels_of(counts_C, edges, len(split) if split.counted is None else split.counted.num_images, inclusive)
    if len(quotas) != len(edges) + 1:
        raise UserError(
            f"{len(quotas)} quotas for {len(edges)} edges",
            where="replay",
            allowed="one more than edges, frequent first",
        )
    quota_C = [quotas[level] for level in level_C]
    if rare != "level":
        assert not isinstance(rare, str), rare
        quota_C = [rare if n <= RARE_IMAGES else quota for n, quota in zip(counts_C, quota_C, strict=True)]
    chosen = _chosen(split, scores, quota_C)
    shown = [i for i, keep in enumerate(chosen) if keep.any()]
    if not shown:
        raise UserError("no annotation is chosen", where="replay", hint="raise its quotas or move its edges")
    rest, keep = split.subset(shown), [chosen[i] for i in shown]
    if unselected == "keep":
        return rest
    if unselected == "ignore":
        return replace(rest, ignore=[old | ~k for old, k in zip(rest.ignore, keep, strict=True)])
    return without(rest, keep)


def select(scores: Sequence[float], images: Sequence[int], quota: int | None) -> list[int]:
    """Which annotations of one class are exemplars: positions, the surest first.

    First, in falling order of score, those above 0.5 whose image has none of the class yet; then the surest of all,
    each once, up to the quota.

    Source: methods.md 18.3, from the released code of Dong et al. (ICCV 2023).

    Args:
        scores: of each annotation of the class.
        images: its image.
        quota: how many are wanted; None: all.
    """
    order = sorted(range(len(scores)), key=lambda at: -scores[at])
    if quota is None:
        return order
    used: set[int] = set()
    first = []
    for at in order:
        if scores[at] > SURE and images[at] not in used:
            used.add(images[at])
            first.append(at)
    return list(dict.fromkeys(first + order[:quota]))[:quota]


def _chosen(split: Split, scores: Mapping[str, Tensor], quota_C: Sequence[int | None]) -> list[Bools]:
    """Per image bool n: whether a box is an exemplar."""
    image_A, box_A = scores["image_A"].numpy(), scores["box_A"].numpy()
    boxes_I = np.array([len(labels) for labels in split.labels], np.int64)
    if (image_A >= len(split)).any() or (box_A >= boxes_I[image_A]).any():
        raise UserError("the scores are of other annotations", where="replay", hint="fit them on the training split")
    score_A = scores["score_A"].numpy()
    label_A = np.array([split.labels[i][b] for i, b in zip(image_A, box_A, strict=True)], np.int64)
    chosen = [np.zeros(len(labels), np.bool_) for labels in split.labels]
    for c, quota in enumerate(quota_C):
        own: Ints = np.flatnonzero(label_A == c)
        for at in select(score_A[own].tolist(), image_A[own].tolist(), quota):
            chosen[image_A[own[at]]][box_A[own[at]]] = True
    return [k & ~ignore for k, ignore in zip(chosen, split.ignore, strict=True)]
