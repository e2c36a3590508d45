"""The seam between methods and engines. Separate because it is the only thing the two sides share.

A method touches a detector in one place: features -> logits -> loss and scores. Each engine is adapted to it once.

Shape legend: B images, N RoIs of the whole batch, D box-head features, K raw outputs of a classifier, C foreground
classes. Background is LAST (index C) everywhere outside the engine files.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bench.detection.taps import TAPS, Taps
from bench.errors import UserError
from bench.key import resolve

__all__ = [
    "TAPS", "Batch", "BatchGeometry", "Classifier", "Context", "Detections", "Detector", "Draws", "FitPart",
    "HeadSpec", "LabelledRois", "Maps", "PredictOutput", "Taps", "Targets", "TrainOutput", "build_classifier",
    "identity_all_reduce",
]  # fmt: skip


@dataclass(frozen=True)
class HeadSpec:
    """What a classifier may use of its head and of the data.

    Attributes:
        num_classes: C, foreground classes.
        features: D, width of `Taps.box_features`.
        roi_shape: (channels, height, width) of `Taps.roi_map`.
        instance_counts: training instances of each class in the FULL training set, length C.
        image_counts: training images of each class in the full set, length C.
        num_images: images of the full training set.
        stage_instance_counts: the same on the data this stage trains on (after its data part).
        stage_image_counts: as above, images.
        bins: edges on instance counts, e.g. (10, 100, 1000).
        init_std: standard deviation of new classifier weights.
    """

    num_classes: int
    features: int
    roi_shape: tuple[int, int, int]
    instance_counts: tuple[int, ...]
    image_counts: tuple[int, ...]
    num_images: int
    stage_instance_counts: tuple[int, ...]
    stage_image_counts: tuple[int, ...]
    bins: tuple[int, ...] = (10, 100, 1000)
    init_std: float = 0.01


@dataclass
class Targets:
    """Labels of the sampled RoIs; no padding inside.

    Attributes:
        labels_N: int64, class of each RoI, C = background.
        image_N: int64, which image of the batch each RoI belongs to.
        present: classes with ground truth, per image (int64 tensors).
        negative: classes known to be absent, per image.
        taps: the taps the logits were made from.
    """

    labels_N: Tensor
    image_N: Tensor
    present: Sequence[Tensor]
    negative: Sequence[Tensor]
    taps: Taps


def identity_all_reduce(value: Tensor) -> Tensor:
    """The all-reduce of a single process."""
    return value


@dataclass
class Context:
    """What a loss may use of the training: step, progress in [0, 1], draws and the all-reduce (a sum).

    A loss gets the RoIs of the whole step, also where several processes train, and `all_reduce` returns its argument;
    only under `machine.scope: device` it gets those of its own process, and `all_reduce` sums over processes.
    """

    step: int
    progress: float
    generator: torch.Generator
    all_reduce: Callable[[Tensor], Tensor] = identity_all_reduce


class Classifier(nn.Module):
    """Features to class scores, with its own loss. Subclasses live in methods/parts/.

    `inputs` names the taps it reads. A wrapper, a classifier that holds another as `self.inner`, takes a keyword-only
    setting `inner` (a part) and builds it with `build_classifier`.
    """

    inputs: tuple[str, ...] = ("box_features",)

    def __init__(self, head: HeadSpec) -> None:
        super().__init__()
        self.head = head

    @abstractmethod
    def forward(self, taps: Taps) -> Tensor:
        """Raw outputs z_NK; K may differ from C + 1."""

    @abstractmethod
    def loss(self, z_NK: Tensor, targets: Targets, context: Context) -> dict[str, Tensor]:
        """Named scalar losses; the engine adds them to its own."""

    @abstractmethod
    def scores(self, z_NK: Tensor) -> tuple[Tensor, Tensor | None]:
        """(p_NC in [0, 1], p_bg_N or None); with None the proposal accuracy of the row is "-"."""

    def class_logits(self, z_NK: Tensor) -> Tensor:
        """z_NC: the softmax of them over any of the foreground classes says how these compare. log p_NC, unless the raw
        outputs hold one logit per class."""
        p_NC = self.scores(z_NK)[0]
        return p_NC.clamp(min=torch.finfo(p_NC.dtype).tiny).log()

    def class_weights(self) -> Tensor | None:
        """W_KD: a row for each class and, where there is one, the background last; or None (weight norms, tau-norm)."""
        return None

    def groups(self) -> dict[str, list[str]]:
        """Its own parameter names by group; `{"classifier": all}` unless a subclass divides them."""
        return {"classifier": [name for name, _ in self.named_parameters()]}

    def load_from(self, other: Classifier) -> list[str]:
        """Copy what fits from the classifier of an init stage; return the names that were re-initialised."""
        theirs = other.state_dict()
        fresh = []
        with torch.no_grad():
            for name, value in self.state_dict().items():
                if name in theirs and theirs[name].shape == value.shape and type(other) is type(self):
                    value.copy_(theirs[name])
                else:
                    fresh.append(name)
        return fresh

    def wrap(self, other: Classifier) -> None:
        """Of a wrapper: take over the classifier of the model that it is put around, once, when it is put there."""
        inner = getattr(self, "inner", None)
        if not isinstance(inner, Classifier):
            raise UserError(
                f"{type(self).__name__} holds no other classifier", where="Builder.wrap",
                allowed="a classifier that builds `self.inner` from its setting `inner`",
            )  # fmt: skip
        inner.load_state_dict(other.state_dict())


def build_classifier(part: Mapping[str, Any], head: HeadSpec, inputs: Mapping[str, Any] | None = None) -> Classifier:
    """The classifier that a part's JSON form names; `inputs`: what stands for its settings that are stages' results.

    New weights come from torch's default generator, which the caller seeds.
    """
    kind, settings = resolve(part, inputs)
    classifier = kind(head, **settings)
    assert isinstance(classifier, Classifier)
    return classifier


@dataclass
class LabelledRois:
    """What a fit part gets of one batch: N RoIs of a trained model, without augmentation.

    Attributes:
        taps: of the RoIs; those that `FitPart.inputs` names are there.
        labels_N: int64, class of each RoI, 0..C-1.
        image_N: int64, position of its image in the split.
        box_N: int64, row of its true box among the annotations of that image.
        boxes_N4: the RoIs, x1 y1 x2 y2 as fractions of the image's width and height.
        classifier: the model's, in eval mode.
        whole: the images, where `FitPart.inputs` names "last"; else None.
    """

    taps: Taps
    labels_N: Tensor
    image_N: Tensor
    box_N: Tensor
    boxes_N4: Tensor
    classifier: Classifier
    whole: WholeImages | None = None


@dataclass
class WholeImages:
    """The images of a batch, and what a backbone makes of them.

    Attributes:
        batch: without augmentation.
        last: the backbone's last map, below the pyramid: B x channels x H x W over the padded batch.
    """

    batch: Batch
    last: Tensor


class FitPart(Protocol):
    """What streams over a split and keeps only its result (class means, statistics of logits, scores of exemplars).

    Made as `kind(head, **settings)`.

    Attributes:
        inputs: names of the taps it reads, and "last", the backbone's last map (of an engine that provides "body").
        rois: "gt": the true boxes; "matched": of each true box what the engine's training would have answer for it
            (the box itself, or the query that it is matched with); "proposals": the test proposals that match a true
            box at IoU >= 0.5.
    """

    inputs: tuple[str, ...]
    rois: str

    def update(self, seen: LabelledRois) -> None:
        """Take one batch in; batches come in a fixed order."""
        ...

    def result(self) -> dict[str, Tensor]:
        """What is stored, by name."""
        ...


@dataclass
class Batch:
    """Images and ground truth of one step, already resized and augmented.

    Attributes:
        images: B x 3 x H x W float32, normalised, zero-padded to a common size.
        sizes: (height, width) of each image inside the padding.
        boxes: per image n x 4 float32 x1 y1 x2 y2 in pixels of the resized image.
        labels: per image int64 n, classes 0..C-1.
        ignore: per image bool n; RPN and RoI sampling leave what overlaps such a box out.
        negative: per image, classes known to be absent.
        image_index: position of each image in its split.
        scale: per image (sy, sx): resized / original.
        original_sizes: per image (height, width) of the file.
        placed: per image (ax, bx, ay, by): x here = ax * x in the file + bx, and y likewise.
    """

    images: Tensor
    sizes: list[tuple[int, int]]
    boxes: list[Tensor]
    labels: list[Tensor]
    ignore: list[Tensor]
    negative: list[Tensor]
    image_index: list[int]
    scale: list[tuple[float, float]]
    original_sizes: list[tuple[int, int]]
    placed: list[tuple[float, float, float, float]] = field(default_factory=list)

    def to(self, device: torch.device | str) -> Batch:
        """On a device; from page-locked memory without waiting for the copy."""
        return self._each(lambda value: value.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """In page-locked memory, where there is a GPU."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        def all_of(values: list[Tensor]) -> list[Tensor]:
            return [change(value) for value in values]

        return Batch(
            change(self.images), self.sizes, all_of(self.boxes), all_of(self.labels), all_of(self.ignore),
            all_of(self.negative), self.image_index, self.scale, self.original_sizes, self.placed,
        )  # fmt: skip


