"""The list of checks and how one is made. Separate from the checks, which are grouped by what they need.

A check gets a `Subject` (one method on one engine; of an engine's own promises see built.py) and ends well, raises
`Broken` with what the author has to do, or raises `DoesNotApply` with the reason.
"""

from __future__ import annotations

import contextlib
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydantic import ValidationError

from bench.contract_check import tiny, values
from bench.contract_check.place import RunFailed, Sandbox
from bench.engines.facts import facts
from bench.errors import UserError, place_of
from bench.method import Method
from bench.plan.planning import Plan
from bench.stage import Stage, walk

CheckState = Literal["pass", "fail", "skip"]


class Broken(Exception):
    """A promise is not kept. `hint`: what the author has to do."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


class DoesNotApply(Exception):
    """The check has nothing to look at; the text is the reason."""


class LookedAt(Protocol):
    """What is held to promises: a method on an engine, or an engine."""

    @property
    def called(self) -> str:
        """Its name in messages."""
        ...


S = TypeVar("S", bound=LookedAt)


@dataclass(frozen=True)
class Check(Generic[S]):
    """One promise: its name, its text in a line, and the function that checks it (a remark, or None, if it is kept)."""

    name: str
    promise: str
    look: Callable[[S], str | None]


@dataclass(frozen=True)
class Verdict:
    """What one check found. `message`: the reason, the remark, or what to do; `trace`: where it came from."""

    check: str
    promise: str
    state: CheckState
    message: str = ""
    trace: str = ""


@dataclass
class Subject:
    """One method on one engine.

    Attributes:
        kind: the method.
        place: where its stages run.
        changed: settings that differ from the defaults.
    """

    kind: type[Method]
    place: Sandbox
    changed: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "with " + ", ".join(f"{k}={v!r}" for k, v in self.changed.items()) + ": " if self.changed else ""

    @property
    def called(self) -> str:
        return self.kind.__name__

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What differs from the defaults; a setting that has none gets a legal value."""
        return values.required(self.kind) | dict(self.kind.on_few_images) | dict(self.changed)

    @property
    def looked_at(self) -> list[str]:
        """The settings that mean something on this engine."""
        provided = facts(self.place.engine).provides
        return [name for name in self.kind.model_fields if self.kind.only_with.get(name, "classifier") in provided]

    @cached_property
    def method(self) -> Method:
        return tiny.made(self.kind, self.settings)

    @cached_property
    def plan(self) -> Plan:
        """Of the tiny suite with this method as its one row."""
        return tiny.with_rows(self.place.suite, {tiny.ROW: self.method})

    @property
    def result(self) -> Stage:
        """The evaluate stage."""
        stage = self.plan.rows[0].evaluate
        assert stage is not None
        return stage

    @property
    def model(self) -> Stage:
        """The stage whose model is evaluated."""
        return self.result.inputs["predict"].inputs["model"]

    def ran(self) -> None:
        """All stages of the row are done, else they cannot be checked.

        Raises:
            DoesNotApply: one of them failed; the check "runs" has the reason.
        """
        try:
            self.place.bring(self.result)
        except RunFailed as error:
            raise DoesNotApply(f"a {error.kind} stage of the row fails: see 'runs'") from None

    @cached_property
    def own_trainings(self) -> list[Stage]:
        """The train stages that this method adds to the baseline; of the baseline its own."""
        base = self.place.baseline.inputs["predict"].inputs["model"]
        shared = set() if self.model == base else {stage.key for stage in walk(base)}
        return [s for s in walk(self.model) if s.kind == "train" and s.key not in shared]

    @cached_property
    def variants(self) -> list[Subject]:
        """The defaults, and each word of a setting (`trainable: classifier`) that makes other parameters learn, or lets
        them start elsewhere.

        Raises:
            DoesNotApply: none of them trains anything beyond the baseline, or the defaults do not run.
        """
        self.ran()
        found = {self._learning(): self}
        for name in self.kind.model_fields:
            for value in values.choices(self.kind, name):
                other = Subject(self.kind, self.place, {**self.changed, name: value})
                with contextlib.suppress(ValidationError, UserError):
                    found.setdefault(other._learning(), other)
        variants = [variant for variant in found.values() if variant.own_trainings]
        if not variants:
            raise DoesNotApply("it trains nothing beyond the baseline")
        for variant in variants:
            self.place.bring(*variant.own_trainings)
        return variants

    def _learning(self) -> tuple[tuple[bool, tuple[str, ...]], ...]:
        return tuple(("init" in stage.inputs, tuple(stage.spec["trainable"])) for stage in self.own_trainings)

    def trainings(self) -> Iterator[tuple[Subject, Stage]]:
        """The trainings of all variants, done."""
        for variant in self.variants:
            for stage in variant.own_trainings:
                yield variant, stage

    @cached_property
    def origin(self) -> tuple[str, str]:
        """("file", path) of a method that was found by path, else ("module", name)."""
        if self.kind.__module__.startswith("bench_method_"):
            return "file", str(Path(inspect.getsourcefile(self.kind) or "").resolve())
        return "module", self.kind.__module__


def examine(subject: Subject, checks: Sequence[Check[Subject]]) -> Iterator[Verdict]:
    """Every check in turn; one that raises an unforeseen error has failed."""
    lacking = tiny.lacking(subject.place.suite, subject.kind)
    for check in checks:
        yield Verdict(check.name, check.promise, "skip", lacking) if lacking else look(check, subject)


def look(check: Check[S], subject: S) -> Verdict:
    """The finding of one check of one subject."""
    try:
        remark = check.look(subject)
    except DoesNotApply as reason:
        return Verdict(check.name, check.promise, "skip", str(reason))
    except Broken as broken:
        text = f"{broken.what}\n{broken.hint}" if broken.hint else broken.what
        cause = broken.__cause__
        return Verdict(check.name, check.promise, "fail", text, trace_of(cause) if cause else "")
    except RunFailed as failed:
        return Verdict(check.name, check.promise, "fail", str(failed), failed.trace)
    except ValidationError as error:
        text = f"{subject.called} cannot be made: {error}\ngive each setting a default that is legal"
        return Verdict(check.name, check.promise, "fail", text, trace_of(error))
    except UserError as error:
        return Verdict(check.name, check.promise, "fail", str(error), trace_of(error))
    except Exception as error:
        return Verdict(check.name, check.promise, "fail", _described(error), trace_of(error))
    return Verdict(check.name, check.promise, "pass", remark or "")


def _described(error: Exception) -> str:
    """An error of the author's own code: what, and where in it."""
    return f"{type(error).__name__}: {error} ({place_of(error)})\nsee it with --traceback"


def trace_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
