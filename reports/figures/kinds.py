"""From a suite's `figures:` to files with names. Separate from the drawing: which rows, which caption and
which name is decided alike for every kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UserError
from bench.spec import FIGURES, Figure
from reports.figures.bars import ap_by_bin, bars
from reports.figures.calibration import calibration_curves
from reports.figures.canvas import DEFAULT_EDGES, FORMATS, Drawing, save
from reports.figures.classes import per_class
from reports.figures.confusion import confusion
from reports.figures.contact_sheet import contact_sheet
from reports.figures.cost import cost
from reports.figures.curves import curves
from reports.figures.errors import error_costs
from reports.figures.gain import gain
from reports.figures.lines import points
from reports.figures.norms import weight_norms
from reports.figures.own import own_drawing
from reports.figures.pictures import attention, reconstructions
from reports.figures.probe import probe_bars
from reports.figures.ranking import ranking
from reports.figures.recall import recall_dots
from reports.figures.sweep import sweep
from reports.figures.tradeoff import tradeoff
from reports.figures.training import class_counts, embeddings, loss_shares
from reports.footnotes import figure_caption, some_rows
from reports.load import RowResult
from reports.settings import ABSENT

if TYPE_CHECKING:
    from bench.plan.planning import RowPlan

DEFAULT = (Figure(kind="bins"), Figure(kind="norms"), Figure(kind="errors"))
NAMES = {
    "bins": "ap_by_bin", "norms": "weight_norms", "bars": "bars", "counts": "class_counts", "losses": "losses",
    "embeddings": "embeddings", "linear_probe": "linear_probe", "attention": "attention",
    "reconstructions": "reconstructions", "cost": "cost", "errors": "error_costs", "ranking": "ranking",
    "calibration": "calibration", "recall": "recall", "tradeoff": "head_and_tail", "classes": "ap_by_class",
    "confusion": "confusion_of_bins", "curves": "curves", "gain": "cost_and_gain",
    "contact_sheet": "contact_sheet",
}  # fmt: skip
OF_TRAININGS = {"counts": class_counts, "losses": loss_shares, "embeddings": embeddings, "curves": curves}
OF_ROWS = {
    "errors": error_costs, "ranking": ranking, "recall": recall_dots, "tradeoff": tradeoff, "confusion": confusion,
    "gain": gain,
}  # fmt: skip
WITH_SD = ("tradeoff", "gain")  # of OF_ROWS, those that show the spread over seeds
OF_IMAGES = {"attention": attention, "reconstructions": reconstructions}
LACKING = {
    "norms": "no row has weights of one row per class",
    "counts": "none of its rows was trained on chosen annotations",
    "losses": "none of its rows has a loss beside the detector's",
    "linear_probe": "none of its rows has a probe that is done",
    "embeddings": "none of its rows has a pre-training that compares embeddings",
    "attention": "none of its rows has a map that is done (the engine must give those of its backbone)",
    "reconstructions": "none of its rows has a pre-training that paints images",
    "cost": "none of its rows has a training whose time is known",
    "ranking": "fewer than four of its rows have draws of val images that show enough (report --intervals makes them)",
    "errors": "the kinds of its errors were not made (report --intervals makes them)",
    "calibration": "the calibration of its scores was not made (report --intervals makes it)",
    "confusion": "the kinds of its errors were not made (report --intervals makes them)",
    "tradeoff": "none of its rows has AP both of the rarest and of the most frequent classes",
    "classes": "none of its rows has AP per class",
    "curves": "none of its rows has a training whose losses are known",
    "gain": "no row beside the baseline has a training whose time is known",
    "recall": "the recall of its proposals was not made (report --intervals makes it where they are stored)",
    "contact_sheet": "its val images cannot be read, or the predictions of its rows are no longer in the store",
}
NO_TITLE = {
    "bins": "AP by training instances", "norms": "Weight norms by class", "bars": "Metrics by row",
    "counts": "Class counts of the trainings", "losses": "Losses of the trainings", "cost": "Cost of the trainings",
    "embeddings": "Embeddings over a pre-training", "linear_probe": "Linear probes", "attention": "Last maps",
    "reconstructions": "Painted images", "errors": "Cost of each kind of error", "ranking": "Ranks under new draws",
    "tradeoff": "Head against tail", "classes": "AP by class", "confusion": "What boxes of each bin are taken for",
    "curves": "Losses over the trainings", "gain": "Cost against gain",
    "contact_sheet": "Val images with boxes and detections",
}  # fmt: skip
OF_ALL_SEEDS = {"confusion": "All seeds together."}
OVER_SEEDS = "Mean over seeds, with one sample standard deviation."


@dataclass(frozen=True)
class Drawn:
    """A figure that was written.

    Attributes:
        title: the suite's, else what its kind shows.
        caption: as below the figure, on one line.
        files: its png, svg and csv.
    """

    name: str
    title: str
    caption: str
    files: tuple[Path, ...]


def draw(
    rows: Sequence[RowResult],
    out: Path,
    wanted: Sequence[Figure],
    *,
    suite: str,
    order: Sequence[str] = (),
    edges: Sequence[int] = DEFAULT_EDGES,
    planned: Sequence[RowPlan] = (),
    own: Mapping[str, Path] | None = None,
    formats: Sequence[str] = FORMATS,
) -> tuple[list[Drawn], list[str]]:
    """Write each figure as png, svg and csv.

    Args:
        rows: one result per row and seed.
        out: an existing folder.
        wanted: () draws DEFAULT.
        suite: for the captions.
        order: labels in suite order.
        edges: of the instance bins.
        planned: the suite's rows with their settings, done or not.
        own: kind -> file, of figures that are a user's own (figures_path).
        formats: of the files, beside the csv: png, svg, pdf.

    Returns:
        (what was written, one sentence for each figure of `wanted` that cannot be drawn).
    """
    written: list[Drawn] = []
    lacking: list[str] = []
    if not rows:
        return written, lacking
    for figure, name in zip(wanted or DEFAULT, names(wanted or DEFAULT), strict=True):
        shown = _labels(figure, rows, planned)
        chosen = [result for result in rows if result.record.row in shown]
        drawing, why = None, ""
        if chosen and figure.kind in (own or {}):
            drawing, why = drawn_by((own or {})[figure.kind], figure, chosen, suite, order, edges)
        elif figure.kind not in FIGURES:  # a report that came without its suite's files
            why = "its file is not here (figures_path)"
        else:
            drawing = _drawing(figure, chosen, suite, order, edges, planned) if chosen else None
        if drawing is not None:
            title = figure.title or NO_TITLE.get(figure.kind) or (f"Metrics over {figure.x}" if figure.x else name)
            files = save(drawing, out / name, formats)
            written.append(Drawn(name, title, str(drawing.figure.get_label()), tuple(files)))
        elif wanted:
            lacking.append(f"no figure {name}: {why or _why(figure, bool(chosen))}")
    return written, lacking


def names(figures: Sequence[Figure]) -> list[str]:
    """sweep_beta, bars, ap_by_bin, weight_norms; the second of one name is bars_2."""
    found: list[str] = []
    for figure in figures:
        plain = f"sweep_{(figure.x or '').replace('.', '_')}" if figure.x else NAMES.get(figure.kind, figure.kind)
        numbered = (f"{plain}_{number}" for number in count(2))
        found.append(plain if plain not in found else next(name for name in numbered if name not in found))
    return found


def drawn_by(
    file: Path, figure: Figure, rows: Sequence[RowResult], suite: str, order: Sequence[str], edges: Sequence[int]
) -> tuple[Drawing | None, str]:
    """What a file of figures_path draws, or why it does not: its mistakes cost the report that one figure."""
    several = len({result.record.seed for result in rows}) > 1
    caption = figure_caption(rows, suite, "Several seeds a row." if several else "One run a row.")
    try:
        return own_drawing(file, rows, order=order, edges=edges, caption=caption, title=figure.title), ""
    except UserError as error:
        return None, f"{error.what} ({error.where})"


def _labels(figure: Figure, rows: Sequence[RowResult], planned: Sequence[RowPlan]) -> set[str]:
    """The rows in a figure."""
    if figure.x is not None:
        found = points(rows, figure.x, labels=figure.rows, planned=planned)
        return {point.row for point in found} if any(point.x is not ABSENT for point in found) else set()
    return set(figure.rows) or {result.record.row for result in rows}


def _drawing(
    figure: Figure,
    rows: Sequence[RowResult],
    suite: str,
    order: Sequence[str],
    edges: Sequence[int],
    planned: Sequence[RowPlan],
) -> Drawing | None:
    several = len({result.record.seed for result in rows}) > 1
    caption = figure_caption(rows, suite, OVER_SEEDS if several else "One run a row.")
    done = {result.record.row for result in rows}
    absent = [label for label in (figure.rows or order) if label not in done]
    if figure.kind in ("bins", "bars") and all(result.draws is not None for result in rows):
        caption = figure_caption(rows, suite, "Mean over seeds." if several else "One run a row.")
    if absent and figure.kind in ("bins", "bars"):
        caption += f" Without a result: {some_rows(absent)}."
    if figure.kind == "bins":
        return ap_by_bin(rows, order=order, edges=edges, caption=caption, title=figure.title)
    if figure.kind == "linear_probe":
        return probe_bars(rows, order=order, edges=edges, caption=caption, title=figure.title)
    if figure.kind == "bars":
        return bars(rows, figure.metrics, order=order, edges=edges, caption=caption, title=figure.title)
    if figure.kind == "cost":
        return cost(rows, order=order, caption=caption, title=figure.title)
    if figure.kind in OF_ROWS:
        if several and figure.kind not in WITH_SD:
            caption = figure_caption(rows, suite, OF_ALL_SEEDS.get(figure.kind, "Mean over seeds."))
        return OF_ROWS[figure.kind](rows, order=order, edges=edges, caption=caption, title=figure.title)
    if figure.kind == "classes":
        caption = figure_caption(rows, suite, "")
        return per_class(rows, labels=figure.rows, order=order, edges=edges, caption=caption, title=figure.title)
    if figure.kind == "sweep":
        assert figure.x is not None
        return sweep(
            rows, figure.x, figure.metrics, by=figure.by, labels=figure.rows, planned=planned, order=order, edges=edges,
            caption=caption, title=figure.title,
        )  # fmt: skip
    first = min(result.record.seed for result in rows)
    shown = [result for result in rows if result.record.seed == first]
    caption = figure_caption(shown, suite, f"Seed {first} of each row." if several else "One run a row.")
    if figure.kind == "calibration":
        return calibration_curves(shown, order=order, edges=edges, caption=caption, title=figure.title)
    if figure.kind == "contact_sheet":
        return contact_sheet(shown, labels=figure.rows, caption=caption, title=figure.title)
    if figure.kind in OF_IMAGES:
        return OF_IMAGES[figure.kind](shown, caption=caption, title=figure.title)
    if figure.kind in OF_TRAININGS:
        chains = {result.record.row: result.trainings for result in shown}
        return OF_TRAININGS[figure.kind](chains, caption=caption, title=figure.title)
    return weight_norms(shown, labels=figure.rows, edges=edges, caption=caption, title=figure.title)


def _why(figure: Figure, some: bool) -> str:
    if some:
        return LACKING.get(figure.kind, "its file draws nothing of these rows")
    return f"no row with a result has the setting {figure.x}" if figure.x else "none of its rows has a result"
