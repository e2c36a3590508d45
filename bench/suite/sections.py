"""The typed top level of a suite. Separate from suite.py, which reads it from YAML and plans on it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from bench.data.formats import DEFAULT, Data
from bench.engines.facts import DEFAULT as DEFAULT_DETECTOR
from bench.engines.facts import ENGINES, Detector
from bench.errors import UserError, unknown
from bench.spec import (
    LOSSES,
    MOST_SEEDS,
    Amount,
    Figure,
    Inference,
    Input,
    Machine,
    Schedule,
    Section,
    Seed,
    Title,
)
from bench.suite import yamlfile
from bench.suite.layers import MOVED
from bench.suite.rows import merged_schedule
from bench.suite.search import Search
from bench.suite.validation import blame

# Changes of the schedule for later stages, by the name that recipes use. Always legal, whatever the rows: second
# (everything is trained again, from a trained model), classifier_only (over a frozen trunk), tune (at a low rate: BAGS'
# lr 1e-4 for 10 epochs, x 0.1 after 7). Other names are those that the suite's recipes use.
SCHEDULES = ("second", "classifier_only", "tune")


class Cost(Section):
    """Seconds and memory measured once, by which `plan` estimates before the store has measurements. Never in a key."""

    train_step: Amount | None = None
    """Of one optimiser step of the whole detector."""
    classifier_step: Amount | None = None
    """Of one step over a frozen trunk."""
    data: Amount | None = None
    """Of making both splits."""
    predict: Amount | None = None
    """Of one prediction of val."""
    evaluate: Amount | None = None
    """Of one evaluation."""
    val_images: Amount | None = None
    """That `predict` and `evaluate` were measured on; null: they are for any number."""
    start: Amount = 6.0
    """Of a job's imports."""
    host_mb: Amount | None = None
    """Most memory of a job's process, in 10^6 bytes."""
    gpu_mb: Amount | None = None
    """Most memory that torch takes on its card, in 10^6 bytes."""
    measured_on: Title = "-"
    """The machine; shown with an estimate from these numbers."""


def _with_the_usual(stages: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {**{name: {} for name in SCHEDULES}, **stages}


Stages = Annotated[
    dict[str, dict[str, Any]], Field(max_length=100), AfterValidator(_with_the_usual)
]  # name -> changes of `schedule`


def _columns(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not re.fullmatch(r"[dcp]?(AP|ACC)(50|75|bg|[smlrcf]|[1-9])?", name):
            raise ValueError(f"no column {name!r}: a metric (AP, AP1, APr, ACC, ...), behind d, c or p where it is one")
    if len(set(names)) < len(names):
        raise ValueError("a column is named twice")
    return names


Columns = Annotated[tuple[str, ...], Field(max_length=64), AfterValidator(_columns)]


class Sections(BaseModel):
    """The typed top level of a suite without its rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Data = DEFAULT
    detector: Detector = DEFAULT_DETECTOR
    input: Input = Input()
    test: Inference = Inference()
    schedule: Schedule = Schedule()
    stages: Stages = Field(default={}, validate_default=True)
    """Changes of `schedule` for later stages, by name: second (everything is trained again, from a trained model),
    classifier_only (over a frozen trunk), tune (at a low rate), and names that the suite's recipes use."""
    machine: Machine = Machine()
    cost: Cost = Cost()
    seeds: Annotated[tuple[Seed, ...], Field(max_length=MOST_SEEDS)] = (0,)
    """Each row is trained once for each; the table then has mean and standard deviation."""
    compare_with: str | None = None
    """A file of reports/published, without .csv, whose figures stand beside the table."""
    against: str | None = None
    """The label of the row that the others have to beat (a control): tables then have the differences from it as well,
    paired by seed, beside those from the baseline. A row's own `against` takes its place; null: none."""
    columns: Columns = ()
    """Of the table for LaTeX: a metric (AP1) is ours, dAP1 the difference from the baseline, cAP1 that from a control,
    pAP1 the published figure; none named: AP, the bins, and differences of AP."""
    figures: Annotated[tuple[Figure, ...], Field(max_length=50)] = ()
    """Of the report; none named: AP by bin, weight norms and costs of errors."""
    title: Title | None = None
    """For the heading of tables and the captions of figures."""
    search: Search | None = None
    """What `bench search` searches over the rows' settings; `bench run` runs the rows as they are."""


OF_THE_FILE = ("preset", "rows", "methods_path", "figures_path")  # legal at the top of a suite, beside the sections


def check_sections(tree: dict[str, Any], document: yamlfile.Document) -> Sections:
    """The typed sections, or a UserError that names the line and the legal values."""
    try:
        sections = Sections.model_validate(replace(document, value=tree).renamed(MOVED).value)
    except ValidationError as error:
        raise blame(error, document, (), Sections, beside=OF_THE_FILE) from None
    engine = sections.detector.engine
    check_rate_groups(sections.schedule, engine, f"{document.where('schedule', 'groups')} schedule")
    for name, changes in sections.stages.items():
        where = f"{document.where('stages', name)} stages.{name}"
        check_rate_groups(merged_schedule(sections.schedule, changes, where), engine, where)
    if len(set(sections.seeds)) != len(sections.seeds) or not sections.seeds:
        raise UserError(
            "seeds must be different integers, at least one", where=document.where("seeds"), allowed="e.g. [1, 2, 3]"
        )
    return sections


def check_rate_groups(schedule: Schedule, engine: str, where: str) -> None:
    """Refuse a rate for a parameter group that the engine does not have.

    Raises:
        UserError: with the legal names.
    """
    for name in schedule.groups:
        legal = (*ENGINES[engine].groups, LOSSES) if engine in ENGINES else (name,)
        if name not in legal:
            raise unknown("parameter group", name, legal, where=f"{where}.groups")
