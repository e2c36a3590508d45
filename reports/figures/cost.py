"""What the trainings below a row cost: time and memory. Separate from the figures of their losses."""

from __future__ import annotations

from collections.abc import Sequence

from reports.figures.canvas import Drawing, blank, finish, handles, numbers, palette, tidy
from reports.figures.lettering import at_ticks
from reports.figures.scene import Scene
from reports.load import RowResult
from reports.stats import MISSING, Cell, summarise
from reports.trainings import Training

COLUMNS = ("row", "training", "of", "mean", "sd", "n")


def cost(scene: Scene) -> Drawing | None:
    """A line for each row: minutes of each training of its chain, and the most memory that one of them needed, on a GPU
    where one was measured; means over seeds. Of a training also its steps, and the seconds of one.

    Returns:
        None where no row has a training whose time is known.
    """
    found = {
        (label, same[0].name, what): cell
        for label, of_row in scene.groups.items()
        for same in _same_trainings(of_row)
        for what, cell in _measured(same).items()
        if cell.n
    }
    labels = list(dict.fromkeys(label for label, _, what in found if what == "minutes"))
    if not labels:
        return None
    names = list(dict.fromkeys(name for label, name, _ in found if label in labels))
    where = "gpu" if any(what == "gpu MB" for _, _, what in found) else "host"
    figure, (time_axes, memory_axes) = blank(8.0, 0.9 + 0.26 * len(labels), columns=2)
    ends = [0.0] * len(labels)
    for index, name in enumerate(names):
        widths = [found.get((label, name, "minutes"), MISSING).mean or 0.0 for label in labels]
        colour = palette()[index % 10]
        time_axes.barh(range(len(labels)), widths, 0.72, left=ends, color=colour, label=name, linewidth=0)
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    most = [
        max(found.get((label, name, f"{where} MB"), MISSING).mean or 0.0 for name in names) for label in labels
    ]  # fmt: skip
    memory_axes.barh(range(len(labels)), most, 0.72, color="0.55", linewidth=0)
    for axes, values, form in ((time_axes, ends, "{:.1f}"), (memory_axes, most, "{:.0f}")):
        axes.set_xlim(0, 1.2 * max([*values, 1e-9]))
        for y, value in enumerate(values):
            text = form.format(value) if value else "-"
            axes.annotate(text, (value, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        tidy(axes, "x")
    time_axes.set_yticks(range(len(labels)), at_ticks(labels), fontsize=8)
    memory_axes.set_yticks([])
    time_axes.set_xlabel("minutes of training")
    memory_axes.set_xlabel(f"most memory of the {'GPU' if where == 'gpu' else 'process'} (MB)")
    said = f"{scene.caption} All trainings of a row's chain, those that it shares with other rows too.".strip()
    lines = tuple((*at, *numbers(cell)) for at, cell in found.items())
    return Drawing(finish(figure, handles(time_axes), said, scene.title), COLUMNS, lines)


def _same_trainings(of_row: Sequence[RowResult]) -> list[list[Training]]:
    """The first training of every seed, the second of every seed, and so on."""
    every = [one for result in of_row for one in result.trainings]
    return [[one for one in every if one.number == number] for number in sorted({one.number for one in every})]


def _measured(same: Sequence[Training]) -> dict[str, Cell]:
    """What one training took, over its seeds."""
    timed = [(one.seconds, one.steps) for one in same if one.seconds is not None]
    return {
        "minutes": summarise(seconds / 60 for seconds, _ in timed),
        "steps": summarise(float(one.steps) for one in same),
        "seconds of a step": summarise(seconds / steps for seconds, steps in timed if steps),
        **{f"{where} MB": summarise(one.memory.get(where) for one in same) for where in ("host", "gpu")},
    }
