"""A training that was stopped goes on exactly: its weights have the bits of one that nobody disturbed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tiny_suite import (
    CHECKPOINT_EVERY,
    HEAD_STEPS,
    HEADS,
    STEPS,
    StopAt,
    Undisturbed,
    bring,
    copied,
    data_keys,
    key_of,
    tiny,
    work,
)

from bench.plan import planning
from bench.plan.planning import Plan
from bench.run import job
from bench.run.job import Outcome
from bench.store.events import read_events
from bench.store.store import Store
from bench.suite.suite import Suite


class SignalAt(StopAt):
    """A stop flag that lets the process get a real SIGTERM when it is looked at for the n-th time (once a step)."""

    def reached(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def stopped_at(step: int, root: Path, suite: Suite, unit: tuple[str, ...]) -> dict[str, Outcome]:
    """Work on a unit until `step` more steps are done, then stop as Ctrl-C and Slurm do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "StopFlag", lambda: SignalAt(step + 1))
        outcomes = work(root, suite, unit)
    assert {outcome.state for outcome in outcomes.values()} == {"stopped"}
    return outcomes


def store_without(smoke: Undisturbed, root: Path, *keys: str) -> Path:
    """A store with the inputs of these stages, and the stages written down."""
    inputs = {source.key for key in keys for source in smoke.plan.stages[key].inputs.values()}
    copied(smoke.root, root, inputs)
    for key in keys:
        Store(root).add(smoke.plan.stages[key])
    return root


def check_equal(plan: Plan, root: Path, reference: Path, *keys: str) -> None:
    for key in keys:
        done, expected = Store(root).done(key), Store(reference).done(key)
        assert done is not None
        assert expected is not None
        assert done.digests == expected.digests, plan.needed_by[key]
        assert Store(root).verify(key)


def finish(root: Path, suite: Suite, *unit: str) -> None:
    outcomes = work(root, suite, tuple(sorted(unit)))
    assert {outcome.state for outcome in outcomes.values()} == {"done"}


@pytest.mark.parametrize("step", [0, CHECKPOINT_EVERY, 13, STEPS - 1])
def test_a_whole_detector_goes_on_exactly(smoke: Undisturbed, tmp_path: Path, step: int) -> None:
    """Batch norm's running statistics, momentum, warm-up and decay included; before the first step and the last too."""
    key = key_of(smoke.plan, "baseline")
    root = store_without(smoke, tmp_path / "store", key)
    stopped_at(step, root, smoke.suite, (key,))
    assert Store(root).saved(key) == step
    assert Store(root).done(key) is None
    assert planning.states(smoke.plan, Store(root))[key] == "partial"
    finish(root, smoke.suite, key)
    check_equal(smoke.plan, root, smoke.root, key)
    second = Store(root).attempts(key)[1]
    steps = [e["step"] for e in read_events(second / "events.jsonl")[0] if e["event"] == "metrics"]
    assert steps
    assert min(steps) == step + 1  # what was done before was not done again
    assert not list((root / key).rglob("checkpoint-*"))


def test_stopped_again_and_again(smoke: Undisturbed, tmp_path: Path) -> None:
    key = key_of(smoke.plan, "x2")
    root = store_without(smoke, tmp_path / "store", key)
    for _ in range(3):
        stopped_at(3, root, smoke.suite, (key,))
    assert Store(root).saved(key) == 9
    finish(root, smoke.suite, key)
    check_equal(smoke.plan, root, smoke.root, key)


def test_a_job_that_is_often_preempted_does_not_fill_the_disk(smoke: Undisturbed, tmp_path: Path) -> None:
    """Two checkpoints of the newest attempt are enough; a single one is not (it may turn out to be broken)."""
    key = key_of(smoke.plan, "baseline")
    root = store_without(smoke, tmp_path / "store", key)
    left = []
    for steps in (6, 1, 8):
        stopped_at(steps, root, smoke.suite, (key,))
        left.append([path.parent.name + "/" + path.stem for path in sorted(root.rglob("checkpoint-*.safetensors"))])
    assert left[0] == ["1/checkpoint-5", "1/checkpoint-6"]
    assert left[1] == [*left[0], "2/checkpoint-7"]
    assert left[2] == ["3/checkpoint-10", "3/checkpoint-15"]
    finish(root, smoke.suite, key)
    check_equal(smoke.plan, root, smoke.root, key)


