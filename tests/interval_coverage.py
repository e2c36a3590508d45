"""How often the 95 % intervals of reports/intervals.py hold the truth, on simulated detections whose truth is known.

    python -m tests.interval_coverage --simulations 1000 --out reports/measured/intervals/coverage.csv
    python -m tests.interval_coverage --simulations 300 --draws 300 --truth 800 --images 60     # a small val
    python -m tests.interval_coverage --simulations 300 --draws 300 --truth 800 --tail 20 2     # a thin tail

A class of the population has a probability to be in an image and a skill; a val set is drawn image by image, a seed
changes every skill by some noise, and a model finds each object or not, at some IoU, with a score that tells true from
false only in part. Two models meet on the same images. Their true difference is 0 in one half of the simulations, where
both have the same skills; elsewhere it is the mean over val sets and seeds of their own (--truth). A metric is what an
evaluation of this size gives in the mean: interpolated AP of a small val is higher than that of a large one.

--tail C M has, in place of the rarer half of the classes, C classes that about M of the val images show each, as LVIS
has for its rare ones. `images_of_class`: on so many val images is each of three quarters of the classes of a metric, or
on more.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.matches import THRESHOLDS, Accumulator, Matches
from bench.evaluation.resample import ap_of, bootstrap, class_groups, images_that_show, jackknife
from reports.intervals import interval, of_images

Floats = NDArray[np.float64]
CLASSES = 40  # without --tail
EDGES = (10, 100, 1000)
GAIN = 0.35  # of skill, of the rare half, in the second model
NOISE = 0.15  # sd of a class's skill over seeds
DRAWS, BLOCKS = 400, 200
THIN = 5  # training instances of a class of --tail


@dataclass(frozen=True)
class Population:
    """`shown`: chance of each class to be in an image; `skill`: of the model, in standard deviations."""

    shown: Floats
    skill: Floats
    frequency: list[str]
    counts: list[int]

    @classmethod
    def of(cls, gain: float, asked: argparse.Namespace) -> Population:
        """Classes by falling chance; `gain` is added to the skill of the rarer half, or of the tail asked for."""
        shown = np.minimum(0.4, 1.2 / np.arange(1, CLASSES + 1) ** 0.9)
        skill = np.linspace(1.0, -0.6, CLASSES)
        counts = [int(c) for c in np.geomspace(3000, 4, CLASSES)]
        head = CLASSES // 2
        if asked.tail is not None:
            thin, each = asked.tail
            shown = np.r_[shown[:head], np.full(thin, each / asked.images)]
            skill = np.r_[skill[:head], np.full(thin, skill[-1])]
            counts = [*counts[:head], *[THIN] * thin]
        skill[head:] += gain
        return cls(shown, skill, ["f" if c > 300 else "c" if c > 30 else "r" for c in counts], counts)


def shown_in(population: Population, images: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
    """(image, class, difficulty) of each object of a val set."""
    size = (images, len(population.shown))
    number = rng.poisson(population.shown * 1.3, size) * (rng.random(size) < 0.77)
    image, category = np.nonzero(number)
    times = number[image, category]
    image, category = np.repeat(image, times), np.repeat(category, times)
    return image, category, rng.normal(0, 1, len(image))


def matched(
    population: Population, val: tuple[NDArray[np.int64], ...], images: int, noise: float, rng: np.random.Generator
) -> Matches:
    """What a seed's model finds on a val set."""
    image, category, hard = val
    skill = population.skill + rng.normal(0, noise, len(population.skill))
    quality = skill[category] - hard + rng.normal(0, 0.5, len(image))  # known to the model in part
    found = quality > -0.3
    iou = np.clip(0.72 + 0.09 * quality + rng.normal(0, 0.08, len(image)), 0, 1)
    false = rng.poisson(0.5 * population.shown[None] + 0.02, (images, len(population.shown)))
    false_image, false_category = (np.repeat(at, false[false > 0]) for at in np.nonzero(false))
    score = np.r_[quality[found] + 0.8, rng.normal(0, 0.8, len(false_image))]
    every = [np.r_[image[found], false_image], np.r_[category[found], false_category]]
    true = np.concatenate([iou[found] >= THRESHOLDS[:, None], np.zeros((len(THRESHOLDS), len(false_image)), bool)], 1)
    order = np.lexsort((-score, every[1]))
    return Matches(
        every[0][order], every[1][order], score[order], true[:, order], np.ones_like(true), image, category,
        np.arange(images), np.arange(len(population.shown)),
    )  # fmt: skip


