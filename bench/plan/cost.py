"""Seconds, bytes and memory of a stage, before it is run. Separate from the plan because it all measures and guesses.

What is measured comes first: stages of the plan that are done, then stages of the same shape anywhere in the store (a
short probe run teaches a long one, since a shape leaves out the length), then what the suite's preset declares, times
how much longer the plan's finished trainings took than declared, since that was another machine. A stage that was made
in one pass with others has recorded what the pass cost all of them and what it cost for itself.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench.data.formats import Reckoned, reckoned
from bench.detection.taps import tap_width
from bench.engines.contract import EngineFacts
from bench.engines.facts import detector_of, facts
from bench.engines.sections import DetectorSection
from bench.errors import UserError
from bench.key import canonical, digest
from bench.lineage import Finished, read_stage, trains_classifier_only, trunk_of
from bench.stage import KINDS, WHOLE, Stage, length_of
from bench.store.disk import read_json
from bench.suite.sections import Cost

MB = 1e6
FLOAT = 4  # bytes
DIVIDE_SECONDS = 0.25  # one side of 1,000 images; 0.5 s of 1,783 glyphs, 16 to 24 s of a set of LVIS v1's size
VIEW_SHARE = 0.65  # of a training step, that a view adds at most (benchmarks/README.md, pre-training)
PATCH_SECONDS = 0.1  # loading a checkpoint and writing its last layer; tests/end_to_end measure 0.03 s
ENOUGH = 3  # stages of one shape that are looked for in the rest of the store
LONG = 60.0  # declared seconds of finished trainings, below which starting up hides how fast a machine is
_BOX_BYTES = 4 * FLOAT + 4 + FLOAT + 4  # box, label, score, image
_EVALUATE_BYTES = 60_000  # result.json at 80 classes
_NO_CLASSES = 80  # of photographs that nobody has read yet


class Measured(Protocol):
    """What is asked of a store to learn from all of it; bench.store.store.Store is one."""

    def done(self, key: str) -> Finished | None: ...
    def keys(self) -> list[str]: ...
    def load(self, key: str) -> dict[str, Any]: ...
    def output(self, key: str) -> Path: ...


def share_of_pass(done: Finished) -> float:
    """Seconds of a stage; of a pass that made several, its share of what was done once, and what was its own."""
    shared = float(done.extra.get("shared_seconds", done.seconds)) / max(1.0, float(done.extra.get("fused", 1)))
    return shared + float(done.extra.get("own_seconds", 0.0))


@dataclass
class Sum:
    """Measurements of one shape, added up, so that long runs weigh more than a probe."""

    shared: float = 0.0  # seconds of what one pass does once
    own: float = 0.0  # seconds of what it does for each stage
    length: float = 0.0
    bytes: float = 0.0
    count: int = 0


@dataclass(frozen=True)
class Peak:
    """Most memory at one time, 10^6 bytes: of a job's process, and of what torch has on its card."""

    host: float = 0.0
    gpu: float = 0.0

    def __or__(self, other: Peak) -> Peak:
        return Peak(max(self.host, other.host), max(self.gpu, other.gpu))


