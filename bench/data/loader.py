"""Batches as a pure function of their address. Separate from augment.py: which images and when, not what is done.

Batch t of a training cuts the concatenated epochs of the sampler; every draw comes from a generator made for its
address (bench.seeds), so a resumed run sees the batches an undisturbed one sees. At test time images are grouped by
padded size and cut by index, so an image is always padded the same: a taller batch-mate would change its features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data import augment
from bench.data.ahead import Halt, made_ahead
from bench.data.augment import Draw
from bench.data.split import Split
from bench.data.views import AS_THE_FILE, View, Window, placed
from bench.detection.boxes import carry
from bench.detection.contract import Batch
from bench.errors import UserError
from bench.seeds import generator
from bench.spec import Input

A = TypeVar("A")
_Shown = tuple[View, np.random.Generator]


class Sampler(Protocol):
    """Which images an epoch shows, in which order.

    One that changes in the course of the training has `lasts(epochs)` too, which says once how long that is: in epochs
    of the schedule, or, where it is in steps, in passes over the list of images.
    """

    def epoch(self, e: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Positions in the split, of any length and with any repeats."""
        ...


@dataclass(frozen=True)
class Workers:
    """Threads that make batches before they are needed.

    Attributes:
        count: how many; 0: a batch is made when it is needed, in the caller's thread.
        pinned: batches lie in page-locked memory, from which a GPU copies while the CPU goes on.
    """

    count: int = 0
    pinned: bool = False


@dataclass(frozen=True, eq=False)
class _Ready:
    """One image, resized but not yet placed in the batch."""

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    how: Draw
    window: Window | None = None  # of another view


class Loader:
    """Training batches.

    Args:
        split: what is trained on.
        settings: the input section.
        sampler: order of the images.
        batch: images of a batch.
        seed: of the stage.
        phase: length of the stage's init chain.
        share: positions of each batch (from, up to) that are made; None: all. Where several processes train, each makes
            its own, padded and augmented as in the whole batch.
        workers: threads that make what `batches` yields; the batches do not depend on them.
        views: how views 1, 2, ... are made; those beyond, and view 0, are augmented as `settings` say.
    """

    def __init__(
        self,
        split: Split,
        settings: Input,
        *,
        sampler: Sampler,
        batch: int,
        seed: int,
        phase: int,
        share: tuple[int, int] | None = None,
        workers: Workers = Workers(),
        views: Sequence[View] = (),
    ) -> None:
        self.split, self.settings, self.sampler, self.views = split, settings, sampler, tuple(views)
        self.batch_size, self.seed, self.phase = batch, seed, phase
        self.share, self.workers = share or (0, batch), workers
        self._epochs: list[NDArray[np.int64]] = []
        self._ends: list[int] = []  # positions in the concatenated epochs at which each epoch ends

    def batch(self, t: int, view: int = 0) -> Batch:
        """Our share of batch t, a function of (split, settings, sampler, batch size, seed, phase, t) and nothing else.
        Another `view` shows the same images, augmented by draws of its own.

        Raises:
            UserError: an image that cannot be decoded, or a sampler without images.
        """
        return self._make(t, self.indices(t), Halt(), view)

    def batches(self, steps: Iterable[int], view: int = 0) -> AbstractContextManager[Iterator[Batch]]:
        """`batch` of each of these steps, made ahead. The sampler runs in the caller's thread."""
        addresses = ((t, self.indices(t)) for t in steps)
        return _ahead(lambda address, halt: self._make(*address, halt, view), addresses, self.workers)

    def indices(self, t: int) -> list[int]:
        """Positions in the split of the images of batch t."""
        start, stop = t * self.batch_size, (t + 1) * self.batch_size
        while not self._ends or self._ends[-1] < stop:
            self._extend()
        found: list[int] = []
        e = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            begin = self._ends[e] - len(self._epochs[e])
            cut = self._epochs[e][start - begin : stop - begin]
            found += cut.tolist()
            start, e = start + len(cut), e + 1
        return found

    def epoch_length(self, e: int) -> int:
        """Images of epoch e (a stochastic sampler's differ)."""
        while len(self._epochs) <= e:
            self._extend()
        return len(self._epochs[e])

    def _extend(self) -> None:
        e = len(self._epochs)
        order = np.asarray(self.sampler.epoch(e, generator(self.seed, "order", self.phase, e)), np.int64)
        if order.size == 0:
            raise UserError(f"the sampler shows no image in epoch {e}", hint="the data part may have left none")
        self._epochs.append(order)
        self._ends.append(order.size + (self._ends[-1] if self._ends else 0))

    def _make(self, t: int, indices: list[int], halt: Halt, view: int = 0) -> Batch:
        role = f"augment/{view}" if view else "augment"
        draws = [
            augment.draw(self.settings, generator(self.seed, role, self.phase, t, p)) for p in range(self.batch_size)
        ]
        first, last = self.share
        part = slice(first, last)
        shown: list[_Shown] | None = None
        if 0 < view <= len(self.views):
            rngs = [generator(self.seed, f"view/{view}", self.phase, t, p) for p in range(first, last)]
            shown = [(self.views[view - 1], rng) for rng in rngs]
        # The padding is that of the whole batch: anchors lie on its grid, and are drawn by their number.
        sizes = [_resized(self.split, self.settings, pair) for pair in zip(indices, draws, strict=True)]
        return _assemble(
            self.split, self.settings, indices[part], draws[part], halt, frame=_largest(sizes), shown=shown
        )  # fmt: skip


