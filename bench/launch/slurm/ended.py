"""From Slurm's states to JobStates. Separate from watch.py, which queries: Slurm's state is a hint, and what counts is
in the store and in the job's report.

A job counts as ended without a result only after the times below, so that none is waited for in vain and none that may
still have a result counts as lost.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from bench.launch.launcher import Handle, JobState, QueueEntry, Status
from bench.launch.slurm.task import read_report
from bench.launch.slurm.watch import ENDED, PENDING, REQUEUED, entry
from bench.launch.submitted import Submitted
from bench.run.job import Outcome
from bench.store.store import Store

BLOCKED = "DependencyNeverSatisfied"
# squeue(1), JOB REASON CODES: words in the reasons for which a job may wait for ever, and what to do then.
_CHANGE = "stop it, change {} in {{where}}, or in `cluster:` of the row, and run again"
_STUCK: Mapping[str, str] = {
    "JobHeldUser": "it is held; release it: scontrol release JOB",
    "JobHeldAdmin held": "Slurm or its administrator holds it, mostly since it could not be started; look for the "
    "cause, then: scontrol release JOB",
    "PartitionTimeLimit MaxWallDurationPerJob": "it may not ask for so much time; " + _CHANGE.format("time_min"),
    "PartitionNodeLimit PerJob": "one job may not ask for so much; " + _CHANGE.format("gpus, cpus or mem_gb"),
    "Minutes": "the account's budget of time is used up; ask for more, or " + _CHANGE.format("account"),
    "BadConstraints": "no node is as it asks for; " + _CHANGE.format("sbatch or partition"),
    # Also the reason for a time that the partition does not give, until it becomes PartitionTimeLimit (22.05).
    "PartitionConfig": "its partition does not take such a job; "
    + _CHANGE.format("time_min, gpus, cpus, mem_gb or partition"),
    "InvalidAccount AccountNotAllowed": "it may not be charged to its account; " + _CHANGE.format("account"),
    "InvalidQOS QOSNotAllowed": "it may not have its QOS; " + _CHANGE.format("qos"),
    "PartitionDown PartitionInactive": "its partition is closed; wait, or " + _CHANGE.format("partition"),
    "ReqNodeNotAvail NodeDown": "the nodes that it asks for are down or reserved, see sinfo -R; it waits for them",
    "ReservationDeleted InvalidReservation": "its reservation is gone; " + _CHANGE.format("sbatch"),
    "QOSMax QOSGrp AssocMax AssocGrp": "a limit of your account or QOS; it starts when other jobs have ended",
}
LOST_SECONDS = 30.0  # a restarted slurmctld lists its jobs once it has read its state
PREEMPTED_SECONDS = 60.0  # with PreemptMode=REQUEUE a job is PREEMPTED for moments; with CANCEL, for ever
# A job's report may be seen late on a network disk; listing the folder makes an NFS client look again (nfs(5)).
REPORT_SECONDS = 15.0
UNASKED = entry("PENDING", "Slurm does not answer")


class Judge:
    """Decides the states of jobs; remembers since when they have looked dead.

    Args:
        store: what is done, and who holds which stage.
        where: the file that sets the resources, for advice.
        clock: monotonic seconds.
        patience: factor on the times above.
    """

    def __init__(
        self, store: Store, where: str, clock: Callable[[], float] = time.monotonic, patience: float = 1.0
    ) -> None:
        self._store, self._where, self._clock, self._patience = store, where, clock, patience
        self._since: dict[tuple[str, str], tuple[str, float]] = {}  # job -> what it looks like, since when

    def state(self, handle: Handle, note: Submitted, seen: QueueEntry | None) -> JobState:
        """The state of a job. `seen`: None where Slurm does not list it."""
        state = self._unknown(handle, note) if seen is None else self._known(handle, note, seen)
        if state.active and not state.doubtful:
            self._since.pop((note.id, note.name), None)  # a later time of looking dead starts anew
        return state

    def _known(self, handle: Handle, note: Submitted, seen: QueueEntry) -> JobState:
        if seen.state in PENDING:
            waits: Status = "REQUEUED" if seen.restarts else "PENDING"
            return JobState(waits, seen.reason, hint=self._stuck(seen))
        if seen.state in REQUEUED:
            return JobState("REQUEUED", seen.reason, hint=self._stuck(seen))
        if seen.state == "PREEMPTED":
            if not self._long(note, "PREEMPTED", PREEMPTED_SECONDS):
                return JobState("PREEMPTED", seen.reason, doubtful=True)
            text = "it was preempted, and this cluster does not put such jobs back into the queue"
            return JobState("PREEMPTED", again=True, over=True, text=text, outcomes=_report(note), hint=_continue(note))
        status = ENDED.get(seen.state)
        return (
            JobState("RUNNING", seen.reason, seen.host) if status is None else self._ended(handle, note, seen, status)
        )

    def _ended(self, handle: Handle, note: Submitted, seen: QueueEntry, status: Status) -> JobState:
        outcomes = _report(note)
        if status in ("COMPLETED", "FAILED"):
            state = self._by_itself(handle, note, seen, status, outcomes is not None)
        else:
            state = self._from_outside(note, seen, status)
        return replace(state, host=seen.host, outcomes=outcomes)

    def _from_outside(self, note: Submitted, seen: QueueEntry, status: Status) -> JobState:
        at = f" on {seen.host}" if seen.host else ""
        if status == "TIMEOUT":
            text = f"it reached its time limit of {note.asked.get('time_min')} min{at}"
            return JobState(status, text=text, hint=self._raise("time_min", note), again=True)
        if status == "OUT_OF_MEMORY":
            text = f"it needed more memory than the {_memory(note.asked)} that it asked for{at}"
            return JobState(status, text=text, hint=self._raise("mem_gb", note))
        if status == "NODE_FAIL":
            return JobState(status, text=f"its node failed{at}", hint=_continue(note), again=True)
        blocked = seen.reason == BLOCKED
        return JobState(status, seen.reason, text="it was cancelled", hint=_continue(note), blocked=blocked)

    def _by_itself(self, handle: Handle, note: Submitted, seen: QueueEntry, status: Status, reported: bool) -> JobState:
        """Of a job whose process ended: its report counts, then its exit status."""
        at = f" on {seen.host}" if seen.host else ""
        if reported or self._all_done(handle):
            return JobState(status, text="it was stopped, and saved", hint=_continue(note))
        if seen.signal:
            text = f"its process was killed{at} (signal {seen.signal})"
            hint = f"if it wanted too much memory: {self._raise('mem_gb', note)}"
            return JobState("FAILED", text=text, hint=hint, again=True)
        if not self._long(note, status, REPORT_SECONDS):
            return JobState("RUNNING", "its report is not to be seen yet", doubtful=True)
        text = f"it ended{at} with exit code {seen.exit_code} and could not say why{_last_line(note)}"
        return JobState("FAILED", text=text, hint=f"log: {note.log}")

    def _unknown(self, handle: Handle, note: Submitted) -> JobState:
        outcomes = _report(note)
        if outcomes is not None or self._all_done(handle):
            return JobState("COMPLETED", outcomes=outcomes, text="it was stopped, and saved", hint=_continue(note))
        owners = [owner for key in handle.job.keys if (owner := self._store.running(key)) is not None]
        if owners:
            return JobState("RUNNING", "Slurm does not know it, but it works", owners[0].host)
        if not self._long(note, "LOST", LOST_SECONDS):
            return JobState("PENDING", "Slurm does not know it", doubtful=True)
        text = "Slurm no longer knows it, and it left no result"
        return JobState("LOST", again=True, text=text, hint=_continue(note))

    def _long(self, note: Submitted, what: str, seconds: float) -> bool:
        """Whether a job has looked the same for this long."""
        now, job = self._clock(), (note.id, note.name)
        if self._since.get(job, ("", 0.0))[0] != what:
            self._since[job] = what, now
        return now - self._since[job][1] >= seconds * self._patience

    def _all_done(self, handle: Handle) -> bool:
        return all(self._store.done(key) is not None for key in handle.job.keys)

    def _stuck(self, seen: QueueEntry) -> str:
        """What to do for a job that would wait for ever; empty where waiting suffices."""
        reason = f"{seen.reason} {'held' if seen.state in ('REQUEUE_HOLD', 'SPECIAL_EXIT') else ''}"
        found = (advice for words, advice in _STUCK.items() if any(word in reason for word in words.split()))
        return next(found, "").format(where=self._where)

    def _raise(self, setting: str, note: Submitted) -> str:
        return f"raise {setting} in {self._where}, or in `cluster:` of the row; then {_continue(note)}"


def _continue(note: Submitted) -> str:
    return f"run the same command again: it continues; log: {note.log}"


def _memory(asked: Mapping[str, object]) -> str:
    return f"{asked['mem_gb']:g} GB" if asked.get("mem_gb") is not None else "default"


def _report(note: Submitted) -> Mapping[str, Outcome] | None:
    path = Path(note.report)
    with contextlib.suppress(OSError):
        os.listdir(path.parent)
    return read_report(path)


def _last_line(note: Submitted) -> str:
    """The end of the log, which may not be visible on this host."""
    with contextlib.suppress(OSError):
        lines = Path(note.log).read_text(errors="replace").strip().splitlines()
        return f": {lines[-1][:200]}" if lines else ""
    return ""
