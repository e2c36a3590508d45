"""What the settings do that are in no key: the list is in tests/test_settings.py."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.cli.open import open_suite
from bench.cli.overview import compare
from bench.launch.local import Slots
from bench.plan import planning
from bench.record import dumps
from bench.run import loop as loops
from bench.run.learner import Learner
from bench.run.work import device_of
from bench.spec import Figure, Machine
from bench.stage import Stage
from bench.store.store import Store
from reports.figures import kinds as figures
from tests import done_store
from tests.conftest import TINY, Bench, Write
from tests.made_stores import finish_any
from tests.planned import plan_of
from tests.reports.made_records import made
from tests.tiny_suite import bring, data_keys, key_of

THREE = TINY.replace("  BAGS:", "  cls-retrain: {method: cls_retrain}\n  BAGS:")

# -- in a training


def trained(path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, *sets: str) -> tuple[int, bool, int]:
    """Of the baseline's training: checkpoints written, whether its convolutions are channels-last, its threads."""
    seen: list[tuple[bool, int]] = []
    saved: list[int] = []
    train, save = loops.train, loops.save

    def looked_at(*given: Any, **more: Any) -> None:
        detector = next(one for one in given if isinstance(one, nn.Module))
        kernels = [p for p in detector.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
        assert kernels
        seen.append((all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels), torch.get_num_threads()))
        train(*given, **more)

    def noted(learner: Learner) -> None:
        saved.append(learner.step)
        save(learner)

    with monkeypatch.context() as patch:
        patch.setattr(loops, "train", looked_at)
        patch.setattr(loops, "save", noted)
        suite = open_suite(path, sets=sets, only="baseline")
        plan = planning.make(suite)
        key = key_of(plan, "baseline")
        wanted = {key, *data_keys(plan)}
        outcomes = bring(suite, root, only=lambda one: one in wanted)
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    return len(saved), *seen[0]


@pytest.fixture
def threads_as_they_were() -> Any:
    before = torch.get_num_threads()
    environment = dict(os.environ)
    yield
    torch.set_num_threads(before)
    os.environ.clear()
    os.environ.update(environment)


def test_a_training_uses_the_machine_as_it_was_told(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads_as_they_were: None
) -> None:
    """schedule.checkpoint_every, machine.channels_last, machine.threads."""
    path = write(TINY)
    plain = ["machine.device=cpu", "machine.channels_last=false", "machine.threads=1", "schedule.checkpoint_every=1"]
    other = ["machine.device=cpu", "machine.channels_last=true", "machine.threads=2", "schedule.checkpoint_every=2"]
    assert trained(path, tmp_path / "plain", monkeypatch, *plain) == (2, False, 1)  # after steps 1 and 2 of 3
    assert trained(path, tmp_path / "other", monkeypatch, *other) == (1, True, 2)


def test_a_machine_takes_fewer_jobs_of_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert [Slots(Machine(device="cpu", threads=n)).count for n in (1, 2, 3, 16)] == [8, 4, 2, 1]


def test_a_job_takes_the_device_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert device_of(Machine(device="auto")) == ("cuda" if there else "cpu")
        assert device_of(Machine(device="cpu")) == "cpu"
        assert device_of(Machine(device="cuda")) == "cuda"


# -- in what a user is shown


def test_the_plan_says_whose_seconds_it_counts_with(write: Write, tmp_path: Path) -> None:
    def told(*sets: str) -> list[str]:
        plan = plan_of(write(TINY), *sets)
        lines = compare(plan, Store(tmp_path / "store"), slots=1).headline()
        return [line for line in lines if "as declared" in line]

    assert told("cost.measured_on=a laptop of 2031") == ["  time: as declared, measured on a laptop of 2031"]
    assert not told('cost.measured_on="-"')
    assert not told("cost={measured_on: a laptop}"), "nothing is declared: there is no estimate to explain"


