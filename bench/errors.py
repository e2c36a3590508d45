"""The one error a user sees. Separate so that every floor can raise it and one place formats it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.allowed:
            text += f"{'' if text.endswith('?') else '.'} Legal: {self.allowed}"
        if self.hint:
            text += f"\n  {self.hint}"
        return text

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.allowed, self.hint)


class StageError(UserError):
    """A stage that cannot succeed (e.g. a loss that is not finite). The suite continues; exit code 1."""

    exit_code = 1


def _rebuild(kind: type[UserError], what: str, where: str, allowed: str, hint: str) -> UserError:
    return kind(what, where=where, allowed=allowed, hint=hint)


def show(message: str) -> None:
    """Print an error message on stderr, in the form of all commands."""
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(message)}")


def did_you_mean(word: str, legal: Iterable[str]) -> str:
    """`" Did you mean 'beta'?"` for the nearest legal word, else an empty string."""
    near = difflib.get_close_matches(str(word), list(legal), n=1, cutoff=0.5)
    return f". Did you mean '{near[0]}'?" if near else ""


def unknown(kind: str, word: str, legal: Iterable[str], *, where: str = "", hint: str = "") -> UserError:
    """The error for a word that is not among the legal ones, with a suggestion and the whole list."""
    legal = sorted(legal)
    return UserError(
        f"no {kind} '{word}'{did_you_mean(word, legal)}", where=where, allowed=", ".join(legal) or "(none)", hint=hint
    )
