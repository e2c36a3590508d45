"""What stands in the page of a report: values of reports/page/render.py from rows, table, figures, plan and store.

Separate from how they are written.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace

from bench.errors import cell_text
from bench.evaluation.pooled import PER_CLASS
from bench.frequency import instance_bin
from bench.plan import planning
from bench.plan.planning import Plan, RowPlan
from bench.store.store import Store
from reports import more_metrics
from reports.differences import SHOWN, Difference, tried
from reports.differences import to_csv as intervals_csv
from reports.figures.canvas import DEFAULT_EDGES, bin_names, csv_of, image_of, over
from reports.figures.errors import DIRECTIONS, KINDS, UNFOUND, costs
from reports.figures.errors import to_csv as errors_csv
from reports.figures.forest import forest
from reports.figures.kinds import Drawn
from reports.load import RowResult
from reports.page import stages as page_stages
from reports.page.images import Browser
from reports.page.render import Column, Drawing, Entry, Grid, Page
from reports.page.search import part_of
from reports.page.summary import sentences
from reports.render import column_name, format_cell, format_ends, notes_under, reasons, row_name, to_csv, value_text
from reports.search.report import SearchReport
from reports.search.text import gain_sentences
from reports.stats import Cell, bases_of, by_row, summarise
from reports.tables import Table
from reports.write import Report

MAIN = ("AP", "AP1", "AP2", "AP3", "AP4", "APr", "APc", "APf")
MISSING = Entry("-")
BLOCK_NAMES = {
    "own": "own",
    "delta": "difference from {}",
    "against": "difference from {}",
    "paper": "published",
}
KIND_SAID = {
    "classification": "the right place, the wrong class",
    "localisation": "the right class, IoU 0.1 to 0.5",
    "both": "the wrong class, IoU 0.1 to 0.5",
    "duplicate": "a box that is found already",
    "background": "on no box: IoU below 0.1",
    "missed": "boxes that nothing has found and no error of class or location lies on",
}
WHITHER = ("the bin of the box's own class", "one with more training instances", "one with fewer")
BESIDE_SAID = {
    "AP_fixed": f"AP of the best {PER_CLASS:,} stored detections of each class, no limit an image (Dave et al., 2021)",
    "AP_pool": "AP of one precision-recall curve of all classes, by score (Dave et al., 2021)",
    "ECE": "mean distance of scores from the share of detections that is right; 0 is calibrated (Guo et al., 2017)",
}
AR_SAID = "recall of the best proposals of each image, so many, whatever their class; mean over IoU 0.5 to 0.95"
NO_INTERVALS = "There are no intervals: bench report --intervals makes them from the stored predictions."


def page_of(
    rows: Sequence[RowResult],
    written: Report,
    plan: Plan,
    store: Store,
    *,
    made_by: Sequence[str] = (),
    browser: Browser | None = None,
    search: SearchReport | None = None,
) -> Page:
    """The page of a report that was just written.

    Args:
        rows: one result per row and seed.
        written: the tables and figures, with their files.
        plan: the suite's.
        store: where its stages are; only read.
        made_by: lines that say which command and code made it.
        browser: the images beside it.
        search: the report of its search, that was just written too.
    """
    table, order = written.table, [row.label for row in plan.suite.rows]
    edges = tuple(plan.suite.sections.test.bins)
    view = page_stages.view(plan, planning.CachedStore(store))
    chains, untold = page_stages.chains(plan, view)
    return Page(
        title=table.title,
        summary=(
            *(gain_sentences(search.found) if search else ()),
            *sentences(table, bases_of(by_row(rows, order)), edges),
        ),
        table=table_grid(table, edges),
        table_notes=tuple(note.removeprefix("* ") for note in reasons(table)),
        differences=difference_grid(table, intervals_csv(rows, order, table.certain)),
        forest=forest_drawing(table, edges),
        difference_notes=table.certain_notes or (NO_INTERVALS,),
        beside=beside_grid(rows, order),
        errors=error_grid(rows, order, edges, browser),
        figures=tuple(_read(figure) for figure in written.figures),
        lacking=written.lacking,
        per_class=class_grid(rows, order, browser),
        cost=page_stages.cost(plan, view),
        stages=page_stages.grid(plan, view),
        conditions=tuple(notes_under(table)),
        chains=chains,
        untold=untold,
        commands=command_grid(rows, plan, store),
        made_by=tuple(made_by),
        images=browser.page if browser else "",
        search=part_of(search, tuple(map(_read, search.figures))) if search else None,
    )


def table_grid(table: Table, edges: Sequence[int] = DEFAULT_EDGES) -> Grid:
    """The suite's table; columns in which no row has a value are left out."""
    every = [(block, metric) for block in ("own", "delta", "against") for metric in table.metrics]
    every += [("paper", metric) for metric in table.paper_metrics]
    full = [column for column in every if any(line.cell(*column).n for line in table.lines)]
    columns = [
        Column(column_name(*one, " "), block=one[0], extra=one[1] not in MAIN, about=over(one[1], edges))
        for one in full
    ]
    lines = []
    for line in table.lines:
        seeds = Entry(str(len(line.seeds)) if line.seeds else "-", float(len(line.seeds)) or None)
        cells = [Entry(value_text(line, one), line.cell(*one).mean, _certain(table, line.row, one)) for one in full]
        lines.append((Entry(row_name(line)), seeds, *cells))
    control = table.controls[0] if len(table.controls) == 1 else "the row's control"
    whom = {"delta": table.baseline or "", "against": control}
    blocks = [
        (block, name.format(whom.get(block, "")), block in ("own", "delta"))
        for block, name in BLOCK_NAMES.items()
        if any(column.block == block for column in columns)
    ]
    return Grid(
        "table", "Mean over seeds ± sample standard deviation, AP points; bold: a certain difference",
        (Column("row", number=False), Column("seeds"), *columns), tuple(lines),
        blocks=tuple(blocks), file=("table.csv", to_csv(table)),
    )  # fmt: skip


