"""The figures: AP by training frequency, and the norm of the classifier's weights. Separate because matplotlib takes a
second to import and a table needs none of it; it is imported inside the functions, and drawn without pyplot, so that
no display is needed and a notebook's backend stays as it is.

Shapes: C foreground classes. Every figure function returns the Figure, so that tests (and notebooks) can look at its
Axes; `save` writes it.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.load import RowResult
from reports.stats import Cell, by_row, metrics_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
NORM_ROWS = ("baseline", "RFS", "re-weight-cls", "BAGS")  # the rows of Figure 3 of BAGS, arXiv 2006.10408
DEFAULT_EDGES = (10, 100, 1000)
UNDATED: Mapping[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


def bin_names(edges: Sequence[int] = DEFAULT_EDGES) -> list[str]:
    """(10, 100, 1000) -> ["1-9", "10-99", "100-999", "1000+"] training instances."""
    starts = [1, *edges]
    return [f"{a}-{b - 1}" for a, b in zip(starts, edges, strict=False)] + [f"{starts[-1]}+"]


def ap_by_bin(
    rows: Sequence[RowResult], *, order: Sequence[str] = (), edges: Sequence[int] = DEFAULT_EDGES, caption: str = ""
) -> Figure:
    """Grouped bars: one group a frequency bin and one for all classes, one bar a row, error bars of 1 sd over seeds.

    A missing metric leaves a gap with a '-' in it, so that it cannot be read as 0.
    """
    cells = {label: metrics_of(group) for label, group in by_row(rows, order).items()}
    metrics = [*(f"AP{i + 1}" for i in range(len(edges) + 1)), "AP"]
    colours = _colours(len(cells))
    # 0.13 inch a bar keeps the bars of 15 rows wider than their error bars' caps.
    width_in = max(7.5, 1.2 + len(metrics) * (len(cells) + 1.5) * 0.13)
    figure, axes = _figure(width_in, 4.6)
    bar = 0.84 / max(1, len(cells))
    for r, (label, of_row) in enumerate(cells.items()):
        offset = (r - (len(cells) - 1) / 2) * bar
        _bars(axes, [of_row.get(name, Cell(None, None, 0)) for name in metrics], offset, bar, colours[r], r, label)
    axes.axvline(len(metrics) - 1.5, color="0.6", linewidth=0.8)
    bins = [f"{name}\ntraining instances" for name in bin_names(edges)]
    names = [f"{name}: {text}" for name, text in zip(metrics, [*bins, "all classes"], strict=True)]
    axes.set_xticks(range(len(metrics)), names)
    axes.set_xlim(-0.5, len(metrics) - 0.5)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("classes, by their number of instances in the training set")
    axes.set_ylabel("box AP (points)")
    _tidy(axes)
    columns = min(max(1, len(cells)), 5 if width_in < 10 else 8)
    _legend(figure, axes, columns)
    _caption(figure, caption, width_in)
    return figure


def _bars(axes: Axes, cells: Sequence[Cell], offset: float, bar: float, colour: Any, index: int, label: str) -> None:
    present = [(x + offset, cell.mean, cell.sd) for x, cell in enumerate(cells) if cell.mean is not None]
    hatch = ("", "////", "....")[index // len(_palette()) % 3]  # beyond ten rows colours repeat, hatched
    axes.bar(
        [x for x, _, _ in present], [mean for _, mean, _ in present], bar * 0.92,
        color=colour, label=label, hatch=hatch, edgecolor="white" if hatch else "none", linewidth=0,
    )  # fmt: skip
    spread = [(x, mean, sd) for x, mean, sd in present if sd is not None]
    if spread:
        axes.errorbar(
            [x for x, _, _ in spread], [mean for _, mean, _ in spread], [sd for _, _, sd in spread],
            fmt="none", ecolor="0.15", elinewidth=0.9, capsize=1.5,
        )  # fmt: skip
    for x, cell in enumerate(cells):
        if cell.mean is None:
            axes.text(x + offset, 0, "-", ha="center", va="bottom", fontsize=8, color="0.3")


def norm_table(rows: Sequence[RowResult], labels: Sequence[str]) -> list[tuple[str, int, str, int | None, float]]:
    """(row, rank, class name, N_j, ||W_j||): rank 0 is the background, then classes by descending instances.

    The first seed is taken: classes of two seeds are not the same classes where the data follow the seed.
    """
    lines: list[tuple[str, int, str, int | None, float]] = []
    for label, result in _with_norms(rows, labels).items():
        norms = result.weight_norms or []
        lines.append((label, 0, "background", None, norms[-1]))
        for rank, j in enumerate(_by_count(result.instance_counts), start=1):
            name = classes.names[j] if (classes := result.record.per_class) else str(j)
            lines.append((label, rank, name, result.instance_counts[j], norms[j]))
    return lines


def write_norms(rows: Sequence[RowResult], labels: Sequence[str], path: Path) -> Path:
    """`norm_table` as CSV with the header row,rank,class,instances,norm."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "rank", "class", "instances", "norm"])
        for label, rank, name, count, norm in norm_table(rows, labels):
            writer.writerow([label, rank, name, "" if count is None else count, f"{norm:.6g}"])
    return path


