"""Samplers: which training images one epoch shows, in which order. Separate from the data floor because methods choose.

A sampler is built from the class statistics of the images actually used and has `epoch(e, rng) -> image indices`; the
training stage cuts batches from the concatenated epochs. `rng` is made for the address of the epoch (bench/seeds.py):
it is the same on all ranks and in a resumed run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.errors import UserError, unknown
from bench.frequency import COMMON_IMAGES, ClassStatistics, Ints, levels_of, repeat_factors, share_of_images

ROUNDINGS = ("stochastic", "ceil", "bags")


class Shuffle:
    """Each image once per epoch, in random order."""

    VERSION = 1

    def __init__(self, stats: ClassStatistics) -> None:
        self._images = stats.num_images

    def epoch(self, e: int, rng: np.random.Generator) -> Ints:
        """Indices of epoch `e`, int64."""
        return rng.permutation(self._images)

    def expected_length(self) -> float:
        """Images per epoch."""
        return float(self._images)


class RepeatFactor:
    """Repeat factor sampling: an image is shown r = max over its classes of max(1, (t / f_c)^power) times per epoch.

    Source: Gupta et al., LVIS (CVPR 2019), section 4.2: f_c is the share of training images with class c. How r becomes
    whole copies differs:
    "stochastic": floor(r) + Bernoulli(frac(r)), drawn anew each epoch (LVIS paper, detectron2);
    "ceil": ceil(r) copies (mmdetection's ClassBalancedDataset);
    "bags": 1 copy where r = 1, else 1 + ceil(r) (released BAGS code; reproduces row (4) of its Table 1).

    Args:
        stats: of the images actually used: images without annotations count in f_c when they are trained on.
        t: oversampling threshold on f_c; {"images": n} means t * num_images = n, the same on a set of any size.
        power: 0.5 in LVIS, 1 in Step-wise learning.
        rounding: see above.

    Raises:
        UserError: a setting out of range.
    """

    VERSION = 1

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        t: float | Mapping[str, float] = 0.001,
        power: float = 0.5,
        rounding: str = "stochastic",
    ) -> None:
        if rounding not in ROUNDINGS:
            raise unknown("rounding", rounding, ROUNDINGS, where="RepeatFactor")
        if not power >= 0.0:
            raise UserError(f"power is {power}", where="RepeatFactor", allowed="a number >= 0 (LVIS: 0.5)")
        _, self._r_image = repeat_factors(stats, share_of_images(t, stats.images_of_counts, "t", "RepeatFactor"), power)
        self._rounding = rounding

    def epoch(self, e: int, rng: np.random.Generator) -> Ints:
        """Indices of epoch `e`, int64, shuffled; an image may occur several times."""
        return rng.permutation(np.repeat(np.arange(len(self._r_image)), self._copies(rng)))

    def expected_length(self) -> float:
        """Mean number of images per epoch."""
        return float(self._r_image.sum() if self._rounding == "stochastic" else self._fixed_copies().sum())

    def _copies(self, rng: np.random.Generator) -> Ints:
        if self._rounding != "stochastic":
            return self._fixed_copies()
        whole = np.floor(self._r_image)
        return (whole + (rng.random(len(whole)) < self._r_image - whole)).astype(np.int64)

    def _fixed_copies(self) -> Ints:
        extra = (self._r_image > 1.0) if self._rounding == "bags" else False
        return (np.ceil(self._r_image) + extra).astype(np.int64)


class RepeatByLevel:
    """Repeat factor sampling with a power for each level of classes; a frequent class is not repeated.

    An image is shown ceil(max over its classes of max(1, (t / f_c)^power_c)) times per epoch, f_c in the images used.

    Source: Dong et al. (ICCV 2023), step-wise sampling as released (methods.md 18.4): its first step has t 0.003 and
    power 0.3 above the edge, 0.5 below; its second t 0.0015 and power 1 below.

    Args:
        stats: of the images actually used.
        scores: the result of `exemplars.Scores`, for the images of each class in the whole training set.
        t: threshold on f_c, or {"images": n}.
        powers: one for each level, the frequent classes first.
        edges, inclusive: levels, see `exemplars.replay`.

    Raises:
        UserError: a setting out of range.
    """

    VERSION = 1

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        scores: Mapping[str, Any],
        t: float | Mapping[str, float] = 0.003,
        powers: Sequence[float] = (0.3, 0.5),
        edges: Sequence[float | Mapping[str, float]] = ({"images": 30},),
        inclusive: bool = True,
    ) -> None:
        where = "RepeatByLevel"
        counts_C, num_images = np.asarray(scores["image_counts_C"]), int(scores["num_images"])
        level_C = levels_of(counts_C, edges, num_images, inclusive)
        if len(powers) != len(edges) + 1 or not min(powers) >= 0.0:
            raise UserError(f"powers are {list(powers)}", where=where, allowed="numbers >= 0, one more than edges")
        power_C = np.where(counts_C > COMMON_IMAGES, 0.0, np.asarray(powers, np.float64)[level_C])
        _, r_image = repeat_factors(stats, share_of_images(t, stats.images_of_counts, "t", where), power_C)
        self._copies = np.ceil(r_image).astype(np.int64)

    def epoch(self, e: int, rng: np.random.Generator) -> Ints:
        """Indices of epoch `e`, int64, shuffled; an image may occur several times."""
        return rng.permutation(np.repeat(np.arange(len(self._copies)), self._copies))

    def expected_length(self) -> float:
        """Images per epoch, the same in each."""
        return float(self._copies.sum())
