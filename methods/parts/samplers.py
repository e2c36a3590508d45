"""Samplers: which training images one epoch shows, in which order. Separate from the data floor because methods choose.

A sampler is built from the class statistics of the images actually used and has `epoch(e, rng) -> image indices`; the
training stage cuts batches from the concatenated epochs. `rng` is made for the address of the epoch (bench/seeds.py):
it is the same on all ranks and in a resumed run.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench.errors import UserError, unknown
from bench.frequency import ClassStatistics, Ints, repeat_factors

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
        _, self._r_image = repeat_factors(stats, threshold(t, stats.images_of_counts), power)
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


def threshold(t: float | Mapping[str, float], num_images: int) -> float:
    """t as a share of the images, from a share or from {"images": n}.

    Raises:
        UserError: another form, or not positive.
    """
    if isinstance(t, Mapping):
        if set(t) != {"images"}:
            raise unknown("form of t", ", ".join(t), ["images"], where="RepeatFactor")
        t = t["images"] / num_images
    if not t > 0.0:
        raise UserError(f"t is {t}", where="RepeatFactor", allowed="a share of the images > 0, or {images: n}")
    return t