@dataclass
class Estimate:
    """Seconds and bytes of stages, from what was measured, else from what is declared.

    Attributes:
        cost: the suite's declared cost.
        images: images of each data stage that is done, by key.
        classes: their classes.
    """

    cost: Cost
    images: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    times: dict[str, Sum] = field(default_factory=lambda: defaultdict(Sum))
    sizes: dict[str, Sum] = field(default_factory=lambda: defaultdict(Sum))
    peaks: dict[str, Peak] = field(default_factory=dict)
    trained: float = 0.0  # seconds that finished trainings took
    expected: float = 0.0  # seconds that are declared for them
    _seconds: dict[str, tuple[float, float] | None] = field(default_factory=dict)  # by key, once asked for

    def learn(self, stage: Stage, done: Finished) -> None:
        """Note what a finished stage took, and how large it is."""
        self._seconds.clear()
        shared, own = float(done.extra.get("shared_seconds", done.seconds)), float(done.extra.get("own_seconds", 0.0))
        part = float(done.extra.get("part", 1.0))
        for shape, length in self.lengths(stage):
            into = self.times[shape]
            into.shared += shared
            into.own += own
            into.length += length * part
            into.count += 1
            self.peaks[shape] = self.peaks.get(shape, Peak()) | _peak(done)
        if stage.kind == "train" and (declared := self._declared(stage)):
            self.trained += shared + own
            self.expected += declared * part
        into = self.sizes[_content(stage)]
        into.bytes += sum(done.sizes.values())
        into.count += 1

    @property
    def pace(self) -> float:
        """Seconds that this store's machine takes for one that is declared; 1 where too little was trained."""
        return self.trained / self.expected if self.expected >= LONG else 1.0

    def knows(self, stage: Stage) -> bool:
        """Whether a stage of this shape was measured."""
        return any(self.times[shape].count for shape, _ in self.lengths(stage) if shape in self.times)

    def __call__(self, stage: Stage) -> float | None:
        """Seconds of a stage by itself; None where nothing is known."""
        return self.unit([stage])

    def unit(self, stages: Sequence[Stage]) -> float | None:
        """Seconds of stages that one pass makes: the longest of what is done once, and what each adds."""
        parts = [self._known(stage) for stage in stages]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        return max(shared for shared, _ in known) + sum(own for _, own in known)

    def megabytes(self, stage: Stage) -> float | None:
        """What a stage takes on the disk, in 10^6 bytes; None where nothing is known."""
        seen = self.sizes.get(_content(stage))
        if seen is not None:
            return seen.bytes / seen.count / MB
        value = self._bytes(stage)
        return None if value is None else value / MB

    def peak(self, stage: Stage) -> Peak | None:
        """Most memory that a stage takes, as its shape was measured, else as declared; None where neither is known."""
        seen = [self.peaks[shape] for shape, _ in self.lengths(stage) if shape in self.peaks]
        if seen and any(peak.host for peak in seen):
            return functools.reduce(Peak.__or__, seen)
        host, gpu = self.cost.host_mb, self.cost.gpu_mb
        return None if host is None and gpu is None else Peak(host or 0.0, gpu or 0.0)

    def _known(self, stage: Stage) -> tuple[float, float] | None:
        """`_parts`, reckoned once for each stage: a plan of thousands asks for each many times."""
        if stage.key not in self._seconds:
            self._seconds[stage.key] = self._parts(stage)
        return self._seconds[stage.key]

    def _parts(self, stage: Stage) -> tuple[float, float] | None:
        """(seconds that a pass spends once, seconds for this stage)."""
        # No features are kept yet: the time is that of the pass of a prediction of this trunk over its images.
        instead = [(_shape(stage, kind="predict"), 1.0)] if KINDS[stage.kind].cache else []
        for shape, length in [*self.lengths(stage), *instead]:
            seen = self.times.get(shape)
            if seen is not None and seen.length:
                return seen.shared / seen.length * length, seen.own / seen.length * length
        declared = self._declared(stage)
        return None if declared is None else (declared * self.pace, 0.0)

    def shapes(self, stage: Stage) -> set[str]:
        """What this stage could be learnt from. Once the images are counted a step tells what an epoch takes, so a
        training in epochs has the shape of its steps too."""
        found = {shape for shape, _ in self.lengths(stage)}
        return found | {_shape(stage, "step")} if "schedule" in stage.spec else found

    def lengths(self, stage: Stage) -> list[tuple[str, float]]:
        """Shape and length under it. A training in epochs has two where its images are counted: a step costs the
        same, though a sampler that repeats images has more of them."""
        if "schedule" not in stage.spec:
            return [(_shape(stage), 1.0)]
        if stage.spec["schedule"]["steps"] is not None:
            return [(_shape(stage, "step"), float(length_of(stage)))]
        found = [(_shape(stage, "epoch"), float(length_of(stage)))]
        steps = self._steps(stage)
        return found if steps is None else [*found, (_shape(stage, "step"), steps)]

    def _steps(self, stage: Stage) -> float | None:
        schedule, images = stage.spec["schedule"], self._images(stage.inputs["train"])
        if schedule["steps"] is not None:
            return float(length_of(stage))
        train = stage.inputs["train"]
        counted = train.key in self.images or _whole(train).key in self.images
        return length_of(stage) * images / schedule["batch"] if counted and images is not None else None

    def _declared(self, stage: Stage) -> float | None:
        """Seconds by what the suite declares; None where it declares nothing for the kind."""
        by_kind: dict[str, Callable[[Stage], float | None]] = {
            "data": self._declared_data,
            "train": self._declared_train,
            "fit": self._declared_fit,
            "patch": lambda _: PATCH_SECONDS,
            "features": lambda features: self._declared_val(features, self.cost.predict),
            "predict": lambda predict: self._declared_val(predict, self.cost.predict),
            "evaluate": lambda evaluate: self._declared_val(evaluate, self.cost.evaluate),
        }
        return by_kind[stage.kind](stage) if stage.kind in by_kind else None

    def _declared_data(self, data: Stage) -> float | None:
        """Nearly all of both splits are the images to train on."""
        images = self._images(data.inputs[WHOLE]) if WHOLE in data.inputs else None
        if images is not None:
            return DIVIDE_SECONDS * images / 1000.0
        return None if self.cost.data is None else self.cost.data * (0.9 if data.spec["split"] == "train" else 0.1)

    def _declared_train(self, train: Stage) -> float | None:
        rate = self.cost.classifier_step if trains_classifier_only(train) else self.cost.train_step
        steps = self._steps(train)
        passes = 1 + VIEW_SHARE * len(train.spec.get("views", ()))
        return None if rate is None or steps is None else rate * steps * passes

    def _declared_val(self, stage: Stage, seconds: float | None) -> float | None:
        """In proportion to the images of val, where both numbers are known."""
        images, measured = self._images(stage.inputs["val"]), self.cost.val_images
        return seconds if seconds is None or not images or not measured else seconds * images / measured

    def _declared_fit(self, fit: Stage) -> float | None:
        """Every image once through the trunk, as in steps over a frozen one."""
        images, rate = self._images(fit.inputs["data"]), self.cost.classifier_step
        batch = trunk_of(fit.inputs["model"]).spec["schedule"]["batch"]
        return None if images is None or rate is None else rate * images / batch

    def _images(self, data: Stage) -> float | None:
        """Images of a data stage: counted where it is done, else reckoned from its settings; of a part of another, its
        share of them."""
        if data.key in self.images:
            return float(self.images[data.key])
        if WHOLE in data.inputs:
            images = self._images(data.inputs[WHOLE])
            return None if images is None else images * _share(data)
        expected = _reckoned(data)
        return None if expected is None else expected.images

    def _classes(self, data: Stage) -> int:
        expected = _reckoned(data)
        counted = self.classes.get(data.key) or self.classes.get(_whole(data).key)
        return counted or (_NO_CLASSES if expected is None else expected.classes)

    def _bytes(self, stage: Stage) -> float | None:
        """Reckoned from settings; None where they do not tell."""
        by_kind: dict[str, Callable[[Stage], float | None]] = {
            "data": self._bytes_of_images,
            "train": self._bytes_of_training,
            "fit": lambda fit: self._weights(fit.inputs["model"], classifier=True),
            "patch": self._weights,
            "features": self._bytes_of_taps,
            "predict": self._bytes_of_detections,
            "evaluate": lambda _: _EVALUATE_BYTES,
        }
        return by_kind[stage.kind](stage) if stage.kind in by_kind else None

    def _bytes_of_images(self, data: Stage) -> float | None:
        images, expected = self._images(data), _reckoned(data)
        return None if images is None or expected is None else images * expected.image_bytes

    def _bytes_of_taps(self, features: Stage) -> float | None:
        """Of each proposal its box, its refined boxes, its taps and its image."""
        images = self._images(features.inputs["val"])
        engine, detector = _engine(trunk_of(features.inputs["model"]))
        proposals, boxes = engine.proposals(detector, self._classes(features.inputs["val"]))
        widths = engine.head_widths(detector)
        values = 4 + 4 * boxes + sum(tap_width(name, *widths) for name in features.spec["taps"])
        return None if images is None else images * proposals * float(FLOAT * values + 8)

    def _bytes_of_detections(self, predict: Stage) -> float | None:
        images = self._images(predict.inputs["val"])
        engine, detector = _engine(trunk_of(predict.inputs["model"]))
        proposals, _ = engine.proposals(detector, self._classes(predict.inputs["val"]))
        test = predict.spec["test"]
        kept = float(test.get("stored") or test["max_detections"])
        return None if images is None else images * (kept * _BOX_BYTES + proposals * (4 * FLOAT + 4 + 4))

    def _bytes_of_training(self, train: Stage) -> float:
        """Weights; a rung keeps the momentum of each beside it."""
        return self._weights(train) * (2 if "until" in train.spec else 1)

    def _weights(self, stage: Stage, classifier: bool = False) -> float:
        """Of what a stage stores: the classifier, and the trunk where it is trained."""
        trunk = trunk_of(stage)
        engine, detector = _engine(trunk)
        classes, (width, _) = self._classes(trunk.inputs["train"]), engine.head_widths(detector)
        last = engine.heads(detector) * (classes + 1) * (width + 1)
        if classifier or stage is not trunk:
            return float(FLOAT * last)
        return float(FLOAT * (engine.parameters(detector, classes) + last))