def test_a_report_has_the_differences_from_a_control(write: Write, tmp_path: Path, call: Bench) -> None:
    """against: from the suite, a row or the command line into the report's files; no key moves."""
    plan = plan_of(write(THREE))
    store = Store(tmp_path / "store")
    ap = {"baseline": 20.0, "cls-retrain": 22.0, "BAGS": 25.0}
    of = {row.evaluate.key: row.label for row in plan.rows if row.evaluate is not None}

    def contents(stage: Stage) -> dict[str, str]:
        if stage.key not in of:
            return {"x": "x"}
        return {"result.json": dumps(made("x", key=stage.key, AP=ap[of[stage.key]]).record.result)}

    done_store.quick(store, plan.stages.values(), {}, contents)

    def reported(text: str, *words: str) -> dict[str, tuple[str, str]]:
        suite = write(text)
        assert plan_of(suite).stages.keys() == plan.stages.keys()
        said = call("report", suite, *words, "--out", tmp_path / "out")
        assert said.code == 0, said.err
        lines = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
        return {line["row"]: (line.get("control", ""), line.get("against_AP", "")) for line in lines}

    none = {"baseline": ("", ""), "cls-retrain": ("", ""), "BAGS": ("", "")}
    all_rows = {"baseline": ("cls-retrain", "-2.0"), "cls-retrain": ("", ""), "BAGS": ("cls-retrain", "3.0")}
    suite = THREE.replace("rows:", "against: cls-retrain\nrows:")
    assert reported(THREE) == none
    assert reported(suite) == all_rows
    assert reported(THREE, "--against", "cls-retrain") == all_rows
    # A row's own stands above the suite's, and the option above both; null is no control.
    own = suite.replace("beta: 8", "beta: 8, against: baseline").replace(
        "method: baseline", "method: baseline, against: null"
    )
    assert reported(own) == none | {"BAGS": ("baseline", "5.0")}
    of_bags = {"baseline": ("BAGS", "-5.0"), "cls-retrain": ("BAGS", "-3.0"), "BAGS": ("", "")}
    assert reported(own, "--against", "BAGS") == of_bags
    # The report is of the same table, in the same folder.
    assert "against_AP" in (tmp_path / "out" / "table.csv").read_text().splitlines()[0]
    said = call("report", write(THREE), "--against", "cls-retrain")
    assert "report: store/reports/tiny  (" in said.out
    assert "Δ control is the difference from cls-retrain, paired by seed: baseline, BAGS" in said.out
    entries = {e["row"]: e for e in json.loads(call("report", write(suite), "--json").out)}
    assert entries["BAGS"]["against"]["row"] == "cls-retrain"
    assert entries["BAGS"]["against"]["delta"]["AP"] == {"mean": 3.0, "sd": None, "n": 1}
    assert "against" not in entries["cls-retrain"]
    # What --show-config prints is compared in the same way.
    for text in (suite, own):
        (tmp_path / "shown.yaml").write_text(call("plan", write(text), "--show-config").out)
        assert open_suite(tmp_path / "shown.yaml").controls == open_suite(write(text)).controls
        (tmp_path / "shown.yaml").write_text(call("plan", write(text), "--show-config", "--only", "BAGS").out)
        assert open_suite(tmp_path / "shown.yaml").controls == {}
    notes = open_suite(write(suite), only="BAGS").notes
    assert notes == ("--only leaves cls-retrain out: no row is compared with it",)


def test_a_report_has_the_title_and_the_published_table(write: Write, tmp_path: Path, call: Bench) -> None:
    """title, compare_with: from the suite into the report's files."""
    text = TINY.replace("preset: cpu\n", "preset: cpu\ntitle: What lifts the tail?\ncompare_with: bags_table1\n")
    finish_any(tmp_path / "store", write(TINY))
    for name, content in (("bare", TINY), ("full", text)):
        said = call("report", write(content, "tiny.yaml"), "--out", tmp_path / name)
        assert said.code == 0, said.err
        assert ("tiny: What lifts the tail?" in (tmp_path / name / "table.txt").read_text()) == (name == "full")
    markdown = {name: (tmp_path / name / "table.md").read_text() for name in ("bare", "full")}
    assert markdown["bare"].startswith("# tiny\n")
    assert markdown["full"].startswith("# tiny: What lifts the tail?\n")
    assert "paper AP" in markdown["full"]
    assert "paper" not in markdown["bare"]


