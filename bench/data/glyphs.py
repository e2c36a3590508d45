"""The embedded data set: symbols on cluttered ground with LVIS-like class counts, exact to the seed.

Separate from the drawing (glyph_render.py) and the choice of symbols (glyph_vocabulary.py): here it is decided how many
instances each class has and which image shows them. Image i is drawn from its own addressed generator, so that any
number of processes writes the same bytes. Design and measurements: prototype.md.

Instances: LVIS v0.5's shares of the bins 1-9 / 10-99 / 100-999 / 1000+ (293, 454, 302, 181 of 1,230 classes),
log-linear between the edges. Val is flat: the same number of each class, so that AP is estimated
equally well in every bin.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle
from numpy.typing import NDArray

from bench.data.formats import SplitName
from bench.data.glyph_render import Drawn, Renderer
from bench.data.glyph_vocabulary import class_name, vocabulary
from bench.data.split import ANNOTATIONS, PIXELS, write_json
from bench.errors import UserError
from bench.frequency import ClassStatistics, lvis_frequency
from bench.seeds import generator
from bench.spec import GlyphsData
from bench.store.disk import disk_errors

VERSION = 1  # of the images, in the key of their data stage; raise it when an image may change

OnProgress = Callable[[int, int], None]
Annotation = dict[str, Any]

# Cumulative shares of LVIS v0.5's classes at the edges 1, 10, 100, 1000 and the maximum (dataset_facts of LVIS v0.5).
_SHARES = (0.0, 0.239, 0.608, 0.853, 1.0)
_EDGES = (1, 10, 100, 1000)
_RUN = 0.175  # share of draws after which the next 1-3 instances of the class lie in the same image
_CHUNK = 16  # images that a process draws at a time


@dataclass(frozen=True)
class _Job:
    """What a drawing process needs."""

    spec: GlyphsData
    seed: int
    split: SplitName
    pixels: Path
    deal: tuple[tuple[int, ...], ...]


def make_split(
    spec: GlyphsData, seed: int, split: SplitName, out: Path, *, processes: int = 1, progress: OnProgress | None = None
) -> None:
    """Write annotations.json and pixels.npy (uint8 I x S x S x 3) into the folder `out`.

    Args:
        spec: the data section.
        seed: of the data; counts and images follow it, the choice of symbols does not.
        processes: drawing processes; the bytes do not depend on it. 1 draws here.
        progress: called with (images drawn, images in all).

    Raises:
        UserError: no vocabulary of this size and similarity; symbols that do not fit.
    """
    words = vocabulary(spec.classes, spec.similarity)
    Renderer(words, spec.size, spec.object_px)  # refuses symbols that do not fit before any file is made
    train = deal(instance_counts(spec, seed), spec.objects, generator(seed, "glyphs/deal/train"))
    if split == "train":
        dealt = train
    else:
        dealt = deal(np.full(spec.classes, spec.val_instances), spec.objects, generator(seed, "glyphs/deal/val"))
    shape = (len(dealt), spec.size, spec.size, 3)
    _reserve(out / PIXELS, shape)
    job = _Job(spec, seed, split, out / PIXELS, tuple(dealt))
    images: list[Annotation] = []
    annotations: list[Annotation] = []
    for i, found in enumerate(_draw_all(job, processes)):
        images.append({"id": i + 1, "file_name": f"{split}/{i:06d}", "width": spec.size, "height": spec.size})
        annotations += [{"id": len(annotations) + k + 1, "image_id": i + 1, **a} for k, a in enumerate(found)]
        if progress is not None:
            progress(i + 1, len(dealt))
    stats = ClassStatistics.from_labels(train, spec.classes)
    categories = [
        {"id": k + 1, "name": class_name(point), "frequency": lvis_frequency(images_of), "image_count": images_of}
        | {"instance_count": instances}
        for k, (point, images_of, instances) in enumerate(
            zip(words.classes, stats.image_counts.tolist(), stats.instance_counts.tolist(), strict=True)
        )
    ]
    info = {"description": f"glyphs version {VERSION}, seed {seed}, {split}", "exhaustive": True}
    write_json(
        out / ANNOTATIONS, {"info": info, "images": images, "annotations": annotations, "categories": categories}
    )


def _reserve(path: Path, shape: tuple[int, ...]) -> None:
    """Make the file of pixels with all its bytes: a process that writes to a mapped file on a full disk is killed."""
    need = math.prod(shape)
    with disk_errors(path, need):
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape).flush()
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def instance_counts(spec: GlyphsData, seed: int) -> NDArray[np.int64]:
    """Training instances of each class; which class is rare follows the seed.

    Where max_instances does not exceed the last edge the whole curve is compressed, which keeps its shape.
    """
    top = np.log(spec.max_instances)
    edges = np.log([*_EDGES, spec.max_instances])
    if top <= edges[-2]:
        edges = edges[:-1] * top / np.log(1600)  # 1600: the maximum the shares were fitted with
        edges = np.append(edges, top)
    place = (np.arange(spec.classes) + 0.5) / spec.classes
    counts = np.maximum(1, np.floor(np.exp(np.interp(place, _SHARES, edges)))).astype(np.int64)
    if spec.profile == "flat":
        return np.full(spec.classes, round(counts.mean()), np.int64)
    return generator(seed, "glyphs/counts").permutation(counts)


def deal(counts: NDArray[np.int64], objects: float, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Which instances each image shows: exact counts, images closed at 2 + Poisson(objects - 2) instances.

    Some instances of a class lie together, as they do in photographs.
    """
    runs: list[tuple[int, int]] = []
    for index, left in enumerate(counts.tolist()):
        while left > 0:
            more = int(rng.integers(1, 4)) if rng.random() < _RUN else 0
            runs.append((index, min(left, 1 + more)))
            left -= runs[-1][1]
    images: list[tuple[int, ...]] = []
    current: list[int] = []
    limit = 2 + int(rng.poisson(objects - 2))
    for which in rng.permutation(len(runs)).tolist():
        index, number = runs[which]
        current += [index] * number
        if len(current) >= limit:
            images.append(tuple(current))
            current, limit = [], 2 + int(rng.poisson(objects - 2))
    return [*images, tuple(current)] if current else images