def weight_norms(
    rows: Sequence[RowResult], *, labels: Sequence[str] = (), edges: Sequence[int] = DEFAULT_EDGES, caption: str = ""
) -> Figure | None:
    """||W_j|| against classes by descending training instances, 0 = background (Figures 1 and 3 of BAGS).

    Returns None where no selected row has weight norms.
    """
    chosen = _with_norms(rows, labels or norm_rows(rows))
    if not chosen:
        return None
    figure, axes = _figure(8.0, 4.4)
    for index, (label, result) in enumerate(chosen.items()):
        norms = result.weight_norms or []
        ranked = [norms[j] for j in _by_count(result.instance_counts)]
        colour = _palette()[index % len(_palette())]
        style = ("-", "--", "-.", ":")[index % 4]
        axes.plot(range(1, len(ranked) + 1), ranked, style, color=colour, linewidth=1.3, label=label)
        axes.plot([0], norms[-1:], marker="os^Dv"[index % 5], color=colour, markersize=6, clip_on=False)
    counts = next(iter(chosen.values())).instance_counts
    axes.set_ylim(bottom=0)
    _bin_edges(axes, sorted(counts, reverse=True), edges)
    axes.set_xlim(-0.01 * len(counts), len(counts) + 0.5)
    axes.set_xlabel("rank of the class by training instances (0, with a mark: background; above: instances in the bin)")
    axes.set_ylabel("L2 norm of the classifier's weight row")
    _tidy(axes)
    _legend(figure, axes, 5)
    _caption(figure, caption, 8.0)
    return figure


def norm_rows(rows: Sequence[RowResult]) -> list[str]:
    """The rows of Figure 3 that are here, else the first four that have norms."""
    having = list(dict.fromkeys(r.record.row for r in rows if r.weight_norms))
    return [label for label in NORM_ROWS if label in having] or having[:4]


def save(figure: Figure, path: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write the figure as path.png (150 dpi) and path.svg, or path.pdf."""
    written = []
    for suffix in formats:
        target = path.with_name(f"{path.name}.{suffix}")
        # No date: the same rows give the same file.
        figure.savefig(target, dpi=DPI, metadata=UNDATED.get(suffix))
        written.append(target)
    return written


def _with_norms(rows: Sequence[RowResult], labels: Sequence[str]) -> dict[str, RowResult]:
    first = min((row.record.seed for row in rows), default=0)
    groups = by_row([row for row in rows if row.weight_norms and row.record.seed == first], labels)
    return {label: groups[label][0] for label in labels if label in groups}


def _by_count(counts: Sequence[int]) -> list[int]:
    """Class indices by descending instances, ties by index."""
    return sorted(range(len(counts)), key=lambda j: (-counts[j], j))


def _bin_edges(axes: Axes, descending: Sequence[int], edges: Sequence[int]) -> None:
    """A vertical line where the sorted counts cross a bin edge, and the bin's name above its stretch."""
    cuts = [sum(count >= edge for count in descending) for edge in sorted(edges, reverse=True)]
    for cut in cuts:
        axes.axvline(cut + 0.5, color="0.45", linestyle=(0, (4, 3)), linewidth=0.8)
    bounds = [0, *cuts, len(descending)]
    for name, left, right in zip(reversed(bin_names(edges)), bounds, bounds[1:], strict=False):
        if right > left:
            axes.annotate(
                name, ((left + right + 1) / 2, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3),
                textcoords="offset points", ha="center", va="bottom", fontsize=8, color="0.3",
            )  # fmt: skip


def _palette() -> list[Any]:
    """Ten colours that the colour-blind can tell apart (seaborn's "colorblind", after Okabe and Ito)."""
    import seaborn

    return list(seaborn.color_palette("colorblind"))


def _colours(count: int) -> list[Any]:
    palette = _palette()
    return [palette[i % len(palette)] for i in range(count)]


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    entries = axes.get_legend_handles_labels()
    figure.legend(*entries, loc="outside upper center", ncols=columns, frameon=False, fontsize=8.5)


def _tidy(axes: Axes) -> None:
    axes.grid(axis="y", color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _caption(figure: Figure, caption: str, width_in: float) -> None:
    import textwrap

    if caption:
        wrapped = "\n".join(textwrap.wrap(caption, int(width_in * 17)))  # 17 characters an inch at 8 points
        figure.supxlabel(wrapped, fontsize=8, color="0.3", x=0.01, ha="left")


def _figure(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()