def drawn(tmp_path: Path, *wanted: Figure) -> Sequence[Any]:
    """The figures that a report draws of a sweep over beta in two groups of edges."""
    rows = [
        made(
            f"{edges} {beta}",
            0,
            method="bags",
            AP=10.0 * beta + edges,
            AP1=1.0,
            settings={"beta": beta, "edges": edges},
        )
        for edges in (1, 2)
        for beta in (1, 2)
    ]
    rows += [made(f"o {beta}", 0, method="other", AP=1.0, settings={"beta": beta, "edges": 1}) for beta in (1, 2)]
    kept: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "save", lambda drawing, path, formats: kept.append(drawing) or [])
        figures.draw(rows, tmp_path, wanted, suite="s")
    return kept


def test_a_figure_is_drawn_as_its_settings_say(tmp_path: Path) -> None:
    """figures: title, metrics, by."""
    titled, bare = drawn(tmp_path, Figure(kind="bins", title="Bins of mine"), Figure(kind="bins"))
    assert titled.figure.legends[0].get_title().get_text() == "Bins of mine"
    assert bare.figure.legends[0].get_title().get_text() != "Bins of mine"
    one, two = drawn(tmp_path, Figure(kind="bars", metrics=("AP",)), Figure(kind="bars", metrics=("AP", "AP1")))
    assert ({line[1] for line in one.lines}, {line[1] for line in two.lines}) == ({"AP"}, {"AP", "AP1"})
    sweeps = [Figure(kind="sweep", x="beta", metrics=("AP",), by=by) for by in (("edges",), ("method", "edges"))]
    edges, both = (
        [text.get_text() for text in each.figure.legends[0].get_texts()] for each in drawn(tmp_path, *sweeps)
    )
    assert edges == ["bags", "other", "edges 2"]  # of those with edges 1, two lines: they differ in their method
    assert both == ["bags, edges 1", "bags, edges 2", "other, edges 1"]


def test_a_paper_s_table_has_the_suite_s_columns(write: Write, tmp_path: Path, call: Bench) -> None:
    """columns: of the suite, or of the command line in their place; a mistake says which there are."""
    plan, store = plan_of(write(THREE)), Store(tmp_path / "store")
    of = {row.evaluate.key for row in plan.rows if row.evaluate is not None}

    def contents(stage: Stage) -> dict[str, str]:
        result = dumps(made("x", key=stage.key, AP=20.0, AP1=1.0).record.result)
        return {"result.json": result} if stage.key in of else {"x": "x"}

    done_store.quick(store, plan.stages.values(), {}, contents)

    def head(text: str, *words: str) -> str:
        said = call("report", write(text), *words, "--out", tmp_path / "out")
        assert said.code == 0, said.err
        lines = (tmp_path / "out" / "table.tex").read_text().splitlines()
        return lines[lines.index(r"\midrule") - 1]

    assert head(THREE) == r" & AP & AP1 & AP \\"
    assert head(THREE + "columns: [AP1, dAP1]\n") == r" & AP1 & AP1 \\"
    assert head(THREE + "columns: [AP1, dAP1]\n", "--columns", "AP, dAP") == r" & AP & AP \\"
    wrong = call("report", write(THREE), "--columns", "AP,dAP11", "--out", tmp_path / "out")
    assert wrong.code == 2
    assert "dAP11" in wrong.err
    assert "Did you mean 'dAP1'" in wrong.err
    wrong = call("report", write(THREE + "columns: [mAP]\n"), "--out", tmp_path / "out")
    assert wrong.code == 2
    assert "no column 'mAP'" in wrong.err
