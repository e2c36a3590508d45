"""Results in the order in which they are needed, made in advance by threads. Separate from loader.py, which decides
which batches there are; here it is decided when they are made.

Threads, not processes: Pillow and numpy release Python's lock while they decode, resize and copy, and threads made more
batches per second than processes (benchmarks/README.md), which send each through shared memory. That is small in
containers, and a process can outlive its training.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")
THREADS = "batches"  # what the names of the threads begin with


class Abandoned(Exception):
    """This result is no longer needed."""


class Halt:
    """Set when results are no longer needed. `make` checks it between images, so that its thread ends promptly."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def check(self) -> None:
        """Raise `Abandoned` if it is set."""
        if self._event.is_set():
            raise Abandoned


@contextlib.contextmanager
def made_ahead(
    make: Callable[[A, Halt], T], wanted: Iterable[A], workers: int, begin: Callable[[], object] = lambda: None
) -> Iterator[Iterator[T]]:
    """`make` of each of `wanted`, in order. Every result is made by one thread, and up to `workers` + 1 are under way
    or ready; none of the threads is left afterwards.

    What `make` or `wanted` raises is raised, as it is, where its result would have come: not earlier.

    Args:
        make: a function of its first argument alone.
        wanted: iterated in the caller's thread.
        workers: number of threads; 0: each result is made by the caller, when it takes it.
        begin: called once in each thread.
    """
    halt = Halt()
    if workers == 0:
        yield (make(one, halt) for one in wanted)
        return
    pool = ThreadPoolExecutor(workers, THREADS, initializer=begin)
    try:
        yield _in_order(lambda one: pool.submit(make, one, halt), iter(wanted), workers + 1)
    finally:
        halt.set()
        pool.shutdown(cancel_futures=True)


def _in_order(submit: Callable[[A], Future[T]], wanted: Iterator[A], most: int) -> Iterator[T]:
    waiting: deque[Future[T]] = deque()
    more = True
    while True:
        while more and len(waiting) < most:
            try:
                waiting.append(submit(next(wanted)))
            except StopIteration:
                more = False
            except Exception as error:  # of a batch that is not due yet, and perhaps never will be
                more = False
                waiting.append(Future())
                waiting[-1].set_exception(error)
        if not waiting:
            return
        yield waiting.popleft().result()
