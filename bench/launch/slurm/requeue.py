"""What a Slurm job does when its time is up: back into the queue under its own id. Separate from job.py because it is
the only file of a job that calls Slurm; the launcher for Slurm passes it to its jobs.

The job asks with `scontrol` from its node. Where that is missing or refuses, the job ends and the driver submits it
again: only the place in the queue is lost.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench.run.world import is_first

SECONDS = 30.0  # longest wait for scontrol; KillWait, Slurm's limit for a job to end, is 30 s (slurm.conf(5))
LONGEST_PAUSE_S = 3600.0  # the pause doubles up to here: ten doublings of a minute would be a week
# Otherwise scontrol ends with this job's step: Slurm signals a job as soon as it is requeued, before the pause is set.
_SIGNALS_IGNORED = ("sh", "-c", 'trap "" TERM INT USR2; exec "$@"', "sh")


@dataclass(frozen=True)
class SlurmRequeue:
    """How often a job may be put back, and for how long it waits then. A bench.run.job.Requeue.

    Attributes:
        most: restarts of one job id, for whatever reason (SLURM_RESTART_COUNT); `max_retries` of a cluster.
            A job that has progressed since it started is put back regardless, unless this is 0: a training of five
            days under a limit of one finishes without a driver.
        pause_s: seconds until the first restart may begin; doubles with each, unless the job progresses. 0: when
            Slurm decides.
    """

    most: int
    pause_s: float = 0.0

    def time_is_up(self, signals: Sequence[int]) -> bool:
        """Whether these signals mean that Slurm wants the node back, not that a person wants the job to end; False in
        all processes of a job but the first: only that may requeue it.

        USR2 comes before the time limit and, with SlurmctldParameters=preempt_send_user_signal, at a preemption;
        without that setting a preemption sends TERM, as scancel does, but notes a PreemptTime (slurm.conf(5), tried on
        22.05).
        """
        if job_id() is None or not is_first(os.environ):
            return False
        if signal.SIGINT in signals or not {signal.SIGUSR2, signal.SIGTERM} & set(signals):
            return False
        found = _show()
        if found.get("JobState", "RUNNING") != "RUNNING":  # scancel: COMPLETING, CANCELLED
            return False
        return signal.SIGUSR2 in signals or found.get("PreemptTime", "None") not in ("None", "N/A")

    def put_back(self, *, further: bool) -> str | None:
        """Put this job back into the queue; Slurm then ends this process. Returns why that failed, None if it did not.

        To be called when all is saved and every lease is released. `further`: it has saved or finished something in
        this run.
        """
        job, restarts = job_id(), restart_count()
        if job is None:
            return "not a Slurm job"
        if restarts >= self.most and not (further and self.most):
            return f"job {job} has been requeued {restarts} times, max_retries is {self.most}"
        error = _scontrol("requeue", job)
        if isinstance(error, str):
            return error
        pause = self.pause(0 if further else restarts)
        done = f"requeued as job {job}, restart {restarts + 1}" + ("" if further else f" of {self.most}")
        if pause > 0:
            # A requeued job keeps its own delay (cred_expire, 2 min by default) where the cluster refuses this. Never
            # at once: slurmd revokes a requeued job's credential, and ends a job that starts in that very second.
            later = _scontrol("update", f"JobId={job}", f"StartTime=now+{math.ceil(pause)}")
            done += f"; Slurm chooses when it starts ({later})" if isinstance(later, str) else f"; in {pause:.0f} s"
        print(done, file=sys.stderr, flush=True)
        return None

    def pause(self, restarts: int) -> float:
        """Seconds to wait after so many restarts."""
        return float(min(self.pause_s * 2.0 ** min(restarts, 32), LONGEST_PAUSE_S))


def job_id() -> str | None:
    """Id that scontrol takes: of an array the task's (the raw id may be the whole array's). None outside Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID") or None


def restart_count() -> int:
    """How often this job has been restarted, for whatever reason."""
    text = os.environ.get("SLURM_RESTART_COUNT", "0")
    return int(text) if text.isdigit() else 0


def _show() -> dict[str, str]:
    """Slurm's record of this job; empty without an answer."""
    done = _scontrol("show", "job", "--oneliner", str(job_id()))
    if isinstance(done, str):
        return {}
    return dict(word.split("=", 1) for word in done.stdout.split() if "=" in word)


def _scontrol(*arguments: str) -> subprocess.CompletedProcess[str] | str:
    """scontrol's answer, or one line with the reason why there is none."""
    try:
        done = subprocess.run(
            [*_SIGNALS_IGNORED, "scontrol", *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"scontrol {arguments[0]}: {error}"
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        return f"scontrol {arguments[0]}: {lines[-1]}"
    return done