def images_of_class(matches: Matches, groups: dict[str, NDArray[np.bool_]]) -> dict[str, int]:
    """Metric -> val images that show each of three quarters of its classes, or more; of the classes that val shows."""
    pairs = np.unique(np.stack([matches.truth_category, matches.truth_image]), axis=1)
    images = np.bincount(pairs[0], minlength=len(matches.category_ids))
    shown = {name: images[chosen & (images > 0)] for name, chosen in groups.items()}
    return {name: int(np.quantile(of, 0.25, method="lower")) if len(of) else 0 for name, of in shown.items()}


@dataclass(frozen=True)
class Simulated:
    """An interval, in points; on how many val images its metric rests, and three quarters of its classes each."""

    of: str
    metric: str
    low: float
    high: float
    images: int
    images_of_class: int


def noise_of(asked: argparse.Namespace) -> float:
    """With one seed an interval is for the model that there is, over val images alone."""
    return NOISE if asked.seeds > 1 else 0.0


def point(matches: Matches, groups: dict[str, NDArray[np.bool_]]) -> dict[str, float]:
    """Metric -> AP of an evaluation, a fraction."""
    ones = np.ones((1, len(matches.image_ids)), np.int64)
    return {name: float(v[0]) for name, v in ap_of(Accumulator(matches).per_class(ones), groups).items()}


