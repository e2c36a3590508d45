"""What one stage trains, and its state on the disk. Separate from train.py because it is per stage, however many
are trained together, and because only the first process of a job writes it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench import spec as specs
from bench.detection.contract import Classifier, Detector
from bench.detection.losses import ExtraLoss
from bench.errors import StageError, UserError
from bench.run import checkpoint, distributed
from bench.run.model import TRAIN_INFO, WEIGHTS
from bench.run.optimiser import Optimiser
from bench.run.work import Work
from bench.run.world import World
from bench.stage import rung
from bench.store.disk import write_json

EXAMPLES = "examples.safetensors"  # what the losses keep to look at
STATE = "state.safetensors"  # of a rung, beside its weights: what else a checkpoint holds, by the same names
_MODEL = "model/"  # what the names of weights begin with in a checkpoint
_MEAN = "mean/"  # and those of their means over the steps


@dataclass
class Learner:
    """What one stage trains: its classifier, its parameters, its own optimiser, clipping, rate and length; and the
    losses beside the classifier's, whose own parameters and buffers are in checkpoints and not in the model."""

    work: Work
    schedule: specs.Schedule
    total: int  # steps of the whole schedule, which the rates follow
    end: int  # steps at which it stops: fewer for a rung
    classifier: Classifier
    saved: dict[str, Tensor]  # state-dict name -> tensor that this stage stores
    parameters: list[nn.Parameter]
    optimiser: Optimiser
    fresh: list[str] = field(default_factory=list)  # names that are not in init's weights
    losses: tuple[ExtraLoss, ...] = ()
    teachers: Mapping[str, Detector] = field(default_factory=dict)  # the models that these got, by input name
    carried: dict[str, Tensor] = field(default_factory=dict)  # of the losses: "loss/NUMBER.NAME" -> tensor
    average: dict[str, Tensor] = field(default_factory=dict)  # name -> mean over steps, where the schedule has one
    shares: tuple[str, ...] = ()  # names of the step's losses of which each process has a share, which add up
    shown: dict[str, float] = field(default_factory=dict)  # of the step: what its losses show beside their values
    step: int = 0
    values: dict[str, float] = field(default_factory=dict)  # losses of the step by name, and their sum as `loss`
    error: Exception | None = None


def averaged(learner: Learner, step: int) -> None:
    """Take a step's weights into their mean; of what is no floating-point number the last value. At the beginning the
    mean is over few steps: min(ema, (1 + n) / (10 + n)) after n."""
    decay = learner.schedule.ema
    if not decay:
        return
    decay = min(decay, (2 + step) / (11 + step))
    with torch.no_grad():
        for name, tensor in learner.saved.items():
            if name not in learner.average:
                learner.average[name] = tensor.detach().clone()
            elif tensor.is_floating_point():
                learner.average[name].lerp_(tensor.detach(), 1 - decay)
            else:
                learner.average[name].copy_(tensor)


def save(learner: Learner) -> None:
    """A checkpoint: what the stage stores, the optimiser's tensors, those of the losses, the step. The first process
    writes it."""
    if not learner.work.world.first:
        return
    tensors = {_MODEL + name: tensor for name, tensor in _weights(learner).items()} | _state(learner)
    older = learner.work.store.attempts(learner.work.key)
    checkpoint.save(learner.work.attempt.folder, learner.step, tensors, _made_from(learner), older)


def begin(learner: Learner, world: World) -> None:
    """Continue from the first process's checkpoint or rung; all processes begin with its weights, buffers and state."""
    if world.first:
        learner.step = _resume(learner)
    learner.step = world.exchange(learner.step)[0]
    learner.work.begun, learner.work.total = learner.step, learner.end
    distributed.send_state([*learner.saved.values(), *learner.carried.values()], world)
    if world.size > 1 and learner.step:
        learner.optimiser.make_state(world.exchange(list(learner.optimiser.state()))[0])
        distributed.send_state(learner.optimiser.state().values(), world)


def _resume(learner: Learner) -> int:
    """Load the newest intact checkpoint of any attempt over the same inputs, or a rung that is further; returns the
    step to continue at."""
    same = _made_from(learner)
    found = checkpoint.newest(
        learner.work.store.attempts(learner.work.key),
        warn=_warn,
        accept=lambda meta: {name: meta.get(name) for name in same} == same,
    )
    step, tensors = (0, {}) if found is None else (int(found[0]), found[1])
    further = _from_rung(learner, step)
    if further is not None:
        step, tensors = further
    if tensors:
        _load(learner, tensors, step)
    return step


