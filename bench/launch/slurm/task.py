"""What runs inside a job of a queue. Separate from bench/run/job.py because a queue wants an exit code, and the driver
a report that does not lie in a pickle: dependants start after exit code 0 alone, and a later driver reads JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.run.job import Job, Outcome
from bench.run.world import is_first
from bench.store.disk import make_folder, read_json, write_json


@dataclass(frozen=True)
class Task:
    """A job and the file for its report, whose name holds the token of its submission: no other job's is ever read."""

    job: Job
    report: str

    def __call__(self) -> None:
        """Do the job, write down how its stages ended.

        Raises:
            SystemExit: some stage is not done: exit code 1, so that nothing is started on top of it. submitit would
                show any other exception with its own frames, below what a reader of the log looks for.
        """
        first = is_first(os.environ)  # of several processes, one reports
        if first:
            make_folder(Path(self.report).parent)
            Path(self.report).unlink(missing_ok=True)  # of a start before a requeue
        outcomes = self.job()
        if first:
            write_json(Path(self.report), {key: asdict(outcome) for key, outcome in outcomes.items()})
        left = {key: outcome for key, outcome in outcomes.items() if outcome.state != "done"}
        for key, outcome in left.items():
            print(f"{key[:6]} {outcome.state} {outcome.message}".rstrip(), file=sys.stderr, flush=True)
        if left:
            raise SystemExit(1)


def read_report(path: Path) -> Mapping[str, Outcome] | None:
    """What a job wrote; None where there is nothing yet."""
    found = read_json(path)
    if not isinstance(found, dict):
        return None
    return {key: Outcome(o["state"], o["message"], int(o["code"]), bool(o.get("again"))) for key, o in found.items()}
