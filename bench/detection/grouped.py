"""Parameter groups of a detector, and what of it stays as it is. Separate from the engines, whose detectors share it: a
detector's modules are called as its groups, and its parameter names begin with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from torch import nn

from bench.detection.contract import Classifier
from bench.errors import unknown

CLASSIFIER = "classifier"


class Grouped(nn.Module):
    """`group_of`, `set_mode` and `train` of bench.detection.contract.Detector.

    Attributes:
        GROUPS: of the engine.
        fresh: names a weights file left as initialised; all names without one.
    """

    GROUPS: ClassVar[tuple[str, ...]]

    classifier: Classifier
    fresh: list[str]

    def settle(self, frozen: Sequence[nn.Module]) -> None:
        """To be called once all modules are there: `frozen` stay as they are, all others learn."""
        self._frozen = list(frozen)
        still = {id(p) for module in self._frozen for p in module.parameters()}
        # By name, which a copy of the model keeps; a classifier may bring parameters that are fixed already.
        self._fixed = {name for name, p in self.named_parameters() if id(p) in still or not p.requires_grad}
        self._trainable: tuple[str, ...] = ()
        self.fresh = list(self.state_dict())
        self.set_mode(())

    def group_of(self, name: str) -> str:
        """The group of a parameter or buffer of the state dict; a classifier may divide its own."""
        first, _, rest = name.partition(".")
        if first not in self.GROUPS:
            raise unknown("parameter group", first, self.GROUPS, where=name)
        if first == CLASSIFIER:
            return next((group for group, names in self.classifier.groups().items() if rest in names), first)
        return first

    def set_mode(self, trainable: Sequence[str]) -> None:
        """Gradients for the named groups only (none named: all); the rest, and what is frozen, stay in eval mode.

        Raises:
            UserError: a name that is no group.
        """
        legal = {*self.GROUPS, *self.classifier.groups()}
        for group in trainable:
            if group not in legal:
                raise unknown("parameter group", group, legal, where="trainable")
        self._trainable = tuple(trainable)
        for name, parameter in self.named_parameters():
            wanted = not trainable or self.group_of(name) in trainable
            parameter.requires_grad_(wanted and name not in self._fixed)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As nn.Module.train, but what is not trained stays in eval mode whoever calls this."""
        super().train(mode)
        if mode:
            own = set(self.classifier.groups())
            for group in (name for name in self.GROUPS if hasattr(self, name)):
                wanted = not self._trainable or group in self._trainable
                if not wanted and not (group == CLASSIFIER and own & set(self._trainable)):
                    getattr(self, group).eval()
            for module in self._frozen:
                module.eval()
        return self
