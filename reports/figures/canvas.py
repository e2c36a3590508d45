"""Paper, colours, legend, caption and files of a figure. Separate because every kind of figure needs the same ones.

matplotlib takes a second to import and a table needs none of it, so it is imported inside the functions; it is used
without pyplot, so that no display is needed and a notebook's backend stays as it is.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import cell_text, printable
from bench.store.disk import put
from reports.figures.lettering import INCH, columns, fitted, lettered, quiet, width, wrapped
from reports.stats import Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.ticker import Formatter

DPI = 150
FORMATS = ("png", "svg")
UNDATED: Mapping[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}  # the same rows, the same file
DEFAULT_EDGES = (10, 100, 1000)
TITLE_POINTS, LEGEND_POINTS, CAPTION_POINTS = 11, 8.5, 8.0
MARGIN_POINTS = 10.0  # at both sides of a legend or title together
CAPTION = "caption-"  # in an svg, the name of what is drawn of a caption; the points that it takes at the foot follow
# Of a filled mark, so that yellow and pink are seen in grey.
EDGE: Mapping[str, Any] = {"markeredgecolor": "0.15", "markeredgewidth": 0.5}
LEAST_SPAN = 1.0  # points on a value axis: smaller differences should look small


@dataclass(frozen=True)
class Drawing:
    """A figure and the numbers in it.

    Attributes:
        figure: what `save` writes as png and svg; tests and notebooks look at its Axes.
        columns: header of the CSV.
        lines: the numbers as drawn; None is a missing one.
    """

    figure: Figure
    columns: tuple[str, ...]
    lines: tuple[tuple[object, ...], ...]


def save(drawing: Drawing, path: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write path.png (150 dpi), path.svg and path.csv; formats may name pdf as well."""
    written = []
    for suffix in formats:
        target = path.with_name(f"{path.name}.{suffix}")
        put(target, image_of(drawing, suffix))
        written.append(target)
    target = path.with_name(f"{path.name}.csv")
    put(target, csv_of(drawing).encode())
    return [*written, target]


def image_of(drawing: Drawing, suffix: str) -> bytes:
    """The file of a figure, png, svg or pdf: the same bytes for the same numbers. A PDF is for a paper, which has a
    caption of its own: ours is left out."""
    import matplotlib

    as_text(drawing.figure)  # once more: something may have been written after `finish`
    image = io.BytesIO()
    bare = without_caption(drawing.figure) if suffix == "pdf" else contextlib.nullcontext()
    with quiet(), bare, matplotlib.rc_context({"svg.hashsalt": "longtail-bench"}):  # else the ids in an svg are random
        drawing.figure.savefig(image, format=suffix, dpi=DPI, metadata=UNDATED.get(suffix))
    return image.getvalue()


@contextlib.contextmanager
def without_caption(figure: Figure) -> Iterator[None]:
    """The figure without what `finish` wrote at its foot, and without the room for it."""
    from matplotlib.text import Text

    (drawn,) = figure.findobj(lambda one: str(one.get_gid()).startswith(CAPTION)) or (Text(),)
    width_in, height_in = figure.get_size_inches()
    below_in = float((drawn.get_gid() or CAPTION + "0").removeprefix(CAPTION)) / INCH
    drawn.set_visible(False)
    drawn.set_in_layout(False)
    figure.set_size_inches(width_in, height_in - below_in)
    yield
    drawn.set_visible(True)
    drawn.set_in_layout(True)
    figure.set_size_inches(width_in, height_in)


