"""What `bench search` prints and writes at its end; a search on val has its mark on all of it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from bench.cli import trials
from bench.cli.open import open_suite
from bench.search.plans import study_name
from bench.search.study import opened
from bench.search.view import MARK
from bench.store.store import Store
from tests.conftest import ROOT


@pytest.mark.parametrize("tune_on", ["train", "val"])
def test_the_report_of_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tune_on: str) -> None:
    suite = open_suite(ROOT / "suites" / "search_bags_beta.yaml", sets=[f"search.tune_on={tune_on}"])
    assert suite.sections.search is not None
    assert suite.space is not None
    store = Store(tmp_path / "store")
    study = opened(store.root, study_name(suite), suite.sections.search, suite.space, {}, write=True)
    for trial in study.round()[:4]:
        study.complete(trial.number, [21.0 - trial.number])
    console = Console(file=io.StringIO(), record=True, width=200)
    trials.write(suite, store, console, tmp_path / "out")
    printed = console.export_text()
    label = "BAGS (searched on val)" if tune_on == "val" else "BAGS (searched)"
    assert f"{label} against BAGS on val: AP -: no seed has both rows on the same val" in printed
    assert "no figure contour: it needs two dimensions of numbers; no figure" in printed
    assert "search.txt .md, trials.csv, history.png .svg .csv, slice.png .svg .csv" in printed
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"table.txt", "search.txt", "history.svg"} <= names
    for name in ("table.txt", "table.md", "table.tex", "search.txt", "search.md"):
        assert (MARK in (tmp_path / "out" / name).read_text().replace("\n", " ")) == (tune_on == "val"), name
    assert (MARK in trials.plan_of(suite, store).suite.heading) == (tune_on == "val")  # what an export shows
