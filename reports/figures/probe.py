"""The figure of linear probes. Separate from looks.py, which reads what they found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.frequency import instance_bin
from reports.figures.bars import of_cells
from reports.figures.canvas import Drawing, numbers
from reports.figures.scene import Scene
from reports.looks import Probe
from reports.stats import Cell, summarise


def probe_bars(scene: Scene) -> Drawing | None:
    """The mean over the classes of each bin of what a probe tells right, in points: a bar for each row and training,
    and in brackets how many dimensions its features use (`dimensions`).

    Returns:
        None where no row has a probe.
    """
    labels = list(dict.fromkeys([*scene.order, *(result.record.row for result in scene.rows)]))
    cells: dict[str, dict[str, Cell]] = {}
    named: dict[str, tuple[str, Cell]] = {}  # as it is drawn -> its name, and the dimensions of its features
    for label in labels:
        of_row = sorted((r for r in scene.rows if r.record.row == label), key=lambda r: r.record.seed)
        for number in sorted({probe.number for result in of_row for probe in result.looks.probes}):
            pairs = [(r, probe) for r in of_row for probe in r.looks.probes if probe.number == number]
            name = label if all(probe.last for _, probe in pairs) else f"{label}, after training {number}"
            of_seeds = [by_bin(probe, result.instance_counts, scene.edges) for result, probe in pairs]
            used = summarise(dimensions(probe.eigenvalues) for _, probe in pairs)
            whole = len(pairs[0][1].eigenvalues)
            shown = name if used.mean is None else f"{name} ({used.mean:.1f} of {whole})"
            named[shown] = name, used
            cells[shown] = {metric: summarise(one[metric] for one in of_seeds) for metric in of_seeds[0]}
    if not cells:
        return None
    metrics = [*(f"ACC{i + 1}" for i in range(len(scene.edges) + 1)), "ACC"]
    said = "In brackets: dimensions that the features use, (sum)^2 / sum of squares of their covariance's eigenvalues."
    drawing = of_cells(replace(scene, caption=f"{scene.caption} {said}".strip()), cells, metrics)
    lines = [(named[str(label)][0], *rest) for label, *rest in drawing.lines]
    lines += [(name, "dimensions", *numbers(used)) for name, used in named.values() if used.n]
    return replace(drawing, lines=tuple(lines))


def dimensions(eigenvalues: Sequence[float]) -> float | None:
    """The participation ratio of eigenvalues, 1 where one of them is all there is and D where all are alike: what a
    collapse of dimensions is seen by (Jing et al. 2022). None without any."""
    squares = sum(value**2 for value in eigenvalues)
    return sum(eigenvalues) ** 2 / squares if squares > 0 else None


def by_bin(probe: Probe, counts: Sequence[int], edges: Sequence[int]) -> dict[str, float | None]:
    """ACC1, ACC2, ... and ACC: the mean over the classes of each bin, and over all, in points."""
    bins = instance_bin(counts, edges).tolist()
    found: dict[str, float | None] = {}
    for name, chosen in [*((f"ACC{i + 1}", {i}) for i in range(len(edges) + 1)), ("ACC", set(bins))]:
        values = [right for right, i in zip(probe.right, bins, strict=True) if right is not None and i in chosen]
        found[name] = 100 * sum(values) / len(values) if values else None
    return found
