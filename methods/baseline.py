"""The softmax baseline and its two controls: more training, and the classifier trained again."""

from __future__ import annotations

from typing import ClassVar

from bench.method import Builder, Method
from bench.stage import Stage


class Baseline(Method):
    """Softmax cross-entropy over C + 1 classes; the reference of every comparison.

    Source: Li et al. 2020 (BAGS), Table 1 row 1.
    """

    name: ClassVar[str] = "baseline"

    def plan(self, b: Builder) -> Stage:
        return b.train()


class TwoSchedules(Method):
    """The baseline trained for the whole schedule once more (rate back to the start): the control for "more training".

    Source: Li et al. 2020 (BAGS), Table 1 row 2.
    """

    name: ClassVar[str] = "x2"

    def plan(self, b: Builder) -> Stage:
        return b.train(init=b.train(), keep_classifier=True, schedule="base")


class ClassifierRetrain(Method):
    """The plain softmax classifier trained again on the frozen trunk: what every classifier-only method must beat.

    Source: not in the papers; cRT of Kang et al. 2020 is its class-balanced sibling.
    """

    name: ClassVar[str] = "cls_retrain"
    keep_classifier: bool = True

    def plan(self, b: Builder) -> Stage:
        return b.train(init=b.train(), keep_classifier=self.keep_classifier, trainable=("classifier",))
