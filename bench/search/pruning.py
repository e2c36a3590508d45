"""Which trials of a round end at a rung. Separate from study.py because it is arithmetic on values alone.

Rounds are synchronous: all trials of a round that are at a rung have been measured before any ends there, so that what
ends depends on no clock. Optuna's median and Wilcoxon pruners are asked then, a trial at a time, in the order of their
numbers. Its Hyperband is asynchronous (ASHA): the first trials of a rung compete with nobody and go on. Here a round is
divided among the brackets as Hyperband divides them (Li et al., Hyperband, JMLR 2018, algorithm 1), and the best of
each rung go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def brackets(number: int, rungs: int, reduction: int) -> list[int]:
    """For each of so many trials, in order, the rung that it begins with (`rungs`: it is measured at the end only).

    Hyperband with levels 0..s_max = rungs gives the bracket that begins at rung i a share of
    ceil((s_max + 1) / (s + 1) * reduction^s) trials, s = s_max - i. Shares are rounded to whole trials, those that
    begin early first.
    """
    shares = [(rungs + 1) / (s + 1) * reduction**s for s in range(rungs, -1, -1)]
    total, given, found = sum(shares), 0, []
    for begin, share in enumerate(shares):
        upto = round(number * sum(shares[: begin + 1]) / total) if share else given
        found += [begin] * (upto - given)
        given = upto
    return found


def going_on(values: Mapping[int, float], reduction: int) -> set[int]:
    """Of the trials of one bracket at one rung (number -> value), those that go on: one of `reduction`, at least one;
    the lower number of equals."""
    keep = max(1, len(values) // reduction)
    return set(sorted(values, key=lambda number: (-values[number], number))[:keep])


def predicted_steps(number: int, rungs: Sequence[int], full: int, reduction: int) -> int:
    """Steps that a round of so many trials trains, by its rungs: no step of a trial that goes on is repeated."""
    levels, total = [*rungs, full], 0
    begins = brackets(number, len(rungs), reduction)
    for begin in range(len(levels)):
        left, before = begins.count(begin), 0
        for level in levels[begin:]:
            total += left * (level - before)
            before = level
            left = max(1, left // reduction) if left else 0
    return total
