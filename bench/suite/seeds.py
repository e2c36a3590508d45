"""Seeds as they are written on the command line: `0,2-4`. Separate because options are read into numbers, and a printed
command writes them again."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.errors import UserError
from bench.spec import MOST_SEEDS

LARGEST = 2**63 - 1
SPELT_OUT = 3  # numbers in a row that are written one by one


def numbers(texts: Sequence[str]) -> list[int]:
    """The seeds of `--seeds 1,2 --seeds 5-7`, each once, in order.

    Raises:
        UserError: text that is no number or range, or more seeds than a suite may have.
    """
    found: dict[int, None] = {}
    for word in [word.strip() for text in texts for word in text.split(",") if word.strip()]:
        match = re.fullmatch(r"([0-9]{1,19})(?:-([0-9]{1,19}))?", word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last <= LARGEST:
            allowed = "non-negative integers and ranges of them, e.g. 1,2,3 or 1-3"
            raise UserError(f"'{word}' is not a seed", where="--seeds", allowed=allowed)
        if last - first >= MOST_SEEDS or len(found) + last - first >= 2 * MOST_SEEDS:
            what = f"'{word}': more than {MOST_SEEDS:,} seeds"
            raise UserError(what, where="--seeds", allowed=f"up to {MOST_SEEDS:,}")
        found.update(dict.fromkeys(range(first, last + 1)))
    return list(found)


def seeds_text(seeds: Sequence[int]) -> str:
    """[0, 2, 3, 4, 5] -> "0,2-5"."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    words = [f"{run[0]}-{run[-1]}" if len(run) > SPELT_OUT else ",".join(map(str, run)) for run in runs]
    return ",".join(words)
