"""The one error a user sees. Separate so that every floor can raise it and one place formats it.

What it says may hold anything: file names, values of a suite, what another program has written. `printable` makes that
text of one line that a terminal shows and does not obey.
"""

from __future__ import annotations

import difflib
import json
import os
import sysconfig
import traceback
import unicodedata
from collections.abc import Iterable
from typing import Any

# Characters of each part of a message, so that it stays readable whatever a file holds; in all fewer than 2,000.
MOST_WHAT, MOST_WHERE, MOST_ALLOWED, MOST_HINT = 600, 300, 600, 400
LONGEST_WORD = 100  # of which a mistyped name is looked for: the search is quadratic
# A spreadsheet computes a cell that begins so; the last four are the wide forms of the first four.
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
JOINERS = "\u200c\u200d"  # invisible, but part of words in Persian and Hindi, and of emoji


class UserError(Exception):
    """Something the user can correct: bad input, a missing file, a full disk. Exit code 2, no traceback.

    Args:
        what: what is wrong, one sentence without a final full stop.
        where: file:line, option or path that it concerns.
        allowed: the legal values or form.
        hint: what to do next, best a command.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", allowed: str = "", hint: str = "") -> None:
        super().__init__(what, where, allowed, hint)
        self.what, self.where, self.allowed, self.hint = what, where, allowed, hint

    def __str__(self) -> str:
        what, where = printable(self.what, MOST_WHAT), printable(self.where, MOST_WHERE)
        text = f"{where}: {what}" if where else what
        if self.allowed:
            text += f"{'' if text.endswith('?') else '.'} Legal: {printable(self.allowed, MOST_ALLOWED)}"
        if self.hint:
            text += f"\n  {printable(self.hint, MOST_HINT)}"
        return text

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.allowed, self.hint)


class StageError(UserError):
    """A stage that cannot succeed (e.g. a loss that is not finite). The suite continues; exit code 1."""

    exit_code = 1


def _rebuild(kind: type[UserError], what: str, where: str, allowed: str, hint: str) -> UserError:
    return kind(what, where=where, allowed=allowed, hint=hint)


def printable(text: str, most: int = 0, *, keep: str = "") -> str:
    r"""The text with every character that a terminal would obey, or not show, as an escape: `\x1b`, `\u202e`.

    Escaped are control characters (also line breaks), directions of writing, other invisible characters, and bytes that
    are no text (lone surrogates). `most`: characters; a longer text is cut in the middle. `keep`: characters that stay.
    """
    if not text.isprintable():
        text = "".join([c if c.isprintable() or c in keep or _is_shown(c) else _escaped(c) for c in text])
    return cut(text, most) if most else text


def cell_text(text: str) -> str:
    """A text for a CSV file: on one line, `printable`, and with a `'` in front where a spreadsheet would compute it.

    That mark is what spreadsheets themselves hide from a cell that is meant as text; other readers see it.
    """
    one = printable(text)
    return f"'{one}" if one.startswith(FORMULA) else one


def cut(text: str, most: int) -> str:
    """`aaaa ... (4,200 characters) ... zzzz`: a text of at most `most` characters, the middle left out."""
    if len(text) <= most:
        return text
    note = f" ... ({len(text):,} characters) ... "
    front = (most - len(note)) * 2 // 3
    return f"{text[:front]}{note}{text[len(text) - (most - len(note) - front) :]}"


def _is_shown(character: str) -> bool:
    return character in JOINERS or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a file name or argument that is not UTF-8 (os.fsdecode)
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def place_of(error: BaseException) -> str:
    """`mine.py:7`: the innermost line that raised an error and is in no installed library, since a mistake in one's own
    code often raises only inside of PyTorch or the standard library; of an error of libraries alone, its last line."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_installed(frame.filename)]
    return "".join(f"{os.path.basename(frame.filename)}:{frame.lineno}" for frame in (own or frames)[-1:])


def _is_installed(file: str) -> bool:
    folders = [f"{sysconfig.get_paths()[name]}{os.sep}" for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return file.startswith(("<", *folders)) or "site-packages" in file or "dist-packages" in file


def show(message: str) -> None:
    """Print an error message on stderr, in the form of all commands."""
    from rich.console import Console
    from rich.markup import escape

    text = escape(printable(message, keep="\n"))
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {text}")


def did_you_mean(word: str, legal: Iterable[str], cutoff: float = 0.5) -> str:
    """`" Did you mean 'beta'?"` for the nearest legal word, else an empty string."""
    near = difflib.get_close_matches(str(word)[:LONGEST_WORD], list(legal), n=1, cutoff=cutoff)
    return f". Did you mean '{near[0]}'?" if near else ""


def unknown(kind: str, word: str, legal: Iterable[str], *, where: str = "", hint: str = "") -> UserError:
    """The error for a word that is not among the legal ones, with a suggestion and the whole list."""
    legal = sorted(legal)
    return UserError(
        f"no {kind} '{word}'{did_you_mean(word, legal)}", where=where, allowed=", ".join(legal) or "(none)", hint=hint
    )


def parsed(text: str | bytes) -> Any:
    """The value of a JSON text that somebody else may have written.

    Raises:
        ValueError: whatever is wrong with it, nesting too deep for json.loads included.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
