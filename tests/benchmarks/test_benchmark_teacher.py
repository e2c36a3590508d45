"""The benchmark of a teacher measures the step that it says: what learns, and which losses there are."""

from __future__ import annotations

import pytest
import torch

from benchmarks import teacher
from benchmarks.step import batch_of
from methods.parts.distill import Features, Scores


def test_a_step_moves_what_the_unified_stage_trains() -> None:
    batch = batch_of(2, 128, 4, 34.0)
    student, losses, optimiser = teacher.trained(teacher.UNIFIED, (Features, Scores), "cpu")
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    kept = [{n: t.clone() for n, t in loss.teacher.state_dict().items()} for loss in losses]
    teacher.one_step(student, losses, optimiser, batch, 0)
    moved = {name.partition(".")[0] for name, t in student.state_dict().items() if not torch.equal(t, before[name])}
    assert moved == {"fpn", "classifier"}
    for loss, old in zip(losses, kept, strict=True):
        assert all(torch.equal(t, old[n]) for n, t in loss.teacher.state_dict().items())


def test_every_kind_of_step_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "batch_of", lambda *_: batch_of(2, 128, 4, 34.0))
    found = teacher.measured("cpu", 1)
    assert set(found["seconds"]) == {"without", "features", "scores", "both", "whole"}
    assert found["seconds"]["without"]["ratio"] == 1.0
    assert all(one["median"] > 0 for one in found["seconds"].values())
