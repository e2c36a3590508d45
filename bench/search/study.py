"""The trials of a search in Optuna's storage. Separate from loop.py, which makes them: only this file and samplers.py
call Optuna (0.4 s to import).

A trial that is asked but not told is RUNNING there, and stays so when its driver is killed; the next driver goes on
with it. How many were asked for each round is noted once all of them are, so a driver that is killed while it asks has
the same round asked by the next one. The storage is Optuna's own journal, one file in the store: it needs no locks of
the file system that NFS lacks.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bench.environment import masked
from bench.errors import UserError, parsed
from bench.search import samplers
from bench.search.view import State, Trial, View
from bench.store import below
from bench.store.disk import disk_errors, make_folder, put
from bench.suite.search import Dimension, Scalar, Search, Space

FOLDER = "searches"  # of a store
JOURNAL = "journal.log"
ROUNDS, HOURS, MACHINE, FACTS = "bench.rounds", "bench.hours", "bench.machine_hours", "bench.facts"
WHY, BRACKET = "bench.why", "bench.bracket"
FEWEST = 4  # complete trials from which importances say anything
BEST = 5  # of the trials at least: Optuna's documentation of PED-ANOVA asks for so many, or a tenth
_STATES: Mapping[TrialState, State] = {
    TrialState.RUNNING: "running", TrialState.WAITING: "running", TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
}  # fmt: skip

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Study:
    """One search in Optuna's storage.

    Args:
        study: Optuna's.
        name: of it.
        search, space: what is searched.
    """

    def __init__(self, study: optuna.Study, name: str, search: Search, space: Space) -> None:
        self.name, self.search, self.space = name, search, space
        self._study = study
        points = space.points() if search.sampler == "grid" else None
        self._points = [] if points is None else list(points)
        own = [] if points is not None else [space.untouched(label) for label in space.rows]
        self._untouched = [chosen for chosen in own if chosen is not None]

    # -- what there is

    def view(self) -> View:
        """All trials, and what was spent."""
        attributes = self._study.user_attrs
        hours, machine = (float(attributes.get(name, 0.0)) for name in (HOURS, MACHINE))
        return View(self.name, self.search, self.space, tuple(map(self._seen, self._frozen())), hours, machine)

    def _frozen(self) -> list[FrozenTrial]:
        found: list[FrozenTrial] = self._study.get_trials(deepcopy=False)
        return found

    def _seen(self, trial: FrozenTrial) -> Trial:
        chosen = {
            name: _plain(self.space.dimensions[name], trial.params[name])
            for name in self.space.dimensions
            if name in trial.params
        }
        state = _STATES[trial.state]
        values = tuple(trial.values or ()) if state == "complete" else ()
        bracket = trial.user_attrs.get(BRACKET)
        return Trial(
            trial.number, state, chosen, values, dict(trial.intermediate_values),
            bracket if isinstance(bracket, int) else None, str(trial.user_attrs.get(WHY, "")),
        )  # fmt: skip

    def importances(self) -> dict[str, float]:
        """Dimension -> its share of what parts the best trials from all of them, by the (first) objective; the largest
        first. Optuna's PED-ANOVA, which is deterministic. {} where it finds none, or there are few complete trials."""
        complete = sum(trial.state == TrialState.COMPLETE for trial in self._frozen())
        if complete < FEWEST:
            return {}
        share = min(0.5, max(0.1, BEST / complete))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
        try:
            with _quiet():
                found = optuna.importance.get_param_importances(
                    self._study, evaluator=evaluator, target=_loss, normalize=False
                )
        except (ValueError, RuntimeError, ZeroDivisionError):
            return {}
        found = {name: float(value) for name, value in found.items() if math.isfinite(value)}
        total = sum(found.values())
        ordered = sorted(found.items(), key=lambda one: (-one[1], one[0]))
        return {name: value / total for name, value in ordered} if total > 0 else {}

    # -- asking

    def left(self) -> int:
        """Trials that the budget has left, of a round that has not begun: 0 once it is spent."""
        view, search = self.view(), self.search
        if search.hours is not None and view.hours >= search.hours:
            return 0
        if search.machine_hours is not None and view.machine_hours >= search.machine_hours:
            return 0
        number = search.round
        if search.trials is not None:
            number = min(number, search.trials - sum(trial.finished for trial in view.trials))
        if search.sampler == "grid":
            number = min(number, len(self._points) - sum(self._rounds()))
        return max(0, number)

    def round(self) -> list[Trial]:
        """The trials of the round that is under way, or of a new one; those that have ended included.

        Returns:
            [] once the budget is spent.
        """
        asked = self._rounds()
        first = sum(asked)
        trials = self._frozen()
        if asked and any(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in trials[:first]):
            return [self._seen(trial) for trial in trials[first - asked[-1] : first]]
        number = self.left()
        if number:
            for index in range(first, first + number):
                self._ask(index)
            self._study.set_user_attr(ROUNDS, [*asked, number])
        return [self._seen(trial) for trial in self._frozen()[first : first + number]]

    def _rounds(self) -> list[int]:
        found = self._study.user_attrs.get(ROUNDS, [])
        return [int(number) for number in found]

    def _ask(self, number: int) -> None:
        """Choose the trial with this number: the rows as they are first, then what the sampler says. One that a killed
        driver had begun to choose is chosen anew."""
        self._sample(number, 0)
        with _quiet():
            there = self._frozen()
            if len(there) == number < len(self._untouched):
                self._study.enqueue_trial(self._untouched[number])
            if number < len(there) and there[number].state == TrialState.RUNNING:
                trial = optuna.trial.Trial(self._study, there[number]._trial_id)
            else:
                trial = self._study.ask()
            _ = trial.relative_params  # chosen now, whatever of it is stored already
            chosen: dict[str, Scalar] = {}
            for i, (name, dimension) in enumerate(self.space.dimensions.items()):
                if self.space.is_used(name, chosen):
                    self._sample(number, i + 1)
                    chosen[name] = _plain(dimension, _suggest(trial, name, dimension))

    def _sample(self, number: int, step: int) -> None:
        self._study.sampler = samplers.sampler_of(self.search, self.space, number, self._points, step)

    # -- telling

    def report(self, number: int, step: int, value: float) -> None:
        """The objective of a trial at a rung; once is enough."""
        if step not in self._frozen()[number].intermediate_values:
            self._study._storage.set_trial_intermediate_value(self._frozen()[number]._trial_id, step, value)

    def set_bracket(self, number: int, bracket: int) -> None:
        """Note the rung that a trial begins with."""
        if BRACKET not in self._frozen()[number].user_attrs:
            self._note(number, BRACKET, bracket)

    def should_prune(self, number: int, step: int) -> bool:
        """What Optuna's own pruner says of a trial after its report at a step, whatever was reported since."""
        trial = copy.deepcopy(self._frozen()[number])
        trial.intermediate_values = {at: value for at, value in trial.intermediate_values.items() if at <= step}
        with _quiet():
            wilcoxon = self.search.pruner == "wilcoxon"
            pruner = optuna.pruners.WilcoxonPruner() if wilcoxon else optuna.pruners.MedianPruner()
            return bool(pruner.prune(self._study, trial))

    def complete(self, number: int, values: Sequence[float]) -> None:
        """End a trial with its values; one that has ended stays as it is, here and below."""
        if self._is_open(number):
            self._study.tell(number, list(values))

    def prune(self, number: int) -> None:
        """End a trial at its rung."""
        if self._is_open(number):
            self._study.tell(number, state=TrialState.PRUNED)

    def fail(self, number: int, why: str) -> None:
        """End a trial that has no value."""
        if self._is_open(number):
            self._note(number, WHY, why[:1000])
            self._study.tell(number, state=TrialState.FAIL)

    def spend(self, hours: float, machine_hours: float) -> None:
        """Add to what the search has taken."""
        view = self.view()
        self._study.set_user_attr(HOURS, view.hours + hours)
        self._study.set_user_attr(MACHINE, view.machine_hours + machine_hours)

    def _is_open(self, number: int) -> bool:
        return not self._frozen()[number].state.is_finished()

    def _note(self, number: int, name: str, value: Any) -> None:
        self._study._storage.set_trial_user_attr(self._frozen()[number]._trial_id, name, value)


