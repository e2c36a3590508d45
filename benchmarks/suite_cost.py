"""What sharing and fusing save: a whole suite at once against the same rows one by one, each with all below it anew.

    python -m benchmarks.suite_cost --out benchmarks/results/suite_cost.json      # suites/table1.yaml, about 40 minutes

Together: `bench run SUITE` on an empty store. Singly: `bench run SUITE --only ROW --no-fuse` for every row, each on an
empty store of its own. Both have two processes at a time: together two jobs, singly two rows of one job each. The file
is written after every step; the same command goes on where it was killed, and a row that was cut off starts anew.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.store.store import Store
from benchmarks.measured import ROOT, measure, write

TARGET = "together / singly <= 1/3"
MEASURES = ("cpu", "wall", "stage_seconds")


def cost_of(suite: Path, sets: Sequence[str], *more: str) -> dict[str, Any]:
    """`bench run` on an empty store that is thrown away: wall and CPU seconds of the command and all its jobs, peak MB
    of its largest process, seconds of its stages."""
    with tempfile.TemporaryDirectory() as folder:
        store, log = Path(folder) / "store", Path(folder) / "log"
        options = [word for text in sets for word in ("--set", text)]
        command = [sys.executable, "-m", "bench", "run", str(suite), "--store", str(store), *options, *more]
        cost = measure(command, log=log)
        return asdict(cost) | stages_of(Store(store))


def alone(suite: Path, sets: Sequence[str], label: str) -> dict[str, Any]:
    """One row with all below it."""
    return cost_of(suite, sets, "--only", label, "--no-fuse", "--jobs", "1")


def stages_of(store: Store) -> dict[str, Any]:
    """How many stages a store has and what they took; a fused pass, whose stages all hold its seconds, counts once."""
    keys, passes = store.keys(), set()
    for key in keys:
        done = store.done(key)
        assert done is not None, "a stage of a finished run is not done"
        passes.add((store.load(key)["kind"], done.seconds))
    return {"stages": len(keys), "passes": len(passes), "stage_seconds": math.fsum(seconds for _, seconds in passes)}


def makespan(walls: Sequence[float], slots: int) -> float:
    """Wall seconds of tasks that so many workers take in order. (Measured ones were measured beside each other.)"""
    free = [0.0] * slots
    for wall in walls:
        free[free.index(min(free))] += wall
    return max(free)


def summary(found: Mapping[str, Any], labels: Sequence[str], slots: int) -> dict[str, Any]:
    """Sums over the rows, and together / singly; empty while something is missing."""
    if found.get("together") is None or set(labels) - set(found["rows"]):
        return {}
    rows = [found["rows"][label] for label in labels]
    singly = {name: math.fsum(row[name] for row in rows) for name in ("cpu", "stage_seconds")}
    singly |= {"wall": makespan([row["wall"] for row in rows], slots), "stages": sum(row["stages"] for row in rows)}
    ratio = {name: found["together"][name] / singly[name] for name in MEASURES}
    return {"singly": singly, "ratio": ratio}


def run(suite: Path, sets: Sequence[str], slots: int, out: Path) -> dict[str, Any]:
    """Measure what the file does not hold yet.

    Raises:
        SystemExit: the file is of another suite or of other settings.
    """
    labels, identity = planned(suite, sets)
    found: dict[str, Any] = {"target": TARGET, "plan": identity, "processes": slots, "together": None, "rows": {}}
    if out.exists():
        old = json.loads(out.read_text())
        if (old.get("plan"), old.get("processes")) != (identity, slots):
            sys.exit(f"{out} holds another suite or other settings: name another --out, or remove it")
        found = {name: old[name] for name in found}
    lock = threading.Lock()

    def note(label: str | None, cost: dict[str, Any]) -> None:
        with lock:
            if label is None:
                found["together"] = cost
            else:
                found["rows"][label] = cost
            write(out, "suite_cost", sys.argv[1:], found | summary(found, labels, slots))
        print(
            f"{label or 'together'}: {cost['cpu']:.0f} CPU s, {cost['wall']:.0f} s, {cost['stages']} stages", flush=True
        )

    if found["together"] is None:
        note(None, cost_of(suite, sets, "--jobs", str(slots)))
    missing = [label for label in labels if label not in found["rows"]]
    pool = ThreadPoolExecutor(slots)
    try:
        for done in [pool.submit(lambda label: note(label, alone(suite, sets, label)), label) for label in missing]:
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)
    return found | summary(found, labels, slots)


def planned(suite: Path, sets: Sequence[str]) -> tuple[list[str], str]:
    """(labels of the rows, digest of all stage keys: of everything that can change a number)."""
    from bench.cli.open import open_suite
    from bench.key import digest
    from bench.plan import planning

    loaded = open_suite(suite, sets=list(sets))
    return [row.label for row in loaded.rows], digest(sorted(planning.make(loaded).stages))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--suite", type=Path, default=ROOT / "suites" / "table1.yaml")
    parser.add_argument("--set", action="append", default=[], help="as of `bench run`")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the numbers; also what it goes on from")
    arguments = parser.parse_args()
    found = run(arguments.suite.resolve(), arguments.set, arguments.processes, arguments.out)
    print({name: round(value, 3) for name, value in found["ratio"].items()}, TARGET)


if __name__ == "__main__":
    main()
