"""What a table says, in sentences: what lifts the tail, what it costs the head, and which differences are certain.
Separate from footnotes.py, which says under which conditions the numbers hold. Every number is one of the table's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.differences import CERTAIN, MODELS, OPEN, UNCORRECTED, UNKNOWN, Found, of_one_seed, tried
from reports.figures.canvas import DEFAULT_EDGES, bins_of, over
from reports.render import format_cell, format_ends
from reports.stats import Cell
from reports.tables import Line, Table

MOST = 6  # rows named before the rest is counted
GAINERS = 3  # rows whose price is told


def sentences(
    table: Table, bases: Mapping[str, str] | None = None, edges: Sequence[int] = DEFAULT_EDGES
) -> tuple[str, ...]:
    """The summary of a table.

    Args:
        table: of a suite.
        bases: label -> label of the row that it is compared with, where there are several.
        edges: of the instance bins.

    Returns:
        One text a paragraph. Where there is nothing to compare, that.
    """
    done = [line for line in table.lines if line.seeds]
    if not done:
        return ("No row has a number yet.",)
    found = [_what_there_is(table, done, bases or {})]
    tail, head = _ends(table)
    if table.baseline is None or not any(cell.n for line in done for cell in line.delta.values()):
        return (*found, "No row has a baseline to be compared with, so nothing is said of gains.")
    found += [_gains(table, done, tail, edges), _costs(table, done, tail, head, edges)]
    found += _sure(table, done, "delta", tail, head)
    if table.controls:
        found += _sure(table, done, "against", tail, head)
    return tuple(text for text in [*found, _caution(table, done)] if text)


def _ends(table: Table) -> tuple[str, str]:
    """The metrics of the rarest and of the most frequent classes: AP1 and AP4, or APr and APf."""
    bins = [name for name in bins_of(table.metrics) if name != "AP"]
    bins = [name for name in bins if any(line.cell("delta", name).n for line in table.lines)]
    return (bins[0], bins[-1]) if len(bins) > 1 else ("APr", "APf")


def _what_there_is(table: Table, done: Sequence[Line], bases: Mapping[str, str]) -> str:
    every = len(done) == len(table.lines)
    rows = f"{_rows(len(done))} with numbers" if every else f"{len(done)} of {len(table.lines)} rows with numbers"
    seeds = sorted({seed for line in done for seed in line.seeds})
    alike = len({line.seeds for line in done}) == 1
    listed = ", ".join(map(str, seeds))
    of = f"seed{'s' * (len(seeds) > 1)} {listed}" + ("" if alike else " (not every row has all of them)")
    if table.baseline is None:
        return f"{rows}, {of}."
    several = len(set(bases.values())) > 1
    base = f"{table.baseline}, or from the baseline of the row's own engine" if several else table.baseline
    return f"{rows}, {of}. Differences are AP points from {base}, paired by seed."


def _gains(table: Table, done: Sequence[Line], tail: str, edges: Sequence[int]) -> str:
    ranked = _ranked(done, tail)
    best = _gainers(ranked, tail)
    where = _metric(tail, edges)
    if not ranked:
        return f"Tail: there is no difference in {where}."
    start = next((line.own[tail] for line in done if line.row == table.baseline and tail in line.own), None)
    has = f"; {table.baseline} has {_mean(start)}" if start is not None and start.mean is not None else ""
    if not best:
        return f"Tail, {where}{has}: no row gains."
    told = [f"{line.row} {_apart(table, 'delta', line, tail)} to {_mean(line.own[tail])}" for line in best[:GAINERS]]
    more = _how_many(table, best, ranked, tail) if len(best) > GAINERS else ""
    return f"Tail, {where}{has}: the largest gain{'s are' if len(told) > 1 else ' is'} {'; '.join(told)}{more}."


def _gainers(ranked: Sequence[Line], tail: str) -> list[Line]:
    """The rows whose gain can be seen in the table, which has one decimal."""
    return [line for line in ranked if round(line.delta[tail].mean or 0.0, 1) > 0]


def _how_many(table: Table, best: Sequence[Line], ranked: Sequence[Line], tail: str) -> str:
    found = table.certain.get("delta", {})
    text = f"; by their means {len(best)} of {len(ranked)} rows gain"
    if not tried(found, tail):
        return text
    sure = sum(1 for line in best if _verdict(found, line, tail) == CERTAIN)
    return f"{text}, {sure or 'none'} of them {CERTAIN}"


def _costs(table: Table, done: Sequence[Line], tail: str, head: str, edges: Sequence[int]) -> str:
    gainers = _gainers(_ranked(done, tail), tail)
    told = [
        f"{line.row} {_signed(line.delta[head])} (AP {_signed(line.delta.get('AP'))})"
        for line in gainers[:GAINERS]
        if head in line.delta and line.delta[head].n
    ]
    if not told:
        return ""
    free = [line.row for line in gainers if head in line.delta and round(line.delta[head].mean or 0.0, 1) >= 0]
    free_text = f" Gain the tail and lose nothing at the head, by their means: {_some(free)}." if free else ""
    if not free:
        free_text = " No row gains the tail without a loss at the head, by their means."
    return f"Price at the head, {_metric(head, edges)}: {'; '.join(told)}.{free_text}"


def _sure(table: Table, done: Sequence[Line], block: str, tail: str, head: str) -> list[str]:
    """Which differences of a block are certain, a sentence for each metric."""
    found = table.certain.get(block, {})
    whom = str(table.baseline) if block == "delta" else _control(table)
    models = f" {MODELS}" if max(len(line.seeds) for line in done) == 1 else ""
    texts = []
    for metric in ("AP", tail, head):
        if not tried(found, metric):
            continue
        of = {v: [one for one in done if _verdict(found, one, metric) == v] for v in (CERTAIN, UNCORRECTED, OPEN)}
        told = {
            verdict: [f"{line.row} {_apart(table, block, line, metric)}" for line in _by(lines, block, metric)]
            for verdict, lines in of.items()
        }
        sure = f"{CERTAIN}{models}: {_some(told[CERTAIN], '; ')}"
        apart = sure if told[CERTAIN] else f"no difference is {CERTAIN}{models}"
        # All of them: who reads that a row is not certain wants to know that its interval is without 0.
        same = f". {_capital(UNCORRECTED)}: {'; '.join(told[UNCORRECTED])}" if told[UNCORRECTED] else ""
        same += f". {_capital(OPEN)}: {_some([line.row for line in of[OPEN]])}" if of[OPEN] else ""
        known = [line for lines in of.values() for line in lines]
        bare = [line.row for line in done if line not in known and line.cell(block, metric).n]
        same += f". Without an interval: {_some(bare)}" if bare else ""
        holm = f"Holm over {_rows(tried(found, metric))}"
        texts.append(f"{metric} against {whom} (95 % intervals, {holm}): {apart}{same}.")
    lacking = [metric for metric in (tail, head) if tried(found, "AP") and not tried(found, metric)]
    if lacking:
        texts.append(f"{' and '.join(lacking)} against {whom}: no interval, so no difference in it is called certain.")
    if not texts and block == "against":
        plain = [f"{line.row} {_signed(line.against.get(tail))}" for line in _by(_having(done, tail), block, tail)]
        texts = [f"{tail} against {whom}, without intervals: {_some(plain, '; ')}."] if plain else []
    return texts


def _caution(table: Table, done: Sequence[Line]) -> str:
    """What the numbers cannot say."""
    most = max(len(line.seeds) for line in done)
    known = any(tried(found, metric) for found in table.certain.values() for metric in ("AP", "AP1", "APr"))
    if known and most == 1:
        only = f"One seed a row: what is certain is so {MODELS} and other val images"
        return f"{only}; another training may turn any difference."
    if known:
        one = of_one_seed(table.certain)
        return f"Of one seed, and so {MODELS} alone: {', '.join(one)}." if one else ""
    made = "No intervals were made (report --intervals makes them)" if not table.certain else "There are no intervals"
    if most == 1:
        return f"{made} and there is one seed a row: none of these differences can be told from chance."
    return f"{made}: ± is the spread over seeds, and which differences are more than chance is not known."


def _control(table: Table) -> str:
    return table.controls[0] if len(table.controls) == 1 else "the control of each row"


def _having(done: Sequence[Line], metric: str) -> list[Line]:
    return [line for line in done if metric in line.against and line.against[metric].n]


def _ranked(done: Sequence[Line], metric: str) -> list[Line]:
    return _by([line for line in done if metric in line.delta and line.delta[metric].n], "delta", metric)


def _by(lines: Sequence[Line], block: str, metric: str) -> list[Line]:
    """Largest difference first; ties stay in the table's order."""
    return sorted(lines, key=lambda line: -(line.cell(block, metric).mean or 0.0))


def _verdict(found: Found, line: Line, metric: str) -> str:
    one = found.get(line.row, {}).get(metric)
    return UNKNOWN if one is None else one.verdict


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _apart(table: Table, block: str, line: Line, metric: str) -> str:
    """`+5.8 [+4.1, +7.5]`."""
    one = table.certain.get(block, {}).get(line.row, {}).get(metric)
    return f"{_signed(line.cell(block, metric))}{format_ends(one)}"


def _signed(cell: Cell | None) -> str:
    return "-" if cell is None else format_cell(Cell(cell.mean, None, cell.n), signed=True)


def _mean(cell: Cell) -> str:
    return format_cell(Cell(cell.mean, None, cell.n))


def _metric(name: str, edges: Sequence[int]) -> str:
    classes = over(name, edges)
    return f"{name} ({classes})" if classes else name


def _rows(number: int) -> str:
    return f"{number} row{'s' * (number != 1)}"


def _some(texts: Sequence[str], joint: str = ", ") -> str:
    more = f" and {len(texts) - MOST} more" if len(texts) > MOST else ""
    return joint.join(texts[:MOST]) + more
