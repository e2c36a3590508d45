"""The Stage value and the kinds there are: the unit of work and of reuse. Separate because all higher levels use
stages.

What planner, jobs and terminal need of a kind is in `KINDS`, one entry per kind; what it computes is in one file of
bench/run. What is in the key of a kind is its spec, typed below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypedDict, TypeVar, cast

from bench.errors import UserError
from bench.key import Part, canonical, digest


@dataclass(frozen=True)
class Kind:
    """The properties of a kind of stage for planner, jobs and terminal.

    Attributes:
        name: of the kind.
        version: raised when the code of the kind changes what it computes; in every key of the kind.
        order: inside a job, among stages that could come next: those that others wait for first.
        rides_with: the input whose job it runs in; None: it has a job of its own.
        job_by: the entry of the spec by which stages without `rides_with` share one job; None: they do not.
        images: the input whose images it reads, on which its time depends; None: it reads no images.
        named_by: the entry of the spec that is displayed as its name; None: the first row that needs it.
        processes: several processes may share it (they train together).
        together: its `run` takes several stages that one pass makes, and returns one outcome per stage.
        direct_only: only stages that have it as an input read it; of other kinds, all stages along their lineage.
        hands: its file of tensors, passed to a part with the stage as a setting; None: it has none.
        torch: its code uses torch, whose threads are set for it.
        cache: no stage has it as an input, and nothing is lost without it.
        module: the file with its `run`; "": bench.run.NAME.
    """

    name: str
    version: int
    order: int
    rides_with: str | None = None
    job_by: str | None = None
    images: str | None = None
    named_by: str | None = None
    processes: bool = False
    together: bool = False
    direct_only: bool = False
    hands: str | None = None
    torch: bool = True
    cache: bool = False
    module: str = ""


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("data", 1, 0, job_by="seed", named_by="split", direct_only=True, torch=False),
        Kind("train", 1, 1, images="train", processes=True, together=True),
        Kind("fit", 1, 2, rides_with="model", images="data", hands="fit.safetensors"),
        Kind("patch", 1, 3, rides_with="model"),
        Kind("features", 1, 4, rides_with="model", images="val", cache=True),
        Kind("predict", 1, 5, rides_with="model", images="val", together=True),
        Kind("evaluate", 1, 6, rides_with="predict", images="val", torch=False),
    )
}

MODELS = ("train", "patch")  # kinds whose result is a detector


# -- what is in the key of each kind, beside its version and the keys of its inputs


WHOLE = "whole"  # the input of a data stage that is one side of another's images


class _DataMay(TypedDict, total=False):  # not NotRequired: under `from __future__ import annotations` it is not seen
    seed: int  # where it is drawn
    fingerprint: str  # where it is read: annotations, names and byte sizes of the images
    fraction: float  # of the images of `whole` that are in `tune`
    division_seed: int


class DataSpec(_DataMay):
    """Inputs: none; of `rest` and `tune`: whole, the training images that they are the two sides of."""

    data: Mapping[str, Any]  # of the data section, what this split depends on
    split: Literal["train", "val", "rest", "tune"]
    reader: int  # VERSION of the code that reads, makes or divides it


class _TrainMay(TypedDict, total=False):
    scope: Mapping[str, int]  # see bench.spec.Machine
    until: int  # of a rung: the length at which it stops, in the unit of its schedule
    losses: list[Part | Mapping[str, Any]]  # beside those of trunk and classifier
    detection: bool | str  # False: without those of trunk and classifier; "trunk": without the classifier's
    views: list[Part | Mapping[str, Any]]  # how views 1, 2, ... are made for `losses`
    take: list[str]  # groups below the classifier that are from init; absent: all
    start: list[str]  # groups that are from input `start`, a model of this engine or another


class TrainSpec(_TrainMay):
    """Inputs: train; init, where it starts from another model; and those that settings of its parts name: of losses,
    these may be models."""

    engine: Mapping[str, Any]  # name, version
    detector: Mapping[str, Any]  # the section without `engine` and `weights`
    weights: str | None  # sha256 of the weights file; None with init
    input: Mapping[str, Any]
    augment: int  # VERSION
    precision: str
    bins: list[int]
    classifier: Part | Mapping[str, Any]
    sampler: Part | Mapping[str, Any]
    annotations: Part | Mapping[str, Any] | None
    trainable: list[str]
    keep_classifier: bool | None
    seed: int
    phase: int  # number of trainings before this one in its chain of init
    schedule: Mapping[str, Any]


class FitSpec(TypedDict):
    """Inputs: model, data, and those that settings of the part name."""

    fit: Part | Mapping[str, Any]
    input: Mapping[str, Any]
    precision: str
    augment: int  # VERSION
    batch: int


class PatchSpec(TypedDict):
    """Inputs: model, train, and those that settings of its parts name: of `patch`, these may be models."""

    patch: Part | Mapping[str, Any] | None  # None: the classifier is put around that of `model`
    classifier: Part | Mapping[str, Any]
    phase: int


class FeaturesSpec(TypedDict):
    """Inputs: model (the trunk), val."""

    input: Mapping[str, Any]
    precision: str
    augment: int  # VERSION
    batch: int
    taps: list[str]


class PredictSpec(TypedDict):
    """Inputs: model, val."""

    test: Mapping[str, Any]  # the section without `bins`
    input: Mapping[str, Any]
    precision: str
    augment: int  # VERSION
    postprocess: int  # VERSION


class EvaluateSpec(TypedDict):
    """Inputs: predict, val, and train, for its counts."""

    max_detections: int
    bins: list[int]
    evaluator: int  # VERSION


@dataclass(frozen=True, eq=False)
class Stage:
    """What is computed, from what. Two stages with equal keys are the same stage.

    Attributes:
        kind: a name of `KINDS`.
        spec: all settings that can change its result, JSON-like (parts, numbers, strings, lists, dicts).
        inputs: name -> the stage whose outputs it reads.
        not_in_key: what a job needs and the result does not depend on (paths; how often a checkpoint is written; rungs
            that it may continue from).
    """

    kind: str
    spec: Mapping[str, Any]
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    not_in_key: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """sha256 (hex) of kind, its version, spec and the keys of the inputs."""
        return digest(
            {
                "kind": self.kind,
                "version": KINDS[self.kind].version,
                "spec": self.spec,
                "inputs": {name: stage.key for name, stage in self.inputs.items()},
            }
        )

    def to_json(self) -> dict[str, Any]:
        """What `stage.json` holds: enough for a job to execute the stage from its key alone."""
        return {
            "key": self.key,
            "kind": self.kind,
            "version": KINDS[self.kind].version,
            "spec": canonical(self.spec),
            "inputs": {name: stage.key for name, stage in self.inputs.items()},
            "aside": canonical(self.not_in_key),  # its name in all stores so far
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)


Spec = TypeVar("Spec")


def spec_of(stage: Stage, kind: type[Spec]) -> Spec:
    """The spec of a stage under its type: `spec_of(stage, TrainSpec)["schedule"]`.

    Raises:
        UserError: it lacks an entry, i.e. another version of the code wrote it.
    """
    required: frozenset[str] = getattr(kind, "__required_keys__", frozenset())
    if lacking := sorted(required - stage.spec.keys()):
        raise UserError(
            f"the stage has no entry '{lacking[0]}'", where=f"{stage.kind} stage {stage.key[:6]}",
            hint="another version of this code wrote it: use that version, or another --store",
        )  # fmt: skip
    return cast(Spec, stage.spec)


def walk(*roots: Stage) -> Iterator[Stage]:
    """Every unique stage below the roots, inputs before consumers."""
    found: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.key in found:
            return
        for source in stage.inputs.values():
            visit(source)
        found[stage.key] = stage

    for root in roots:
        visit(root)
    yield from found.values()


# -- rungs: a training that stops early, and continues exactly in a longer one


def length_of(train: Stage) -> int:
    """How long a train stage trains, in steps, or in epochs where its schedule is in epochs; of a rung: until it stops.

    The rates follow the whole schedule either way.
    """
    schedule = train.spec["schedule"]
    whole = schedule["epochs"] if schedule["steps"] is None else schedule["steps"]
    return int(train.spec.get("until", whole))


def rung(train: Stage, until: int) -> Stage:
    """The same training, stopped early; a longer one continues from it exactly.

    Args:
        train: a train stage, or a longer rung of it.
        until: the length at which it stops, in steps, or in epochs where the schedule is in epochs.

    Raises:
        ValueError: the training is no longer than that, or it would do nothing.
    """
    _check_rung(train, until)
    shorter = [other for other in train.not_in_key.get("rungs", ()) if other < until]
    return with_rungs(replace(train, spec={**train.spec, "until": until}), shorter)


def with_rungs(train: Stage, untils: Sequence[int]) -> Stage:
    """The same stage; its job continues from the longest of these rungs that is done.

    The result has the same bits whether it did or began at step 0, so they are not in the key.

    Raises:
        ValueError: one is no rung of this training.
    """
    for until in untils:
        _check_rung(train, until)
    kept = {name: value for name, value in train.not_in_key.items() if name != "rungs"}
    return replace(train, not_in_key=kept | ({"rungs": sorted(set(untils))} if untils else {}))


def _check_rung(train: Stage, until: int) -> None:
    length = length_of(train)
    if not 0 < until < length:
        unit = "epochs" if train.spec["schedule"]["steps"] is None else "steps"
        raise ValueError(f"no rung of a training of {length} {unit} ends after {until}: only after 1 to {length - 1}")
