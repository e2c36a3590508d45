"""Runs of the layout before, in which a suite's stages lay among its rows. Separate because it can go once no mirror is
of that layout.

What a suite still has is made again from the store by a sync. What it has no longer, as stages of other options, is
only in MLflow and is taken over from there. Old runs go to MLflow's trash, from which its pages restore them.
"""

from __future__ import annotations

from typing import Any

from bench.tracking.mirror import Mirror
from bench.tracking.rows import PARENT
from bench.tracking.stages import ENDED, LAST, LINES, READ, WHAT

NAMES = {"bench.read": READ, "bench.lines": LINES, "bench.last": LAST, "bench.ended": ENDED, "bench.kind": "stage"}


def bring_over(of_rows: Mirror, of_stages: Mirror, suite: str) -> None:
    """Leave no run of the layout before beside one of this.

    Args:
        of_rows: of the suite's experiment, brought up to date; both layouts' runs were read from it.
        of_stages: of its stages'.
        suite: its name.
    """
    top = of_rows.find(f"suite/{suite}")
    for key, runs in of_rows.old.items():
        what = runs[0].data.tags.get(WHAT)
        if what == "stage" and of_stages.find(key) is None:
            _take_over(of_rows, of_stages, key, runs[0])
        if of_rows.find(key) is not None or of_stages.find(key) is not None:
            for run in runs:
                of_rows.client.delete_run(run.info.run_id)
        elif what == "row" and top is not None:
            for run in runs:
                of_rows.write(run, tags={PARENT: top.info.run_id})


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
