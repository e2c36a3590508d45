"""The Stage value: the unit of work and of reuse. Separate because every floor above speaks in stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from bench.key import canonical, digest

Kind = Literal["data", "train", "fit", "patch", "features", "predict", "evaluate"]

# Bumped when the code of a stage kind changes what it computes; part of every key of that kind.
KIND_VERSIONS: Mapping[str, int] = {
    "data": 1, "train": 1, "fit": 1, "patch": 1, "features": 1, "predict": 1, "evaluate": 1,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Stage:
    """What is computed, from what. Two stages with equal keys are the same stage.

    Attributes:
        kind: which file of bench/run/ executes it.
        spec: all that can change its result, JSON-like (parts, numbers, strings, lists, dicts).
        inputs: name -> the stage whose outputs it reads.
        aside: what a job needs and the result does not depend on (paths, threads); not in the key.
    """

    kind: Kind
    spec: Mapping[str, Any]
    inputs: Mapping[str, Stage] = field(default_factory=dict)
    aside: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """sha256 (hex) of kind, its version, spec and the keys of the inputs."""
        return digest(
            {
                "kind": self.kind,
                "version": KIND_VERSIONS[self.kind],
                "spec": self.spec,
                "inputs": {name: stage.key for name, stage in self.inputs.items()},
            }
        )

    def to_json(self) -> dict[str, Any]:
        """What `stage.json` holds: enough for a job to execute the stage from its key alone."""
        return {
            "key": self.key,
            "kind": self.kind,
            "version": KIND_VERSIONS[self.kind],
            "spec": canonical(self.spec),
            "inputs": {name: stage.key for name, stage in self.inputs.items()},
            "aside": canonical(self.aside),
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)


def walk(*roots: Stage) -> Iterator[Stage]:
    """Every unique stage below the roots, inputs before consumers."""
    seen: set[str] = set()

    def visit(stage: Stage) -> Iterator[Stage]:
        if stage.key in seen:
            return
        seen.add(stage.key)
        for source in stage.inputs.values():
            yield from visit(source)
        yield stage

    for root in roots:
        yield from visit(root)
