"""Write the report of a search beside that of its final rows. Separate because it is the one function that the command
line calls: what was searched, the gain, the trials, the figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.search.view import View
from bench.store.disk import make_folder, put
from reports.figures.canvas import FORMATS, Drawing, save
from reports.figures.kinds import Drawn
from reports.figures.lettering import boxes_said, undrawable
from reports.load import RowResult
from reports.search import text as search_text
from reports.search.searched import Searched
from reports.search.space_figures import contour, curves, importance, slices
from reports.search.trial_figures import history, intermediate, pareto
from reports.write import Written, writing

TITLES = {
    "history": "Trials in their order",
    "slice": "The objective over each setting",
    "contour": "The objective over two settings",
    "importance": "How much each setting matters",
    "pareto": "Pareto front of the objectives",
    "intermediate": "Trials at their rungs",
}


@dataclass(frozen=True)
class SearchReport(Written):
    """What `write_search` left, with what its files were written from.

    Attributes:
        found: of all texts and figures.
        figures: with their captions.
    """

    found: Searched
    figures: tuple[Drawn, ...]


def write_search(
    view: View,
    trials: Sequence[RowResult],
    finals: Sequence[RowResult],
    folder: Path,
    heading: str,
    *,
    untouched: Mapping[str, str],
    importances: Mapping[str, float],
    edges: Sequence[int],
    formats: Sequence[str] = FORMATS,
) -> SearchReport:
    """search.txt, search.md, trials.csv and the figures of a search.

    Args:
        view: the search.
        trials: records of its complete trials where they were measured: rows "trial N", one per seed.
        finals: records on val of all rows of the final plan.
        folder: where the report of the final plan is; made if missing.
        heading: of the suite.
        untouched: label of each searched row, in the order of `View.finals` -> the row it started from.
        importances: dimension -> its share, the largest first.
        edges: of the instance bins.
        formats: of figures.

    Raises:
        UserError: `folder` cannot be written.
    """
    found = Searched(view, trials, finals, heading, untouched, importances, edges)
    texts = {
        "search.txt": search_text.to_text(found),
        "search.md": search_text.to_markdown(found),
        "trials.csv": search_text.to_csv(found),
    }
    drawn, lacking, letters = [], [], set[str]()
    with writing(folder):
        make_folder(folder)
        for name, text in texts.items():
            put(folder / name, text.encode())
        for name, drawing in _figures(found).items():
            if isinstance(drawing, str):
                lacking.append(f"no figure {name}: {drawing}")
            else:
                files = save(_marked(drawing, view.mark), folder / name, formats)
                letters |= undrawable(drawing.figure)
                title = TITLES.get(name) or f"Metrics over {name.removeprefix('curve_')}"
                drawn.append(Drawn(name, title, str(drawing.figure.get_label()), tuple(files)))
    if letters:
        lacking.append(boxes_said(letters, (heading, *untouched)))
    every = (*(folder / name for name in texts), *(file for one in drawn for file in one.files))
    return SearchReport(every, tuple(lacking), found, tuple(drawn))


def _figures(found: Searched) -> dict[str, Drawing | str]:
    """Name of the file -> the drawing, or why there is none."""
    over = {f"curve_{name.replace('.', '_')}" if name else "curve": drawing for name, drawing in curves(found).items()}
    return {
        "history": history(found),
        "slice": slices(found),
        "contour": contour(found),
        "importance": importance(found),
        "pareto": pareto(found),
        "intermediate": intermediate(found),
        **over,
    }


def _marked(drawing: Drawing, mark: str) -> Drawing:
    """With the mark of a search on val in each line of its CSV; the caption has it already."""
    if not mark:
        return drawing
    return replace(drawing, columns=(*drawing.columns, "note"), lines=tuple((*line, mark) for line in drawing.lines))
