"""The recipe language: Method, Builder, discovery. Separate because a method author needs this file and no other.

A method is a pure recipe: from its settings and a Builder it returns the stage whose model is to be evaluated. It sees
no torch, no disk, no cluster and no engine.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from bench.errors import UserError, unknown
from bench.key import Part, part
from bench.spec import Schedule
from bench.stage import Stage

__all__ = ["Builder", "Method", "Plannable", "discover", "part", "planned"]

SOFTMAX = "softmax:Softmax"
SHUFFLE = "samplers:Shuffle"


class Method(BaseModel):
    """A recipe. Subclass it in a file of methods/; its fields are the settings a suite may write."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"classifier"})  # what the engine must provide

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
        """The lines marked DEVIATION: in the method's file, without the mark."""
        path = inspect.getsourcefile(cls)
        lines = Path(path).read_text(encoding="utf-8").splitlines() if path else []
        return [line.split("DEVIATION:", 1)[1].strip() for line in lines if "DEVIATION:" in line]


class Plannable(Protocol):
    """What a Builder asks of a suite; bench.suite.Suite is one."""

    def schedule_named(self, name: str, override: Mapping[str, Any] | None) -> Schedule: ...

    def data_stage(self, split: Literal["train", "val"], seed: int) -> Stage: ...

    def train_spec(self) -> tuple[dict[str, Any], dict[str, Any]]: ...


class Builder:
    """Makes stages for one row and one seed; `b.train()` with no argument is the baseline that rows share."""

    def __init__(
        self, suite: Plannable, seed: int, own: Mapping[str, Any] | None = None, last: str | None = None
    ) -> None:
        self._suite = suite
        self._seed = seed
        self._own = own  # the row's own schedule, for the training whose key would be `last` without it
        self._last = last

    def train(
        self,
        *,
        init: Stage | None = None,
        keep_classifier: bool | None = None,
        classifier: Part | None = None,
        sampler: Part | None = None,
        trainable: Sequence[str] = (),
        schedule: Literal["auto", "base", "second", "classifier_only"] = "auto",
    ) -> Stage:
        """Train a detector.

        Args:
            init: the train or patch stage whose model it starts from; None: the suite's own initialisation.
            keep_classifier: demanded with `init`: start from its classifier too, or from new weights.
            classifier: the classifier part; default softmax, or that of `init` where it is kept.
            sampler: the sampler part; default every image once an epoch.
            trainable: parameter groups that learn; () is all that the detector's settings do not freeze.
            schedule: "auto" is base without init, classifier_only for trainable=("classifier",), else second.

        Raises:
            UserError: `init` without `keep_classifier`, or the other way round.
        """
        if (init is None) != (keep_classifier is None):
            raise UserError(
                "init= and keep_classifier= go together", hint="say whether the classifier is kept or made anew"
            )
        if classifier is None:
            kept = init.spec.get("classifier") if init is not None and keep_classifier else None
            classifier = kept if isinstance(kept, Part) else part(SOFTMAX)
        if schedule == "auto":
            only = tuple(trainable) == ("classifier",)
            schedule = "base" if init is None else "classifier_only" if only else "second"
        spec, aside = self._suite.train_spec()
        spec |= {
            "classifier": classifier,
            "sampler": sampler or part(SHUFFLE),
            "trainable": list(trainable),
            "keep_classifier": keep_classifier,
            "seed": self._seed,
            "phase": 0 if init is None else 1 + int(init.spec.get("phase", 0)),
        }
        if init is not None:
            spec["weights"] = None  # the weights file made the init stage, not this one
        inputs = {"train": self.data("train")} | ({"init": init} if init is not None else {})

        def stage(own: Mapping[str, Any] | None) -> Stage:
            chosen = self._suite.schedule_named(schedule, own)
            lengths = {"schedule": chosen.model_dump(exclude={"checkpoint_every"})}
            return Stage("train", spec | lengths, inputs, aside | {"checkpoint_every": chosen.checkpoint_every})

        common = stage(None)
        return stage(self._own) if common.key == self._last else common

    def patch(self, model: Stage, edit: Part) -> Stage:
        """Edit the classifier of a trained model without training (tau-norm)."""
        spec = {"patch": edit, "classifier": model.spec["classifier"], "phase": model.spec.get("phase", 0)}
        return Stage("patch", spec, {"model": model, "train": self.data("train")})

    def data(self, split: Literal["train", "val"]) -> Stage:
        """The data stage of a split."""
        return self._suite.data_stage(split, self._seed)


def planned(method: Method, suite: Plannable, seed: int, own: Mapping[str, Any] | None = None) -> Stage:
    """The stage that a recipe ends in. `own`, a row's own schedule, changes its last training and no other, so that a
    row starts from the baseline that all share; of a row that is one training (or its patch), it changes that one."""
    stage = method.plan(Builder(suite, seed))
    if own is None:
        return stage
    last = stage
    while last.kind == "patch":
        last = last.inputs["model"]
    return method.plan(Builder(suite, seed, own, last.key))


def discover(extra: Sequence[Path] = ()) -> dict[str, type[Method]]:
    """All methods by name: methods/*.py, entry points "longtail_bench.methods", and files of a suite's methods_path.

    Raises:
        UserError: a file that cannot be imported, or two methods of one name.
    """
    import methods

    found: dict[str, type[Method]] = {}
    for module in pkgutil.iter_modules(methods.__path__):
        if not module.ispkg:
            _collect(importlib.import_module(f"methods.{module.name}"), found)
    for entry in importlib.metadata.entry_points(group="longtail_bench.methods"):
        _collect(sys.modules[entry.load().__module__], found)
    for path in extra:
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            _collect(_import(file), found)
    return found


def method_named(name: str, known: Mapping[str, type[Method]], where: str) -> type[Method]:
    """The method class of a name, or the error that lists what there is."""
    if name not in known:
        raise unknown("method", name, known, where=where, hint="see: python -m bench methods")
    return known[name]


def _collect(module: Any, found: dict[str, type[Method]]) -> None:
    for value in vars(module).values():
        if not (inspect.isclass(value) and issubclass(value, Method) and value.__module__ == module.__name__):
            continue
        file = str(inspect.getsourcefile(value))
        name = getattr(value, "name", None)
        if inspect.isabstract(value) and name is None:
            continue  # what several methods of a file share
        if not isinstance(name, str) or inspect.isabstract(value):
            lacking = "plan" if isinstance(name, str) else "name"
            raise UserError(f"method class {value.__name__} has no {lacking}", where=file, hint="see: CONTRIBUTING.md")
        if found.get(name, value) is not value:
            raise UserError(f"two methods are called '{name}'", where=file)
        found[name] = value


def _import(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"bench_method_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise UserError("no such method file", where=str(file), hint="methods_path: a .py file or a folder of them")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"cannot be imported: {type(error).__name__}: {error}", where=str(file)) from error
    return module
