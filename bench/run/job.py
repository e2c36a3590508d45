"""What is handed to submitit: a picklable callable with keys in it. Separate from the stages it runs.

It finds everything else in the store when it runs, so an old pickle is never stale; but what it computes is what was
submitted: others may write to the store, and a stage.json that does not give its key is refused. It imports neither
MLflow nor Optuna nor pandas; progress and curves go to the attempt's event file, and to a tracking server where one is
named.

submitit's own handling of a signal (its `checkpoint()`, a requeue that it counts itself) is not used: it would pickle
the job anew while leases are held. `StopFlag.install` replaces its handlers first of all.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from bench.environment import of_this_process
from bench.errors import UserError, place_of
from bench.launchers import LAUNCHERS
from bench.lineage import fresh, sources, submitted_stage
from bench.run import external_parts as outside
from bench.run import memory, snapshot
from bench.run.follow import announced, follow
from bench.run.work import StopFlag, Stopped, Work, device_of, quiet_threads
from bench.run.world import SINGLE, Gone, World, joined
from bench.spec import Machine
from bench.stage import KINDS, Stage
from bench.store.disk import disk_errors
from bench.store.lease import Lease
from bench.store.own import working
from bench.store.store import Attempt, Store
from bench.tracking.curves import Curves, Tracking

if TYPE_CHECKING:
    from bench.detection.contract import Detector


@dataclass(frozen=True)
class Outcome:
    """How a stage ended in a job. `again`: a process of the job was killed, so that another try may succeed."""

    state: Literal["done", "busy", "waiting", "failed", "stopped"]
    message: str = ""
    code: int = 0
    again: bool = False


class Requeue(Protocol):
    """How a job goes back into its queue. A launcher whose queue allows that passes one to its jobs."""

    def time_is_up(self, signals: Sequence[int]) -> bool:
        """Whether these signals mean that the queue wants the host back, not that a person wants the job to end."""

    def put_back(self, *, further: bool) -> str | None:
        """Put this job back, all being saved and every lease released; why that could not be done, None if it was.

        `further`: it has saved or finished something in this run.
        """


@dataclass(frozen=True)
class Job:
    """Stages to do in order; a unit of several keys is made in one pass (trained, or predicted).

    Attributes:
        store: the store's folder.
        units: keys, see `bench.plan.JobPlan`.
        machine: threads, device, precision; `tasks`: how many processes were started to do this job together.
        processes: how many processes a data stage may use.
        requeue: how it goes back into its queue when its time is up. None: the job ends instead.
        tracking: the server that its curves go to while it works; None: only the driver sends them.
        asides: paths and what else is in no key, by key (bench.lineage.asides_of); never read from the store.
    """

    store: str
    units: tuple[tuple[str, ...], ...]
    machine: Machine
    processes: int = 1
    requeue: Requeue | None = None
    tracking: Tracking | None = None
    asides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __call__(self) -> dict[str, Outcome]:
        """Do what can be done; never raises for a stage that fails.

        Raises:
            SystemExit: the queue will run this job again, so submitit must not write down a result.
        """
        quiet_threads(self.machine.threads)
        stop = StopFlag()
        with contextlib.suppress(ValueError):  # not the main thread: no signals arrive there
            stop.install()
        store = Store(Path(self.store))
        with contextlib.ExitStack() as stack:
            stack.enter_context(working(store.root, [key for unit in self.units for key in unit]))
            try:
                world = stack.enter_context(joined(self.machine.tasks, lambda: device_of(self.machine)))
            except UserError as error:  # the processes of this job did not come together
                keys = (key for unit in self.units for key in unit)
                return dict.fromkeys(keys, Outcome("failed", str(error), error.exit_code, isinstance(error, Gone)))
            if not world.first:
                follow(world, store, self.machine, stop, self.asides)
                return {}
            before = self._got_to(store)
            outcomes = self._units(store, stop, world)
            with contextlib.suppress(UserError):  # a process that has died receives nothing
                world.broadcast(None)
        further = any(now > then for now, then in zip(self._got_to(store), before, strict=True))
        return self._ended(outcomes, stop, further=further)

    def _got_to(self, store: Store) -> list[tuple[bool, int]]:
        """How far each stage is: whether it is done, and the step of its newest checkpoint."""
        return [(store.done(key) is not None, store.saved(key)) for unit in self.units for key in unit]

    def _units(self, store: Store, stop: StopFlag, world: World) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        sound: set[tuple[str, str]] = set()
        for key in (key for unit in self.units for key in unit):
            store.running(key)  # starts the clock of all foreign leases at once: one wait covers those of one dead host
        for unit in self.units:
            snapshot.in_use()
            if stop:
                outcomes |= dict.fromkeys(unit, Outcome("stopped"))
            else:
                with Curves(self.tracking, store, unit):
                    outcomes |= self.unit(store, unit, stop, sound, world)
        return outcomes

    def _ended(self, outcomes: dict[str, Outcome], stop: StopFlag, *, further: bool) -> dict[str, Outcome]:
        """Requeue the job if the queue stopped it and not a person; all is saved and every lease is released."""
        stopped = [key for key, outcome in outcomes.items() if outcome.state == "stopped"]
        if not stopped or self.requeue is None or not self.requeue.time_is_up(stop.signals):
            return outcomes
        refused = self.requeue.put_back(further=further)
        if refused is None:
            raise SystemExit(0)
        return outcomes | dict.fromkeys(
            stopped, Outcome("stopped", f"its time was up, and it was not requeued: {refused}")
        )

    def unit(
        self,
        store: Store,
        keys: Sequence[str],
        stop: StopFlag,
        sound: set[tuple[str, str]] | None = None,
        world: World = SINGLE,
        observe: Callable[[Detector, Mapping[str, Detector]], None] | None = None,
        backwards: bool = False,
    ) -> dict[str, Outcome]:
        """One unit.

        Args:
            store: where its stages live.
            keys: of the unit.
            stop: the stop flag of the process.
            sound: pairs (key, digest) whose checksum this job has verified; forgotten after a training, which takes
                hours.
            world: the processes that train with this one.
            observe: see Work.
            backwards: make them in the other order than that of their keys, which must give the same.
        """
        sound = set() if sound is None else sound
        outcomes: dict[str, Outcome] = {}
        with contextlib.ExitStack() as leases:
            works = []
            for key in sorted(keys):  # in key order, never waiting for a live owner: two fused jobs cannot deadlock
                try:
                    begun = self._begin(store, key, stop, leases, sound)
                except UserError as error:
                    begun = Outcome("failed", str(error), error.exit_code)
                if isinstance(begun, Work):
                    works.append(begun)
                else:
                    outcomes[key] = begun
            for work in works:
                work.world = world if KINDS[work.stage.kind].processes else SINGLE
                work.observe = observe
            if backwards:
                works.reverse()
            if works:
                outcomes |= self._execute(store, works)
                if KINDS[works[0].stage.kind].processes:
                    sound.clear()
        return outcomes

    def _begin(
        self, store: Store, key: str, stop: StopFlag, leases: contextlib.ExitStack, sound: set[tuple[str, str]]
    ) -> Work | Outcome:
        """A new attempt at a stage that is not done, under its lease, from intact sources; or why there is none."""
        stage = submitted_stage(store.load, key, self.asides)
        if fresh(stage, store.done):
            return Outcome("done")
        stale = store.done(key)
        if stale is not None:
            store.discard(key, stale)
        lease = self._take(store, key, stop)
        if isinstance(lease, Outcome):
            return lease
        leases.enter_context(lease)
        if store.done(key) is not None:  # made by another run before this lease was taken
            return Outcome("done")
        unsound = self._unsound(store, stage, sound)
        if unsound is not None:
            return unsound
        outside.check([stage.spec, *(source.spec for source, _ in sources(stage))])
        return self._work(store, key, lease, stop)

    def _take(self, store: Store, key: str, stop: StopFlag) -> Lease | Outcome:
        """The lease of a stage, also where the host of its owner has died; or why it cannot be taken."""
        lease = store.acquire(key)
        if lease is None and store.watch(key, lambda: bool(stop)) is None:  # its owner's host died
            lease = store.acquire(key)
        if lease is None:
            return Outcome("stopped" if stop else "busy", "" if stop else "another run works on it")
        return lease

    def _unsound(self, store: Store, stage: Stage, sound: set[tuple[str, str]]) -> Outcome | None:
        """The outcome of a stage with a missing or corrupt source; verified sources are added to `sound`."""
        for source, direct in sources(stage):
            held = store.done(source.key)
            if held is None:
                return Outcome("waiting", f"{source.key[:6]} that it is made from is not there")
            # Images further down are not read; weights and settings along a model's lineage are.
            if KINDS[source.kind].direct_only and not direct:
                continue
            if (source.key, held.digest) in sound:
                continue
            if not store.verify(source.key):
                store.discard(source.key)
                return Outcome("waiting", f"{source.key[:6]} that it is made from was corrupt and will be made again")
            sound.add((source.key, held.digest))
        return None

    def _work(self, store: Store, key: str, lease: Lease, stop: StopFlag) -> Work:
        attempt = store.begin(key, lease)
        work = Work(store, key, attempt, self.machine, stop, asides=self.asides, processes=self.processes)
        # Recorded before anything is read: if an input is made anew meanwhile, this stage counts as stale.
        held = {name: store.done(source.key) for name, source in work.stage.inputs.items()}
        work.inputs = {name: done.digest for name, done in held.items() if done is not None}
        ran_on = _environment(work)  # recorded for every attempt, failed ones too
        where = {name: ran_on[name] for name in ("host", "commit", *LAUNCHERS) if ran_on.get(name)}
        attempt.events.write(
            "start", key=key, kind=work.stage.kind, attempt=attempt.number, **where, **_streams(), environment=ran_on
        )
        return work

    def _execute(self, store: Store, works: list[Work]) -> dict[str, Outcome]:
        kind = KINDS[works[0].stage.kind]
        begun = time.monotonic()
        try:
            module = importlib.import_module(kind.module or f"bench.run.{kind.name}")
            if kind.torch:
                _set_threads(self.machine)
            memory.begin()
            begun = time.monotonic()  # imports count for the job, not for its first stage
            if kind.processes:
                works[0].world.broadcast(announced(works))
            errors = module.run(works) if kind.together else [module.run(works[0])]
        except Stopped:
            for work in works:
                work.attempt.events.write("end", status="KILLED", error="stopped; it continues from its checkpoint")
            return {work.key: Outcome("stopped") for work in works}
        except Exception as error:
            attempts = [work.attempt for work in works]
            return {one.key: _failed(store, one, _as_user_error(error, one.folder)) for one in attempts}
        seconds = time.monotonic() - begun  # of a fused stage: of the whole pass
        shares = _shares(works, seconds) if kind.together else [{} for _ in works]
        needed = memory.peak()  # of the whole pass
        outcomes = {}
        for work, failed, share in zip(works, errors, shares, strict=True):
            outcomes[work.key] = (
                _failed(store, work.attempt, failed) if failed else _finish(store, work, seconds, share | needed)
            )
        return outcomes


def _streams() -> dict[str, Any]:
    """pid; out and err: the files that this process writes to, for `bench logs` (under srun they are pipes)."""
    found: dict[str, Any] = {"pid": os.getpid()}
    for name, number in (("out", 1), ("err", 2)):
        with contextlib.suppress(OSError):
            path = os.readlink(f"/proc/self/fd/{number}")
            if os.path.isfile(path):
                found[name] = path
    return found


def _shares(works: Sequence[Work], seconds: float) -> list[dict[str, float]]:
    """What one pass took, split so that each stage's cost can be estimated (bench.plan.cost.Estimate.learn).

    fused: stages of the pass; own_seconds: spent on this stage alone; shared_seconds: spent once, over as many steps as
    this stage has; part: the share of the stage's steps that this attempt did (the rest was resumed, or is a
    rung's).
    """
    shared = max(0.0, seconds - sum(work.own_seconds for work in works))
    longest = max(work.total for work in works) - min(work.begun for work in works)
    return [
        {
            "fused": len(works),
            "own_seconds": work.own_seconds,
            "shared_seconds": shared * (work.total - work.begun) / max(longest, 1),
            "part": (work.total - work.begun) / max(work.total, 1),
        }
        for work in works
    ]


def _environment(work: Work) -> dict[str, Any]:
    """What an attempt runs on, and the machine settings that are in no key."""
    return {
        **of_this_process(),
        "threads": work.machine.threads,
        "processes": work.machine.tasks if KINDS[work.stage.kind].processes else 1,
        "channels_last": work.machine.channels_last,
        **({"seed": work.spec["seed"]} if "seed" in work.spec else {}),
        **({"workers": work.workers} if work.workers is not None else {}),
    }


def _finish(store: Store, work: Work, seconds: float, extra: dict[str, float]) -> Outcome:
    try:
        environment = _environment(work)
        store.finish(work.attempt, inputs=work.inputs, seconds=seconds, environment=environment, extra=extra)
    except UserError as error:
        return _failed(store, work.attempt, error)
    work.attempt.events.write("end", status="FINISHED", seconds=seconds)
    return Outcome("done")


def _as_user_error(error: Exception, folder: Path) -> Exception:
    """An OSError of the disk, from anywhere in a stage's code, as a UserError; any other error as it is."""
    try:
        with disk_errors(folder):
            raise error
    except Exception as converted:
        return converted


def _failed(store: Store, attempt: Attempt, error: Exception) -> Outcome:
    if attempt.lease is not None and attempt.lease.lost:  # the host slept; whoever took over may have removed files
        return Outcome("done") if store.done(attempt.key) else Outcome("busy", "another run has taken it over")
    error = memory.explained(error)
    if isinstance(error, Gone):  # treated as if this process had been killed as well: no failure of the stage
        with contextlib.suppress(UserError):
            attempt.events.write("end", status="KILLED", error=str(error))
        return Outcome("failed", str(error), error.exit_code, again=True)
    code = error.exit_code if isinstance(error, UserError) else 1
    if isinstance(error, UserError):
        message = str(error)
    else:
        traceback.print_exception(error)
        message = f"{type(error).__name__}: {error} ({place_of(error)})"
    with contextlib.suppress(UserError):  # nothing can be written to a full disk; the message still reaches the driver
        store.fail(attempt, message)
        attempt.events.write("end", status="FAILED", error=message)
    return Outcome("failed", message, code)


def _set_threads(machine: Machine) -> None:
    import torch

    torch.set_num_threads(machine.threads)
