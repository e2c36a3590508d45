"""The trials of a search outlive every kill: the journal is cut after each of its lines, and inside of lines, and the
search that goes on from there has the trials of one that was never disturbed.
"""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import optuna
import pytest

from bench.cli.open import open_suite
from bench.errors import UserError
from bench.search import pruning
from bench.search.study import JOURNAL, Study, folder_of, opened, repair
from bench.search.view import Trial, View, dominates
from bench.store import below
from bench.suite.search import Search, Space

ROWS = """preset: cpu
rows:
  BAGS: {method: bags, beta: 8}
  tau-norm: {method: tau_norm}
"""
SPACES = {
    "tpe": "{beta: 0.5:32:log, tau: 0:1, schedule.steps: 100:900:int}",
    "gp": "{schedule.lr: 0.001:0.1:log, schedule.momentum: 0:0.9}",
    "cmaes": "{schedule.lr: 0.001:0.1:log, schedule.momentum: 0:0.9}",
    "random": "{beta: 0.5:32:log, tau: 0:1}",
    "qmc": "{schedule.lr: 0.001:0.1:log, schedule.momentum: 0:0.9}",
    "nsgaii": "{beta: 0.5:32:log, tau: 0:1}",
    "grid": "{beta: [1, 2, 4, 8], tau: 0:1:0.25}",
}


def section(folder: Path, sampler: str, more: str = "trials: 9, round: 4") -> tuple[Search, Space]:
    path = folder / f"{sampler}.yaml"
    path.write_text(f"{ROWS}search: {{space: {SPACES[sampler]}, sampler: {sampler}, {more}}}\n")
    suite = open_suite(path)
    assert suite.sections.search is not None
    assert suite.space is not None
    return suite.sections.search, suite.space


def study_in(folder: Path, search: Search, space: Space) -> Study:
    return opened(folder, "s", search, space, {}, write=True)


def value_of(trial: Trial) -> float:
    """A smooth objective of whatever a trial has."""
    numbers = [math.log1p(abs(float(v))) for v in trial.settings().values() if isinstance(v, int | float)]
    return 30.0 - sum((number - 1.0) ** 2 for number in numbers) + len(str(trial.chosen.get("row", "")))


def finish(study: Study) -> list[Any]:
    """Drive a search to its end as bench.search.loop does; its trials as plain values."""
    while trials := study.round():
        for trial in trials:
            if trial.number % 7 == 5:
                study.fail(trial.number, "diverged")
            else:
                study.complete(trial.number, [value_of(trial)])
    return [(t.number, t.state, dict(t.chosen), t.values) for t in study.view().trials]


def lines_of(folder: Path) -> bytes:
    return (folder_of(folder, "s") / JOURNAL).read_bytes()


@pytest.mark.parametrize(
    "sampler", [s if s not in ("gp", "tpe") else pytest.param(s, marks=pytest.mark.slow) for s in SPACES]
)
def test_a_search_cut_anywhere_goes_on_as_if_it_had_not_been(sampler: str, tmp_path: Path) -> None:
    search, space = section(tmp_path, sampler)
    whole = finish(study_in(tmp_path / "whole", search, space))
    assert sum(state == "complete" for _, state, *_ in whole) == (9 if sampler != "grid" else 8)
    journal = lines_of(tmp_path / "whole")
    ends = [i + 1 for i, byte in enumerate(journal) if byte == ord("\n")]
    cuts = [0, *ends[:-1], *(end + 7 for end in ends[:-1:5])]  # between lines, and inside of some
    for cut in cuts:
        store = tmp_path / f"cut{cut}"
        folder_of(store, "s").mkdir(parents=True)
        (folder_of(store, "s") / JOURNAL).write_bytes(journal[:cut])
        assert finish(study_in(store, search, space)) == whole, f"cut at byte {cut} of {len(journal)}"


