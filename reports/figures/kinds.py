"""From a suite's `figures:` to files with names. Separate from the drawing: which rows, which caption and
which name is decided alike for every kind.

A kind is an entry of KINDS; nothing else asks for one by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UserError
from bench.spec import Figure
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
from reports.figures.lettering import boxes_said, undrawable
from reports.figures.lines import points
from reports.figures.norms import weight_norms
from reports.figures.own import own_drawing
from reports.figures.pictures import attention, reconstructions
from reports.figures.probe import probe_bars
from reports.figures.ranking import ranking
from reports.figures.recall import recall_dots
from reports.figures.scene import Scene
from reports.figures.sweep import sweep
from reports.figures.tradeoff import tradeoff
from reports.figures.training import class_counts, embeddings, loss_shares
from reports.footnotes import figure_caption, some_rows
from reports.load import RowResult
from reports.settings import ABSENT
from reports.trainings import Training

if TYPE_CHECKING:
    from bench.plan.planning import RowPlan

    Draw = Callable[[Scene, Figure, Sequence[RowPlan]], Drawing | None]

DEFAULT = (Figure(kind="bins"), Figure(kind="norms"), Figure(kind="errors"))
ONE_RUN, NO_ROW = "One run a row.", "none of its rows has a result"
NOT_MADE = "the kinds of its errors were not made (report --intervals makes them)"


class Seeds(Enum):
    """Which seeds of a row a figure shows, as its caption says it where there are several."""

    SPREAD = "Mean over seeds, with one sample standard deviation."
    MEAN = "Mean over seeds."
    TOGETHER = "All seeds together."
    FIRST = "Seed {first} of each row."
    UNSAID = ""


@dataclass(frozen=True)
class Kind:
    """A kind of figure. In its texts, {x} is the setting that a sweep is over.

    Attributes:
        file: name of its files.
        title: where the suite gives none.
        lacking: why it cannot be drawn of rows that have a result.
        seeds: those that are drawn.
        draw: of these seeds, the suite's figure and its rows, done or not; None where there is nothing to draw.
        intervals: whether its lines are intervals in place of the spread where all rows have draws of val images.
    """

    file: str
    title: str
    lacking: str
    seeds: Seeds
    draw: Draw
    intervals: bool = False


def _alone(draw: Callable[[Scene], Drawing | None]) -> Draw:
    """Of a figure that needs nothing beside the scene."""
    return lambda scene, _figure, _planned: draw(scene)


def _of_trainings(draw: Callable[[Scene, Mapping[str, Sequence[Training]]], Drawing | None]) -> Draw:
    """Of a figure that looks at the trainings of each row, of one seed."""
    return lambda scene, _figure, _planned: draw(scene, {one.record.row: one.trainings for one in scene.rows})


def _sweep(scene: Scene, figure: Figure, planned: Sequence[RowPlan]) -> Drawing | None:
    assert figure.x is not None
    return sweep(scene, figure.x, figure.metrics, by=figure.by, labels=figure.rows, planned=planned)


def _with_absent(scene: Scene, figure: Figure) -> Scene:
    """Bars have no place for a row without a result: the caption names it."""
    done = {result.record.row for result in scene.rows}
    absent = [label for label in (figure.rows or scene.order) if label not in done]
    return replace(scene, caption=f"{scene.caption} Without a result: {some_rows(absent)}.") if absent else scene


KINDS: Mapping[str, Kind] = {
    "bins": Kind(
        "ap_by_bin", "AP by training instances", NO_ROW, Seeds.SPREAD,
        lambda scene, figure, _: ap_by_bin(_with_absent(scene, figure)), intervals=True,
    ),
    "norms": Kind(
        "weight_norms", "Weight norms by class", "no row has weights of one row per class", Seeds.FIRST,
        lambda scene, figure, _: weight_norms(scene, labels=figure.rows),
    ),
    "bars": Kind(
        "bars", "Metrics by row", NO_ROW, Seeds.SPREAD,
        lambda scene, figure, _: bars(_with_absent(scene, figure), figure.metrics), intervals=True,
    ),
    "sweep": Kind(
        "sweep_{x}", "Metrics over {x}", "no row with a result has the setting {x}", Seeds.SPREAD, _sweep,
    ),
    "counts": Kind(
        "class_counts", "Class counts of the trainings", "none of its rows was trained on chosen annotations",
        Seeds.FIRST, _of_trainings(class_counts),
    ),
    "losses": Kind(
        "losses", "Losses of the trainings", "none of its rows has a loss beside the detector's",
        Seeds.FIRST, _of_trainings(loss_shares),
    ),
    "embeddings": Kind(
        "embeddings", "Embeddings over a pre-training",
        "none of its rows has a pre-training that compares embeddings", Seeds.FIRST, _of_trainings(embeddings),
    ),
    "linear_probe": Kind(
        "linear_probe", "Linear probes", "none of its rows has a probe that is done",
        Seeds.SPREAD, _alone(probe_bars),
    ),
    "attention": Kind(
        "attention", "Last maps",
        "none of its rows has a map that is done (the engine must give those of its backbone)",
        Seeds.FIRST, _alone(attention),
    ),
    "reconstructions": Kind(
        "reconstructions", "Painted images", "none of its rows has a pre-training that paints images",
        Seeds.FIRST, _alone(reconstructions),
    ),
    "cost": Kind(
        "cost", "Cost of the trainings", "none of its rows has a training whose time is known",
        Seeds.SPREAD, _alone(cost),
    ),
    "errors": Kind("error_costs", "Cost of each kind of error", NOT_MADE, Seeds.MEAN, _alone(error_costs)),
    "ranking": Kind(
        "ranking", "Ranks under new draws",
        "fewer than four of its rows have draws of val images that show enough (report --intervals makes them)",
        Seeds.MEAN, _alone(ranking),
    ),
    "calibration": Kind(
        "calibration", "Calibration of the scores",
        "the calibration of its scores was not made (report --intervals makes it)", Seeds.FIRST,
        _alone(calibration_curves),
    ),
    "recall": Kind(
        "recall", "Recall of proposals and detections",
        "the recall of its proposals was not made (report --intervals makes it where they are stored)",
        Seeds.MEAN, _alone(recall_dots),
    ),
    "tradeoff": Kind(
        "head_and_tail", "Head against tail",
        "none of its rows has AP both of the rarest and of the most frequent classes",
        Seeds.SPREAD, _alone(tradeoff),
    ),
    "classes": Kind(
        "ap_by_class", "AP by class", "none of its rows has AP per class",
        Seeds.UNSAID, lambda scene, figure, _: per_class(scene, labels=figure.rows),
    ),
    "confusion": Kind(
        "confusion_of_bins", "What boxes of each bin are taken for", NOT_MADE, Seeds.TOGETHER, _alone(confusion),
    ),
    "curves": Kind(
        "curves", "Losses over the trainings", "none of its rows has a training whose losses are known",
        Seeds.FIRST, _of_trainings(curves),
    ),
    "gain": Kind(
        "cost_and_gain", "Cost against gain", "no row beside the baseline has a training whose time is known",
        Seeds.SPREAD, _alone(gain),
    ),
    "contact_sheet": Kind(
        "contact_sheet", "Val images with boxes and detections",
        "its val images cannot be read, or the predictions of its rows are no longer in the store",
        Seeds.FIRST, lambda scene, figure, _: contact_sheet(scene, labels=figure.rows),
    ),
}  # fmt: skip


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
        (what was written, one sentence for each figure of `wanted` that cannot be drawn, and one on names that no font
        here has the letters of).
    """
    written: list[Drawn] = []
    lacking: list[str] = []
    letters: set[str] = set()
    if not rows:
        return written, lacking
    every = Scene(rows, order, edges)
    for figure, name in zip(wanted or DEFAULT, names(wanted or DEFAULT), strict=True):
        drawing, why = _drawing(figure, every, suite, planned, own or {})
        if drawing is not None:
            files = save(drawing, out / name, formats)
            letters |= undrawable(drawing.figure)
            title = figure.title or _title(figure) or name
            written.append(Drawn(name, title, str(drawing.figure.get_label()), tuple(files)))
        elif wanted:
            lacking.append(f"no figure {name}: {why}")
    if letters:
        lacking.append(boxes_said(letters, _names_in(rows, wanted)))
    return written, lacking


