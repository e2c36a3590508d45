"""Linear probes: which stages a suite gets for the figure, and what is drawn of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.cli.open import open_suite
from bench.plan import planning
from bench.suite.tuning import Tuning
from reports.figures.probe import by_bin, dimensions, probe_bars
from reports.figures.scene import Scene
from reports.looks import Looks, Probe
from tests.conftest import Write
from tests.reports.made_records import made

FIGURE = "figures=[{kind: linear_probe, rows: [x2]}]"


def test_the_figure_brings_its_stages_along(write: Write) -> None:
    plain = planning.make(open_suite(write(), sets=["rows={baseline: {method: baseline}, x2: {method: x2}}"]))
    suite = open_suite(write(), sets=["rows={baseline: {method: baseline}, x2: {method: x2}}", FIGURE])
    plan = planning.make(suite)
    added = [stage for key, stage in plan.stages.items() if key not in plain.stages]
    assert [stage.kind for stage in added] == ["fit"] * 4  # a line and its hits, after each of two trainings
    looks = {row.label: row.looks for row in plan.rows}
    assert looks["baseline"] == {}
    assert list(looks["x2"]) == ["linear_probe/1", "linear_probe/2"]
    one, two = looks["x2"].values()
    assert one.inputs["model"] == two.inputs["model"].inputs["init"]
    assert one.inputs["data"].spec["split"] == "val"
    assert one.inputs["probe"].inputs["data"].spec["split"] == "train"
    assert plan.needed_by[one.key] == ("x2",)
    rows = [(row.label, row.evaluate.key if row.evaluate else None) for row in plan.rows]
    assert rows == [(row.label, row.evaluate.key if row.evaluate else None) for row in plain.rows]


def test_a_classifier_over_a_frozen_trunk_has_no_probe_of_its_own(write: Write) -> None:
    sets = ["rows={BAGS: {method: bags}, tau: {method: tau_norm}}", "figures=[{kind: linear_probe}]"]
    plan = planning.make(open_suite(write(), sets=sets))
    assert [list(row.looks) for row in plan.rows] == [["linear_probe/1"]] * 2
    assert len({row.looks["linear_probe/1"].key for row in plan.rows}) == 1


def test_the_trials_of_a_search_have_none(write: Write) -> None:
    suite = open_suite(write(), sets=["rows={x2: {method: x2}}", "figures=[{kind: linear_probe}]"])
    plan = planning.make(replace(suite, division=Tuning()))
    assert [row.looks for row in plan.rows] == [{}]


def test_the_mean_is_over_the_classes_of_a_bin() -> None:
    probe = Probe(1, True, (1.0, 0.5, None, 0.0))
    found = by_bin(probe, [3, 7, 5, 40], (10, 100, 1000))
    assert found == pytest.approx({"ACC1": 75.0, "ACC2": 0.0, "ACC3": None, "ACC4": None, "ACC": 50.0})


def test_dimensions_that_features_use() -> None:
    assert dimensions((2.0, 2.0, 2.0, 2.0)) == pytest.approx(4.0)
    assert dimensions((5.0, 0.0, 0.0)) == pytest.approx(1.0)
    assert dimensions((3.0, 1.0)) == pytest.approx(1.6)
    assert dimensions((0.0, 0.0)) is None


def test_a_bar_names_its_training_and_the_dimensions_of_its_features() -> None:
    first, last = Probe(1, False, (1.0,) * 6, (5.0, 0.0)), Probe(2, True, (0.5,) * 6, (2.0, 2.0))
    drawing = probe_bars(Scene([replace(made("2DRCL"), looks=Looks(probes=(first, last)))]))
    assert drawing is not None
    legend = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert legend == ["2DRCL, after training 1 (1.0 of 2)", "2DRCL (2.0 of 2)"]
    found = {line[:2]: line[2] for line in drawing.lines if line[1] in ("ACC", "dimensions")}
    assert found == {
        ("2DRCL, after training 1", "ACC"): 100.0, ("2DRCL, after training 1", "dimensions"): 1.0,
        ("2DRCL", "ACC"): 50.0, ("2DRCL", "dimensions"): 2.0,
    }  # fmt: skip
    assert probe_bars(Scene([made("2DRCL")])) is None