class Journal(JournalFileBackend):
    """Optuna's journal file, opened as all files of a store are: a link is never followed. `make`: make it where it is
    not there; else it is only read."""

    def __init__(self, path: Path, *, make: bool) -> None:
        self._path = path
        self._file_path, self._lock = str(path), JournalFileSymlinkLock(str(path))
        self._log_number_offset = {0: 0}  # number of a line -> where it begins
        os.close(below.opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT if make else os.O_RDONLY))

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The lines from a number on. The last one may be half written by somebody: it is read once it is whole."""
        number = log_number_from if log_number_from in self._log_number_offset else 0
        with os.fdopen(below.opened(self._path, os.O_RDONLY), "rb") as file:
            file.seek(self._log_number_offset[number])
            at = file.tell()
            for line in file.read().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    return
                at, number = at + len(line), number + 1
                self._log_number_offset[number] = at
                if number > log_number_from:
                    yield parsed(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines, under Optuna's lock."""
        text = "".join(f"{json.dumps(log, separators=(',', ':'))}\n" for log in logs)
        self._lock.acquire()
        try:
            with os.fdopen(below.opened(self._path, os.O_WRONLY | os.O_APPEND), "ab") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._lock.release()


def folder_of(store: Path, name: str) -> Path:
    """The folder of a search in a store."""
    return store / FOLDER / name


