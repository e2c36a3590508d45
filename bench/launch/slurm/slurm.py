"""Jobs in Slurm: one per JobPlan, through submitit, with dependencies between them. Separate from watch.py, which
queries their states.

A job starts after `afterok` of the jobs whose stages it reads; where one of those fails, Slurm cancels it (it would
wait for ever otherwise) and the loop submits it again with its parent. Jobs with the same resources and the same
dependencies make an array. Each submission has its own submitit folder and name, so that no result of an earlier job
is ever read; a job's report lies in the store, and only the store decides what is done.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import secrets
import shlex
import shutil
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.launch import submission, submitted
from bench.launch.job_files import interrupts_held_back, job_folder
from bench.launch.launcher import Handle, JobState, Launcher, NoAnswer, QueueEntry
from bench.launch.sharing import refuse_together
from bench.launch.slurm import refuse
from bench.launch.slurm.ended import UNASKED, Judge
from bench.launch.slurm.requeue import SlurmRequeue
from bench.launch.slurm.task import Task
from bench.launch.slurm.watch import UNREACHED, SlurmQueue
from bench.launch.submitted import Submitted
from bench.plan.jobs import JobPlan
from bench.plan.planning import Plan
from bench.run import snapshot
from bench.run.job import Job
from bench.store import own
from bench.store.disk import disk_errors, remove
from bench.store.lease import Observer, acquire, host
from bench.store.store import Store
from bench.suite.clusters import Cluster, Resources
from bench.tracking.curves import Tracking

POLL_SECONDS = 5.0  # squeue costs slurmctld an RPC; submitit asks every 30 s by default
TASKS_PER_ARRAY = 1000  # MaxArraySize is 1001 by default (slurm.conf(5))
MORE_THAN_ENOUGH = 1_000_000
# Messages of sbatch for what may be accepted later: limits on queued jobs (AssocMaxSubmitJobLimit and
# others of the kind; MaxJobCount), a busy slurmctld or an absent one.
_LATER = ("SubmitJob", "temporarily", *UNREACHED)
# Of what may be accepted later: a parent that has ended since the last poll, a limit that is not named.
_PERHAPS = ("Job dependency problem", "submit limit")
_FEWER = ("SubmitJob", "temporarily", "submit limit", "Invalid job array specification")  # a part of an array may pass
LONGEST_PAUSE_S = 600.0
BEGUN_S = 300.0  # a submission that was cut short is searched for this long: a busy slurmctld may still process it
SILENT_S = 20.0  # a driver submits within seconds; one that takes longer is reported to the user


def launcher(plan: Plan, store: Store, cluster: Cluster, where: str, limit: int | None) -> Launcher:
    """See bench/launch/launcher.py."""
    return Slurm(plan, store, cluster, where, limit)


def queue() -> SlurmQueue:
    """See bench/launch/launcher.py."""
    return SlurmQueue()


class Slurm:
    """A launcher: the jobs of one plan in Slurm."""

    takes_dependencies = outlives_driver = True

    def __init__(self, plan: Plan, store: Store, cluster: Cluster, where: str, limit: int | None = None) -> None:
        """`where`: the file of the cluster, for messages; `limit`: jobs of an array at a time (--jobs)."""
        self._plan, self._store, self._cluster, self._where = plan, store, cluster, where
        self.max_retries, self.pause_s = cluster.max_retries, cluster.pause_s
        self.tracking: Tracking | None = None
        self.slots = min(limit or cluster.array_parallelism, cluster.array_parallelism)
        self._root = store.root.resolve()
        self._notes: dict[Handle, Submitted] = {}
        self._cancelled: set[str] = set()
        self._well: set[str] = set()
        self._observer = Observer()
        self._judge = Judge(store, where)
        self._queue = queue()
        self._seen: dict[str, QueueEntry | None] = {}
        self._asked_at, self._answers = -POLL_SECONDS, True
        self._closed_until, self._refusals, self._most = 0.0, 0, TASKS_PER_ARRAY
        self._cancelled_at = self._blocked_at = -POLL_SECONDS
        self._news: list[str] = []

    # -- before

    def check(self, jobs: Sequence[JobPlan]) -> None:
        """Refuse what Slurm would refuse."""
        needs = [self.needs(job) for job in jobs]
        wanted = list({str(asked): asked for asked in needs}.values())
        machine = self._plan.suite.sections.machine
        if machine.scope == "device" and any(asked.tasks not in (1, machine.tasks) for asked in wanted):
            hint = "leave tasks out there: with machine.scope=device it is part of the experiment"
            raise UserError("tasks is not that of the suite's machine.tasks", where=f"{self._where} tasks", hint=hint)
        if machine.device == "cuda" and not any(asked.gpus for asked in wanted):
            hint = "set gpus: 1 there, or --set machine.device=auto"
            raise UserError("machine.device is cuda, but no job asks for a GPU", where=f"{self._where} gpus", hint=hint)
        short = next((asked for asked in wanted if 0 < asked.gpus < asked.tasks), None)
        if short is not None and machine.device != "cpu":
            raise UserError(
                f"{short.tasks} processes need a GPU each, and the job asks for {short.gpus}",
                where=f"{self._where} gpus", allowed=f"gpus: {short.tasks}, or tasks: {short.gpus}",
            )  # fmt: skip
        for job, asked in zip(jobs, needs, strict=True):
            for key in job.keys:
                refuse_together(self._plan.stages[key], asked.tasks)
        for asked in wanted:  # `stages` and rows may request less than the file
            if 60 * asked.time_min <= self._cluster.signal_delay_s:
                what = f"time_min: {asked.time_min} is not more than signal_delay_s: {self._cluster.signal_delay_s}"
                hint = "a job is signalled to save that long before its limit: it would do nothing else"
                raise UserError(what, where=self._where, hint=hint)
        refuse.check(self._cluster, self._where, wanted)

    def needs(self, job: JobPlan) -> Resources:
        """The resources of a job."""
        return submission.needs(self._plan, self._cluster, job)

    # -- submitting

    def free_slots(self) -> int:
        return 0 if time.monotonic() < self._closed_until else MORE_THAN_ENOUGH

    @contextmanager
    def submitting(self) -> Iterator[bool]:
        """One driver at a time: a lease on the folder of submissions, so that no job is submitted twice."""
        lease = acquire(submitted.folder(self._root), self._observer)
        if lease is None:
            self._blocked()
            yield False
            return
        self._blocked_at = -POLL_SECONDS
        with lease:
            yield True

    def _blocked(self) -> None:
        """Report a driver that takes long to submit: if it is suspended (Ctrl-Z), this one waits for ever."""
        now = time.monotonic()
        if self._blocked_at < 0:
            self._blocked_at = now
        owner = self._observer.live(submitted.folder(self._root))
        if owner is not None and now - self._blocked_at >= SILENT_S:
            self._blocked_at = math.inf
            who = f"process {owner.pid} on {owner.host}"
            self._news.append(
                f"waiting for another run that is submitting: {who}; if it is suspended, resume or kill it"
            )

    def news(self) -> list[str]:
        news, self._news = self._news, []
        return news

    def adopt(self, keys: Collection[str], known: Collection[Handle]) -> list[Handle]:
        """Queued and running jobs of other drivers. One that has ended is recorded as such and not queried again."""
        with contextlib.suppress(NoAnswer):
            self._take_up()
        at_hand = {handle.id for handle in known}
        found = [note for note in submitted.of(self._root, keys) if note.id not in at_hand]
        handles = [self._handle(note, set(keys)) for note in found]
        self._asked_at = -POLL_SECONDS
        alive = self.poll(handles)
        return [handle for handle in handles if alive[handle].active]

    def _take_up(self) -> None:
        """Submissions that were cut short: their driver was killed, or sbatch's answer was lost. Jobs that can run are
        recorded; those that cannot, since submitit names its pickles after sbatch, are cancelled.

        Raises:
            NoAnswer: slurmctld cannot be reached.
        """
        for path, notes in submitted.begun(self._root).items():
            with contextlib.suppress(OSError):
                stat = path.lstat()
                files = own.folder_of(notes[0].name)
                if files is None:  # only the user who submitted them can see these jobs and pickles
                    continue
                ids = self._queue.named(notes[0].name)
                for job_id in ids:
                    note = notes[int(job_id.split("_")[1]) if "_" in job_id else 0]
                    if (Path(files) / f"{job_id}_submitted.pkl").exists():
                        submitted.write(self._root, replace(note, id=job_id, log=f"{files}/{job_id}_0_log.err"))
                    else:
                        self._queue.cancel([job_id])
                if ids or time.time() - stat.st_mtime > BEGUN_S:
                    remove(path)

    def _handle(self, note: Submitted, keys: set[str]) -> Handle:
        units = tuple(mine for unit in note.units if (mine := tuple(key for key in unit if key in keys)))
        handle = Handle(note.id, JobPlan(units), note.log, own=note.suite == self._suite)
        self._notes[handle] = note
        return handle

    @property
    def _suite(self) -> str:
        return str(self._plan.suite.path.resolve())

    def submit(self, jobs: Sequence[JobPlan], after: Sequence[Handle]) -> list[Handle]:
        groups: dict[str, list[JobPlan]] = defaultdict(list)
        wanted = {}
        for job in jobs:
            asked = self.needs(job)
            wanted[str(asked)] = asked
            groups[str(asked)].append(job)
        handles: list[Handle] = []
        for name, group in groups.items():
            left = group
            while left and self.free_slots():
                part = left[: self._most]
                handles += self._submit(wanted[name], part, after)
                if self._most >= len(part):  # else the part was too large
                    left = left[len(part) :]
        return handles

    def _submit(self, asked: Resources, jobs: Sequence[JobPlan], after: Sequence[Handle]) -> list[Handle]:
        """One job, or one array. Ctrl-C waits until it is recorded."""
        token = secrets.token_hex(4)
        name = f"{self._plan.suite.path.stem[:30]}-{token}"
        folder, parents = job_folder(), tuple(handle.id for handle in after)
        reports = [str(submitted.folder(self._root) / "reports" / f"{token}-{i}.json") for i in range(len(jobs))]
        tasks = [Task(self._job(job, asked), report) for job, report in zip(jobs, reports, strict=True)]
        notes = [
            Submitted(
                "", name, self._suite, job.units, time.time(), host(), str(folder), report, parents,
                asked.model_dump(mode="json"), str(self._code), cluster=str(Path(self._where).resolve()),
                kind=self._cluster.kind,
            )
            for job, report in zip(jobs, reports, strict=True)
        ]  # fmt: skip
        handles = []
        with interrupts_held_back():
            begun = submitted.begin(self._root, notes)
            started = self._sbatch(asked, tasks, name, parents, folder)
            for note, one in zip(notes, started or (), strict=bool(started)):
                known = replace(note, id=str(one.job_id), log=str(one.paths.stderr))
                submitted.write(self._root, known)
                handles.append(self._handle(known, set(known.keys)))
            if started is not None:
                remove(begun)
        return handles

    def _job(self, job: JobPlan, asked: Resources) -> Job:
        machine = self._plan.suite.sections.machine.model_copy(update={"tasks": asked.tasks})
        requeue = SlurmRequeue(self.max_retries, self.pause_s)
        tracking = self.tracking.of(job.keys) if self.tracking else None
        told = submission.asides(self._plan, job)
        return Job(str(self._root), job.units, machine, asked.cpus, requeue, tracking, told)

    def _sbatch(
        self, asked: Resources, tasks: Sequence[Task], name: str, after: Sequence[str], folder: Path
    ) -> list[Any] | None:
        """submitit's jobs; empty where Slurm takes none at present, None where it may have accepted them.

        A new executor each time: `update_parameters(slurm_dependency=None)` keeps the old value (submitit 1.5.4).
        """
        import submitit

        executor = submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_python=self._cluster.python)
        options = refuse.options(asked) | {"kill-on-invalid-dep": "yes"}
        options |= {} if "no-requeue" in options else {"requeue": True}
        native = {"nodes": options.pop("nodes"), "tasks_per_node": options.pop("ntasks-per-node")}
        executor.update_parameters(
            name=name,
            timeout_min=asked.time_min,
            **native,
            slurm_array_parallelism=self.slots,
            slurm_signal_delay_s=self._cluster.signal_delay_s,
            slurm_setup=[*self._cluster.setup, *_exports(self._code, asked)],
            slurm_additional_parameters={k: v for k, v in options.items() if v is not False},
            **({"slurm_dependency": f"afterok:{':'.join(after)}"} if after else {}),
        )
        repeated = io.StringIO()  # submitit repeats on stderr what it raises
        try:
            with (
                contextlib.redirect_stderr(repeated),
                _outside_of_an_allocation(),
                disk_errors(folder, hint=snapshot.CACHE_HINT),
                executor.batch(),
            ):
                started = [executor.submit(task) for task in tasks]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            self._refused(str(error).strip(), len(tasks))
            return None if any(word in str(error) for word in UNREACHED) else []
        self._refusals, self._most = 0, min(2 * self._most, TASKS_PER_ARRAY)
        return started

    def _refused(self, answer: str, tasks: int) -> None:
        """Submit fewer at a time, or wait, where that may help.

        Raises:
            UserError: Slurm does not accept such a job, or has been refusing for too long.
        """
        if tasks > 1 and any(word in answer for word in _FEWER):
            self._most = tasks // 2
            return
        self._refusals += 1
        later = any(word in answer for word in _LATER)
        perhaps = self._refusals <= self.max_retries and any(word in answer for word in _PERHAPS)
        if not (later or perhaps):
            hint = "what was submitted before goes on; see squeue --me"
            raise UserError(f"Slurm refuses a job: {answer}", where=self._where, hint=hint)
        seconds = min(max(self.pause_s, POLL_SECONDS) * 2 ** min(self._refusals - 1, 16), LONGEST_PAUSE_S)
        self._closed_until = time.monotonic() + seconds
        if self._refusals == 1:
            self._news.append(f"Slurm takes no job now: {answer.splitlines()[0]}; asked again in {seconds:.0f} s")

    @cached_property
    def _code(self) -> Path:
        """A copy of the code as it is now, so that edits while a job waits have no effect on it."""
        return snapshot.take(self._root)

    # -- watching

    def poll(self, handles: Sequence[Handle]) -> Mapping[Handle, JobState]:
        ids = {handle.id for handle in handles}
        news = self._answers and not ids <= set(self._seen)
        if ids and (news or time.monotonic() - self._asked_at >= POLL_SECONDS):
            try:
                self._seen, self._answers = self._queue.ask([self._notes[handle] for handle in handles]), True
            except NoAnswer:  # keep the last known states
                self._answers = False
            self._asked_at = time.monotonic()
        states = {}
        for handle in handles:
            states[handle] = state = self._judge.state(handle, self._notes[handle], self._seen.get(handle.id, UNASKED))
            if not state.active:
                submitted.end(self._root, self._notes[handle], state.status)
                self._well |= {handle.id} if state.status == "COMPLETED" else set()
        return states

    # -- ending

    def cancel(self, handles: Sequence[Handle]) -> None:
        """scancel: SIGTERM to the processes, which save and end; SIGKILL after KillWait."""
        mine = [handle for handle in handles if handle.own and submitted.is_own(self._notes[handle])]
        ids = [handle.id for handle in mine if handle.id not in self._cancelled]
        if ids and time.monotonic() - self._cancelled_at >= POLL_SECONDS:
            self._cancelled_at = time.monotonic()
            if self._queue.cancel(ids):
                self._cancelled.update(ids)

    def close(self, *, clean: bool) -> None:
        """Remove the files of submissions that succeeded; store/submitted stays."""
        names = {note.name for note in self._notes.values() if submitted.is_own(note)}
        for name in names if clean else ():
            folder = own.folder_of(name)
            if folder and self._well.issuperset(own.jobs_of(name)):
                shutil.rmtree(folder, ignore_errors=True)


def _exports(code: Path, asked: Resources) -> list[str]:
    """Shell lines after which Python imports a copy of the code; they run after `setup`, which may load modules.

    Since 22.05 srun does not take over --cpus-per-task from sbatch (srun(1)): a step would have one core.
    """
    lines = [f"export {name}={shlex.quote(value)}" for name, value in snapshot.variables(code, {}).items()]
    lines.append(f"export SRUN_CPUS_PER_TASK={asked.cpus}")
    return [line + '"${PYTHONPATH:+:$PYTHONPATH}"' if line.startswith("export PYTHONPATH=") else line for line in lines]


@contextmanager
def _outside_of_an_allocation() -> Iterator[None]:
    """A driver inside an allocation (salloc) must not pass that allocation's SLURM_ variables to its jobs; a user's
    settings for sbatch (SBATCH_...) and the cluster's address stay."""
    inside = "SLURM_JOB_ID" in os.environ
    names = [
        name for name in os.environ if inside and name.startswith(("SLURM_", "SUBMITIT_")) and name != "SLURM_CONF"
    ]
    kept = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(kept)