@pytest.mark.parametrize("harm", ["cut", "rotten", "unsigned"])
def test_a_broken_newest_checkpoint_is_passed_over(smoke: Undisturbed, tmp_path: Path, harm: str) -> None:
    key = key_of(smoke.plan, "baseline")
    root = store_without(smoke, tmp_path / "store", key)
    stopped_at(7, root, smoke.suite, (key,))
    newest = Store(root).attempts(key)[0] / "checkpoint-7.safetensors"
    data = newest.read_bytes()
    if harm == "cut":
        newest.write_bytes(data[: len(data) // 2])
    elif harm == "rotten":
        newest.write_bytes(data[:-100] + bytes(100))
    else:
        newest.with_name(newest.name + ".sha256").unlink()
    finish(root, smoke.suite, key)
    check_equal(smoke.plan, root, smoke.root, key)
    second = Store(root).attempts(key)[1]
    steps = [e["step"] for e in read_events(second / "events.jsonl")[0] if e["event"] == "metrics"]
    assert min(steps) == CHECKPOINT_EVERY + 1


def test_fused_heads_that_stand_at_different_steps(smoke: Undisturbed, tmp_path: Path) -> None:
    """One head alone for 3 steps, another for 11, the third not at all; then all in one pass from the least step."""
    heads = [key_of(smoke.plan, label) for label in HEADS]
    root = store_without(smoke, tmp_path / "store", *heads)
    stopped_at(3, root, smoke.suite, (heads[0],))
    stopped_at(11, root, smoke.suite, (heads[2],))
    assert [Store(root).saved(key) for key in heads] == [3, 0, 11]
    stopped_at(6, root, smoke.suite, tuple(sorted(heads)))
    assert [Store(root).saved(key) for key in heads] == [6, 6, 11]
    finish(root, smoke.suite, *heads)
    check_equal(smoke.plan, root, smoke.root, *heads)


def test_one_head_is_done_and_the_others_go_on(smoke: Undisturbed, tmp_path: Path) -> None:
    heads = [key_of(smoke.plan, label) for label in HEADS]
    root = store_without(smoke, tmp_path / "store", *heads)
    finish(root, smoke.suite, heads[1])
    stopped_at(HEAD_STEPS // 2, root, smoke.suite, tuple(sorted([heads[0], heads[2]])))
    outcomes = work(root, smoke.suite, tuple(sorted(heads)))
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    check_equal(smoke.plan, root, smoke.root, *heads)
    assert [len(Store(root).attempts(key)) for key in heads] == [2, 1, 2]


def test_epochs_of_a_sampler_that_draws(smoke: Undisturbed, tmp_path: Path) -> None:
    """Repeat factors are rounded by chance, so epochs differ in length; a resumed run cuts the same batches."""
    suite = tiny("schedule.epochs=5", only="RFS")
    plan = planning.make(suite)
    key = key_of(plan, "RFS")
    data = plan.stages[key].inputs["train"].key
    for name in ("whole", "cut"):
        copied(smoke.root, tmp_path / name, {data})
        Store(tmp_path / name).add(plan.stages[key])
    finish(tmp_path / "whole", suite, key)
    stopped_at(8, tmp_path / "cut", suite, (key,))
    finish(tmp_path / "cut", suite, key)
    check_equal(plan, tmp_path / "cut", tmp_path / "whole", key)


def test_other_checkpoint_intervals_change_nothing(smoke: Undisturbed, tmp_path: Path) -> None:
    suite = tiny("schedule.checkpoint_every=1", only="baseline")
    plan = planning.make(suite)
    key = key_of(plan, "baseline")
    assert key == key_of(smoke.plan, "baseline")
    root = copied(smoke.root, tmp_path / "store", data_keys(plan))
    bring(suite, root, only=lambda k: k == key)
    check_equal(plan, root, smoke.root, key)
