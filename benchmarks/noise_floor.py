"""What a training gives differently when nothing was changed: the same suite, some times, each time in an empty store.

    python -m benchmarks.noise_floor --out benchmarks/results/noise-cpu.json
    python -m benchmarks.noise_floor --set machine.device=cuda --set machine.precision=bfloat16 --out FILE

On a CPU a key gives the same bits, so that every spread is 0; on a GPU some sums have no order. A difference between
rows that is not larger than the spread of one row says nothing. The seed is the same throughout: what seeds change is
told by the intervals of a report.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.store.store import Store
from benchmarks.measured import ROOT, measure, write

SHOWN = ("AP", "AP1", "AP2", "AP3", "AP4")


def once(suite: Path, sets: Sequence[str], only: str | None) -> tuple[pd.DataFrame, dict[str, str]]:
    """One run in an empty store that is thrown away: (row, seed, metric, value) of each number, and stage key -> digest
    of its outputs."""
    from reports.load import frame

    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        options = [word for text in sets for word in ("--set", text)] + (["--only", only] if only else [])
        command = [sys.executable, "-m", "bench", "run", str(suite), "--store", str(store), *options]
        measure(command, log=Path(folder) / "log")
        opened = Store(store)
        keys = opened.keys()
        digests = {key: done.digest for key in keys if (done := opened.done(key)) is not None}
        return frame(store)[["row", "seed", "metric", "value"]], digests


def spread(runs: Sequence[pd.DataFrame]) -> dict[str, dict[str, dict[str, float]]]:
    """Row -> metric -> standard deviation and range over the runs, AP points, largest over the seeds. A metric that a
    single run has is left out."""
    every = pd.concat(runs).dropna(subset=["value"])
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (row, metric, _), values in every.groupby(["row", "metric", "seed"], sort=False)["value"]:
        if len(values) < 2:
            continue
        same = values.nunique() == 1  # a mean may round, and a spread is then not quite 0
        one = {"sd": 0.0 if same else float(values.std()), "range": float(values.max() - values.min())}
        old = found.setdefault(row, {}).get(metric, one)
        found[row][metric] = {name: max(old[name], one[name]) for name in one}
    return found


def measured(suite: Path, sets: Sequence[str], only: str | None, times: int) -> dict[str, Any]:
    """Spreads, and how many of the stages were the same bits each time."""
    runs = []
    for number in range(times):
        runs.append(once(suite, sets, only))
        print(f"run {number + 1} of {times}: {len(runs[-1][1])} stages", flush=True)
    keys = set.intersection(*(set(digests) for _, digests in runs))
    same = sum(len({digests[key] for _, digests in runs}) == 1 for key in keys)
    return {
        "suite": suite.name, "runs": times, "stages": len(keys), "same_bits": same,
        "spread": spread([numbers for numbers, _ in runs]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", type=Path, default=ROOT / "suites" / "smoke.yaml")
    parser.add_argument("--set", action="append", default=[], help="as of `bench run`")
    parser.add_argument("--only", help="rows, as of `bench run`")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.runs < 2:
        parser.error("--runs: a spread needs two runs at the least")
    found = measured(asked.suite.resolve(), asked.set, asked.only, asked.runs)
    print(f"{found['same_bits']} of {found['stages']} stages are the same bits in all {found['runs']} runs")
    for row, metrics in found["spread"].items():
        shown = ", ".join(f"{name} {metrics[name]['range']:.2g}" for name in SHOWN if name in metrics)
        print(f"{row}: largest minus smallest: {shown} (AP points)")
    if asked.out is not None:
        write(asked.out, "noise_floor", sys.argv[1:], found)


if __name__ == "__main__":
    main()
