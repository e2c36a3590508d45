"""The `train` stage: what is trained, from what. One file for a whole detector and for K classifiers over one frozen
trunk (fusing).

Separate from loop.py, which says how a training goes on. Batch t, its augmentation and its samples are functions of
their address alone, so a resumed stage equals an undisturbed one, and a fused stage equals the stage alone. Several
processes may share each batch (distributed.py).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import nn

from bench import spec as specs
from bench.data.folder import image_root_of
from bench.data.loader import Loader
from bench.data.split import Split, open_split
from bench.detection.contract import Classifier, Detector, HeadSpec
from bench.detection.losses import ExtraLoss
from bench.engines.contract import CLASSIFIER
from bench.engines.facts import facts, only_classifier
from bench.errors import StageError, UserError, unknown
from bench.key import resolve
from bench.lineage import rest_of
from bench.run import distributed, loop
from bench.run.data import counted
from bench.run.learner import Learner, begin, save, write
from bench.run.loading import workers_of
from bench.run.model import (
    fitted,
    head_spec,
    load_model,
    make_classifier,
    models_named,
    new_detector,
    state_of,
)
from bench.run.optimiser import Optimiser
from bench.run.step import frozen as frozen_model
from bench.run.work import Stopped, Work, device_of
from bench.run.world import World, refuse_shares
from bench.seeds import address
from bench.stage import TrainSpec, spec_of


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
        works[0].observe(detector, {name: model for one in learners for name, model in one.teachers.items()})
    _check_same_work(world, {one.work.key: (one.total, one.end) for one in learners})
    for learner in learners:
        begin(learner, world)
    try:
        frozen = only_classifier(spec_of(works[0].stage, TrainSpec)["trainable"], _groups(works[0]))
        with contextlib.ExitStack() as open_:
            views = max((loss.views for one in learners for loss in one.losses), default=0)
            made = [open_.enter_context(loader.batches(loop.steps(learners), view)) for view in range(1 + views)]
            loop.train(
                works[0], detector, learners, loader, zip(*made, strict=True), device, frozen=frozen,
                scope=_scope(works[0]),
            )  # fmt: skip
    except Stopped:
        for learner in learners:
            if learner.error is None:
                save(learner)
        raise
    for learner in learners:
        if learner.error is None:
            distributed.check_equal(learner.saved | learner.carried, world, f"stage {learner.work.key[:6]}")
            write(learner, counts, loop.examples(learner, detector, loader, device))
        errors[learner.work.key] = learner.error
    world.exchange()  # an error of the first process while writing is raised in all
    return [errors[work.key] for work in works]


def loader_steps(loader: Loader, schedule: specs.Schedule, epochs: int | None = None) -> int:
    """Steps of the first `epochs` of a schedule (None: of all) in epochs of the stage's own sampler (an RFS epoch is
    longer than the list of images)."""
    epochs = schedule.epochs if epochs is None else epochs
    assert epochs is not None
    return math.ceil(sum(loader.epoch_length(e) for e in range(epochs)) / schedule.batch)


def _check_same_work(world: World, facts: Mapping[str, Any]) -> None:
    """Raise unless all processes have the same facts (another library version could read a spec differently)."""
    if any(other != facts for other in world.exchange(facts)):
        raise StageError(f"the {world.size} processes of the job disagree on what to train", where=", ".join(facts))


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
        _learner(
            work, detector, classifier.to(device), trunk_fresh + fresh, loader, _losses(work, detector, head, device)
        )
        for work, classifier, fresh in classifiers
    ]
    modules = [cast(nn.Module, detector), *(one.classifier for one in learners)]
    distributed.refuse_live_norm([*modules, *(loss for one in learners for loss in one.losses)], lead.world)
    return detector, learners, errors


@dataclass(frozen=True)
class _Beside:
    """The losses beside the classifier's, the models that they got, by input name, and what goes on through training
    in them, by name."""

    losses: tuple[ExtraLoss, ...] = ()
    teachers: Mapping[str, Detector] = field(default_factory=dict)
    carried: Mapping[str, torch.Tensor] = field(default_factory=dict)


def _losses(work: Work, student: Detector, head: HeadSpec, device: str) -> _Beside:
    """Made with initial weights that depend on the seed alone; what they hold of finished models and of the student is
    not theirs."""
    spec = spec_of(work.stage, TrainSpec)
    parts = spec.get("losses", [])
    made: list[ExtraLoss] = []
    teachers: dict[str, Detector] = {}
    loud: set[str] = set()  # teachers that a loss wants in train mode
    not_theirs = {id(tensor) for tensor in _tensors(student).values()}
    for i, part in enumerate(parts):
        models = models_named(work.store, work.stage, part, teachers)
        teachers |= {name: frozen_model(model, device) for name, model in models.items()}
        kind, settings = resolve(part, fitted(work.store, work.stage) | models)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(address(spec["seed"], f"loss_init/{i}"))
            loss: ExtraLoss = kind(head, **settings)
            loss.begin(student)
        loss.to(device).train()
        loud |= set(models) if loss.teacher_train_mode else set()
        made.append(loss)
    for name, model in teachers.items():  # a loss that keeps one as a module has changed its mode
        frozen_model(model, device, train_mode=name in loud)
        not_theirs |= {id(tensor) for tensor in _tensors(model).values()}
    named = {f"loss/{i}.{name}": t for i, one in enumerate(made) for name, t in one.state_dict(keep_vars=True).items()}
    return _Beside(tuple(made), teachers, {name: t for name, t in named.items() if id(t) not in not_theirs})


def _tensors(detector: Detector) -> dict[str, torch.Tensor]:
    return nn.Module.state_dict(cast(nn.Module, detector), keep_vars=True)


def _learner(
    work: Work, detector: Detector, classifier: Classifier, fresh: list[str], loader: Loader, beside: _Beside
) -> Learner:
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
    saved = _saved(work, detector, classifier, learns)
    learning = {
        n: t for n, t in (saved | dict(beside.carried)).items() if isinstance(t, nn.Parameter) and t.requires_grad
    }
    schedule = _schedule(work)

    def group_of(name: str) -> str:
        if name in beside.carried:
            return specs.LOSSES
        group = detector.group_of(name)  # or one that the classifier makes of its own parameters
        return group if group in _groups(work) else CLASSIFIER

    total = schedule.steps or loader_steps(loader, schedule)
    return Learner(
        work, schedule, total, _end(work, schedule, total, loader), classifier, saved, list(learning.values()),
        Optimiser(learning, schedule, group_of), fresh, beside.losses, beside.teachers, dict(beside.carried),
    )  # fmt: skip


def _saved(work: Work, detector: Detector, classifier: Classifier, learns: bool) -> dict[str, torch.Tensor]:
    """What the stage stores, in the model's order, in which the gradient's norm is summed: what it trains, and all that
    no stage before it holds."""
    trainable = tuple(spec_of(work.stage, TrainSpec)["trainable"])
    # A stage that trains any of its classifier stores all of it: one group's weights alone are no whole classifier.
    own = {f"classifier.{n}": t for n, t in classifier.state_dict(keep_vars=True).items()}
    alone = rest_of(work.stage) is None
    if only_classifier(trainable, _groups(work)):
        return {n: t for n, t in _tensors(detector).items() if alone and n.partition(".")[0] != CLASSIFIER} | own
    state = _tensors(detector)
    kept = {n: t for n, t in state.items() if alone or n in own or detector.group_of(n) in trainable}
    return {n: t for n, t in kept.items() if alone or learns or not n.startswith("classifier.")}


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
    init, spec = work.stage.inputs.get("init"), spec_of(work.stage, TrainSpec)
    start = work.stage.inputs.get("start")
    if start is not None:
        _take(detector, state_of(work.store, start), spec["start"])
    if init is None:
        return list(detector.fresh) if spec["weights"] is not None else []
    own, take = detector.state_dict(), spec.get("take")
    below = [name for name in own if not name.startswith("classifier.")]
    taken = [name for name in below if take is None or detector.group_of(name) in take]
    state = state_of(work.store, init)
    detector.load_state_dict(own | {name: state[name] for name in taken})
    return [name for name in below if name not in taken and name in detector.fresh]


def _take(detector: Detector, state: Mapping[str, torch.Tensor], groups: Sequence[str]) -> None:
    """These groups from the state of a model of any engine.

    Raises:
        UserError: a tensor that the other model does not have in this shape.
    """
    own = detector.state_dict()
    names = [name for name in own if detector.group_of(name) in groups]
    for name in names:
        if name not in state or state[name].shape != own[name].shape:
            raise UserError(
                f"the model to start from has no '{name}' of shape {tuple(own[name].shape)}", where="detector.start",
                hint="both need the same trunk and widths",
            )  # fmt: skip
    detector.load_state_dict(own | {name: state[name] for name in names})


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
    lasts = getattr(sampler, "lasts", None)
    if lasts is not None:
        lasts(spec["schedule"]["epochs"] or spec["schedule"]["steps"] * batch / len(split))
    views = [view(**own) for view, own in (resolve(part, {}) for part in spec.get("views", []))]
    share = work.world.share(batch)
    return Loader(
        split, section, sampler=sampler, batch=batch, seed=seed, phase=phase, share=share, workers=workers, views=views
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