def test_nothing_is_left_running_and_numbers_count_on(tmp_path: Path) -> None:
    search, space = section(tmp_path, "random", "trials: 6, round: 3")
    finish(study_in(tmp_path / "a", search, space))
    more = search.model_copy(update={"trials": 10})
    found = finish(study_in(tmp_path / "a", more, space))
    assert [number for number, *_ in found] == list(range(len(found)))
    assert sum(state == "complete" for _, state, *_ in found) == 10
    assert {state for _, state, *_ in found} == {"complete", "failed"}


def test_the_budget_counts_what_is_finished_not_what_failed(tmp_path: Path) -> None:
    search, space = section(tmp_path, "random", "trials: 8, round: 4")
    found = finish(study_in(tmp_path / "a", search, space))
    assert [state for _, state, *_ in found].count("failed") == 1  # number 5
    assert len(found) == 9


def test_another_seed_has_other_trials(tmp_path: Path) -> None:
    search, space = section(tmp_path, "random")
    first = finish(study_in(tmp_path / "a", search, space))
    other = finish(study_in(tmp_path / "b", search.model_copy(update={"seed": 1}), space))
    assert [t[2] for t in first] != [t[2] for t in other]


def test_trials_of_a_round_differ(tmp_path: Path) -> None:
    """Each sampler is made anew for each trial, seeded by its number."""
    for sampler in ("random", "qmc", "cmaes", "nsgaii"):
        search, space = section(tmp_path, sampler)
        found = finish(study_in(tmp_path / sampler, search, space))
        assert len({json.dumps(chosen, sort_keys=True) for _, _, chosen, _ in found}) == len(found), sampler


def test_qmc_is_the_sobol_sequence_from_its_first_point(tmp_path: Path) -> None:
    """scipy's own scrambled sequence of the same seed, as an outside oracle."""
    from scipy.stats import qmc

    search, space = section(tmp_path, "qmc", "trials: 8, round: 3")
    found = finish(study_in(tmp_path / "a", search, space))
    points = qmc.Sobol(3, scramble=True, seed=0).random(16)[: len(found)]  # the first is that of `row`
    for (_, _, chosen, _), (_, a, b) in zip(found, points, strict=True):
        assert chosen["schedule.lr"] == pytest.approx(math.exp(math.log(0.001) + a * math.log(100)))
        assert chosen["schedule.momentum"] == pytest.approx(0.9 * b)


def test_a_grid_has_each_point_once(tmp_path: Path) -> None:
    search, space = section(tmp_path, "grid", "round: 4")
    found = finish(study_in(tmp_path / "a", search, space))
    assert [chosen for _, _, chosen, _ in found] == list(space.points() or ())
    assert found[7][2] == {"row": "tau-norm", "tau": 0.75}


def test_tpe_finds_what_random_search_does_not(tmp_path: Path) -> None:
    """The sampler sees the results: over 40 trials its second half is better than its first."""
    search, space = section(tmp_path, "cmaes", "trials: 40, round: 4")
    for sampler in ("tpe", "cmaes"):
        study = study_in(tmp_path / sampler, search.model_copy(update={"sampler": sampler}), space)
        while trials := study.round():
            for trial in trials:
                x = math.log10(float(trial.chosen["schedule.lr"] or 1)) + 2  # -1..1, best at 0.3
                y = float(trial.chosen["schedule.momentum"] or 0)  # best at 0.6
                study.complete(trial.number, [-((x - 0.3) ** 2) - (y - 0.6) ** 2])
        values = [trial.values[0] for trial in study.view().trials]
        assert sum(values[20:]) / 20 > sum(values[:20]) / 20, sampler
        assert max(values) > -0.02, sampler


def test_a_torn_line_is_cut_off_and_kept_beside(tmp_path: Path) -> None:
    search, space = section(tmp_path, "random")
    study_in(tmp_path / "a", search, space).round()
    path = folder_of(tmp_path / "a", "s") / JOURNAL
    content = path.read_bytes()
    path.write_bytes(content + b'{"op_code": 4, "wor')
    assert repair(path) == 19
    assert path.read_bytes() == content
    assert path.with_name("journal.log.torn").read_bytes() == b'{"op_code": 4, "wor\n'
    assert repair(path) == 0