def main() -> int:
    """Simulate, print a line for each metric, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--truth", type=int, default=4000, help="val sets that the truth is a mean over")
    parser.add_argument("--images", type=int, default=300, help="of a val set")
    parser.add_argument(
        "--tail", type=int, nargs=2, metavar=("C", "M"), help="C rare classes in about M val images each"
    )
    parser.add_argument("--draws", type=int, default=DRAWS, help="of the val images, for an interval")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="of images that are left out once, for an interval")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--own-val", action="store_true", help="every seed has a val of its own, as the embedded data")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    models = Population.of(0.0, asked), Population.of(GAIN, asked)
    groups = class_groups(models[0].frequency, models[0].counts, EDGES)
    groups = {metric: of for metric, of in groups.items() if of.any()}
    truths = truth(models, groups, asked)
    held: dict[tuple[str, str], list[bool]] = {}
    widths: dict[tuple[str, str], list[float]] = {}
    shown: dict[str, list[int]] = {}
    each: dict[str, list[int]] = {}
    for number in range(asked.simulations):
        rng = np.random.default_rng([number, asked.seeds, asked.images])
        for one in intervals(models, groups, asked, rng, number):
            key = one.of, one.metric
            held.setdefault(key, []).append(one.low <= truths[key] <= one.high)
            widths.setdefault(key, []).append(one.high - one.low)
            shown.setdefault(one.metric, []).append(one.images)
            each.setdefault(one.metric, []).append(one.images_of_class)
    lines = [
        {
            "of": what, "metric": metric, "seeds": asked.seeds, "val": "own" if asked.own_val else "shared",
            "tail": " x ".join(map(str, asked.tail or ())), "val_images": asked.images,
            "images_that_show": round(float(np.mean(shown[metric]))),
            "images_of_class": round(float(np.mean(each[metric])), 1),
            "simulations": len(inside), "held_percent": round(100 * float(np.mean(inside)), 1),
            "mean_width": round(float(np.mean(widths[what, metric])), 2),
            "truth": round(truths[what, metric], 3),
        }
        for (what, metric), inside in held.items()
    ]  # fmt: skip
    for line in lines:
        print("  ".join(f"{name} {value}" for name, value in line.items()))
    if asked.out is not None:
        new = not asked.out.exists()
        if not new and asked.out.read_text().splitlines()[:1] != [",".join(lines[0])]:
            parser.error(f"--out {asked.out}: has other columns; name a new file")
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        with asked.out.open("a", newline="") as file:
            writer = csv.DictWriter(file, lines[0], lineterminator="\n")
            writer.writerows([dict(zip(lines[0], lines[0], strict=True)), *lines] if new else lines)
    return 0


def truth(
    models: tuple[Population, Population], groups: dict[str, NDArray[np.bool_]], asked: argparse.Namespace
) -> dict[tuple[str, str], float]:
    """Points: of the first model, and of the difference of the second, in the mean over val sets and seeds."""
    sums: dict[tuple[str, str], list[float]] = {}
    for number in range(asked.truth):
        rng = np.random.default_rng([10**6 + number, asked.images])
        val = shown_in(models[0], asked.images, rng)
        first, second = (point(matched(model, val, asked.images, noise_of(asked), rng), groups) for model in models)
        for metric, value in first.items():
            sums.setdefault(("AP of one", metric), []).append(100 * value)
            sums.setdefault(("difference", metric), []).append(100 * (second[metric] - value))
    found = {key: float(np.nanmean(values)) for key, values in sums.items()}
    return found | {("no difference", metric): 0.0 for _, metric in found}


def intervals(
    models: tuple[Population, Population],
    groups: dict[str, NDArray[np.bool_]],
    asked: argparse.Namespace,
    rng: np.random.Generator,
    number: int,
) -> list[Simulated]:
    """Of one simulated comparison, in points."""
    even = number % 2 == 0
    pair = (models[0], models[0] if even else models[1])
    values: list[list[dict[str, float]]] = [[], []]
    drawn: list[list[dict[str, Floats]]] = [[], []]
    without: list[list[dict[str, Floats]]] = [[], []]
    val = shown_in(models[0], asked.images, rng)
    for seed in range(asked.seeds):
        if asked.own_val and seed:
            val = shown_in(models[0], asked.images, rng)
        digest = f"{number * 64 + (seed if asked.own_val else 0):016x}"
        for model, own_values, own_drawn, own_left in zip(pair, values, drawn, without, strict=True):
            matches = matched(model, val, asked.images, noise_of(asked), rng)
            own_values.append({name: 100 * v for name, v in point(matches, groups).items()})
            own_drawn.append({n: 100 * v for n, v in bootstrap(matches, groups, digest, asked.draws).items()})
            own_left.append({n: 100 * v for n, v in jackknife(matches, groups, digest, asked.blocks).items()})
    images = images_that_show(matches, groups)
    of_class = images_of_class(matches, groups)
    found = []
    for metric in groups:
        shared = not asked.own_val
        one = interval(
            [v[metric] for v in values[0]],
            [of_images(d[metric], w[metric]) for d, w in zip(drawn[0], without[0], strict=True)],
            shared=shared,
        )
        apart = interval(
            [b[metric] - a[metric] for a, b in zip(*values, strict=True)],
            [
                of_images(b[metric] - a[metric], d[metric] - c[metric])
                for a, b, c, d in zip(*drawn, *without, strict=True)
            ],
            shared=shared,
        )
        for what, ends in (("AP of one", one), ("no difference" if even else "difference", apart)):
            if ends is not None and images[metric]:
                found.append(Simulated(what, metric, ends.low, ends.high, images[metric], of_class[metric]))
    return found


if __name__ == "__main__":
    raise SystemExit(main())