def csv_of(drawing: Drawing) -> str:
    """The numbers of a figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(drawing.columns)
    writer.writerows([[_cell(value) for value in line] for line in drawing.lines])
    return text.getvalue()


def blank(width_in: float, height_in: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of rows x columns Axes, row by row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width_in, height_in), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06))
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def finish(figure: Figure, legend: Mapping[str, Any], caption: str, title: str | None) -> Figure:
    """Legend and title above the Axes, caption below. The figure grows by what they need, the Axes keep their size.
    Its label, which is not drawn, is the caption on one line.

    Args:
        legend: label -> what matplotlib drew for it; empty: no legend.
    """
    width_in, height_in = figure.get_size_inches()
    room = width_in * INCH - MARGIN_POINTS
    titled = fitted(title, TITLE_POINTS, room, lines=2) if title else None
    further = titled.count("\n") * TITLE_POINTS * 1.2 / INCH if titled else 0.0  # lines of a title beyond the first
    if legend:
        shown = [fitted(label, LEGEND_POINTS, room - 4.8 * LEGEND_POINTS) for label in legend]
        across = columns(shown, LEGEND_POINTS, room)
        # A title of the figure and a legend outside its Axes would be put on one another: it is the legend's.
        figure.legend(
            list(legend.values()), shown, loc="outside upper center", ncols=across, frameon=False,
            fontsize=LEGEND_POINTS, title=titled, title_fontsize=TITLE_POINTS,
        )  # fmt: skip
        height_in += LEGEND_POINTS * 1.8 / INCH * (-(-len(legend) // across) + (1.5 if title else 0)) + further
    elif titled:
        figure.suptitle(titled, fontsize=TITLE_POINTS)
        height_in += 0.3 + further
    figure.set_label(caption)
    if caption:
        lines = textwrap.wrap(caption, int(width_in * INCH / (CAPTION_POINTS * 0.55)))
        if any(width(line, CAPTION_POINTS) > room for line in lines):  # of wide letters
            lines = wrapped(caption, CAPTION_POINTS, room)
        drawn = figure.supxlabel("\n".join(lines), fontsize=CAPTION_POINTS, color="0.3", x=0.01, ha="left")
        below_in = len(lines) * CAPTION_POINTS * 1.25 / INCH + 0.1
        drawn.set_gid(f"{CAPTION}{below_in * INCH:.0f}")
        height_in += below_in
    figure.set_size_inches(width_in, height_in)
    as_text(figure)
    return figure


def as_text(figure: Figure) -> None:
    r"""Titles, legends, labels and named ticks as they are: in a label `$\frac$` matplotlib would see a formula, and
    raise where it cannot set it. Ticks that matplotlib numbers itself stay formulas (10^3). Characters that are not
    shown come out as escapes."""
    from matplotlib.text import Text

    axes = [axis for one in figure.axes for axis in (one.xaxis, one.yaxis)]
    numbered = [axis for axis in axes if not _named(axis)]
    formulas = {id(text) for axis in numbered for text in axis.get_ticklabels(which="both")}
    ticks = [text for axis in axes for text in axis.get_ticklabels()]  # not all are found in a figure not drawn yet
    for text in [*figure.findobj(Text), *ticks]:
        if id(text) not in formulas:
            text.set_parse_math(False)
            text.set_text(printable(text.get_text(), keep="\n"))
            lettered(text)


def _named(axis: Axis) -> bool:
    """Whether the ticks of an axis have names: of `set_ticks` or matplotlib's categories; they become printable."""
    from matplotlib.axis import Axis as AnyAxis
    from matplotlib.category import StrCategoryFormatter
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    formatter = axis.get_major_formatter()
    made = formatter.func if isinstance(formatter, FuncFormatter) else None
    by = made.func if isinstance(made, functools.partial) else None
    if by is _shown_name:
        return True
    of_ticks = getattr(AnyAxis, "_format_with_dict", None)  # how `set_ticks` keeps its labels
    if not isinstance(formatter, FixedFormatter | StrCategoryFormatter) and (by is None or by is not of_ticks):
        return False
    axis.set_major_formatter(FuncFormatter(functools.partial(_shown_name, formatter)))
    return True


def _shown_name(inner: Formatter, value: float, place: int | None = None) -> str:
    """What another formatter says of a tick, printable."""
    name = inner(value, place)
    return "" if name is None else printable(str(name), keep="\n")


def handles(axes: Axes) -> dict[str, Any]:
    """Label -> artist of everything labelled in these Axes, in order."""
    found, labels = axes.get_legend_handles_labels()
    return dict(zip(labels, found, strict=True))


def tidy(axes: Axes, grid: str = "y") -> None:
    """Faint lines at the ticks of the value axis, no frame above and at the right."""
    axes.grid(axis="x" if grid == "x" else "y", color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def calm(axes: Axes) -> None:
    """A value axis of LEAST_SPAN at least, and from just below 0 where what is drawn does not reach deeper."""
    low, high = axes.get_ylim()
    if high - low < LEAST_SPAN:
        bottom = min(low, max((low + high - LEAST_SPAN) / 2, -0.05 * LEAST_SPAN))
        axes.set_ylim(bottom, bottom + LEAST_SPAN)


def palette() -> list[Any]:
    """Ten colours that the colour-blind can tell apart (seaborn's "colorblind", after Okabe and Ito)."""
    import seaborn

    return list(seaborn.color_palette("colorblind"))


def bin_names(edges: Sequence[int] = DEFAULT_EDGES) -> list[str]:
    """(10, 100, 1000) -> ["1-9", "10-99", "100-999", "1000+"] training instances."""
    starts = [1, *edges]
    names = [str(a) if a == b - 1 else f"{a}-{b - 1}" for a, b in zip(starts, edges, strict=False)]
    return [*names, f"{starts[-1]}+"]


def over(metric: str, edges: Sequence[int] = DEFAULT_EDGES) -> str:
    """Over which classes a metric is a mean: "AP1" -> "1-9 training instances"; "" where its name is enough."""
    number = metric.removeprefix("AP").removeprefix("ACC")
    if number in ("", "bg"):
        return "" if number else "all classes"
    names = bin_names(edges)
    if len(number) == 1 and number.isdigit() and int(number) <= len(names):
        return f"{names[int(number) - 1]} training instances"
    return {"r": "rare", "c": "common", "f": "frequent"}.get(number, "")


def bins_of(names: Iterable[str]) -> list[str]:
    """Of these metrics AP and the instance bins, AP1 to AP9: what a figure has a panel for."""
    return [name for name in names if name == "AP" or (len(name) == 3 and name[:2] == "AP" and name[2].isdigit())]


def unit(metrics: Sequence[str]) -> str:
    """Label of a value axis that these metrics share."""
    kinds = {"ACC" if metric.startswith("ACC") else "AP" for metric in metrics}
    if kinds == {"ACC"}:
        return "accuracy of the classifier (points)"
    return "box AP (points)" if kinds == {"AP"} else "box AP, accuracy (points)"


def numbers(cell: Cell) -> tuple[float | None, float | None, int]:
    """mean, sd, n for a line of a CSV."""
    return cell.mean, cell.sd, cell.n


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, str):
        return cell_text(value)
    return f"{value:.6g}" if isinstance(value, float) else value
