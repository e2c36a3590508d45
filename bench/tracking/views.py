"""Which columns MLflow's runs table opens with: saved views, which MLflow keeps as tags of an experiment. Separate from
rows.py and stages.py, which write runs.

Facts, of the pages of MLflow 3.17.2 (mlflow/server/js/build): a tag `mlflow.sharedViewState.ID` holds JSON with name,
createdAt, updatedAt (milliseconds) and state, itself JSON: searchFilter, orderByKey, orderByAsc, selectedColumns,
columnOrder ...; `?viewStateShareKey=ID` opens it, and the menu "Saved views" lists it. A table sorted by a metric is
flat; one sorted by time nests children below parents. Columns of a browser's first visit cannot be set. An older
MLflow opens its own default from the same link.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench.errors import UserError, parsed
from bench.tracking.place import DATABASE

SHARED = "mlflow.sharedViewState."
TABLE, SEEDS, TRAININGS = "bench-table", "bench-seeds", "bench-trainings"
MODES = {TRAININGS: {"compareRunsMode": "CHART"}}  # curves of all trainings in one chart a loss
ENDS = ("_low", "_high")  # of an interval


def of_rows(metrics: Collection[str], there: Mapping[str, str], now: float) -> dict[str, str]:
    """The tags of a suite's experiment: views of its rows and of its seeds, best AP first.

    Args:
        metrics: names of the metrics of its rows.
        there: the experiment's tags; a view that says the same stays as it is.
        now: Unix seconds.
    """
    bins = sorted((name for name in metrics if re.fullmatch(r"AP\d", name)), key=lambda name: int(name[2:]))
    shown = [f"{name}{end}" for name in ("AP", "dAP") for end in ("", *ENDS)]
    row = [_metric(name) for name in (*shown, *bins) if name in metrics]
    seed = [_metric(name) for name in ("AP", *bins) if name in metrics]
    row += [_tag("table"), _tag("method"), _tag("seeds")]
    seed += [_tag("row"), _tag("seed"), _tag("table"), _tag("method")]
    return {
        SHARED + TABLE: _view("Table", "row", _metric("AP"), row, there.get(SHARED + TABLE), now),
        SHARED + SEEDS: _view("Seeds", "seed", _metric("AP"), seed, there.get(SHARED + SEEDS), now),
    }


def of_stages(there: Mapping[str, str], now: float) -> dict[str, str]:
    """The tags of the experiment of a suite's stages: a view of its trainings."""
    columns = [_metric("loss"), _tag("row"), _tag("seed"), _tag("method"), _tag("rows")]
    tag = SHARED + TRAININGS
    return {tag: _view("Trainings", "", "attributes.start_time", columns, there.get(tag), now)}


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _tag(name: str) -> str:
    return f"tags.`{name}`"


def _view(name: str, what: str, order: str, columns: Sequence[str], there: str | None, now: float) -> str:
    wanted = f"tags.`bench.what` = '{what}'" if what else "tags.`stage` = 'train'"
    state = {
        "searchFilter": wanted, "orderByKey": order, "orderByAsc": False, "startTime": "ALL",
        "lifecycleFilter": "Active", "datasetsFilter": [], "modelVersionFilter": "All Runs",
        "selectedColumns": list(columns), "columnOrder": list(columns), "runsHiddenMode": "FIRST_20_RUNS",
    }  # fmt: skip
    text = json.dumps(state)
    with contextlib.suppress(UserError, TypeError, KeyError):
        if there is not None and parsed(there)["state"] == text:
            return there
    stamp = int(now * 1000)
    return json.dumps({"name": name, "createdAt": stamp, "updatedAt": stamp, "state": text})


def links(store_root: Path, address: str) -> list[tuple[str, str]]:
    """(name of an experiment, link that opens its runs table as it is preset), of all in a store's database. Reads it
    without MLflow, whose import costs a second; one that cannot be read has none."""
    question = """select e.name, e.experiment_id, t.key from experiments e join experiment_tags t using (experiment_id)
                  where e.lifecycle_stage = 'active' and t.key in (?, ?) order by e.experiment_id"""
    rows: list[Any] = []
    with contextlib.suppress(sqlite3.Error):
        path = (store_root / DATABASE).resolve().as_uri()
        with contextlib.closing(sqlite3.connect(f"{path}?mode=ro", uri=True)) as database:
            rows = database.execute(question, (SHARED + TABLE, SHARED + TRAININGS)).fetchall()
    return [(str(name), link(address, str(number), str(tag).removeprefix(SHARED))) for name, number, tag in rows]


def link(address: str, experiment: str, view: str) -> str:
    """Where a view is seen. Without `workflowType` MLflow 3 opens its pages for language models."""
    asked = urlencode({"workflowType": "machine_learning", "viewStateShareKey": view, **MODES.get(view, {})})
    return f"{address}/#/experiments/{experiment}/runs?{asked}"
