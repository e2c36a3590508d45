"""Balanced group softmax (BAGS). Separate because its raw outputs are not one per class: it owns its layout.

Output columns: segment 0 is [background, foreground]; then one segment [others, classes of the group by ascending id]
for each non-empty group of classes of like training counts. Labels and scores are background-last as everywhere.

Shape legend: N RoIs, D features, C foreground classes, L = C + 1 labels (background last), G groups that have classes,
S = G + 1 segments, K = 2 + G + C raw outputs.
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

    Args:
        head: widths, counts of the full training set (they make the groups), bins.
        beta: others drawn per RoI of the group's own classes; inf takes all RoIs ("n" of Fig. 4), in active groups.
        edges: ascending edges on instance counts, n >= edge goes up; None takes the bins of the suite.
        everything: train every segment on every RoI, active or not ("all" of Fig. 4); beta then has no effect.

    Raises:
        UserError: beta < 0 or edges that do not ascend.
    """

    VERSION = 1

    place_SL: Tensor
    own_L: Tensor

    def __init__(
        self, head: HeadSpec, *, beta: float = 8.0, edges: Sequence[int] | None = None, everything: bool = False
    ) -> None:
        super().__init__(head)
        if not beta >= 0.0:
            raise UserError(f"beta is {beta}", where="GroupSoftmax", allowed="a number >= 0, or .inf for all others")
        self.beta, self.everything = float(beta), everything
        self.layout = group_layout(head.instance_counts, head.bins if edges is None else edges)
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
        if self.everything:
            selected_SN = torch.ones_like(place_SN, dtype=torch.bool)
        else:
            selected_SN = select(place_SN, self.beta, keys_GN)
        means_S = segment_losses(wide(z_NK), self.layout.segments, place_SN, selected_SN)
        return dict(zip(self.layout.loss_names, means_S, strict=True))

    def scores(self, z_NK: Tensor) -> tuple[Tensor, Tensor | None]:
        """p_j = P0(foreground) x P_n(j), p_bg = P0(background); the C + 1 scores of a RoI do not sum to 1."""
        z = wide(z_NK)
        p_NK = torch.cat([z[:, start:stop].softmax(dim=1) for start, stop in self.layout.segments], dim=1)
        return p_NK[:, self.own_L[:-1]] * p_NK[:, 1:2], p_NK[:, 0]

    def class_weights(self) -> Tensor | None:
        """Each class's own row in its group; for the background its row in segment 0."""
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
        place_SL: int64, place of each label inside each segment; 0 is others (background in segment 0).
        own_L: int64, column of each label: a class in its group, the background in segment 0.
    """

    groups: tuple[int, ...]
    segments: tuple[tuple[int, int], ...]
    place_SL: Ints
    own_L: Ints

    @property
    def width(self) -> int:
        """K."""
        return self.segments[-1][1]

    @property
    def loss_names(self) -> tuple[str, ...]:
        """A name for the loss of each segment."""
        return ("classification_background", *(f"classification_group{g}" for g in self.groups))


def group_layout(counts: Sequence[int], edges: Sequence[int]) -> Layout:
    """Groups by training instances: group 1 + the number of edges that a count reaches (BAGS, section 4.2).

    Raises:
        UserError: edges that do not ascend.
    """
    if any(a >= b for a, b in pairwise(edges)):
        raise UserError(f"edges are {list(edges)}", where="GroupSoftmax", allowed="ascending instance counts")
    group_C = 1 + instance_bin(counts, edges)
    groups = tuple(int(g) for g in np.unique(group_C))
    num_classes = len(counts)
    place_SL = np.zeros((len(groups) + 1, num_classes + 1), dtype=np.int64)
    place_SL[0, :num_classes] = 1
    own_L = np.zeros(num_classes + 1, dtype=np.int64)
    segments = [(0, 2)]
    for row, group in enumerate(groups, start=1):
        members = np.flatnonzero(group_C == group)
        start = segments[-1][1]
        place_SL[row, members] = np.arange(1, len(members) + 1)
        own_L[members] = start + place_SL[row, members]
        segments.append((start, start + 1 + len(members)))
    return Layout(groups, tuple(segments), place_SL, own_L)


def select(place_SN: Tensor, beta: float, keys_GN: Tensor) -> Tensor:
    """Which RoIs each segment trains on: bool S x N.

    Segment 0 takes all. A group takes the RoIs of its own classes and floor(beta x their number) others, those with the
    smallest keys: keys drawn uniformly are a draw without replacement. No others where it has no RoI of its own.
    """
    own_GN = place_SN[1:] > 0
    quota_G1 = own_GN.sum(dim=1, keepdim=True)
    if math.isinf(beta):
        drawn_GN = ~own_GN & (quota_G1 > 0)
    else:
        order_GN = keys_GN.masked_fill(own_GN, math.inf).argsort(dim=1, stable=True)
        drawn_GN = ~own_GN & (order_GN.argsort(dim=1) < (beta * quota_G1.double()).floor())
    return torch.cat([torch.ones_like(place_SN[:1], dtype=torch.bool), own_GN | drawn_GN])


def segment_losses(
    z_NK: Tensor, segments: Sequence[tuple[int, int]], place_SN: Tensor, selected_SN: Tensor
) -> list[Tensor]:
    """Mean cross entropy of each segment over the RoIs selected for it; 0 where none is."""
    losses = []
    for (start, stop), place_N, selected_N in zip(segments, place_SN, selected_SN, strict=True):
        # Masked, not indexed: indexing by a mask would make a GPU wait for the CPU once a segment.
        ce_N = F.cross_entropy(z_NK[:, start:stop], place_N, reduction="none") * selected_N
        losses.append(ce_N.sum() / selected_N.sum().clamp(min=1))
    return losses
