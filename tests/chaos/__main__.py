"""Many seeded runs with real faults, and what came of them:

    python -m tests.chaos --runs 50 --seed 7 --jobs 3 --out reports/measured/chaos/chaos.md
    python -m tests.chaos --suite stepwise --runs 20 --seed 7 --jobs 2 --out reports/measured/chaos/stepwise.md
    python -m tests.chaos --suite drcl --runs 20 --seed 7 --jobs 2 --out reports/measured/chaos/drcl.md

A line is printed for every run, and kept in WORK/runs.jsonl: the same command goes on where it was ended. A run is had
again by `--only NUMBER`. Separate from the episodes, which know nothing of one another.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.chaos import results
from tests.chaos.episode import ENDING, Report, episode
from tests.chaos.kinds import Drawn, draw
from tests.chaos.scene import CHOICE, PLAYED, may_mount, undisturbed, wanted
from tests.cluster.slurm_up import Unavailable, install
from tests.tiny_suite import digests


def main() -> int:
    """0: every run ended as it should."""
    asked = _parsed()
    work: Path = asked.work or Path(tempfile.gettempdir()) / f"bench-chaos-{asked.suite}-{asked.seed}"
    work.mkdir(parents=True, exist_ok=True)
    work.chmod(0o755)  # munged wants a folder that all may enter
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ[CHOICE] = asked.suite
    numbers = [asked.only] if asked.only is not None else list(range(asked.runs))
    known = {} if asked.only is not None else results.read(work / "runs.jsonl")
    todo = [draw(asked.seed, number) for number in numbers if number not in known]
    skipped = _cannot(work)
    todo = [one for one in todo if not _skip(one, skipped)]
    print(f"{len(todo)} runs to do, {len(known)} known; work in {work}", flush=True)
    expected = digests(wanted(), undisturbed(work))
    with ThreadPoolExecutor(asked.jobs) as pool:
        going = [pool.submit(_one, one, work, expected, asked.seed) for one in todo]
        try:
            for ended in as_completed(going):
                report = ended.result()
                with (work / "runs.jsonl").open("a") as file:
                    print(report.line, flush=True)
                    file.write(json.dumps(report.to_json()) + "\n")
                known[report.number] = report.to_json()
        except KeyboardInterrupt:  # runs that are under way end their drivers and clusters, and are not written down
            ENDING.set()
            pool.shutdown(cancel_futures=True)
            raise
    if asked.out is not None:
        results.write(asked.out, [known[number] for number in sorted(known)], asked.seed, sys.argv[1:], skipped)
    return 1 if any(report["failures"] for report in known.values()) else 0


def _one(drawn: Drawn, work: Path, expected: dict[str, str | None], seed: int) -> Report:
    folder = work / f"r{drawn.number:02d}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    report = episode(drawn, folder, expected, seed)
    if not report.failures:  # what failed is kept as evidence
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _cannot(work: Path) -> dict[str, str]:
    """Kinds and places that are not to be had on this machine, and why; they are named in the results."""
    found = {}
    if not may_mount(work):
        found["disk full"] = "mounting is not allowed here"
    try:
        install()
    except Unavailable as error:
        found["slurm"] = str(error)
    return found


def _skip(drawn: Drawn, skipped: dict[str, str]) -> bool:
    why = [name for name in skipped if name == drawn.place or name in {fault.kind for fault in drawn.faults}]
    for name in why:
        print(f"run {drawn.number} {drawn.place} is left out: {name}: {skipped[name]}", flush=True)
    return bool(why)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--suite", choices=sorted(PLAYED), default="smoke")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=3, help="runs at a time")
    parser.add_argument("--only", type=int, help="this run alone")
    parser.add_argument("--out", type=Path, help="Markdown file; a .json of the same name goes beside it")
    parser.add_argument("--work", type=Path, help="where stores lie (default: in the temporary folder)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