def names(figures: Sequence[Figure]) -> list[str]:
    """sweep_beta, bars, ap_by_bin, weight_norms; the second of one name is bars_2."""
    found: list[str] = []
    for figure in figures:
        kind = KINDS.get(figure.kind)
        plain = kind.file.format(x=(figure.x or "").replace(".", "_")) if kind else figure.kind
        numbered = (f"{plain}_{number}" for number in count(2))
        found.append(plain if plain not in found else next(name for name in numbered if name not in found))
    return found


def _names_in(rows: Sequence[RowResult], wanted: Sequence[Figure]) -> list[str]:
    """Of rows, classes and figures."""
    classes = [name for row in rows if row.record.per_class is not None for name in row.record.per_class.names]
    return [*(row.record.row for row in rows), *classes, *(figure.title for figure in wanted if figure.title)]


def _title(figure: Figure) -> str:
    kind = KINDS.get(figure.kind)
    return kind.title.format(x=figure.x) if kind else ""


def _drawing(
    figure: Figure, every: Scene, suite: str, planned: Sequence[RowPlan], own: Mapping[str, Path]
) -> tuple[Drawing | None, str]:
    """What is drawn of a figure's rows; and where that is nothing, why."""
    shown = _labels(figure, every.rows, planned)
    rows = [result for result in every.rows if result.record.row in shown]
    scene = replace(every, rows=rows, title=figure.title)
    if figure.kind in own:
        return _own(own[figure.kind], scene, suite) if rows else (None, NO_ROW)
    kind = KINDS.get(figure.kind)
    if kind is None:  # a report that came without its suite's files
        return None, "its file is not here (figures_path)"
    why = kind.lacking.format(x=figure.x) if rows or figure.x else NO_ROW
    return kind.draw(_seen(kind, scene, suite), figure, planned) if rows else None, why


