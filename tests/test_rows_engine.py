"""A row with a detector of its own: another engine in one table, its errors, and an engine that is not installed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.cli.open import config_text, open_suite
from bench.engines.facts import ENGINES
from bench.errors import UserError
from bench.plan import planning
from tests.conftest import Bench, Write

ROWS = """\
preset: cpu
rows:
  baseline:      {method: baseline}
  wider:         {method: baseline, detector: {roi: {width: 64}}}
  baseline DETR: {method: baseline, detector: {engine: detr, trunk: small, detr: {levels: ['1', '2']}}}
  NCM DETR:      {method: ncm, detector: {engine: detr, trunk: small, detr: {levels: ['1', '2']}}}
  BAGS:          {method: bags}
"""
ELSEWHERE = "rows:\n  a: {method: baseline}\n  b: {method: baseline, detector: {engine: elsewhere}}\n"
WHY = "engine 'elsewhere' is not installed here; see https://example.org/install"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose library is not installed."""
    engine = replace(ENGINES["torchvision"], name="elsewhere", absent=lambda: WHY)
    monkeypatch.setitem(ENGINES, "elsewhere", engine)  # type: ignore[arg-type]


def test_a_row_has_its_own_detector_and_shares_what_is_the_same(write: Write) -> None:
    plan = planning.make(open_suite(write(ROWS)))
    trained = {
        row.label: row.evaluate.inputs["predict"].inputs["model"] for row in plan.rows if row.evaluate is not None
    }
    engines = {label: stage.spec.get("engine", {}).get("name") for label, stage in trained.items()}
    assert engines == {
        "baseline": "torchvision", "wider": "torchvision", "baseline DETR": "detr", "BAGS": "torchvision",
    }  # fmt: skip
    assert trained["BAGS"].inputs["init"] == trained["baseline"]
    assert trained["wider"].spec["detector"]["roi"]["width"] == 64
    assert trained["wider"].spec["detector"]["rpn"] == trained["baseline"].spec["detector"]["rpn"]  # the rest is kept
    assert "rpn" not in trained["baseline DETR"].spec["detector"]
    assert {stage.inputs["train"].key for stage in trained.values()} == {trained["baseline"].inputs["train"].key}
    skipped = {row.label: row.skipped for row in plan.rows if row.skipped}
    assert skipped == {"NCM DETR": "engine 'detr' lacks box_features_pre_relu, roi_map"}


def test_the_configuration_that_is_shown_can_be_run_again(write: Write) -> None:
    first = open_suite(write(ROWS))
    again = open_suite(write(config_text(first), "again.yaml"))
    assert set(planning.make(again).stages) == set(planning.make(first).stages)


def test_rows_of_an_engine_that_is_not_installed_are_skipped(write: Write, elsewhere: None) -> None:
    plan = planning.make(open_suite(write(f"preset: cpu\n{ELSEWHERE}")))
    assert {row.label: row.skipped for row in plan.rows} == {"a": None, "b": WHY}


def test_a_suite_of_nothing_else_is_refused(write: Write, elsewhere: None) -> None:
    suite = open_suite(write(f"preset: cpu\n{ELSEWHERE}"), only=["b"])
    with pytest.raises(UserError, match="not installed here"):
        planning.make(suite)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ("{engine: dtr}", ".yaml:4 rows.b.detector.engine: no engine 'dtr'. Did you mean 'detr'?"),
        ("{rpm: {nms: 0.5}}", "rows.b.detector: no setting 'rpm'. Did you mean 'rpn'?"),
        ("{rpn: {nmss: 0.5}}", "rows.b.detector.rpn: no setting 'nmss'"),
        ("{rpn: {nms: 3}}", "rows.b.detector.rpn.nms: "),
        ("{engine: detr, trunk: small, rpn: {nms: 0.5}}", "rows.b.detector: no setting 'rpn'"),
        ("{engine: detr, trunk: small, detr: {levels: ['9']}}", "rows.b.detector.detr.levels: no map of the backbone"),
        ("{trunk: smal}", "rows.b.detector.trunk: no trunk 'smal'"),
        ("3", "rows.b: detector must be a mapping"),
    ],
)
def test_a_mistake_in_it_is_named_with_its_line(own: str, words: str, call: Bench, write: Write) -> None:
    path = write(f"preset: cpu\nrows:\n  a: {{method: baseline}}\n  b: {{method: baseline, detector: {own}}}\n")
    ended = call("plan", path)
    assert ended.code == 2
    assert words in " ".join(ended.err.split()), ended.err
