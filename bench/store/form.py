"""What names and files of a store must look like before anything else looks at them. Separate because a store may hold
anything: others write to it, disks fail, versions differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_KEY = re.compile(r"[0-9A-Za-z_-]{1,128}")


def is_key(key: object) -> bool:
    """Whether this can be the key of a stage, and so the name of its folder."""
    return isinstance(key, str) and bool(_KEY.fullmatch(key)) and key != "roots"


def is_stage(value: Mapping[str, Any]) -> bool:
    """Whether a stage.json has the entries of `Stage.to_json` in their types; older ones lack `aside`."""
    inputs = value.get("inputs")
    return (
        isinstance(value.get("kind"), str)
        and type(value.get("version")) is int
        and isinstance(value.get("spec"), dict)
        and isinstance(inputs, dict)
        and all(map(is_key, inputs.values()))
        and isinstance(value.get("aside", {}), dict)
    )


def is_number(name: str) -> bool:
    """Whether a name is a number that Python reads and a folder can have ('²' is a digit and no number)."""
    return name.isascii() and name.isdigit() and len(name) < 19
