"""Results come in order and on time, errors where they belong, and no thread is left."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from bench.data.ahead import THREADS, Abandoned, Halt, made_ahead
from bench.errors import UserError

PATIENCE = 60.0


def left() -> list[str]:
    """Threads that still make something."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREADS)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order_whoever_is_first(workers: int) -> None:
    def slow(number: int, _: Halt) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0.0)
        return number * number

    with made_ahead(slow, range(8), workers) as results:
        assert list(results) == [0, 1, 4, 9, 16, 25, 36, 49]
    assert not left()


@pytest.mark.parametrize(("workers", "begun"), [(0, 1), (1, 2), (3, 4)])
def test_so_many_are_made_before_they_are_asked_for(workers: int, begun: int) -> None:
    """With an endless row of wishes: the first is taken, and nothing more is asked for until the next."""
    asked: list[int] = []
    made: list[tuple[int, int]] = []

    def wishes() -> Iterator[int]:
        for number in itertools.count():
            asked.append(threading.get_ident())
            yield number

    def make(number: int, _: Halt) -> int:
        made.append((number, threading.get_ident()))
        return number

    with made_ahead(make, wishes(), workers) as results:
        assert next(results) == 0
        end = time.monotonic() + PATIENCE
        while len(made) < begun and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(0.05)
        assert sorted(number for number, _ in made) == list(range(begun))
        assert next(results) == 1
    own = threading.get_ident()
    assert set(asked) == {own}
    assert {thread == own for _, thread in made} == {workers == 0}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_comes_where_its_result_would_have(workers: int) -> None:
    def make(number: int, _: Halt) -> int:
        if number == 3:
            raise UserError("cannot decode", where="3.jpg")
        return number

    with made_ahead(make, range(9), workers) as results:
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(UserError) as error:
            next(results)
    assert error.value.where == "3.jpg"
    assert not left()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_wish_that_goes_wrong_is_no_error_until_it_is_due(workers: int) -> None:
    def wishes() -> Iterator[int]:
        yield from (0, 1)
        raise UserError("the sampler shows no image in epoch 1")

    with made_ahead(lambda number, _: number, wishes(), workers) as results:
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(UserError, match="epoch 1"):
            next(results)


def test_an_end_does_not_wait_for_what_nobody_wants() -> None:
    """Each result takes minutes; whoever makes it looks up once in a while."""
    working, abandoned = threading.Semaphore(0), []

    def make(number: int, halt: Halt) -> int:
        if number == 0:
            return number
        working.release()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                halt.check()
            except Abandoned:
                abandoned.append(number)
                raise
            time.sleep(0.001)
        return number

    def consume() -> None:
        with made_ahead(make, range(9), 2) as results:
            next(results)
            for _ in range(2):
                assert working.acquire(timeout=PATIENCE)
            raise ZeroDivisionError("of the caller")

    begun = time.monotonic()
    with pytest.raises(ZeroDivisionError, match="of the caller"):
        consume()
    assert time.monotonic() - begun < PATIENCE / 2
    assert sorted(abandoned) == [1, 2], "what was under way ends, what waited never begins"
    assert not left()


def test_each_thread_begins_once() -> None:
    begun: list[int] = []
    with made_ahead(lambda n, _: threading.get_ident(), range(20), 2, lambda: begun.append(threading.get_ident())) as r:
        assert set(r) <= set(begun)
    assert len(begun) == len(set(begun)) <= 2
