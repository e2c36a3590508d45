"""The `train` stage: one loop for a whole detector and for K classifiers over one frozen trunk (fusing).

Separate so that training can be read in one file. Batch t, its augmentation and its samples are functions of
their address alone, so a resumed stage equals an undisturbed one, and a fused stage equals the stage alone. Several
processes may share each batch (distributed.py); with one process no sum changes.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from bench import spec as specs
from bench.data.loader import Loader
from bench.data.split import Split, open_split
from bench.detection.contract import Batch, Classifier, Context, Detector, Draws, HeadSpec, TrainOutput
from bench.engines.facts import facts, only_classifier
from bench.errors import StageError, UserError, unknown
from bench.key import resolve
from bench.run import distributed
from bench.run.data import counted, image_root_of
from bench.run.learner import Learner, begin, save, write
from bench.run.loading import workers_of
from bench.run.model import (
    fitted,
    head_spec,
    load_model,
    make_classifier,
    new_detector,
    state_of,
)
from bench.run.work import Stopped, Work, device_of
from bench.run.world import World, portable, refuse_shares
from bench.stage import TrainSpec, spec_of

DIVERGED = 1e4  # a detector's losses start near ln(C) and sum below 20 on every preset; beyond this it has diverged
CURVE_POINTS = 90  # points of a training curve


def run(works: Sequence[Work]) -> list[Exception | None]:
    """Train one stage, or several that share a frozen trunk; one outcome per stage (None: outputs are written).

    Raises:
        Stopped: asked to stop, this process or another of the job; checkpoints are saved.
    """
    with works[0].world.together():
        return _run(works, works[0].world)


def _run(works: Sequence[Work], world: World) -> list[Exception | None]:
    device = device_of(works[0].machine)
    split = _split(works[0])
    loader = _loader(works, split, device)
    counts = _counts(split) if spec_of(works[0].stage, TrainSpec)["annotations"] is not None else None
    detector, learners, errors = _prepare(works, loader, counts, device)
    if works[0].observe is not None:
        works[0].observe(detector)
    _check_same_work(world, {one.work.key: (one.total, one.end) for one in learners})
    for learner in learners:
        begin(learner, world)
    try:
        with loader.batches(_steps(learners)) as batches:
            _loop(works[0], detector, learners, loader, batches, device)
    except Stopped:
        for learner in learners:
            if learner.error is None:
                save(learner)
        raise
    for learner in learners:
        if learner.error is None:
            distributed.check_equal(learner.saved, world, f"stage {learner.work.key[:6]}")
            write(learner, counts)
        errors[learner.work.key] = learner.error
    world.exchange()  # an error of the first process while writing is raised in all
    return [errors[work.key] for work in works]


def rate(schedule: specs.Schedule, step: int, total: int) -> float:
    """Learning rate of optimiser step `step` (from 0): linear warm-up times decay (methods.md 0.3)."""
    warm = 1.0
    # DEVIATION: detectron2 counts the warm-up from 0, we from 1: from 0.0 the first step would have no effect.
    if schedule.warmup:
        warm = min(1.0, schedule.warmup_from + (1 - schedule.warmup_from) * (step + 1) / schedule.warmup)
    if schedule.decay == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * step / total))
    elif schedule.decay == "steps":
        factor = 0.1 ** sum(step >= round(drop * total) for drop in schedule.drops)
    else:
        factor = 1.0
    return schedule.lr * warm * factor


def loader_steps(loader: Loader, schedule: specs.Schedule, epochs: int | None = None) -> int:
    """Steps of the first `epochs` of a schedule (None: of all) in epochs of the stage's own sampler (an RFS epoch is
    longer than the list of images)."""
    epochs = schedule.epochs if epochs is None else epochs
    assert epochs is not None
    return math.ceil(sum(loader.epoch_length(e) for e in range(epochs)) / schedule.batch)


def _loop(
    lead: Work,
    detector: Detector,
    learners: list[Learner],
    loader: Loader,
    batches: Iterator[Batch],
    device: str,
) -> None:
    spec = spec_of(lead.stage, TrainSpec)
    frozen = only_classifier(spec["trainable"], _groups(lead))
    assert frozen or len(learners) == 1, "only classifiers over a frozen trunk are trained together"
    world, scope = lead.world, _scope(lead)
    taps = sorted({tap for learner in learners for tap in learner.classifier.inputs})
    trunk: AbstractContextManager[object] = torch.no_grad() if frozen else nullcontext()
    for step in _steps(learners):
        _stop_together(lead)
        batch = next(batches).to(device)
        draws = Draws(spec["seed"], spec["phase"], step, loader.share[0])
        active = [one for one in learners if one.error is None and one.step <= step < one.end]
        if not active:  # one has failed or is done, and another continues from a later checkpoint
            continue
        with torch.autocast(device, torch.bfloat16, enabled=spec["precision"] == "bfloat16"):
            with trunk:
                out = detector.train_forward(batch, draws, trunk_losses=not frozen, taps=taps)
            out = distributed.whole_step(out, loader.share[0], world, scope)
            _each(active, frozen, functools.partial(_backward, out=out, draws=draws, scope=scope))
            _sum_over_processes(active, world, list(out.losses), scope)
            _each(active, frozen, functools.partial(_check_loss, step=step))
            _each(active, frozen, functools.partial(_update, step=step), keep=world.size == 1)
        for learner in active:
            due = (step + 1) % learner.schedule.checkpoint_every == 0 and step + 1 < learner.end
            if due and learner.error is None:
                distributed.check_equal(learner.saved, world, f"stage {learner.work.key[:6]}, step {step + 1}")
                save(learner)
        if all(learner.error for learner in learners):
            return


def _steps(learners: Sequence[Learner]) -> range:
    """From the least step that a learner of a pass was resumed at, to the end of the longest."""
    return range(min(learner.step for learner in learners), max(learner.end for learner in learners))


def _each(learners: Sequence[Learner], frozen: bool, work: Callable[[Learner], None], *, keep: bool = True) -> None:
    """A part of a step for every learner. With `keep`, an error is kept in its learner and the other heads over this
    trunk continue; else it is raised."""
    for learner in learners:
        if learner.error is not None:
            continue
        begun = time.perf_counter()
        try:
            work(learner)
        except Exception as error:  # of any kind
            if not keep:
                raise
            learner.error = error
        if frozen:  # what this head costs beside the trunk that all share
            learner.work.own_seconds += time.perf_counter() - begun


def _stop_together(lead: Work) -> None:
    """Raise `Stopped` if this process or another one of the job was asked to stop: all stop at the same step."""
    if lead.world.size == 1:
        lead.stop.check()
        return
    answers = lead.world.exchange((bool(lead.stop), list(lead.stop.signals)))
    if any(asked for asked, _ in answers):
        for _, signals in answers:
            lead.stop.receive(signals)
        lead.world.leave()
        raise Stopped


def _check_same_work(world: World, facts: Mapping[str, Any]) -> None:
    """Raise unless all processes have the same facts (another library version could read a spec differently)."""
    if any(other != facts for other in world.exchange(facts)):
        raise StageError(f"the {world.size} processes of the job disagree on what to train", where=", ".join(facts))


def _backward(learner: Learner, out: TrainOutput, draws: Draws, scope: str) -> None:
    """This process's losses and gradients."""
    world, step = learner.work.world, draws.step
    alone = scope == "device" and world.size > 1
    generator = Draws(draws.seed, draws.phase, step).generator("classifier", world.rank if alone else 0)
    context = Context(step, step / learner.total, generator, distributed.reduction(world, scope))
    own = learner.classifier.loss(learner.classifier(out.taps), out.targets, context)
    if alone:  # the mean over processes
        own = {name: value / world.size for name, value in own.items()}
    _refuse_same_names(out.losses, own, type(learner.classifier).__name__)
    losses = out.losses | own
    loss = torch.stack([value.float() for value in losses.values()]).sum()
    learner.values = {name: float(value.detach()) for name, value in losses.items()} | {"loss": float(loss.detach())}
    learner.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]


