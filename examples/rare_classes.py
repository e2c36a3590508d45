"""Read the results of a suite in Python: the AP of each class, row beside row, the rarest first.

    python examples/rare_classes.py suites/table1.yaml
    python examples/rare_classes.py examples/own_data.yaml --data shapes --rows baseline,BAGS

It opens the suite as every command does, so that it finds what `python -m bench run` with the same options has made.
Nothing is trained. In a notebook, call `table` and go on with the frame.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench.cli.open import open_suite
from bench.plan import planning
from bench.store.store import Store
from reports.load import load


def table(suite: Path, store: Path, *, data: str | None = None, rows: Sequence[str] = ()) -> pd.DataFrame:
    """AP points by class (mean over seeds), a column for each row; index: training instances, ascending.

    Raises:
        UserError: the suite is wrong. KeyError: a row that has no results.
    """
    plan = planning.make(open_suite(suite, data=data))
    found = [
        {"row": result.record.row, "class": number, "instances": instances, "AP": ap}
        for result in load(Store(store), plan)
        for number, (instances, ap) in enumerate(zip(result.instance_counts, result.per_class_ap, strict=True), 1)
    ]
    frame = pd.DataFrame(found, columns=["row", "class", "instances", "AP"])
    wide = frame.pivot_table(index=["instances", "class"], columns="row", values="AP", aggfunc="mean").sort_index()
    return wide[list(rows) or list(dict.fromkeys(frame["row"]))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path)
    parser.add_argument("--store", type=Path, default=Path(os.environ.get("BENCH_STORE", "store")))
    parser.add_argument("--data", help="as for `bench run`")
    parser.add_argument("--rows", default="", help="between commas; default: all that are done")
    options = parser.parse_args()
    rows = [row for row in options.rows.split(",") if row]
    print(table(options.suite, options.store, data=options.data, rows=rows).round(1).head(20).to_string())


if __name__ == "__main__":
    main()