def test_a_lock_of_a_dead_driver_costs_no_wait(tmp_path: Path) -> None:
    search, space = section(tmp_path, "random")
    study_in(tmp_path / "a", search, space)
    path = folder_of(tmp_path / "a", "s") / JOURNAL
    path.with_name("journal.log.lock").symlink_to(path)
    study_in(tmp_path / "a", search, space).round()
    assert not path.with_name("journal.log.lock").is_symlink()


def test_a_journal_that_is_a_link_is_refused(tmp_path: Path) -> None:
    search, space = section(tmp_path, "random")
    folder = folder_of(tmp_path / "a", "s")
    folder.mkdir(parents=True)
    (tmp_path / "mine").write_text("precious\n")
    (folder / JOURNAL).symlink_to(tmp_path / "mine")
    for write in (True, False):
        with pytest.raises(UserError) as caught:
            opened(tmp_path / "a", "s", search, space, {}, write=write)
        assert caught.value.what == below.refused(folder / JOURNAL).what
    assert (tmp_path / "mine").read_text() == "precious\n"


def test_looking_writes_nothing(tmp_path: Path) -> None:
    """As another user does, who may read the store alone."""
    search, space = section(tmp_path, "random")
    whole = finish(study_in(tmp_path / "a", search, space))
    path = folder_of(tmp_path / "a", "s") / JOURNAL
    before, names = path.read_bytes(), sorted(path.parent.iterdir())
    path.chmod(0o444)
    seen = opened(tmp_path / "a", "s", search, space, {}, write=False).view()
    assert [trial.number for trial in seen.trials] == [number for number, *_ in whole]
    assert (path.read_bytes(), sorted(path.parent.iterdir())) == (before, names)


def test_a_damaged_journal_is_one_message(tmp_path: Path) -> None:
    search, space = section(tmp_path, "random")
    study_in(tmp_path / "a", search, space).round()
    path = folder_of(tmp_path / "a", "s") / JOURNAL
    path.write_bytes(path.read_bytes().replace(b'{"op_code":4', b'{"op_code:4', 1) + b"{}\n")
    with pytest.raises(UserError, match="damaged"):
        study_in(tmp_path / "a", search, space)


