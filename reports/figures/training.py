"""Figures of the trainings below a row: how many instances of each class each of them learns from, the losses of a
method beside those of the detector (Dong et al. 2023: smooth-tail data, and the part that a teacher has), and what the
embeddings of a pre-training look like.

Separate from the figures of results, which know no steps. `trainings`: label of a row -> those of its chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.figures.canvas import Drawing, blank, finish, handles, palette, tidy
from reports.figures.lettering import fitted
from reports.figures.norms import by_count
from reports.figures.scene import Scene
from reports.trainings import Training

COUNTED = ("row", "training", "rank", "class", "instances")
EMBEDDED = ("row", "training", "embedding", "step", "value")
SHOWN = "shown/"  # named by bench/run/loop.py, which imports torch
SHARES = ("row", "training", "loss", "step", "share")


def class_counts(scene: Scene, trainings: Mapping[str, Sequence[Training]]) -> Drawing | None:
    """Instances of each class in the whole training set and in what each further training of a row learns from, one
    panel for each row; classes by falling instances in the whole set.

    Returns:
        None where no row has a training on chosen data.
    """
    chosen = {label: chain for label, chain in trainings.items() if len({one.counts for one in chain}) > 1}
    if not chosen:
        return None
    from matplotlib.ticker import MaxNLocator

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
        axes.set_ylabel(f"{fitted(label, 10, 150)}\ntraining instances" if len(chosen) > 1 else "training instances")
        tidy(axes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[-1].set_xlabel("rank of the class by training instances")
    legend = {k: v for axes in reversed(panels) for k, v in handles(axes).items()}
    return Drawing(finish(figure, legend, scene.caption, scene.title), COUNTED, tuple(lines))


def loss_shares(scene: Scene, trainings: Mapping[str, Sequence[Training]]) -> Drawing | None:
    """Each loss beside the detector's, as a share of the detector's sum, over the steps of the training that has it; of
    a pre-training without the detector's losses, as a share of all.

    Returns:
        None where no row has such a loss.
    """
    drawn: list[tuple[str, Training, str, list[tuple[int, float]]]] = []
    alone = False
    for label, chain in trainings.items():
        usual = {name for one in chain if not one.beside for values in one.curve.values() for name in values}
        for one in chain:
            names = dict.fromkeys(n for values in one.curve.values() for n in values if n not in usual and is_loss(n))
            for name in names if one.beside and usual else ():
                alone |= not any(
                    other in usual and other != "loss" for values in one.curve.values() for other in values
                )
                drawn.append((label, one, name, share(one.curve, name, usual)))
    if not drawn:
        return None
    figure, (axes,) = blank(8.0, 3.4)
    last = {label: chain[-1].number for label, chain in trainings.items()}
    for index, (label, one, name, points) in enumerate(drawn):
        named = f"{label}: {name}" + ("" if one.number == last[label] else f", {one.name}")
        style = ("-", "--", "-.", ":")[index // 10 % 4]
        axes.plot(*zip(*points, strict=True), style, color=palette()[index % 10], linewidth=1.4, label=named)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss / sum of the detector's losses" + ("\n(pre-training: of all)" if alone else ""))
    tidy(axes)
    lines = [(label, one.name, name, step, value) for label, one, name, found in drawn for step, value in found]
    return Drawing(finish(figure, handles(axes), scene.caption, scene.title), SHARES, tuple(lines))


def embeddings(scene: Scene, trainings: Mapping[str, Sequence[Training]]) -> Drawing | None:
    """Alignment and uniformity (Wang and Isola 2020) over the steps of each pre-training, a panel for each: both fall
    as an embedding gets better; a uniformity of 0 is a collapse.

    Returns:
        None where no row has a training that shows them.
    """
    panels = ("alignment", "uniformity")
    drawn: list[tuple[str, Training, str, list[tuple[int, float]]]] = []
    for label, chain in trainings.items():
        for one in chain:
            names = dict.fromkeys(n for values in one.curve.values() for n in values if n.endswith(panels))
            for name in names:
                found = [(step, values[name]) for step, values in one.curve.items() if name in values]
                drawn.append((label, one, name.removeprefix(SHOWN), found))
    if not drawn:
        return None
    figure, axes = blank(8.0, 5.0, rows=2)
    series = list(dict.fromkeys((label, one.number, what.rpartition("_")[0]) for label, one, what, _ in drawn))
    for label, one, what, found in drawn:
        of, _, panel = what.rpartition("_")
        index = series.index((label, one.number, of))
        style = ("-", "--", "-.", ":")[index // 10 % 4]
        axes[panels.index(panel)].plot(
            *zip(*found, strict=True), style, color=palette()[index % 10], linewidth=1.4, label=f"{label}: {of}"
        )
    for one_axes, said in zip(axes, ("alignment\n(0: pairs are equal)", "uniformity\n(0: all are equal)"), strict=True):
        one_axes.set_ylabel(said)
        tidy(one_axes)
    axes[1].set_xlabel("optimiser step")
    lines = [(label, one.name, what, step, value) for label, one, what, found in drawn for step, value in found]
    legend = {k: v for shown in reversed(axes) for k, v in handles(shown).items()}
    return Drawing(finish(figure, legend, scene.caption, scene.title), EMBEDDED, tuple(lines))


def is_loss(name: str) -> bool:
    """Whether a name of a curve is one of a loss, not of something shown beside."""
    return not name.startswith(SHOWN)


def share(curve: Mapping[int, Mapping[str, float]], name: str, usual: set[str]) -> list[tuple[int, float]]:
    """(step, the loss / the sum of the detector's) of each step that has both; of a training without the detector's,
    the loss / the sum of all. `usual`: names of the detector's."""
    found = []
    parts = {name for values in curve.values() for name in values if name != "loss" and is_loss(name)}
    divisor = parts & usual or parts
    for step, values in curve.items():
        whole = sum(value for other, value in values.items() if other in divisor)
        if name in values and whole > 0:
            found.append((step, values[name] / whole))
    return found
