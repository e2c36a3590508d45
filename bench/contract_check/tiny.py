"""The suite that methods are checked on: suites/smoke.yaml, cut down to seconds. Separate because the probe of a
recipe plans on it without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.engines.facts import check, facts
from bench.method import Method, planned
from bench.plan import planning
from bench.plan.planning import Plan
from bench.stage import Stage
from bench.suite import suite as suites
from bench.suite.rows import Row
from bench.suite.sections import SCHEDULES, Sections
from bench.suite.suite import Suite

SMOKE = Path(__file__).resolve().parents[2] / "suites" / "smoke.yaml"
STEPS = 4  # of every training: stopped after two, two are left in which a resumed run can differ
SETS = (
    "data.classes=8",
    "data.size=64",
    "data.max_instances=30",
    "data.val_instances=2",
    "input.min_size=64",
    "input.max_size=64",
    "schedule.warmup=1",
    "schedule.weight_decay=0",  # it moves parameters that no loss reaches
    "test.max_detections=20",  # few enough to be reached
    "machine.device=cpu",  # where bit for bit holds
    "machine.threads=1",
)
ROW = "method"


def suite(engine: str) -> Suite:
    """The tiny suite for an engine; its rows are replaced by `with_rows`.

    Raises:
        UserError: no such engine, or one that cannot build the tiny detector.
    """
    steps = [f"schedule.steps={STEPS}", *(f"stages.{name}.steps={STEPS}" for name in SCHEDULES)]
    source = suites.Source(lambda data, split: "", lambda name: facts(name).version)
    loaded = suites.load(SMOKE, source=source, sets=[*SETS, *steps], only=["baseline"])
    own = facts(engine).tiny
    tree = {name: {**_given(loaded, name), **value} for name, value in own.items() if name != "detector"}
    detector = own.get("detector", {**_given(loaded, "detector"), "engine": engine})
    sections = Sections.model_validate({**loaded.sections.model_dump(), **tree, "detector": detector})
    check(sections.detector)
    return replace(loaded, sections=sections)


def _given(suite: Suite, section: str) -> dict[str, Any]:
    found: dict[str, Any] = getattr(suite.sections, section).model_dump()
    return found


def with_rows(tiny: Suite, rows: Mapping[str, Method]) -> Plan:
    """The plan of the tiny suite with these rows; schedules that a recipe names are as short as the others."""
    made = tuple(Row(label, method, method.model_dump()) for label, method in rows.items())
    asked: set[str] = set()
    for method in rows.values():
        planned(method, tiny, tiny.sections.seeds[0], schedules=asked)
    stages = {name: {"steps": STEPS} for name in sorted(asked - {"base"})} | tiny.sections.stages
    return planning.make(replace(tiny, rows=made, sections=tiny.sections.model_copy(update={"stages": stages})))


def result_of(tiny: Suite, method: Method) -> Stage:
    """The evaluate stage of a row."""
    stage = with_rows(tiny, {ROW: method}).rows[0].evaluate
    assert stage is not None, "rows that the engine cannot do are left out before"
    return stage


def lacking(tiny: Suite, kind: type[Method]) -> str | None:
    """Why this engine cannot do a method's rows, or None."""
    return facts(tiny.sections.detector.engine).lacking(kind.needs)


def made(kind: type[Method], settings: Mapping[str, Any] | None = None) -> Method:
    """The method with some settings. Raises pydantic's ValidationError for those that are not legal."""
    return kind.model_validate(dict(settings or {}))
