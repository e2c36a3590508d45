"""Curves in the store's own MLflow while a run works. Separate from track.py, which brings them, since this decides
when: a thread of the driver, so that nothing that it does, or fails to do, holds the driver up.

To a server jobs send their curves themselves (curves.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

EVERY_S = 60.0
SHARE = 0.05  # of the time, at most: where a turn takes long, the next one comes later
PATIENCE_S = 3.0  # for which the end of a run waits for a turn; what it lacks is brought afterwards


class Live:
    """A context manager around a run: calls `bring` every minute, in a thread.

    Args:
        bring: brings what is new; a notice where that failed. Called by the thread alone.
    """

    def __init__(self, bring: Callable[[], str | None]) -> None:
        self._bring = bring
        self._ended = threading.Event()
        self._notice: str | None = None
        self._thread = threading.Thread(target=self._work, name="live", daemon=True)

    @property
    def notice(self) -> str | None:
        """Why the last turn failed; None: it did not."""
        return self._notice

    def __enter__(self) -> Live:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if kind is None:  # else the driver is to end at once
            self._thread.join(PATIENCE_S)

    def _work(self) -> None:
        pause = EVERY_S
        while not self._ended.wait(pause):
            begun = time.monotonic()
            try:
                self._notice = self._bring()
            except Exception as error:  # a thread that dies says so in the middle of what the driver draws
                self._notice = f"{type(error).__name__}: {str(error)[:300]}"
            pause = max(EVERY_S, (time.monotonic() - begun) / SHARE)
