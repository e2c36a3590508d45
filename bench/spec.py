"""The typed sections of a suite. Separate from suite.py (which reads YAML) because engines, data and runs use them too.

Every field is a setting a user may write in a suite or preset; a value that changes a result is in the key, with its
default filled in, so that omitting a default and writing it are the same experiment. `Section` documents which fields
are in a key, and how a field is added without moving the keys of stored results. The text under a field is what users
read of it: in `bench settings`, docs/settings.md, and in editors, from the JSON schema. No torch here.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from bench.key import same_in_key

# Every number has a bound, far above what anybody wants: a mistyped one is refused by its name, not by memory or by
# what overflows. Infinite numbers are refused by `Section`.
LARGE = 1_000_000_000
Positive = Annotated[int, Field(ge=1, le=LARGE)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Rate = Annotated[float, Field(gt=0.0, le=1e30)]  # float32 ends at 3e38
Amount = Annotated[float, Field(ge=0.0, le=1e30)]
Size = Annotated[int, Field(ge=1, le=100_000)]  # pixels; channels; what a head draws per image
Processes = Annotated[int, Field(ge=1, le=4096)]
AnySeed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
MOST_SEEDS = 1000  # of a suite
LOSSES = "losses"  # the parameter group of what losses beside the classifier's learn
Colour = Annotated[float, Field(ge=-1e6, le=1e6)]
Text = Annotated[str, Field(max_length=4096)]  # a path is no longer
Item = TypeVar("Item")
Few = Annotated[tuple[Item, ...], Field(max_length=64)]
Levels = Annotated[tuple[Text, ...], Field(max_length=16)]  # of feature maps
Title = Annotated[str, Field(max_length=500)]


def _ascending(edges: tuple[int, ...]) -> tuple[int, ...]:
    if any(a >= b for a, b in pairwise(edges)):
        raise ValueError("must ascend, e.g. [10, 100, 1000]")
    return edges


Edges = Annotated[
    tuple[Positive, ...], Field(max_length=50), AfterValidator(_ascending)
]  # between bins of instance counts


class Section(BaseModel):
    """A frozen section whose unknown keys are refused.

    LATER: fields added after stores were filled. Such a field is in a key only where it is not its default, so that the
        keys of results that were made before it stay what they are. Where a stage's spec lacks it, a job uses the
        default (`model_validate` fills it in); therefore that default may never change.
    NOT_IN_KEY: fields that change no result, or that a stage has in its key under another name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    LATER: ClassVar[frozenset[str]] = frozenset()
    NOT_IN_KEY: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """LATER and NOT_IN_KEY hold those of the classes above, too. Refuse names in them that are no fields.

        Raises:
            TypeError: no such field, or a field of LATER without a default.
        """
        super().__pydantic_init_subclass__(**kwargs)
        for listed in ("LATER", "NOT_IN_KEY"):
            above = (vars(one).get(listed, ()) for one in cls.__mro__)
            setattr(cls, listed, frozenset(name for names in above for name in names))
            for name in sorted(getattr(cls, listed) - set(cls.model_fields)):
                raise TypeError(f"{cls.__name__}.{listed} names '{name}', which is no field of it")
        for name in sorted(cls.LATER):
            if cls.model_fields[name].is_required():
                raise TypeError(f"{cls.__name__}.LATER names '{name}', which has no default to leave out of a key")

    def in_key(self, *, without: Collection[str] = ()) -> dict[str, Any]:
        """The fields in the key of a stage; `without`: more fields that this stage's result does not depend on."""
        dropped = {*self.NOT_IN_KEY, *without, *(name for name in self.LATER if self._is_default(name))}
        return {name: _in_key(getattr(self, name)) for name in type(self).model_fields if name not in dropped}

    def _is_default(self, name: str) -> bool:
        default = type(self).model_fields[name].get_default(call_default_factory=True)
        return same_in_key(getattr(self, name), default)