def learned(stages: Iterable[Stage], cost: Cost, store: Measured) -> Estimate:
    """An estimate from the finished ones of these stages; of shapes that none of them shows, from all of the store."""
    planned = list(stages)
    estimate = Estimate(cost)
    finished = {stage: done for stage in planned if (done := store.done(stage.key)) is not None}
    for stage in finished:
        if stage.kind == "data":
            _count(stage.key, estimate, store)
    for stage, done in finished.items():
        estimate.learn(stage, done)
    unknown = {
        shape for s in planned if s not in finished and not estimate.knows(s) for shape, _ in estimate.lengths(s)
    }
    if unknown:
        _learn_all(estimate, store, unknown, {stage.key for stage in finished})
    return estimate


def _whole(data: Stage) -> Stage:
    """The data stage that this one is a part of, or itself."""
    return data.inputs.get(WHOLE, data)


def _reckoned(data: Stage) -> Reckoned | None:
    """What a data stage's settings tell; of a part of another, what they tell of the whole."""
    return reckoned(data.spec["data"], _whole(data).spec["split"])


def _peak(done: Finished) -> Peak:
    """What a stage has recorded; zero for one of before that was."""
    host, gpu = (done.extra.get(name) for name in ("host_mb", "gpu_mb"))
    return Peak(*(float(x) if isinstance(x, int | float) and 0 <= x < math.inf else 0.0 for x in (host, gpu)))


