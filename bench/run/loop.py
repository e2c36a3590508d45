"""How a training goes on: step by step, with checkpoints, over one process or several. Separate from train.py, which
says what is trained.

A step makes the losses and gradients of one stage of the pass after another, then the sums over processes, then the
updates. With one process no sum changes.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import nn

from bench import spec as specs
from bench.data.loader import Loader
from bench.detection.contract import Batch, Classifier, Context, Detector, Draws, Taps, TrainOutput
from bench.detection.losses import ExtraLoss
from bench.errors import StageError
from bench.run import distributed
from bench.run.learner import Learner, averaged, save
from bench.run.step import TrainStep
from bench.run.work import Stopped, Work
from bench.run.world import World, portable
from bench.stage import TrainSpec, spec_of

DIVERGED = 1e4  # a detector's losses start near ln(C) and sum below 20 on every preset; beyond this it has diverged
CURVE_POINTS = 90  # points of a training curve
SHOWN = "shown/"  # what the names of a curve begin with that is no loss (bench.detection.losses.Losses.shown)

_Losses = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]


def rate(schedule: specs.Schedule, step: int, total: int) -> float:
    """Learning rate of optimiser step `step` (from 0): linear warm-up times decay (methods.md 0.3)."""
    warm = 1.0
    # DEVIATION: detectron2 counts the warm-up from 0, we from 1: from 0.0 the first step would have no effect.
    if schedule.warmup:
        warm = min(1.0, schedule.warmup_from + (1 - schedule.warmup_from) * (step + 1) / schedule.warmup)
    if schedule.decay == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * step / total))
    elif schedule.decay == "linear":
        flat = total * (schedule.drops[0] if schedule.drops else 0.0)
        factor = min(1.0, (total - step) / max(total - flat, 1.0))
    elif schedule.decay == "steps":
        factor = 0.1 ** sum(step >= round(drop * total) for drop in schedule.drops)
    else:
        factor = 1.0
    return schedule.lr * warm * factor


def train(
    lead: Work,
    detector: Detector,
    learners: list[Learner],
    loader: Loader,
    batches: Iterator[Sequence[Batch]],
    device: str,
    *,
    frozen: bool,
    scope: str,
) -> None:
    """Every step that a learner still has to do; a learner that fails keeps its error.

    Args:
        lead: the stage whose data, trunk and seed all have.
        detector: with the trunk of all.
        learners: one, or several classifiers over a frozen trunk.
        loader: of the batches, for other views of them.
        batches: from the first step of `steps`, each with the views that are made ahead.
        device: of the detector.
        frozen: nothing below the classifiers is trained.
        scope: what a classifier's loss sees (bench.spec.Machine.scope).

    Raises:
        Stopped: asked to stop, this process or another of the job.
    """
    assert frozen or len(learners) == 1, "only classifiers over a frozen trunk are trained together"
    spec, world = spec_of(lead.stage, TrainSpec), lead.world
    taps = sorted({tap for learner in learners for tap in learner.classifier.inputs})
    for number in steps(learners):
        _stop_together(lead)
        shown = [batch.to(device) for batch in next(batches)]
        active = [one for one in learners if one.error is None and one.step <= number < one.end]
        if not active:  # one has failed or is done, and another continues from a later checkpoint
            continue
        step = TrainStep(
            detector, shown, Draws(spec["seed"], spec["phase"], number, loader.share[0]),
            _context_of_losses(active[0], number),
            other_view=functools.partial(_other_view, loader, number, device), frozen=frozen, taps=taps,
            whole=functools.partial(distributed.whole_rows, world=world),
        )  # fmt: skip
        with torch.autocast(device, torch.bfloat16, enabled=spec["precision"] == "bfloat16"):
            out = step.rois() if spec.get("detection", True) else None
            rois = None if out is None else _Rois(detector, out, loader.share[0], world, scope)
            _each(active, frozen, functools.partial(_backward, step=step, number=number, rois=rois, scope=scope))
            _sum_over_processes(active, world, scope)
            _each(active, frozen, functools.partial(_check_loss, step=number))
            _each(active, frozen, functools.partial(_update, step=number), keep=world.size == 1)
            _each(active, frozen, functools.partial(_updated, step=step), keep=world.size == 1)
        for learner in active:
            due = (number + 1) % learner.schedule.checkpoint_every == 0 and number + 1 < learner.end
            if due and learner.error is None:
                where = f"stage {learner.work.key[:6]}, step {number + 1}"
                distributed.check_equal(learner.saved | learner.carried, world, where)
                save(learner)
        if all(learner.error for learner in learners):
            return


def examples(learner: Learner, detector: Detector, loader: Loader, device: str) -> dict[str, torch.Tensor]:
    """What the losses of a stage keep to look at, of the last step's images and the finished model, on the CPU. In a
    job of several processes the first one makes it.

    It is made anew from the batch's address and not kept from the step: a resumed stage has the same.
    """
    kept = [one for one in learner.losses if type(one).examples is not ExtraLoss.examples]
    spec, number, found = spec_of(learner.work.stage, TrainSpec), learner.end - 1, dict[str, torch.Tensor]()
    if not (kept and learner.work.world.first):
        return found
    detector.eval()
    step = TrainStep(
        detector, [], Draws(spec["seed"], spec["phase"], number, loader.share[0]),
        _context_of_losses(learner, number), other_view=functools.partial(_other_view, loader, number, device),
        frozen=True, taps=(), whole=_refuse_whole,
    )  # fmt: skip
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=spec["precision"] == "bfloat16"):
        for one in kept:
            own, name = one.eval().examples(step), f"{type(one).__name__}.examples"
            _refuse_same_names(found, own, "another loss", name)
            found |= own
    return {name: value.detach().cpu() for name, value in found.items()}


def _refuse_whole(rows: torch.Tensor) -> torch.Tensor:
    raise StageError("Step.whole is called for examples, which one process makes alone", where="ExtraLoss.examples")


class _Rois:
    """The RoIs of a step, of all processes, as each classifier has them: an engine may ask it first which are whose."""

    def __init__(self, detector: Detector, out: TrainOutput, first: int, world: World, scope: str) -> None:
        self._detector, self._out = detector, out
        self._share = (first, world, scope)
        self._same: TrainOutput | None = None  # where it is the same for every classifier

    def of(self, classifier: Classifier) -> TrainOutput:
        assigned = self._detector.assign(self._out, functools.partial(_scores, classifier, self._out.taps))
        if assigned is not self._out:
            return distributed.whole_step(assigned, *self._share)
        self._same = distributed.whole_step(assigned, *self._share) if self._same is None else self._same
        return self._same


@torch.no_grad()
def _scores(classifier: Classifier, taps: Taps) -> torch.Tensor:
    return classifier.scores(classifier(taps))[0]


def steps(learners: Sequence[Learner]) -> range:
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
            if not keep or learner.losses:  # other processes wait for the counts of its losses
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


def _other_view(loader: Loader, number: int, device: str, view: int) -> Batch:
    return loader.batch(number, view).to(device)


def _context_of_losses(learner: Learner, number: int) -> Context:
    """Of the losses beside the classifier's: they see the images of this process, and may sum over all."""
    spec, world = spec_of(learner.work.stage, TrainSpec), learner.work.world
    generator = Draws(spec["seed"], spec["phase"], number).generator("losses", world.rank)
    return Context(number, number / learner.total, generator, distributed.reduction(world, "device"))


