"""Checks of training: what moves, what a restart changes, what a shared pass changes. Separate because each of them
trains a stage more than once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.contract_check import tiny
from bench.contract_check.outcome import made_taps
from bench.contract_check.place import STOP_AT, Sandbox
from bench.contract_check.subject import Broken, DoesNotApply, Subject
from bench.detection.contract import Detector
from bench.plan.jobs import fused_groups
from bench.run.model import load_model, state_of
from bench.stage import Stage
from bench.store.events import read_events
from bench.store.store import Store
from bench.suite.catalogue import discover


def runs(subject: Subject) -> str | None:
    """Every stage ends, and the losses of every step are finite numbers."""
    place = subject.place
    place.bring(subject.result)
    for stage in subject.own_trainings:
        attempts = place.store.attempts(stage.key)
        curve = [e for a in attempts for e in read_events(a / "events.jsonl")[0] if e["event"] == "metrics"]
        if not curve:
            raise Broken("its training writes no losses", "the train stage must call `metrics`")
        for event in curve:
            bad = [name for name, value in event["values"].items() if not math.isfinite(float(value))]
            if bad:
                raise Broken(f"{bad[0]} is not finite at step {event['step']}", "guard divisions and logarithms")
    return None


def moves_what_it_names(subject: Subject) -> str | None:
    """Named groups move, all else keeps its bits: frozen parameters and the statistics of batch norm."""
    for variant, stage in subject.trainings():
        rehearsal = subject.place.rehearse(stage)
        live, named = rehearsal.live, tuple(stage.spec["trainable"])
        init = stage.inputs.get("init")
        below = {} if init is None else state_of(subject.place.store, init)
        before = {n: t for n, t in below.items() if not n.startswith("classifier.")} | dict(rehearsal.initial)
        moved = {n for n, t in _state(live).items() if n in before and not torch.equal(t, before[n])}
        learning = {name for name, parameter in live.named_parameters() if parameter.requires_grad}
        parameters = {name for name, _ in live.named_parameters()}
        for name in sorted(moved):
            if not _may_move(live, name, named, learning, parameters):
                what = "parameter" if name in parameters else "buffer"
                raise Broken(
                    f"{variant}training {' and '.join(named) or 'everything'} moves the {what} {name}",
                    "name its group in trainable=, or leave it alone: frozen modules stay in eval mode (batch norm), "
                    "and nothing below the classifier is edited in place",
                )
        for group in named or sorted({live.group_of(name) for name in learning}):
            own = {n for n in learning if group in (live.group_of(n), n.partition(".")[0])}
            if not own & moved:
                raise Broken(
                    f"{variant}group '{group}' is named in trainable=, but {tiny.STEPS} steps leave its parameters",
                    "no loss reaches it: is its output used, with a gradient, and is its rate above 0?",
                )
    return None


def resumes_exactly(subject: Subject) -> str | None:
    """Stopped and resumed, a training has the bits of one that ran through."""
    for variant, stage in subject.trainings():
        place = subject.place
        undisturbed = place.digests(place.store, stage)
        if place.rehearse(stage).digests == undisturbed:
            continue
        again = place.scratch(stage)
        place.work(again, stage)
        if place.digests(again, stage) != undisturbed:
            raise Broken(
                f"{variant}trained twice without a stop, it ends with different weights",
                "draw from context.generator (losses) or the argument rng (samplers, data parts), never from "
                "the global generators of torch, numpy or random",
            )
        raise Broken(
            f"{variant}stopped at step {STOP_AT} of {tiny.STEPS} and resumed, it ends with other weights",
            "what goes on through training lives in buffers (register_buffer, persistent); draws come from "
            "context.generator; nothing else survives a restart",
        )
    return None


def leaves_teachers_as_they_are(subject: Subject) -> str | None:
    """A model that a loss looks at gets no gradient and keeps every bit."""
    found = False
    for variant, stage in subject.trainings():
        for name, teacher in subject.place.rehearse(stage).teachers.items():
            found = True
            given = [n for n, parameter in teacher.named_parameters() if parameter.grad is not None]
            if given:
                raise Broken(
                    f"{variant}a gradient reaches {given[0]} of '{name}'",
                    "compute what a teacher says in torch.no_grad(), or ask the step for it",
                )
            before = state_of(subject.place.store, stage.inputs[name])
            moved = [n for n, t in _state(teacher).items() if not torch.equal(t, before[n])]
            if moved:
                raise Broken(
                    f"{variant}training changes {moved[0]} of '{name}'",
                    "a resumed training would start from the stored one: keep what goes on in parameters and buffers "
                    "of the loss",
                )
    if not found:
        raise DoesNotApply("none of its losses looks at another model")
    return None


def reloads_as_it_was(subject: Subject) -> str | None:
    """The model that the store holds is the one that was trained: every tensor, and its scores."""
    for variant, stage in subject.trainings():
        live, loaded = subject.place.rehearse(stage).live, load_model(subject.place.store, stage)
        theirs = _state(loaded)
        other = [n for n, t in _state(live).items() if n not in theirs or not torch.equal(t, theirs[n])]
        if other:
            raise Broken(
                f"{variant}{other[0]} is not what was trained once it is loaded", "register it as a buffer or parameter"
            )
        live.eval()
        loaded.eval()
        taps = made_taps(loaded.classifier.head, 32)
        with torch.inference_mode():
            trained, again = (c.scores(c(taps)) for c in (live.classifier, loaded.classifier))
        if not all(_equal(a, b) for a, b in zip(trained, again, strict=True)):
            raise Broken(
                f"{variant}the trained classifier scores otherwise than the one loaded from the store",
                "its scores depend on something that is no buffer or parameter and so is in no checkpoint",
            )
    return None


def fused_equals_alone(subject: Subject) -> str | None:
    """A classifier trained in one pass with plain ones ends with the bits it has alone; so do they."""
    plain = discover()["cls_retrain"]
    partners = {f"plain-{k}": plain.model_validate({"keep_classifier": k}) for k in (True, False)}
    place, fused = subject.place, 0
    for variant in subject.variants:
        plan = tiny.with_rows(place.suite, {tiny.ROW: variant.method, **partners})
        own = {stage.key for stage in variant.own_trainings}
        for group in fused_groups(plan, plan.stages):
            if own & set(group):
                fused += 1
                _compare_fused(place, variant, [plan.stages[key] for key in group])
    if not fused:
        raise DoesNotApply("it trains no classifier over the baseline's trunk that could share a pass")
    return None


def _compare_fused(place: Sandbox, variant: Subject, unit: list[Stage]) -> None:
    place.bring(*unit)
    for backwards in (False, True):  # what a head does to the taps reaches only the heads after it
        store = place.scratch(*unit)
        place.work(store, *unit, backwards=backwards)
        _compare(place, store, variant, unit)


def _compare(place: Sandbox, store: Store, variant: Subject, unit: list[Stage]) -> None:
    for stage in unit:
        if place.digests(store, stage) != place.digests(place.store, stage):
            whose = "it ends" if stage in variant.own_trainings else "a plain classifier beside it ends"
            raise Broken(
                f"{variant}trained in one pass with others, {whose} with other weights",
                "a classifier must not edit taps or targets in place, nor draw from anything but context.generator, "
                "nor keep state in its class or module",
            )


def _may_move(live: Detector, name: str, named: tuple[str, ...], learning: set[str], parameters: set[str]) -> bool:
    """Whether training the named groups (none: all that the detector's settings do not freeze) may change this."""
    if not named:
        return name in learning or name not in parameters
    first = name.partition(".")[0]
    if {first, live.group_of(name)} & set(named):
        return True
    own = set(live.classifier.groups())  # a buffer of a classifier of which a part learns
    return first == "classifier" and name not in parameters and bool(own & set(named))


def _state(detector: Detector) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in detector.state_dict().items()}


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is None and b is None if a is None or b is None else torch.equal(a, b)
