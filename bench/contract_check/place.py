"""Where methods are checked: a store for one engine in which the baseline is trained once, and copies of it in which a
stage runs again, is stopped, or shares a pass. Separate because it is the only file that runs stages."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from bench.contract_check import tiny
from bench.detection.contract import Detector
from bench.engines.facts import ORIGINS, facts
from bench.errors import UserError
from bench.lineage import asides_of
from bench.run import checkpoint
from bench.run.job import Job, Outcome
from bench.run.work import StopFlag, Stopped, quiet_threads
from bench.stage import Stage, walk
from bench.store.store import Store
from bench.suite.catalogue import discover
from bench.suite.suite import Suite

STOP_AT = tiny.STEPS // 2


class RunFailed(Exception):
    """A stage did not end well. `kind` of the stage; `trace`: what its job wrote."""

    def __init__(self, kind: str, message: str, trace: str) -> None:
        super().__init__(message)
        self.kind, self.trace = kind, trace

    def __str__(self) -> str:
        return f"{self.kind} stage: {self.args[0]}"


class StopAfter(StopFlag):
    """A stop flag that is raised when it is looked at for the n-th time; a training looks once per step."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._left = looks

    def check(self) -> None:
        if self._left == 0:
            raise Stopped
        self._left -= 1


@dataclass(frozen=True)
class Rehearsal:
    """A training that was stopped before its first step and once more in the middle, and then went on to its end.

    Attributes:
        initial: what the stage stores, before its first step.
        final: the same after its last.
        live: the detector in memory at the end, which no file holds whole.
        teachers: the models that its losses got, at the end, by input name.
        digests: of the outputs, as the store keeps them.
    """

    initial: Mapping[str, Tensor]
    final: Mapping[str, Tensor]
    live: Detector
    teachers: Mapping[str, Detector]
    digests: Mapping[str, str]


class Sandbox:
    """The tiny suite of one engine and the stores it runs in.

    Args:
        root: a folder of its own; whoever made it removes it.
        engine: name of the engine.

    Raises:
        UserError: no such engine, or one that cannot build the tiny detector.
        ImportError: the engine's library is not installed.
    """

    def __init__(self, root: Path, engine: str) -> None:
        self.engine = engine
        self.suite: Suite = tiny.suite(engine)
        importlib.import_module(facts(engine).module)
        quiet_threads(1)
        self.root = root / engine
        self.store = Store(self.root / "store")
        self._scratches = itertools.count(1)
        self._rehearsed: dict[str, Rehearsal] = {}

    @cached_property
    def baseline(self) -> Stage:
        """The evaluate stage of the plain baseline."""
        return tiny.result_of(self.suite, discover()["baseline"]())

    def bring(self, *wanted: Stage) -> None:
        """All that these stages need and they themselves are done, each alone.

        Raises:
            RunFailed: the first stage that does not end well.
        """
        for stage in walk(*wanted):
            self.store.add(stage)
            if self.store.done(stage.key) is None:
                self.work(self.store, stage)

    def work(
        self,
        store: Store,
        *unit: Stage,
        stop: StopFlag | None = None,
        observe: Callable[[Detector, Mapping[str, Detector]], None] | None = None,
        backwards: bool = False,
    ) -> None:
        """One unit in one pass; `observe`: see Work, `backwards`: see Job.unit.

        Raises:
            RunFailed: it failed, or ended otherwise than it should (stopped where there is a `stop`, else done).
        """
        log = io.StringIO()
        job = Job(str(store.root), (), self.suite.sections.machine, asides=asides_of(*unit))
        with contextlib.redirect_stderr(log):
            keys = sorted(stage.key for stage in unit)
            outcomes = job.unit(store, keys, StopFlag() if stop is None else stop, observe=observe, backwards=backwards)
        expected = "done" if stop is None else "stopped"  # a flag is false until it is raised
        for stage in unit:
            outcome: Outcome = outcomes[stage.key]
            if outcome.state != expected:
                raise RunFailed(stage.kind, outcome.message or f"ended as '{outcome.state}'", log.getvalue())

    def scratch(self, *stages: Stage) -> Store:
        """Another store that holds all that these stages are made from, and the stages written down."""
        store = Store(self.root / f"scratch-{next(self._scratches)}")
        own = {stage.key for stage in stages}
        for source in walk(*stages):
            if source.key not in own:
                shutil.copytree(self.store.folder(source.key), store.folder(source.key), copy_function=_link)
        for stage in stages:
            store.add(stage)
        return store

    def rehearse(self, stage: Stage) -> Rehearsal:
        """Train a stage again that is done in `store`: stopped twice, see `Rehearsal`."""
        if stage.key not in self._rehearsed:
            store = self.scratch(stage)
            self.work(store, stage, stop=StopAfter(0))
            found = checkpoint.newest(store.attempts(stage.key))
            if found is None:
                raise RunFailed("train", "it saves no checkpoint when it is stopped", "")
            names = ((name.partition("model/")[2], tensor) for name, tensor in found[1].items())
            initial = {name: tensor for name, tensor in names if name}
            self.work(store, stage, stop=StopAfter(STOP_AT))
            shown: list[tuple[Detector, Mapping[str, Detector]]] = []
            self.work(store, stage, observe=lambda *both: shown.append(both))
            final = checkpoint.read_tensors(next(store.output(stage.key).glob("model.safetensors")))
            self._rehearsed[stage.key] = Rehearsal(initial, final, *shown[-1], self.digests(store, stage))
            shutil.rmtree(store.root)
        return self._rehearsed[stage.key]

    def digests(self, store: Store, stage: Stage) -> Mapping[str, str]:
        """What a finished stage holds."""
        done = store.done(stage.key)
        assert done is not None
        return done.digests


def sandboxes(root: Path, engines: Sequence[str]) -> tuple[list[Sandbox], dict[str, str]]:
    """A sandbox for every engine that can be imported here; for the others the reason, by engine."""
    found, missing = [], {}
    for engine in engines:
        why = facts(engine).absent()
        if why is not None:
            missing[engine] = why
            continue
        try:
            found.append(Sandbox(root, engine))
        except ImportError as error:
            missing[engine] = f"engine '{engine}' cannot be imported: {error}"
        except UserError as error:
            missing[engine] = f"engine '{engine}' cannot build the tiny detector: {error}"
        except Exception as error:
            if engine not in ORIGINS:
                raise
            what = f"engine '{engine}' of {ORIGINS[engine].package}: {type(error).__name__}: {error}"
            missing[engine] = f"{what}; see: python -m bench engines check {engine}"
    return found, missing


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