def _backward(learner: Learner, step: TrainStep, number: int, rois: _Rois | None, scope: str) -> None:
    """One head's losses and gradients before the next head's: of many heads one graph at a time is in memory."""
    out = None if rois is None else rois.of(learner.classifier)
    trunk, own, extra = _losses(learner, step, number, out, scope)
    _gradients(learner, trunk | own | extra)


def _losses(learner: Learner, step: TrainStep, number: int, out: TrainOutput | None, scope: str) -> _Losses:
    """Those of the trunk, of the classifier (neither where a training is of other losses alone), and beside them."""
    spec, world, classifier = spec_of(learner.work.stage, TrainSpec), learner.work.world, learner.classifier
    own: dict[str, torch.Tensor] = {}
    if out is not None and spec.get("detection", True) is True:
        alone = scope == "device" and world.size > 1
        generator = Draws(spec["seed"], spec["phase"], number).generator("classifier", world.rank if alone else 0)
        context = Context(number, number / learner.total, generator, distributed.reduction(world, scope))
        with distributed.counted_once(classifier, world, scope):
            own = classifier.loss(classifier(out.taps), out.targets, context)
        if alone:  # the mean over processes
            own = {name: value / world.size for name, value in own.items()}
        _refuse_same_names(out.losses, own, "the trunk", f"{type(classifier).__name__}.loss")
    trunk = {} if out is None else dict(out.losses)
    extra: dict[str, torch.Tensor] = {}
    counts: dict[str, int | None] = {}
    learner.shown = {}
    for one in learner.losses:
        found, name = one.loss(step), f"{type(one).__name__}.loss"
        if found.values.keys() != found.counts.keys():
            raise StageError(
                f"values of {', '.join(sorted(found.values)) or 'nothing'}, counts of "
                f"{', '.join(sorted(found.counts)) or 'nothing'}", where=name, allowed="a count for each value",
            )  # fmt: skip
        _refuse_same_names(trunk | own | extra, found.values, "another loss", name)
        extra |= found.values
        counts |= found.counts
        learner.shown |= {SHOWN + what: float(value.detach()) for what, value in found.shown.items()}
    if learner.losses:  # else nothing is exchanged here: a head that fails alone would be one exchange behind
        extra = distributed.whole_values(extra, counts, world)
    learner.shares = (*trunk, *(what for what in extra if counts[what] is not None))
    return trunk, own, extra


