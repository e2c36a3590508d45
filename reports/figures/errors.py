"""What each kind of error costs, for all classes and by instance bin: a figure and a long table. Separate from
predictions.py, which makes the counts.

Kinds: TIDE (Bolya et al., ECCV 2020) under LVIS' rules, bench/evaluation/error_kinds.py.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from bench.errors import cell_text
from reports.figures.canvas import Drawing, bins_of, blank, finish, numbers, over
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
MOST_ROWS = 20
DARK = 0.55  # of the scale; above it a number is white
FIELDS = ("row", "seed", "group", "kind", "count", "cost", "classes", "classes_unfound", "boxes", "found", "ap50")
SAID = (
    "AP50 points that each kind of error costs, alone put right (TIDE); kinds do not add up. A missed box of a class of"
    " which nothing is found costs nothing, since no precision is known of it: how many such classes the first row has "
    "at its first seed stands below."
)


def error_costs(scene: Scene) -> Drawing | None:
    """A grid of rows and kinds for all classes and for each bin, the mean over seeds in each cell.

    Returns:
        None where no row has its errors.
    """
    shown = _with_errors(scene.rows, scene.order)
    if not shown:
        return None
    first = next(iter(shown.values()))[0].errors
    assert first is not None
    cells = costs(scene.rows, scene.order)
    names = list(dict.fromkeys(name for _, name, _ in cells))
    drawn, caption = list(shown)[:MOST_ROWS], scene.caption
    if len(drawn) < len(shown):
        caption += f" {len(drawn)} of {len(shown)} rows, the first of the suite; all are in error_kinds.csv."
    label_in = 0.075 * max(map(len, drawn))
    figure, every = blank(label_in + 0.4 + 2.0 * len(names), 1.5 + 0.22 * len(drawn), 1, len(names))
    highest = max([cell.mean for cell in cells.values() if cell.mean is not None] or [1.0])
    for place, (name, axes) in enumerate(zip(names, every, strict=True)):
        _grid(axes, [[cells[label, name, kind] for kind in KINDS] for label in drawn], highest)
        axes.set_yticks(range(len(drawn)), drawn if place == 0 else [""] * len(drawn), fontsize=8)
        axes.set_title("\n".join(filter(None, (name, over(name, scene.edges)))), fontsize=9)
        unfound = first.groups[name].classes_unfound
        axes.set_xlabel(f"{unfound} of {first.groups[name].classes} classes unfound", fontsize=7, color="0.3")
    lines = [(label, name, kind, *numbers(cell)) for (label, name, kind), cell in cells.items()]
    return Drawing(
        finish(figure, {}, f"{caption} {SAID}".strip(), scene.title),
        ("row", "group", "kind", "mean", "sd", "n"),
        tuple(lines),
    )


def costs(rows: Sequence[RowResult], order: Sequence[str] = ()) -> dict[tuple[str, str, str], Cell]:
    """(row, AP or APi, kind) -> AP50 points that this kind costs, over the seeds; of rows that have their errors."""
    shown = _with_errors(rows, order)
    found = next((group[0].errors for group in shown.values()), None)
    names = bins_of(found.groups if found else ())
    return {
        (label, name, kind): summarise(_cost(result, name, kind) for result in group)
        for label, group in shown.items()
        for name in names
        for kind in KINDS
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


def _cost(result: RowResult, name: str, kind: str) -> float | None:
    assert result.errors is not None
    value: float | None = getattr(result.errors.groups[name].costs, kind)
    return None if value is None else 100.0 * value


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
    """Shaded by cost on one scale for all panels, and numbered: it can be read without colour."""
    values = [[max(0.0, cell.mean or 0.0) for cell in line] for line in cells]
    axes.imshow(values, cmap="Blues", vmin=0, vmax=highest, aspect="auto")
    for y, line in enumerate(cells):
        for x, cell in enumerate(line):
            dark = values[y][x] > DARK * highest
            text = "-" if cell == MISSING or cell.mean is None else f"{cell.mean:.1f}"
            axes.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if dark else "0.15")
    axes.set_xticks(
        range(len(KINDS)), list(KINDS.values()), rotation=55, ha="right", rotation_mode="anchor", fontsize=8
    )
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