def _share(part: Stage) -> float:
    fraction = float(part.spec["fraction"])
    return fraction if part.spec["split"] == "tune" else 1.0 - fraction


def _count(key: str, estimate: Estimate, store: Measured) -> None:
    counts = read_json(store.output(key) / "counts.json")
    if not isinstance(counts, dict):
        return
    counts = counts.get("own", counts)  # of a part of a data set: counts["instances"] are those of the whole
    if not isinstance(counts, dict):
        return
    images, instances = counts.get("num_images"), counts.get("instances")
    if type(images) is int and images >= 0 and isinstance(instances, list):  # else it teaches nothing
        estimate.images[key], estimate.classes[key] = images, len(instances)


def _learn_all(estimate: Estimate, store: Measured, wanted: set[str], known: set[str]) -> None:
    """Learn from stages of other suites and of probes that have a wanted shape."""
    stages: dict[str, Stage] = {}
    for key in store.keys():  # noqa: SIM118 (a method, not a mapping)
        if key in known:
            continue
        try:
            stage = read_stage(store.load, key, stages)
            shapes = {shape for shape, _ in estimate.lengths(stage)}
        except (UserError, KeyError):  # rotten, or written by another version: it teaches nothing
            continue
        if shapes & wanted and (done := store.done(key)) is not None:
            estimate.learn(stage, done)
            wanted = wanted - {shape for shape in shapes if estimate.times[shape].count >= ENOUGH}


@functools.lru_cache(maxsize=65536)
def _engine(trunk: Stage) -> tuple[EngineFacts, DetectorSection]:
    """The engine of a train stage, and its detector section."""
    detector = detector_of(trunk.spec)
    return facts(detector.engine), detector


@functools.lru_cache(maxsize=65536)
def _shape(stage: Stage, unit: str = "", kind: str | None = None) -> str:
    """Stages of one shape take equally long for a unit of length. `kind`: as if the stage were of that kind."""
    images = KINDS[stage.kind].images
    shown = None if images is None else _without_seed(stage.inputs[images])
    if "schedule" in stage.spec:
        what: Any = _training_shape(stage, unit)
    elif stage.kind == "data":
        what = _without_seed(stage)
    elif "model" in stage.inputs and shown is not None:
        what = [shown, _trunk_shape(stage)]
    else:
        what = None if shown is None else [shown]
    return digest([kind or stage.kind, what])


def _training_shape(train: Stage, unit: str) -> Any:
    spec = train.spec
    trainable = ["classifier"] if trains_classifier_only(train) else spec["trainable"]
    shape = [spec["detector"], spec["input"], spec["schedule"]["batch"], trainable, spec["engine"], unit]
    # A teacher looks at every batch too; what a loss leaves out (a weight of 0) is not computed.
    beside = [[loss["part"], _left_out(loss)] for loss in map(canonical, spec.get("losses", ()))]
    return [*shape, beside, spec.get("detection", True)] if beside else shape


def _left_out(part: Mapping[str, Any]) -> list[str]:
    return sorted(name for name, value in part["settings"].items() if value in (None, 0))


def _without_seed(data: Stage) -> Any:
    return {k: v for k, v in data.spec.items() if k != "seed"}


def _trunk_shape(stage: Stage) -> Any:
    """What the cost of showing a image depends on."""
    trunk = trunk_of(stage.inputs["model"]).spec
    return [trunk["detector"], trunk["engine"], stage.spec["input"]]


@functools.lru_cache(maxsize=65536)
def _content(stage: Stage) -> str:
    """Stages of one content are equally large."""
    by_kind: dict[str, Callable[[Stage], Any]] = {
        "train": lambda train: [
            train.spec["detector"], _without_seed(train.inputs["train"]), trains_classifier_only(train),
            list(train.spec["trainable"]), "until" in train.spec,
        ],
        "features": lambda features: features.spec["taps"],
        "fit": lambda fit: fit.spec["fit"],
    }  # fmt: skip
    what = by_kind[stage.kind](stage) if stage.kind in by_kind else None
    return digest([stage.kind if stage.kind in ("train", "patch") else _shape(stage), what])
