"""One classifier for each of an engine's heads, behind one. Separate from contract.py: no method knows of it.

Shape legend: N rows, L heads, K outputs, C foreground classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.detection.contract import Classifier, Context, Detector, HeadSpec, Targets, build_classifier
from bench.detection.taps import Taps


class PerHead(Classifier):
    """The same kind of classifier once for each head (decoder layers, stages of a cascade). Each judges the rows that
    `Taps.head_N` gives it; losses are summed; what is detected, edited and shown is that of the last.

    Args:
        head: see Classifier.
        inner: the part of one of them, whose settings are resolved by `inputs`.
        count: how many.
        inputs: results of stages by name, for the settings of `inner`.
    """

    def __init__(
        self, head: HeadSpec, *, inner: Mapping[str, Any], count: int, inputs: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(head)
        self.heads = nn.ModuleList(build_classifier(inner, head, inputs) for _ in range(count))
        self.inputs = self.last.inputs

    @property
    def every(self) -> list[Classifier]:
        """One for each head."""
        return [one for one in self.heads if isinstance(one, Classifier)]

    @property
    def last(self) -> Classifier:
        """The one that detects."""
        return self.every[-1]

    def forward(self, taps: Taps) -> Tensor:
        if taps.head_N is None:
            found: Tensor = self.last(taps)
            return found
        return self._by_head(taps.head_N, [one(_rows(taps, taps.head_N == k)) for k, one in enumerate(self.every)])

    def loss(self, z_NK: Tensor, targets: Targets, context: Context) -> dict[str, Tensor]:
        """The sum of each head's on its own rows; a name has the same meaning in all."""
        head_N = targets.taps.head_N
        assert head_N is not None, "rows of training say whose they are"
        total: dict[str, Tensor] = {}
        for k, one in enumerate(self.every):
            mine = head_N == k
            own = Targets(
                targets.labels_N[mine], targets.image_N[mine], targets.present, targets.negative,
                _rows(targets.taps, mine),
            )  # fmt: skip
            for name, value in one.loss(z_NK[mine], own, context).items():
                total[name] = total[name] + value if name in total else value
        return total

    def scores(self, z_NK: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.last.scores(z_NK)

    def class_logits(self, z_NK: Tensor) -> Tensor:
        return self.last.class_logits(z_NK)

    def class_weights(self) -> Tensor | None:
        return self.last.class_weights()

    def groups(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for k, one in enumerate(self.every):
            for group, names in one.groups().items():
                found.setdefault(group, []).extend(f"heads.{k}.{name}" for name in names)
        return found

    def load_from(self, other: Classifier) -> list[str]:
        if not isinstance(other, PerHead):
            return list(self.state_dict())
        fresh = []
        for k, (mine, theirs) in enumerate(zip(self.every, other.every, strict=True)):
            fresh += [f"heads.{k}.{name}" for name in mine.load_from(theirs)]
        return fresh

    def wrap(self, other: Classifier) -> None:
        assert isinstance(other, PerHead), "an engine has as many heads in every model"
        for mine, theirs in zip(self.every, other.every, strict=True):
            mine.wrap(theirs)

    @staticmethod
    def _by_head(head_N: Tensor, outputs: list[Tensor]) -> Tensor:
        """The rows of all heads in their order."""
        order = torch.cat([(head_N == k).nonzero()[:, 0] for k in range(len(outputs))])
        return torch.cat(outputs)[torch.argsort(order)]


class OneHead:
    """A detector as if it had one of its heads alone."""

    def __init__(self, detector: Detector, k: int) -> None:
        self._detector = detector
        own = detector.classifier
        self.classifier = own.every[k] if isinstance(own, PerHead) else own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._detector, name)


def edited(classifier: Classifier, edit: Callable[[Classifier, int], Classifier]) -> Classifier:
    """A classifier after an edit; of several heads each after its own. `edit` gets one and its number."""
    if not isinstance(classifier, PerHead):
        return edit(classifier, 0)
    classifier.heads = nn.ModuleList(edit(one, k) for k, one in enumerate(classifier.every))
    return classifier


def _rows(taps: Taps, mine: Tensor) -> Taps:
    return taps.each(lambda value: value[mine])
