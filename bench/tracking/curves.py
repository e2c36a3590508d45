"""A job's curves on a tracking server while it works. Separate because no other file of a job uses MLflow.

Without a server a job only appends to its event file, and the driver does the rest. With one, a thread sends the same
events to the same runs, so that they are there also when no driver watches (`--detach`). It never ends a job: a slow
or absent server is reported once, and the next driver sends what is missing.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType

from bench.environment import masked
from bench.lineage import read_stage
from bench.store.store import Store
from bench.tracking.mirror import is_served
from bench.tracking.stages import Whose, follow, tracked

EVERY_S = 15.0  # curves are for people to look at
PATIENCE_S = 20.0  # for which the end of a stage waits for a slow server


@dataclass(frozen=True)
class Tracking:
    """Where the curves go.

    Attributes:
        uri: of the tracking server; unless it is http(s) the job leaves tracking to the driver.
        suite: its name.
        whose: key -> what a stage is made for.
    """

    uri: str
    suite: str
    whose: Mapping[str, Whose] = field(default_factory=dict)

    def of(self, keys: Collection[str]) -> Tracking:
        """The same for one job: of thousands of stages, its own."""
        return replace(self, whose={key: self.whose[key] for key in keys if key in self.whose})


class Curves:
    """A context manager around the work on some stages. Exit it after their leases: a stage that is not done then was
    stopped or has failed."""

    def __init__(self, tracking: Tracking | None, store: Store, keys: Sequence[str]) -> None:
        self._tracking, self._store, self._keys = tracking, store, tuple(keys)
        self._ended = threading.Event()
        self._reported = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Curves:
        if self._tracking is not None and is_served(self._tracking.uri):
            self._thread = threading.Thread(target=self._follow, args=(self._tracking,), name="curves", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(PATIENCE_S)

    def _follow(self, tracking: Tracking) -> None:
        store = Store(self._store.root)  # a second one: a Store caches what it has read, and is not thread-safe
        while not self._ended.wait(EVERY_S):
            self._bring(tracking, store)
        self._bring(tracking, store)

    def _bring(self, tracking: Tracking, store: Store) -> None:
        for key in self._keys:
            try:
                stage = read_stage(store.load, key)
                whose = tracking.whose.get(key) or Whose(f"{stage.kind} {key[:6]}")
                follow(store.root, tracking.uri, tracking.suite, tracked(store, stage, whose))
            except Exception as error:
                if not self._reported:
                    print(masked(f"{tracking.uri}: {type(error).__name__}: {str(error)[:300]}"), file=sys.stderr)
                    print("the curves stay in the store; the next driver sends them", file=sys.stderr, flush=True)
                self._reported = True
                return
