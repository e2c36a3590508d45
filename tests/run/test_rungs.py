"""Rungs: a training that stops early and goes on in another stage has the bits of one that never stopped.

Steps that a job really did are those of its curve: at this size every step has a point.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import Processes
from tiny_suite import HEAD_STEPS, HEADS, STEPS, StopAt, Undisturbed, copied, flip_bit, key_of, tiny

from bench.cli.progress import Ticks
from bench.data.loader import Loader
from bench.data.split import open_split
from bench.lineage import asides_of, training_of
from bench.method import stopped
from bench.plan import planning
from bench.plan.cost import Estimate
from bench.record import Result, loads
from bench.run import job
from bench.run.evaluate import RESULT
from bench.run.job import Job, Outcome
from bench.run.learner import STATE
from bench.run.model import TRAIN_INFO, WEIGHTS
from bench.run.work import signals_restored
from bench.spec import Input
from bench.stage import Stage, rung, walk, with_rungs
from bench.store.done import format_done
from bench.store.events import read_events
from bench.store.store import Store
from bench.suite.suite import Suite
from methods.parts.samplers import RepeatFactor


def begun(smoke: Undisturbed, root: Path, *stages: Stage) -> Store:
    """A store with what these stages are made from."""
    below = {source.key for source in walk(*stages)} - {stage.key for stage in stages}
    return Store(copied(smoke.root, root, below))


def train(store: Store, suite: Suite, *unit: Stage) -> dict[str, Outcome]:
    """One pass of one job, as it is submitted."""
    for stage in unit:
        store.add(stage)
    with signals_restored():
        keys = tuple(sorted(stage.key for stage in unit))
        outcomes = Job(str(store.root), (keys,), suite.sections.machine, asides=asides_of(*unit))()
    assert {outcome.state for outcome in outcomes.values()} <= {"done", "stopped"}, outcomes
    return outcomes


def stop_after(steps: int, store: Store, suite: Suite, stage: Stage) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "StopFlag", lambda: StopAt(steps + 1))
        assert train(store, suite, stage)[stage.key].state == "stopped"


def said(store: Store, stage: Stage, event: str) -> list[dict[str, Any]]:
    """By its newest attempt."""
    events = read_events(store.attempts(stage.key)[-1] / "events.jsonl")[0]
    return [one for one in events if one["event"] == event]


def steps_of(store: Store, stage: Stage) -> list[int]:
    """Those that its newest attempt did."""
    return [point["step"] for point in said(store, stage, "metrics")]


def epoch_lengths(store: Store, stage: Stage, number: int) -> list[int]:
    """Images of each epoch of a stage with repeat factors."""
    split = open_split(store.output(stage.inputs["train"].key), None)
    sampler = RepeatFactor(split.statistics(), **stage.spec["sampler"].settings)
    loader = Loader(split, Input(), sampler=sampler, batch=4, seed=stage.spec["seed"], phase=stage.spec["phase"])
    return [loader.epoch_length(epoch) for epoch in range(number)]


def after(step: int, last: int) -> list[int]:
    return list(range(step + 1, last + 1))


def check_same(store: Store, reference: Path, *stages: Stage) -> None:
    """The files have the same sha256."""
    for stage in stages:
        done, expected = store.done(stage.key), Store(reference).done(stage.key)
        assert done is not None
        assert expected is not None
        assert done.digests == expected.digests
        assert store.verify(stage.key)


@pytest.fixture(scope="module")
def base(smoke: Undisturbed) -> Stage:
    return smoke.plan.stages[key_of(smoke.plan, "baseline")]


@pytest.fixture(scope="module")
def ladder(smoke: Undisturbed, base: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the rungs 4, 10 and 17 of the baseline, each continued from the one before."""
    root = tmp_path_factory.mktemp("ladder") / "store"
    store = begun(smoke, root, base)
    for until in (4, 10, 17):
        train(store, smoke.suite, rung(with_rungs(base, [4, 10, 17]), until))
    return root


