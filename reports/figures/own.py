"""A user's own figure: one file with a function `draw`. Separate from kinds.py, which draws ours."""

from __future__ import annotations

import traceback
from pathlib import Path

from bench.errors import UserError
from bench.suite.catalogue import imported
from reports.figures.canvas import Drawing
from reports.figures.scene import Scene


def own_drawing(scene: Scene, file: Path) -> Drawing | None:
    """What `draw(rows, *, order, edges, caption, title)` of a file returns.

    The file is a suite's (`figures_path`), so its code is run, as a method's is. Its `draw` knows no Scene: users have
    written such files.

    Args:
        file: Python, with a function `draw` that returns a `reports.figures.canvas.Drawing`, or None where rows have
            nothing to show; see CONTRIBUTING.md.

    Raises:
        UserError: no function `draw`, it raised, or it returned something else; with file and line.
    """
    draw = getattr(imported(file, "figure"), "draw", None)
    if not callable(draw):
        raise UserError("it has no function draw(rows, *, order, edges, caption, title)", where=str(file))
    try:
        drawing = draw(scene.rows, order=scene.order, edges=scene.edges, caption=scene.caption, title=scene.title)
    except Exception as error:
        own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        where = f"{file}:{own[-1]}" if own else str(file)
        raise UserError(f"{type(error).__name__}: {error}", where=where) from error
    if drawing is not None and not isinstance(drawing, Drawing):
        what = f"draw returned {type(drawing).__name__}, not a reports.figures.canvas.Drawing or None"
        raise UserError(what, where=str(file))
    return drawing
