"""How commands print: texts as they are, lists cut short, sizes and times for people. Separate because every command
says such things, and all say them alike.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from bench.errors import printable

LINE = 600  # characters of a line that somebody else wrote, e.g. why a stage failed


def say(console: Console, text: str) -> None:
    """Print a text as it is: no markup, no colours, no line breaks of ours, so that a command in it can be copied.
    What a terminal would obey is escaped: it may come from a file, a job's output or another user of the store."""
    console.print(printable(text, keep="\n\t"), highlight=False, markup=False, soft_wrap=True)


def say_wrapped(console: Console, text: str) -> None:
    """As `say`; on a terminal a long line is broken between words, and what follows is indented. Not for commands."""
    if not console.is_terminal or len(text) <= console.width:
        return say(console, text)
    indent = " " * (len(text) - len(text.lstrip()) + 4)
    for part in textwrap.wrap(printable(text), console.width, subsequent_indent=indent, break_on_hyphens=False):
        say(console, part)


def line(text: str, style: str = "") -> Text:
    """One line of a display, as it is."""
    return Text(printable(text, LINE), style=style)


def cell(text: str) -> str:
    """A text for a cell of a table, as it is: rich would read [markup]."""
    return escape(printable(text, LINE, keep="\n"))


def listed(words: Sequence[str], most: int, joint: str = ", ") -> str:
    """`a, b, 3 more`: the first few of a list."""
    return joint.join([*words[:most], f"{len(words) - most} more"] if len(words) > most else words)


def count(number: int, one: str, many: str = "") -> str:
    """`1 job`, `2 jobs`, `3 passes`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def size(megabytes: float, *, tenths: bool = False) -> str:
    """`3.2 MB`, `12 MB`, `10.4 GB`; `tenths`: of more than 10 MB as well."""
    if megabytes >= 10_000:
        return f"{megabytes / 1000:.1f} GB"
    return f"{megabytes:.0f} MB" if megabytes >= 10 and not tenths else f"{megabytes:.1f} MB"


def clock(seconds: float) -> str:
    """1:06 or 1:02:30."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def estimate_text(seconds: float | None) -> str:
    """`about 9 min`, `about 40 s`, or that nobody knows."""
    return "time unknown" if seconds is None else f"about {span(seconds)}"


def span(seconds: float) -> str:
    """`40 s`, `9 min`, `3.5 h`."""
    if seconds >= 3 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
