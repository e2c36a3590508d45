"""When `run` may leave a report as it is: what is done and what the suite asks for are what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cli.open import open_suite
from bench.cli.tables import default_report_folder, is_reported, note_reported
from bench.plan import planning
from bench.plan.planning import Plan
from bench.store.store import Store
from tests.conftest import Write
from tests.done_store import quick
from tests.made_stores import TWO_SEEDS

OWN = "def draw(scene):\n    return None\n"


def plan_with(write: Write, more: str) -> Plan:
    return planning.make(open_suite(write(f"{TWO_SEEDS.rstrip()}\n{more}")))


@pytest.mark.parametrize(
    "change", ["figures: [{kind: bars}]", "columns: [AP, dAP]", "title: another", "figures_path: mine.py"]
)
def test_another_figure_is_another_report(change: str, write: Write, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    plan, store = plan_with(write, ""), Store(tmp_path / "store")
    quick(store, plan.stages.values(), {})
    folder = default_report_folder(store, plan)
    folder.mkdir(parents=True)
    (folder / "table.txt").write_text("")
    assert not is_reported(plan, store, None)
    note_reported(plan, store, None)
    assert is_reported(plan_with(write, ""), store, None)
    changed = plan_with(write, change)
    assert changed.stages.keys() == plan.stages.keys()
    assert not is_reported(changed, store, None)
    note_reported(changed, store, None)
    assert is_reported(plan_with(write, change), store, None)
    if "mine.py" in change:
        (tmp_path / "mine.py").write_text(f"{OWN}\n# drawn otherwise\n")
        assert not is_reported(plan_with(write, change), store, None)