def _from_rung(learner: Learner, step: int) -> tuple[int, dict[str, Tensor]] | None:
    """The longest noted rung that is done, was made from the same inputs and is intact: its step, and its tensors as a
    checkpoint has them. None where there is none beyond `step`.

    A rung is no input: it may be missing or broken, and the stage has the same result without it.
    """
    work = learner.work
    for until in sorted(work.stage.not_in_key.get("rungs", ()), reverse=True):
        key = rung(work.stage, until).key
        try:
            found = _read_rung(learner, key, step)
        except (UserError, OSError) as error:
            _warn(f"rung {until} ({key[:12]}) is skipped: {str(error).splitlines()[0]}")
            continue
        if found is not None:
            work.attempt.events.write("continued", rung=key[:12], step=found[0])
        return found
    return None


def _read_rung(learner: Learner, key: str, step: int) -> tuple[int, dict[str, Tensor]] | None:
    """Of one rung; None where it ends no later than `step`.

    Raises:
        UserError: it is not done, was made from other inputs, or has another content than was written.
        OSError: it cannot be read.
    """
    store, same = learner.work.store, dict(learner.work.inputs)
    folder, done = store.output(key), store.done(key)
    if done is None or dict(done.inputs) != same:
        raise UserError("it was made from other inputs")
    reached = int(json.loads(store.read(key, TRAIN_INFO))["steps"])
    if reached <= step:
        return None
    tensors: dict[str, Tensor] = {}
    for prefix, name in ((_MODEL, WEIGHTS), ("", STATE)):
        read = checkpoint.read_tensors(folder / name, done.digests.get(name, ""))
        tensors |= {prefix + n: tensor for n, tensor in read.items()}
    return reached, tensors


def _load(learner: Learner, tensors: Mapping[str, Tensor], step: int) -> None:
    """Weights, buffers, and the state of optimiser and losses, by their names in a checkpoint. One of step 0, of a job
    that was stopped before it began to train, has no means: they begin with the first step."""
    with torch.no_grad():
        for name, target in learner.saved.items():
            target.copy_(tensors[_MODEL + name])
        for name, target in learner.carried.items():
            target.copy_(tensors[name])
        if learner.schedule.ema and step:
            learner.average = {n: torch.empty_like(t).copy_(tensors[_MEAN + n]) for n, t in learner.saved.items()}
    learner.optimiser.load(tensors)


def _weights(learner: Learner) -> dict[str, Tensor]:
    """What the stage stores, on the CPU."""
    return {name: tensor.detach().cpu() for name, tensor in learner.saved.items()}


def _state(learner: Learner) -> dict[str, Tensor]:
    """What goes on through training beside the weights, on the CPU."""
    means = {_MEAN + name: tensor for name, tensor in learner.average.items()}
    everything = learner.optimiser.state() | learner.carried | means
    return {name: tensor.detach().cpu() for name, tensor in everything.items()}


def _made_from(learner: Learner) -> dict[str, Any]:
    """What a checkpoint belongs to: heads must not continue over a trunk that was made anew with other weights."""
    return {"key": learner.work.key, "inputs": dict(learner.work.inputs)}


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def write(learner: Learner, counts: Mapping[str, Any] | None, examples: Mapping[str, Tensor]) -> None:
    """The outputs of a finished stage, or the error that its weights are.

    Args:
        counts: of the images trained on, where a data part changed the list.
        examples: what its losses keep to look at.
    """
    broken = [name for name, t in learner.saved.items() if not torch.isfinite(t).all()]
    if broken:  # the last update enters no loss, so that only the weights show it
        learner.error = StageError(
            f"weights are not finite after the last step: {broken[0]}", where=f"stage {learner.work.key[:6]}",
            hint="lower schedule.lr, lengthen schedule.warmup or clip harder (schedule.clip)",
        )  # fmt: skip
        return
    if not learner.work.world.first:
        return
    kept = {name: tensor.detach().cpu() for name, tensor in learner.average.items()} or _weights(learner)
    checkpoint.write_tensors(learner.work.out / WEIGHTS, kept)
    if "until" in learner.work.spec:  # read after the weights: of a mean, the last step's are there too
        raw = {_MODEL + name: tensor for name, tensor in _weights(learner).items()} if learner.average else {}
        checkpoint.write_tensors(learner.work.out / STATE, _state(learner) | raw)
    if examples:
        checkpoint.write_tensors(learner.work.out / EXAMPLES, dict(examples))
    info = {"steps": learner.end, "reinitialised": sorted(learner.fresh)}
    write_json(learner.work.out / TRAIN_INFO, info | ({} if counts is None else {"counts": dict(counts)}))
