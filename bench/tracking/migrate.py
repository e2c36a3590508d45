"""Runs of older versions. In the layout before a suite's stages lay among its rows; later its rows had no tag `table`,
and those of several tables were one run. Separate because it can go once no mirror is of an older version.

What a suite still has is made again from the store by a sync. What it has no longer, as stages of other options, is
only in MLflow and is taken over from there. Old runs go to MLflow's trash, from which its pages restore them.
"""

from __future__ import annotations

from typing import Any

from bench.tracking.mirror import Mirror
from bench.tracking.rows import PARENT, TABLE
from bench.tracking.stages import ENDED, LAST, LINES, READ, WHAT

NAMES = {"bench.read": READ, "bench.lines": LINES, "bench.last": LAST, "bench.ended": ENDED, "bench.kind": "stage"}


def bring_over(of_rows: Mirror, of_stages: Mirror, suite: str) -> None:
    """Leave no run of an older version beside one of this.

    Args:
        of_rows: of the suite's experiment, brought up to date; both layouts' runs were read from it.
        of_stages: of its stages'.
        suite: its name.
    """
    top = of_rows.find(f"suite/{suite}")
    if top is not None:
        _replace_rows(of_rows, top.info.run_id)
    for key, runs in of_rows.old.items():
        if not runs:
            continue
        what = runs[0].data.tags.get(WHAT)
        if what == "stage" and of_stages.find(key) is None:
            _take_over(of_rows, of_stages, key, runs[0])
        if of_rows.find(key) is not None or of_stages.find(key) is not None:
            for run in runs:
                of_rows.client.delete_run(run.info.run_id)
        elif what == "row" and top is not None:
            for run in runs:
                of_rows.write(run, tags={PARENT: top.info.run_id})


def _replace_rows(of_rows: Mirror, top: str) -> None:
    """Delete the seeds without a table that have one now, and their rows, whose means may be of several tables. Other
    seeds of these rows stay below the suite, until their table is brought."""
    seeds: dict[str, list[tuple[str, Any]]] = {}  # key of a row of an older version -> keys and runs of its seeds
    rows: dict[str, list[Any]] = {}
    now = set()
    for key, runs in of_rows.runs().items():
        for run in runs:
            what, told = run.data.tags.get(WHAT), TABLE in run.data.tags
            if what == "seed" and told:
                now.add(_result(key))
            elif what == "seed":
                seeds.setdefault(key.rsplit("/", 2)[0], []).append((key, run))
            elif what == "row" and not told:
                rows.setdefault(key, []).append(run)
    for row, below in seeds.items():
        again = [run for key, run in below if _result(key) in now]
        if again:
            for key, run in below:
                if _result(key) not in now:
                    of_rows.write(run, tags={PARENT: top})
            for run in (*rows.get(row, ()), *again):
                of_rows.delete(run)


def _result(key: str) -> tuple[str, ...]:
    """Suite and row, seed and evaluation: a seed's `bench.key` without the digits of its row's settings."""
    row, _, seed, evaluation = key.rsplit("/", 3)
    return row, seed, evaluation


def _take_over(of_rows: Mirror, of_stages: Mirror, key: str, run: Any) -> None:
    """The same run among the stages, curves and all."""
    info, data = run.info, run.data
    tags = {NAMES.get(name, name): value for name, value in data.tags.items() if name != "mlflow.runName"}
    found = (point for name in data.metrics for point in of_rows.client.get_metric_history(info.run_id, name))
    values = [(point.key, point.value, point.timestamp / 1000, point.step) for point in found]
    copy = of_stages.create(key, info.run_name, info.start_time / 1000, {WHAT: "stage"})
    of_stages.write(copy, params=data.params, values=values, tags=tags)
    if info.status != "RUNNING":
        of_stages.finish(copy, info.status, (info.end_time or info.start_time) / 1000)
