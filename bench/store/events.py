"""The event file of an attempt. Separate because a job writes it and the driver, which has MLflow, reads it.

One JSON object per line, appended with one write each: a kill can cut only the last line; a reader waits for its end.
"""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

from bench.errors import parsed
from bench.store import below
from bench.store.disk import disk_errors, plain_value

_LATEST = 1e11  # seconds since 1970: a time that can be shown


class Events:
    """Appends to an events.jsonl: `events.write("step", step=10, loss=1.3)`. Opens the file for each line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **values: Any) -> None:
        """Append one line with the event's name and the wall-clock time (seconds since 1970).

        Raises:
            UserError: it cannot be written.
        """
        value = {"event": event, "time": round(time.time(), 3), **values}
        line = (json.dumps(value, default=plain_value) + "\n").encode()
        with disk_errors(self.path, len(line)):
            descriptor = below.opened(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                before = os.fstat(descriptor).st_size
                if os.write(descriptor, line) < len(line):  # a short write: the disk is full
                    os.ftruncate(descriptor, before)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(descriptor)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < _LATEST


def read_events(path: Path, start: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The events after byte `start`, and the byte to continue at. A torn line is skipped, an unfinished one left."""
    try:
        with os.fdopen(below.opened(path, os.O_RDONLY), "rb") as file:
            file.seek(start)
            text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return [], start
    except OSError as error:
        if error.errno == errno.EINVAL:  # a folder, a pipe
            return [], start
        raise
    whole = text[: text.rfind(b"\n") + 1]
    events = []
    for line in whole.splitlines():
        try:
            event = parsed(line)
        except ValueError:
            continue
        if isinstance(event, dict) and _is_time(event.get("time", 0.0)):
            events.append(event)
    return events, start + len(whole)
