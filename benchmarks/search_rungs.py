"""What ending trials early saves, and what it costs in the result: Hyperband against the whole grid of the same rates.

    python -m benchmarks.search_rungs --out benchmarks/results/search_rungs.json

A learning rate of the whole detector. The same seventeen rates (a Sobol sequence) are searched twice, each in its own
store: all trained to the end, and with three rungs (a ninth, a third, all). Steps are those that jobs trained, a step
that a rung had done counted once; `predicted` is what the rungs alone say. Then both winners are compared on val,
each trained with three seeds on all training images.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.cli.open import open_suite
from bench.cli.wanted import reported, seen
from bench.plan.planning import joined
from bench.search import plans
from bench.search.pruning import predicted_steps
from bench.store.store import Store
from benchmarks.measured import write
from reports.load import load

STEPS, TRIALS = 243, 17
RUNGS = [STEPS // 9, STEPS // 3]
SUITE = """preset: cpu
schedule: {{steps: {steps}, batch: 16, lr: 0.06, warmup: 30}}
seeds: [0, 1, 2]
rows:
  baseline: {{method: baseline}}
search:
  space: {{schedule.lr: 0.003:0.3:log}}
  sampler: qmc
  trials: {trials}
  round: {trials}
"""
PRUNED = "  pruner: hyperband\n  rungs: {rungs}\n"


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--work", type=Path, help="keep suites and stores here; the same command goes on")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rungs = [asked.steps // 9, asked.steps // 3]
    text = SUITE.format(steps=asked.steps, trials=asked.trials)
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        grid = searched(work / "grid", text)
        pruned = searched(work / "hyperband", text + PRUNED.format(rungs=rungs))
    predicted = predicted_steps(asked.trials, rungs, asked.steps, 3)
    found = {
        "rungs": [*rungs, asked.steps], "trials": asked.trials, "grid": grid, "hyperband": pruned,
        "predicted_steps": predicted, "steps_by_prediction": round(pruned["steps"] / predicted, 4),
        "steps_by_grid": round(pruned["steps"] / grid["steps"], 3),
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    if asked.out is not None:
        write(asked.out, "search_rungs", sys.argv[1:], found)
    return 0


def searched(folder: Path, text: str) -> dict[str, Any]:
    """Run a search; its steps, its winner, and that one's AP on val."""
    folder.mkdir(parents=True, exist_ok=True)
    path, root = folder / "rates.yaml", folder / "store"
    path.write_text(text)
    subprocess.run(
        [sys.executable, "-m", "bench", "search", str(path), "--store", str(root)], check=True, stdout=sys.stderr
    )
    suite, store = open_suite(path), Store(root)
    view = seen(suite, store)
    (best,) = view.finals()
    steps = 0.0
    for key, stage in joined(*plans.trial_plans(suite, view)).stages.items():
        done = store.done(key)
        if stage.kind == "train" and done is not None:
            trained = json.loads((store.output(key) / "train.json").read_text())["steps"]
            steps += trained * float(done.extra["part"])
    label = view.final_label(best)
    ap = [row.record.metrics["AP"] for row in load(store, reported(suite, view)) if row.record.row == label]
    values = [value for value in ap if value is not None]
    states = [trial.state for trial in view.trials]
    return {
        "steps": round(steps), "complete": states.count("complete"), "pruned": states.count("pruned"),
        "winner": best.number, "rate": best.chosen["schedule.lr"], "tune_AP": round(best.values[0], 3),
        "val_AP": [round(value, 3) for value in values], "val_mean": round(statistics.fmean(values), 3),
        "val_sd": round(statistics.stdev(values), 3), "machine_hours": round(view.machine_hours, 3),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
