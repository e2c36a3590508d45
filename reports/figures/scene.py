"""What every figure is drawn from, whatever its kind. Separate from canvas.py, which knows paper and no results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.figures.canvas import DEFAULT_EDGES
from reports.load import RowResult
from reports.stats import by_row


@dataclass(frozen=True)
class Scene:
    """The results in a figure, and what is written around them.

    Attributes:
        rows: one result per row and seed.
        order: labels in the order of the suite.
        edges: of the instance bins.
        caption: for below the figure: what was run, and which seeds are shown.
        title: for above it.
    """

    rows: Sequence[RowResult]
    order: Sequence[str] = ()
    edges: Sequence[int] = DEFAULT_EDGES
    caption: str = ""
    title: str | None = None

    @property
    def groups(self) -> dict[str, list[RowResult]]:
        """Label -> its results by ascending seed, in the order of the suite."""
        return by_row(self.rows, self.order)
