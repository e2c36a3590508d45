"""The Queue of Slurm: the states of jobs, and how they are cancelled. Separate because of the subject: which command
reports what, and what no answer means.

submitit's own watcher uses sacct alone: without an accounting database a job that was killed stays UNKNOWN for ever and
`result()` never returns. Here squeue is used first (it lists ended jobs for MinJobAge, 300 s by default), then
scontrol, then sacct where it answers. A job is identified by its id AND its name, which holds a token: ids are reused.
While slurmctld does not answer, no job counts as lost.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from bench.launch.launcher import NoAnswer, Phase, QueueEntry, Status
from bench.launch.submitted import Submitted

# Fixed widths instead of a separator: reasons and names may hold any character.
FIELDS = {
    "JobArrayID": 40, "Name": 80, "State": 24, "Reason": 120, "NodeList": 80, "restartcnt": 12, "exit_code": 12,
}  # fmt: skip
# sbatch, scancel and others print this when slurmctld did not receive or did not answer a request.
UNREACHED = ("timed out", "Unable to contact", "Connection refused", "try again")
COMMAND_TIMEOUT_S = 60.0  # a busy slurmctld answers late; MessageTimeout is 10 s by default (slurm.conf(5))
FEW_IDS = 20  # scontrol takes one id and 26 ms here; of jobs that ended long ago it lists no more than squeue
IDS_PER_COMMAND = 400  # keeps the command line short
UNKNOWN_ID = "Invalid job id specified"
# squeue(1), JOB STATE CODES. Any other state counts as running: Slurm adds states, and none of them is final.
PENDING = {"PENDING", "CONFIGURING", "RESV_DEL_HOLD"}
REQUEUED = {"REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"}
ENDED: Mapping[str, Status] = {
    "COMPLETED": "COMPLETED",
    "FAILED": "FAILED",
    "LAUNCH_FAILED": "FAILED",
    "RECONFIG_FAIL": "NODE_FAIL",
    "BOOT_FAIL": "NODE_FAIL",
    "NODE_FAIL": "NODE_FAIL",
    "TIMEOUT": "TIMEOUT",
    "DEADLINE": "TIMEOUT",
    "OUT_OF_MEMORY": "OUT_OF_MEMORY",
    "CANCELLED": "CANCELLED",
    "REVOKED": "CANCELLED",
}


_PHASES: Mapping[str, Phase] = {
    **dict.fromkeys((*PENDING, *REQUEUED, "PREEMPTED", "SUSPENDED"), "waiting"),
    **dict.fromkeys(("COMPLETING", "STAGE_OUT"), "ending"),
    **dict.fromkeys(ENDED, "ended"),
}


def entry(
    state: str, reason: str = "", host: str = "", restarts: int = 0, exit_status: int | None = None
) -> QueueEntry:
    """Slurm's state of a job, and its phase."""
    return QueueEntry(state, reason, host, restarts, exit_status, _PHASES.get(state, "running"))