def _refuse_same_names(trunk: Mapping[str, Any], own: Mapping[str, Any], classifier: str) -> None:
    """One would replace the other in the sum, and the trunk would train without it."""
    same = sorted(trunk.keys() & own.keys())
    if same:
        raise StageError(
            f"the trunk and {classifier}.loss both have a loss '{same[0]}'", where=f"loss of {classifier}",
            allowed=f"any name but {', '.join(sorted(trunk))}",
        )  # fmt: skip


def _sum_over_processes(learners: Sequence[Learner], world: World, trunk: Sequence[str], scope: str) -> None:
    """Make losses and gradients those of the whole batch; a head that failed in one process fails in all."""
    if world.size == 1:
        return
    answers = world.exchange(
        [(portable(one.error, world), one.values, distributed.gradient_bits(one.parameters)) for one in learners]
    )
    for i, learner in enumerate(learners):
        errors, values, bits = zip(*(one[i] for one in answers), strict=True)
        learner.error = learner.error or next((error for error in errors if error is not None), None)
        if learner.error is None:
            whole = list(learner.classifier.parameters()) if scope == "global" else []
            distributed.sum_gradients(learner.parameters, whole, bits)
            learner.values = distributed.total_values(values, trunk, scope)


def _check_loss(learner: Learner, step: int) -> None:
    values = learner.values
    if not math.isfinite(values["loss"]) or values["loss"] > DIVERGED:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        raise StageError(
            f"the loss diverged at step {step + 1} of {learner.end}: {shown}", where=f"stage {learner.work.key[:6]}",
            hint=f"lower schedule.lr (now {learner.schedule.lr:g}), lengthen schedule.warmup or clip harder "
            "(schedule.clip)",
        )  # fmt: skip