def _in_key(value: Any) -> Any:
    """A field's value as it is in a key: sections in it, at any depth, without the fields that are not."""
    if isinstance(value, Section):
        return value.in_key()
    if isinstance(value, dict):
        return {name: _in_key(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_in_key(inner) for inner in value]
    return value.model_dump() if isinstance(value, BaseModel) else value


class GeneratedData(Section):
    """Images that are made, from settings and a seed."""

    NOT_IN_KEY = frozenset({"seed"})  # a data stage has the resulting seed

    name: str
    """The data set: glyphs, or a format of photographs in a folder."""
    seed: AnySeed | Literal["follow"] = "follow"
    """Of the images; `follow`: the seed of the row."""


class GlyphsData(GeneratedData):
    """The embedded data set: symbols of the DejaVu fonts on cluttered ground, with LVIS-like class counts."""

    name: Literal["glyphs"] = "glyphs"
    """The data set: glyphs, or a format of photographs in a folder."""
    classes: Annotated[int, Field(ge=4, le=1203)] = 80
    """Number of classes."""
    size: Annotated[int, Field(ge=64, le=640)] = 128
    """Side of the square images, pixels."""
    objects: Annotated[float, Field(ge=3, le=60)] = 13
    """Mean number of instances in an image (Poisson)."""
    object_px: tuple[Size, Size] = (10, 34)
    """Shortest and longest long side of a symbol, pixels."""
    max_instances: Positive = 1600
    """Training instances of the most frequent class."""
    val_instances: Positive = 20
    """Val instances of every class: a flat val set estimates all bins equally well."""
    profile: Literal["long_tail", "flat"] = "long_tail"
    """How training instances fall over classes; `flat`: as many in all, the same for every class."""
    similarity: Fraction = 0.93
    """Two classes' symbols correlate at most this much."""
    masks: bool = True
    """Whether the annotations hold run-length masks."""


class FolderData(Section):
    """Photographs with annotations in a folder; `name` is their format, see bench/data/formats.py."""

    LATER = frozenset({"exif"})
    # A data stage has a fingerprint of what they name; what `negatives` allows is in the protocol of the result.
    NOT_IN_KEY = frozenset({"path", "train", "val", "images", "negatives"})

    name: str
    """The format of the annotations: lvis, or coco, where every object of every class has its box."""
    path: Text
    """The folder."""
    train: Text = "annotations/train.json"
    """Training annotations, below path."""
    val: Text = "annotations/val.json"
    """Validation annotations, below path."""
    images: Text | dict[Literal["train", "val"], Text] = "images"
    """Folder of the images, below path; or one for each split, {train: train2017, val: val2017}."""
    exif: Literal["ignore", "apply"] = "ignore"
    """`apply`: images turned as viewers show them, for boxes that were drawn on these."""
    negatives: Literal["required", "optional"] = "required"
    """`optional`: go on where no val image lists the classes that are absent from it; AP is then too high."""

    @model_validator(mode="after")
    def _both_splits(self) -> FolderData:
        if isinstance(self.images, dict) and set(self.images) != {"train", "val"}:
            raise ValueError(
                "images: a folder, or one for train and one for val, e.g. {train: train2017, val: val2017}"
            )
        return self


class Input(Section):
    """From image to network input; flip and the colour operations are augmentation (training only)."""

    AUGMENTATION: ClassVar[frozenset[str]] = frozenset({"flip", "channel_permutation", "invert", "scale_jitter"})

    min_size: Size = 128
    """The short side after the resize, which keeps the ratio of the sides; pixels."""
    max_size: Size = 128
    """The long side is at most this after the resize, pixels."""
    pad_multiple: Size = 32
    """A batch is padded to a multiple of this, pixels."""
    mean: tuple[Colour, Colour, Colour] = (0.485, 0.456, 0.406)
    """Subtracted from red, green and blue on [0, 1]; the default is torchvision's."""
    std: tuple[Rate, Rate, Rate] = (0.229, 0.224, 0.225)
    """Red, green and blue are divided by it after that."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    channel_permutation: bool = False
    """Whether the colour channels are shuffled, image by image."""
    invert: Fraction = 0.0
    """Probability that colours are inverted."""
    scale_jitter: tuple[Rate, Rate] = (1.0, 1.0)
    """Least and largest factor on min_size, drawn uniformly for each image."""


class Inference(Section):
    """Post-processing and evaluation protocol."""

    LATER = frozenset({"stored"})
    NOT_IN_KEY = frozenset({"bins"})  # not used in prediction: train and evaluate stages have them in their specs

    score_threshold: Amount = 1e-4
    """Detections with a lower score are dropped."""
    nms: Fraction = 0.5
    """IoU from which NMS drops the lower-scored detection of the same class."""
    max_detections: Size = 300
    """Detections per image, the highest scores of all classes."""
    stored: Size | None = None
    """Detections per image that are kept, where these should be more: AP counts the best max_detections of them, and
    AP-fixed and AP-pool (docs/reading-results.md) all; null: as many as max_detections."""
    batch: Size = 16
    """Images per forward pass."""
    bins: Edges = (10, 100, 1000)
    """Edges, in training instances, between the bins of AP1, AP2, ..."""

    @property
    def kept(self) -> int:
        """Detections per image that a prediction has at most."""
        return self.stored or self.max_detections

    @model_validator(mode="after")
    def _what_ap_counts_is_stored(self) -> Inference:
        if self.kept < self.max_detections:
            raise ValueError(f"stored ({self.stored}) is less than max_detections ({self.max_detections})")
        return self


class Rates(Section):
    """What differs for a parameter group, {backbone: {lr: 0.1}}: one of the engine's (the classifier is one), or
    `losses`, what losses beside the classifier's learn."""

    lr: Amount = 1.0
    """Factor on the schedule's rate (Deformable DETR: backbone 0.1)."""
    weight_decay: Amount | None = None
    """In place of the schedule's; null: the schedule's."""


class Schedule(Section):
    """One optimiser schedule."""

    LATER = frozenset({"optimiser", "betas", "groups", "ema"})
    NOT_IN_KEY = frozenset({"checkpoint_every"})  # where a checkpoint is written changes no result

    steps: Positive | None = 900
    """Length in optimiser steps."""
    epochs: Positive | None = None
    """Length in place of steps: epochs of the stage's own sampler (those of RFS are longer)."""
    batch: Size = 16
    """Images of a step, over all processes together."""
    lr: Rate = 0.02
    """Learning rate."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW, whose weight decay is apart from its rate of change."""
    momentum: Fraction = 0.9
    """Of sgd."""
    nesterov: bool = False
    """Of sgd: whether the momentum is Nesterov's."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Of adamw: how slowly the means of the gradient and of its square change."""
    weight_decay: Amount = 1e-4
    """On all parameters that are trained."""
    groups: Annotated[dict[Text, Rates], Field(max_length=64)] = {}
    """What differs for a parameter group."""
    warmup: Annotated[int, Field(ge=0, le=LARGE)] = 500
    """Steps over which the rate rises linearly at the beginning."""
    warmup_from: Fraction = 1 / 3
    """The share of the rate that this begins with."""
    decay: Literal["cosine", "steps", "linear", "none"] = "steps"
    """How the rate falls; `steps`: to a tenth at each of `drops`; `linear`: to 0 from the first of them on."""
    drops: Few[Fraction] = (8 / 12, 11 / 12)
    """With decay `steps`: where the rate falls to a tenth, as shares of the length."""
    ema: Share = 0.0
    """The model that is kept is the mean of the weights over the steps, each step's share falling by this factor
    (0.995) from step to step; 0: the weights of the last step."""
    clip: Rate | None = 35.0
    """The gradient's norm over all parameters is cut to this; null: not at all."""
    checkpoint_every: Positive = 100
    """Steps between checkpoints. Changes no result."""

    def __hash__(self) -> int:
        """Of the fields that can be hashed; a mapping cannot."""
        return hash((self.steps, self.epochs, self.batch, self.lr, self.warmup, self.decay, self.optimiser))

    @model_validator(mode="before")
    @classmethod
    def _epochs_take_the_place_of_default_steps(cls, value: Any) -> Any:
        lone = isinstance(value, dict) and value.get("epochs") and "steps" not in value
        return {**value, "steps": None} if lone else value

    @model_validator(mode="after")
    def _one_length(self) -> Schedule:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        return self


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


# In an editor's schema too, one name may stand for a list of one.
_NAMES = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
Names = Annotated[
    tuple[Text, ...], Field(max_length=64), BeforeValidator(_one_or_more), WithJsonSchema(_NAMES)
]  # loss, or [loss, clip]


FigureKind = Literal[
    "bins", "norms", "bars", "sweep", "counts", "losses", "embeddings", "linear_probe", "attention",
    "reconstructions", "cost", "errors", "ranking", "calibration", "recall", "tradeoff", "classes",
    "confusion", "curves", "gain", "contact_sheet",
]  # fmt: skip
FIGURES: tuple[str, ...] = get_args(FigureKind)
# What the report of a search draws of its trials, beside `curve_SETTING`.
SEARCH_FIGURES = ("history", "slice", "contour", "importance", "pareto", "intermediate")


class Figure(Section):
    """A figure that a report draws beside the table.

    bins: AP by instance bin; norms: ||W_j|| over classes sorted by instances; bars: one group per metric, one bar per
    row; sweep: metrics over a setting of the rows; counts: instances of each class in what each training of a row
    learns from; losses: the losses of a method beside the detector's, over steps; embeddings: alignment and uniformity
    of what a pre-training compares, over steps; linear_probe: by instance bin, how many true boxes of val a linear
    probe of the features tells right after each training of a row (stages of its own, which `plan` shows); attention:
    where the last map of the backbone is large after each training of a row, on the images of val with the rarest
    classes (stages of its own, too); reconstructions: what the decoder of a pre-training paints; cost: minutes and
    memory of the trainings of each row; errors: what each kind of error costs, for all classes and by instance bin;
    ranking: how likely each row is among the best three; calibration: by instance bin, whether scores are the chance to
    be right; recall: by instance bin, what share of the boxes proposals reach and detections find; tradeoff: AP of the
    tail against AP of the head, a point for each row; classes: AP of each class against its training instances;
    confusion: by instance bin, what boxes are taken for; curves: the loss over the steps of a row's trainings; gain:
    what a row gains against the minutes of its trainings; contact_sheet: a dozen val images, the same for every row,
    with their boxes and detections by kind. Any other is a file of figures_path.
    """

    kind: FigureKind | Text
    """What is drawn: one of these, or the name of a file of figures_path, without .py."""
    x: Text | None = None
    """Of a sweep: the setting on the axis, e.g. beta or schedule.lr."""
    by: Names = ()
    """Of a sweep: one line for each value of this setting, or of `method`; a list: for each combination."""
    metrics: Few[Text] = ("AP", "AP1", "AP2", "AP3", "AP4")
    """Columns of the table that are drawn."""
    rows: tuple[str, ...] = ()
    """Labels; none named: all rows."""
    title: Title | None = None
    """Above the figure."""

    @model_validator(mode="after")
    def _a_sweep_is_over_a_setting(self) -> Figure:
        if (self.kind == "sweep") != (self.x is not None):
            raise ValueError("x is the setting that a sweep is over: give it with kind: sweep, and only there")
        return self


class Machine(Section):
    """How a job uses the machine. In the record, not in the key except where noted."""

    NOT_IN_KEY = frozenset({"threads", "workers", "device", "channels_last", "tasks", "scope", "features_mb"})

    threads: Processes = 1
    """Threads of each process on a CPU."""
    workers: Annotated[int, Field(ge=0, le=4096)] | Literal["auto"] = "auto"
    """Threads of each process that make batches before they are needed, with the same result for any number. `auto`:
    where files are decoded for a GPU, 4, or one fewer than the process has cores if that is less; else 0, since on a
    CPU they would compete with the training for cores. `input.workers` means the same."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: a visible GPU, else the CPU."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward pass. It changes results, so it is in the key."""
    channels_last: bool = False
    """Memory format of the images and kernels; quicker on some machines."""
    tasks: Processes = 1
    """Processes of one training job, each with a share of the batch (one per GPU)."""
    scope: Literal["global", "device"] = "global"
    """`global`: where several processes train, a classifier's loss sees the RoIs of all, so that the result is that of
    one process. `device`: those of its own process alone, averaged over processes, as in the papers' code; it is in the
    key then, with tasks."""
    features_mb: Annotated[int, Field(ge=0, le=LARGE)] = 512
    """Most that one cache of val features may take on the disk, MB."""

    def in_key(self, *, without: Collection[str] = ()) -> dict[str, Any]:
        """Losses of each process alone depend on how many there are; losses of all do not."""
        alone = self.scope == "device" and self.tasks > 1
        return super().in_key(without=without) | ({"scope": {"device": self.tasks}} if alone else {})
