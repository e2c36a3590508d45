"""tau-norm-select: two classifiers on one trunk, and the rule that picks one per RoI. Separate from patches.py because
it keeps both, so it is a classifier and not an edit.

Shape legend: N RoIs, C foreground classes, K raw outputs of one classifier; raw outputs here are the original's K and
then the scaled one's K. Background is last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bench.detection.contract import Classifier, Context, HeadSpec, Taps, Targets, build_classifier
from bench.errors import UserError, unknown
from bench.frequency import tail_classes
from methods.parts.patches import tau_norm

RULES = ("paper", "code")


class TauNormSelect(Classifier):
    """The original's scores where it decides for background, else those of its tau-normalised copy (whole vectors).

    Source: BAGS (CVPR 2020), Table 1 row 13.
    DEVIATION: rule="paper" is the default; "code" (the released one) requires a tail class of the copy as well.
    DEVIATION: not stated for this row: whether the copy's background row is scaled. It is, as in row 12.

    Args:
        head: full training counts; they decide which classes are tail.
        inner: the part of the original classifier, of the softmax family.
        tau, background: as in patches.tau_norm.
        rule: "paper" or "code".
        tail_below: for "code": a tail class has fewer training instances.

    Raises:
        UserError: another rule; on `load_from`, what tau_norm refuses.
    """

    VERSION = 1

    tail_L: Tensor

    def __init__(
        self,
        head: HeadSpec,
        *,
        inner: Mapping[str, Any],
        tau: float = 1.0,
        background: str = "scaled",
        rule: str = "paper",
        tail_below: int = 100,
    ) -> None:
        super().__init__(head)
        if rule not in RULES:
            raise unknown("rule", rule, RULES, where="TauNormSelect")
        self.inner = build_classifier(inner, head)
        self.scaled = build_classifier(inner, head)
        self.inputs = self.inner.inputs
        self.tau, self.background, self.rule = tau, background, rule
        tail_C = torch.from_numpy(tail_classes(head.instance_counts, tail_below))
        self.register_buffer("tail_L", torch.cat([tail_C, torch.zeros(1, dtype=torch.bool)]), persistent=False)

    def wrap(self, other: Classifier) -> None:
        """Keep `other` and tau-normalise a copy of it."""
        super().wrap(other)
        self.scaled.load_state_dict(self.inner.state_dict())
        tau_norm(self.scaled, tau=self.tau, background=self.background)

    def forward(self, taps: Taps) -> Tensor:
        return torch.cat([self.inner(taps), self.scaled(taps)], dim=1)

    def loss(self, z_NK: Tensor, targets: Targets, context: Context) -> dict[str, Tensor]:
        """Not trained.

        Raises:
            UserError: always.
        """
        raise UserError("tau-norm-select has no loss", where="TauNormSelect", hint="train first, wrap afterwards")

    def scores(self, z_NK: Tensor) -> tuple[Tensor, Tensor | None]:
        """One of the two score vectors for each RoI, background included."""
        original_NK, scaled_NK = z_NK.chunk(2, dim=1)
        original_NL, scaled_NL = _with_background(self.inner, original_NK), _with_background(self.scaled, scaled_NK)
        swap_N = original_NL.argmax(dim=1) < self.head.num_classes
        if self.rule == "code":
            swap_N = swap_N & self.tail_L[scaled_NL.argmax(dim=1)]
        p_NL = torch.where(swap_N[:, None], scaled_NL, original_NL)
        return p_NL[:, :-1], p_NL[:, -1]


def _with_background(classifier: Classifier, z_NK: Tensor) -> Tensor:
    p_NC, p_bg_N = classifier.scores(z_NK)
    assert p_bg_N is not None, "tau_norm takes the softmax family alone, which has p_bg"
    return torch.cat([p_NC, p_bg_N[:, None]], dim=1)
