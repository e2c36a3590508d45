"""Users' requests to the drivers at work on a store: stop stages, try stages again. Separate because the loop of
bench/launch/loop.py reads them and `stop` and `retry` write them, perhaps on another host.

One append-only file, store/orders.jsonl. A driver reads what is appended after it began: `stop` stops what runs now,
and the next `run` continues.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.store.events import Events, read_events
from bench.store.lease import host

FILE = "orders.jsonl"
Verb = Literal["stop", "retry"]


@dataclass(frozen=True)
class Request:
    """A verb, and the stages it concerns."""

    verb: Verb
    keys: frozenset[str]


def request(root: Path, verb: Verb, keys: Collection[str]) -> None:
    """Write a request to all drivers at work on a store.

    Raises:
        UserError: the store cannot be written.
    """
    Events(root / FILE).write(verb, keys=sorted(keys), by=host())


class Requests:
    """The requests that are made from now on."""

    def __init__(self, root: Path) -> None:
        self._path = root / FILE
        self._at = self._path.stat().st_size if self._path.exists() else 0

    def new(self) -> list[Request]:
        """Those since the last call, in their order."""
        events, self._at = read_events(self._path, self._at)
        verbs: dict[object, Verb] = {"stop": "stop", "retry": "retry"}
        found = [(verbs.get(event.get("event")), event.get("keys")) for event in events]
        return [Request(verb, frozenset(keys)) for verb, keys in found if verb and isinstance(keys, list)]