def test_any_storage_of_optuna(tmp_path: Path) -> None:
    search, space = section(tmp_path, "random", f"trials: 9, round: 4, storage: 'sqlite:///{tmp_path}/s.db'")
    found = finish(study_in(tmp_path / "a", search, space))
    journal, _ = section(tmp_path, "random")
    assert found == finish(study_in(tmp_path / "b", journal, space))
    assert not (tmp_path / "a").exists()
    assert len(optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/s.db").trials) == len(found)


def test_a_storage_that_cannot_be_opened_is_one_message_without_its_password(tmp_path: Path) -> None:
    search, space = section(tmp_path, "random", "trials: 9, storage: 'nosuch://me:secret@host/db'")
    with pytest.raises(UserError) as caught:
        study_in(tmp_path / "a", search, space)
    assert "Optuna cannot open" in str(caught.value)
    assert "secret" not in str(caught.value)


class Touch:
    """Unpickled, it makes a file: what Optuna's own CMA-ES sampler would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_nothing_in_a_journal_is_code(tmp_path: Path) -> None:
    """Whoever may write to a group's store writes a pickle where Optuna looks for the state of CMA-ES."""
    search, space = section(tmp_path, "cmaes", "trials: 12, round: 4")
    expected = finish(study_in(tmp_path / "a", search, space))
    assert b"cma:optimizer" not in lines_of(tmp_path / "a")
    study = study_in(tmp_path / "b", search, space)
    for trial in study.round():
        study.complete(trial.number, [value_of(trial)])
    planted = pickle.dumps(Touch(tmp_path / "owned")).hex()
    path = folder_of(tmp_path / "b", "s") / JOURNAL
    line = {"op_code": 9, "worker_id": "x", "trial_id": 3, "system_attr": {"cma:optimizer:0": planted}}
    lines = path.read_bytes().splitlines(keepends=True)
    told = next(i for i, text in enumerate(lines) if b'"op_code":6' in text and b'"trial_id":3' in text)
    path.write_bytes(b"".join([*lines[:told], json.dumps(line).encode() + b"\n", *lines[told:]]))
    assert finish(study_in(tmp_path / "b", search, space)) == expected
    assert not (tmp_path / "owned").exists()


# -- pruning


def test_brackets_are_those_of_hyperband() -> None:
    """R = 9, eta = 3: the paper's algorithm has 9, 5 and 3 configurations (ceil of 9, 4.5, 3)."""
    assert pruning.brackets(17, 2, 3) == [0] * 9 + [1] * 5 + [2] * 3
    assert pruning.brackets(3, 2, 3) == [0, 0, 2]
    assert sorted(pruning.brackets(100, 3, 4), reverse=False) == pruning.brackets(100, 3, 4)


def test_the_best_third_goes_on() -> None:
    values = {0: 1.0, 1: 5.0, 2: 3.0, 3: 5.0, 4: 0.0, 5: 2.0, 6: 4.0}
    assert pruning.going_on(values, 3) == {1, 3}
    assert pruning.going_on({7: 1.0, 8: 1.0}, 3) == {7}


def test_steps_by_rungs_by_hand() -> None:
    """17 trials, rungs 100 and 300 of 900: bracket 0: 9 * 100 + 3 * 200 + 1 * 600; bracket 1: 5 * 300 + 1 * 600;
    bracket 2: 3 * 900."""
    assert pruning.predicted_steps(17, [100, 300], 900, 3) == 900 + 600 + 600 + 1500 + 600 + 2700


def test_median_prunes_below_the_median_of_five(tmp_path: Path) -> None:
    search, space = section(tmp_path, "random", "trials: 8, round: 6, pruner: median, rungs: [10, 20]")
    study = study_in(tmp_path / "a", search, space)
    trials = study.round()
    for trial in trials[:5]:
        study.report(trial.number, 10, float(trial.number))  # 0 1 2 3 4: median 2
        assert not study.should_prune(trial.number, 10)  # fewer than five are complete
        study.complete(trial.number, [1.0])
    study.report(5, 10, 1.9)
    assert study.should_prune(5, 10)
    study.report(5, 20, 99.0)
    assert study.should_prune(5, 10), "what was reported later does not count"
    study.prune(5)
    assert study.view().trials[5].state == "pruned"
    assert study.view().trials[5].rungs == {10: 1.9, 20: 99.0}


# -- views


def made(number: int, *values: float) -> Trial:
    return Trial(number, "complete", {"beta": float(number)}, values)


def test_the_best_of_equals_is_the_first(tmp_path: Path) -> None:
    search, space = section(tmp_path, "random")
    view = View("s", search, space, (made(0, 1.0), made(1, 2.0), made(2, 2.0), Trial(3, "pruned", {})))
    assert [trial.number for trial in view.finals()] == [1]


def test_a_front_is_what_nothing_dominates(tmp_path: Path) -> None:
    search, space = section(tmp_path, "random", "trials: 9, objective: [AP1, AP4]")
    points = [(1.0, 9.0), (2.0, 8.0), (1.5, 7.0), (3.0, 5.0), (3.0, 5.0), (0.5, 9.0), (4.0, 1.0)]
    view = View("s", search, space, tuple(made(i, *point) for i, point in enumerate(points)))
    assert [trial.number for trial in view.best()] == [6, 3, 1, 0]
    assert dominates((2.0, 8.0), (1.5, 7.0))
    assert not dominates((1.0, 1.0), (1.0, 1.0))
    some = View("s", search.model_copy(update={"finals": 2}), space, view.trials)
    assert [trial.number for trial in some.finals()] == [6, 0]
