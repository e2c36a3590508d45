"""Bring a store to a plan: the one loop for every place where jobs run. Separate from bench/launchers, which
submit, query and cancel; this file decides what to start, what to try again and what has failed.

The driver holds no state: what is done is read from the store, and jobs are found by their leases or by their files
under submitted/; so a driver may be killed, and the next one continues.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from bench.errors import UserError
from bench.launch.launcher import Handle, JobState, Launcher
from bench.launch.requests import Requests
from bench.launch.submission import Dependencies
from bench.plan import planning
from bench.plan.jobs import JobPlan, make_jobs
from bench.plan.planning import Plan
from bench.run.job import Outcome
from bench.run.work import quiet_threads
from bench.store.store import Store

TURN_SECONDS = 0.5


@dataclass
class Progress:
    """For the display: the plan's states and what is queued or runs. `elsewhere`: stages held by another run. `notes`:
    messages about jobs, oldest first."""

    plan: Plan
    done: set[str]
    running: list[Handle]
    failed: dict[str, Outcome]
    elsewhere: set[str]
    slots: int
    stopping: bool = False
    states: Mapping[Handle, JobState] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def queue(self) -> str:
        """`2 RUNNING, 3 PENDING (Priority)` of jobs that do not simply run."""
        counts = Counter(
            f"{state.status} ({state.reason})" if state.reason else state.status for state in self.states.values()
        )
        texts = [f"{number} {text}" for text, number in counts.most_common()]
        return ", ".join(texts) if set(counts) - {"RUNNING"} else ""


@dataclass(frozen=True)
class Ended:
    """How a run ended: what failed (with codes), whether it was interrupted, and the jobs that continue."""

    failed: dict[str, Outcome]
    interrupted: bool
    left: tuple[Handle, ...] = ()

    @property
    def code(self) -> int:
        if any(outcome.code == 2 for outcome in self.failed.values()):
            return 2
        return 130 if self.interrupted else 1 if self.failed else 0


def run(
    plan: Plan,
    store: Store,
    launcher: Launcher,
    *,
    fuse: bool,
    keep_going: bool,
    show: Callable[[Progress], None],
    detach: bool = False,
    requests: Requests | None = None,
) -> Ended:
    """Bring the store to the plan's state.

    Args:
        plan: what is wanted.
        store: what there is.
        launcher: where jobs run.
        fuse: train classifiers over one trunk in one pass.
        keep_going: continue with other rows when a stage fails.
        show: called about twice per second.
        detach: return once all is submitted (a launcher whose jobs outlive the driver).
        requests: of users, from when the caller began; None: from now.

    Raises:
        UserError: the store cannot be written, or the cluster refuses a job. Submitted jobs continue.
    """
    for stage in plan.stages.values():
        store.add(stage)
    quiet_threads(plan.suite.sections.machine.threads)
    loop = _Loop(plan, store, launcher, fuse, keep_going, requests or Requests(store.root))
    with _interruptible() as interrupted:
        while loop.turn(stopping=bool(interrupted)):
            show(loop.progress)
            if detach and not loop.to_submit:
                break
            time.sleep(TURN_SECONDS)
        show(loop.progress)
    launcher.close(clean=not loop.progress.failed)
    left = tuple(loop.progress.running) if launcher.outlives_driver else ()
    return Ended(loop.progress.failed, bool(interrupted) or loop.left_stopped, left)


class _Loop:
    """One turn: collect what ended, compare with the store, start what is ready."""

    def __init__(
        self, plan: Plan, store: Store, launcher: Launcher, fuse: bool, keep_going: bool, requests: Requests
    ) -> None:
        self.plan, self.store, self.launcher, self.fuse, self.keep_going = plan, store, launcher, fuse, keep_going
        self.estimate = planning.learned(plan, store)
        self.progress = Progress(plan, set(), [], {}, set(), launcher.slots)
        self.to_submit = True  # whether there are more jobs that could be submitted now
        self._dependencies = Dependencies(plan)
        self._tries: Counter[str] = Counter()  # in a row, without progress
        self._steps: dict[str, int] = {}  # key -> the newest checkpoint when it was last ended
        self._not_before: dict[str, float] = {}  # key -> when it may be submitted again (monotonic)
        self._requests = requests
        self._warned: set[str] = set()  # reasons for waiting that were reported
        self._stopped: set[str] = set()  # by `bench stop`: not started again in this run

    def turn(self, *, stopping: bool) -> bool:
        """False once there is nothing left to wait for."""
        p = self.progress
        self._apply_requests()
        p.states = self.launcher.poll(p.running)
        p.notes += self.launcher.news()
        for handle in [h for h in p.running if not p.states[h].active]:
            p.running.remove(handle)
            self._collect(handle, p.states[handle])
        p.states = {handle: p.states[handle] for handle in p.running}
        self._warn()
        missing = self._compare()
        if stopping and self.launcher.outlives_driver:
            p.stopping = True
            return False  # the jobs continue
        if stopping or (p.failed and not self.keep_going):
            p.stopping = True
            self.launcher.cancel(p.running)
            return any(handle.own for handle in p.running)  # another suite's jobs continue
        todo = self._todo(missing)
        if self.launcher.free_slots() > 0 and self._startable(todo):
            with self.launcher.submitting() as mine:
                if mine:
                    self._adopt()
                    self._start(self._todo(self._compare()))
            todo = self._todo(self._compare())
        self.to_submit = bool(self._startable(todo))
        return bool(p.running or p.elsewhere or self._not_before or self.to_submit)

    @property
    def left_stopped(self) -> bool:
        """Whether a stage is not done because of a user's `stop`."""
        return bool(self._stopped - self.progress.done)

    def _apply_requests(self) -> None:
        """Apply users' new requests: stop stages, try failed ones again (bench/launch/requests.py)."""
        p = self.progress
        for request in self._requests.new():
            mine = request.keys & self.plan.stages.keys()
            if request.verb == "stop":
                self._stopped |= mine
                continue
            self._stopped -= mine
            p.failed = {key: outcome for key, outcome in p.failed.items() if key not in mine}
            for key in mine:
                self._tries.pop(key, None)
                self._not_before.pop(key, None)
        self.launcher.cancel([handle for handle in p.running if self._stopped.intersection(handle.job.keys)])

    def _warn(self) -> None:
        """Report jobs for which waiting alone may not help, once per reason."""
        p = self.progress
        stuck = {handle.id: state for handle, state in p.states.items() if state.hint}
        for job, state in stuck.items():
            if state.hint not in self._warned:
                self._warned.add(state.hint)
                others = sum(other.hint == state.hint for other in stuck.values()) - 1
                more = f" and {others} more" if others else ""
                p.notes.append(f"job {job}{more}: {state.status} ({state.reason}): {state.hint}")

    def _compare(self) -> set[str]:
        """Bring `done`, `failed` and `elsewhere` up to date; returns the stages that none of this plan's jobs makes."""
        p = self.progress
        p.done = planning.all_fresh(self.plan, self.store)
        claimed = {key for handle in p.running for key in handle.job.keys}
        missing = {key for key in self.plan.stages if key not in p.done and key not in claimed}
        p.failed = {key: outcome for key, outcome in p.failed.items() if key not in p.done}
        p.elsewhere = {key for key in missing if self.store.running(key) is not None}
        now = time.monotonic()
        self._not_before = {key: at for key, at in self._not_before.items() if at > now and key in missing}
        return missing

    def _todo(self, missing: set[str]) -> list[JobPlan]:
        p = self.progress
        todo = missing - p.elsewhere - set(p.failed) - set(self._not_before) - self._stopped
        queued = {key: h.id for h in p.running for key in h.job.keys} if self.launcher.takes_dependencies else None
        return make_jobs(self.plan, todo, self.estimate, fuse=self.fuse, done=p.done, made_by=queued)

    def _adopt(self) -> None:
        """Watch the jobs that other drivers have submitted, too."""
        p = self.progress
        wanted = [key for key in self.plan.stages if key not in p.done]
        p.running += self.launcher.adopt(wanted, p.running)

    def _start(self, jobs: list[JobPlan]) -> None:
        """Submit all that can be: what waits for nothing, then, where dependencies are taken, what waits for that."""
        left = list(jobs)
        while ready := self._startable(left):
            taken: list[Handle] = []
            groups: dict[tuple[Handle, ...], list[JobPlan]] = defaultdict(list)
            for job, after in ready:
                groups[after].append(job)
                self._release(job)
            for after, group in groups.items():
                taken += self.launcher.submit(group, after)
            self.progress.running += taken
            submitted = {key for handle in taken for key in handle.job.keys}
            left = [job for job in left if submitted.isdisjoint(job.keys)]
            if not taken or not self.launcher.takes_dependencies:
                return

    def _release(self, job: JobPlan) -> None:
        """Release leases that this driver has seen to be dead, so that the job does not wait 90 s for them."""
        for key in job.keys:
            with contextlib.suppress(UserError):  # disk full: the job reports it
                self.store.release_dead_lease(key)

    def _startable(self, jobs: list[JobPlan]) -> list[tuple[JobPlan, tuple[Handle, ...]]]:
        """The jobs that could be submitted given free slots; each with those that it has to wait for."""
        p = self.progress
        makers = p.running if self.launcher.takes_dependencies else []
        sound = [h for h in makers if h not in p.states or not p.states[h].doubtful]
        maker = {key: h for h in sound for key in h.job.keys}
        found = []
        for job in jobs:
            needed = self._dependencies.below(job) - p.done
            if needed <= set(maker):
                direct = self._dependencies.direct({maker[key]: maker[key].job for key in needed})
                found.append((job, tuple(sorted(direct, key=lambda handle: handle.id))))
        return found

    # -- what ended

    def _collect(self, handle: Handle, state: JobState) -> None:
        """Sort the stages of an ended job into done, failed, to be tried again, and missing."""
        p, outcomes, launcher = self.progress, state.outcomes or {}, self.launcher
        by_hand = bool(self._stopped.intersection(handle.job.keys))
        if by_hand and (state.outcomes is None or state.status == "CANCELLED"):
            return  # its other stages continue in another job
        if state.status == "CANCELLED" and (state.blocked or p.stopping):
            return  # submitted again with its parent
        outside = []
        for key in handle.job.keys:
            outcome = outcomes.get(key)
            if outcome is not None and outcome.state == "failed" and not outcome.again:
                p.failed[key] = outcome
            elif (
                outcome is not None and outcome.state == "done" and launcher.outlives_driver and not self._is_done(key)
            ):
                self._back_off([key], launcher.pause_s)  # a network disk may show it a minute late (acdirmax, nfs(5))
            elif outcome is not None and outcome.state in ("busy", "waiting"):
                self._back_off([] if self._blocked(key, handle.job) else [key], launcher.pause_s)
            elif outcome is not None and outcome.state == "stopped" and not launcher.outlives_driver:
                continue  # by Ctrl-C, or by hand: it continues
            elif key in self._stopped:
                continue
            elif (outcome is None or outcome.again or outcome.state == "stopped") and not self._is_done(key):
                outside += [] if self._blocked(key, handle.job) else [key]
        lost = next((outcome.message for outcome in outcomes.values() if outcome.again), "")
        if lost and state.status in ("COMPLETED", "FAILED"):  # otherwise the queue's status says more
            state = replace(state, text=lost.splitlines()[0])
        if outside and not p.stopping:
            self._ended_from_outside(handle, outside, state)
        elif outside and state.outcomes is None:
            p.failed |= dict.fromkeys(outside, Outcome("failed", f"{state.text}\n  {state.hint}", 1))

    def _is_done(self, key: str) -> bool:
        return planning.fresh(self.plan.stages[key], self.store)

    def _ended_from_outside(self, handle: Handle, keys: list[str], state: JobState) -> None:
        """Killed, timed out, lost or cancelled: tried again after a pause; failed after too many tries."""
        p, launcher = self.progress, self.launcher
        again = state.again or (state.outcomes is not None and state.status not in ("CANCELLED", "OUT_OF_MEMORY"))
        for key in keys:  # e.g. a training longer than the time limit: each try continues it
            step = self.store.saved(key)
            if step > self._steps.get(key, 0):
                self._tries.pop(key, None)
            self._steps[key] = step
        tried = max(self._tries[key] for key in keys)
        if again and tried < launcher.max_retries:
            pause = launcher.pause_s * 2**tried
            self._tries.update(keys)
            self._back_off(keys, pause)
            p.notes.append(
                f"job {handle.id} ({planning.describe(self.plan, keys[:1])}): {state.text};"
                f" again in {pause:.0f} s ({tried + 1} of {launcher.max_retries})"
            )
            return
        times = f", {tried + 1} times" if tried else ""
        p.failed |= dict.fromkeys(keys, Outcome("failed", f"{state.text}{times}\n  {state.hint}", 1))

    def _blocked(self, key: str, job: JobPlan) -> bool:
        """Whether a stage of a killed job waited for another one of that job: only the first one is named."""
        own = set(job.keys)
        return any(i.key in own and not self._is_done(i.key) for i in self.plan.stages[key].inputs.values())

    def _back_off(self, keys: Collection[str], seconds: float) -> None:
        if seconds > 0:
            self._not_before |= dict.fromkeys(keys, time.monotonic() + seconds)


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """The list fills on Ctrl-C or SIGTERM; a second Ctrl-C ends the driver at once (jobs still save)."""
    seen: list[int] = []

    def note(number: int, _frame: object) -> None:
        seen.append(number)
        if len(seen) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
