"""What one stage trains, and its state on the disk. Separate from train.py because it is per stage, however many
are trained together, and because only the first process of a job writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench import spec as specs
from bench.detection.contract import Classifier
from bench.errors import StageError
from bench.run import checkpoint, distributed
from bench.run.model import TRAIN_INFO, WEIGHTS
from bench.run.work import Work
from bench.run.world import World
from bench.store.disk import write_json


@dataclass
class Learner:
    """What one stage trains: its classifier, its parameters, its own optimiser, clipping, rate and length."""

    work: Work
    schedule: specs.Schedule
    total: int  # steps
    classifier: Classifier
    saved: dict[str, Tensor]  # state-dict name -> tensor that this stage stores
    parameters: list[nn.Parameter]
    optimiser: torch.optim.SGD
    fresh: list[str] = field(default_factory=list)  # names that are not in init's weights
    step: int = 0
    values: dict[str, float] = field(default_factory=dict)  # losses of the step by name, and their sum as `loss`
    error: Exception | None = None


def save(learner: Learner) -> None:
    """A checkpoint: what the stage stores, momentum buffers, the step. The first process writes it."""
    if not learner.work.world.first:
        return
    tensors = {f"model/{n}": t.detach().cpu() for n, t in learner.saved.items()}
    names = {id(t): n for n, t in learner.saved.items()}
    for parameter, state in learner.optimiser.state.items():
        if state.get("momentum_buffer") is not None:
            tensors[f"momentum/{names[id(parameter)]}"] = state["momentum_buffer"].detach().cpu()
    older = learner.work.store.attempts(learner.work.key)
    checkpoint.save(learner.work.attempt.folder, learner.step, tensors, _made_from(learner), older)


def begin(learner: Learner, world: World) -> None:
    """Continue from the first process's checkpoint; all processes begin with its weights, buffers and momentum."""
    if world.first:
        learner.step = _resume(learner)
    learner.step = world.exchange(learner.step)[0]
    distributed.send_state(learner.saved.values(), world)
    if world.size > 1 and learner.step:
        state = learner.optimiser.state
        moving = world.exchange([state[p].get("momentum_buffer") is not None for p in learner.parameters])[0]
        buffers = []
        for parameter, moves in zip(learner.parameters, moving, strict=True):
            if moves:
                buffers.append(state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter)))
        distributed.send_state(buffers, world)


def _resume(learner: Learner) -> int:
    """Load the newest intact checkpoint of any attempt over the same inputs; returns the step to continue at."""
    same = _made_from(learner)
    found = checkpoint.newest(
        learner.work.store.attempts(learner.work.key),
        warn=lambda text: print(text, file=sys.stderr),
        accept=lambda meta: {name: meta.get(name) for name in same} == same,
    )
    if found is None:
        return 0
    step, tensors, _ = found
    with torch.no_grad():
        for name, target in learner.saved.items():
            target.copy_(tensors[f"model/{name}"])
    for parameter in learner.parameters:
        name = next(n for n, t in learner.saved.items() if t is parameter)
        if f"momentum/{name}" in tensors:
            # In the parameter's own memory format, as the undisturbed run has it.
            buffer = torch.empty_like(parameter).copy_(tensors[f"momentum/{name}"])
            learner.optimiser.state[parameter]["momentum_buffer"] = buffer.detach()
    return int(step)


def _made_from(learner: Learner) -> dict[str, Any]:
    """What a checkpoint belongs to: heads must not continue over a trunk that was made anew with other weights."""
    return {"key": learner.work.key, "inputs": dict(learner.work.inputs)}


def write(learner: Learner, counts: Mapping[str, Any] | None) -> None:
    broken = [name for name, t in learner.saved.items() if not torch.isfinite(t).all()]
    if broken:  # the last update enters no loss, so that only the weights show it
        learner.error = StageError(
            f"weights are not finite after the last step: {broken[0]}", where=f"stage {learner.work.key[:6]}",
            hint="lower schedule.lr, lengthen schedule.warmup or clip harder (schedule.clip)",
        )  # fmt: skip
        return
    if not learner.work.world.first:
        return
    checkpoint.write_tensors(learner.work.out / WEIGHTS, {n: t.detach().cpu() for n, t in learner.saved.items()})
    info = {"steps": learner.total, "reinitialised": sorted(learner.fresh)}
    write_json(learner.work.out / TRAIN_INFO, info | ({} if counts is None else {"counts": dict(counts)}))
