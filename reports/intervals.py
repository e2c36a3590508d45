"""How sure a number is: 95 % intervals of AP and of differences, over val images and over seeds, and Holm's correction.
Separate from stats.py (means and paired differences) and from predictions.py (AP on other draws of val).

What varies. One seed: the images of val alone, the interval a normal one, for the model that there is. Its variance is
the mean of two estimates (bench/evaluation/resample.py). Of a class on n images the bootstrap has about 1 - 1/n of the
variance and the jackknife 1 / (1 - 1/n) (Efron and Stein, Annals of Statistics 9, 1981: it errs upwards), so that
classes on two or three images, as LVIS' rare ones are, would have intervals too narrow by the one and too wide by the
other. Several seeds: their sample variance s^2 holds all that a seed changes, initial weights and order of training
and, where the data follow the seed, train and val as well; the interval is Student's. A val that the seeds share varies
once more, by these two estimates of the mean over seeds, less what s^2 has of it already; the sum has Satterthwaite's
degrees of freedom (Biometrics Bulletin 2, 1946).

Two or three seeds agree by luck in one cell of five more closely than images allow: an interval is never narrower, and
no p smaller, than that of the images alone or of the seeds alone. With several seeds it so holds the truth in 95 % or
more. Centres are the estimates: the mean of a bootstrap is shifted by images that are drawn twice. Measured: python -m
tests.interval_coverage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reports.load import Draws, RowResult
from reports.stats import paired

Floats = NDArray[np.float64]
LEVEL = 0.95
FEWEST_IMAGES = 30  # that show a class of the metric: with fewer, intervals hold the truth too seldom


@dataclass(frozen=True)
class Interval:
    """Of the mean over seeds, in AP points.

    Attributes:
        low, high: ends.
        p: two-sided, that the true value is 0; of a difference.
    """

    low: float
    high: float
    p: float


def of_images(drawn: Floats, without: Floats) -> Floats:
    """What val images alone make of a value: deviations whose squares sum to its variance, the mean of the bootstrap's
    and the jackknife's; of one length for all that is measured on one val, where each place is of the same images.

    Args:
        drawn, without: points on other draws of its val and without each of its blocks; NaN where there is no number.
    """
    again, left = (of[~np.isnan(of)] for of in (drawn, without))
    if len(again) < 2 or len(left) < 2:
        return np.zeros(0)
    again, left = (of - of.mean() for of in (again, left))
    scaled = again / math.sqrt(2 * (len(again) - 1)), left * math.sqrt((len(left) - 1) / (2 * len(left)))
    return np.concatenate(scaled)


def interval(values: Sequence[float], apart: Sequence[Floats], *, shared: bool = True) -> Interval | None:
    """Of the mean of `values`.

    Args:
        values: one per seed, points.
        apart: per seed, of `of_images`.
        shared: whether the seeds have one val, and so the same images at one place; else they are independent.

    Returns:
        None where nothing varies that is known.
    """
    count = len(values)
    if not count or not all(map(len, apart)):
        return None
    together = np.array(apart).mean(0) if shared else np.concatenate(apart) / count
    images = float((together**2).sum())
    laws = [(images, math.inf)]
    if count > 1:
        seeds = float(np.var(values, ddof=1)) / count
        laws.append((seeds, count - 1.0))
        if shared and seeds > 0:
            # What the images alone make of the spread over seeds.
            own = float(np.array(apart).var(0, ddof=1).sum()) / count
            both = max(0.0, images - own) + seeds
            laws.append((both, (count - 1) * (both / seeds) ** 2))
    return _widest(float(np.mean(values)), [law for law in laws if law[0] > 0])


def _widest(mean: float, laws: Sequence[tuple[float, float]]) -> Interval | None:
    """Of (variance, degrees of freedom), the interval that is widest at any level, so that its p is the largest."""
    from scipy.stats import norm, t

    if not laws:
        return None
    half = p = 0.0
    for variance, freedom in laws:
        law, error = norm if math.isinf(freedom) else t(freedom), math.sqrt(variance)
        half = max(half, float(law.ppf(0.5 + LEVEL / 2)) * error)
        p = max(p, float(2 * law.sf(abs(mean) / error)))
    return Interval(mean - half, mean + half, p)


def of_row(group: Sequence[RowResult], metric: str) -> Interval | None:
    """Of a row's mean over its seeds; None where a seed has no draws, or too few images show the metric's classes."""
    known = [(value, row.draws) for row in group if (value := row.record.metrics.get(metric)) is not None]
    draws = [one for _, one in known if one is not None and enough(one, metric)]
    if len(draws) < len(known):
        return None
    apart = [of_images(one.values[metric], one.without[metric]) for one in draws]
    return interval([value for value, _ in known], apart, shared=_shared(draws))


def of_difference(group: Sequence[RowResult], base: Sequence[RowResult], metric: str) -> Interval | None:
    """Of the mean difference, paired by seed and by draws of images; None as in `of_row`."""
    values: list[float] = []
    apart: list[Floats] = []
    vals: list[Draws] = []
    for ours, theirs, value in paired(group, base, metric):
        if ours.draws is None or theirs.draws is None or not enough(ours.draws, metric):
            return None
        values.append(value)
        a, b = ours.draws, theirs.draws
        apart.append(of_images(a.values[metric] - b.values[metric], a.without[metric] - b.without[metric]))
        vals.append(ours.draws)
    return interval(values, apart, shared=_shared(vals))


def _shared(draws: Sequence[Draws]) -> bool:
    return len({one.val for one in draws}) <= 1


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Each p, corrected for how many there are (Holm, Scandinavian Journal of Statistics 6, 1979): in rising order the
    smallest of m is multiplied by m, the next by m - 1 ...; none falls below the one before, none rises above 1."""
    found: dict[str, float] = {}
    least = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[name]))
        found[name] = least
    return found


def few(rows: Sequence[RowResult], metrics: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Metric -> (fewest, most) images of a val that show its classes, of those metrics that lack an interval for
    it. One seed with too few is enough to take it from a row."""
    found = {
        metric: [_images(row.draws, metric) for row in rows if row.draws is not None and _counts(row, metric)]
        for metric in metrics
    }
    return {metric: (min(of), max(of)) for metric, of in found.items() if of and min(of) < FEWEST_IMAGES}


def none_why(group: Sequence[RowResult], base: Sequence[RowResult], metric: str) -> str:
    """Why a difference that there is has no interval: `few` images, `undrawn`, or `alike` in all that was drawn."""
    ones = [one.draws for ours, theirs, _ in paired(group, base, metric) for one in (ours, theirs)]
    if any(one is None or metric not in one.values for one in ones):
        return "undrawn"
    return "alike" if all(one is not None and enough(one, metric) for one in ones) else "few"


def enough(draws: Draws, metric: str) -> bool:
    """Whether enough val images show the metric's classes for an interval."""
    return metric in draws.values and _images(draws, metric) >= FEWEST_IMAGES


def _images(draws: Draws, metric: str) -> int:
    return draws.images.get(metric, draws.images["AP"])  # AP50 and AP75 rest on the images of AP


def _counts(row: RowResult, metric: str) -> bool:
    return row.draws is not None and metric in row.draws.values and row.record.metrics.get(metric) is not None