def with_ladder(ladder: Path, root: Path, base: Stage, *untils: int) -> Store:
    """A copy of it with these rungs."""
    return Store(copied(ladder, root, {base.inputs["train"].key, *(rung(base, until).key for until in untils)}))


# -- the result


def test_a_chain_of_rungs_repeats_no_step(smoke: Undisturbed, base: Stage, ladder: Path, tmp_path: Path) -> None:
    store = with_ladder(ladder, tmp_path / "store", base, 4, 10, 17)
    done = [steps_of(store, rung(base, until)) for until in (4, 10, 17)]
    assert done == [after(0, 4), after(4, 10), after(10, 17)]
    train(store, smoke.suite, with_rungs(base, [4, 10, 17]))
    assert steps_of(store, base) == after(17, STEPS)
    check_same(store, smoke.root, base)
    (told,) = said(store, base, "continued")
    assert (told["rung"], told["step"]) == (rung(base, 17).key[:12], 17)


def test_a_rung_that_was_continued_is_one_that_was_not(
    smoke: Undisturbed, base: Stage, ladder: Path, tmp_path: Path
) -> None:
    """Weights, and the momentum that the next one starts with."""
    store = begun(smoke, tmp_path / "store", base)
    train(store, smoke.suite, rung(base, 10))
    assert steps_of(store, rung(base, 10)) == after(0, 10)
    check_same(store, ladder, rung(base, 10))
    done = store.done(rung(base, 10).key)
    assert done is not None
    assert set(done.digests) == {WEIGHTS, TRAIN_INFO, STATE}
    assert json.loads(store.read(rung(base, 10).key, TRAIN_INFO))["steps"] == 10
    whole = Store(smoke.root).done(base.key)
    assert whole is not None
    assert set(whole.digests) == {WEIGHTS, TRAIN_INFO}, "nobody continues a whole one"


def test_without_a_word_of_them_no_rung_is_taken(smoke: Undisturbed, base: Stage, ladder: Path, tmp_path: Path) -> None:
    store = with_ladder(ladder, tmp_path / "store", base, 17)
    train(store, smoke.suite, base)
    assert steps_of(store, base) == after(0, STEPS)
    check_same(store, smoke.root, base)


def test_heads_over_one_trunk_with_rungs_of_their_own(smoke: Undisturbed, tmp_path: Path) -> None:
    """Both rungs in one pass; then one head alone, and both others together; all as if nobody had stopped them."""
    one, two, three = (smoke.plan.stages[key_of(smoke.plan, label)] for label in HEADS)
    store = begun(smoke, tmp_path / "store", one, two, three)
    train(store, smoke.suite, rung(one, 5), rung(two, 9), rung(three, 3))
    assert [steps_of(store, rung(s, u)) for s, u in ((one, 5), (two, 9), (three, 3))] == [
        after(0, 5), after(0, 9), after(0, 3),
    ]  # fmt: skip
    train(store, smoke.suite, with_rungs(three, [3]))
    assert steps_of(store, three) == after(3, HEAD_STEPS)
    train(store, smoke.suite, with_rungs(one, [5]), with_rungs(two, [9]))
    assert [steps_of(store, one), steps_of(store, two)] == [after(5, HEAD_STEPS), after(9, HEAD_STEPS)]
    check_same(store, smoke.root, one, two, three)
    parts = [store.done(stage.key) for stage in (one, two)]
    assert [done and done.extra["part"] for done in parts] == [11 / 16, 7 / 16]
    shared = [done.extra["shared_seconds"] for done in parts if done]
    assert shared[1] == pytest.approx(shared[0] * 7 / 11), "the pass has 11 steps, of which it took part in 7"


# -- which rung is taken


