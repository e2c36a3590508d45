"""Which threads make a stage's batches. Separate from work.py, which every stage kind imports: these need torch."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bench.data.loader import Workers
from bench.data.split import Split
from bench.run.work import Work
from bench.spec import Machine

MOST = 4  # what `auto` takes at most: each batch that is ready waits in memory (16 images of 800 x 1088: 167 MB)


def workers_of(works: Sequence[Work], split: Split, device: str) -> Workers:
    """machine.workers for one pass over a split; the number is recorded with each of these stages."""
    count = count_of(works[0].machine, device, files=split.array() is None)
    for work in works:
        work.workers = count
    return Workers(count, pinned=device == "cuda")


def count_of(machine: Machine, device: str, *, files: bool) -> int:
    """How many threads `machine.workers` means; `files`: images are decoded, not cut out of an array."""
    if machine.workers != "auto":
        return machine.workers
    if device != "cuda" or not files:
        return 0
    return max(1, min(MOST, _cores() - 1))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
