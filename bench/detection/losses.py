"""Losses beside those of trunk and classifier: a teacher to imitate, features to contrast. Separate from contract.py,
whose classifiers need none of it.

A loss gets one `Step`: the student, the batch, and whatever it asks of either or of a teacher. Everything it asks for
is computed once, whoever asks. Shape legend: B images, N RoIs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Generator, Tensor, nn

from bench.detection.contract import Batch, Context, Detector, HeadSpec, PredictOutput, Taps, TrainOutput

__all__ = ["ExtraLoss", "Losses", "Step"]


@dataclass
class Losses:
    """What a loss returns.

    Attributes:
        values: scalars by name. No name may be one of the trunk's, of the classifier's or of another loss.
        counts: for each name the number (of images, of RoIs) that it was divided by; 0 where there was nothing. Several
            processes share a batch, and each value is rescaled by it to the number of all. None: the value is that of
            the whole batch already, made from what `Step.whole` returned, the same in all processes.
        shown: what is no loss and yet is to be seen over the steps (a distance, a spread): curves "shown/NAME";
            of several processes the first one's.
    """

    values: dict[str, Tensor]
    counts: Mapping[str, int | None]
    shown: Mapping[str, Tensor] = field(default_factory=dict)


class Step(Protocol):
    """One training step as a loss sees it; of several processes, this one's images.

    A model is the student (None) or one that a setting of the loss handed over. What the student computes has a
    gradient where that part of it is trained; what another model computes has none.

    Attributes:
        student: the detector that is trained.
        context: step, progress, draws of this process, and the sum over processes.
        first: number of this process's first image in the batch of all.
    """

    student: Detector
    context: Context

    @property
    def first(self) -> int: ...

    def generator(self, role: str, image: int) -> Generator:
        """A CPU generator for what is drawn for one image (its position in this process's batch): the same however many
        processes there are, and for each time that it is asked for."""
        ...

    def batch(self, view: int = 0) -> Batch:
        """The images and true boxes. View 0 is what the detector is trained on; view k shows the same images, as the
        training's `views` say, or augmented by draws of their own."""
        ...

    def carried(self, boxes: Sequence[Tensor], view: int) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes of view 0 (per image n x 4, pixels) in another view, cut to it, and the share n of each one's area that
        is in it."""
        ...

    def last(self, model: Detector | None = None, view: int = 0) -> Tensor:
        """The last map of the backbone (C5 of a ResNet), below the pyramid: B x channels x H x W."""
        ...

    def maps(self, model: Detector | None = None, view: int = 0) -> Mapping[str, Tensor]:
        """The feature maps of the pyramid by level, finest first: B x channels x H x W over the padded batch."""
        ...

    def rois(self, model: Detector | None = None, view: int = 0) -> TrainOutput:
        """The RoIs that are sampled for training, with their boxes, taps and targets. Another model's come from its own
        proposals; they have no trunk losses."""
        ...

    def proposals(self, model: Detector | None = None, view: int = 0) -> PredictOutput:
        """All proposals as at test time, without gradient."""
        ...

    def taps(
        self, boxes: Sequence[Tensor], model: Detector | None = None, view: int = 0, names: Sequence[str] = ()
    ) -> Taps:
        """Taps at given boxes (per image n x 4, pixels of the resized image), in their order."""
        ...

    def whole(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in the order of the batch; gradients flow to this one's. Every process computes
        the same from them. All must call it."""
        ...


class ExtraLoss(nn.Module):
    """A loss beside those of trunk and classifier. Subclasses live in methods/parts/; made as `kind(head, **settings)`.

    A setting that is a model's stage arrives as that model: frozen, in eval mode, on the device. What goes on through
    training (an average of the weights, a queue, a projection) is the loss's own parameters and buffers: these are in
    checkpoints, and never in the finished model. A setting `teacher_train_mode` that is true puts the models that it
    got into train mode, as released code does that never calls eval(): dropout draws, and a batch norm that is not
    frozen uses the batch's statistics; its own stay as they are.

    Attributes:
        views: how many views it looks at beside view 0: these are made ahead, as view 0 is.
    """

    views: int = 0
    teacher_train_mode: bool = False

    def __init__(self, head: HeadSpec) -> None:
        super().__init__()
        self.head = head

    def begin(self, student: Detector) -> None:
        """Once, before the first step and before a checkpoint is read; for what is made from the student (a copy)."""

    @abstractmethod
    def loss(self, step: Step) -> Losses:
        """Of one step."""

    def updated(self, student: Detector, context: Context) -> None:
        """After the optimiser's step: an average of the weights, a queue. No gradient is recorded."""

    def examples(self, step: Step) -> dict[str, Tensor]:
        """Once, after the last step: what is stored beside the weights to look at, by name.

        Args:
            step: the images of the last one. The student and this module are in eval mode, and no gradient is recorded.
                Of several processes the first one alone asks, with its own images: `Step.whole` cannot be called.
        """
        return {}
