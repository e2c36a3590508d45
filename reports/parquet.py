"""The table and the results as Parquet, for programs. Separate from render.py and frames.py because a CSV guards names
against spreadsheets and has no types: here names are as they are and a missing number is null.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

from bench.record import Record
from reports import frames
from reports.render import flat
from reports.tables import Table

if TYPE_CHECKING:
    from pandas import DataFrame


def of_table(table: Table) -> bytes:
    """`table.parquet`: what table.csv has. Texts, counts (`_n`) as integers, all else as float64."""
    import pandas as pd

    names, lines = flat(table)
    columns = {}
    for place, name in enumerate(names):
        values = [line[place] for line in lines]
        text = any(isinstance(value, str) for value in values) or name in ("row", "seeds", "skipped")
        kind = "str" if text else "int64" if name.endswith("_n") else "float64"
        columns[name] = pd.Series(values, dtype=kind)
    return _written(pd.DataFrame(columns))


def of_results(records: Iterable[Record]) -> bytes:
    """`results.parquet`: the lines of results.csv, with the types of `reports.load.frame`."""
    return _written(frames.framed(list(frames.lines(records))))


def _written(frame: DataFrame) -> bytes:
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
    return out.getvalue()
