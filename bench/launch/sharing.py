"""What several processes cannot train together, found before a job is submitted. Separate because each place where jobs
run asks for it.
"""

from __future__ import annotations

from bench.run.world import refusal_of_live_norm, refuse_shares
from bench.stage import KINDS, Stage


def refuse_together(stage: Stage, tasks: int) -> None:
    """Refuse a training that so many processes cannot share. The job refuses it as well (bench/run), but only once it
    has waited in the queue.

    Raises:
        UserError: fewer images per step than processes, shares that count unequally, or batch norm that learns.
    """
    if not KINDS[stage.kind].processes or tasks == 1:
        return
    spec = stage.spec
    refuse_shares(int(spec["schedule"]["batch"]), tasks, alone="scope" in spec)
    if spec["detector"].get("norm") == "batch" and not spec["trainable"]:
        raise refusal_of_live_norm(tasks)