def eval_batches(split: Split, settings: Input, batch: int) -> list[list[int]]:
    """Positions of the images of each test batch: one padded size to a batch, cut in index order."""
    buckets: dict[tuple[int, int], list[int]] = {}
    for i, image in enumerate(split.images):
        size = augment.resized_size(image.height, image.width, settings)
        buckets.setdefault(augment.padded_size(*size, settings), []).append(i)
    return [b[s : s + batch] for _, b in sorted(buckets.items()) for s in range(0, len(b), batch)]


def eval_batch(split: Split, settings: Input, indices: Sequence[int]) -> Batch:
    """These images without augmentation.

    Raises:
        UserError: an image that cannot be decoded.
    """
    return _as_they_are(split, settings, indices, Halt())


def eval_pass(
    split: Split, settings: Input, cuts: Iterable[Sequence[int]], workers: Workers
) -> AbstractContextManager[Iterator[Batch]]:
    """`eval_batch` of each of these cuts (of `eval_batches`), made ahead."""
    return _ahead(lambda indices, halt: _as_they_are(split, settings, indices, halt), cuts, workers)


def _as_they_are(split: Split, settings: Input, indices: Sequence[int], halt: Halt) -> Batch:
    return _assemble(split, settings, indices, [Draw()] * len(indices), halt)


def _ahead(
    make: Callable[[A, Halt], Batch], wanted: Iterable[A], workers: Workers
) -> AbstractContextManager[Iterator[Batch]]:
    if not (workers.pinned and workers.count):
        return made_ahead(make, wanted, workers.count)
    # A thread begins on the first GPU, whichever its process trains on, and pinning takes memory of the current one.
    device = torch.cuda.current_device()
    return made_ahead(
        lambda one, halt: make(one, halt).pinned(), wanted, workers.count, lambda: torch.cuda.set_device(device)
    )


def _assemble(
    split: Split,
    settings: Input,
    indices: Sequence[int],
    draws: Sequence[Draw],
    halt: Halt,
    *,
    frame: tuple[int, int] | None = None,
    shown: Sequence[_Shown] | None = None,
) -> Batch:
    """These images, padded to hold `frame` (height, width); None: the largest of them. `shown`: each as a view."""

    def prepare(index: int, how: Draw, view: _Shown | None) -> _Ready:
        halt.check()
        size = _resized(split, settings, (index, how))
        if view is None:
            return _Ready(augment.resize(split.pixels(index), size), size, how)
        pixels, window = view[0](split.pixels(index), size, view[1])
        return _Ready(pixels, size, how, window)

    views: Sequence[_Shown | None] = [None] * len(indices) if shown is None else shown
    ready = [prepare(*one) for one in zip(indices, draws, views, strict=True)]
    height, width = augment.padded_size(*(frame or _largest([r.size for r in ready])), settings)
    images = _images(ready, settings, height, width)
    batch = Batch(images, [r.size for r in ready], [], [], [], [], list(indices), [], [])
    for k, (i, r) in enumerate(zip(indices, ready, strict=True)):
        original = (split.images[i].height, split.images[i].width)
        scale = (r.size[0] / original[0], r.size[1] / original[1])
        where = placed(r.window or (0.0, 0.0, original[1], original[0]), r.size, r.how.flip)
        if shown is None:
            boxes = augment.transform_boxes(split.boxes[i], scale, r.size[1], r.how.flip)
            solid = np.ones(len(boxes), np.bool_)
        else:
            cut, left = carry(torch.from_numpy(split.boxes[i]).double(), AS_THE_FILE, where, r.size)
            boxes, solid = cut.float().numpy(), (left >= shown[k][0].visible).numpy()
        solid &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # a box without area is no target
        batch.boxes.append(torch.from_numpy(boxes[solid]))
        batch.labels.append(torch.from_numpy(split.labels[i][solid]))
        batch.ignore.append(torch.from_numpy(split.ignore[i][solid]))
        batch.negative.append(torch.from_numpy(split.negative(i)))
        batch.scale.append(scale)
        batch.placed.append(where)
        batch.original_sizes.append(original)
    return batch


def _resized(split: Split, settings: Input, pair: tuple[int, Draw]) -> tuple[int, int]:
    image = split.images[pair[0]]
    return augment.resized_size(image.height, image.width, settings, pair[1].jitter)


def _largest(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def _images(ready: Sequence[_Ready], settings: Input, height: int, width: int) -> Tensor:
    """B x 3 x H x W float32: (value / 255 - mean) / std; the padding is zero after normalisation."""
    same = all(r.size == (height, width) for r in ready)
    stacked = (np.empty if same else np.zeros)((len(ready), 3, height, width), np.uint8)
    for out, r in zip(stacked, ready, strict=True):
        augment.paste(out, r.pixels, r.how)
    mean = torch.tensor(settings.mean).view(1, 3, 1, 1)
    std = torch.tensor(settings.std).view(1, 3, 1, 1)
    images = torch.from_numpy(stacked).to(torch.float32)
    images.mul_(1 / (255 * std)).sub_(mean / std)
    if not same:
        for image, r in zip(images, ready, strict=True):
            image[:, r.size[0] :, :] = 0
            image[:, :, r.size[1] :] = 0
    return images
