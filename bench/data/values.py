"""Single values of a foreign JSON file: numbers, ids, flags and names as tools write them. Separate from entries.py,
which knows what an entry is made of.

Each function returns the value and whether it was written in another form than JSON's own (`"25"` or `25.0` for 25), or
raises `Unreadable`: what is meant cannot be said. Nothing that json.loads can return makes them raise anything else.
"""

from __future__ import annotations

import math
import re
import reprlib
import unicodedata
from typing import Any

from bench.errors import UserError

LARGEST = 2**53  # up to here every whole number is a float of its own
SHOWN = 80  # characters of a value in a message
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DIGITS = 400  # of a number written as text; no float has more before the point


class Unreadable(ValueError):
    """A value of which it cannot be said what is meant; the text says what is wrong."""


def shown(value: Any, limit: int = SHOWN) -> str:
    """A value as text for a message: printable, on one line, at most `limit` characters, whatever it is."""
    if isinstance(value, str):
        text = value if value.isprintable() else ascii(value)[1:-1]
    else:
        try:
            text = _SHORT.repr(value)
        except (ValueError, RecursionError):  # an int of thousands of digits; nesting at the limit of the interpreter
            text = f"<{type(value).__name__}>"
        text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def several(examples: list[str] | tuple[str, ...], count: int, limit: int = 3) -> str:
    """The first few of these examples on one line, and how many more there are."""
    more = f" and {count - limit:,} more" if count > limit else ""
    return ", ".join(shown(one, 160) for one in examples[:limit]) + more


def refusal(file: str, what: str, examples: list[str], count: int, hint: str) -> UserError:
    """The one error for all entries of one kind in a file."""
    return UserError(f"{what} ({count:,}): {several(examples, count)}", where=file, hint=hint)


def number(value: Any) -> tuple[int | float, bool]:
    """A finite number; as text (`"20.5"`) too. A bool is none."""
    kind = type(value)
    if kind is int:
        if not -1e300 < value < 1e300:
            raise Unreadable("a number out of range")
        return value, False
    if kind is float:
        if not math.isfinite(value):
            raise Unreadable("not finite")
        return value, False
    if kind is str:
        text = value.strip()
        if len(text) <= _DIGITS and _NUMBER.fullmatch(text):
            found = float(text)
            if math.isfinite(found):
                return (int(text) if re.fullmatch(r"[+-]?\d+", text, re.ASCII) else found), True
    raise Unreadable("not a number")


def whole(value: Any) -> tuple[int, bool]:
    """A whole number; as a float without a fraction or as text (`25.0`, `"25"`) too.

    A float beyond 2^53 is refused: it stands for several whole numbers.
    """
    if type(value) is int:
        return value, False
    found, text = number(value)
    if isinstance(found, float):
        if not found.is_integer() or abs(found) > LARGEST:
            raise Unreadable("not a whole number")
        return int(found), True
    return found, text


def flag(value: Any) -> tuple[bool, bool]:
    """A flag: 0 or 1, true or false, null (no), or either as a float or text."""
    if value is None or value is False or value is True:
        return bool(value), False
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true", True
    try:
        found, _ = number(value)
    except Unreadable:
        raise Unreadable("neither 0 nor 1") from None
    if found not in (0, 1):
        raise Unreadable("neither 0 nor 1")
    return bool(found), isinstance(value, str)


def class_name(value: Any, identity: int) -> tuple[str, str]:
    """The name of a class as text, and the kind of mend (bench/data/kinds.py) that made it, or "".

    A number is its text; null and empty text are "class 7", since a class without a name has only its id. True and
    false are refused: YAML makes them of yes, no, on and off, too.
    """
    if isinstance(value, str):
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise Unreadable("a name that is no valid text (half of a surrogate pair)")
        if not value.strip():
            return f"class {identity}", "name_empty"
        if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in value):
            clean = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in value)
            return (clean.strip() or f"class {identity}"), "name_control"
        return value, ""
    if value is None:
        return f"class {identity}", "name_empty"
    if isinstance(value, bool):
        raise Unreadable("a name that is true or false")
    try:
        found, _ = number(value)
    except Unreadable:
        raise Unreadable("a name that is no text") from None
    return str(found), "name_number"


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxstring, _SHORT.maxlong = 2, 6, 4, SHOWN, SHOWN
