"""Checks of what an engine's detector does: its steps in training, its predictions. Separate from engine.py, which has
the list of checks and those of what the engine says of itself.

Shape legend: B images, N rows of the batch, Q rows of an image, D features, C foreground classes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bench.contract_check.built import (
    NEAR,
    OBJECTS,
    C,
    EngineSubject,
    below,
    close,
    different,
    relabelled,
    state_of,
    total,
)
from bench.contract_check.subject import Broken, DoesNotApply
from bench.detection.contract import TAPS, Batch, PredictOutput, Taps

EDGE = 1e-3  # pixels that rounding may put a clipped box outside its image


def learns_everywhere(subject: EngineSubject) -> str | None:
    """Losses are finite and reach every parameter; also without true boxes, and with none but boxes to ignore."""
    model = subject.detector()
    model.set_mode(())
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not learning:
        raise Broken("`set_mode(())` lets no parameter learn", "none named means all that the section does not freeze")
    for case, batch, hits in _cases(subject):
        for parameter in learning.values():
            parameter.grad = None
        out, losses = subject.step(model, batch)
        _check_losses(case, losses)
        uncounted = sorted(set(out.losses) - set(out.counts))
        if uncounted:
            raise Broken(f"loss '{uncounted[0]}' has no count", "`TrainOutput.counts`: by what each was divided")
        if not hits and bool((out.targets.labels_N < C).any()):
            raise Broken(f"{case} gives a foreground target", "boxes marked `ignore` are left out of every loss")
        loss = total(losses)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        for name, parameter in learning.items():
            if hits and parameter.grad is None:
                raise Broken(
                    f"{case} gives {name} no gradient",
                    "a parameter that no loss reaches stays as it was drawn: use its output in a loss, or leave it out",
                )
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
                raise Broken(f"{case} gives {name} a gradient that is not finite", _FINITE)
    return None


def _cases(subject: EngineSubject) -> Iterator[tuple[str, Batch, bool]]:
    """What a batch is called, the batch, and whether it has something to find."""
    yield "a batch", subject.batch(), True
    yield "an image without boxes", subject.batch((OBJECTS, 0)), True
    yield "a batch without boxes", subject.batch((0, 0)), False
    if "ignore" in subject.facts.provides:
        yield "an image of boxes to ignore", subject.batch(ignore=(False, True)), True
        yield "a batch of boxes to ignore", subject.batch(ignore=(True, True)), False


_FINITE = "divide by max(count, 1); clamp before a logarithm, a root or a division, not after it"


def _check_losses(case: str, losses: Mapping[str, Tensor]) -> None:
    for name, value in losses.items():
        if value.numel() != 1 or not bool(torch.isfinite(value).all()):
            raise Broken(f"loss '{name}' of {case} is {value.detach().tolist()}", _FINITE)


def draws_by_address(subject: EngineSubject) -> str | None:
    """A training step is a function of weights and address; a prediction draws nothing."""
    model, batch = subject.detector(), subject.batch()
    model.set_mode(())
    before, found = state_of(model), []
    with torch.random.fork_rng(devices=[]):
        for stream in (1, 2):
            torch.manual_seed(stream)
            model.load_state_dict(before)
            out, losses = subject.step(model, batch, number=3)
            found.append({**_values(out.taps), **losses, "labels": out.targets.labels_N})
        moved = different(found[0], found[1])
        if moved:
            raise Broken(f"the same step twice gives other {moved[0]}", _DRAWS)
        model.eval()
        shown = []
        for stream in (1, 2):
            torch.manual_seed(stream)
            shown.append(_predicted(model.predict_forward(batch)))
        moved = different(shown[0], shown[1])
        if moved:
            raise Broken(f"predicted twice, the images have other {moved[0]}", _DRAWS)
    return None


_DRAWS = (
    "in training draw from `draws.generator(role, image)`, or from torch's global stream, which the step seeds; in "
    "prediction not at all. Other generators and counters are in no checkpoint"
)


def freezes_what_is_not_named(subject: EngineSubject) -> str | None:
    """Where one group is trained, only its parameters learn, and buffers of the others keep their bits."""
    batch, whole = subject.batch(), subject.detector()
    whole.set_mode(())
    free = {name for name, p in whole.named_parameters() if p.requires_grad}
    for group in subject.facts.groups:
        model = subject.detector()
        model.set_mode((group,))
        wanted = {name for name in free if model.group_of(name) == group}
        learning = {name for name, p in model.named_parameters() if p.requires_grad}
        if learning != wanted:
            name = sorted(learning ^ wanted)[0]
            what = "learns" if name in learning else "does not learn"
            raise Broken(f"where '{group}' is trained, {name} {what}", "`set_mode` sets requires_grad by `group_of`")
        before = state_of(model)
        subject.step(model, batch, (group,))
        for name in different(before, model.state_dict()):
            if model.group_of(name) != group:
                raise Broken(
                    f"where '{group}' is trained, a forward pass moves {name}",
                    "`set_mode` puts what is not trained in eval mode: batch norm would go on counting",
                )
    return None


def ignores_the_names_of_classes(subject: EngineSubject) -> str | None:
    """Classes called otherwise give the same losses, and their scores under the new names."""
    if subject.facts.proposals(subject.section, C)[1] != 1:
        raise DoesNotApply("box regression is per class, so that its weights have an order of classes too")
    new_C, batch = (torch.arange(C) + 1) % C, subject.batch((C, OBJECTS))
    one, other = subject.detector(), subject.detector()
    state, renamed = state_of(one), {}
    for name, value in state.items():
        if not below(name) and value.dim() and len(value) in (C, C + 1):  # a background comes last
            renamed[name] = value.clone()
            renamed[name][new_C] = value[:C]
    if not renamed:
        raise DoesNotApply("no tensor of the default classifier has a row for each class")
    other.load_state_dict({**state, **renamed})
    _, losses = subject.step(one, batch)
    moved = different(losses, subject.step(other, relabelled(batch, new_C))[1], near=NEAR)
    if moved:
        raise Broken(f"classes called otherwise give another {moved[0]}", _NAMES)
    scores = []
    for model in (one, other):
        model.load_state_dict({**state, **(renamed if model is other else {})})
        model.eval()
        with torch.no_grad():
            scores.append(model.classifier.scores(model.classifier(model.predict_forward(batch).taps))[0])
    if not close(scores[0], scores[1][:, new_C]):
        raise Broken("classes called otherwise have other scores", _NAMES)
    return None


_NAMES = "labels are 0..C-1, the background is C; no class is special (not 0 either), and none is read from an order"


# -- prediction


def sees_each_image_alone(subject: EngineSubject) -> str | None:
    """What is predicted for an image does not depend on the other images of its batch."""
    model = subject.detector()
    model.eval()
    full, mates = subject.batch((OBJECTS, OBJECTS), small=False), subject.batch(seed=1)
    other = replace(mates, images=torch.cat((full.images[:1], mates.images[1:])))
    one, two = (_of_image(model.predict_forward(batch), 0) for batch in (full, other))
    moved = different(one, two, near=NEAR)
    if moved:
        raise Broken(
            f"beside another image, an image has other {moved[0]}",
            "no statistics over the batch in eval mode, and padding is not looked at (`Batch.sizes`)",
        )
    return None


def predicts_boxes_of_images(subject: EngineSubject) -> str | None:
    """Boxes are finite and inside their image, rows are in the order of images and as wide as the facts say."""
    model, batch, one = subject.detector(), subject.batch(), subject.facts
    model.eval()
    out = model.predict_forward(batch)
    N, (most, refined) = len(out.image_N), one.proposals(subject.section, C)
    if out.image_N.dtype != torch.int64 or bool((out.image_N[1:] < out.image_N[:-1]).any()):
        raise Broken("`image_N` is not int64 in rising order", "proposals come image by image")
    if N and (int(out.image_N.min()) < 0 or int(out.image_N.max()) >= len(batch.sizes)):
        raise Broken("`image_N` names an image that there is not", "0 to B - 1")
    if N and int(out.image_N.bincount().max()) > most:
        raise Broken(f"an image has {int(out.image_N.bincount().max())} proposals, the facts say {most}", _PROPOSALS)
    shapes = [(N, 4)] if refined == 1 else [(N, refined, 4)]
    if tuple(out.boxes.shape) not in shapes or tuple(out.proposals_N4.shape) != (N, 4):
        raise Broken(f"`boxes` have shape {tuple(out.boxes.shape)}, not {shapes[0]}", _PROPOSALS)
    D = one.head_widths(subject.section)[0]
    if tuple(out.taps.box_features.shape) != (N, D):
        raise Broken(f"`box_features` have shape {tuple(out.taps.box_features.shape)}, not {(N, D)}", _PROPOSALS)
    for name, boxes in (("boxes", out.boxes), ("proposals", out.proposals_N4)):
        if not bool(torch.isfinite(boxes).all()):
            raise Broken(f"{name} are not finite", "clamp what goes into an exponential")
    limit_N4 = torch.tensor([[w, h, w, h] for h, w in batch.sizes])[out.image_N]
    limit = limit_N4 if refined == 1 else limit_N4[:, None]
    if bool((out.boxes < -EDGE).any()) or bool((out.boxes > limit + EDGE).any()):
        raise Broken("a box leaves its image", "bench.detection.boxes.clip, with `Batch.sizes` and not the padded size")
    return None


_PROPOSALS = (
    "`proposals` and `head_widths` of the facts say what planning counts with; `PredictOutput` is what there is"
)


def reads_given_boxes(subject: EngineSubject) -> str | None:
    """Taps of given boxes come in their order, one row for each box, none for none."""
    model, batch, provides = subject.detector(), subject.batch(), subject.facts.provides
    model.eval()
    wanted = tuple(tap for tap in TAPS if tap in provides)

    def matched(boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Taps:
        return model.matched_taps(batch, boxes, labels, taps=wanted)

    def shown(boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Taps:
        return model.box_taps(batch, boxes, taps=wanted)

    readers = {"matched_taps": matched} | ({"box_taps": shown} if "box_taps" in provides else {})
    for name, read in readers.items():
        with torch.no_grad():
            taps = read(batch.boxes, batch.labels)
            _check_rows(name, taps, wanted, 2 * OBJECTS)
            back = read([of.flip(0) for of in batch.boxes], [of.flip(0) for of in batch.labels])
            in_order = taps.each(lambda value: torch.cat([of.flip(0) for of in torch.split(value, OBJECTS)]))
            if different(_values(in_order), _values(back), near=NEAR):
                raise Broken(f"`{name}` of boxes in another order are other taps", _ORDER)
            none = [of[:0] for of in batch.boxes], [of[:0] for of in batch.labels]
            _check_rows(f"{name} of no box", read(*none), wanted, 0)
            some = [batch.boxes[0], none[0][1]], [batch.labels[0], none[1][1]]
            _check_rows(f"{name} of one image's boxes", read(*some), wanted, OBJECTS)
    return None if "box_taps" in provides else "it has no `box_taps`: of `matched_taps` alone"


_ORDER = "row n is of box n, image by image; a box's taps depend on no other box"


def _check_rows(name: str, taps: Taps, wanted: Collection[str], rows: int) -> None:
    for tap in wanted:
        value = getattr(taps, tap)
        if value is None or len(value) != rows:
            raise Broken(f"`{name}` gives {'no' if value is None else len(value)} rows of {tap}, not {rows}", _ORDER)


def _values(taps: Taps) -> dict[str, Tensor]:
    return {name: value for name in (*TAPS, "head_N") if (value := getattr(taps, name)) is not None}


def _predicted(out: PredictOutput) -> dict[str, Tensor]:
    return {"boxes": out.boxes, "proposals": out.proposals_N4, "images": out.image_N, **_values(out.taps)}


def _of_image(out: PredictOutput, image: int) -> dict[str, Tensor]:
    return {name: value[out.image_N == image] for name, value in _predicted(out).items()}
