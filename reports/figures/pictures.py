"""Figures of images: where a model's last map is large, and what the decoder of a pre-training paints. Separate from
bars and lines, which show numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from reports.figures.canvas import Drawing, blank, finish
from reports.figures.lettering import INCH, fitted
from reports.figures.scene import Scene
from reports.load import RowResult
from reports.looks import Attended, Attention, Floats, Painted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ATTENDED = ("row", "training", "image", "class", "training_instances", "inside", "area")
PAINTED = ("row", "training", "image", "shown", "error", "error_of_mean")
SIDE = 1.5  # inches of a picture
LINE, BELOW = 0.135, 0.2  # inches of a line above it, and of the one below with what keeps them apart
BOX = "#ff2d2d"


def attention(scene: Scene) -> Drawing | None:
    """Images of val with the rarest classes, one a line: the image with the boxes of that class, then for each row and
    training the mean over channels of the backbone's last map, its largest value white. `inside`: the share of the map
    within the boxes, beside the share of the area that they have (the energy-based pointing game of Wang et al. 2020).

    Returns:
        None where no row has maps.
    """
    shown = [(_named(r.record.row, one), r, one) for r in scene.rows for one in r.looks.attention if one.images]
    if not shown:
        return None
    known: dict[int, Attended] = {seen.image: seen for _, _, one in shown for seen in one.images}
    at = {image: i for i, image in enumerate(known)}
    titles = {image: _class_of(seen, shown[0][1]) for image, seen in known.items()}
    lines_above = 1 + max(text.count("\n") for text in (*titles.values(), *(name for name, _, _ in shown)))
    height_in = SIDE + BELOW + LINE * lines_above
    figure, panels = blank(SIDE * (1 + len(shown)), height_in * len(known), len(known), 1 + len(shown))
    grid = np.array(panels, dtype=object).reshape(len(known), 1 + len(shown))
    lines: list[tuple[object, ...]] = []
    for image, seen in known.items():
        axes = grid[at[image], 0]
        _picture(axes, seen.pixels)
        _boxes(axes, seen)
        axes.set_title(titles[image], fontsize=8)
    for column, (name, result, one) in enumerate(shown, 1):
        for axes in grid[:, column]:
            axes.set_axis_off()
        grid[0, column].set_title(name, fontsize=8)
        for seen in one.images:
            axes = grid[at[seen.image], column]
            height, width = seen.pixels.shape[:2]
            _frame(axes)
            axes.imshow(seen.map, cmap="magma", vmin=0, extent=(0, width, height, 0), interpolation="bilinear")
            _boxes(axes, seen)
            inside, area = shares(seen)
            axes.set_xlabel(f"{100 * inside:.0f} % of it in {100 * area:.0f} %", fontsize=7)
            count = result.instance_counts[seen.label]
            lines.append((result.record.row, one.number, seen.image, _name(seen, result), count, inside, area))
    said = "Brighter: larger mean over the channels of the last map, each picture by its own largest value; below it "
    said += "how much of the map is in the boxes, and their share of the image."
    return Drawing(finish(figure, {}, f"{scene.caption} {said}".strip(), scene.title), ATTENDED, tuple(lines))


def reconstructions(scene: Scene) -> Drawing | None:
    """Four lines for each row that paints: images of its pre-training's last step, what is painted from their map, the
    same images masked, and what is painted from these.

    Returns:
        None where no row has a decoder.
    """
    shown = [(r, one) for r in scene.rows for one in _by_training(r.looks.painted)]
    if not shown:
        return None
    kinds = ("image", "painted", "masked", "painted from it")
    columns = max(len(images) for _, images in shown)
    figure, panels = blank(SIDE * columns, SIDE * len(kinds) * len(shown), len(kinds) * len(shown), columns)
    grid = np.array(panels, dtype=object).reshape(len(shown), len(kinds), columns)
    lines: list[tuple[object, ...]] = []
    for block, (result, images) in zip(grid, shown, strict=True):
        for axes in block.flat:
            axes.set_axis_off()
        for k, one in enumerate(images):
            pictures = (one.view, one.view_painted, one.masked, one.masked_painted)
            for axes, picture in zip(block[:, k], pictures, strict=True):
                _picture(axes, picture)
            for line, what, picture in ((1, "whole", one.view_painted), (3, "masked", one.masked_painted)):
                off, flat = error(one, picture), error(one, one.view.mean((0, 1), keepdims=True))
                block[line, k].set_xlabel(f"error {off:.2f} of {flat:.2f}", fontsize=7)
                lines.append((result.record.row, one.number, k, what, off, flat))
        for axes, kind in zip(block[:, 0], kinds, strict=True):
            axes.set_ylabel(
                f"{fitted(result.record.row, 8, SIDE * INCH - 6)}\n{kind}" if kind == kinds[0] else kind, fontsize=8
            )
    said = "Images of the last step of pre-training. Error: mean square of normalised pixels against the whole image, "
    said += "beside that of the image's mean colour."
    return Drawing(finish(figure, {}, f"{scene.caption} {said}".strip(), scene.title), PAINTED, tuple(lines))


def shares(seen: Attended) -> tuple[float, float]:
    """(share of the map inside the boxes, share of the image inside them), by the cells' centres; of boxes so small
    that no centre is inside, the cells that hold their centres."""
    rows, columns = seen.map.shape
    y, x = (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns
    inside = np.zeros((rows, columns), bool)
    for x1, y1, x2, y2 in seen.boxes:
        of_box = ((y >= y1) & (y < y2))[:, None] & ((x >= x1) & (x < x2))[None]
        if not of_box.any():
            of_box[min(rows - 1, int((y1 + y2) / 2 * rows)), min(columns - 1, int((x1 + x2) / 2 * columns))] = True
        inside |= of_box
    total = float(seen.map.sum())
    return (float(seen.map[inside].sum()) / total if total > 0 else 0.0), float(inside.mean())


def error(one: Painted, picture: Floats) -> float:
    """Mean square of the difference from the whole image, in normalised pixels."""
    return float(np.square((picture - one.view) / one.scale).mean())


def _by_training(painted: Sequence[Painted]) -> list[list[Painted]]:
    return [[one for one in painted if one.number == number] for number in sorted({one.number for one in painted})]


def _named(label: str, one: Attention) -> str:
    name = fitted(label, 8, SIDE * INCH - 6, lines=2)
    return name if one.last else f"{name},\nafter training {one.number}"


def _name(seen: Attended, result: RowResult) -> str:
    classes = result.record.per_class
    return classes.names[seen.label] if classes is not None else str(seen.label)


def _class_of(seen: Attended, result: RowResult) -> str:
    """kestrel (3), in lines as wide as a picture"""
    counts = result.instance_counts
    name = f"{_name(seen, result)} ({counts[seen.label]})" if counts else _name(seen, result)
    return fitted(name, 8, SIDE * INCH - 6, lines=3)


def _frame(axes: Axes) -> None:
    axes.set_axis_on()
    axes.set_anchor("S")  # what is left of the height is its title's
    axes.set_xticks([])
    axes.set_yticks([])


def _picture(axes: Axes, pixels: Floats) -> None:
    _frame(axes)
    height, width = pixels.shape[:2]
    axes.imshow(np.clip(pixels, 0, 1), extent=(0, width, height, 0))


def _boxes(axes: Axes, seen: Attended) -> None:
    from matplotlib.patches import Rectangle

    height, width = seen.pixels.shape[:2]
    for x1, y1, x2, y2 in seen.boxes:
        corner, size = (x1 * width, y1 * height), ((x2 - x1) * width, (y2 - y1) * height)
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=BOX, linewidth=1.0))
