"""Cluster files that nobody should have written, made from two that work. See fuzz_suites.py."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

from tests.conftest import TINY
from tests.faults.fuzz_case import Case, document, mutated, scarred
from tests.faults.fuzz_suites import LAUGHS

CLUSTERS: tuple[dict[str, Any], ...] = (
    {
        "kind": "slurm", "partition": "gpu", "account": "me", "qos": "low", "time_min": 60, "gpus": 1, "cpus": 8,
        "mem_gb": 32, "nodes": 1, "tasks": 2, "sbatch": {"constraint": "a100", "exclusive": True, "nice": 5},
        "array_parallelism": 4, "setup": ["module load cuda", "export A=b"], "python": "apptainer exec x.sif python",
        "signal_delay_s": 120, "max_retries": 3, "pause_s": 30.0,
        "stages": {"data": {"gpus": 0}, "evaluate": {"gpus": 0, "time_min": 10, "sbatch": {"constraint": "cpu"}}},
    },
    {"kind": "local", "max_retries": 0, "pause_s": 0},
)  # fmt: skip
ATTACKS = {
    "laughs": f"kind: local\n{LAUGHS}",
    "deep": "setup: " + "[" * 3000,
    "a list": "- kind: local\n",
    "nothing": "",
}


def cases(seed: int, n: int) -> Iterator[Case]:
    """`n` cluster files beside the tiny suite, and the command that shows what would be submitted."""
    rng = random.Random(f"clusters {seed}")
    attacks = list(ATTACKS.items())
    for number in range(n):
        if number < len(attacks):
            name, content = attacks[number][0], attacks[number][1].encode()
        else:
            tree = copy.deepcopy(rng.choice(CLUSTERS))
            if rng.random() < 0.2:
                name, content = scarred(document(tree), rng)
            else:
                name = "; ".join(mutated(tree, rng) for _ in range(rng.choice((1, 1, 2))) if tree)
                content = document(tree).encode("utf-8", "surrogatepass")
        words = ("plan", "s.yaml", "--cluster", "c.yaml", *rng.choice(((), (), ("--json",))))
        yield Case(f"{number}: {name}", words, {"s.yaml": TINY.encode(), "c.yaml": content})
