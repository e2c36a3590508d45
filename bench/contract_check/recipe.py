"""Checks of the recipe: what planning touches, and what settings do to keys. Separate because nothing has to run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.contract_check import tiny, values
from bench.contract_check.probe import ProbeRequest, ProbeResult, surroundings
from bench.contract_check.subject import Broken, DoesNotApply, Subject
from bench.errors import UserError
from bench.key import canonical, plain

Settings = Mapping[str, Any]
PATIENCE = 120.0  # seconds for one plan in a process of its own


def plans_purely(subject: Subject) -> str | None:
    """Two processes that share neither day, hash seed nor folder give the same keys and read nothing but code."""
    here, elsewhere = _probe(subject, other=False), _probe(subject, other=True)
    for result in (here, elsewhere):
        if result["imported"]:
            raise Broken(
                f"the method's file imports {', '.join(result['imported'])}",
                "recipes import no heavy library, or `bench plan` would be slow: move the computation to a part "
                "in a file of its own and name it with part(...), which imports nothing",
            )
        if result["planned"]:
            raise Broken(
                f"plan() imports {', '.join(result['planned'])}", "name code with part(...) and do not import it"
            )
        if result["touched"]:
            raise Broken(
                f"plan() reads more than code: {', '.join(result['touched'][:3])}",
                "a recipe is a function of its settings: move what the file holds to a setting or a part",
            )
        if len(set(result["keys"])) > 1:
            raise Broken("planned twice, it has two different results", _IMPURE)
    if here["keys"] != elsewhere["keys"]:
        raise Broken("planned in two processes, on two days, it has different results", _IMPURE)
    return None


_IMPURE = "let plan() depend on its settings alone: no clock, no random number, no set order, no environment"


def settings_reach_the_key(subject: Subject) -> str | None:
    """Every setting changes the key, at least beside some value of another setting."""
    names = subject.looked_at
    if not names:
        raise DoesNotApply("it has no settings")
    keys = Keys(subject)
    idle: list[str] = []
    for name in names:
        options = keys.options(name)
        if not options:
            idle.append(name)
            continue
        dead = [value for value in options if not keys.moved(name, value)]
        listed = values.choices(subject.kind, name)
        named = [value for value in dead if value in listed]
        if len(dead) == len(options) or named:
            raise Broken(
                f"setting '{name}' does not change the key of the result ({_shown(name, named or dead)})",
                "hand it to the part or stage that uses it; two rows that differ in it share one result now",
            )
    remark = unseen(idle, "no other legal value is known") if idle else None
    if remark and len(idle) == len(names):
        raise DoesNotApply(remark)
    return remark


def settings_come_back_from_json(subject: Subject) -> str | None:
    """Defaults and other values, written as JSON and read again, are the same experiment."""
    keys = Keys(subject)
    for name, value in [("", None), *keys.others()]:
        settings = {**keys.base, name: value} if name else keys.base
        key = keys.of(settings)
        if key is None:
            continue
        dumped = tiny.made(subject.kind, settings).model_dump()
        again = plain(json.loads(json.dumps(canonical(dumped))))
        if keys.of(again) != key:
            raise Broken(
                f"written as JSON and read again, {_shown(name, [value]) if name else 'the defaults'} give another "
                "experiment",
                "let settings be numbers, words, booleans, lists and mappings; validators accept what they give",
            )
    return None


class Keys:
    """Keys of a method's result for settings, legal or not."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.base: Settings = plain(canonical(subject.method.model_dump()))
        self._known: dict[str, str | None] = {}

    def of(self, settings: Settings) -> str | None:
        """None for settings that are not legal together."""
        text = json.dumps(canonical(settings), sort_keys=True)
        if text not in self._known:
            try:
                method = tiny.made(self.subject.kind, settings)
                self._known[text] = tiny.result_of(self.subject.place.suite, method).key
            except (ValidationError, UserError):
                self._known[text] = None
        return self._known[text]

    def moved(self, name: str, value: Any) -> bool:
        """Whether the value gives another key than the default, beside some value of one other setting."""
        for around in self.surroundings(name):
            without, having = self.of(around), self.of({**around, name: value})
            if without is not None and having is not None and without != having:
                return True
        return False

    def surroundings(self, name: str) -> Iterator[Settings]:
        """The defaults, then the defaults with one other setting changed."""
        yield self.base
        for other, value in self.others():
            if other != name:
                yield {**self.base, other: value}

    def others(self) -> Iterator[tuple[str, Any]]:
        """Every other value of every setting that is legal beside the defaults; those that switch most come first."""
        kind = self.subject.kind
        for name in sorted(kind.model_fields, key=lambda name: values.rank(kind, name)):
            for value in values.other_values(kind, name, self.base):
                yield name, value

    def options(self, name: str) -> list[Any]:
        """Other values of a setting: beside the defaults, or, where none is legal there, beside another's value."""
        found = (values.other_values(self.subject.kind, name, around) for around in self.surroundings(name))
        return next((options for options in found if options), [])


def _probe(subject: Subject, *, other: bool) -> ProbeResult:
    origin = list(subject.origin)
    settings = canonical(subject.settings)
    request = ProbeRequest(
        origin=origin, method=subject.kind.name, settings=settings, engine=subject.place.engine, other=other
    )
    environment, root = surroundings(2 if other else 1), Path(__file__).resolve().parents[2]
    words = [sys.executable, "-m", "bench.contract_check.probe", json.dumps(request)]
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run(
            words, capture_output=True, text=True, env=environment, cwd=folder if other else root, timeout=PATIENCE,
            check=False,
        )  # fmt: skip
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise Broken(f"planning ends with an error: {last}", "see it with --traceback") from RuntimeError(ended.stderr)
    result: ProbeResult = json.loads(ended.stdout.splitlines()[-1])
    return result


def _shown(name: str, tried: list[Any]) -> str:
    return ", ".join(f"{name}={value!r}" for value in tried[:4]) + (", ..." if len(tried) > 4 else "")


def unseen(names: list[str], reason: str) -> str:
    """The remark on settings that a check could not judge."""
    return f"not looked at: {', '.join(names)} ({reason}; name a value that shows it with Field(examples=[...]))"
