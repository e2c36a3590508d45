"""Head against tail: what a row gains on classes with few training instances beside what it has on those with most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.figures.canvas import Drawing, bin_names, blank, finish, numbers, tidy
from reports.figures.named_points import Point, named_points
from reports.figures.scene import Scene
from reports.load import RowResult
from reports.stats import Cell, bases_of, by_engine, metrics_of, summarise

COLUMNS = ("row", "tail", "tail_sd", "head", "head_sd", "seeds", "front")
WIDTH_IN, HEIGHT_IN = 7.0, 4.4


def tradeoff(scene: Scene) -> Drawing | None:
    """A point for each row: AP of the head, the most frequent instance bin (AP4), across; AP of the tail, the classes
    of the two rarest bins together (those of AP1 and AP2), upwards. A line joins the rows that no other of their engine
    beats in both (the Pareto front, by their means).

    Returns:
        None where no row has both.
    """
    groups, edges = scene.groups, scene.edges
    found = {label: (metrics_of(g).get(f"AP{len(edges) + 1}"), tail_ap(g, edges)) for label, g in groups.items()}
    at = {label: (head, tail) for label, (head, tail) in found.items() if head and head.n and tail.n}
    if not at:
        return None
    points = {label: (head.mean or 0.0, tail.mean or 0.0) for label, (head, tail) in at.items()}
    engines = by_engine({label: groups[label] for label in at})
    fronts = [front({label: points[label] for label in labels}) for labels in engines.values()]
    figure, (axes,) = blank(WIDTH_IN, HEIGHT_IN)
    for best in fronts:
        axes.plot(
            [points[label][0] for label in best], [points[label][1] for label in best], color="0.55", linewidth=1.0,
            linestyle=(0, (4, 3)), zorder=1,
        )  # fmt: skip
    bases = [label for label in at if label in bases_of(groups).values()]
    named_points(axes, at, (WIDTH_IN - 0.8, HEIGHT_IN - 0.6), bases, (0.0, 0.0))
    bins = bin_names(edges)
    below = bins[0] if len(edges) == 1 else f"1-{edges[1] - 1}"
    axes.set_xlabel(f"AP of the head: classes with {bins[-1]} training instances (points)")
    axes.set_ylabel(f"AP of the tail: classes with\n{below} training instances (points)")
    tidy(axes)
    axes.grid(axis="x", color="0.9", linewidth=0.7)
    own = " of its engine" if len(engines) > 1 else ""
    said = f"Dashed: the rows that no other{own} beats in both (means)."
    said += f" Hollow: {', '.join(bases)}." if bases else ""
    ahead = {label for best in fronts for label in best}
    lines = tuple(
        (label, *numbers(tail)[:2], *numbers(head)[:2], tail.n, "yes" if label in ahead else "no")
        for label, (head, tail) in at.items()
    )
    return Drawing(finish(figure, {}, f"{scene.caption} {said}".strip(), scene.title), COLUMNS, lines)


def tail_ap(group: Sequence[RowResult], edges: Sequence[int]) -> Cell:
    """Mean AP (points) of the classes of the two rarest bins together, over the seeds of a row; of the rarest where
    there are two bins in all. Each class counts once, as in AP; a class that val does not show counts nowhere."""
    end = edges[1] if len(edges) > 1 else edges[0]
    return summarise(_mean_below(result, end) for result in group)


def front(points: Mapping[str, Point]) -> list[str]:
    """Names of the points that no other is at least as high as in both and higher in one, by rising x."""
    best = [
        name
        for name, (x, y) in points.items()
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points.values())
    ]
    return sorted(best, key=lambda name: points[name])


def _mean_below(result: RowResult, end: int) -> float | None:
    pairs = zip(result.instance_counts, result.per_class_ap, strict=False)
    values = [ap for count, ap in pairs if count < end and ap is not None]
    return sum(values) / len(values) if values else None
