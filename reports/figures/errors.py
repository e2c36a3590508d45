"""What each kind of error costs, for all classes and by instance bin: a figure and a long table. Separate from
predictions.py, which makes the counts.

Kinds: TIDE (Bolya et al., ECCV 2020) under LVIS' rules, bench/evaluation/error_kinds.py.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from bench.errors import cell_text
from reports.figures.canvas import Drawing, bins_of, blank, finish, numbers, over
from reports.figures.lettering import at_ticks, inches
from reports.figures.scene import Scene
from reports.load import RowResult
from reports.stats import MISSING, Cell, by_row, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Field of `Counts` and `Costs` -> as it is named in a figure.
KINDS = {
    "classification": "class", "localisation": "location", "both": "both", "duplicate": "duplicate",
    "background": "background", "missed": "missed",
}  # fmt: skip
UNFOUND = "classes_unfound"
# Field of `Counts`, of classification errors by the bin of the class that a box is taken for -> as a table names it.
DIRECTIONS = {
    "to_same_bin": "class, same bin", "to_more_frequent": "class, more frequent", "to_rarer": "class, rarer",
}  # fmt: skip
MOST_ROWS = 20
DARK = 0.55  # of the scale; above it a number is white
FIELDS = ("row", "seed", "group", "kind", "count", "cost", "classes", "classes_unfound", "boxes", "found", "ap50")
SAID = (
    "AP50 points that each kind of error costs, alone put right (TIDE); kinds do not add up. A missed box of a class of"
    " which nothing is found costs nothing, since no precision is known of it: the last column has how many such"
    " classes there are."
)


def error_costs(scene: Scene) -> Drawing | None:
    """A grid of rows and kinds for all classes and for each bin, and of how many classes nothing is found; the mean
    over seeds in each cell.

    Returns:
        None where no row has its errors.
    """
    shown = _with_errors(scene.rows, scene.order)
    if not shown:
        return None
    cells = costs(scene.rows, scene.order)
    names = list(dict.fromkeys(name for _, name, _ in cells))
    drawn, caption = list(shown)[:MOST_ROWS], scene.caption
    if len(drawn) < len(shown):
        caption += f" {len(drawn)} of {len(shown)} rows, the first of the suite; all are in error_kinds.csv."
    ticks = at_ticks(drawn)
    figure, every = blank(inches(ticks) + 0.4 + 2.3 * len(names), 1.9 + 0.22 * len(drawn), 1, len(names))
    highest = max([cells[at].mean or 0.0 for at in cells if at[2] in KINDS], default=0.0) or 1.0
    for place, (name, axes) in enumerate(zip(names, every, strict=True)):
        _grid(axes, [[cells[label, name, what] for what in (*KINDS, UNFOUND)] for label in drawn], highest)
        axes.set_yticks(range(len(drawn)), ticks if place == 0 else [""] * len(drawn), fontsize=8)
        count = _classes(group for label in drawn for group in shown[label])[name]
        axes.set_title(f"{over(name, scene.edges) or name}\n({count} classes)", fontsize=9)
    every[0].set_xlabel("cost in AP50 (points)", fontsize=8)
    lines = [(*at, *numbers(cell)) for at, cell in cells.items() if at[2] not in DIRECTIONS]
    return Drawing(
        finish(figure, {}, f"{caption} {SAID}".strip(), scene.title),
        ("row", "group", "kind", "mean", "sd", "n"),
        tuple(lines),
    )


def costs(
    rows: Sequence[RowResult], order: Sequence[str] = (), *, all_groups: bool = False
) -> dict[tuple[str, str, str], Cell]:
    """(row, AP or APi, what) -> over the seeds of rows that have their errors: the AP50 points that a kind costs, the
    classes of which nothing is found (UNFOUND), and how often a class is taken for one of each of DIRECTIONS.
    `all_groups`: of r/c/f too, where all of these rows have them."""
    shown = _with_errors(rows, order)
    every = [result.errors.groups for group in shown.values() for result in group if result.errors is not None]
    first = [name for name in (every[0] if every else ()) if all(name in groups for groups in every)]
    names = first if all_groups else bins_of(first)
    return {
        (label, name, what): summarise(_value(result, name, what) for result in group)
        for label, group in shown.items()
        for name in names
        for what in (*KINDS, UNFOUND, *DIRECTIONS)
    }


def _with_errors(rows: Sequence[RowResult], order: Sequence[str]) -> dict[str, list[RowResult]]:
    groups = {label: [r for r in group if r.errors is not None] for label, group in by_row(rows, order).items()}
    return {label: group for label, group in groups.items() if group}


def to_csv(rows: Sequence[RowResult], order: Sequence[str] = ()) -> str:
    """Every seed by itself: count and cost (AP50 points) of each kind for all classes, bins and r/c/f, with how many
    classes and boxes a group has. Also classification errors by the bin they go to, which have no cost of their own,
    and false positives and negatives, which have no count of their own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    for label, group in by_row(rows, order).items():
        for result in group:
            writer.writerows((cell_text(label), result.record.seed, *line) for line in _lines(result))
    return out.getvalue()