def opened(store: Path, name: str, search: Search, space: Space, facts: Mapping[str, Any], *, write: bool) -> Study:
    """The study of a search; made where it is new.

    Args:
        store: folder of the store.
        name: of the study.
        search, space: what is searched.
        facts: noted in a new study, for whoever opens it with Optuna's own tools.
        write: False: only to look at it.

    Raises:
        UserError: the storage cannot be opened.
        FileNotFoundError: it was not begun yet, and `write` is False.
    """
    below.guard(store)
    directions = [StudyDirection.MAXIMIZE] * len(search.objective)
    try:
        storage = _journal(folder_of(store, name), write=write) if search.storage is None else _storage(search.storage)
        if not write:
            return Study(optuna.load_study(study_name=name, storage=storage), name, search, space)
        study = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
        if FACTS not in study.user_attrs:
            with _quiet():  # an experimental feature of Optuna's, which its dashboard reads
                study.set_metric_names(list(search.objective))
            study.set_user_attr(FACTS, dict(facts))
    except KeyError:  # load_study: the storage holds no study of this name
        raise FileNotFoundError(name) from None
    return Study(study, name, search, space)


def _storage(url: str) -> BaseStorage:
    try:
        with _quiet():
            return optuna.storages.get_storage(url)
    except Exception as error:  # of SQLAlchemy, of a driver that is not installed, of the network
        what = masked(f"Optuna cannot open {url}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
        hint = "one of Optuna's URLs, e.g. sqlite:///search.db; or null: a journal in the store"
        raise UserError(what, where="search.storage", hint=hint) from None


def _journal(folder: Path, *, write: bool) -> JournalStorage:
    """Raises FileNotFoundError where it is not there and not to be made; UserError where it cannot be read."""
    path = folder / JOURNAL
    if write:
        make_folder(folder)
        with disk_errors(path):
            repair(path)
    elif not os.path.lexists(path):
        raise FileNotFoundError(str(path))
    try:
        with disk_errors(path):
            return JournalStorage(Journal(path, make=write))
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # a line inside of it is damaged
        hint = "move the folder away and search again: results that are in the store cost nothing"
        raise UserError(f"the journal of the search is damaged: {error}", where=str(path), hint=hint) from None


def repair(path: Path) -> int:
    """Cut a journal after its last whole line: a line that was cut while it was written swallows the next one. The
    caller holds the search, so nobody writes. Returns the bytes that were cut off, which are kept beside it."""
    lock = path.with_name(path.name + ".lock")
    if lock.is_symlink():  # of a driver that was killed while it wrote; Optuna would wait 30 s for it
        os.unlink(lock)
    try:
        descriptor = below.opened(path, os.O_RDWR)
    except FileNotFoundError:
        return 0
    with os.fdopen(descriptor, "r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            put(path.with_name(path.name + ".torn"), content[whole:] + b"\n")
            file.truncate(whole)
            os.fsync(file.fileno())
    return len(content) - whole


def _loss(trial: FrozenTrial) -> float:
    """PED-ANOVA takes the lower for the better where it is given a target."""
    return -float(trial.values[0])


def _suggest(trial: optuna.trial.Trial, name: str, dimension: Dimension) -> Scalar:
    found: Scalar = trial._suggest(name, samplers.distribution(dimension))
    return found


def _plain(dimension: Dimension, value: Any) -> Scalar:
    """A value as it stands in a suite: low + 3 * step as 0.3, not 0.30000000000000004, the same setting."""
    if dimension.choices:
        return next(choice for choice in dimension.choices if choice == value and type(choice) is type(value))
    if dimension.int:
        return int(value)
    return round(float(value), 12) if dimension.step is not None else float(value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
