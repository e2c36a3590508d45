"""The benchmarks of losses measure the step that they say: what learns, and which losses there are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import pretraining, teacher
from benchmarks.step import batch_of
from methods.parts.distill import Features, Scores


def test_a_step_moves_what_the_unified_stage_trains() -> None:
    batch = batch_of(2, 128, 4, 34.0)
    step = teacher.trained(teacher.UNIFIED, (Features, Scores), "cpu", batch)
    student, losses = step.args[:2]  # type: ignore[attr-defined]
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    kept = [{n: t.clone() for n, t in loss.teacher.state_dict().items()} for loss in losses]
    step(0)
    moved = {name.partition(".")[0] for name, t in student.state_dict().items() if not torch.equal(t, before[name])}
    assert moved == {"fpn", "classifier"}
    for loss, old in zip(losses, kept, strict=True):
        assert all(torch.equal(t, old[n]) for n, t in loss.teacher.state_dict().items())


def test_a_step_of_pre_training_moves_what_makes_the_features_and_the_slow_copy() -> None:
    batch = replace(batch_of(2, 128, 4, 34.0), placed=[(1.0, 0.0, 1.0, 0.0)] * 2)
    step = pretraining.trained(pretraining.KINDS["2DRCL"], "cpu", [batch] * 3)
    student, losses = step.args[:2]  # type: ignore[attr-defined]
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    slow = {name: tensor.clone() for name, tensor in losses[0].target.state_dict().items()}
    step(0)
    moved = {name.partition(".")[0] for name, t in student.state_dict().items() if not torch.equal(t, before[name])}
    assert moved == {"backbone", "fpn", "box_head"}
    assert any(not torch.equal(t, slow[n]) for n, t in losses[0].target.state_dict().items())
    assert not any(p.requires_grad for p in losses[0].target.parameters())


def test_every_kind_of_pre_training_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "batch_of", lambda *_: batch_of(2, 128, 4, 34.0))
    found = pretraining.measured("cpu", 1)
    assert set(found["seconds"]) == set(pretraining.KINDS)
    assert found["seconds"]["detector"]["ratio"] == 1.0


def test_every_kind_of_step_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "batch_of", lambda *_: batch_of(2, 128, 4, 34.0))
    found = teacher.measured("cpu", 1)
    assert set(found["seconds"]) == {"without", "features", "scores", "both", "whole"}
    assert found["seconds"]["without"]["ratio"] == 1.0
    assert all(one["median"] > 0 for one in found["seconds"].values())
