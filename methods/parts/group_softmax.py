"""Balanced group softmax (BAGS). Separate because its raw outputs are not one per class: it owns its layout.

Output columns: segment 0 is [background, foreground]; then one segment [others, classes of the group by ascending id]
for each non-empty group of classes of like training counts. Both the background segment and the others columns can be
left out (Table 4). Labels and scores are background-last as everywhere.

Shape legend: N RoIs, D features, C foreground classes, L = C + 1 labels (background last), G groups that have classes,
S segments (G, and one more where the background has its own), K raw outputs (2 + G + C with both).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.detection.contract import Classifier, Context, HeadSpec, Taps, Targets
from bench.errors import UserError
from bench.frequency import Ints, instance_bin
from methods.parts.softmax import copy_parameters, linear, wide


class GroupSoftmax(Classifier):
    """Softmax within groups of classes of like training counts, with an "others" column and a background segment.

    Source: Li et al., Overcoming Classifier Imbalance for Long-Tail Object Detection with Balanced Group Softmax
    (CVPR 2020), section 4; where paper and released code differ we follow the code, which made the numbers:
    DEVIATION: segment 0 is a two-way softmax (code), not one sigmoid output (paper); the two are the same function.
    DEVIATION: each segment's loss is the mean over its selected RoIs (code), not a sum per proposal (paper, Eq. 5).
    DEVIATION: others are drawn among the RoIs of the whole step (the paper's mini-batch); the code draws on each device
    among those of its one or two images.
    DEVIATION: background=False is a house choice, unverified: the paper does not state where the background of Table 4
    rows 1 and 3 is. It joins the group of the largest counts as one more class; no score is rescaled.

    Args:
        head: widths, counts of the full training set (they make the groups), bins.
        beta: others drawn per RoI of the group's own classes; inf takes all RoIs ("n" of Fig. 4), in active groups.
        edges: ascending edges on instance counts, n >= edge goes up; None takes the bins of the suite.
        everything: train every segment on every RoI, active or not ("all" of Fig. 4); beta then has no effect.
        others: an others column in every group (Table 4, o). Without it a group learns from the RoIs of its own classes
            alone, and beta has no effect.
        background: a segment of its own for the background, whose p(foreground) scales all scores (Table 4, b).

    Raises:
        UserError: beta < 0, edges that do not ascend, or everything without others.
    """

    VERSION = 1

    place_SL: Tensor
    own_L: Tensor

    def __init__(
        self,
        head: HeadSpec,
        *,
        beta: float = 8.0,
        edges: Sequence[int] | None = None,
        everything: bool = False,
        others: bool = True,
        background: bool = True,
    ) -> None:
        super().__init__(head)
        if not beta >= 0.0:
            raise UserError(f"beta is {beta}", where="GroupSoftmax", allowed="a number >= 0, or .inf for all others")
        if everything and not others:
            raise UserError(
                "a group without an others column cannot learn from every RoI",
                where="GroupSoftmax",
                allowed="everything with others, or neither",
            )
        self.beta, self.everything = float(beta), everything
        grouped_by = head.bins if edges is None else edges
        self.layout = group_layout(head.instance_counts, grouped_by, others=others, background=background)
        self.fc = linear(head.features, self.layout.width, head.init_std)
        self.register_buffer("place_SL", torch.from_numpy(self.layout.place_SL))
        self.register_buffer("own_L", torch.from_numpy(self.layout.own_L))

    def forward(self, taps: Taps) -> Tensor:
        return cast(Tensor, self.fc(taps.box_features))

    def loss(self, z_NK: Tensor, targets: Targets, context: Context) -> dict[str, Tensor]:
        """One term per segment, all of weight 1; a group without RoIs of its own gives 0, with a graph.

        Others are drawn by `context.generator` (on the CPU, whatever the device, so that both draw alike).
        """
        shape = (len(self.layout.groups), len(targets.labels_N))
        keys_GN = torch.rand(shape, generator=context.generator).to(z_NK.device, non_blocking=True)
        place_SN = self.place_SL[:, targets.labels_N]
        selected_SN = torch.ones_like(place_SN, dtype=torch.bool)
        if not self.everything:
            selected_SN[-shape[0] :] = self._selected(place_SN[-shape[0] :], keys_GN)
        means_S = segment_losses(wide(z_NK), self.layout.segments, place_SN, selected_SN)
        return dict(zip(self.layout.loss_names, means_S, strict=True))

    def _selected(self, place_GN: Tensor, keys_GN: Tensor) -> Tensor:
        if not self.layout.others:
            return place_GN >= 0
        return select(place_GN > 0, self.beta, keys_GN)

    def scores(self, z_NK: Tensor) -> tuple[Tensor, Tensor | None]:
        """p_j = P0(foreground) x P_n(j), p_bg = P0(background); the C + 1 scores of a RoI do not sum to 1.

        Without a background segment p_j = P_n(j), and p_bg is that of the group that the background has joined.
        """
        z = wide(z_NK)
        p_NK = torch.cat([z[:, start:stop].softmax(dim=1) for start, stop in self.layout.segments], dim=1)
        p_NL = p_NK[:, self.own_L]
        return (p_NL[:, :-1] * p_NK[:, 1:2] if self.layout.background else p_NL[:, :-1]), p_NL[:, -1]

    def class_weights(self) -> Tensor | None:
        """Each class's own row in its group; for the background its row in segment 0, or in the group it has joined."""
        return self.fc.weight[self.own_L]

    def load_from(self, other: Classifier) -> list[str]:
        """Copy W and b from a classifier with the same groups; any other layout leaves all re-initialised."""
        same = isinstance(other, GroupSoftmax) and np.array_equal(other.layout.place_SL, self.layout.place_SL)
        return copy_parameters(dict(self.named_parameters()), dict(other.named_parameters()) if same else {})


@dataclass(frozen=True)
class Layout:
    """Where each label sits among the raw outputs.

    Attributes:
        groups: number of each group that has classes (1: fewest instances); empty groups are left out.
        segments: (start, stop) columns of each segment.
        place_SL: int64, place of each label inside each segment. Segment 0 of a layout with background: 0 background, 1
            foreground. A group's others: 0, its classes from 1; without others: its classes from 0, the rest -1.
        own_L: int64, column of each label: a class in its group, the background in segment 0 or the group it joined.
        others, background: whether there are others columns and a segment for the background.
    """

    groups: tuple[int, ...]
    segments: tuple[tuple[int, int], ...]
    place_SL: Ints
    own_L: Ints
    others: bool = True
    background: bool = True

    @property
    def width(self) -> int:
        """K."""
        return self.segments[-1][1]

    @property
    def loss_names(self) -> tuple[str, ...]:
        """A name for the loss of each segment."""
        groups = tuple(f"classification_group{g}" for g in self.groups)
        return ("classification_background", *groups) if self.background else groups


def group_layout(
    counts: Sequence[int], edges: Sequence[int], *, others: bool = True, background: bool = True
) -> Layout:
    """Groups by training instances: group 1 + the number of edges that a count reaches (BAGS, section 4.2).

    Without a segment for the background, it is the last place of the last group: it has the most instances.

    Raises:
        UserError: edges that do not ascend.
    """
    if any(a >= b for a, b in pairwise(edges)):
        raise UserError(f"edges are {list(edges)}", where="GroupSoftmax", allowed="ascending instance counts")
    num_classes = len(counts)
    group_L = np.append(1 + instance_bin(counts, edges), 0)
    groups = tuple(int(g) for g in np.unique(group_L[:-1]))
    if not background:
        group_L[-1] = groups[-1]
    own_L = np.zeros(num_classes + 1, dtype=np.int64)
    places, segments = [], []
    if background:
        places.append(np.append(np.ones(num_classes, dtype=np.int64), 0))
        segments.append((0, 2))
    for group in groups:
        start = segments[-1][1] if segments else 0
        members = np.flatnonzero(group_L == group)
        place_L = np.full(num_classes + 1, 0 if others else -1, dtype=np.int64)
        place_L[members] = np.arange(len(members)) + int(others)
        own_L[members] = start + place_L[members]
        places.append(place_L)
        segments.append((start, start + len(members) + int(others)))
    return Layout(groups, tuple(segments), np.stack(places), own_L, others, background)


def select(own_GN: Tensor, beta: float, keys_GN: Tensor) -> Tensor:
    """Which RoIs each group trains on: bool G x N.

    A group takes the RoIs of its own classes and floor(beta x their number) others, those with the smallest keys: keys
    drawn uniformly are a draw without replacement. No others where it has no RoI of its own.
    """
    quota_G1 = own_GN.sum(dim=1, keepdim=True)
    if math.isinf(beta):
        drawn_GN = ~own_GN & (quota_G1 > 0)
    else:
        order_GN = keys_GN.masked_fill(own_GN, math.inf).argsort(dim=1, stable=True)
        drawn_GN = ~own_GN & (order_GN.argsort(dim=1) < (beta * quota_G1.double()).floor())
    return own_GN | drawn_GN


def segment_losses(
    z_NK: Tensor, segments: Sequence[tuple[int, int]], place_SN: Tensor, selected_SN: Tensor
) -> list[Tensor]:
    """Mean cross entropy of each segment over the RoIs selected for it; 0 where none is."""
    losses = []
    for (start, stop), place_N, selected_N in zip(segments, place_SN, selected_SN, strict=True):
        # Masked, not indexed: indexing by a mask would make a GPU wait for the CPU once per segment. A RoI without a
        # place (-1, never selected) is given one, so that its cross entropy is finite.
        ce_N = F.cross_entropy(z_NK[:, start:stop], place_N.clamp(min=0), reduction="none") * selected_N
        losses.append(ce_N.sum() / selected_N.sum().clamp(min=1))
    return losses
