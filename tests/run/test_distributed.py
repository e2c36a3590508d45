"""Several processes train as one: the same batches, RoIs, losses and weights; they stop and fail together.

Real processes over gloo, on this machine. Two of them sum in another order than one, so that weights agree as far as
float32 sums do. Measured on 24 steps of the tiny suite, with 2 and with 3 processes: 7e-7 of a loss, 2e-6 of a weight
tensor's largest value; 3e-5 of a bias that starts from 0 where one process goes on after two.
"""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
import torch
from processes import Processes
from tiny_suite import (
    HEADS,
    ROOT,
    STEPS,
    Undisturbed,
    copied,
    drive,
    key_of,
    tiny,
    wait_for,
    work,
)

from bench.plan import planning
from bench.plan.planning import Plan
from bench.run.checkpoint import read_tensors
from bench.run.model import WEIGHTS
from bench.store.events import read_events
from bench.store.store import Store
from bench.suite.suite import Suite

LOSSES, TENSORS = 5e-6, 3e-4  # ten times what was measured: another CPU sums in other blocks
# Group norm, since batch norm would need the whole batch; shares of 2 and 3 pictures, of different sizes.
OF_GROUPS = ("detector.norm=group", "schedule.batch=5", "input.scale_jitter=[0.4, 1.0]")


@pytest.fixture(scope="session")
def suite() -> Suite:
    return tiny(*OF_GROUPS)


@pytest.fixture(scope="session")
def plan(suite: Suite) -> Plan:
    return planning.make(suite)


