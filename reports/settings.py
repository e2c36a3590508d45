"""Settings of a row as positions on an axis or names of lines. Separate from the figure that uses them, since what
`schedule.lr` means and when an axis has numbers is a matter of settings, not of drawing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.key import plain

ABSENT = object()  # the row has no such setting; None is a value
LOG_FROM = 50.0  # largest to smallest positive value: from here a linear axis would put half of them on one spot


@dataclass(frozen=True)
class Scale:
    """Where the values of a setting lie.

    Attributes:
        positions: text of the value -> x.
        kind: "linear", "log", "symlog" (a log axis that has 0 too) or "labels" (equally spaced).
        smallest: the smallest positive value, where symlog begins to be linear.
    """

    positions: Mapping[str, float]
    kind: str
    smallest: float = 1.0


def setting(settings: Mapping[str, Any], dotted: str) -> Any:
    """The value of `beta` or `schedule.lr`; ABSENT where the row does not have it."""
    value: Any = settings
    for word in dotted.split("."):
        if not isinstance(value, Mapping) or word not in value:
            return ABSENT
        value = value[word]
    return plain(value)


def text(value: Any) -> str:
    """A setting's value in few characters: 0.02, all, true, images 57."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def scale(values: Sequence[Any]) -> Scale:
    """Numbers lie where they are, on a log axis if they span a factor of LOG_FROM; else the order of appearance."""
    texts = dict.fromkeys(map(text, values))
    if not all(_number(value) for value in values):
        return Scale({name: float(i) for i, name in enumerate(texts)}, "labels")
    positions = {text(value): float(value) for value in values}
    positive = [x for x in positions.values() if x > 0]
    if not positive or max(positive) / min(positive) < LOG_FROM or min(positions.values()) < 0:
        return Scale(positions, "linear")
    return Scale(positions, "log" if len(positive) == len(positions) else "symlog", min(positive))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