def _update(learner: Learner, step: int) -> None:
    """Update the weights, and report progress."""
    schedule, total = learner.schedule, learner.total
    if schedule.clip is not None:
        nn.utils.clip_grad_norm_(learner.parameters, schedule.clip)
    for group in learner.optimiser.param_groups:
        group["lr"] = rate(schedule, step, total)
    learner.optimiser.step()
    if (step + 1) % max(1, learner.end // CURVE_POINTS) == 0:
        learner.work.metrics(step + 1, lr=rate(schedule, step, total), **learner.values)
    learner.step = step + 1
    learner.work.progress(step + 1, learner.end, loss=learner.values["loss"])


def _prepare(
    works: Sequence[Work], loader: Loader, counts: Mapping[str, Any] | None, device: str
) -> tuple[Detector, list[Learner], dict[str, Exception | None]]:
    """One trunk, one learner per stage, weights from init or a weights file; errors of classifiers by key.

    Raises:
        Exception: that of the first stage, if no classifier could be made.
    """
    lead, spec = works[0], spec_of(works[0].stage, TrainSpec)
    head = head_spec(lead.stage, lead.input("train"), counts)
    classifiers: list[tuple[Work, Classifier, list[str]]] = []
    errors: dict[str, Exception | None] = {}
    for work in works:
        try:
            classifiers.append((work, *_classifier(work, head)))
        except Exception as error:  # e.g. a setting that does not fit this data: the other heads continue
            errors[work.key] = error
    if not classifiers:
        raise next(error for error in errors.values() if error is not None)
    weights = lead.stage.not_in_key.get("weights_path") if spec["weights"] is not None else None
    detector = new_detector(lead.stage, head, classifiers[0][1], weights=weights)
    trunk_fresh = _load_trunk(lead, detector)
    detector.set_mode(tuple(spec["trainable"]))
    if lead.machine.channels_last and isinstance(detector, nn.Module):
        detector.to(memory_format=torch.channels_last)
    detector.to(device)
    learners = [
        _learner(work, detector, classifier.to(device), trunk_fresh + fresh, loader)
        for work, classifier, fresh in classifiers
    ]
    distributed.refuse_live_norm([cast(nn.Module, detector), *(one.classifier for one in learners)], lead.world)
    return detector, learners, errors


def _learner(work: Work, detector: Detector, classifier: Classifier, fresh: list[str], loader: Loader) -> Learner:
    """One stage's classifier on the common detector: which of its parameters are trained, at which rate."""
    trainable = tuple(spec_of(work.stage, TrainSpec)["trainable"])
    own = {name: group for group, names in classifier.groups().items() for name in names}
    legal = {*_groups(work), *classifier.groups()}
    for group in trainable:
        if group not in legal:
            raise unknown("parameter group", group, legal, where=f"trainable of {type(classifier).__name__}")
    learns = not trainable or bool({"classifier", *classifier.groups()} & set(trainable))
    classifier.train(learns)
    for name, parameter in classifier.named_parameters():
        wanted = not trainable or "classifier" in trainable or own.get(name) in trainable
        parameter.requires_grad_(wanted and parameter.requires_grad)
    # A stage that trains any of its classifier stores all of it: one group's weights alone are no whole classifier.
    saved = {f"classifier.{n}": t for n, t in classifier.state_dict(keep_vars=True).items()}
    if not only_classifier(trainable, _groups(work)):  # in the model's order, in which the gradient's norm is summed
        state = nn.Module.state_dict(cast(nn.Module, detector), keep_vars=True)
        saved = {n: t for n, t in state.items() if not trainable or n in saved or detector.group_of(n) in trainable}
        saved = {n: t for n, t in saved.items() if learns or not n.startswith("classifier.")}
    parameters = [t for t in saved.values() if isinstance(t, nn.Parameter) and t.requires_grad]
    schedule = _schedule(work)
    sgd = torch.optim.SGD(
        parameters,
        lr=schedule.lr,
        momentum=schedule.momentum,
        nesterov=schedule.nesterov,
        weight_decay=schedule.weight_decay,
    )
    total = schedule.steps or loader_steps(loader, schedule)
    end = _end(work, schedule, total, loader)
    return Learner(work, schedule, total, end, classifier, saved, parameters, sgd, fresh)


def _end(work: Work, schedule: specs.Schedule, total: int, loader: Loader) -> int:
    """The step at which a stage stops: a rung does so before the end of its schedule."""
    until = spec_of(work.stage, TrainSpec).get("until")
    if until is None:
        return total
    return until if schedule.epochs is None else loader_steps(loader, schedule, until)


def _classifier(work: Work, head: HeadSpec) -> tuple[Classifier, list[str]]:
    """The stage's classifier, with the weights of `init` where it is kept, and the names of new parameters."""
    spec, init = spec_of(work.stage, TrainSpec), work.stage.inputs.get("init")
    classifier = make_classifier(work.store, work.stage, head, spec["seed"])
    names = [name for name, _ in classifier.named_parameters()]  # buffers hold the layout of a head, nothing learned
    if init is None:
        return classifier, []
    if not spec["keep_classifier"]:
        return classifier, [f"classifier.{name}" for name in names]
    other = load_model(work.store, init).classifier
    return classifier, [f"classifier.{name}" for name in classifier.load_from(other) if name in names]


def _load_trunk(work: Work, detector: Detector) -> list[str]:
    """Everything below the classifier from init; returns the names of those that a weights file does not hold."""
    init = work.stage.inputs.get("init")
    if init is not None:
        state = state_of(work.store, init)
        own = detector.state_dict()
        below = {n: t for n, t in state.items() if not n.startswith("classifier.")}
        kept = {n: t for n, t in own.items() if n.startswith("classifier.")}
        detector.load_state_dict(below | kept)
        return []
    return list(detector.fresh) if spec_of(work.stage, TrainSpec)["weights"] is not None else []


def _split(work: Work) -> Split:
    """The training split after the stage's data part.

    Raises:
        UserError: the data part leaves no image.
    """
    folder, data = work.input("train"), work.spec["annotations"]
    split = replace(open_split(folder, image_root_of(work.stage.inputs["train"])), counted=counted(folder))
    if data is None:
        return split
    change, settings = resolve(data, fitted(work.store, work.stage))
    changed: Split = change(split, **settings)
    if not len(changed):
        raise UserError(
            "the data part leaves no image to train on", where=str(data["part"]),
            hint="look at its settings beside the counts of `python -m bench data check`",
        )  # fmt: skip
    return replace(changed, counted=None)


def _counts(split: Split) -> dict[str, Any]:
    stats = split.statistics()
    return {"instances": stats.instance_counts.tolist(), "images": stats.image_counts.tolist()}


def _loader(works: Sequence[Work], split: Split, device: str) -> Loader:
    work, workers = works[0], workers_of(works, split, device)
    spec = spec_of(work.stage, TrainSpec)
    kind, settings = resolve(spec["sampler"], fitted(work.store, work.stage))
    sampler = kind(split.training_statistics(), **settings)
    section = specs.Input.model_validate(spec["input"])
    seed, phase, batch = spec["seed"], spec["phase"], int(spec["schedule"]["batch"])
    share = work.world.share(batch)
    return Loader(
        split, section, sampler=sampler, batch=batch, seed=seed, phase=phase, share=share, workers=workers
    )  # fmt: skip


def _groups(work: Work) -> tuple[str, ...]:
    """The engine's parameter groups."""
    return facts(work.spec["engine"]["name"]).groups


def _scope(work: Work) -> str:
    """What a classifier's loss sees; the key says how many processes belong to "device" (bench.spec.Machine.scope).

    Raises:
        UserError: this job has another number of processes.
    """
    spec = spec_of(work.stage, TrainSpec)
    processes = spec["scope"]["device"] if "scope" in spec else 1
    if processes == 1:
        return "global"
    if processes != work.world.size:
        raise UserError(
            f"a loss of each of {processes} processes alone is to be trained, by {work.world.size}",
            where="machine.scope: device", allowed=f"{processes} processes (machine.tasks)",
        )  # fmt: skip
    refuse_shares(int(spec["schedule"]["batch"]), processes, alone=True)
    return "device"


def _schedule(work: Work) -> specs.Schedule:
    every = work.stage.not_in_key.get("checkpoint_every")
    more = {} if every is None else {"checkpoint_every": every}
    return specs.Schedule.model_validate({**spec_of(work.stage, TrainSpec)["schedule"], **more})
