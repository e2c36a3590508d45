"""The recipe language: Method, Builder. Separate because a method author needs this file and no other.

A method is a pure recipe: from its settings and a Builder it returns the stage whose model is to be evaluated. It sees
no torch, no disk, no cluster and no engine.
"""

from __future__ import annotations

import functools
import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from bench.errors import UserError, unknown
from bench.key import Fixed, Part, StageRef, methods_of, part
from bench.spec import Schedule
from bench.stage import KINDS, MODELS, Stage, length_of, rung, with_rungs

__all__ = ["Builder", "Method", "Part", "Plannable", "Usual", "part", "planned", "stopped"]

SHUFFLE = "samplers:Shuffle"


class Method(BaseModel):
    """A recipe. Subclass it in a file of methods/; its fields are the settings a suite may write."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"classifier"})  # what the engine must provide
    mark: ClassVar[str] = ""
    """What is said of its rows in every table, figure and record: that it is a reconstruction, say."""
    only_with: ClassVar[Mapping[str, str]] = {}
    """Settings that mean nothing on an engine that lacks a word of CAPABILITIES: {setting: word}."""
    on_few_images: ClassVar[Mapping[str, Any]] = {}
    """Settings for `bench methods check`, where the defaults need more than its 8 classes of 1 to 30 instances."""

    @abstractmethod
    def plan(self, b: Builder) -> Stage:
        """The stage whose model is evaluated."""

    @classmethod
    def source(cls) -> str:
        """The paper or code it comes from: the last paragraph of the docstring that starts with "Source:"."""
        doc = inspect.getdoc(cls) or ""
        return next((line[len("Source:") :].strip() for line in doc.splitlines() if line.startswith("Source:")), "-")

    @classmethod
    def deviations(cls) -> list[str]:
        """The comments marked DEVIATION: in the method's file, without the mark, each on one line."""
        path = inspect.getsourcefile(cls)
        found: list[str] = []
        open_ = False
        for line in Path(path).read_text(encoding="utf-8").splitlines() if path else []:
            comment = line.strip().startswith("#")
            if "DEVIATION:" in line:
                found.append(line.split("DEVIATION:", 1)[1].strip())
            elif open_ and comment:
                found[-1] += f" {line.strip().lstrip('# ')}"
            open_ = comment and (open_ or "DEVIATION:" in line)
        return found


@dataclass(frozen=True)
class Usual:
    """A later stage's schedule as its paper has it beside the base, for a suite whose `stages:` says nothing of it.

    Attributes:
        rate: times the base's learning rate.
        epochs: length in epochs of the stage's own sampler; None: the base's length.
        drops: shares of the length after which the rate falls to a tenth; none: it stays.
        warmup: with the base's warm-up; else without: the weights are trained already.
    """

    rate: float = 1.0
    epochs: int | None = None
    drops: tuple[float, ...] = ()
    warmup: bool = False

    def of(self, base: Schedule) -> Schedule:
        """The schedule for a base."""
        length = {} if self.epochs is None else {"steps": None, "epochs": self.epochs}
        own = {"lr": base.lr * self.rate, "decay": "steps" if self.drops else "none", "drops": self.drops}
        return base.model_copy(update={**length, **own, **({} if self.warmup else {"warmup": 0})})


class Plannable(Protocol):
    """What a Builder needs of a suite; bench.suite.suite.Suite is one."""

    def schedule_named(self, name: str, usual: Usual | None = None) -> Schedule: ...

    def schedule_changed(self, schedule: Schedule, own: Mapping[str, Any]) -> Schedule: ...

    def data_stage(self, split: Literal["train", "val"], seed: int) -> Stage: ...

    def start(self, seed: int) -> tuple[Stage, tuple[str, ...]] | None: ...

    def train_spec(self) -> tuple[dict[str, Any], dict[str, Any]]: ...

    def test_spec(self) -> dict[str, Any]: ...

    @property
    def groups(self) -> tuple[str, ...]: ...

    @property
    def below(self) -> tuple[str, ...]: ...

    @property
    def projector(self) -> tuple[str, ...]: ...

    @property
    def head(self) -> tuple[str, ...]: ...

    @property
    def judges(self) -> tuple[str, ...]: ...

    def classifier(self, wanted: Part | None) -> Part: ...

    def only_classifier(self, trainable: Sequence[str]) -> bool: ...


