"""Optimisers by name: what they do beside torch's own, rates by parameter group, and exact resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bench.errors import UserError
from bench.lineage import asides_of
from bench.method import Usual
from bench.plan import planning
from bench.run import checkpoint, job
from bench.run.job import Job
from bench.run.model import WEIGHTS
from bench.run.optimiser import Optimiser
from bench.run.work import signals_restored
from bench.spec import Rates, Schedule
from bench.stage import Stage
from bench.store.store import Store
from bench.suite.suite import Suite
from tests.tiny_suite import StopAt, Undisturbed, copied, key_of, tiny

ADAM = Schedule(optimiser="adamw", lr=0.02, betas=(0.8, 0.9), weight_decay=0.1)


def named() -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    return {"backbone.w": nn.Parameter(torch.randn(3, 2)), "fpn.w": nn.Parameter(torch.randn(4))}


def moved(optimiser: Optimiser, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        optimiser.zero_grad()
        sum((p * (i + 1 + step)).sin().sum() for i, p in enumerate(optimiser.named.values())).backward()  # type: ignore[union-attr]
        optimiser.set_rate(0.02 / (1 + step))
        optimiser.step()


def test_adamw_by_hand() -> None:
    """One step from zero moments: w - lr (decay w + sign(g)), whatever the betas (Loshchilov and Hutter, ICLR 2019)."""
    w = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optimiser = Optimiser({"w": w}, ADAM)
    w.grad = torch.tensor([0.3, -4.0, 1e-3])
    optimiser.set_rate(0.02)
    optimiser.step()
    wanted = torch.tensor([1.0, -2.0, 0.5]) * (1 - 0.02 * 0.1) - 0.02 * torch.tensor([1, -1, 1])
    torch.testing.assert_close(w.data, wanted, atol=1e-6, rtol=0)


def test_sgd_by_hand() -> None:
    """Two steps of momentum 0.5: v1 = g + d w, v2 = 0.5 v1 + g + d w; nothing for a group at rate 0."""
    w, still = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.tensor([2.0]))
    schedule = Schedule(
        lr=0.1, momentum=0.5, weight_decay=0.25, groups={"fpn": Rates(lr=0.5, weight_decay=0.0), "rpn": Rates(lr=0)}
    )
    slow = nn.Parameter(torch.tensor([2.0]))
    names = {"backbone.w": w, "fpn.w": slow, "rpn.w": still}
    optimiser = Optimiser(names, schedule, lambda name: name.partition(".")[0])
    for lr in (0.1, 0.2):
        for one in names.values():
            one.grad = torch.tensor([1.0])
        optimiser.set_rate(lr)
        optimiser.step()
    first = 2.0 - 0.1 * (1 + 0.25 * 2.0)
    assert w.item() == pytest.approx(first - 0.2 * (0.5 * 1.5 + 1 + 0.25 * first))
    assert slow.item() == pytest.approx(2.0 - 0.05 * 1.0 - 0.1 * 1.5)  # half the rate, no decay
    assert still.item() == 2.0


@pytest.mark.parametrize(
    "schedule", [Schedule(lr=0.02), ADAM, ADAM.model_copy(update={"groups": {"fpn": Rates(lr=3)}})]
)
def test_its_state_by_name_goes_on_exactly(schedule: Schedule) -> None:
    def group_of(name: str) -> str:
        return name.partition(".")[0]

    whole, half = named(), named()
    moved(Optimiser(whole, schedule, group_of), 6)
    first = Optimiser(half, schedule, group_of)
    moved(first, 3)
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    assert {name.partition("/")[0] for name in state} == (
        {"exp_avg", "exp_avg_sq", "step"} if schedule.optimiser == "adamw" else {"momentum"}
    )
    again = {name: nn.Parameter(p.detach().clone()) for name, p in half.items()}
    second = Optimiser(again, schedule, group_of)
    assert second.state() == {}
    second.make_state(state)
    assert second.state().keys() == state.keys()
    second.load(state)
    moved(second, 3, first=3)
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def training(suite: Suite) -> Stage:
    plan = planning.make(suite)
    return plan.stages[key_of(plan, "baseline")]


def test_a_stopped_training_by_adamw_has_the_same_bits(
    smoke: Undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = tiny(
        "schedule.optimiser=adamw", "schedule.lr=0.001", "schedule.groups={backbone: {lr: 0.1}}", "schedule.steps=8"
    )
    stage, digests = training(suite), []
    for name, stop in (("whole", None), ("stopped", 5)):
        store = Store(copied(smoke.root, tmp_path / name, {one.key for one in stage.inputs.values()}))
        store.add(stage)
        states = []
        for flag in [StopAt(stop + 1)] if stop else []:
            with monkeypatch.context() as patch:
                patch.setattr(job, "StopFlag", lambda flag=flag: flag)
                states.append(done(store, suite, stage))
            found = checkpoint.newest(store.attempts(stage.key))
            assert found is not None
            assert {float(t) for name, t in found[1].items() if name.startswith("step/")} == {stop}
        states.append(done(store, suite, stage))
        assert states == (["stopped", "done"] if stop else ["done"])
        finished = store.done(stage.key)
        assert finished is not None
        digests.append(finished.digests[WEIGHTS])
    assert digests[0] == digests[1]


def done(store: Store, suite: Suite, stage: Stage) -> str:
    with signals_restored():
        one = Job(str(store.root), ((stage.key,),), suite.sections.machine, asides=asides_of(stage))
        return one()[stage.key].state


def test_a_setting_that_is_the_default_moves_no_key() -> None:
    plain = training(tiny())
    assert (
        training(tiny("schedule.optimiser=sgd", "schedule.groups={}", "schedule.betas=[0.9, 0.999]")).key == plain.key
    )
    for text in ("schedule.optimiser=adamw", "schedule.groups={fpn: {lr: 0.5}}", "schedule.betas=[0.8, 0.999]"):
        assert training(tiny(text)).key != plain.key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schedule.optimiser=adam", "adamw"),
        ("schedule.groups={backbon: {lr: 0.1}}", "Did you mean 'backbone'?"),
        ("schedule.groups={backbone: {rate: 0.1}}", "rate"),
        ("schedule.groups={backbone: {lr: -1}}", "0"),
        ("schedule.betas=[0.9, 1.0]", "1"),
        ("stages.second.groups={heads: {lr: 1}}", "stages.second"),
        ("rows.x2.schedule.groups={heads: {lr: 1}}", "'heads'"),
    ],
)
def test_what_no_optimiser_has_is_refused_before_anything_starts(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        planning.make(tiny(text))
    assert message in str(error.value)


def test_a_paper_s_schedule_beside_another_base() -> None:
    base = Schedule(steps=900, lr=0.06, warmup=100, decay="cosine", clip=2.5)
    usual = Usual(rate=0.1, epochs=2, drops=(0.5,)).of(base)
    assert (usual.steps, usual.epochs, usual.decay, usual.drops, usual.warmup) == (None, 2, "steps", (0.5,), 0)
    assert usual.lr == pytest.approx(0.006)
    assert (usual.clip, usual.batch) == (2.5, base.batch)
    assert Usual().of(base).steps == 900