@pytest.fixture(scope="session")
def data(smoke: Undisturbed, plan: Plan, suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the pictures, and the stages written down."""
    made = {key for key, stage in plan.stages.items() if stage.kind == "data"}
    root = copied(smoke.root, tmp_path_factory.mktemp("shared") / "data", made)
    for stage in plan.stages.values():
        Store(root).add(stage)
    return root


@pytest.fixture(scope="session")
def alone(data: Path, suite: Suite, plan: Plan) -> Processes:
    """The baseline, trained by one process; its store is `data.parent / "alone"`."""
    root = copied(data, data.parent / "alone", {path.name for path in data.iterdir() if path.name in plan.stages})
    one = Processes(root, suite, [[key_of(plan, "baseline")]], 1)
    assert [state for state, _, _ in one.outcomes().values()] == ["done"]
    return one


def fresh(data: Path, plan: Plan, root: Path) -> Path:
    return copied(data, root, set(plan.stages))


def curve(root: Path, key: str) -> list[dict[str, float]]:
    events = [e for folder in Store(root).attempts(key) for e in read_events(folder / "events.jsonl")[0]]
    return [event["values"] for event in events if event["event"] == "metrics"]


def weights(root: Path, key: str) -> dict[str, torch.Tensor]:
    return read_tensors(Store(root).output(key) / WEIGHTS)


def check_losses(root: Path, reference: Path, key: str, steps: int) -> None:
    ours, expected = curve(root, key), curve(reference, key)
    assert len(ours) == len(expected) == steps
    for own, other in zip(ours, expected, strict=True):
        assert own == pytest.approx(other, rel=LOSSES, abs=LOSSES)


def check_weights(root: Path, reference: Path, key: str) -> None:
    ours, expected = weights(root, key), weights(reference, key)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(float(value.abs().max()), 1e-6)
        assert float((ours[name] - value).abs().max()) <= TENSORS * scale, name


def check_rois(ours: Processes, expected: Processes, steps: int) -> None:
    """Labels, pictures and class lists of every step to the bit, boxes to what the network's sums leave of them."""
    parts, (one,) = ours.steps(), expected.steps()
    assert {len(part) for part in (*parts, one)} == {steps}
    for step, whole in enumerate(one):
        for part in parts:
            assert torch.equal(part[step]["labels"], whole["labels"])
            assert torch.equal(part[step]["image"], whole["image"])
            for name in ("present", "negative"):
                assert len(part[step][name]) == len(whole[name])
                assert all(map(torch.equal, part[step][name], whole[name]))
            assert torch.allclose(part[step]["features"], whole["features"], atol=1e-4)
        boxes = torch.cat([part[step]["boxes"] for part in parts])
        assert boxes.shape == whole["boxes"].shape
        assert torch.allclose(boxes, whole["boxes"], atol=1e-3)  # pixels


def test_a_whole_detector_is_what_one_process_makes(
    data: Path, suite: Suite, plan: Plan, alone: Processes, tmp_path: Path
) -> None:
    key, root = key_of(plan, "baseline"), fresh(data, plan, tmp_path / "store")
    together = Processes(root, suite, [[key]], 2)
    assert together.outcomes() == {key: ["done", "", 0]}
    check_losses(root, data.parent / "alone", key, STEPS)
    check_weights(root, data.parent / "alone", key)
    check_rois(together, alone, STEPS)
    done = Store(root).done(key)
    assert done is not None
    assert done.environment["processes"] == 2
    assert len(Store(root).attempts(key)) == 1


@pytest.mark.slow
def test_heads_in_one_pass_are_what_one_process_makes(smoke: Undisturbed, tmp_path: Path) -> None:
    """Three processes, four pictures. A trunk with batch norm: it is frozen, so its statistics are nobody's share."""
    heads = sorted(key_of(smoke.plan, label) for label in HEADS)
    root = copied(smoke.root, tmp_path / "store", {k for k in smoke.plan.stages if k not in heads})
    for key in heads:
        Store(root).add(smoke.plan.stages[key])
    assert Processes(root, smoke.suite, [heads], 3).outcomes() == {key: ["done", "", 0] for key in heads}
    for key in heads:
        check_losses(root, smoke.root, key, len(curve(smoke.root, key)))
        check_weights(root, smoke.root, key)


@pytest.mark.slow
def test_a_signal_to_one_stops_all_and_one_process_goes_on(
    data: Path, suite: Suite, plan: Plan, alone: Processes, tmp_path: Path
) -> None:
    key, root = key_of(plan, "baseline"), fresh(data, plan, tmp_path / "store")
    together = Processes(root, suite, [[key], [key_of(plan, "RFS")]], 2, stop={1: 8})
    states = {key: state for key, (state, _, _) in together.outcomes().items()}
    assert states == {key: "stopped", key_of(plan, "RFS"): "stopped"}
    assert [process.returncode for process in together.running] == [0, 0]
    assert [len(part) for part in together.steps()] == [7, 7]
    assert Store(root).saved(key) == 7
    assert len(Store(root).attempts(key)) == 1
    assert Store(root).attempts(key_of(plan, "RFS")) == []
    assert work(root, suite, (key,))[key].state == "done"
    check_losses(root, data.parent / "alone", key, STEPS)
    check_weights(root, data.parent / "alone", key)


@pytest.mark.slow
def test_several_go_on_where_one_stopped(
    data: Path, suite: Suite, plan: Plan, alone: Processes, tmp_path: Path
) -> None:
    key, root = key_of(plan, "baseline"), fresh(data, plan, tmp_path / "store")
    assert Processes(root, suite, [[key]], 1, stop={0: 10}).outcomes()[key][0] == "stopped"
    assert Store(root).saved(key) == 8
    together = Processes(root, suite, [[key]], 2)
    assert together.outcomes() == {key: ["done", "", 0]}
    assert [len(part) for part in together.steps()] == [STEPS - 8] * 2
    check_losses(root, data.parent / "alone", key, STEPS)
    check_weights(root, data.parent / "alone", key)


def test_batch_norm_that_learns_is_refused(smoke: Undisturbed, tmp_path: Path) -> None:
    key = key_of(smoke.plan, "baseline")
    root = copied(smoke.root, tmp_path / "store", {smoke.plan.stages[key].inputs["train"].key})
    Store(root).add(smoke.plan.stages[key])
    state, message, code = Processes(root, smoke.suite, [[key]], 2).outcomes()[key]
    assert (state, code) == ("failed", 2)
    assert "detector.norm: batch: batch norm over 2 processes" in message
    assert "Legal: group or frozen with several processes" in message
    assert not list(root.rglob("checkpoint-*"))


@pytest.mark.slow
def test_when_one_is_killed_the_others_end_and_several_go_on(
    data: Path, suite: Suite, plan: Plan, alone: Processes, tmp_path: Path
) -> None:
    key, root = key_of(plan, "baseline"), fresh(data, plan, tmp_path / "store")
    together = Processes(root, suite, [[key]], 2)
    wait_for(lambda: Store(root).saved(key) >= 5, "a checkpoint")
    together.running[1].send_signal(signal.SIGKILL)
    together.running[1].wait()
    state, message, code = together.outcomes()[key]
    assert (state, code) == ("failed", 1)
    assert "another process of this job has gone" in message
    assert Store(root).failure(key) is None, "it is no fault of the stage's"
    ends = [event for event in read_events(Store(root).attempts(key)[0] / "events.jsonl")[0] if event["event"] == "end"]
    assert [event["status"] for event in ends] == ["KILLED"]
    assert Store(root).running(key) is None
    assert Processes(root, suite, [[key]], 2).outcomes() == {key: ["done", "", 0]}
    check_weights(root, data.parent / "alone", key)


def test_processes_that_do_not_meet_are_tried_again(
    data: Path, suite: Suite, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program has the port; another job has another one."""
    key, root = key_of(plan, "baseline"), fresh(data, plan, tmp_path / "store")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        here = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        for name, value in here.items():
            monkeypatch.setenv(name, value)
        outcome = work(root, tiny(*OF_GROUPS, "machine.tasks=2"), (key,))[key]
    assert (outcome.state, outcome.again) == ("failed", True)
    assert "the processes of this job did not find one another at 127.0.0.1" in outcome.message


PART = '''
"""A softmax that goes wrong in the second process alone, after a few steps."""

import torch
import torch.distributed as dist
from methods.parts.softmax import Softmax


class Wrong(Softmax):
    def __init__(self, head, *, how):
        super().__init__(head)
        self.how = how
        self.register_buffer("seen", torch.zeros(()))

    def loss(self, z_NK, targets, context):
        if dist.get_rank() == 1 and context.step == 7 and self.how == "raises":
            raise ZeroDivisionError("a class without a picture")
        if self.how == "drifts":
            self.seen += dist.get_rank()
        return super().loss(z_NK, targets, context)
'''
METHOD = '''
"""Heads that go wrong, outside the tree."""

from pathlib import Path
from typing import ClassVar

from bench.method import Builder, Method, part
from bench.stage import Stage


class Wrong(Method):
    """A head that goes wrong."""

    name: ClassVar[str] = "wrong"
    how: str = "raises"

    def plan(self, b: Builder) -> Stage:
        head = part(f"{Path(__file__).parent / 'part.py'}:Wrong", how=self.how)
        return b.train(init=b.train(), keep_classifier=True, classifier=head, trainable=("classifier",))
'''


@pytest.mark.slow
def test_what_goes_wrong_in_one_process_goes_wrong_in_all(smoke: Undisturbed, tmp_path: Path) -> None:
    """A head that raises in the second process alone, one whose buffer differs, and one that is well, in one pass."""
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "wrong.py").write_text(METHOD)
    (tmp_path / "methods" / "part.py").write_text(PART)
    path = tmp_path / "wrong.yaml"
    rows = "  raises: {method: wrong}\n  drifts: {method: wrong, how: drifts}\nmethods_path: methods/wrong.py\n"
    path.write_text((ROOT / "suites" / "smoke.yaml").read_text() + rows)
    suite = tiny(path=path)
    plan = planning.make(suite)
    raises, drifts, well = (key_of(plan, label) for label in ("raises", "drifts", "cls-retrain"))
    root = copied(smoke.root, tmp_path / "store", {k for k in smoke.plan.stages if k != well})
    for key in (raises, drifts, well):
        Store(root).add(plan.stages[key])
    outcomes = Processes(root, suite, [sorted([raises, well])], 2).outcomes()
    assert outcomes[well] == ["done", "", 0]
    assert outcomes[raises][0] == "failed"
    assert "process 1 of 2: ZeroDivisionError: a class without a picture (part.py" in outcomes[raises][1]
    check_weights(root, smoke.root, well)
    state, message, _ = Processes(root, suite, [[drifts]], 2).outcomes()[drifts]
    assert state == "failed"
    assert "classifier.seen is not the same on the 2 processes" in message


@pytest.mark.slow
def test_a_loss_of_each_device_is_another_experiment(smoke: Undisturbed, tmp_path: Path) -> None:
    """In the key with the number of processes, which must be there; the others' draws are then of fewer RoIs."""
    apart = tiny("machine.tasks=2", "machine.scope=device", "machine.threads=1")
    plan = planning.make(apart)
    key = key_of(plan, "BAGS")
    label = "baseline"
    assert key_of(planning.make(tiny("machine.tasks=2")), label) == key_of(smoke.plan, label)
    assert key_of(planning.make(tiny("machine.scope=device")), label) == key_of(smoke.plan, label)
    keys = {key_of(planning.make(tiny("machine.scope=device", f"machine.tasks={n}")), label) for n in (2, 3)}
    assert len(keys | {key_of(smoke.plan, label)}) == 3
    # The same trunk under the other name, so that only the heads are trained here.
    base, other = key_of(smoke.plan, label), key_of(plan, label)
    data = {k for k, stage in plan.stages.items() if stage.kind == "data"}
    root = copied(smoke.root, tmp_path / "store", data | {base})
    (root / base).rename(root / other)
    for name in (key, other):
        Store(root).add(plan.stages[name])
    refused = work(root, tiny("machine.scope=device"), (key,))[key]
    assert (refused.state, refused.code) == ("failed", 2)
    assert "machine.scope: device: a loss of each of 2 processes alone is to be trained, by 1" in refused.message
    assert Processes(root, apart, [[key]], 2).outcomes() == {key: ["done", "", 0]}
    ours, expected = curve(root, key), curve(smoke.root, key_of(smoke.plan, "BAGS"))
    assert len(ours) == len(expected)
    apart_by = abs(ours[0]["loss"] - expected[0]["loss"])
    assert 1e-4 < apart_by < 0.5 * expected[0]["loss"]


@pytest.mark.slow
def test_the_command_trains_with_several_on_this_machine(tmp_path: Path) -> None:
    """Data, prediction and evaluation are one process's, in the same job or in others; a key knows nothing of it."""
    sets = ("detector.norm=group", "machine.tasks=2")
    ended = drive(tmp_path / "store", "--only", "baseline", *(word for text in sets for word in ("--set", text)))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    plan = planning.make(tiny("detector.norm=group", only="baseline"))
    found = {stage.kind: Store(tmp_path / "store").done(key) for key, stage in plan.stages.items()}
    processes = {kind: done.environment["processes"] for kind, done in found.items() if done is not None}
    assert processes == {"data": 1, "train": 2, "predict": 1, "evaluate": 1}


def test_a_job_of_several_that_was_started_as_one(smoke: Undisturbed, tmp_path: Path) -> None:
    key = key_of(smoke.plan, "baseline")
    outcome = work(tmp_path / "store", tiny("machine.tasks=2"), (key,))[key]
    assert (outcome.state, outcome.code) == ("failed", 2)
    assert "machine.tasks: 2 processes are to train together" in outcome.message
    assert not (tmp_path / "store").exists()


def test_what_cannot_be_shared_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """Not in the job, which may have waited for a day."""
    for sets, said in (
        (("machine.tasks=2",), "detector.norm: batch: batch norm over 2 processes"),
        (
            ("machine.tasks=9", "detector.norm=group"),
            "schedule.batch: a batch of 4 images has no work for 9 processes",
        ),
    ):
        ended = drive(tmp_path / "store", "--only", "baseline", *(w for text in sets for w in ("--set", text)))
        assert ended.returncode == 2
        assert said in ended.stderr
        assert not list(tmp_path.glob("store/*/attempts"))