def _draw_all(job: _Job, processes: int) -> Iterator[list[Annotation]]:
    """The annotations of every image, in order; the pixels go to the shared file."""
    total = len(job.deal)
    chunks = [range(start, min(start + _CHUNK, total)) for start in range(0, total, _CHUNK)]
    if processes <= 1 or len(chunks) == 1:
        worker = _Worker(job)
        for chunk in chunks:
            yield from worker.draw(chunk)
        return
    # Spawned, not forked: the caller may hold torch's threads. An executor, not a Pool: a Pool waits for ever for a
    # process that was killed.
    context = multiprocessing.get_context("spawn")
    workers = min(processes, len(chunks))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(job,)) as pool:
        # The processes start here with SIGINT blocked (they inherit the mask): the caller alone handles Ctrl-C.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            drawn = pool.map(_draw_chunk, chunks)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        try:
            for found in drawn:
                yield from found
        except BrokenProcessPool:
            what = "a drawing process died, perhaps for lack of memory"
            hint = "use fewer processes; a script of yours needs `if __name__ == '__main__':` around the call"
            raise UserError(what, where=str(job.pixels.parent), hint=hint) from None
        finally:
            pool.shutdown(cancel_futures=True)  # interrupted: the rest need not be drawn


class _Worker:
    """One drawing process: the symbols, drawn once, and the shared pixel file."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        words = vocabulary(job.spec.classes, job.spec.similarity)
        self.renderer = Renderer(words, job.spec.size, job.spec.object_px)
        self.pixels = np.load(job.pixels, mmap_mode="r+")

    def draw(self, chunk: range) -> list[list[Annotation]]:
        found = []
        for i in chunk:
            rng = generator(self.job.seed, f"glyphs/{self.job.split}", index=i)
            drawn = self.renderer.draw(self.job.deal[i], rng)
            self.pixels[i] = drawn.pixels
            found.append(_annotate(drawn, self.job.spec.masks))
        return found


_worker: _Worker | None = None  # of a drawing process, set once by its initializer


def _start(job: _Job) -> None:
    global _worker
    _worker = _Worker(job)


def _draw_chunk(chunk: range) -> list[list[Annotation]]:
    assert _worker is not None
    return _worker.draw(chunk)


def _annotate(drawn: Drawn, masks: bool) -> list[Annotation]:
    """LVIS-form annotations without ids; boxes are tight around what is visible."""
    found: list[Annotation] = []
    for index, mask in zip(drawn.classes, drawn.masks, strict=True):
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = int(xs[0]), int(ys[0])
        box = [x, y, int(xs[-1]) + 1 - x, int(ys[-1]) + 1 - y]
        annotation: Annotation = {"category_id": index + 1, "bbox": box, "area": int(mask.sum()), "iscrowd": 0}
        if masks:
            coded = rle.encode(np.asfortranarray(mask.view(np.uint8)))
            annotation["segmentation"] = {"size": list(mask.shape), "counts": coded["counts"].decode("ascii")}
        found.append(annotation)
    return found
