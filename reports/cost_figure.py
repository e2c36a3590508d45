"""What the trainings below a row cost: time and memory. Separate from the figures of their losses."""

from __future__ import annotations

from collections.abc import Sequence

from reports.canvas import Drawing, blank, finish, handles, numbers, palette, tidy
from reports.load import RowResult
from reports.stats import Cell, by_row, summarise

COLUMNS = ("row", "training", "of", "mean", "sd", "n")


def cost(
    rows: Sequence[RowResult], *, order: Sequence[str] = (), caption: str = "", title: str | None = None
) -> Drawing | None:
    """A line for each row: minutes of each training of its chain, and the most memory that one of them needed, on a GPU
    where one was measured; means over seeds. Of a training also its steps, and the seconds of one.

    Returns:
        None where no row has a training whose time is known.
    """
    lines: list[tuple[str, str, str, Cell]] = []
    for label, of_row in by_row(rows, order).items():
        for number in sorted({one.number for result in of_row for one in result.trainings}):
            same = [one for result in of_row for one in result.trainings if one.number == number]
            name, timed = same[0].name, [one for one in same if one.seconds is not None]
            lines += [
                (label, name, "minutes", summarise(one.seconds / 60 for one in timed if one.seconds is not None)),
                (label, name, "steps", summarise(float(one.steps) for one in same)),
                (
                    label, name, "seconds of a step",
                    summarise(one.seconds / one.steps for one in timed if one.seconds is not None and one.steps),
                ),
            ]  # fmt: skip
            lines += [
                (label, name, f"{where} MB", summarise(one.memory.get(where) for one in same))
                for where in ("host", "gpu")
            ]
    lines = [line for line in lines if line[3].n]
    labels = list(dict.fromkeys(label for label, _, of, _ in lines if of == "minutes"))
    if not labels:
        return None
    found = {(label, name, of): cell for label, name, of, cell in lines}
    names = list(dict.fromkeys(name for label, name, of, _ in lines if label in labels))
    figure, (time_axes, memory_axes) = blank(8.0, 0.9 + 0.26 * len(labels), columns=2)
    ends = [0.0] * len(labels)
    for index, name in enumerate(names):
        widths = [found.get((label, name, "minutes"), Cell(None, None, 0)).mean or 0.0 for label in labels]
        time_axes.barh(
            range(len(labels)), widths, 0.72, left=ends, color=palette()[index % 10], label=name, linewidth=0
        )
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    where = "gpu" if any(of == "gpu MB" for _, _, of, _ in lines) else "host"
    most = [
        max(
            (cell.mean or 0.0 for (row, _, of), cell in found.items() if row == label and of == f"{where} MB"),
            default=0.0,
        )
        for label in labels
    ]
    memory_axes.barh(range(len(labels)), most, 0.72, color="0.55", linewidth=0)
    for axes, values, form in ((time_axes, ends, "{:.1f}"), (memory_axes, most, "{:.0f}")):
        axes.set_xlim(0, 1.2 * max([*values, 1e-9]))
        for y, value in enumerate(values):
            text = form.format(value) if value else "-"
            axes.annotate(text, (value, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        tidy(axes, "x")
    time_axes.set_yticks(range(len(labels)), labels, fontsize=8)
    memory_axes.set_yticks([])
    time_axes.set_xlabel("minutes of training")
    memory_axes.set_xlabel(f"most memory of the {'GPU' if where == 'gpu' else 'process'} (MB)")
    said = f"{caption} All trainings of a row's chain, those that it shares with other rows too.".strip()
    table = tuple((label, name, of, *numbers(cell)) for label, name, of, cell in lines)
    return Drawing(finish(figure, handles(time_axes), said, title), COLUMNS, table)
