"""The engines, and what is common to all. Separate because planning needs it and must not import torch.

An engine is added by its facts and its package: here, or by the entry point `longtail_bench.engines` of whatever is
installed. A method lists the capability words it needs; a row whose engine lacks one is skipped with a reason. `check`
refuses a detector section that cannot be built before anything is started.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Tag

from bench.engines.contract import CLASSIFIER, EngineFacts
from bench.engines.detectron2.facts import DETECTRON2
from bench.engines.detr.facts import DETR
from bench.engines.installed import Origin, Refused, installed
from bench.engines.sections import DetectorSection, TwoStage
from bench.engines.torchvision.facts import TORCHVISION
from bench.errors import UserError, unknown

__all__ = [
    "ENGINES", "ORIGINS", "REFUSED", "EngineFacts", "check", "detector_of", "facts", "no_engine", "only_classifier",
]  # fmt: skip

_BUILT_IN = {engine.name: engine for engine in (TORCHVISION, DETR, DETECTRON2)}
_INSTALLED = installed(_BUILT_IN)
ENGINES: Mapping[str, EngineFacts] = {**_BUILT_IN, **_INSTALLED.engines}
ORIGINS: Mapping[str, Origin] = _INSTALLED.origins  # of those that are not built in
REFUSED: Mapping[str, Refused] = _INSTALLED.refused  # entry points that cannot be used


def only_classifier(trainable: Sequence[str], groups: Sequence[str]) -> bool:
    """Whether a stage that trains `trainable` (none named: all) leaves everything below the classifier as it is.

    `groups`: those of the engine. A name that is none of them is a group that a classifier makes of its own parameters
    (`Classifier.groups`); Builder.train refuses one that no classifier can have.
    """
    return bool(trainable) and not set(trainable) & (set(groups) - {CLASSIFIER})


def facts(name: str, where: str = "detector.engine") -> EngineFacts:
    """The facts of an engine. `where`: what asks for it.

    Raises:
        UserError: no such engine, or one whose package cannot be used.
    """
    if name not in ENGINES:
        raise no_engine(name, where)
    return ENGINES[name]


def no_engine(name: str, where: str) -> UserError:
    """The error for a name that is not in ENGINES. `where`: what asks for it."""
    if name not in REFUSED:
        return unknown("engine", name, ENGINES, where=where, hint="see: python -m bench engines")
    found = REFUSED[name]
    return UserError(
        f"engine '{name}' of {found.package} cannot be used: {found.why}", where=where, allowed=", ".join(ENGINES),
        hint="install that package again, or remove it: pip uninstall " + found.package.partition(" ")[0],
    )  # fmt: skip


def detector_of(trained: Mapping[str, Any]) -> DetectorSection:
    """The typed detector section of a train stage's spec; the name of its weights file is not in the spec."""
    name = trained["engine"]["name"]
    return facts(name).section.model_validate({**trained["detector"], "engine": name, "weights": None})


def check(detector: DetectorSection) -> None:
    """Refuse a detector section that its engine cannot build.

    Raises:
        UserError: no such engine, no such trunk, or what the engine itself refuses.
    """
    engine = facts(detector.engine)
    if detector.trunk not in engine.trunks:
        raise unknown("trunk", detector.trunk, engine.trunks, where="detector.trunk")
    engine.check(detector)


def _kind(value: Any) -> str:
    """The section that an engine's name selects."""
    default = DEFAULT.engine
    name = str(value.get("engine", default) if isinstance(value, dict) else getattr(value, "engine", default))
    return ENGINES[name].section.__name__ if name in ENGINES else name


DEFAULT = TwoStage()
if TYPE_CHECKING:
    Detector = DetectorSection
else:
    _kinds = dict.fromkeys(one.section for one in ENGINES.values())
    _union = functools.reduce(operator.or_, (Annotated[one, Tag(one.__name__)] for one in _kinds))
    Detector = Annotated[_union, Discriminator(_kind)]
