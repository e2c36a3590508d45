"""`bench run` makes its plan once, opens its store once and reads each result once, whatever it finds to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli import bring, report, run, sync
from bench.plan import planning
from bench.store.store import Store
from reports import load as loading
from reports import records
from tests.conftest import TINY, Bench, Write

WORDS = ("--cluster", "debug", "--only", "baseline")  # jobs in this process, so that whatever they call is counted too


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a plan is made, results are loaded (and the file of one row is read), and a command opens a store."""
    found: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            found[name] += 1
            return function(*values, **named)

        return call

    monkeypatch.setattr(planning, "make", counted("plan", planning.make))
    for command in (bring, report, sync):
        monkeypatch.setattr(command, "load", counted("results", loading.load))
    for command in (run, report, sync):
        monkeypatch.setattr(command, "Store", counted("store", Store))
    monkeypatch.setattr(loading, "load", counted("results", loading.load))
    monkeypatch.setattr(records, "loads", counted("read", records.loads))
    return found


def test_once_a_run(write: Write, call: Bench, counts: Counter[str]) -> None:
    once = {"plan": 1, "results": 1, "read": 1, "store": 1}
    write(TINY)
    trained = call("run", "tiny.yaml", *WORDS)
    assert trained.code == 0, trained.err
    assert counts == once

    counts.clear()
    finished = call("run", "tiny.yaml", *WORDS)
    assert finished.code == 0, finished.err
    assert "report:" not in finished.out, "all of it is reported, so that the table alone is printed"
    assert counts == once

    counts.clear()
    for table in Path("store/reports").glob("*/table.txt"):
        table.unlink()
    assert "report:" in call("run", "tiny.yaml", *WORDS).out
    assert counts == once

    for command in (("report",), ("sync",), ("report", "--json")):
        counts.clear()
        assert call(command[0], "tiny.yaml", *command[1:], "--only", "baseline").code == 0
        assert counts == once, command