@dataclass(frozen=True)
class Draws:
    """Where the draws of one step come from: `generator(role, index)` for image `index` of a batch whose first
    image is number `first` of the global batch. `view`: of another view of the same images."""

    seed: int
    phase: int
    step: int
    first: int = 0
    view: int = 0

    def generator(self, role: str, index: int = 0) -> torch.Generator:
        """A CPU generator for this address (bench.seeds.address)."""
        from bench.seeds import address

        role = f"{role}/{self.view}" if self.view else role
        return torch.Generator().manual_seed(address(self.seed, role, self.phase, self.step, self.first + index))


@dataclass
class TrainOutput:
    """What a trunk returns in training: its own losses (empty without `trunk_losses`), taps and targets of the RoIs.

    `counts`: for each loss the number (of anchors, of RoIs) that it was divided by, 0 where there was nothing. Where
    several processes share a batch, the losses are rescaled by it to the number of all.
    `boxes`: the RoIs themselves, per image n x 4, pixels of the resized image: in the order of taps and targets.
    `pending`: of an engine that assigns, what `Detector.assign` needs; the targets are all background until then.
    """

    losses: dict[str, Tensor]
    taps: Taps
    targets: Targets
    counts: dict[str, int] = field(default_factory=dict)
    boxes: Sequence[Tensor] = ()
    pending: object = None