def difference_grid(table: Table, file: str) -> Grid | None:
    """Every difference of the metrics that have intervals; None without one."""
    lines = [
        _difference(label, metric, one)
        for found in table.certain.values()
        for label, of in found.items()
        for metric, one in of.items()
        if metric in SHOWN
    ]
    if not any(tried(found, metric) for found in table.certain.values() for metric in SHOWN):
        return None
    names = ("row", "metric", "from", "difference", "95 % interval", "p", "p (Holm)", "verdict")
    words = ("row", "metric", "from", "verdict")
    columns = tuple(Column(name, number=name not in words) for name in names)
    caption = "Differences with their intervals, AP points; an interval is sorted by its lower end"
    return Grid("intervals", caption, columns, tuple(lines), file=("intervals.csv", file))


def _difference(label: str, metric: str, one: Difference) -> tuple[Entry, ...]:
    mean = format_cell(Cell(one.cell.mean, None, one.cell.n), signed=True)
    ends = format_ends(one).strip() or "-"
    p = None if one.interval is None else one.interval.p
    low = None if one.interval is None else one.interval.low
    numbers = (Entry(mean, one.cell.mean, one.certain), Entry(ends, low), _probability(p), _probability(one.holm))
    return Entry(label), Entry(metric), Entry(one.base), *numbers, Entry(one.verdict)


def _probability(p: float | None) -> Entry:
    return MISSING if p is None else Entry(f"{p:.3f}" if p >= 0.001 else "<0.001", p)


def forest_drawing(table: Table, edges: Sequence[int]) -> Drawing | None:
    """The differences from the baseline, or where there are none those from controls."""
    for block in ("delta", "against"):
        found = table.certain.get(block, {})
        whom = table.baseline if block == "delta" else "the control"
        caption = (
            f"Difference from {whom} in AP points, with 95 % intervals. Certain: without 0 after Holm's correction."
        )
        drawing = forest(found, edges=edges, caption=caption)
        if drawing is not None:
            title, svg = f"Differences from {whom}", image_of(drawing, "svg")
            return Drawing("differences", title, str(drawing.figure.get_label()), svg, csv_of(drawing))
    return None


def beside_grid(rows: Sequence[RowResult], order: Sequence[str]) -> Grid | None:
    """AP-fixed, AP-pool, ECE and the recall of proposals; None where no row has them."""
    names, found = more_metrics.grid(rows, order)
    if not found:
        return None
    columns = (Column("row", number=False), *(Column(name, about=BESIDE_SAID.get(name, AR_SAID)) for name in names))
    lines = tuple(
        (Entry(label), *(Entry(format_cell(cell), cell.mean) for cell in cells)) for label, cells in found.items()
    )
    caption = "What predictions say beside AP, all classes: points, mean over seeds ± sample standard deviation"
    return Grid("beside", caption, columns, lines, file=("more_metrics.csv", more_metrics.to_csv(rows, order)))


def error_grid(
    rows: Sequence[RowResult], order: Sequence[str], edges: Sequence[int], browser: Browser | None = None
) -> Grid | None:
    """What each kind of error costs; None where no row has its errors."""
    cells = costs(rows, order, all_groups=True)
    if not cells:
        return None
    named = list(dict.fromkeys((label, name) for label, name, _ in cells))
    lines = [
        (Entry(label), Entry(over(name, edges) or name), *(_number(cells[label, name, kind]) for kind in KINDS),
         *(_count(cells[label, name, what]) for what in (UNFOUND, *DIRECTIONS)))
        for label, name in named
    ]  # fmt: skip
    links = tuple(browser.of_row(*one) or "" for one in named) if browser else ()
    columns = (
        Column("row", number=False), Column("classes", number=False),
        *(Column(name, about=KIND_SAID[kind]) for kind, name in KINDS.items()),
        Column("unfound", about="classes of which nothing is found: their missed boxes cost nothing"),
        *(Column(name, about=f"how many errors of class went to {whither}")
          for name, whither in zip(DIRECTIONS.values(), WHITHER, strict=True)),
    )  # fmt: skip
    caption = "AP50 points that each kind of error costs, alone put right; mean over seeds. Kinds do not add up"
    file = ("error_kinds.csv", errors_csv(rows, order))
    return Grid("error-kinds", caption, columns, tuple(lines), file=file, links=links)