@pytest.mark.parametrize("file", [WEIGHTS, STATE])
def test_a_damaged_rung_is_passed_over(
    smoke: Undisturbed, base: Stage, ladder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], file: str
) -> None:
    """Its sizes are right, so that it counts as done; one that is missing is passed over too."""
    store = with_ladder(ladder, tmp_path / "store", base, 4, 10)
    flip_bit(store.output(rung(base, 10).key) / file)
    train(store, smoke.suite, with_rungs(base, [4, 10, 17]))
    assert steps_of(store, base) == after(4, STEPS)
    check_same(store, smoke.root, base)
    lines = [line for line in capfd.readouterr().err.splitlines() if "is skipped" in line]
    assert ["rung 17" in lines[0], "rung 10" in lines[1], len(lines)] == [True, True, 2]
    assert "is not done" in lines[0]
    assert "sha256" in lines[1]


def test_where_every_rung_is_damaged_it_begins_at_step_0(
    smoke: Undisturbed, base: Stage, ladder: Path, tmp_path: Path
) -> None:
    store = with_ladder(ladder, tmp_path / "store", base, 4, 10)
    flip_bit(store.output(rung(base, 4).key) / TRAIN_INFO)
    weights = store.output(rung(base, 10).key) / WEIGHTS
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1])
    train(store, smoke.suite, with_rungs(base, [4, 10]))
    assert steps_of(store, base) == after(0, STEPS)
    check_same(store, smoke.root, base)