class SlurmQueue:
    """A bench.launch.launcher.Queue; remembers only whether sacct can be used here."""

    def __init__(self) -> None:
        self._sacct = True

    def named(self, name: str) -> list[str]:
        """Ids of the jobs of a name, ended ones too as long as slurmctld lists them.

        Raises:
            NoAnswer: slurmctld cannot be reached.
        """
        words = ["--noheader", "--all", "--array", "--states=all", "--Format=JobArrayID:40", f"--name={name}"]
        done = command("squeue", *words)
        if done is None or done.returncode:
            raise NoAnswer(done.stderr.strip() if done is not None else "squeue does not answer")
        return done.stdout.split()

    def cancel(self, ids: Sequence[str]) -> bool:
        """scancel of those that have not ended. False where slurmctld cannot be reached."""
        answers = [command("scancel", "--quiet", *part) for part in _chunks(ids)]
        return all(done is not None and not any(word in done.stderr for word in UNREACHED) for done in answers)

    def ask(self, notes: Sequence[Submitted]) -> dict[str, QueueEntry | None]:
        """The entries of jobs; None where no command lists one.

        Raises:
            NoAnswer: slurmctld cannot be reached.
        """
        names = {note.id: note.name for note in notes}
        found: dict[str, QueueEntry | None] = dict.fromkeys(names)
        for ids in _chunks(sorted(names)):
            found |= {i: seen for i, (name, seen) in _squeue(ids).items() if names.get(i) == name}
        unknown = [i for i, seen in found.items() if seen is None]
        for job_id in unknown if len(unknown) <= FEW_IDS else ():
            found[job_id] = _scontrol(job_id, names[job_id])
        for ids in _chunks([i for i, seen in found.items() if seen is None]):
            found |= self._accounted({i: names[i] for i in ids})
        return found

    def _accounted(self, names: Mapping[str, str]) -> dict[str, QueueEntry | None]:
        if not self._sacct:
            return {}
        words = ["--noheader", "--parsable2", "--allocations", "--format=JobID,State,NodeList,ExitCode,JobName"]
        done = command("sacct", *words, f"--jobs={','.join(names)}")
        if done is None or done.returncode:
            self._sacct = done is not None and "disabled" not in done.stderr  # no database here
            return {}
        rows = (line.split("|", 4) for line in done.stdout.splitlines() if line.count("|") >= 4)
        found: dict[str, QueueEntry | None] = {}
        for job_id, state, host, code, name in rows:
            word = state.split()[0] if state else ""  # "CANCELLED by 1000"
            # A job that is alive in accounting alone was dropped by slurmctld: sacctmgr calls it a runaway.
            if names.get(job_id) == name and word not in ("PENDING", "RUNNING", "SUSPENDED", ""):
                found[job_id] = entry(word, "", host, 0, _status(code))
        return found


def command(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str] | None:
    """A Slurm command's answer; None where it is missing or does not answer in a minute."""
    try:
        return subprocess.run(
            words, input=text, stdin=None if text is not None else subprocess.DEVNULL, capture_output=True, text=True,
            timeout=COMMAND_TIMEOUT_S, check=False, errors="replace",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None


def _squeue(ids: Sequence[str]) -> dict[str, tuple[str, QueueEntry]]:
    """id -> (name, entry)."""
    layout = ",".join(f"{name}:{width}" for name, width in FIELDS.items())
    plain = ",".join(dict.fromkeys(i.split("_")[0] for i in ids))  # of an array all tasks
    done = command("squeue", "--noheader", "--all", "--array", "--states=all", f"--Format={layout}", f"--jobs={plain}")
    if done is None or (done.returncode and UNKNOWN_ID not in done.stderr):
        raise NoAnswer(done.stderr.strip() if done is not None else "squeue does not answer")
    found = {}
    for line in done.stdout.splitlines():
        job_id, name, state, reason, host, restarts, code = _cut(line)
        reason = "" if reason in ("None", "(null)") else reason
        found[job_id] = name, entry(state, reason, host, _number(restarts), _number(code))
    return found


def _scontrol(job_id: str, name: str) -> QueueEntry | None:
    done = command("scontrol", "--oneliner", "show", "job", job_id)
    if done is None:
        return None
    if done.returncode:
        if UNKNOWN_ID in done.stderr + done.stdout:
            return None
        raise NoAnswer(done.stderr.strip())
    fields = dict(word.split("=", 1) for word in done.stdout.split() if "=" in word)
    if fields.get("JobName") != name:
        return None
    return entry(
        fields.get("JobState", ""), fields.get("Reason", "").replace("None", ""), fields.get("NodeList", ""),
        _number(fields.get("Restarts", "0")), _status(fields.get("ExitCode", "")),
    )  # fmt: skip


def _cut(line: str) -> Iterator[str]:
    start = 0
    for width in FIELDS.values():
        yield line[start : start + width].strip()
        start += width


def _status(text: str) -> int | None:
    """`code:signal` as wait(2) gives it."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    return int(match[1]) << 8 | int(match[2]) if match else None


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), IDS_PER_COMMAND):
        yield ids[start : start + IDS_PER_COMMAND]
