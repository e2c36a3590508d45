"""One evaluation as a typed value, with the protocol of its numbers. Separate because jobs write it and reports read
it, perhaps years and versions apart; it needs no torch and no pandas.

`Result` is what an `evaluate` stage stores. It is deterministic and does not contain suite or row, since two suites
may share a stage. `Record` is a result in its row: label, suite, seed, method, settings, and what ran where.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from bench.errors import UserError, parsed

SCHEMA_VERSION = 3  # raise it when a field is added, removed or changes its meaning
READABLE = (1, 2, 3)  # 1 lacks what Protocol lists as recorded since 2; 2 is 3 without `counted_images`


def metric_names(num_bins: int = 4) -> tuple[str, ...]:
    """The metrics of a record in the order of a table, for a number of instance bins."""
    bins = range(1, num_bins + 1)
    ap = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", *(f"AP{i}" for i in bins))
    return (*ap, "ACC", *(f"ACC{i}" for i in bins), "ACCbg")


METRICS = metric_names()


def format_metric(value: float | None) -> str:
    """One decimal; "-" for what is missing, never 0."""
    return "-" if value is None or math.isnan(value) else f"{value:.1f}"


def points(fractions: Mapping[str, float | None]) -> dict[str, float | None]:
    """Fractions as points (x 100), a missing one (None, NaN) as None."""
    return {name: None if v is None or math.isnan(v) else 100.0 * v for name, v in fractions.items()}


Negatives = Literal["listed", "exhaustive", "none listed"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Protocol(_Section):
    """The conditions of the numbers. Rows that differ here are footnoted.

    Attributes:
        data: name of the data set; train_digest, val_digest: fingerprints of the two splits.
        train_images, val_images, classes: their sizes.
        split: what was evaluated: "val", or "tune", the part of the training images that a search tunes on.
        engine, engine_version, trunk: the detector.
        initialisation: what the first training began from: a weight file or "random".
        reinitialised: parameters that did not come from the initial model of a stage.
        steps, batch: of each training stage by name, in order; batch is the TOTAL number of images per step.
        precision: float32 or bfloat16.
        evaluator, evaluator_version: the code that computed AP.
        max_detections: per image, over all classes. score_threshold: strictly above. nms: IoU, per class.
        bins: edges on training instances.
        Recorded since schema 2, else None:
        negatives: how classes were known to be absent from an image of val: "listed", "exhaustive", or "none listed":
            then false positives of classes that an image does not show are not counted.
        image_px: shortest and longest side that images are resized to.
        anchors: sizes of the anchors by level, pixels of the resized image.
        lr: of each training stage by name.
        settings: digest over all settings of detector, input, inference and the first training: tables that agree here
            differ in nothing but their methods and data.
        counted_images: images of the full training set, where `train_images` are a part of it: bins and the counts that
            classifiers use are those of all of them. None: `train_images` are all; it is then not written.
    """

    data: str
    train_digest: str
    val_digest: str
    train_images: int
    val_images: int
    classes: int
    split: str
    engine: str
    engine_version: str
    trunk: str
    initialisation: str
    reinitialised: tuple[str, ...]
    steps: dict[str, int]
    batch: dict[str, int]
    precision: str
    evaluator: str
    evaluator_version: str
    max_detections: int
    score_threshold: float
    nms: float
    bins: tuple[int, ...]
    negatives: Negatives | None = None
    image_px: tuple[int, ...] | None = None
    anchors: tuple[tuple[float, ...], ...] | None = None
    lr: dict[str, float] | None = None
    settings: str | None = None
    counted_images: int | None = None

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As before schema 3 where nothing of it is used: the bytes of a result do not change by a new version."""
        value: dict[str, Any] = handler(self)
        if value.get("counted_images") is None:
            value.pop("counted_images", None)
        return value


def _schema(protocol: Protocol | None) -> int:
    return 2 if protocol is None or protocol.counted_images is None else SCHEMA_VERSION


