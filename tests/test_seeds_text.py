"""Seeds as they are typed: lists, ranges, options that add up."""

from __future__ import annotations

import pytest

from bench.errors import UserError
from bench.suite.seeds import numbers, seeds_text


@pytest.mark.parametrize(
    ("texts", "seeds"),
    [
        (["1,2,3"], [1, 2, 3]),
        (["1-3"], [1, 2, 3]),
        (["0,2-4"], [0, 2, 3, 4]),
        (["3", "1, 2"], [3, 1, 2]),
        (["1-3", "2-4", "1"], [1, 2, 3, 4]),
        (["9223372036854775807"], [2**63 - 1]),
        (["0-999"], list(range(1000))),
        ([], []),
    ],
)
def test_seeds_are_read(texts: list[str], seeds: list[int]) -> None:
    assert numbers(texts) == seeds


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "-1",
        "1.5",
        "1e3",
        "²",
        "\u0661",
        "3-1",
        "1-",
        "1--3",
        "1-2-3",
        "9" * 5000,
        "9223372036854775808",
        "0x1",
        "nan",
        "1_0",
    ],
)
def test_what_is_no_seed_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--seeds: '.*' is not a seed\. Legal: .* e\.g\. 1,2,3 or 1-3") as error:
        numbers(["1", text])
    assert len(str(error.value)) < 2000


def test_a_range_is_not_written_out_before_it_is_counted() -> None:
    with pytest.raises(UserError, match=r"'0-9223372036854775806': more than 1,000 seeds\. Legal: up to 1,000"):
        numbers(["0-9223372036854775806"])
    with pytest.raises(UserError, match="more than 1,000 seeds"):
        numbers([f"{i}000-{i}999" for i in range(1, 10)])


@pytest.mark.parametrize(
    ("seeds", "text"),
    [([], ""), ([3], "3"), ([1, 2, 3], "1,2,3"), ([0, 2, 3, 4, 5, 9], "0,2-5,9"), ([3, 2, 1], "3,2,1")],
)
def test_seeds_are_written_as_they_are_read(seeds: list[int], text: str) -> None:
    assert seeds_text(seeds) == text
    assert numbers([text]) == seeds
