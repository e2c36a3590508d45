"""Losses beside the classifier's: what is theirs is in checkpoints and in no model; they resume exactly; teachers stay
as they are; several processes train as one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from processes import Processes

from bench.lineage import asides_of
from bench.plan import planning
from bench.plan.planning import Plan
from bench.run import checkpoint, job
from bench.run.checkpoint import read_tensors
from bench.run.job import Job, Outcome
from bench.run.model import WEIGHTS, state_of
from bench.run.step import frozen
from bench.run.work import signals_restored
from bench.stage import Stage
from bench.store.events import read_events
from bench.store.store import Store
from tests.run.own_losses import suite_of
from tests.tiny_suite import HEAD_STEPS, StopAt, Undisturbed, copied, key_of

OF_GROUPS = ("detector.norm=group", "schedule.batch=5", "input.scale_jitter=[0.4, 1.0]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own_losses")


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    return planning.make(suite_of(folder))


@pytest.fixture(scope="module")
def store(smoke: Undisturbed, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """With the pictures and the baseline of the session's run, which are the same stages here."""
    made = {k for k, s in plan.stages.items() if s.kind == "data"} | {key_of(plan, "baseline")}
    return Store(copied(smoke.root, tmp_path_factory.mktemp("losses") / "store", made))


def train(store: Store, plan: Plan, stage: Stage) -> Outcome:
    store.add(stage)
    with signals_restored():
        one = Job(str(store.root), ((stage.key,),), plan.suite.sections.machine, asides=asides_of(stage))
        return one()[stage.key]


def copy_of(store: Store, to: Path) -> Store:
    return Store(copied(store.root, to, {path.name for path in store.root.iterdir()}))


def curve(store: Store, stage: Stage) -> list[dict[str, float]]:
    events = read_events(store.attempts(stage.key)[-1] / "events.jsonl")[0]
    return [one["values"] for one in events if one["event"] == "metrics"]


@pytest.fixture(scope="module")
def done(store: Store, plan: Plan) -> Stage:
    stage = plan.stages[key_of(plan, "averaged")]
    outcome = train(store, plan, stage)
    assert outcome.state == "done", outcome
    return stage


def test_the_model_holds_nothing_of_its_losses(store: Store, done: Stage) -> None:
    own = read_tensors(store.output(done.key) / WEIGHTS)
    assert {name.partition(".")[0] for name in own} == {"fpn", "classifier"}
    values = curve(store, done)
    assert {"average", "teacher", "classification", "loss_box_reg", "loss"} <= values[0].keys()
    assert values[0]["teacher"] == pytest.approx(0.0, abs=1e-9)  # the student begins as the teacher's copy
    assert values[-1]["teacher"] > 0.0
    for one in values:
        parts = [v for name, v in one.items() if name not in ("loss", "lr")]
        assert sum(parts) == pytest.approx(one["loss"], rel=1e-5)


@pytest.mark.parametrize("stop", [0, 1, 7, HEAD_STEPS - 1])
def test_stopped_and_resumed_it_has_the_same_bits(
    stop: int, store: Store, done: Stage, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (base,) = [s for s in done.inputs.values() if s.kind == "train" and "losses" not in s.spec][:1]
    made = {base.key, done.inputs["train"].key}
    again = Store(copied(store.root, tmp_path / "again", made))
    with monkeypatch.context() as patch:
        patch.setattr(job, "StopFlag", lambda: StopAt(stop + 1))
        assert train(again, plan, done).state == "stopped"
    found = checkpoint.newest(again.attempts(done.key))
    assert found is not None
    carried = {name for name in found[1] if name.startswith("loss/")}
    assert carried == {"loss/0.queue", "loss/0.average", "loss/0.project.weight", "loss/0.project.bias"}
    momenta = {"momentum/loss/0.project.weight", "momentum/classifier.fc.weight"} if stop else set()
    assert momenta <= found[1].keys()
    assert train(again, plan, done).state == "done"
    one, other = again.done(done.key), store.done(done.key)
    assert one is not None
    assert other is not None
    assert one.digests[WEIGHTS] == other.digests[WEIGHTS]


def test_a_training_without_the_detector_s_losses(store: Store, plan: Plan) -> None:
    last = plan.stages[key_of(plan, "alone")]
    before = last.inputs["init"]
    assert before.spec["detection"] is False
    assert train(store, plan, before).state == "done"
    assert set(curve(store, before)[0]) == {"average", "loss", "lr"}
    stored = read_tensors(store.output(before.key) / WEIGHTS)  # no stage before it holds the rest
    assert set(stored) == set(state_of(store, plan.stages[key_of(plan, "baseline")]))
    assert train(store, plan, last).state == "done"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("name", "another loss and Wrong.loss both have a loss 'classification'"),
        ("other", "another loss and Averaged.loss both have a loss 'average'"),
        ("count", "values of mine, counts of mein"),
    ],
)
def test_losses_that_cannot_be_added_up_are_refused(row: str, message: str, store: Store, plan: Plan) -> None:
    outcome = train(store, plan, plan.stages[key_of(plan, row)])
    assert (outcome.state, outcome.code) == ("failed", 1)
    assert message in outcome.message


def test_a_stage_with_losses_shares_no_pass(plan: Plan) -> None:
    from bench.lineage import pass_of

    stage = plan.stages[key_of(plan, "averaged")]
    assert pass_of(stage) == stage.key


def test_a_teacher_in_train_mode_keeps_its_statistics(store: Store, plan: Plan) -> None:
    from bench.run.model import load_model

    stage = plan.stages[key_of(plan, "baseline")]
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    quiet, loud = (frozen(load_model(store, stage), "cpu", train_mode=mode) for mode in (False, True))
    assert not torch.equal(quiet.maps(images)["0"], loud.maps(images)["0"])  # batch norm: statistics of the batch
    kept = state_of(store, stage)
    assert all(torch.equal(kept[name], tensor) for name, tensor in loud.state_dict().items())
    assert not any(p.requires_grad for _, p in loud.named_parameters())


def test_two_processes_train_as_one(smoke: Undisturbed, tmp_path: Path) -> None:
    """As far as float32 sums agree, see test_distributed.py; the loss that draws is left out: each process has its own
    draws."""
    suite = suite_of(tmp_path, *OF_GROUPS, "rows.averaged.gain=1.0")
    plan = planning.make(suite)
    stage = plan.stages[key_of(plan, "taught")]
    made = {key for key, one in plan.stages.items() if one.kind == "data"}
    roots = [copied(smoke.root, tmp_path / name, made) for name in ("one", "two")]
    values = []
    for size, root in zip((1, 2), roots, strict=True):
        for one in plan.stages.values():
            Store(root).add(one)
        job_of = Processes(root, suite, [[key_of(plan, "baseline")], [stage.key]], size)
        assert {state for state, _, _ in job_of.outcomes().values()} == {"done"}
        values.append(curve(Store(root), stage))
    for one, two in zip(*values, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            assert two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-4), name
    first, second = (read_tensors(Store(root).output(stage.key) / WEIGHTS) for root in roots)
    for name, tensor in first.items():
        assert (second[name] - tensor).abs().max() <= 1e-3 * tensor.abs().max().clamp(min=1e-3), name
