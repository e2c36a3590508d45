"""Searches that are killed at seeded moments, and whether the ones that went on found what an undisturbed one does:

    python -m tests.search.kills --kills 20 --seed 0 --out reports/measured/search/kills.md

Each run starts the search, waits for a drawn share of the time that the undisturbed one took, kills with SIGKILL the
driver, a job, or both, or cuts the journal in its last line as well, and starts the search again; up to three kills in
one run. At the end trials, winner and val numbers must be equal, no finished trial may have been repeated, none may be
left RUNNING, and no finished stage may have been made twice.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.search import tiny

KINDS = ("driver", "job", "driver and job", "journal")


def main() -> int:
    """0: every run ended as it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-search-kills-"))
    suite = tiny.written(work)
    begun = time.monotonic()
    assert tiny.search(suite, work / "whole").returncode == 0
    took = time.monotonic() - begun
    expected = tiny.outcome(suite, work / "whole")
    lines, failures = [], 0
    for number in range(asked.kills):
        store = work / f"k{number:02d}"
        told, wrong = killed(suite, store, random.Random(f"{asked.seed}/{number}"), KINDS[number % len(KINDS)], took)
        wrong += differences(expected, suite, store)
        failures += bool(wrong)
        lines.append(f"| {number} | {told} | {'; '.join(wrong) or 'equal'} |")
        print(lines[-1], flush=True)
        if not wrong:
            shutil.rmtree(store)
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(text_of(asked, took, lines, failures))
    return 1 if failures else 0


def killed(suite: Path, store: Path, rng: random.Random, kind: str, took: float) -> tuple[str, list[str]]:
    """Kill a search up to three times, then let it end; what was done, and what went wrong."""
    done = []
    for _ in range(rng.randint(1, 3)):
        driver = subprocess.Popen(
            tiny.command("search", suite, "--store", store), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=tiny.environment(), start_new_session=True,
        )  # fmt: skip
        wait = rng.uniform(1.0, took)
        try:
            driver.wait(wait)
        except subprocess.TimeoutExpired:
            done.append(f"{kind} at {wait:.1f} s: {strike(driver, store, kind, rng)}")
        end(driver)
    ended = tiny.search(suite, store)
    if ended.returncode != 0:
        return "; ".join(done), [f"exit code {ended.returncode}: {(ended.stdout + ended.stderr)[-300:]}"]
    return "; ".join(done) or "ended before", []


def strike(driver: subprocess.Popen[bytes], store: Path, kind: str, rng: random.Random) -> str:
    """One kill; what it hit."""
    jobs = [
        child for child in psutil.Process(driver.pid).children(recursive=True) if "submitit" in " ".join(words(child))
    ]
    hit = []
    if kind in ("driver", "driver and job", "journal"):
        os.kill(driver.pid, signal.SIGKILL)
        hit.append("driver")
    if kind in ("job", "driver and job") and jobs:
        rng.choice(jobs).kill()
        hit.append("job")
    if kind == "job":
        driver.wait()
    if kind == "journal":
        driver.wait()
        for path in store.glob("searches/*/journal.log"):
            size = path.stat().st_size
            last = size - 1 - path.read_bytes().rstrip(b"\n").rfind(b"\n")
            cut = rng.randint(1, max(1, last - 1))
            os.truncate(path, size - cut)
            hit.append(f"{cut} bytes of the journal's last line")
    return ", ".join(hit) or "nothing ran"


def words(process: psutil.Process) -> list[str]:
    try:
        found: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return found


def end(driver: subprocess.Popen[bytes]) -> None:
    """Jobs of a driver that was killed end as their leases say; the next one may begin at once, as a user would."""
    driver.poll() is not None or driver.wait()


def differences(expected: dict[str, object], suite: Path, store: Path) -> list[str]:
    """How a search's outcome differs from the undisturbed one's."""
    found = tiny.outcome(suite, store)
    wrong = [f"other {name}" for name in expected if found[name] != expected[name]]
    if any(trial["state"] == "running" for trial in found["trials"]):
        wrong.append("a trial is left running")
    return wrong + repeated(store)


def repeated(store: Path) -> list[str]:
    """Stages that were made again after they were done: more than one attempt wrote FINISHED."""
    wrong = []
    for folder in store.glob("*/attempts"):
        finished = [path for path in folder.glob("*/events.jsonl") if '"FINISHED"' in path.read_text()]
        if len(finished) > 1:
            wrong.append(f"{folder.parent.name[:6]} was made {len(finished)} times")
    return wrong


def text_of(asked: argparse.Namespace, took: float, lines: Sequence[str], failures: int) -> str:
    shown = f"python -m tests.search.kills {' '.join(sys.argv[1:])}"
    head = f"# Searches killed at seeded moments\n\n`{shown}`\n\n"
    head += f"The undisturbed search took {took:.0f} s; {failures} of {asked.kills} runs did not end as it did.\n\n"
    return head + "| run | killed | outcome |\n|---|---|---|\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
