"""Trainings of a Deformable DETR: several processes are one, a stopped one goes on exactly, with the mean of its
weights (`schedule.ema`), and its backbone is that of the model that it starts from."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from processes import Processes
from tiny_suite import StopAt, key_of, work

from bench.cli.open import open_suite
from bench.plan import planning
from bench.plan.planning import Plan
from bench.run import job, learner
from bench.run.checkpoint import read_tensors
from bench.run.model import WEIGHTS
from bench.spec import Schedule
from bench.stage import rung, walk, with_rungs
from bench.store.store import Store
from bench.suite.suite import Suite

STEPS = 8
SUITE = """
preset: cpu-detr
data: {classes: 8, size: 64, objects: 6, max_instances: 30, val_instances: 2}
input: {min_size: 64, max_size: 64}
detector:
  widths: [8, 8, 16, 16]
  norm: group
  start: null
  detr: {width: 16, heads: 2, points: 2, decoder: 2, ffn: 32, queries: 20}
schedule: {steps: 8, batch: 5, warmup: 2, checkpoint_every: 3}
test: {bins: [5, 10, 20], max_detections: 20}
rows:
  baseline: {method: baseline}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    (tmp_path / "detr.yaml").write_text(SUITE)
    return open_suite(tmp_path / "detr.yaml")


def brought(suite: Suite, root: Path) -> tuple[Plan, str]:
    """The plan, and the key of its one training, whose data are there."""
    plan, store = planning.make(suite), Store(root)
    key = key_of(plan, "baseline")
    for stage in walk(plan.stages[key]):
        store.add(stage)
        if stage.kind == "data":
            assert work(root, suite, (stage.key,))[stage.key].state == "done"
    return plan, key


def weights(root: Path, key: str) -> dict[str, torch.Tensor]:
    return read_tensors(Store(root).output(key) / WEIGHTS)


def stopped_at(step: int, root: Path, suite: Suite, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Signalled(StopAt):
        def reached(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(job, "StopFlag", lambda: Signalled(step + 1))
        assert work(root, suite, (key,))[key].state == "stopped"


def test_two_processes_are_one(suite: Suite, tmp_path: Path) -> None:
    """Each matches the queries of its own images; losses are divided by the boxes of all."""
    ends: list[dict[str, torch.Tensor]] = []
    for size in (1, 2):
        root = tmp_path / f"store{size}"
        _, key = brought(suite, root)
        assert Processes(root, suite, [[key]], size).outcomes() == {key: ["done", "", 0]}
        ends.append(weights(root, key))
    one, two = ends
    assert one.keys() == two.keys()
    moved = 0.0
    for name, value in one.items():
        assert torch.allclose(value, two[name], rtol=0, atol=2e-4), name
        moved = max(moved, float((value - two[name]).abs().max()))
    assert moved > 0  # they sum in another order: the same bits would say that one process did it all


@pytest.mark.parametrize("step", [0, 1, 3, STEPS - 1])
def test_it_goes_on_exactly_after_a_stop(
    suite: Suite, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for stop in (None, step):
        root = tmp_path / f"store-{stop}"
        _, key = brought(suite, root)
        if stop is not None:
            stopped_at(stop, root, suite, key, monkeypatch)
        assert work(root, suite, (key,))[key].state == "done"
        done = Store(root).done(key)
        assert done is not None
        found.append(done.digests)
    assert found[0] == found[1]


def test_a_rung_s_mean_goes_on_too(suite: Suite, tmp_path: Path) -> None:
    """A training that continues from a shorter one ends with the bits of one that ran through: the raw weights are in
    the rung beside their mean."""
    digests = []
    for below in ([], [4]):
        root = tmp_path / f"store{len(below)}"
        plan, key = brought(suite, root)
        whole = plan.stages[key]
        store = Store(root)
        for length in below:
            early = rung(whole, length)
            store.add(early)
            assert work(root, suite, (early.key,))[early.key].state == "done"
        store.add(with_rungs(whole, below))
        assert work(root, suite, (key,))[key].state == "done"
        done = store.done(key)
        assert done is not None
        digests.append(done.digests)
    assert digests[0] == digests[1]


def test_the_mean_by_hand() -> None:
    """min(ema, (1 + n) / (10 + n)) after n steps, the first step's weights as they are; a counter is the last."""
    one = SimpleNamespace(
        schedule=Schedule(ema=0.25), average={},
        saved={"w": torch.tensor([8.0]), "steps": torch.tensor(0)},
    )  # fmt: skip
    seen = []
    for step, value in enumerate((8.0, 4.0, 2.0)):
        one.saved["w"].fill_(value)
        one.saved["steps"].fill_(step)
        learner.averaged(one, step)  # type: ignore[arg-type]
        seen.append((float(one.average["w"]), int(one.average["steps"])))
    second = 8 * 0.25 + 4 * 0.75  # (1 + 2) / (10 + 2) is 0.25
    assert seen == [(8.0, 0), (pytest.approx(second), 1), (pytest.approx(second * 0.25 + 2 * 0.75), 2)]
    plain: Any = SimpleNamespace(schedule=Schedule(), average={}, saved=one.saved)
    learner.averaged(plain, 0)
    assert plain.average == {}


def test_the_kept_model_is_the_mean(suite: Suite, tmp_path: Path) -> None:
    ends = []
    for ema in (0.0, 0.5):
        root = tmp_path / f"store{ema}"
        other = open_suite(suite.path, sets=[f"schedule.ema={ema}"])
        _, key = brought(other, root)
        assert work(root, other, (key,))[key].state == "done"
        ends.append(weights(root, key))
    raw, mean = ends
    assert all(raw[name].shape == mean[name].shape for name in raw)
    assert any(not torch.equal(raw[name], mean[name]) for name in raw)


def test_the_backbone_is_that_of_the_start(tmp_path: Path) -> None:
    """Untouched by a rate of 0, it is to the bit that of the shared baseline of another engine; the rest is new."""
    (tmp_path / "detr.yaml").write_text(SUITE)
    start = "detector.start={preset: cpu, steps: 2}"
    small = ["detector.widths=[24, 48, 96, 128]", "detector.norm=batch", "schedule.steps=1", "schedule.ema=0"]
    still = "schedule.groups={backbone: {lr: 0, weight_decay: 0}}"
    suite = open_suite(tmp_path / "detr.yaml", sets=[start, *small, still])
    root = tmp_path / "store"
    plan, key = brought(suite, root)
    before = plan.stages[key].inputs["start"]
    for one in (before.key, key):
        assert work(root, suite, (one,))[one].state == "done"
    theirs, ours = weights(root, before.key), weights(root, key)
    taken = [name for name, value in ours.items() if name.startswith("backbone.") and value.is_floating_point()]
    learnt = [name for name in taken if not name.endswith(("running_mean", "running_var"))]
    assert len(learnt) > 20
    assert all(torch.equal(ours[name], theirs[name]) for name in learnt)
    assert "fpn.inner_blocks.0.weight" in theirs
    assert not any(name.startswith(("fpn.", "rpn.")) for name in ours)
