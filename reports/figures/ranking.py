"""Which rows are likely among the best. Separate from intervals.py, which looks at one difference at a time: here all
rows are ranked anew in every draw.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from reports.figures.canvas import Drawing, blank, finish, over, palette, tidy
from reports.figures.lettering import at_ticks, inches
from reports.figures.scene import Scene
from reports.intervals import enough, of_images
from reports.load import RowResult
from reports.stats import by_engine, by_row

Floats = NDArray[np.float64]
BEST = 3
DRAWN = 4000
METRICS = ("AP", "AP1")
MOST_ROWS = 40


def among_best(rows: Sequence[RowResult], metric: str, order: Sequence[str] = (), best: int = BEST) -> dict[str, float]:
    """Row -> how often it is among the `best` highest means when what varies is drawn anew, all rows on the same draws.

    As in reports/intervals.py: with one seed a normal law over the val images. With several Student's over the seeds
    and, where all seeds have one val, a normal one over its images, less what the spread over seeds has of them
    already; where each has its own, that spread has all of them. An interval is never narrower than images alone make
    it; there is no such floor here, where differences of all pairs are drawn at once.

    Args:
        rows: one result per row and seed. Rows that lack draws, the metric, or a seed that most have, are left out.
        metric: AP, AP1, ...
        order: labels in suite order.
        best: among how many.

    Returns:
        Empty where fewer than `best` + 1 rows can be ranked.
    """
    seeds = _seeds(rows)
    groups = {label: {r.record.seed: r for r in group} for label, group in by_row(rows, order).items()}
    ranked = {label: [of[s] for s in seeds] for label, of in groups.items() if all(s in of for s in seeds)}
    ranked = {label: group for label, group in ranked.items() if all(_known(result, metric) for result in group)}
    if len(ranked) <= best:
        return {}
    values = np.array([[r.record.metrics[metric] for r in group] for group in ranked.values()], np.float64)
    rng = np.random.default_rng(0)
    drawn = values.mean(1)[:, None] + _of_seeds(values, rng) + _of_images(list(ranked.values()), metric, rng)
    # Rows that are equal in a draw share their places by lot.
    places = np.lexsort((rng.random(drawn.shape), -drawn), axis=0).argsort(0)
    return {label: float((place < best).mean()) for label, place in zip(ranked, places, strict=True)}


def ranking(scene: Scene) -> Drawing | None:
    """For AP and AP1, a bar for each row: the probability that it is among the best three of its engine.

    Returns:
        None where too few rows have draws.
    """
    engines = by_engine(scene.groups)
    found = {metric: of for metric in METRICS if (of := _of_each_engine(scene, engines.values(), metric))}
    if not found:
        return None
    labels = list(dict.fromkeys(label for of in found.values() for label in of))[:MOST_ROWS]
    ticks = at_ticks(labels)
    figure, every = blank(inches(ticks) + 0.6 + 2.6 * len(found), 0.8 + 0.2 * len(labels), 1, len(found))
    for place, (axes, (metric, of)) in enumerate(zip(every, found.items(), strict=True)):
        shown = [100 * of.get(label, 0.0) for label in labels]
        axes.barh(range(len(labels)), shown, 0.72, color=palette()[0], linewidth=0)
        for y, label in enumerate(labels):
            text = percent(of[label]) if label in of else "-"
            axes.annotate(
                text, (shown[y], y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7, color="0.2"
            )
        axes.set_yticks(range(len(labels)), ticks if place == 0 else [""] * len(labels), fontsize=8)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlim(0, 112)
        axes.set_xticks([0, 50, 100])
        axes.set_title("\n".join(filter(None, (metric, over(metric, scene.edges)))), fontsize=9)
        axes.set_xlabel(f"among the best {BEST} (%)", fontsize=8)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=8)
        tidy(axes, "x")
    seeds = _seeds(scene.rows)
    what = "val images, for these models (one seed: nothing is known of other trainings)"
    if len(seeds) > 1:
        what = f"{len(seeds)} seeds, by Student's law as the intervals are"
        what += ", and over the val images that they share" if _one_val(scene.rows) else ""
    own = " of its engine" if len(engines) > 1 else ""
    said = f"How likely a row is among the best {BEST}{own}, over {what}; all rows are drawn together."
    lines = tuple((label, metric, 100 * p) for metric, of in found.items() for label, p in of.items())
    figure = finish(figure, {}, f"{scene.caption} {said}".strip(), scene.title)
    return Drawing(figure, ("row", "metric", "percent"), lines)


def percent(share: float) -> str:
    """Of draws, which are never so many that 0 or 100 is exact."""
    return "<1" if share < 0.005 else ">99" if share > 0.995 else f"{100 * share:.0f}"


def _of_each_engine(scene: Scene, engines: Iterable[Sequence[str]], metric: str) -> dict[str, float]:
    """Numbers of two engines are different experiments, and not ranked together."""
    found: dict[str, float] = {}
    for labels in engines:
        found |= among_best([one for one in scene.rows if one.record.row in labels], metric, scene.order)
    return found


def _seeds(rows: Sequence[RowResult]) -> list[int]:
    """Those of the row that has most."""
    groups = by_row(rows).values()
    return max(([r.record.seed for r in group] for group in groups), key=len, default=[])


def _known(result: RowResult, metric: str) -> bool:
    return result.record.metrics.get(metric) is not None and result.draws is not None and enough(result.draws, metric)


def _of_seeds(values: Floats, rng: np.random.Generator) -> Floats:
    """Deviations of the mean over seeds, R x DRAWN; 0 with one seed."""
    count = values.shape[1]
    if count == 1:
        return np.zeros((len(values), DRAWN))
    apart = values - values.mean(1, keepdims=True)
    normal = apart @ rng.standard_normal((count, DRAWN)) / np.sqrt(count * (count - 1))
    return np.asarray(normal / np.sqrt(rng.chisquare(count - 1, DRAWN) / (count - 1)))


def _of_images(ranked: Sequence[Sequence[RowResult]], metric: str, rng: np.random.Generator) -> Floats:
    """Deviations of the mean over seeds by the images of the val that all share, R x DRAWN, of a normal law; 0 where
    they share none."""
    rows, count = len(ranked), len(ranked[0])
    every = [result for group in ranked for result in group]
    if not _one_val(every):
        return np.zeros((rows, DRAWN))
    draws = [result.draws for result in every if result.draws is not None]
    apart = np.array([of_images(one.values[metric], one.without[metric]) for one in draws])
    each = apart.reshape(rows, count, -1)
    mean = each.mean(1)
    covariance = mean @ mean.T
    if count > 1:
        # What images alone make of the spread over seeds is in that spread already: as in an interval, for each pair.
        own = (each - mean[:, None]).reshape(rows, -1)
        covariance -= own @ own.T / (count - 1) / count
    left, axes = np.linalg.eigh(covariance)
    return np.asarray(axes * np.sqrt(left.clip(0)) @ rng.standard_normal((rows, DRAWN)))


def _one_val(rows: Sequence[RowResult]) -> bool:
    return len({result.record.protocol.val_digest for result in rows}) == 1