def _gradients(learner: Learner, losses: Mapping[str, torch.Tensor]) -> None:
    """This process's gradients of the sum of all losses, and the values of each."""
    loss = torch.stack([value.float() for value in losses.values()]).sum()
    learner.values = {name: float(value.detach()) for name, value in losses.items()} | {"loss": float(loss.detach())}
    learner.optimiser.zero_grad()
    if loss.requires_grad or learner.work.world.first:  # others have none where the first computes it all
        loss.backward()  # type: ignore[no-untyped-call]


def _refuse_same_names(known: Mapping[str, object], own: Mapping[str, object], whose: str, where: str) -> None:
    """One would replace the other in the sum, and the training would go on without it."""
    same = sorted(known.keys() & own.keys())
    if same:
        raise StageError(
            f"{whose} and {where} both have a loss '{same[0]}'", where=f"loss of {where.partition('.')[0]}",
            allowed=f"any name but {', '.join(sorted(known))}",
        )  # fmt: skip


def _sum_over_processes(learners: Sequence[Learner], world: World, scope: str) -> None:
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
            distributed.sum_gradients(learner.parameters, bits)
            learner.values = distributed.total_values(values, learner.shares, scope)


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
    learner.optimiser.set_rate(rate(schedule, step, total))
    learner.optimiser.step()
    averaged(learner, step)
    if (step + 1) % max(1, learner.end // CURVE_POINTS) == 0:
        learner.work.metrics(step + 1, lr=rate(schedule, step, total), **learner.values, **learner.shown)
    learner.step = step + 1
    learner.work.progress(step + 1, learner.end, loss=learner.values["loss"])


def _updated(learner: Learner, step: TrainStep) -> None:
    with torch.no_grad():
        for one in learner.losses:
            one.updated(step.student, step.context)