def test_a_rung_of_other_inputs_is_not_taken(
    smoke: Undisturbed, base: Stage, ladder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As if the pictures had been made anew, with another content, since."""
    store = with_ladder(ladder, tmp_path / "store", base, 10)
    key = rung(base, 10).key
    done = store.done(key)
    assert done is not None
    (store.folder(key) / "done").write_bytes(format_done(replace(done, inputs={"train": "0" * 64})))
    assert Store(store.root).verify(key)
    train(Store(store.root), smoke.suite, with_rungs(base, [10]))
    assert steps_of(store, base) == after(0, STEPS)
    assert "made from other inputs" in capfd.readouterr().err
    check_same(store, smoke.root, base)


def test_of_checkpoint_and_rung_the_further_one_counts(
    smoke: Undisturbed, base: Stage, ladder: Path, tmp_path: Path
) -> None:
    store, whole = with_ladder(ladder, tmp_path / "store", base, 10), with_rungs(base, [10, 17])
    stop_after(3, store, smoke.suite, whole)
    assert store.saved(base.key) == 13, "it had begun at 10"
    stop_after(1, store, smoke.suite, whole)
    assert steps_of(store, base) == [14], "its own checkpoint is newer than the rung"
    copied_rung = rung(base, 17).key
    shutil.copytree(ladder / copied_rung, store.root / copied_rung)
    train(store, smoke.suite, whole)
    assert steps_of(store, base) == after(17, STEPS), "the rung is newer"
    check_same(store, smoke.root, base)


def test_a_rung_that_was_killed_goes_on(smoke: Undisturbed, base: Stage, ladder: Path, tmp_path: Path) -> None:
    store, stage = with_ladder(ladder, tmp_path / "store", base, 4), rung(with_rungs(base, [4]), 10)
    stop_after(3, store, smoke.suite, stage)
    assert store.saved(stage.key) == 7
    train(store, smoke.suite, stage)
    assert steps_of(store, stage) == after(7, 10)
    check_same(store, ladder, stage)


# -- what a rung is


def test_the_rate_is_that_of_the_whole_schedule(base: Stage, ladder: Path) -> None:
    """By hand: a fifth of 0.02 at the first of 5 steps of warm-up; then half a cosine over 24 steps, not over 17."""
    store, schedule = Store(ladder), base.spec["schedule"]
    assert [schedule[name] for name in ("lr", "warmup", "warmup_from", "decay")] == [0.02, 5, 0, "cosine"]
    rates = [point["values"]["lr"] for until in (4, 10, 17) for point in said(store, rung(base, until), "metrics")]
    assert [rates[step] for step in (0, 8, 12, 16)] == pytest.approx([0.004, 0.015, 0.010, 0.005])


def test_what_it_took_and_how_far_it_is(base: Stage, ladder: Path) -> None:
    """A rung that did 7 of its 17 steps prices a step by these 7."""
    store, stages = Store(ladder), [rung(base, until) for until in (4, 10, 17)]
    found = [store.done(stage.key) for stage in stages]
    assert [done and done.extra["part"] for done in found] == [1.0, 6 / 10, 7 / 17]
    for stage, done in zip(stages, found, strict=True):
        assert done is not None
        estimate = Estimate(tiny().sections.cost)
        estimate.learn(stage, done)
        took = {4: 4, 10: 6, 17: 7}[stage.spec["until"]]
        assert estimate(base) == pytest.approx(
            (done.extra["shared_seconds"] + done.extra["own_seconds"]) / took * STEPS
        )
        tick = Ticks(store).of(stage.key)
        assert tick is not None
        assert (tick.step, tick.total) == (stage.spec["until"], stage.spec["until"])


def test_it_is_predicted_and_evaluated_like_any_model(smoke: Undisturbed, ladder: Path, tmp_path: Path) -> None:
    """Rows as a search makes them: a trial that was stopped at 10, and an edit of that model."""
    suite = smoke.suite
    rows = {row.label: row.evaluate for row in smoke.plan.rows}
    models = [rows[label].inputs["predict"].inputs["model"] for label in ("baseline", "tau-norm") if rows[label]]
    trials = [suite.evaluated(stopped(model, 10, below=(4, 10, 17)), seed=0) for model in models]
    plan = replace(smoke.plan, rows=(), stages={stage.key: stage for stage in walk(*trials)}, needed_by={})
    shared = {key for key in plan.stages if (smoke.root / key).exists()}
    store = Store(copied(smoke.root, tmp_path / "store", shared))
    for stage in plan.stages.values():
        train(store, suite, stage)
    for trial in trials:
        result = loads(Result, store.read(trial.key, RESULT))
        assert result.protocol.steps == {"1:all": 10}
        assert result.metrics["AP"] is not None
    check_same(store, ladder, training_of(trials[1].inputs["predict"].inputs["model"]))


@pytest.mark.slow
def test_in_epochs_of_a_sampler_that_draws(smoke: Undisturbed, tmp_path: Path) -> None:
    """Repeat factors are rounded by chance, so that epochs differ in length; `until` counts them."""
    suite = tiny("schedule.epochs=5", only="RFS")
    plan = planning.make(suite)
    whole = plan.stages[key_of(plan, "RFS")]
    straight, store = begun(smoke, tmp_path / "straight", whole), begun(smoke, tmp_path / "store", whole)
    train(straight, suite, whole)
    images = epoch_lengths(straight, whole, 5)
    steps = [math.ceil(sum(images[:n]) / whole.spec["schedule"]["batch"]) for n in range(6)]
    assert len(set(images)) > 1
    for begin, until in ((0, 2), (2, 3)):
        stage = rung(with_rungs(whole, [2, 3]), until)
        train(store, suite, stage)
        assert steps_of(store, stage) == after(steps[begin], steps[until])
    train(store, suite, with_rungs(whole, [2, 3]))
    assert steps_of(store, whole) == after(steps[3], steps[5])
    check_same(store, straight.root, whole)


@pytest.mark.slow
def test_several_processes_continue_from_one_rung(smoke: Undisturbed, tmp_path: Path) -> None:
    """The first reads it. The others, which read nothing, end with the same weights, or the job would fail."""
    suite = tiny("detector.norm=group", only="baseline")
    plan = planning.make(suite)
    whole = plan.stages[key_of(plan, "baseline")]
    straight, store = begun(smoke, tmp_path / "straight", whole), begun(smoke, tmp_path / "store", whole)
    for place, stage in ((straight, whole), (store, rung(whole, 10)), (store, with_rungs(whole, [10]))):
        place.add(stage)
        assert Processes(place.root, suite, [[stage.key]], 2).outcomes() == {stage.key: ["done", "", 0]}
    assert steps_of(store, whole) == after(10, STEPS)
    check_same(store, straight.root, whole)
