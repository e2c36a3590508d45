"""Two people, two suites, one store, at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_suite import Undisturbed, attempts, copied, digests, key_of, start, tiny, work

from bench.plan import planning
from bench.store.store import Store

FIRST, SECOND = "baseline,cls-retrain,tau-norm", "BAGS,cls-retrain,baseline"


@pytest.mark.slow
def test_overlapping_suites_share_every_stage(smoke: Undisturbed, tmp_path: Path) -> None:
    """From an empty store; the data and the baseline are wanted by both at once, a head by two fused groups."""
    root = tmp_path / "store"
    runs = [start(root, "--only", only, "--out", str(tmp_path / only)) for only in (FIRST, SECOND)]
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(outputs)
    expected = smoke.digests()
    for only, output in zip((FIRST, SECOND), outputs, strict=True):
        plan = planning.make(tiny(only=only))
        assert digests(plan, root) == {key: expected[key] for key in plan.stages}
        assert {len(found) for found in attempts(plan, root).values()} == {1}
        assert all(f"\n{label} " in output for label in only.split(","))


def test_a_job_drops_what_others_hold(smoke: Undisturbed, tmp_path: Path) -> None:
    """Of a fused unit it does the rest, without waiting."""
    suite = tiny(only=SECOND)
    plan = planning.make(suite)
    heads = [key_of(plan, "BAGS"), key_of(plan, "cls-retrain")]
    done = {key for key in plan.stages if key not in heads and plan.stages[key].kind in ("data", "train")}
    root = copied(smoke.root, tmp_path / "store", done)
    store = Store(root)
    for key in heads:
        store.add(plan.stages[key])
    lease = store.acquire(heads[0])
    assert lease is not None
    with lease:
        outcomes = work(root, suite, tuple(sorted(heads)))
        assert outcomes[heads[0]].state == "busy"
        assert outcomes[heads[1]].state == "done"
        assert store.attempts(heads[0]) == []
    assert work(root, suite, tuple(sorted(heads)))[heads[0]].state == "done"
    assert len(store.attempts(heads[1])) == 1
