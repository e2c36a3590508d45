"""The image browser beside the page of a report, with a bar while thumbnails are made. Separate from tables.py, which
writes what takes no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

from bench.plan.planning import Plan
from bench.store.store import Store
from reports.load import RowResult

if TYPE_CHECKING:
    from reports.page.images import Browser


def write_images(
    plan: Plan, store: Store, results: Sequence[RowResult], folder: Path, console: Console, most: int
) -> tuple[Browser | None, list[str]]:
    """images.html and its folder; see `reports.page.images.write_browser`.

    Args:
        plan: of `results`.
        store: where predictions are.
        results: what is done.
        folder: the report's.
        console: where the bar is drawn.
        most: images of each val.

    Raises:
        UserError: the folder cannot be written, or predictions were changed.
    """
    from reports.page.images import write_browser
    from reports.write import writing

    with writing(folder), Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("images", total=None)
        return write_browser(
            results,
            plan.stages,
            store,
            folder,
            plan.suite.heading,
            most,
            lambda number: bar.update(task, advance=number),
        )
