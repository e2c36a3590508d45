"""Many odd suites, command lines and cluster files, with a seed:

    python -m tests.faults.fuzz --seeds 3 --suites 300 --searches 150 --words 200 --clusters 60

Every case that is not answered well is printed with what was wrong, and kept in a folder of its own. What the tests run
is one seed of it (test_fuzz.py).
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults import fuzz_clusters, fuzz_suites, fuzz_words
from tests.faults.fuzz_case import Answer, Case, answer

KINDS: dict[str, Callable[[int, int], Iterator[Case]]] = {
    "suites": fuzz_suites.cases,
    "searches": fuzz_suites.searches,
    "words": fuzz_words.cases,
    "clusters": fuzz_clusters.cases,
}
NUMBERS = {"suites": 300, "searches": 150, "words": 200, "clusters": 60}


def run(kind: str, seed: int, n: int, folder: Path) -> Iterator[tuple[Case, Answer]]:
    """Every case of a kind with its answer, each in a folder of its own."""
    for number, case in enumerate(KINDS[kind](seed, n)):
        yield case, answer(case, folder / f"{kind}-{seed}-{number}")


def main() -> int:
    """0: every case was answered well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from --first on")
    parser.add_argument("--first", type=int, default=0)
    for kind, number in NUMBERS.items():
        parser.add_argument(f"--{kind}", type=int, default=number)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-fuzz-"))
    bad = 0
    for seed in range(asked.first, asked.first + asked.seeds):
        for kind in KINDS:
            begun, codes, longest, wrong = time.process_time(), [0, 0], 0.0, 0
            for case, found in run(kind, seed, getattr(asked, kind), folder):
                codes[found.code == 2] += 1
                longest = max(longest, found.seconds)
                if found.wrong:
                    wrong += 1
                    print(f"-- {kind} {seed} {case.name!a}: {shlex.join(case.words)[:200]!a}\n{found.wrong[-1500:]!s}")
            spent = time.process_time() - begun
            counted = f"{sum(codes)} cases: {codes[0]} accepted, {codes[1]} refused, {wrong} not answered well"
            print(f"{kind}, seed {seed}: {counted}; {spent:.0f} CPU s, longest {longest:.1f} s", flush=True)
            bad += wrong
    if bad:
        print(f"the files are in {folder}")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
