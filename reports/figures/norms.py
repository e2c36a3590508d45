"""The norm of the classifier's weight row of each class, against classes sorted by training instances (Figures 1 and 3
of BAGS, arXiv 2006.10408). Separate from the other figures since its x axis is a class, not a row.

Rows whose data have different numbers of classes are stretched onto one axis, as Figure 1 of the paper does. C
foreground classes; W_j a weight row of the last layer, bias left out; N_j training instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.figures.canvas import EDGE, Drawing, bin_names, blank, finish, handles, palette, tidy
from reports.figures.scene import Scene
from reports.footnotes import some_rows
from reports.load import RowResult
from reports.stats import baseline_of, by_row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = ("baseline", "RFS", "re-weight-cls", "BAGS")  # of Figure 3
MOST = 6  # lines that can be told apart where they cross as much as these do
DENSE = 200  # classes: beyond, a dashed line cannot be seen
BACKGROUND = -0.025  # x of the background where x is a relative rank
COLUMNS = ("row", "rank", "relative_rank", "class", "instances", "norm", "spearman")


def weight_norms(scene: Scene, *, labels: Sequence[str] = ()) -> Drawing | None:
    """||W_j||_2 against classes by descending training instances, the background first; the edges of the bins are
    vertical lines.

    The first seed is taken: classes of two seeds are not the same classes where the data follow the seed.

    Args:
        labels: rows to draw; () takes `default_rows`.

    Returns:
        None where no selected row has weight norms.
    """
    rows, caption = scene.rows, scene.caption
    chosen = _with_norms(rows, labels or default_rows(rows))
    if not chosen:
        return None
    stretched = len({len(result.instance_counts) for result in chosen.values()}) > 1
    figure, (axes,) = blank(8.0, 3.7)
    for index, (label, result) in enumerate(chosen.items()):
        norms = result.weight_norms or []
        ranked = [norms[j] for j in by_count(result.instance_counts)]
        xs = [relative(rank, len(ranked)) if stretched else float(rank) for rank in range(1, len(ranked) + 1)]
        colour = palette()[index % 10]
        style = "-" if len(ranked) > DENSE else ("-", "--", "-.", ":")[index % 4]
        named = f"{label}, \N{GREEK SMALL LETTER RHO} {_two_digits(spearman(result))}"
        axes.plot(xs, ranked, style, color=colour, linewidth=1.3, label=named)
        mark, at = "os^Dv"[index % 5], BACKGROUND if stretched else 0.0
        for norm in norms[len(ranked) :]:  # of the background, where there is one
            axes.plot([at], [norm], marker=mark, color=colour, markersize=6, clip_on=False, **EDGE)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("L2 norm of the classifier's weight row")
    _class_axis(axes, chosen, scene.edges, stretched)
    tidy(axes)
    left_out = [label for label in dict.fromkeys(r.record.row for r in rows if r.weight_norms) if label not in chosen]
    if left_out and not labels:
        caption += f" Not drawn: {some_rows(left_out)}."
    rho = "\N{GREEK SMALL LETTER RHO}: Spearman's rank correlation of a class's training instances and its norm."
    figure = finish(figure, handles(axes), f"{caption} {rho}".strip(), scene.title)
    return Drawing(figure, COLUMNS, tuple(norm_lines(chosen)))


def default_rows(rows: Sequence[RowResult]) -> list[str]:
    """The rows of Figure 3 where all of them are here, else the baseline and the next, MOST in all, that have norms."""
    having = list(dict.fromkeys(r.record.row for r in rows if r.weight_norms))
    if set(ROWS) <= set(having):
        return list(ROWS)
    start = baseline_of(by_row(rows))
    first = [start] if start in having else []
    return [*first, *(label for label in having if label != start)][:MOST]


def norm_lines(chosen: dict[str, RowResult]) -> list[tuple[object, ...]]:
    """One line of COLUMNS per row and class: rank 0 is the background, then classes by descending instances."""
    lines: list[tuple[object, ...]] = []
    for label, result in chosen.items():
        norms, rho = result.weight_norms or [], spearman(result)
        last = norms[len(result.instance_counts) :]
        lines += [(label, 0, None, "background", None, norm, rho) for norm in last]
        for rank, j in enumerate(by_count(result.instance_counts), start=1):
            name = classes.names[j] if (classes := result.record.per_class) else str(j)
            x = relative(rank, len(result.instance_counts))
            lines.append((label, rank, x, name, result.instance_counts[j], norms[j], rho))
    return lines


def spearman(result: RowResult) -> float | None:
    """Rank correlation of N_j and ||W_j|| over the foreground classes; None where all of either tie."""
    from scipy.stats import spearmanr

    norms = (result.weight_norms or [])[: len(result.instance_counts)]
    if len(set(norms)) < 2 or len(set(result.instance_counts)) < 2:
        return None
    return float(spearmanr(result.instance_counts, norms).statistic)


def by_count(counts: Sequence[int]) -> list[int]:
    """Class indices by descending instances, ties by index."""
    return sorted(range(len(counts)), key=lambda j: (-counts[j], j))


def relative(rank: int, classes: int) -> float:
    """0 for the most frequent class (rank 1), 1 for the rarest."""
    return (rank - 1) / max(1, classes - 1)


def _with_norms(rows: Sequence[RowResult], labels: Sequence[str]) -> dict[str, RowResult]:
    first = min((row.record.seed for row in rows), default=0)
    groups = by_row([row for row in rows if row.weight_norms and row.record.seed == first], labels)
    return {label: groups[label][0] for label in labels if label in groups}


def _class_axis(axes: Axes, chosen: dict[str, RowResult], edges: Sequence[int], stretched: bool) -> None:
    """Limits, bin edges and a label with what x is and whose bins the dashed lines are."""
    label, first = next(iter(chosen.items()))
    descending = sorted(first.instance_counts, reverse=True)
    alike = all(sorted(result.instance_counts, reverse=True) == descending for result in chosen.values())
    _bin_edges(axes, descending, edges, stretched)
    whose = "above: instances in the bin" if alike else f"dashed and above: bins of {label}"
    if stretched:
        axes.set_xlim(2 * BACKGROUND, 1.005)
        axes.set_xticks([BACKGROUND, 0, 0.2, 0.4, 0.6, 0.8, 1.0], ["bg", "0", "0.2", "0.4", "0.6", "0.8", "1"])
        sizes = " and ".join(map(str, dict.fromkeys(len(result.instance_counts) for result in chosen.values())))
        what = f"relative rank of the class by training instances: 0 most frequent, 1 rarest ({sizes} classes)"
        axes.set_xlabel(f"{what}\n(bg, with a mark: background; {whose})")
    else:
        axes.set_xlim(-0.01 * len(descending), len(descending) + 0.5)
        axes.set_xlabel(f"rank of the class by training instances (0, with a mark: background; {whose})")


def _bin_edges(axes: Axes, descending: Sequence[int], edges: Sequence[int], stretched: bool) -> None:
    """A vertical line where the sorted counts cross a bin edge, and the bin's name above its stretch."""
    cuts = [sum(count >= edge for count in descending) for edge in sorted(edges, reverse=True)]
    scale = 1 / max(1, len(descending) - 1) if stretched else 1.0
    shift = -scale if stretched else 0.0  # rank 1 is at 0
    for cut in cuts:
        axes.axvline((cut + 0.5) * scale + shift, color="0.45", linestyle=(0, (4, 3)), linewidth=0.8)
    bounds = [0, *cuts, len(descending)]
    for name, left, right in zip(reversed(bin_names(edges)), bounds, bounds[1:], strict=False):
        if right > left:
            axes.annotate(
                name, ((left + right + 1) / 2 * scale + shift, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3),
                textcoords="offset points", ha="center", va="bottom", fontsize=8, color="0.3",
            )  # fmt: skip


def _two_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
