"""Addresses: stable for ever, and independent of each other."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bench.seeds import address, generator

Address = tuple[int, str, int, int, int]
ADDRESSES = st.tuples(st.integers(0, 99), st.sampled_from(["order", "augment"]), *[st.integers(0, 99)] * 3)


def test_golden_numbers() -> None:
    """Another value here means that every stored result was drawn otherwise: VERSIONs must rise."""
    assert address(0, "order") == 4354211732196832387
    assert address(3, "augment", 1, 20, 7) == 6234603519481480814
    assert generator(0, "order").integers(0, 1000, 4).tolist() == [673, 91, 846, 725]


@given(ADDRESSES, ADDRESSES)
def test_different_addresses_are_different_draws(a: Address, b: Address) -> None:
    assert (address(*a) == address(*b)) == (a == b)
    assert 0 <= address(*a) < 2**63


def test_a_draw_does_not_depend_on_what_was_drawn_before() -> None:
    first = generator(1, "augment", 0, 5, 2).random(8)
    generator(1, "augment", 0, 4, 2).random(1000)
    np.testing.assert_array_equal(generator(1, "augment", 0, 5, 2).random(8), first)


def test_neighbouring_addresses_are_uncorrelated() -> None:
    draws = np.stack([generator(0, "augment", 0, step).random(2000) for step in range(20)])
    correlation = np.corrcoef(draws)
    worst = max(abs(correlation[i, j]) for i, j in itertools.combinations(range(20), 2))
    assert worst < 5 / np.sqrt(2000)  # five standard errors of a correlation of independent draws