class Builder:
    """Makes stages for one row and one seed; `b.train()` with no argument is the baseline that rows share.

    `train` trains, `fit` measures, `patch` edits a classifier, `wrap` puts another classifier around it.

    Attributes:
        schedules: names of the schedules that were used; names in `stages:` that no recipe uses are refused.
        untils: where the trainings stop that are to be stopped early, by key.
    """

    def __init__(self, suite: Plannable, seed: int) -> None:
        self._suite = suite
        self._seed = seed
        self.schedules: set[str] = set()
        self.untils: dict[str, int] = {}

    def train(
        self,
        *,
        init: Stage | None = None,
        keep_classifier: bool | None = None,
        classifier: Part | None = None,
        sampler: Part | None = None,
        data: Part | None = None,
        losses: Sequence[Part] = (),
        detection: bool | Literal["trunk"] = True,
        views: Sequence[Part] = (),
        take: Sequence[str] | None = None,
        trainable: Sequence[str] = (),
        schedule: str = "auto",
        usual: Usual | None = None,
        until: int | None = None,
    ) -> Stage:
        """Train a detector.

        Args:
            init: the train or patch stage whose model it starts from; None: the suite's own initialisation.
            keep_classifier: required with `init`: start from its classifier too, or from new weights.
            classifier: the classifier part; default that of the engine (softmax), or that of `init` where it is kept.
            sampler: the sampler part; default every image once per epoch.
            data: a part that maps the training split's annotations to others: fewer images or boxes, boxes to ignore.
            losses: parts beside the losses of trunk and classifier (bench.detection.losses.ExtraLoss). A setting that
                is a train or patch stage arrives as that model, frozen: a teacher.
            detection: False leaves the losses of trunk and classifier out: pre-training by `losses` alone; "trunk"
                those of the classifier.
            views: parts that make views 1, 2, ... of each image for `losses` (bench.data.views.View). View 0 is
                augmented as the suite says.
            take: the parameter groups below the classifier that come from `init`; the others begin as without `init`.
                None: all come from it.
            trainable: parameter groups that are trained; () is all that the detector's settings do not freeze.
            schedule: a name. "base" is `schedule:` of the suite; of any other, `stages: {NAME: ...}` holds the
                changes of that; a recipe may use its own name. "auto" is base without init, classifier_only where
                nothing below the classifier is trained, else second.
            usual: how this schedule differs from the base where the suite's `stages:` does not say.
            until: stop after so many steps (epochs, where the schedule is in epochs), at the rates of the whole
                schedule; a schedule that is no longer is done whole. None: do it whole.

        A part's setting may be a fit stage: it becomes an input, and the part receives the stage's tensors by name.

        Raises:
            UserError: `init` without `keep_classifier`, or the other way round; a group that neither the engine nor
                the classifier has; `until` below 1; no loss at all; views that no loss sees.
        """
        if (init is None) != (keep_classifier is None):
            raise UserError(
                "init= and keep_classifier= go together", hint="say whether the classifier is kept or made anew"
            )
        if classifier is None:
            kept = init.spec.get("classifier") if init is not None and keep_classifier else None
            classifier = kept if isinstance(kept, Part) else self._suite.classifier(None)
        else:
            classifier = self._suite.classifier(classifier)
        inputs = {"train": self.data("train")} | ({"init": init} if init is not None else {})
        spec, aside = self._suite.train_spec()
        _check_groups(trainable, self._suite.groups, classifier)
        if schedule == "auto":
            alone = self._suite.only_classifier(trainable)
            schedule = "base" if init is None else "classifier_only" if alone else "second"
        spec |= {
            "classifier": _bound(classifier, inputs, init),
            "sampler": _bound(sampler or part(SHUFFLE), inputs),
            "annotations": None if data is None else _bound(data, inputs),
            "trainable": list(trainable),
            "keep_classifier": keep_classifier,
            "seed": self._seed,
            "phase": 0 if init is None else 1 + int(init.spec.get("phase", 0)),
        }
        spec |= self._started(init, inputs) | _beside(losses, detection, views, inputs) | self._taken(take, init)
        self.schedules.add(schedule)
        train = _with_schedule(Stage("train", spec, inputs, aside), self._suite.schedule_named(schedule, usual), until)
        if until is not None:
            self.untils[train.key] = until
        return train

    def _started(self, init: Stage | None, inputs: dict[str, Stage]) -> dict[str, Any]:
        """What a spec says of another model that some groups come from; adds it to the inputs."""
        start = self._suite.start(self._seed) if init is None else None
        if start is None:
            return {}
        inputs["start"] = start[0]
        return {"start": list(start[1])}

    def _taken(self, take: Sequence[str] | None, init: Stage | None) -> dict[str, Any]:
        """What a spec says of where the trunk begins."""
        if take is None:
            return {} if init is None else {"weights": None}  # the weights file made the init stage, not this one
        if init is None:
            raise UserError("take= says what comes from init=", hint="name the stage that it is taken from: init=...")
        for name in take:
            if name not in self.below:
                hint = "whether the classifier is taken says keep_classifier="
                raise unknown("parameter group", name, self.below, where="take=", hint=hint)
        return {"take": list(take)}

    def fit(self, what: Part, *, model: Stage, split: Literal["train", "val"] = "train") -> Stage:
        """Stream a trained model over a split, without augmentation, and keep the part's result.

        The stage may be a setting of another part: `part("ncm:NearestMean", means=b.fit(...))`.
        """
        inputs = {"model": model, "data": self.data(split)}
        shown = self._suite.test_spec()
        spec = {name: shown[name] for name in ("input", "precision", "augment")} | {"batch": shown["test"]["batch"]}
        return Stage("fit", {"fit": _bound(what, inputs), **spec}, inputs)

    def patch(self, model: Stage, edit: Part) -> Stage:
        """Edit the classifier of a trained model without training (tau-norm). A setting of the edit that is a train or
        patch stage arrives as that model."""
        inputs = {"model": model, "train": self.data("train")}
        bound = _bound(edit, inputs, models=True)
        return self._patched(model, inputs, bound, _bound(model.spec["classifier"], inputs, model))

    def wrap(self, model: Stage, classifier: Part) -> Stage:
        """Put another classifier around the model's own, which it gets as its setting `inner` (NCM, NorCal)."""
        inputs = {"model": model, "train": self.data("train")}
        inner = _bound(model.spec["classifier"], inputs, model)
        bound = _bound(classifier, inputs)
        return self._patched(model, inputs, None, replace(bound, settings={**bound.settings, "inner": inner}))

    def _patched(self, model: Stage, inputs: dict[str, Stage], edit: Part | None, classifier: Part) -> Stage:
        spec = {"patch": edit, "classifier": classifier, "phase": model.spec.get("phase", 0)}
        return Stage("patch", spec, inputs)

    @property
    def below(self) -> tuple[str, ...]:
        """The engine's parameter groups but for the classifier, in the order of the model."""
        return self._suite.below

    @property
    def projector(self) -> tuple[str, ...]:
        """The parameter groups that bring the backbone's features to the heads: the FPN."""
        return self._suite.projector

    @property
    def head(self) -> tuple[str, ...]:
        """Groups that make the features of RoIs or queries, between the projector and what is said of these."""
        return self._suite.head

    @property
    def judges(self) -> tuple[str, ...]:
        """Groups that say what is there: the classifier, and what must learn with it."""
        return self._suite.judges

    def data(self, split: Literal["train", "val"]) -> Stage:
        """The data stage of a split."""
        return self._suite.data_stage(split, self._seed)