class PerClass(_Section):
    """One entry per class, by ascending category id; AP in points, None without ground truth."""

    category_ids: tuple[int, ...]
    names: tuple[str, ...]
    instance_counts: tuple[int, ...]
    ap: tuple[float | None, ...]
    ap50: tuple[float | None, ...]

    @model_validator(mode="after")
    def _equal_lengths(self) -> PerClass:
        lengths = {name: len(getattr(self, name)) for name in type(self).model_fields}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of different lengths: {lengths}")
        return self


class Result(_Section):
    """The result of one `evaluate` stage.

    Attributes:
        schema_version: of the file it is written to: 2 where the protocol has nothing that came with 3.
        evaluate_key, model_key: the stage itself and the stage whose model it evaluated.
        metrics: name -> points (x 100), or None where there is nothing to measure; in the order of `metric_names`.
        classes_per_bin: classes with ground truth in each instance bin.
        protocol, per_class: see there.
    """

    evaluate_key: str
    model_key: str
    metrics: dict[str, float | None]
    classes_per_bin: tuple[int, ...]
    protocol: Protocol
    per_class: PerClass | None = None
    schema_version: int = Field(default_factory=lambda given: _schema(given.get("protocol")))

    @field_validator("metrics", mode="before")
    @classmethod
    def _nan_is_missing(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in value.items()}
        return value

    @model_validator(mode="after")
    def _known_metrics_in_order(self) -> Result:
        bins = len(self.protocol.bins) + 1
        legal = metric_names(bins)
        strange = sorted(set(self.metrics) - set(legal))
        if strange:
            raise ValueError(f"unknown metrics: {', '.join(strange)}; legal: {', '.join(legal)}")
        if len(self.classes_per_bin) != bins:
            raise ValueError(f"{len(self.classes_per_bin)} counts of classes for {bins} bins")
        ordered = {name: self.metrics[name] for name in legal if name in self.metrics}
        self.metrics.clear()
        self.metrics.update(ordered)
        return self


class Record(Result):
    """A result in its row.

    Attributes:
        row: label in the table. suite: name of the suite. seed: of the row.
        method, settings: the recipe and its settings, in canonical form.
        mark: what the method wants to be said of its rows (bench.method.Method.mark).
        environment: what the stages ran on (`bench.environment.capture`), filled in when a report is made.
    """

    row: str
    suite: str
    seed: int
    method: str
    settings: dict[str, JsonValue]
    environment: dict[str, JsonValue] = {}
    mark: str = ""

    @classmethod
    def of(
        cls,
        result: Result,
        *,
        row: str,
        suite: str,
        seed: int,
        method: str,
        settings: Mapping[str, Any],
        environment: Mapping[str, Any] | None = None,
        mark: str = "",
    ) -> Record:
        """Put a result into its row."""
        fields = {name: getattr(result, name) for name in Result.model_fields}
        return cls(
            **fields, row=row, suite=suite, seed=seed, method=method, settings=dict(settings),
            environment=dict(environment or {}), mark=mark,
        )  # fmt: skip

    @property
    def result(self) -> Result:
        """The result without its row."""
        return Result(**{name: getattr(self, name) for name in Result.model_fields})


R = TypeVar("R", bound=Result)


def dumps(value: Result) -> str:
    """JSON text; equal values give equal text."""
    return json.dumps(value.model_dump(mode="json"), sort_keys=True, indent=1, allow_nan=False) + "\n"


def loads(kind: type[R], text: str | bytes, where: str = "") -> R:
    """The value of `dumps`, strictly: no unknown field, no text for a number.

    Raises:
        UserError: not JSON, another schema, or fields that do not fit.
    """
    try:
        content = parsed(text)
    except ValueError as error:
        raise UserError(f"not a record: {error}", where=where) from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is int and version > SCHEMA_VERSION:
        raise UserError(
            f"written by a newer version: schema {version}, this one reads up to {SCHEMA_VERSION}",
            where=where,
            hint="update this checkout (git pull)",
        )
    if version not in READABLE or type(version) is not int:
        raise UserError(
            f"schema version {version!r} is not readable", where=where, allowed=", ".join(map(str, READABLE)),
            hint="evaluate again",
        )  # fmt: skip
    try:
        return kind.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{field}: {first['msg']}" if field else str(first["msg"]), where=where) from None
