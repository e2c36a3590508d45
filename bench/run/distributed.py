"""The tensors of one training step that several processes share. Separate from train.py, which reads like
the training of one process, and from world.py, which knows no tensors.

A process has its share of the images; the trunk's losses are divided by the counts of all shares. The sampled RoIs
of all are gathered, and every process computes the classifier's loss on the whole step, so that a classifier is
written as for one process; the gradient reaches each process's own RoIs once. Then the gradients are summed.

Shape legend: N RoIs.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from bench.detection.contract import Targets, TrainOutput, identity_all_reduce
from bench.errors import StageError
from bench.run.world import World, refusal_of_live_norm

# Elements of a bucket of gradients: 32 MB of float32, a copy of which is all that summing costs in memory.
_BUCKET = 8 * 2**20


@dataclass(frozen=True)
class _ShareSizes:
    """What every process needs of each share: counts of its losses, its RoIs, lengths of its class lists."""

    counts: Mapping[str, int]
    rows: int
    present: Sequence[int]
    negative: Sequence[int]


def refuse_live_norm(modules: Iterable[nn.Module], world: World) -> None:
    """Refuse a batch norm that learns, wherever it is (a user's classifier may hold one).

    Raises:
        UserError: there is one, and more than one process.
    """
    live = any(isinstance(m, _NormBase) and m.training for module in modules for m in module.modules())
    if world.size > 1 and live:
        raise refusal_of_live_norm(world.size)


def reduction(world: World, scope: str) -> Callable[[Tensor], Tensor]:
    """The all-reduce passed to a classifier: the identity where it sees the whole step, else the sum over processes."""

    def total(value: Tensor) -> Tensor:
        summed = value.detach().clone()
        dist.all_reduce(summed)
        return summed

    return total if world.size > 1 and scope == "device" else identity_all_reduce


def whole_step(out: TrainOutput, first: int, world: World, scope: str) -> TrainOutput:
    """A trunk's output, with the losses divided by the counts of all processes, and the RoIs of all.

    Args:
        out: of this process's images.
        first: position of the first of them in the global batch.
        world: the processes.
        scope: "global": the RoIs of all processes, in the order of the global batch; "device": this one's alone.
    """
    if world.size == 1:
        return out
    ours = out.targets
    shares: list[_ShareSizes] = world.exchange(
        _ShareSizes(out.counts, len(ours.labels_N), [len(c) for c in ours.present], [len(c) for c in ours.negative])
    )
    losses = _of_whole(out.losses, out.counts, [one.counts for one in shares])
    if scope == "device":
        return replace(out, losses=losses)
    rows = [one.rows for one in shares]
    owned = torch.stack((ours.labels_N, ours.image_N + first), 1)
    labels_N, image_N = _gathered(owned, rows, world).unbind(1)
    present, negative = _classes(torch.cat([*ours.present, *ours.negative]), shares, world)
    taps = out.taps.each(lambda value: _gathered(value, rows, world))
    return replace(out, losses=losses, taps=taps, targets=Targets(labels_N, image_N, present, negative, taps))


def sum_gradients(parameters: Sequence[nn.Parameter], have: Sequence[int]) -> None:
    """Make the gradients of all processes their sum.

    Args:
        parameters: of trunk, classifier and losses; the same on all.
        have: by process, the parameters that got a gradient, as bits; one without on all processes stays without.
    """
    used = [p for i, p in enumerate(parameters) if any(bits >> i & 1 for bits in have)]
    for bucket in _buckets(used):
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in bucket]
        flat = torch.cat([part.flatten() for part in parts])
        dist.all_reduce(flat)
        for parameter, summed in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            parameter.grad.copy_(summed.view(parameter.shape))


@contextlib.contextmanager
def counted_once(classifier: nn.Module, world: World, scope: str) -> Iterator[None]:
    """Around a classifier's loss of the whole step, which every process computes: its gradient reaches the classifier's
    parameters in the first process alone, and the RoIs in each, so that the sum over processes has each once."""
    learning = [p for p in classifier.parameters() if p.requires_grad] if world.rank and scope == "global" else []
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def whole_values(values: Mapping[str, Tensor], counts: Mapping[str, int | None], world: World) -> dict[str, Tensor]:
    """Losses of this process's images, divided by the counts of all processes; one without a count is of the whole
    batch. All must call it."""
    if world.size == 1:
        return dict(values)
    own = {name: count for name, count in counts.items() if count is not None}
    shared = _of_whole({name: values[name] for name in own}, own, world.exchange(own))
    return {name: shared.get(name, value) for name, value in values.items()}


def whole_rows(rows: Tensor, world: World) -> Tensor:
    """The rows of all processes, in order of rank; a gradient flows to this process's own. All must call it."""
    return rows if world.size == 1 else _gathered(rows, world.exchange(len(rows)), world)


def _of_whole(
    values: Mapping[str, Tensor], own: Mapping[str, int], shares: Sequence[Mapping[str, int]]
) -> dict[str, Tensor]:
    """Losses divided by the counts of all shares in place of our own."""
    return {name: value * (own[name] / max(sum(one[name] for one in shares), 1)) for name, value in values.items()}


def gradient_bits(parameters: Sequence[nn.Parameter]) -> int:
    """Which parameters have a gradient, as bits."""
    return sum(1 << i for i, parameter in enumerate(parameters) if parameter.grad is not None)


def total_values(parts: Sequence[Mapping[str, float]], trunk: Iterable[str], scope: str) -> dict[str, float]:
    """The losses of a step by name, and their sum as `loss`, from those of each process.

    Args:
        parts: by process.
        trunk: names whose values add up.
        scope: the others are the same everywhere ("global") or one share each ("device", divided already).
    """
    added = set(parts[0]) if scope == "device" else set(trunk)
    names = [name for name in parts[0] if name != "loss"]
    values = {name: sum(one[name] for one in parts) if name in added else parts[0][name] for name in names}
    return values | {"loss": sum(values.values())}


def send_state(tensors: Iterable[Tensor], world: World) -> None:
    """Overwrite the tensors of all processes with the first one's, in place."""
    if world.size == 1:
        return
    with torch.no_grad():
        for tensor in tensors:
            if tensor.numel():
                data = tensor.detach().clone(memory_format=torch.contiguous_format).view(-1).view(torch.uint8)
                dist.broadcast(data, src=0)
                tensor.copy_(data.view(tensor.dtype).view(tensor.shape))


def check_equal(named: Mapping[str, Tensor], world: World, where: str) -> None:
    """Compare weights and buffers of all processes.

    Raises:
        StageError: one differs; most likely a buffer that a classifier fills with something of its own process.
    """
    if world.size == 1:
        return
    answers = world.exchange({name: _digest(tensor) for name, tensor in named.items()})
    wrong = next((name for name in named if any(other[name] != answers[0][name] for other in answers)), None)
    if wrong is not None:
        raise StageError(
            f"{wrong} is not the same on the {world.size} processes", where=where,
            hint="a buffer that follows the RoIs must be summed by context.all_reduce (machine.scope: device)",
        )  # fmt: skip


def _gathered(value: Tensor, rows: Sequence[int], world: World) -> Tensor:
    """The rows of all processes, in order of rank; a gradient flows to this process's own alone.

    Every process computes the loss of all rows, so what flows back to its own rows is their whole gradient.
    """
    longest = max(rows)
    if longest == 0:
        return value
    padded = value.new_zeros((longest, *value.shape[1:]))
    padded[: len(value)] = value.detach()
    parts = [torch.empty_like(padded) for _ in rows]
    # As bytes: gloo does not know every dtype that nccl knows.
    dist.all_gather([_bytes(part) for part in parts], _bytes(padded))
    received = [part[:number] for part, number in zip(parts, rows, strict=True)]
    received[world.rank] = value
    return torch.cat(received)


def _bytes(value: Tensor) -> Tensor:
    return value.view(-1).view(torch.uint8)


def _classes(classes: Tensor, shares: Sequence[_ShareSizes], world: World) -> tuple[list[Tensor], list[Tensor]]:
    """(present, negative) classes of each image of the global batch; `classes`: ours, one list after another."""
    together = _gathered(classes, [sum(one.present) + sum(one.negative) for one in shares], world)
    lists = iter(torch.split(together, [length for one in shares for length in (*one.present, *one.negative)]))
    present, negative = [], []
    for one in shares:
        present += [next(lists) for _ in one.present]
        negative += [next(lists) for _ in one.negative]
    return present, negative


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Neighbours of one dtype, up to `_BUCKET` elements, which are summed in one message."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        full = sum(p.numel() for p in bucket) + parameter.numel() > _BUCKET
        if bucket and (full or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def _digest(tensor: Tensor) -> str:
    data: Any = tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy()
    return hashlib.blake2b(data, digest_size=16).hexdigest()
