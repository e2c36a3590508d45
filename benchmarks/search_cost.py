"""What a search costs beside the training that it searches over.

    python -m benchmarks.search_cost suites/search_bags_beta.yaml --alone rows.BAGS.beta=9.4 \\
        --out benchmarks/results/search_bags_beta.json
    python -m benchmarks.search_cost suites/search_tau.yaml --reference suites/search_bags_beta.yaml \\
        --alone rows.BAGS.beta=9.4 --out benchmarks/results/search_tau.json

One job at a time on one machine: the whole search in a store of its own, then one trial of the reference by itself over
the same trunk: of a row that `--alone` changes to what the search has not trained (else its result would be there).
A search may cost at most twice one training of the reference's classifier plus one prediction and evaluation per trial;
data and trunk (the baseline), which all trials share, are left out of both. The seconds are those that the jobs
recorded: of a pass that makes several stages, the pass once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.cli.open import open_suite
from bench.cli.wanted import seen
from bench.lineage import trunk_of
from bench.plan.cost import share_of_pass
from bench.plan.planning import joined
from bench.search import plans
from bench.stage import Stage
from bench.store.store import Store
from benchmarks.measured import write

ONE = (
    "search.trials=1",
    "search.round=1",
    "search.sampler=random",
    "search.seed=1000",
)  # a trial of its own, by itself


def main() -> int:
    """Measure and write; 1 where the search costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path)
    parser.add_argument("--reference", type=Path, help="suite whose trial is the measure (default: the same)")
    parser.add_argument("--alone", required=True, help="the reference's trial: rows.LABEL.SETTING=VALUE")
    parser.add_argument("--store", type=Path, help="keep the store of the search here")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = asked.store or Path(folder) / "search"
        wall = run(asked.suite, store)
        found = of_search(asked.suite, store) | {"wall_seconds": round(wall, 1)}
        reference = asked.reference or asked.suite
        alone = (*ONE, asked.alone)
        run(reference, store, *(word for text in alone for word in ("--set", text)))
        one = of_search(reference, store, *alone)
    may = 2 * one["train"] + found["trials"] * one["predict_and_evaluate"]
    beyond = found["train"] + found["predict_and_evaluate"]
    found |= {"reference": one, "beyond_the_baseline": round(beyond, 1), "may_cost": round(may, 1)}
    found["ratio"] = round(beyond / may, 3)
    print(json.dumps(found, indent=1))
    if asked.out is not None:
        write(asked.out, "search_cost", sys.argv[1:], found)
    return 0 if found["ratio"] <= 1 else 1


def run(suite: Path, store: Path, *more: str) -> float:
    """A search to its end, one job at a time; seconds."""
    begun = time.monotonic()
    words = [sys.executable, "-m", "bench", "search", str(suite), "--store", str(store), "--jobs", "1", *more]
    subprocess.run(words, check=True, stdout=sys.stderr)
    return time.monotonic() - begun


def of_search(path: Path, root: Path, *sets: str) -> dict[str, Any]:
    """Seconds of what the trials of a search made: trunk and data, trainings above it, predictions and evaluations."""
    suite, store = open_suite(path, sets=sets), Store(root)
    view = seen(suite, store)
    plan = joined(*plans.trial_plans(suite, view))
    found = {"trials": len(view.trials), "data_and_trunk": 0.0, "train": 0.0, "predict_and_evaluate": 0.0}
    for key, stage in plan.stages.items():
        if (done := store.done(key)) is not None:
            found[_part(stage)] += share_of_pass(done)
    return {name: round(value, 1) for name, value in found.items()}


def _part(stage: Stage) -> str:
    if stage.kind == "data" or (stage.kind == "train" and trunk_of(stage) == stage):
        return "data_and_trunk"
    return "train" if stage.kind == "train" else "predict_and_evaluate"


if __name__ == "__main__":
    sys.exit(main())
