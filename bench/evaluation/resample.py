"""What AP would have been on other val images: the bootstrap over images, and the jackknife. Separate from matches.py,
which knows one weighting, and from reports/intervals.py, which joins seeds and makes intervals of it.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 6 and 11: of I images I are drawn with
replacement, so that an image counts 0, 1, 2 ... times; and each block of images is left out once. Two models on one val
are given the same draws and blocks: their difference is paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.ap import Floats, Ints
from bench.evaluation.matches import Accumulator, Matches
from bench.frequency import instance_bin

DRAWS = 1000  # enough for a standard error to 2 %
BLOCKS = 500  # of the jackknife, or as many as there are images: to 3 %
PASSES = DRAWS + BLOCKS  # over the matches of one evaluation, at most
Bools = NDArray[np.bool_]


def image_weights(images: int, draws: int, digest: str, at_once: int) -> Iterator[Ints]:
    """How often each image counts in each draw, in pieces int64 B x I, B at most `at_once`.

    Args:
        images: I.
        draws: how many in all.
        digest: of the val split, hexadecimal; the same split gives the same draws, whatever the pieces.
        at_once: size of a piece.
    """
    rng = np.random.default_rng(int(digest[:16], 16))
    for start in range(0, draws, at_once):
        chosen = [rng.integers(0, images, images) for _ in range(min(at_once, draws - start))]
        yield np.stack([np.bincount(one, minlength=images) for one in chosen])


def block_weights(images: int, blocks: int, digest: str, at_once: int) -> Iterator[Ints]:
    """1 for each image but those of one block, which count 0, block by block; as `image_weights`, with a block for each
    image where there are fewer images than blocks."""
    number = min(blocks, images)
    block = np.random.default_rng([int(digest[:16], 16), 1]).permutation(images) % number
    for start in range(0, number, at_once):
        yield (block[None] != np.arange(start, min(number, start + at_once))[:, None]).astype(np.int64)


def class_groups(frequency: Sequence[str], instance_counts: Sequence[int], edges: Sequence[int]) -> dict[str, Bools]:
    """Metric name -> which of the K classes it is a mean over: AP, APr, APc, APf, AP1..APk."""
    bins, letters = instance_bin(np.array(instance_counts, np.int64), edges), np.array(frequency, dtype=object)
    groups = {"AP": np.ones(len(letters), bool)}
    groups |= {f"AP{letter}": letters == letter for letter in "rcf"}
    return groups | {f"AP{i + 1}": bins == i for i in range(len(edges) + 1)}


def ap_of(per_class: Floats, groups: Mapping[str, Bools]) -> dict[str, Floats]:
    """Metric name -> AP of each of B weightings, as fractions; NaN where no class of it has a box. AP50, AP75 as well.

    Args:
        per_class: B x T x K of `Accumulator.per_class`.
        groups: of `class_groups`.
    """
    mean = per_class.mean(1)
    found = {name: _mean(mean[:, chosen]) for name, chosen in groups.items()}
    return found | {"AP50": _mean(per_class[:, 0]), "AP75": _mean(per_class[:, 5])}


def bootstrap(
    matches: Matches,
    groups: Mapping[str, Bools],
    digest: str,
    draws: int = DRAWS,
    seen: Callable[[int], None] = lambda _: None,
) -> dict[str, Floats]:
    """Metric name -> AP of every draw, as fractions, float64 of length `draws`; NaN where a draw shows no box of it.

    Args:
        matches: of `match_boxes`.
        groups: of `class_groups`.
        digest: of the val split.
        draws: how many times the images are drawn.
        seen: is told how many draws were done, after each piece.
    """
    again = Accumulator(matches)
    return _of_each(again, groups, image_weights(len(matches.image_ids), draws, digest, again.at_once), seen)


def jackknife(
    matches: Matches,
    groups: Mapping[str, Bools],
    digest: str,
    blocks: int = BLOCKS,
    seen: Callable[[int], None] = lambda _: None,
) -> dict[str, Floats]:
    """Metric name -> AP without each block of images, as fractions, float64 of length G: `blocks`, or as many as
    there are images; NaN where only that block shows a box of it.

    Args:
        matches: of `match_boxes`.
        groups: of `class_groups`.
        digest: of the val split; says which images are a block.
        blocks: at most so many, of equal size (one image more or less), at least 2.
        seen: is told how many blocks were done, after each piece.
    """
    again = Accumulator(matches)
    return _of_each(again, groups, block_weights(len(matches.image_ids), blocks, digest, again.at_once), seen)


def images_that_show(matches: Matches, groups: Mapping[str, Bools]) -> dict[str, int]:
    """Metric name -> val images with a counted box of one of its classes: on how much its interval rests."""
    shown = {name: chosen[matches.truth_category] for name, chosen in groups.items()}
    return {name: len(np.unique(matches.truth_image[of])) for name, of in shown.items()}


def _of_each(
    again: Accumulator, groups: Mapping[str, Bools], pieces: Iterator[Ints], seen: Callable[[int], None]
) -> dict[str, Floats]:
    """Metric name -> AP of every weighting."""
    found: dict[str, list[Floats]] = {}
    for weights in pieces:
        for name, values in ap_of(again.per_class(weights), groups).items():
            found.setdefault(name, []).append(values)
        seen(len(weights))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _mean(values: Floats) -> Floats:
    """Over the classes that have a box, of each row."""
    known = ~np.isnan(values)
    sums = np.where(known, values, 0.0).sum(1)
    return np.asarray(np.divide(sums, known.sum(1), out=np.full(len(values), np.nan), where=known.any(1)))