def confusion_csv(rows: Sequence[RowResult], order: Sequence[str] = ()) -> str:
    """What the boxes of each bin are taken for: row, seed, bin of the box (or background), bin it is taken for (or
    missed), how often."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("row", "seed", "bin", "taken_for", "count"))
    for label, group in by_row(rows, order).items():
        for result in group:
            table = result.errors.confusion if result.errors is not None else ()
            last = len(table) - 1
            for i, line in enumerate(table):
                for j, number in enumerate(line):
                    if (i, j) != (last, last):
                        truth = "background" if i == last else str(i + 1)
                        found = "missed" if j == last else str(j + 1)
                        writer.writerow((cell_text(label), result.record.seed, truth, found, number))
    return out.getvalue()


def _value(result: RowResult, name: str, what: str) -> float | None:
    assert result.errors is not None
    group = result.errors.groups[name]
    if what in KINDS:
        cost: float | None = getattr(group.costs, what)
        return None if cost is None else 100.0 * cost
    return float(group.classes_unfound if what == UNFOUND else getattr(group.counts, what))


def _classes(results: Iterable[RowResult]) -> dict[str, str]:
    """Group -> how many classes it has: where data follow the seed, from the fewest to the most."""
    found: dict[str, set[int]] = {}
    for result in results:
        for name, group in (result.errors.groups if result.errors is not None else {}).items():
            found.setdefault(name, set()).add(group.classes)
    return {name: "-".join(str(n) for n in sorted({min(of), max(of)})) for name, of in found.items()}


def _lines(result: RowResult) -> Iterator[tuple[object, ...]]:
    for name, group in (result.errors.groups if result.errors is not None else {}).items():
        counts, costs = asdict(group.counts), asdict(group.costs)
        ap50 = "" if group.ap50 is None else f"{100 * group.ap50:.6g}"
        for kind in dict.fromkeys([*counts, *costs]):
            cost = costs.get(kind)
            points = "" if cost is None else f"{100 * cost:.6g}"
            of_group = (group.classes, group.classes_unfound, group.boxes, group.found, ap50)
            yield name, kind, counts.get(kind, ""), points, *of_group


def _grid(axes: Axes, cells: Sequence[Sequence[Cell]], highest: float) -> None:
    """Shaded by cost on one scale for all panels, and numbered: it can be read without colour. The last column is no
    cost, and not shaded."""
    values = [[max(0.0, cell.mean or 0.0) if x < len(KINDS) else 0.0 for x, cell in enumerate(line)] for line in cells]
    axes.imshow(values, cmap="Blues", vmin=0, vmax=highest, aspect="auto")
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            dark = values[y][x] > DARK * highest
            text = "-" if cell == MISSING or cell.mean is None else f"{cell.mean:.1f}"
            text = text.removesuffix(".0") if x == len(KINDS) else text
            axes.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if dark else "0.15")
    axes.axvline(len(KINDS) - 0.5, color="0.5", linewidth=0.8)
    names = [*KINDS.values(), "unfound classes"]
    axes.set_xticks(range(len(names)), names, rotation=55, ha="right", rotation_mode="anchor", fontsize=8)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
