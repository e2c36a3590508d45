"""`report --official`: the stored numbers are those of the official lvis package, and a difference is seen."""

from __future__ import annotations

import pytest
from rich.console import Console
from tiny_suite import SETS, SMOKE, Undisturbed
from typer.testing import CliRunner

from bench.cli import official as crosscheck
from bench.cli.app import app
from bench.cli.official import Compared
from bench.store.store import Store


def test_both_evaluators_agree_on_every_row(smoke: Undisturbed) -> None:
    pytest.importorskip("lvis")
    compared = crosscheck.compare(smoke.plan, Store(smoke.root))
    assert len(compared) == 7
    assert any((c.official["AP"] or 0.0) > 0.0 for c in compared), "nothing was detected: the comparison says nothing"
    assert all(c.worst <= crosscheck.TOLERANCE for c in compared)


def test_command_says_that_they_agree(smoke: Undisturbed) -> None:
    pytest.importorskip("lvis")
    words = [word for text in SETS for word in ("--set", text)]
    result = CliRunner().invoke(app, ["report", str(SMOKE), "--store", str(smoke.root), *words, "--official"])
    assert result.exit_code == 0, result.output
    assert "agree on 7 results" in result.output


def test_a_difference_or_a_missing_number_is_seen() -> None:
    same = Compared("a", 0, {"AP": 1.0, "APr": None}, {"AP": 1.0, "APr": None})
    assert same.worst == 0.0
    assert Compared("a", 0, {"AP": 1.0}, {"AP": 1.5}).worst == 0.5
    missing = Compared("a", 0, {"AP": None}, {"AP": 0.0})
    console = Console(record=True, width=140)
    assert not crosscheck.show([missing], console)
    assert "DIFFER" in console.export_text()
