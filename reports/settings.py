"""Settings of a row as positions on an axis or names of lines. Separate from the figure that uses them, since what
`schedule.lr` means and when an axis has numbers is a matter of settings, not of drawing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from bench.key import plain

ABSENT = object()  # the row has no such setting; None is a value
LOG_FROM = 50.0  # largest to smallest positive value: from here a linear axis would put half of them on one spot
CROWDED = 0.03  # of an axis: a mark of 5 points on 2.5 inches


@dataclass(frozen=True)
class Scale:
    """Where the values of a setting lie.

    Attributes:
        positions: text of the value -> x.
        kind: "linear", "log", "symlog" (a log axis that has 0 too) or "labels" (equally spaced).
        smallest: the smallest positive value, where symlog begins to be linear.
        ticks: text -> x of what is written on the axis, where that is not the values.
    """

    positions: Mapping[str, float]
    kind: str
    smallest: float = 1.0
    ticks: Mapping[str, float] = field(default_factory=dict)

    @property
    def unequal(self) -> bool:
        """Whether numbers stand at equal steps that they do not have."""
        if self.kind != "labels":
            return False
        known = [(x, float(name)) for name, x in self.positions.items() if _is_number(name)]
        slopes = [(b - a) / (y - x) for (x, a), (y, b) in pairwise(known)]
        return bool(slopes) and not all(math.isclose(slope, slopes[0], rel_tol=1e-6) for slope in slopes)


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
    """Numbers lie where they are, on a log axis if they span a factor of LOG_FROM or would lie on one another else;
    where that does not part them either (0.99, 0.999, 1) they are spaced equally, ascending. Other values are spaced
    equally in order of appearance.
    """
    if not all(_number(value) for value in values):
        return _equal(list(dict.fromkeys(map(text, values))))
    positions = {text(value): float(value) for value in sorted(values)}
    xs = list(positions.values())
    positive = [x for x in xs if x > 0]
    wide = bool(positive) and max(positive) / min(positive) >= LOG_FROM
    if not wide and not _crowded(xs):
        return Scale(positions, "linear")
    if xs[0] >= 0 and len(positive) > 1 and not _crowded([math.log(x) for x in positive]):
        return Scale(positions, "log" if len(positive) == len(xs) else "symlog", min(positive))
    return _equal(list(positions)) if _crowded(xs) else Scale(positions, "linear")


def round_numbers(low: float, high: float, *, log: bool) -> dict[str, float]:
    """Text -> value of about five round numbers between two: 1, 2, 5, 10 on a log axis, 0, 0.2, 0.4 on another."""
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factors in ((1, 2, 5), (1, 3), (1,)):
            found = [factor * 10.0**e for e in decades for factor in factors]
            found = [x for x in found if low * (1 - 1e-9) <= x <= high * (1 + 1e-9)]
            if 2 <= len(found) <= 7 or (factors == (1,) and len(found) > 7):
                return {f"{x:g}": x for x in found[:: -(-len(found) // 7)]}
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return {f"{round(i * step, 12):g}": round(i * step, 12) for i in range(first, last + 1)}


def _equal(texts: Sequence[str]) -> Scale:
    return Scale({name: float(i) for i, name in enumerate(texts)}, "labels")


def _crowded(ascending: Sequence[float]) -> bool:
    """Whether two marks of an axis would lie on one another."""
    span = ascending[-1] - ascending[0]
    return any(b - a < CROWDED * span for a, b in pairwise(ascending))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