def _own(file: Path, scene: Scene, suite: str) -> tuple[Drawing | None, str]:
    """What a file of figures_path draws, or why it does not: its mistakes cost the report that one figure."""
    several = len({result.record.seed for result in scene.rows}) > 1
    caption = figure_caption(scene.rows, suite, "Several seeds a row." if several else ONE_RUN)
    try:
        return own_drawing(replace(scene, caption=caption), file), "its file draws nothing of these rows"
    except UserError as error:
        return None, f"{error.what} ({error.where})"


def _labels(figure: Figure, rows: Sequence[RowResult], planned: Sequence[RowPlan]) -> set[str]:
    """The rows in a figure."""
    if figure.x is not None:
        found = points(rows, figure.x, labels=figure.rows, planned=planned)
        return {point.row for point in found} if any(point.x is not ABSENT for point in found) else set()
    return set(figure.rows) or {result.record.row for result in rows}


def _seen(kind: Kind, scene: Scene, suite: str) -> Scene:
    """The seeds that a kind shows, and a caption that says which."""
    seeds = sorted({result.record.seed for result in scene.rows})
    drawn_again = kind.intervals and all(result.draws is not None for result in scene.rows)
    shown = Seeds.MEAN if drawn_again else kind.seeds
    rows = [result for result in scene.rows if shown is not Seeds.FIRST or result.record.seed == seeds[0]]
    said = shown.value.format(first=seeds[0]) if len(seeds) > 1 or shown is Seeds.UNSAID else ONE_RUN
    return replace(scene, rows=rows, caption=figure_caption(rows, suite, said))
