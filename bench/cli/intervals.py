"""What a report makes of stored predictions, intervals and error kinds: made where it is lacking, with a bar. Separate
from tables.py, which writes reports, since it is the one part of a report that takes long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import Progress

from bench.cli.say import cell, count, say
from bench.plan.planning import Plan
from bench.stage import Stage
from bench.store.store import Store
from reports.load import RowResult

MOST = 100  # evaluations for which it is made unasked: seconds each


def with_intervals(
    plan: Plan, store: Store, results: Sequence[RowResult], console: Console, *, wanted: bool | None = None,
    options: Sequence[str] = (),
) -> list[RowResult]:  # fmt: skip
    """The same results with their draws and errors.

    Args:
        plan: of `results`.
        store: where predictions are.
        results: what is done.
        console: where the bar is drawn.
        wanted: None: made for up to `MOST` evaluations; False: what is kept, and nothing is made.
        options: of the report, which the command that is shown repeats.

    Raises:
        UserError: predictions that were changed, or that do not give the recorded AP.
    """
    from reports.predictions import with_kept

    found = with_kept(store, plan.stages, results)
    again = plan.suite.command("report", store.root, *options)
    return with_lacking(plan.stages, store, found, console, again, wanted=wanted)


def with_lacking(
    stages: Mapping[str, Stage], store: Store, found: list[RowResult], console: Console, again: str, *,
    wanted: bool | None = None,
) -> list[RowResult]:  # fmt: skip
    """`with_intervals` of results that have what is kept of them. `stages`: those that measured them, by key; `again`:
    the command that makes their report."""
    from bench.evaluation.resample import PASSES
    from reports.predictions import lacking, with_predictions

    missing = lacking(found)
    if not missing or wanted is False:
        return found
    if wanted is None and len(missing) > MOST:
        what = f"intervals are not made unasked for more than {MOST} evaluations (here {len(missing)})"
        say(console, f"{what}: {again} --intervals")
        return found
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"intervals of {count(len(missing), 'evaluation')}", total=len(missing) * PASSES)

        def made(row: RowResult, number: int) -> None:
            said = f"intervals: {cell(row.record.row)}, seed {row.record.seed}"
            bar.update(task, advance=number, description=said)

        return with_predictions(store, stages, found, made)