def class_grid(rows: Sequence[RowResult], order: Sequence[str], browser: Browser | None = None) -> Grid | None:
    """AP of each class, by the mean over the seeds that have it; None where no record has its classes.

    A class is an id with its name: where data follow the seed they may differ, and so may counts and bins.
    """
    counts: dict[tuple[int, str], set[int]] = {}
    bins: dict[tuple[int, str], set[int]] = {}
    found: dict[tuple[int, str], dict[str, list[float | None]]] = {}
    groups = by_row(rows, order)
    for label, group in groups.items():
        for record in (result.record for result in group):
            classes = record.per_class
            if classes is None:
                continue
            places = instance_bin(classes.instance_counts, record.protocol.bins).tolist()
            columns = (classes.category_ids, classes.names, classes.instance_counts, places, classes.ap)
            for number, name, count, place, ap in zip(*columns, strict=True):
                counts.setdefault((number, name), set()).add(count)
                bins.setdefault((number, name), set()).add(place)
                found.setdefault((number, name), {}).setdefault(label, []).append(ap)
    if not found:
        return None
    labels = [label for label in groups if any(label in of for of in found.values())]
    names = bin_names(tuple(rows[0].record.protocol.bins))
    lines, written = [], io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(map(cell_text, ("class_id", "class", "instances", "bin", *labels)))
    for one in sorted(found):
        cells = [summarise(found[one].get(label, ())) for label in labels]
        instances, place = counts[one], " or ".join(f"AP{i + 1}: {_at(names, i)}" for i in sorted(bins[one]))
        middle = sum(instances) / len(instances)
        lines.append((Entry(one[1]), Entry(_span(instances), middle), Entry(place), *map(_number, cells)))
        means = ("" if cell.mean is None else f"{cell.mean:.6g}" for cell in cells)
        writer.writerow([one[0], cell_text(one[1]), _span(instances), place, *means])
    columns_ = (Column("class", number=False), Column("instances", about="training instances"),
                Column("bin", number=False), *map(Column, labels))  # fmt: skip
    caption = f"AP points of {len(lines):,} classes, mean over seeds; - is a class without a box in val"
    file = ("per_class_means.csv", written.getvalue())
    links = tuple(browser.of_class(*one) or "" for one in sorted(found)) if browser else ()
    return Grid("per-class", caption, columns_, tuple(lines), file=file, links=links)


def command_grid(rows: Sequence[RowResult], plan: Plan, store: Store) -> Grid:
    """For each row and seed its AP, the command that makes it (and starts nothing where it is done), and the one that
    explains its stage."""
    have = {(result.record.row, result.record.seed): result.record.metrics.get("AP") for result in rows}
    lines = []
    for row in plan.rows:
        ap = have.get((row.label, row.seed))
        number = MISSING if ap is None else Entry(f"{ap:.1f}", ap)
        commands = _commands(row, plan, store)
        lines.append((Entry(row.label), Entry(str(row.seed), float(row.seed)), number, *map(Entry, commands)))
    columns = (Column("row", number=False), Column("seed"), Column("AP"),
               Column("makes it", number=False, code=True), Column("explains it", number=False, code=True))  # fmt: skip
    return Grid("makes", "The command that makes each number, and the one that explains it", columns, tuple(lines))


def _commands(row: RowPlan, plan: Plan, store: Store) -> tuple[str, str]:
    if row.evaluate is None:
        return "-", "-"
    suite = plan.suite
    why = suite.command("why", store.root, row.evaluate.key[:12])
    if suite.sections.search is not None:  # `run` refuses a search, whose rows are made together
        return suite.command(suite.verb, store.root), why
    one = replace(suite, options=tuple(suite.options_without("--only", "--seeds")))
    return one.command("run", store.root, "--only", row.label, "--seeds", str(row.seed)), why


def _read(figure: Drawn) -> Drawing:
    files = {path.suffix: path.read_bytes() for path in figure.files}
    return Drawing(figure.name, figure.title, figure.caption, files[".svg"], files[".csv"].decode())


def _certain(table: Table, label: str, column: tuple[str, str]) -> bool:
    one = table.certain.get(column[0], {}).get(label, {}).get(column[1])
    return one is not None and one.certain


def _number(cell: Cell) -> Entry:
    return MISSING if cell.mean is None else Entry(f"{round(cell.mean, 1) + 0.0:.1f}", cell.mean)


def _count(cell: Cell) -> Entry:
    """A number of things, which is whole but for a mean over seeds."""
    return MISSING if cell.mean is None else Entry(f"{cell.mean:,.1f}".removesuffix(".0"), cell.mean)


def _span(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def _at(names: Sequence[str], place: int) -> str:
    return names[place] if place < len(names) else "-"
