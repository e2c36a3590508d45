"""A dozen val images, the same for every row, with what each row detects in them. Separate from pictures.py, whose
images are of a model's inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bench.evaluation.ap import Ints
from bench.evaluation.judged import Kind
from reports.detected import RULE, Boxes, Seen
from reports.figures.canvas import Drawing, blank, finish
from reports.figures.lettering import INCH, fitted
from reports.figures.scene import Scene
from reports.footnotes import some_rows
from reports.load import RowResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("row", "seed", "image", "file", "what", "class", "score", "of_class")
MOST = 4  # rows beside the true boxes unless they are named
SIDE = 1.6  # inches of a picture
# Name, colour that the colour-blind tell apart, and dash in points: the same as in the image browser.
STYLES: dict[int, tuple[str, str, tuple[float, ...]]] = {
    Kind.TRUE_POSITIVE: ("true positive", "#0072b2", ()),
    Kind.CLASSIFICATION: ("classification", "#d55e00", (6, 2)),
    Kind.LOCALISATION: ("localisation", "#b07a00", (3, 1.5)),
    Kind.BOTH: ("class and place", "#b3508a", (6, 1.5, 1, 1.5)),
    Kind.DUPLICATE: ("duplicate", "#1c8cc4", (1, 1.5)),
    Kind.BACKGROUND: ("background", "#8a1c1c", (6, 1.5, 1, 1.5, 1, 1.5)),
    Kind.MISSED: ("missed box", "#111111", (1.5, 1.5)),
}
TRUE = ("box", "#111111", ())


def contact_sheet(scene: Scene, *, labels: Sequence[str] = ()) -> Drawing | None:
    """One image a line: with its true boxes, and as each row sees it: of the judged detections the best, as many as the
    image has boxes, by kind; and the boxes that the row misses. So no threshold of scores is needed, which would mean
    something else for every row.

    Args:
        scene: of one seed.
        labels: rows to draw; () draws the first MOST.

    Returns:
        None where no row has a sheet.
    """
    having = [row for row in scene.rows if row.sheet is not None]
    if not having:
        return None
    first = having[0].sheet
    assert first is not None
    same = [row for row in having if row.sheet is not None and row.sheet.val is first.val]
    drawn, images = same if labels else same[:MOST], first.val.split.images
    figure, panels = blank(SIDE * (1 + len(drawn)), SIDE * len(images), len(images), 1 + len(drawn))
    grid = np.array(panels, dtype=object).reshape(len(images), 1 + len(drawn))
    lines: list[tuple[object, ...]] = []
    used: dict[str, Any] = {}
    for i, image in enumerate(images):
        boxes, names = first.val.boxes[i], [category.name for category in first.val.split.categories]
        _picture(grid[i, 0], first.pictures[i], image.width, image.height)
        for xywh in boxes.xywh:
            used[TRUE[0]] = _box(grid[i, 0], xywh.tolist(), TRUE)
        grid[i, 0].set_ylabel(_chosen_for(names, int(first.val.chosen_for[i]), drawn[0]), fontsize=7)
        for column, row in enumerate(drawn, 1):
            assert row.sheet is not None
            seen = row.sheet.seen[i]
            _picture(grid[i, column], row.sheet.pictures[i], image.width, image.height)
            used |= _detections(grid[i, column], boxes, seen)
            lines += [
                (row.record.row, row.record.seed, image.id, image.file_name, *of) for of in _lines(boxes, seen, names)
            ]
    for axes, name in zip(grid[0], ("true boxes", *(row.record.row for row in drawn)), strict=True):
        axes.set_title(fitted(name, 8, SIDE * INCH - 6, lines=2), fontsize=8)
    order = [TRUE[0], *(name for name, _, _ in STYLES.values())]
    legend = {name: used[name] for name in order if name in used}
    said = (
        f"Images by their true boxes alone: {RULE}. Of a row the best judged detections, as many as an image has boxes."
    )
    left = [row.record.row for row in scene.rows if row not in drawn]
    said += f" Not drawn: {some_rows(left)}." if left else ""
    return Drawing(finish(figure, legend, f"{scene.caption} {said}".strip(), scene.title), COLUMNS, tuple(lines))


def best(boxes: Boxes, seen: Seen) -> Ints:
    """Positions of the judged detections that are drawn."""
    return np.asarray(np.flatnonzero(seen.kind >= 0)[: int(boxes.counts.sum())])


def _detections(axes: Axes, boxes: Boxes, seen: Seen) -> dict[str, Any]:
    """Draws them; name of each kind that there is -> one of it."""
    found: dict[str, Any] = {}
    for xywh in boxes.xywh[seen.missed]:
        found[STYLES[Kind.MISSED][0]] = _box(axes, xywh.tolist(), STYLES[Kind.MISSED])
    for d in best(boxes, seen)[::-1]:  # the best on top
        style = STYLES[int(seen.kind[d])]
        found[style[0]] = _box(axes, seen.xywh[d].tolist(), style)
    return found


def _lines(boxes: Boxes, seen: Seen, names: Sequence[str]) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for d in best(boxes, seen):
        of = names[boxes.label[seen.box[d]]] if seen.box[d] >= 0 else None
        found.append((STYLES[int(seen.kind[d])][0], names[seen.label[d]], float(seen.score[d]), of))
    return found + [(STYLES[Kind.MISSED][0], names[k], None, None) for k in boxes.label[seen.missed]]


def _chosen_for(names: Sequence[str], label: int, row: RowResult) -> str:
    """kestrel (3), in lines as long as a picture is high."""
    if label < 0:
        return "no box"
    classes = row.record.per_class
    count = f" ({row.instance_counts[label]})" if classes is not None and label < len(row.instance_counts) else ""
    return fitted(f"{names[label]}{count}", 7, SIDE * INCH - 6, lines=3)


def _picture(axes: Axes, pixels: Any, width: int, height: int) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation="none")  # in an svg: not made larger


def _box(axes: Axes, xywh: list[float], style: tuple[str, str, tuple[float, ...]]) -> Any:
    """A box on a white edge, so that it is seen on any picture."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    x, y, width, height = xywh
    _, colour, dash = style
    drawn = cast("Any", (0, dash) if dash else "-")
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="white", linewidth=2.4))
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1.2, linestyle=drawn))
    return Line2D([], [], color=colour, linewidth=1.6, linestyle=drawn)