@dataclass
class PredictOutput:
    """What a trunk returns at test time for one batch.

    Attributes:
        taps: of all proposals of the batch, N rows.
        proposals_N4: the proposals themselves, pixels of the resized image.
        boxes: refined boxes, N x 4 (class-agnostic) or N x C x 4.
        image_N: image of each row.
    """

    taps: Taps
    proposals_N4: Tensor
    boxes: Tensor
    image_N: Tensor


@dataclass(frozen=True)
class BatchGeometry:
    """Where the images of a batch lie: see the fields of the same names of `Batch`."""

    sizes: list[tuple[int, int]]
    scale: list[tuple[float, float]]
    image_index: list[int]


@dataclass
class Detections:
    """Final boxes of a set of images in ORIGINAL pixels, sorted by (image, score descending).

    image: int32 n, position in the split; boxes: float32 n x 4 x1 y1 x2 y2; scores: float32 n; labels: int32 n, 0..C-1.
    """

    image: Tensor
    boxes: Tensor
    scores: Tensor
    labels: Tensor


Maps = Mapping[str, Tensor]  # feature maps of the pyramid by level: B x channels x H x W


class Detector(Protocol):
    """An engine's model behind the seam: an nn.Module with these. Parameter names start with their group.

    Groups: those that the engine's facts list (bench.engines.facts); "classifier" is one of them.
    """

    classifier: Classifier
    fresh: list[str]  # names that a weights file left as initialised

    def body(self, images: Tensor) -> Mapping[str, Tensor]:
        """The backbone's own maps by name, finest first, of B x 3 x H x W images."""
        ...

    @property
    def last(self) -> tuple[int, int]:
        """(channels, pixels per cell) of the last of them."""
        ...

    def maps(self, images: Tensor, body: Maps | None = None) -> Mapping[str, Tensor]:
        """The feature maps of the pyramid by level, finest first, of B x 3 x H x W images.

        `body`: those of the images, where they are known already.
        """
        ...

    def train_forward(
        self, batch: Batch, draws: Draws, *, trunk_losses: bool, taps: Sequence[str] = (), maps: Maps | None = None
    ) -> TrainOutput:
        """Trunk forward with sampled RoIs; RPN and box losses only if `trunk_losses`. Classifier not called.

        `taps`: names wanted beside those of `classifier.inputs`. `maps`: those of the batch's images, where they are
        known already; so below.
        """
        ...

    def assign(self, out: TrainOutput, scores: Callable[[], Tensor]) -> TrainOutput:
        """What `train_forward` gave, with targets and losses that depend on what a classifier says.

        An engine whose targets do not returns `out` itself.

        Args:
            out: of this process's images.
            scores: computes p_NC of its rows by the classifier that is trained, without gradient.
        """
        ...

    def predict_forward(self, batch: Batch, *, taps: Sequence[str] = (), maps: Maps | None = None) -> PredictOutput:
        """All test proposals with their taps and refined boxes, without gradient. Classifier not called."""
        ...

    def box_taps(
        self, batch: Batch, boxes: Sequence[Tensor], *, taps: Sequence[str] = (), maps: Maps | None = None
    ) -> Taps:
        """Taps at given boxes (per image n x 4, pixels of the resized image), in their order."""
        ...

    def matched_taps(
        self,
        batch: Batch,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        *,
        taps: Sequence[str] = (),
        maps: Maps | None = None,
    ) -> Taps:
        """Taps of what would answer for given true boxes in training (see `FitPart.rois`), in their order."""
        ...

    def group_of(self, name: str) -> str:
        """The group of a parameter or buffer name of the state dict."""
        ...

    def set_mode(self, trainable: Sequence[str]) -> None:
        """requires_grad for the named groups (empty: all that the config does not freeze); the rest in eval mode."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> object: ...

    def to(self, device: str) -> object: ...

    def eval(self) -> object: ...
