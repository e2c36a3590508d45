"""The rounds of a search, with stages that are made at once: their values are a function of the trial's settings."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.launch.loop import Ended
from bench.launch.requests import Requests
from bench.plan import planning
from bench.plan.planning import Plan
from bench.search import plans
from bench.search.loop import Rounds
from bench.search.plans import final_plan, plan_of, study_name
from bench.search.pruning import predicted_steps
from bench.stage import walk
from bench.store.lease import Observer, acquire
from bench.suite.suite import Suite
from tests.conftest import Bench
from tests.search.driven import BETA, Driven


def test_a_search_ends_with_the_best_of_its_trials(tmp_path: Path) -> None:
    driven = Driven(tmp_path, BETA + "  trials: 12\n  round: 4\n")
    ended, view = driven.run()
    assert ended == Ended({}, False)
    assert [trial.state for trial in view.trials] == ["complete"] * 12
    (best,) = view.finals()
    nearest = min(view.trials, key=lambda trial: abs(math.log2(float(trial.chosen["beta"] or 0) / 4)))
    assert best is nearest
    final = final_plan(driven.suite, view)
    assert [row.label for row in final.suite.rows] == ["baseline", "BAGS", "tau-norm", "BAGS (searched)"]
    assert final.suite.rows[-1].settings["beta"] == best.chosen["beta"]
    assert final.suite.sections.seeds == (0, 1)
    untouched = planning.make(dataclasses.replace(driven.suite))
    assert set(untouched.stages) <= set(final.stages), "the untouched rows are those of any suite"


def test_a_round_is_one_plan(tmp_path: Path) -> None:
    driven = Driven(tmp_path, BETA + "  trials: 10\n  round: 4\n")
    driven.run()
    assert [len(plan.rows) for plan in driven.plans] == [4, 4, 2]
    first = driven.plans[0]
    assert len([s for s in first.stages.values() if s.kind == "train"]) == 5, "four heads over one trunk"


def test_what_trials_are_measured_on(tmp_path: Path) -> None:
    """Another share, another seed, or val: other data stages, which no row of the suite has unless it is val."""

    def splits(section: str) -> tuple[set[str], set[str]]:
        driven = Driven(tmp_path / str(len(section)), BETA + section)
        driven.run()
        (evaluate,) = {row.evaluate for row in driven.plans[0].rows[:1] if row.evaluate}
        data = {stage for stage in walk(evaluate) if stage.kind == "data"}
        return {stage.spec["split"] for stage in data}, {stage.key for stage in data}

    names, keys = splits("  trials: 2\n")
    assert names == {"train", "rest", "tune"}
    for other in ("  trials: 2\n  tune: 0.5\n", "  trials: 2\n  tune_seed: 1\n"):
        same, others = splits(other)
        assert same == names
        assert len(others & keys) == 1, "the whole training set alone is the same"
    assert splits("  trials: 2\n  tune_on: val\n")[0] == {"train", "val"}


def test_val_is_in_no_plan_of_a_trial(tmp_path: Path) -> None:
    driven = Driven(tmp_path, "  space: {beta: 1:8, tau: 0:1}\n  rows: [BAGS, tau-norm]\n  trials: 8\n")
    driven.run()
    for plan in driven.plans:
        assert "val" not in {stage.spec["split"] for stage in plan.stages.values() if stage.kind == "data"}


def test_a_trial_is_the_mean_of_its_seeds(tmp_path: Path) -> None:
    one = Driven(tmp_path / "one", BETA + "  trials: 2\n")
    three = Driven(tmp_path / "three", BETA + "  trials: 2\n  seeds: [0, 1, 5]\n")
    (_, first), (_, mean) = one.run(), three.run()
    assert [row.seed for row in three.plans[0].rows] == [0, 1, 5, 0, 1, 5]
    for a, b in zip(first.trials, mean.trials, strict=True):
        assert b.values[0] == pytest.approx(a.values[0] + 2)  # (0 + 1 + 5) / 3


def test_several_objectives_have_their_values_each(tmp_path: Path) -> None:
    driven = Driven(tmp_path, BETA + "  trials: 6\n  objective: [AP1, AP4]\n  finals: 3\n")
    _, view = driven.run()
    for trial in view.trials:
        beta = float(trial.chosen["beta"] or 0)
        assert trial.values == pytest.approx((beta, 50 - beta))
    assert len(view.best()) == 6, "none dominates another"
    labels = [row.label for row in final_plan(driven.suite, view).suite.rows[3:]]
    assert len(labels) == 3
    assert all(label.startswith("BAGS (trial ") for label in labels)


HYPERBAND = BETA + "  sampler: random\n  pruner: hyperband\n  rungs: [3, 9]\n  trials: 17\n  round: 17\n"


def test_hyperband_ends_all_but_the_best_of_each_rung(tmp_path: Path) -> None:
    """17 trials of 27 steps with rungs 3 and 9: brackets of 9, 5 and 3."""
    driven = Driven(tmp_path, HYPERBAND)
    _, view = driven.run()
    assert [trial.bracket for trial in view.trials] == [0] * 9 + [1] * 5 + [2] * 3
    states = [trial.state for trial in view.trials]
    assert (states.count("complete"), states.count("pruned")) == (1 + 1 + 3, 8 + 4)
    first = view.trials[:9]
    order = sorted(first, key=lambda trial: -trial.rungs[3])
    assert [t.number for t in first if 9 in t.rungs] == sorted(t.number for t in order[:3])
    assert [t.number for t in first if t.state == "complete"] == [order[0].number]
    heads = [(a, b) for a, b in driven.trained if b <= 27]
    assert sum(b - a for a, b in heads) == predicted_steps(17, [3, 9], 27, 3), "no step of a trial is trained twice"


def test_another_reduction_keeps_others(tmp_path: Path) -> None:
    driven = Driven(tmp_path, HYPERBAND + "  reduction: 2\n")
    _, view = driven.run()
    assert [trial.bracket for trial in view.trials] == [0] * 7 + [1] * 5 + [2] * 5
    assert sum(9 in trial.rungs for trial in view.trials[:7]) == 3


def test_wilcoxon_trains_a_seed_at_a_time(tmp_path: Path) -> None:
    """Ten seeds; a trial that is worse with each of them ends before all are trained."""
    section = BETA + "  sampler: random\n  pruner: wilcoxon\n  seeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n  trials: 6\n"
    driven = Driven(tmp_path, section + "  round: 1\n")
    _, view = driven.run()
    assert view.trials[0].state == "complete"
    best = max((t for t in view.trials if t.state == "complete"), key=lambda t: t.values[0])
    for trial in view.trials:
        if trial.state == "pruned":
            assert 2 <= len(trial.rungs) < 10
            assert all(value < best.rungs[step] for step, value in trial.rungs.items() if step in best.rungs)
    assert any(trial.state == "pruned" for trial in view.trials)


def test_a_budget_of_hours_ends_with_its_round(tmp_path: Path) -> None:
    for name in ("hours", "machine_hours"):
        driven = Driven(tmp_path / name, BETA + f"  {name}: 1\n  round: 3\n")
        study = driven.study()
        rounds = Rounds(driven.suite, study, driven.store, driven.bring, lambda view, s=study: s.spend(0.4, 0.4))
        rounds.run()
        view = study.view()
        assert len(view.trials) == 6, "shown twice a round: 0.8 of an hour leaves some, 1.6 leave none"
        assert all(trial.state == "complete" for trial in view.trials)


def test_what_was_spent_is_counted(tmp_path: Path) -> None:
    driven = Driven(tmp_path, BETA + "  trials: 4\n  round: 2\n")
    _, view = driven.run()
    made_ = {key for plan in driven.plans for key, stage in plan.stages.items() if stage.kind != "data"}
    assert view.machine_hours * 3600 == pytest.approx(1.5 * len(made_))  # done_store's seconds for each
    assert view.hours > 0


# -- what fails


def test_a_trial_that_diverges_fails_alone(tmp_path: Path) -> None:
    driven = Driven(tmp_path, BETA + "  trials: 6\n  round: 3\n")
    driven.failing = lambda label: label == "trial 1"
    ended, view = driven.run()
    assert ended == Ended({}, False)
    assert [trial.state for trial in view.trials] == ["complete", "failed", *["complete"] * 5]
    assert view.trials[1].why == "it diverged"


def test_what_fails_for_all_is_no_trials_fault(tmp_path: Path) -> None:
    driven = Driven(tmp_path, BETA + "  trials: 6\n  round: 3\n")
    driven.failing = lambda label: True
    ended, view = driven.run()
    assert ended.failed
    assert [trial.state for trial in view.trials] == ["running"] * 3, "they are asked again, not lost"
    driven.failing = lambda label: False
    ended, view = driven.run()
    assert [trial.state for trial in view.trials] == ["complete"] * 6


def test_an_objective_that_the_data_do_not_have_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    """No class of the data has 100 to 999 training instances."""
    driven = Driven(tmp_path, BETA + "  trials: 6\n  objective: AP3\n")
    with pytest.raises(UserError) as caught:
        driven.run()
    assert "s.yaml" in str(caught.value)
    assert "no class that AP3 counts has a box in `tune`. Legal: AP, AP1, AP2, AP4, APr, APc, APf" in str(caught.value)
    assert not driven.plans


def test_a_metric_that_no_trial_has_is_one_message(tmp_path: Path) -> None:
    driven = Driven(tmp_path, BETA + "  trials: 6\n  objective: APs\n", lambda *_: {"AP": 1.0, "APs": None})
    with pytest.raises(UserError, match="none of the 6 trials of a round has a value: APs is missing"):
        driven.run()


# -- kills between any two plans


@pytest.mark.parametrize("section", [HYPERBAND, BETA + "  trials: 9\n  round: 3\n"], ids=["hyperband", "tpe"])
def test_a_driver_that_ends_at_any_round_is_gone_on_with(section: str, tmp_path: Path) -> None:
    whole = Driven(tmp_path / "whole", section)
    _, expected = whole.run()
    for stop in range(len(whole.plans)):
        driven = Driven(tmp_path / f"stop{stop}", section)
        driven.stops_after = stop
        ended, _ = driven.run()
        assert ended.interrupted
        driven.stops_after = 10**9
        _, view = driven.run()
        assert view.trials == expected.trials
        assert sorted(driven.trained) == sorted(whole.trained), "nothing is trained twice"


def test_the_same_space_costs_nothing_twice(tmp_path: Path) -> None:
    """A search whose journal is gone, or another search over the same space: its stages are there."""
    section = BETA + "  sampler: random\n  trials: 6\n"
    driven = Driven(tmp_path, section)
    _, expected = driven.run()
    (driven.store.root / "searches").rename(tmp_path / "gone")
    again = Driven(tmp_path, section)
    _, view = again.run()
    assert view.trials == expected.trials
    assert not again.trained
    other = Driven(tmp_path, section + "  objective: AP1\n")
    _, view = other.run()
    assert [trial.chosen for trial in view.trials] == [trial.chosen for trial in expected.trials]
    assert not other.trained


def test_gc_is_told_of_all_stages(tmp_path: Path) -> None:
    driven = Driven(tmp_path, HYPERBAND)
    _, view = driven.run()
    asked = {key for plan in driven.plans for key in plan.stages}
    assert asked <= plans.all_keys(driven.suite, view)


def test_a_trial_plans_what_its_row_would(tmp_path: Path) -> None:
    """But for the data: a trial with the default's setting has the default's stages, on rest and tune."""
    driven = Driven(tmp_path, BETA + "  trials: 6\n")
    level = plans.levels(driven.suite)[-1]
    plan = plan_of(driven.suite, {"trial 0": {"beta": 8.0}}, level)
    trained = [stage.spec for stage in plan.stages.values() if stage.kind == "train"]
    default = planning.make(driven.suite)
    assert all(spec in [s.spec for s in default.stages.values() if s.kind == "train"] for spec in trained)


# -- the commands that take any suite


def test_status_logs_why_and_gc_know_the_trials(tmp_path: Path, call: Bench) -> None:
    driven = Driven(tmp_path, BETA + "  trials: 4\n  round: 2\n")
    _, view = driven.run()
    store = ("--store", driven.store.root)
    said = call("status", driven.path, *store)
    assert said.code == 0
    assert "trial 3" in said.out
    assert "BAGS (searched)" in said.out, "what is to be reported is not made yet"
    asked = call("why", driven.path, "trial 3", *store)
    assert f"beta = {view.trials[3].chosen['beta']}" in asked.out
    assert "needed by: trial 3" in asked.out
    assert call("logs", driven.path, "trial 2", *store).code == 0
    shown = call("search", driven.path, "--status", "--json", *store)
    found = json.loads(shown.out)
    assert [trial["number"] for trial in found["trials"]] == [0, 1, 2, 3]
    assert found["measured_on"] == "tune"
    told = "200 of 1,000 training images; 1 of 3 classes could not be split and are not there: 1"
    assert told in call("search", driven.path, "--status", *store).out
    best = call("search", driven.path, "--best", *store)
    assert "on tune, trial" in best.out
    assert f"beta: {view.finals()[0].chosen['beta']}" in best.out


def test_stop_asks_the_trials_to_stop(tmp_path: Path, call: Bench) -> None:
    driven = Driven(tmp_path, BETA + "  trials: 4\n  round: 2\n")
    driven.stops_after = 0
    driven.run()
    requests = Requests(driven.store.root)
    said = call("stop", driven.path, "--store", driven.store.root)
    assert said.code == 0
    assert "continue: python -m bench search" in said.out
    (asked,) = requests.new()
    assert {key for key, stage in driven.plans[0].stages.items() if stage.kind != "data"} <= asked.keys


def test_a_second_driver_is_refused(tmp_path: Path, call: Bench) -> None:
    driven = Driven(tmp_path, BETA + "  trials: 4\n")
    folder = driven.store.root / "searches" / study_name(driven.suite)
    lease = acquire(folder, Observer())
    assert lease is not None
    with lease:
        said = call("search", driven.path, "--store", driven.store.root)
    assert said.code == 2
    assert f"another driver runs this search (process {os.getpid()}" in said.err
    assert "watch it: python -m bench search" in said.err
    assert not driven.trained


def test_the_first_trials_are_the_rows_as_they_are(tmp_path: Path) -> None:
    both = Driven(tmp_path / "both", "  space: {beta: 0.5:32:log, tau: 0:1}\n  rows: [BAGS, tau-norm]\n  trials: 4\n")
    _, view = both.run()
    assert view.trials[0].chosen == {"row": "BAGS", "beta": 8}
    assert view.trials[1].chosen == {"row": "tau-norm", "tau": 1.0}
    narrow = Driven(tmp_path / "narrow", "  space: {beta: 16:32}\n  rows: [BAGS]\n  trials: 2\n")
    assert all(16 <= float(trial.chosen["beta"] or 0) <= 32 for trial in narrow.run()[1].trials)
    rate = Driven(tmp_path / "rate", "  space: {schedule.lr: 0.01:0.1}\n  rows: [BAGS]\n  trials: 2\n")
    first, second = rate.run()[1].trials
    assert first.chosen != second.chosen, "the rate is the suite's: no trial is the row as it is"


def test_settings_that_exclude_each_other_fail_their_trial_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Legal one by one: what a method says of its settings together is known when the trial is planned."""
    driven = Driven(tmp_path, BETA + "  trials: 5\n  round: 6\n")
    real = plans.plan_of

    def refusing(suite: Suite, trials: Mapping[str, Any], level: plans.Level) -> Plan:
        if "trial 2" in trials:
            raise UserError("these exclude each other")
        return real(suite, trials, level)

    monkeypatch.setattr(plans, "plan_of", refusing)
    ended, view = driven.run()
    assert ended == Ended({}, False)
    assert [trial.state for trial in view.trials] == ["complete", "complete", "failed", *["complete"] * 3]
    assert view.trials[2].why == "these exclude each other"


def test_an_estimate_of_a_finite_space_plans_its_points(tmp_path: Path) -> None:
    grid = Driven(tmp_path, "  space: {tau: 0:1:0.25}\n  rows: [tau-norm]\n  sampler: grid\n")
    drawn = plans.drawn(grid.space, 7, 0)
    assert [point["tau"] for point in drawn] == [0.0, 0.25, 0.5, 0.75, 1.0, 0.0, 0.25]
