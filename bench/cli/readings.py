"""Values of event files, as numbers or as nothing. Separate because several commands show them: another version,
another program or another user of the store may have written anything there, and a display shows what it can.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

MOST = 1e15  # beyond it a number is no step, second or megabyte


def number(value: Any) -> float | None:
    """A finite number of a sensible size; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > MOST:
        return None
    return float(value) if math.isfinite(value) else None


def whole(value: Any) -> int | None:
    """As `number`, without its fraction."""
    found = number(value)
    return None if found is None else int(found)


def clock_time(event: Mapping[str, Any], form: str) -> str:
    """When an event was written, in local time; as if in 1970 where it does not say."""
    try:
        return time.strftime(form, time.localtime(number(event.get("time")) or 0.0))
    except (OverflowError, ValueError, OSError):  # a year that the system has no form for
        return time.strftime(form, time.localtime(0.0))
