"""The files of jobs, outside the store: a folder per submission, and how it is filled without interruption. Separate so
that the launchers do not import one another.

submitit's pickles lie in the user's own folder: a pickle runs code when it is read, so it never lies in a shared store.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.errors import UserError
from bench.store import own


def job_folder() -> Path:
    """A fresh folder, for its owner only.

    Raises:
        UserError: it cannot be made.
    """
    base = own.private("jobs")
    try:
        return Path(tempfile.mkdtemp(prefix=f"{time.strftime('%Y%m%d-%H%M%S')}-", dir=base))
    except OSError as error:
        raise UserError(f"cannot be made: {error.strerror}", where=str(base), hint=own.HINT) from None


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Submit whole, and start children with Ctrl-C and the end of the terminal blocked (they inherit the signal mask):
    submitit's controller would kill the job before it has saved. The job itself unblocks them (`StopFlag.install`);
    signals that arrive meanwhile are delivered afterwards."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
