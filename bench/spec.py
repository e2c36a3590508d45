"""The typed sections of a suite. Separate from suite.py (which reads YAML) because engines, data and runs use them too.

Every field is a setting a user may write in a suite or preset; a value that changes a result is in the key, with its
default filled in, so that omitting a default and writing it are the same experiment. `Section` documents which fields
are in a key, and how a field is added without moving the keys of stored results. No torch here.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from bench.key import same_in_key

# Every number has a bound, far above what anybody wants: a mistyped one is refused by its name, not by memory or by
# what overflows. Infinite numbers are refused by `Section`.
LARGE = 1_000_000_000
Positive = Annotated[int, Field(ge=1, le=LARGE)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, le=1e30)]  # float32 ends at 3e38
Amount = Annotated[float, Field(ge=0.0, le=1e30)]
Size = Annotated[int, Field(ge=1, le=100_000)]  # pixels; channels; what a head draws per image
Processes = Annotated[int, Field(ge=1, le=4096)]
AnySeed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
MOST_SEEDS = 1000  # of a suite
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
        """Refuse names in LATER and NOT_IN_KEY that are no fields.

        Raises:
            TypeError: no such field, or a field of LATER without a default.
        """
        super().__pydantic_init_subclass__(**kwargs)
        for listed in ("LATER", "NOT_IN_KEY"):
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
    seed: AnySeed | Literal["follow"] = "follow"  # "follow": the seed of the row


class GlyphsData(GeneratedData):
    """The embedded data set: symbols of the DejaVu fonts on cluttered ground, with LVIS-like class counts."""

    name: Literal["glyphs"] = "glyphs"
    classes: Annotated[int, Field(ge=4, le=1203)] = 80
    size: Annotated[int, Field(ge=64, le=640)] = 128  # pixels, square images
    objects: Annotated[float, Field(ge=3, le=60)] = 13  # mean instances per image (Poisson)
    object_px: tuple[Size, Size] = (10, 34)  # shortest and longest long side of a symbol
    max_instances: Positive = 1600  # of the most frequent class
    val_instances: Positive = 20  # of every class (a flat val set estimates all bins equally well)
    profile: Literal["long_tail", "flat"] = "long_tail"  # flat: as many instances in all, the same for every class
    similarity: Fraction = 0.93  # two classes' templates correlate at most this much
    masks: bool = True  # write RLE masks into the annotations


class FolderData(Section):
    """Photographs with annotations in a folder; `name` is their format, see bench/data/formats.py."""

    LATER = frozenset({"exif"})
    # A data stage has a fingerprint of what they name; what `negatives` allows is in the protocol of the result.
    NOT_IN_KEY = frozenset({"path", "train", "val", "images", "negatives"})

    name: str
    path: Text
    train: Text = "annotations/train.json"
    val: Text = "annotations/val.json"
    images: Text | dict[Literal["train", "val"], Text] = (
        "images"  # folder of the images, below path; or {train: , val: }
    )
    exif: Literal["ignore", "apply"] = "ignore"  # apply: images turned as viewers show them, for boxes drawn on these
    # optional: goes on where no image of val lists the classes that are absent from it (LVIS form): AP is then too high
    negatives: Literal["required", "optional"] = "required"

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

    min_size: Size = 128  # short side after the keep-ratio resize, pixels
    max_size: Size = 128  # long side at most
    pad_multiple: Size = 32
    mean: tuple[Colour, Colour, Colour] = (0.485, 0.456, 0.406)  # RGB on [0, 1], torchvision
    std: tuple[Rate, Rate, Rate] = (0.229, 0.224, 0.225)
    flip: Fraction = 0.5  # probability of a horizontal flip
    channel_permutation: bool = False
    invert: Fraction = 0.0  # probability of colour inversion
    scale_jitter: tuple[Rate, Rate] = (1.0, 1.0)  # factor on min_size, drawn uniformly per image


class Rpn(Section):
    """Region proposal network. methods.md 0.3 and 24."""

    levels: Levels = ("0", "1", "2", "3", "pool")  # feature maps it runs on
    anchor_sizes: Annotated[tuple[Few[Size], ...], Field(max_length=16)] = (
        (32,),
        (64,),
        (128,),
        (256,),
        (512,),
    )  # per level, pixels
    anchor_ratios: Few[Rate] = (0.5, 1.0, 2.0)
    fg_iou: Fraction = 0.7
    bg_iou: Fraction = 0.3
    samples: Size = 256  # anchors per image in the loss
    positive_fraction: Fraction = 0.5
    pre_nms_train: Size = 2000
    pre_nms_test: Size = 1000
    post_nms_train: Size = 2000
    post_nms_test: Size = 1000
    nms: Fraction = 0.7
    min_size: Amount = 1e-3  # pixels
    beta: Amount = 1 / 9  # smooth-L1


class Roi(Section):
    """RoI pooling, sampling and box head. methods.md 0.3 and 24."""

    levels: Levels = ("0", "1", "2", "3")
    pool: Annotated[int, Field(ge=1, le=256)] = 7
    sampling_ratio: Annotated[int, Field(ge=-1, le=256)] = 2
    aligned: bool = False  # torchvision's MultiScaleRoIAlign is not
    width: Size = 1024  # of the two FC layers
    samples: Size = 512  # RoIs per image in the loss
    positive_fraction: Fraction = 0.25
    fg_iou: Fraction = 0.5
    class_agnostic: bool = False  # box regression
    beta: Amount = 1.0  # smooth-L1
    box_weights: tuple[Rate, Rate, Rate, Rate] = (10.0, 10.0, 5.0, 5.0)
    clamp_targets: Rate | None = None  # |target| at most this


class DetectorSection(Section):
    """Engine, trunk and heads."""

    NOT_IN_KEY = frozenset({"engine", "weights"})  # a stage has the engine with its version, the digest of the weights

    engine: str = "torchvision"
    trunk: str = "resnet50_fpn"
    widths: Few[Size] = (24, 48, 96, 128)  # of trunk "small": strides 2, 4, 8, 16
    fpn_channels: Size = 256
    norm: Literal["batch", "frozen", "group"] = "frozen"  # frozen: FrozenBatchNorm2d with eps 1e-5 on every rebuild
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = (
        2  # stem conv + residual stages that stay fixed (2: stem, layer1)
    )
    weights: Text | None = None  # file with an ImageNet backbone or a whole torchvision detector
    classifier_std: Rate = 0.01  # W ~ N(0, std^2), b = 0
    rpn: Rpn = Rpn()
    roi: Roi = Roi()


class Inference(Section):
    """Post-processing and evaluation protocol."""

    NOT_IN_KEY = frozenset({"bins"})  # not used in prediction: train and evaluate stages have them in their specs

    score_threshold: Amount = 1e-4
    nms: Fraction = 0.5  # per class
    max_detections: Size = 300  # per image
    batch: Size = 16  # images per forward pass, cut by index
    bins: Edges = (10, 100, 1000)  # edges on training instances


class Schedule(Section):
    """One optimiser schedule (SGD)."""

    NOT_IN_KEY = frozenset({"checkpoint_every"})  # where a checkpoint is written changes no result

    steps: Positive | None = 900
    epochs: Positive | None = None  # instead of steps: epochs of the stage's own sampler (RFS epochs are longer)
    batch: Size = 16  # TOTAL images per step
    lr: Rate = 0.02
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: Amount = 1e-4
    warmup: Annotated[int, Field(ge=0, le=LARGE)] = 500
    warmup_from: Fraction = 1 / 3  # first factor of the linear warm-up
    decay: Literal["cosine", "steps", "none"] = "steps"
    drops: Few[Fraction] = (8 / 12, 11 / 12)  # "steps": lr x 0.1 after these fractions of the schedule
    clip: Rate | None = 35.0  # global gradient norm
    checkpoint_every: Positive = 100  # steps; not in the key

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


class Figure(Section):
    """A figure that a report draws beside the table.

    bins: AP by instance bin; norms: ||W_j|| over classes sorted by instances; bars: one group per metric, one bar per
    row; sweep: metrics over a setting of the rows.
    """

    kind: Literal["bins", "norms", "bars", "sweep"]
    x: Text | None = None  # sweep: the setting on the axis, e.g. beta or schedule.lr
    by: Names = ()  # sweep: one line for each value of this setting, or of "method"; a list: for each combination
    metrics: Few[Text] = ("AP", "AP1", "AP2", "AP3", "AP4")
    rows: tuple[str, ...] = ()  # labels; none named: all
    title: Title | None = None

    @model_validator(mode="after")
    def _a_sweep_is_over_a_setting(self) -> Figure:
        if (self.kind == "sweep") != (self.x is not None):
            raise ValueError("x is the setting that a sweep is over: give it with kind: sweep, and only there")
        return self


class Machine(Section):
    """How a job uses the machine. In the record, not in the key except where noted.

    workers: threads of each process that make batches before they are needed (training, fit, features, predict), with
    the same result. `auto`: where files are decoded for a GPU, 4, or one fewer than the process has cores if that is
    less; else 0, since on a CPU they would compete with the training for cores. `input.workers` means the same.

    scope: `global`: where several processes train, a classifier's loss sees the RoIs of all, so that the result is that
    of one process. `device`: those of its own process alone, averaged over processes, as in the papers' code.
    """

    NOT_IN_KEY = frozenset({"threads", "workers", "device", "channels_last", "tasks", "scope", "features_mb"})

    threads: Processes = 1  # per process on a CPU
    workers: Annotated[int, Field(ge=0, le=4096)] | Literal["auto"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"  # this one IS in the key: it changes results
    channels_last: bool = False
    tasks: Processes = 1  # processes of one training job, each with a share of the batch (one per GPU)
    scope: Literal["global", "device"] = "global"  # what a classifier's loss sees; `device` IS in the key, with tasks
    features_mb: Annotated[int, Field(ge=0, le=LARGE)] = 512  # most that one cache of val features may take on the disk

    def in_key(self, *, without: Collection[str] = ()) -> dict[str, Any]:
        """Losses of each process alone depend on how many there are; losses of all do not."""
        alone = self.scope == "device" and self.tasks > 1
        return super().in_key(without=without) | ({"scope": {"device": self.tasks}} if alone else {})