def _beside(
    losses: Sequence[Part], detection: bool | str, views: Sequence[Part], inputs: dict[str, Stage]
) -> dict[str, Any]:
    """What a spec says of losses beside the detector's own; nothing of what is as ever."""
    if not losses and (not detection or views):
        what = "views= are seen by no loss" if views else "detection=False leaves no loss"
        raise UserError(what, hint="name what it is trained by: losses=(part(...),)")
    spec: dict[str, Any] = {}
    if losses:
        spec["losses"] = [_bound(loss, inputs, models=True) for loss in losses]
    if detection is not True:
        spec["detection"] = detection
    if views:
        spec["views"] = [_bound(view, inputs) for view in views]
    return spec


def _with_schedule(train: Stage, schedule: Schedule, until: int | None) -> Stage:
    """Trained by this schedule, and stopped where `until` says, if it gets that far."""
    if until is not None and until < 1:
        raise UserError(f"a training cannot stop after {until}", where="until=", allowed="1 and more")
    aside = {**train.not_in_key, "checkpoint_every": schedule.checkpoint_every}
    spec = {name: value for name, value in train.spec.items() if name != "until"} | {"schedule": _in_key(schedule)}
    whole = replace(train, spec=spec, not_in_key=aside)
    return whole if until is None or until >= length_of(whole) else rung(whole, until)


