"""What a command costs with all its descendants, and the file that records it. Separate because all benchmarks need it.

    python -m benchmarks.measured COST.json -- COMMAND...

The command runs below a process of its own that imports nothing heavy: a child's ru_maxrss begins at the size of the
process that started it. That process also adopts orphans (Linux), so that a job whose driver ended first is counted.
"""

from __future__ import annotations

import ctypes
import datetime
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


@dataclass(frozen=True)
class Cost:
    """Wall seconds until the command ended; user + system seconds of it and of all below it; MB (10^6 bytes) of
    resident memory of the largest process among them; its exit code."""

    wall: float
    cpu: float
    peak_mb: float
    code: int


def measure(command: Sequence[str], *, env: Mapping[str, str] | None = None, log: Path | None = None) -> Cost:
    """Run a command in the project's folder with one thread per process.

    Args:
        command: program and arguments.
        env: beside the caller's environment.
        log: file that takes its output (added at the end); default: this process's own stderr.

    Raises:
        RuntimeError: the command failed.
    """
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **(env or {})}
    with tempfile.TemporaryDirectory() as folder:
        cost = Path(folder) / "cost.json"
        with open(log, "ab") if log else os.fdopen(os.dup(2), "wb") as output:
            subprocess.run(
                [sys.executable, "-m", "benchmarks.measured", str(cost), "--", *command], cwd=ROOT, env=surroundings,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=True,
            )  # fmt: skip
        found = Cost(**json.loads(cost.read_text()))
    if found.code:
        said = log.read_text(errors="replace")[-2000:] if log else ""
        raise RuntimeError(f"exit code {found.code}: {' '.join(command)}\n{said}")
    return found


def _without_out(arguments: Sequence[str]) -> list[str]:
    """Where the result went is of no interest to whoever repeats it."""
    words = list(arguments)
    if "--out" in words:
        del words[words.index("--out") : words.index("--out") + 2]
    return [word for word in words if not word.startswith("--out=")]


def write(path: Path, benchmark: str, arguments: Sequence[str], content: Mapping[str, Any]) -> None:
    """A result with what it takes to read it years later: command, date, commit, versions, machine."""
    from bench.environment import capture

    about = {
        "benchmark": benchmark,
        "command": " ".join(["python", "-m", f"benchmarks.{benchmark}", *_without_out(arguments)]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "environment": {name: value for name, value in capture().items() if name != "host"},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps({**about, **content}, indent=1, allow_nan=False) + "\n")
    temporary.replace(path)


def _observe(command: Sequence[str]) -> Cost:
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)  # a benchmark that is killed leaves nothing running
    start = time.monotonic()
    child = subprocess.Popen(command, preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0))
    code = child.wait()
    wall = time.monotonic() - start
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6, code)


def main() -> None:
    path, dashes, *command = sys.argv[1:]
    assert dashes == "--", __doc__
    Path(path).write_text(json.dumps(asdict(_observe(command))))


if __name__ == "__main__":
    main()
