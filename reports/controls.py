"""Which rows are compared with a control beside the baseline, in words. Separate because the differences themselves are
those of any two rows (reports/stats.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.footnotes import some_rows
from reports.load import RowResult
from reports.stats import engine_of, other_counts, other_val


def sentences(groups: Mapping[str, Sequence[RowResult]], against: Mapping[str, str]) -> tuple[str, ...]:
    """What the differences from a control are, for which rows, and where there is none and why.

    Args:
        groups: label -> results, of the rows that have some.
        against: label -> label of the row that it has to beat.
    """
    texts: dict[str, list[str]] = {}
    for label, control in ((label, against[label]) for label in groups if label in against):
        texts.setdefault(_said(groups[label], groups.get(control), control), []).append(label)
    return tuple(f"{text}: {some_rows(rows)}" for text, rows in texts.items())


def _said(group: Sequence[RowResult], base: Sequence[RowResult] | None, control: str) -> str:
    if base is None:
        return f"no difference from {control}, which has no result"
    if engine_of(group) != engine_of(base):
        return f"on another engine than {control}, so without a difference from it"
    if other_val(group, base):
        return f"evaluated on other data than {control}, so without a difference from it"
    text = f"\N{GREEK CAPITAL LETTER DELTA} control is the difference from {control}, paired by seed"
    return f"{text} (its bins hold other classes)" if other_counts(group, base) else text
