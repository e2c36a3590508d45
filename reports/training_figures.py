"""Figures of the trainings below a row: how many instances of each class each of them learns from, and the losses of a
method beside those of the detector (Dong et al. 2023: smooth-tail data, and the part that a teacher has).

Separate from the figures of results, which know no steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.canvas import Drawing, blank, finish, handles, palette, tidy
from reports.norms import by_count
from reports.trainings import Training

COUNTED = ("row", "training", "rank", "class", "instances")
SHARES = ("row", "training", "loss", "step", "share")


def class_counts(
    rows: Mapping[str, Sequence[Training]], *, caption: str = "", title: str | None = None
) -> Drawing | None:
    """Instances of each class in the whole training set and in what each further training of a row learns from, one
    panel for each row; classes by falling instances in the whole set.

    Returns:
        None where no row has a training on chosen data.
    """
    chosen = {label: chain for label, chain in rows.items() if len({one.counts for one in chain}) > 1}
    if not chosen:
        return None
    figure, panels = blank(8.0, 2.9 * len(chosen), rows=len(chosen))
    lines: list[tuple[object, ...]] = []
    for axes, (label, chain) in zip(panels, chosen.items(), strict=True):
        order = by_count(chain[0].counts)
        for index, one in enumerate(chain):
            name = "all training images" if one.counts == chain[0].counts else one.name
            ranked = [one.counts[j] for j in order]
            colour, xs = palette()[index % 10], range(1, len(ranked) + 1)
            axes.step(xs, ranked, where="mid", color=colour, linewidth=1.4, label=name)
            lines += [(label, one.name, rank, j, one.counts[j]) for rank, j in enumerate(order, 1)]
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
        axes.set_xlim(0.5, len(order) + 0.5)
        axes.set_ylabel(f"{label}\ntraining instances" if len(chosen) > 1 else "training instances")
        tidy(axes)
    panels[-1].set_xlabel("rank of the class by training instances")
    figure = finish(figure, {k: v for axes in reversed(panels) for k, v in handles(axes).items()}, caption, title)
    return Drawing(figure, COUNTED, tuple(lines))


def loss_shares(
    rows: Mapping[str, Sequence[Training]], *, caption: str = "", title: str | None = None
) -> Drawing | None:
    """Each loss beside the detector's, as a share of the detector's sum, over the steps of the training that has it.

    Returns:
        None where no row has such a loss.
    """
    drawn: list[tuple[str, Training, str, list[tuple[int, float]]]] = []
    for label, chain in rows.items():
        usual = {name for one in chain if not one.beside for values in one.curve.values() for name in values}
        for one in chain:
            names = dict.fromkeys(name for values in one.curve.values() for name in values if name not in usual)
            for name in names if one.beside and usual else ():
                drawn.append((label, one, name, share(one.curve, name, usual)))
    if not drawn:
        return None
    figure, (axes,) = blank(8.0, 3.4)
    last = {label: chain[-1].number for label, chain in rows.items()}
    for index, (label, one, name, points) in enumerate(drawn):
        named = f"{label}: {name}" + ("" if one.number == last[label] else f", {one.name}")
        style = ("-", "--", "-.", ":")[index // 10 % 4]
        axes.plot(*zip(*points, strict=True), style, color=palette()[index % 10], linewidth=1.4, label=named)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss / sum of the detector's losses")
    tidy(axes)
    lines = [(label, one.name, name, step, value) for label, one, name, found in drawn for step, value in found]
    return Drawing(finish(figure, handles(axes), caption, title), SHARES, tuple(lines))


def share(curve: Mapping[int, Mapping[str, float]], name: str, usual: set[str]) -> list[tuple[int, float]]:
    """(step, the loss / the sum of the detector's) of each step that has both; `usual`: names of the detector's."""
    found = []
    for step, values in curve.items():
        whole = sum(value for other, value in values.items() if other in usual and other != "loss")
        if name in values and whole > 0:
            found.append((step, values[name] / whole))
    return found
