"""What runs inside a job of a queue. Separate from bench/run/job.py because a queue needs an exit code, and the driver
a report outside a pickle: dependants start after exit code 0 alone, and a later driver reads JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.run.job import Job, Outcome
from bench.run.world import is_first
from bench.store.disk import make_folder, read_json, remove, write_json


@dataclass(frozen=True)
class Task:
    """A job and the file for its report, named by the token of its submission, so that no other job's is read."""

    job: Job
    report: str

    def __call__(self) -> None:
        """Do the job, record how its stages ended.

        Raises:
            SystemExit: some stage is not done: exit code 1, so that no dependant starts. Any other exception would
                be logged with submitit's frames, below the lines that matter.
        """
        first = is_first(os.environ)  # only one of several processes reports
        if first:
            make_folder(Path(self.report).parent)
            remove(Path(self.report))  # left from before a requeue
        outcomes = self.job()
        if first:
            write_json(Path(self.report), {key: asdict(outcome) for key, outcome in outcomes.items()})
        left = {key: outcome for key, outcome in outcomes.items() if outcome.state != "done"}
        for key, outcome in left.items():
            print(f"{key[:6]} {outcome.state} {outcome.message}".rstrip(), file=sys.stderr, flush=True)
        if left:
            raise SystemExit(1)


def read_report(path: Path) -> Mapping[str, Outcome] | None:
    """A job's report; None where there is none yet."""
    found = read_json(path)
    if not isinstance(found, dict):
        return None
    return {key: Outcome(o["state"], o["message"], int(o["code"]), bool(o.get("again"))) for key, o in found.items()}