@functools.lru_cache(maxsize=1024)
def _in_key(schedule: Schedule) -> Fixed:
    return Fixed(schedule.in_key())


def _check_groups(trainable: Sequence[str], groups: Sequence[str], classifier: Part) -> None:
    """Refuse names that are certainly no parameter group: a classifier has none of its own unless its file defines
    `groups`. If it does, the names are checked in the job that trains it."""
    strange = [name for name in trainable if name not in groups]
    if strange and "groups" not in methods_of(classifier.ref):
        raise unknown(
            "parameter group", strange[0], groups, where=f"trainable= beside {classifier.ref}",
            hint="a classifier that divides its parameters defines `groups`, see bench/detection/contract.py",
        )  # fmt: skip


def _bound(what: Part, inputs: dict[str, Stage], before: Stage | None = None, *, models: bool = False) -> Part:
    """The part with every setting that is a stage replaced by the name of an input, which is added to `inputs`.

    `before`: the stage whose classifier this may be, and whose inputs an `StageRef` in its settings names. `models`:
    whether a setting may be a model's stage, beside one whose tensors are handed over.

    Raises:
        UserError: a setting is a stage that cannot be handed over.
    """

    def place(stage: Stage, name: str) -> StageRef:
        if KINDS[stage.kind].hands is None and not (models and stage.kind in MODELS):
            takes = "fit stages, and of losses and patches train and patch stages"
            raise UserError(f"its setting '{name}' is a {stage.kind} stage", where=what.ref, allowed=takes)
        free = (f"{name}{i or ''}" for i in range(len(inputs) + 1))
        chosen = next(n for n in free if n not in inputs or inputs[n] == stage)
        inputs[chosen] = stage
        return StageRef(chosen)

    def bind(value: Any, name: str) -> Any:
        if isinstance(value, Stage):
            return place(value, name)
        if isinstance(value, StageRef):
            assert before is not None, f"{what} refers to an input '{value.name}' of no stage"
            return place(before.inputs[value.name], value.name)
        if isinstance(value, Part):
            return replace(value, settings={k: bind(v, k) for k, v in value.settings.items()})
        return value

    bound = bind(what, "")
    assert isinstance(bound, Part)
    return bound


def planned(
    method: Method,
    suite: Plannable,
    seed: int,
    own: Mapping[str, Any] | None = None,
    *,
    schedules: set[str] | None = None,
) -> Stage:
    """The final stage of a recipe.

    Args:
        method: the recipe with its settings.
        suite: the suite it is planned for.
        seed: of model and order.
        own: a row's own schedule. It changes the row's last training and no other, so that a row starts from the
            shared baseline; of a row that is one training (or its patch), it changes that one.
        schedules: receives the names of the schedules that the recipe uses.
    """
    builder = Builder(suite, seed)
    stage = method.plan(builder)
    if schedules is not None:
        schedules |= builder.schedules
    if own is None:
        return stage
    last = _last_training(stage)
    every = {"checkpoint_every": last.not_in_key["checkpoint_every"]}
    schedule = Schedule.model_validate({**last.spec["schedule"], **every})
    until = builder.untils.get(last.key)
    return replaced(stage, last, _with_schedule(last, suite.schedule_changed(schedule, own), until))


def stopped(stage: Stage, until: int | None, below: Sequence[int] = ()) -> Stage:
    """The final stage of a recipe with its last training stopped early, as a search does with a trial.

    Args:
        stage: see `planned`.
        until: the length at which it stops, in steps, or in epochs where its schedule is in epochs; None, or that of
            the training itself: it is not stopped.
        below: lengths of rungs that it may continue from, where they are done; those that are not shorter are left out.

    Raises:
        ValueError: the training is shorter than that, or it would do nothing.
    """
    last = _last_training(stage)
    end = length_of(last) if until is None else until
    whole = with_rungs(last, [length for length in below if length < end])
    return replaced(stage, last, whole if end == length_of(last) else rung(whole, end))


def _last_training(stage: Stage) -> Stage:
    while stage.kind == "patch":
        stage = stage.inputs["model"]
    return stage


def replaced(stage: Stage, old: Stage, new: Stage) -> Stage:
    """The stage with one input, anywhere below it, exchanged."""
    if stage == old:
        return new
    inputs = {name: replaced(source, old, new) for name, source in stage.inputs.items()}
    same = all(inputs[name] is source for name, source in stage.inputs.items())
    return stage if same else replace(stage, inputs=inputs)
