"""What the figures of a suite had measured or kept of a row's models: probes, attention maps, reconstructions. Separate
from load.py, which reads results.

Shape legend: C foreground classes, H x W pixels or cells, G boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as read_tensors

from bench.errors import UserError
from bench.lineage import model_chain
from bench.stage import KINDS, Stage
from bench.store.store import Store

EXAMPLES = "examples.safetensors"  # named by bench/run/learner.py, which imports torch

Floats = NDArray[np.floating[Any]]
_Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Probe:
    """What a linear probe tells right after one training of a row.

    Attributes:
        number: of the training in the row's chain, the first is 1.
        last: whether it is the last of which there is a probe.
        right: for each of the C classes the share of its boxes that the probe tells right; None without a box.
        eigenvalues: of the covariance of the features it was fitted to, falling.
    """

    number: int
    last: bool
    right: tuple[float | None, ...]
    eigenvalues: tuple[float, ...] = ()


@dataclass(frozen=True)
class Attended:
    """Where the last map of a model is large on one image.

    Attributes:
        pixels: height x width x 3, 0 to 1.
        map: H x W, not negative, of the whole image.
        boxes: G x 4 of the image's rarest class, x1 y1 x2 y2 as fractions of its width and height.
        label: that class, 0..C-1.
        image: position in val.
    """

    pixels: Floats
    map: Floats
    boxes: Floats
    label: int
    image: int


@dataclass(frozen=True)
class Attention:
    """The maps after one training of a row (`number`, `last`: see Probe), of the images with the rarest classes."""

    number: int
    last: bool
    images: tuple[Attended, ...]


@dataclass(frozen=True)
class Painted:
    """One image of a pre-training's last step at half resolution and what its decoder paints of it, both with all of
    the image shown and with a part of it masked.

    Attributes:
        number: of the training in the row's chain.
        view, view_painted, masked, masked_painted: height x width x 3, about 0 to 1.
        scale: 3, what a difference in 0 to 1 is divided by to be one of normalised pixels, as in the loss.
    """

    number: int
    view: Floats
    view_painted: Floats
    masked: Floats
    masked_painted: Floats
    scale: Floats


@dataclass(frozen=True)
class Looks:
    """All that figures had kept of one row and seed; the first training first."""

    probes: tuple[Probe, ...] = ()
    attention: tuple[Attention, ...] = ()
    painted: tuple[Painted, ...] = ()


NO_LOOKS = Looks()


def looks(store: Store, planned: Mapping[str, Stage], model: Stage, *, examples: bool = False) -> Looks:
    """Those of a row that are done.

    Args:
        store: reads only.
        planned: the row's fit stages by name (bench.plan.looks.wanted).
        model: the row's model.
        examples: whether what trainings kept is read, too.
    """
    probes = [
        Probe(number, last, _shares(found), tuple(found["eigenvalues_D"].tolist()))
        for number, last, found, _ in _fits(store, planned, "linear_probe")
    ]
    attention = [
        Attention(number, last, tuple(_attended(found, stage)))
        for number, last, found, stage in _fits(store, planned, "attention")
    ]
    painted = list(_painted(store, model)) if examples else []
    return Looks(tuple(probes), tuple(attention), tuple(painted))


def _fits(store: Store, planned: Mapping[str, Stage], kind: str) -> Iterator[tuple[int, bool, _Tensors, Stage]]:
    """(number of the training, whether it is the last, what was kept, the fit stage) of those that are done."""
    numbers = sorted(int(name.partition("/")[2]) for name in planned if name.partition("/")[0] == kind)
    for number in numbers:
        stage = planned[f"{kind}/{number}"]
        found = _read(store, stage, str(KINDS["fit"].hands))
        if found is not None:
            yield number, number == numbers[-1], found, stage


def _read(store: Store, stage: Stage, file: str) -> _Tensors | None:
    """The tensors of a stage's output; None where the stage is not done, or has no such file, or another content."""
    done = store.done(stage.key)
    if done is None or file not in done.digests:
        return None
    try:
        return read_tensors(store.read(stage.key, file))
    except UserError:
        return None


def _shares(found: _Tensors) -> tuple[float | None, ...]:
    pairs = zip(found["hits_C"].tolist(), found["seen_C"].tolist(), strict=True)
    return tuple(hit / seen if seen else None for hit, seen in pairs)


def _attended(found: _Tensors, stage: Stage) -> Iterator[Attended]:
    scale, mean = _colours(stage)
    for k in range(sum(name.endswith("/image") for name in found)):
        yield Attended(
            _image(found[f"{k}/pixels"], scale, mean), found[f"{k}/map"], found[f"{k}/boxes"],
            int(found[f"{k}/class"]), int(found[f"{k}/image"]),
        )  # fmt: skip


def _painted(store: Store, model: Stage) -> Iterator[Painted]:
    trainings = [stage for stage in model_chain(model) if stage.kind == "train"]
    for number, stage in enumerate(trainings, 1):
        found = _read(store, stage, EXAMPLES)
        if found is None or "masked_painted" not in found:
            continue
        scale, mean = _colours(stage)
        for k, (height, width) in enumerate(found["sizes_N2"].tolist()):
            pictures = {
                name: _image(found[name][k, :, :height, :width], scale, mean)
                for name in ("view", "view_painted", "masked", "masked_painted")
            }
            yield Painted(number, scale=scale, **pictures)


def _colours(stage: Stage) -> tuple[Floats, Floats]:
    """(std, mean) of the pixels that a stage reads."""
    section = stage.spec["input"]
    return np.asarray(section["std"], np.float64), np.asarray(section["mean"], np.float64)


def _image(pixels_3HW: NDArray[Any], scale: Floats, mean: Floats) -> Floats:
    return np.moveaxis(np.asarray(pixels_3HW, np.float64), 0, -1) * scale + mean
