"""How the loss of each row went, over all steps of its chain. Separate from training.py, which looks at the losses
beside those of the detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.figures.canvas import Drawing, blank, finish, handles, palette, tidy
from reports.figures.scene import Scene
from reports.trainings import Training

COLUMNS = ("row", "training", "step", "step_of_chain", "loss")
MOST = 10  # lines: the colours of the palette
LOSS = "loss"  # the sum, as bench/run/loop.py names it
POINTS = 60  # of a line, at most, over the longest chain
SAID = (
    "The sum of losses, as each method defines it, mean of a sixtieth of the longest chain: compare its course, not "
    "its height, between methods. A training begins where the one before it in the row ended; trainings that rows "
    "share lie on one another."
)


def curves(scene: Scene, trainings: Mapping[str, Sequence[Training]]) -> Drawing | None:
    """The sum of losses over the optimiser steps of a row's trainings, one after the other; a line for each row.
    `trainings`: label -> those of the row.

    Returns:
        None where no row has a training whose losses are known.
    """
    known = {label: [one for one in chain if _points(one)] for label, chain in trainings.items()}
    drawn = {label: chain for label, chain in known.items() if chain}
    if not drawn:
        return None
    caption = scene.caption
    if len(drawn) > MOST:
        caption += f" {MOST} of {len(drawn)} rows, the first of the suite."
    figure, (axes,) = blank(8.0, 3.8)
    lines: list[tuple[object, ...]] = []
    length = max(sum(one.steps for one in trainings[label]) for label in drawn)
    for index, label in enumerate(list(drawn)[:MOST]):
        xs: list[float] = []
        ys: list[float] = []
        before = 0
        for one in trainings[label]:
            found = averaged(_points(one), one.steps, length)
            xs += [before + step for step, _ in found] + [float("nan")]  # a gap: another training, another loss
            ys += [loss for _, loss in found] + [float("nan")]
            lines += [(label, one.name, step, before + step, loss) for step, loss in found]
            before += one.steps
        style = ("-", "--", "-.", ":")[index % 4]
        axes.plot(xs, ys, style, color=palette()[index % 10], linewidth=1.3, alpha=0.9, label=label)
    axes.set_yscale("log")
    axes.set_xlabel("optimiser steps of the row's trainings, one after the other")
    axes.set_ylabel("loss")
    tidy(axes)
    return Drawing(finish(figure, handles(axes), f"{caption} {SAID}".strip(), scene.title), COLUMNS, tuple(lines))


def averaged(points: Sequence[tuple[int, float]], steps: int, length: int) -> list[tuple[int, float]]:
    """(last step, mean loss) of the points in each of some windows of equal length, which the steps of a training are
    cut into; a training as long as `length` has POINTS of them."""
    count = max(1, round(POINTS * steps / max(length, 1)))
    windows: dict[int, list[tuple[int, float]]] = {}
    for step, loss in points:
        windows.setdefault(min(count - 1, int((step - 1) * count / max(steps, 1))), []).append((step, loss))
    return [(found[-1][0], sum(loss for _, loss in found) / len(found)) for found in windows.values()]


def _points(one: Training) -> list[tuple[int, float]]:
    """(step, sum of losses) where it is positive: the axis is a log one."""
    return [(step, values[LOSS]) for step, values in one.curve.items() if values.get(LOSS, 0.0) > 0]
