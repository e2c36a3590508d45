"""Engines that other packages bring: the entry points `longtail_bench.engines`. Separate from facts.py, which puts them
beside those built in, because one that cannot be used must not stop what does not ask for it. No torch here.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

from bench.engines.contract import EngineFacts
from bench.engines.sections import DetectorSection

GROUP = "longtail_bench.engines"


@dataclass(frozen=True)
class Origin:
    """Where an engine is from.

    Attributes:
        package: name and version of what was installed.
        module: dotted name of the module that holds the facts.
    """

    package: str
    module: str


@dataclass(frozen=True)
class Refused:
    """An entry point that cannot be used.

    Attributes:
        package: name and version; of several packages all of them.
        why: the reason, without a final full stop.
    """

    package: str
    why: str


@dataclass(frozen=True)
class Installed:
    """What the entry points give, by the engine's name."""

    engines: Mapping[str, EngineFacts]
    origins: Mapping[str, Origin]
    refused: Mapping[str, Refused]


def installed(built_in: Mapping[str, EngineFacts]) -> Installed:
    """The engines of all entry points. Each is imported; without entry points nothing is.

    Args:
        built_in: names that are taken.
    """
    engines: dict[str, EngineFacts] = {}
    origins: dict[str, Origin] = {}
    refused: dict[str, Refused] = {}
    for name, entries in _by_name():
        packages = ", ".join(dict.fromkeys(map(_package, entries)))
        try:
            if len({entry.value for entry in entries}) > 1:
                raise ValueError("several packages have an engine of this name")
            engines[name] = _checked(name, entries[0].load(), {**built_in, **engines})
            origins[name] = Origin(packages, entries[0].value.partition(":")[0].strip())
        except (Exception, SystemExit) as error:  # of any kind: it is the code of somebody else
            form = "" if type(error) is ValueError else f"{type(error).__name__}: "
            refused[name] = Refused(packages, f"{form}{error}")
    return Installed(engines, origins, refused)


def _by_name() -> Iterator[tuple[str, list[EntryPoint]]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    yield from sorted(found.items())


def _package(entry: EntryPoint) -> str:
    return "unknown" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _checked(name: str, found: Any, known: Mapping[str, EngineFacts]) -> EngineFacts:
    """What an entry point gave, if it can stand beside the others.

    Raises:
        ValueError: it cannot, with the reason.
    """
    if not isinstance(found, EngineFacts):
        raise ValueError(f"its entry point names a {type(found).__name__}, not an EngineFacts")
    if found.name != name:
        raise ValueError(f"its entry point is called '{name}' and the engine '{found.name}'")
    if name in known:
        raise ValueError("another engine, built in, has this name")
    for field, kind in _KINDS.items():
        if not isinstance(getattr(found, field), kind):
            raise ValueError(f"its {field} is a {type(getattr(found, field)).__name__}, not a {kind.__name__}")
    section = found.section
    if not (isinstance(section, type) and issubclass(section, DetectorSection)):
        raise ValueError(f"its section is {section!r}, not a subclass of DetectorSection")
    for other in known.values():  # the class's name selects the section where a suite is read
        if other.section.__name__ == section.__name__ and other.section is not section:
            raise ValueError(
                f"its section has the name of another, {section.__name__}, which engine '{other.name}' has"
            )
    section.model_json_schema()  # raises where a type in it is not known, or is none of JSON
    return found


# What every command may look at of every engine.
_KINDS: Mapping[str, type] = {
    "version": int, "module": str, "postprocess": str, "provides": Set, "trunks": Mapping, "groups": tuple,
    "projector": tuple, "head": tuple, "judges": tuple, "tiny": Mapping,
}  # fmt: skip
