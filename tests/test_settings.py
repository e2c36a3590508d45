"""Every setting does what it says. Each field of each section either changes a key, or has a test of what it does.

The fields are found in the models themselves, so a new one fails here until it does something: see `HINT`.
"""

from __future__ import annotations

import ast
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel

from bench.cli.open import open_suite
from bench.engines.facts import ENGINES
from bench.engines.sections import SetPrediction
from bench.errors import UserError
from bench.plan import planning
from bench.plan.cost import Estimate
from bench.plan.jobs import make_jobs
from bench.plan.planning import Plan
from bench.spec import FolderData
from bench.stage import KINDS
from bench.suite.clusters import Cluster, Resources
from bench.suite.rows import ROW_SECTIONS
from bench.suite.sections import SCHEDULES, Cost, Sections
from tests.conftest import ROOT, Write
from tests.golden.keys import photographs

HINT = """
It reaches no key: two suites that differ in it alone share their results.
- If it changes a result, bring it into the key (Section.in_key, bench/suite/suite.py); LATER if it is new.
- If it changes none, name it in the section's NOT_IN_KEY, write a test that shows what it does, and put that test's
  name into EFFECTS of tests/test_settings.py.
- If another value has to be tried, or beside another setting, say so in OTHER."""

# Every kind of stage: two trainings, heads over a frozen trunk, `tune`, a fit, patches enough to keep features.
ALL_KINDS = """\
preset: cpu
stages: {second: {steps: 30}, classifier_only: {steps: 20}, tune: {steps: 10}}
seeds: [0]
rows:
  baseline: {method: baseline}
  x2: {method: x2}
  BAGS: {method: bags, beta: 8}
  RFS: {method: rfs, t: 0.1, start: baseline}
  tuned: {method: finetune_tail}
  NCM: {method: ncm}
  "tau {tau}": {method: tau_norm, each: {tau: [0, 0.25, 0.5, 0.75, 1]}}
"""


def _with_search(space: str, more: str = "") -> str:
    """`--set search=...` with a space, and other settings of the search."""
    found = yaml.safe_load(f"{{rows: [BAGS], trials: 4, {more}}}") | {"space": yaml.safe_load(space)}
    return f"search={yaml.safe_dump(found, default_flow_style=True, width=1000).strip()}"


# Section.field -> the `--set` options that change it, where no other value can be made from its type, or where it is
# read only beside another setting (which both sides then have: BESIDE).
OTHER: dict[str, tuple[str, ...]] = {
    "Cost.measured_on": ("cost.measured_on=elsewhere",),
    "TwoStage.engine": ("detector.engine=another",),
    "TwoStage.trunk": ("detector.trunk=resnet18_fpn",),
    "TwoStage.weights": ("detector.weights=weights.pth",),
    "TwoStage.widths": ("detector.widths=[8, 16, 24, 32]",),
    "SetPrediction.engine": ("detector.engine=another_detr",),
    "SetPrediction.trunk": ("detector.trunk=resnet18",),
    "SetPrediction.weights": ("detector.weights=weights.pth",),
    "SetPrediction.widths": ("detector.widths=[8, 16, 24, 32]",),
    "Detr.levels": ('detector.detr.levels=["0", "1"]',),
    "Start.preset": ("detector.start={preset: cpu}",),
    "Start.groups": ("detector.start={preset: cpu, groups: [fpn]}",),
    "Start.steps": ("detector.start={preset: cpu, steps: 7}",),
    "Figure.kind": ("figures=[{kind: bars}]",),
    "Figure.x": ("figures=[{kind: sweep, x: tau}]",),
    "Figure.by": ("figures=[{kind: sweep, x: tau, by: method}]",),
    "Figure.metrics": ("figures=[{kind: bars, metrics: [AP]}]",),
    "Figure.rows": ("figures=[{kind: bars, rows: [BAGS]}]",),
    "Figure.title": ("figures=[{kind: bars, title: other}]",),
    "FolderData.images": ("data.images=others",),
    "FolderData.name": ("data.name=coco",),
    "FolderData.path": ("data.path=moved",),
    "FolderData.train": ("data.train=val.json",),
    "FolderData.val": ("data.val=train.json",),
    "GlyphsData.seed": ("data.seed=7",),
    "GlyphsData.object_px": ("data.object_px=[8, 30]",),
    "Inference.stored": ("test.stored=400",),
    "Input.mean": ("input.mean=[0.5, 0.5, 0.5]",),
    "Input.scale_jitter": ("input.scale_jitter=[0.8, 1.2]",),
    "Input.std": ("input.std=[0.5, 0.5, 0.5]",),
    "Roi.box_weights": ("detector.roi.box_weights=[1, 1, 1, 1]",),
    "Roi.levels": ('detector.roi.levels=["1"]',),
    "Rpn.anchor_ratios": ("detector.rpn.anchor_ratios=[0.5, 2]",),
    "Rpn.anchor_sizes": ("detector.rpn.anchor_sizes=[[8, 16, 24]]",),
    "Rpn.levels": ('detector.rpn.levels=["0"]',),
    "Rates.lr": ("schedule.groups={fpn: {lr: 0.5}}",),
    "Rates.weight_decay": ("schedule.groups={fpn: {weight_decay: 0}}",),
    "Schedule.betas": ("schedule.betas=[0.8, 0.99]",),
    "Schedule.drops": ("schedule.drops=[0.5]",),
    "Schedule.epochs": ("schedule.epochs=3",),
    "Sections.against": ("against=BAGS",),
    "Sections.columns": ("columns=[AP1]",),
    "Sections.compare_with": ("compare_with=bags_table1",),
    "Sections.seeds": ("seeds=[1]",),
    "Sections.title": ("title=other",),
    "Stages.classifier_only": ("stages.classifier_only.lr=0.003",),
    "Stages.second": ("stages.second.lr=0.003",),
    "Stages.tune": ("stages.tune.lr=0.003",),
    "Inference.bins": ("test.bins=[5, 50]",),
}
# Of a search nothing is in a key of the rows: they are what it is compared with.
_OF_A_SEARCH = {
    "rows": "rows: [BAGS, x2]",
    "objective": "objective: AP1",
    "sampler": "sampler: random",
    "pruner": "pruner: wilcoxon, seeds: [0, 1, 2]",
    "rungs": "pruner: median, rungs: [5]",
    "reduction": "reduction: 4",
    "trials": "trials: 5",
    "hours": "hours: 1",
    "machine_hours": "machine_hours: 1",
    "round": "round: 2",
    "seed": "seed: 1",
    "seeds": "seeds: [3]",
    "tune_on": "tune_on: val",
    "tune": "tune: 0.5",
    "tune_seed": "tune_seed: 1",
    "finals": "finals: 2",
    "storage": "storage: 'sqlite:///s.db'",
}
_OF_A_DIMENSION = {
    "low": "{beta: {low: 2, high: 8}}",
    "high": "{beta: {low: 1, high: 9}}",
    "step": "{beta: {low: 1, high: 8, step: 1}}",
    "log": "{beta: {low: 1, high: 8, log: true}}",
    "int": "{beta: {low: 1, high: 8, int: true}}",
    "choices": "{beta: [1, 2]}",
    "when": "{beta: {low: 1, high: 8, when: {row: BAGS}}}",
}
OTHER |= {f"Search.{name}": (_with_search("{beta: {low: 1, high: 8}}", text),) for name, text in _OF_A_SEARCH.items()}
OTHER |= {f"Dimension.{name}": (_with_search(text),) for name, text in _OF_A_DIMENSION.items()}
BESIDE: dict[str, tuple[str, ...]] = {
    "Start.groups": ("detector.start={preset: cpu}",),
    "Start.steps": ("detector.start={preset: cpu}",),
    "Schedule.ema": ("schedule.steps=9",),
    **{f"Search.{name}": (_with_search("{beta: {low: 1, high: 8}}"),) for name in _OF_A_SEARCH},
    **{f"Dimension.{name}": (_with_search("{beta: {low: 1, high: 8}}"),) for name in _OF_A_DIMENSION},
    "Machine.scope": ("machine.tasks=2",),
    "Machine.tasks": ("machine.scope=device",),
}
# Section.field -> the test of what it does, for those that are in no key.
EFFECTS: dict[str, str] = {
    **{
        f"Cost.{name}": "tests/test_settings.py::test_every_declared_cost_moves_the_estimate"
        for name in Cost.model_fields
    },
    "Cost.measured_on": "tests/test_settings_effect.py::test_the_plan_says_whose_seconds_it_counts_with",
    "FolderData.negatives": "tests/faults/test_refused_data.py::test_one_may_go_on_and_the_table_says_so",
    "Figure.kind": "tests/reports/test_report_write.py::test_a_suite_says_which_figures",
    "Figure.x": "tests/reports/test_report_write.py::test_a_suite_says_which_figures",
    "Figure.rows": "tests/reports/test_report_write.py::test_a_suite_says_which_figures",
    "Figure.by": "tests/test_settings_effect.py::test_a_figure_is_drawn_as_its_settings_say",
    "Figure.metrics": "tests/test_settings_effect.py::test_a_figure_is_drawn_as_its_settings_say",
    "Figure.title": "tests/test_settings_effect.py::test_a_figure_is_drawn_as_its_settings_say",
    "Machine.channels_last": "tests/test_settings_effect.py::test_a_training_uses_the_machine_as_it_was_told",
    "Machine.device": "tests/test_settings_effect.py::test_a_job_takes_the_device_that_is_named",
    "Machine.features_mb": "tests/end_to_end/test_fused_predict.py::test_features_over_the_bound_are_not_kept",
    "Machine.threads": "tests/test_settings_effect.py::test_a_training_uses_the_machine_as_it_was_told",
    "Machine.workers": "tests/run/test_workers.py::test_other_threads_decode_and_each_image_once",
    "Schedule.checkpoint_every": "tests/test_settings_effect.py::test_a_training_uses_the_machine_as_it_was_told",
    **{
        f"Dimension.{name}": "tests/search/test_sections.py::test_values_of_a_step_are_those_that_one_would_write"
        for name in ("low", "high", "step", "int")
    },
    "Dimension.log": "tests/search/test_study.py::test_qmc_is_the_sobol_sequence_from_its_first_point",
    "Dimension.choices": "tests/search/test_sections.py::test_points_of_a_conditional_grid",
    "Dimension.when": "tests/search/test_sections.py::test_points_of_a_conditional_grid",
    "Search.rows": "tests/search/test_sections.py::test_points_of_a_conditional_grid",
    "Search.sampler": "tests/search/test_study.py::test_trials_of_a_round_differ",
    "Search.seed": "tests/search/test_study.py::test_another_seed_has_other_trials",
    "Search.trials": "tests/search/test_study.py::test_nothing_is_left_running_and_numbers_count_on",
    "Search.storage": "tests/search/test_study.py::test_any_storage_of_optuna",
    "Search.finals": "tests/search/test_study.py::test_a_front_is_what_nothing_dominates",
    "Search.objective": "tests/search/test_loop.py::test_several_objectives_have_their_values_each",
    "Search.pruner": "tests/search/test_loop.py::test_hyperband_ends_all_but_the_best_of_each_rung",
    "Search.rungs": "tests/search/test_loop.py::test_hyperband_ends_all_but_the_best_of_each_rung",
    "Search.reduction": "tests/search/test_loop.py::test_hyperband_ends_all_but_the_best_of_each_rung",
    "Search.hours": "tests/search/test_loop.py::test_a_budget_of_hours_ends_with_its_round",
    "Search.machine_hours": "tests/search/test_loop.py::test_a_budget_of_hours_ends_with_its_round",
    "Search.round": "tests/search/test_loop.py::test_a_round_is_one_plan",
    "Search.seeds": "tests/search/test_loop.py::test_a_trial_is_the_mean_of_its_seeds",
    "Search.tune_on": "tests/search/test_loop.py::test_what_trials_are_measured_on",
    "Search.tune": "tests/search/test_loop.py::test_what_trials_are_measured_on",
    "Search.tune_seed": "tests/search/test_loop.py::test_what_trials_are_measured_on",
    "Sections.against": "tests/test_settings_effect.py::test_a_report_has_the_differences_from_a_control",
    "Sections.columns": "tests/test_settings_effect.py::test_a_paper_s_table_has_the_suite_s_columns",
    "Sections.compare_with": "tests/test_settings_effect.py::test_a_report_has_the_title_and_the_published_table",
    "Sections.title": "tests/test_settings_effect.py::test_a_report_has_the_title_and_the_published_table",
}


@dataclass(frozen=True)
class Setting:
    """A field that a user may write.

    Attributes:
        name: Section.field.
        path: as `--set` names it.
        annotation: its type.
        folder: whether it is of data in a folder.
        engine: of which it is a setting, where that is not the default.
    """

    name: str
    path: str
    annotation: Any
    folder: bool = False
    engine: str = ""


def inside(annotation: Any) -> Iterator[Any]:
    """All types that an annotation is made of."""
    yield annotation
    for inner in typing.get_args(annotation):
        if not isinstance(inner, str | int | float | bool):
            yield from inside(inner)


def settings(kind: type[BaseModel] = Sections, prefix: str = "", engine: str = "") -> Iterator[Setting]:
    """Every field of a section and of the sections in it."""
    for name, info in kind.model_fields.items():
        if (kind, name) == (Sections, "stages"):  # a mapping, whose usual names are settings
            yield from (Setting(f"Stages.{one}", f"stages.{one}", info.annotation) for one in SCHEDULES)
            continue
        sections = [t for t in inside(info.annotation) if isinstance(t, type) and issubclass(t, BaseModel)]
        for section in dict.fromkeys(sections):
            yield from settings(section, f"{prefix}{name}.", "detr" if section is SetPrediction else engine)
        if not sections:
            folder = kind is FolderData
            yield Setting(f"{kind.__name__}.{name}", f"{prefix}{name}", info.annotation, folder, engine)


EVERY = tuple({one.name: one for one in reversed([*settings()])}.values())  # of a section in two others, the first


def others(annotation: Any, value: Any) -> list[Any]:
    """Other values of a field, as far as its type says."""
    literals = [v for t in inside(annotation) if typing.get_origin(t) is Literal for v in typing.get_args(t)]
    found = list(literals)
    if isinstance(value, bool):
        found.append(not value)
    elif isinstance(value, int):
        found += [value + 1, value - 1, 2 * value]
    elif isinstance(value, float):
        found += [value / 2, 2 * value, value + 0.25]
    elif (value is None or value in literals) and {int, float} & set(inside(annotation)):
        found += [3, 0.5]
    return [other for other in found if other != value]


def only_value(annotation: Any) -> bool:
    """Whether there is just one value that it can have."""
    while isinstance(annotation, types.GenericAlias) or typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return typing.get_origin(annotation) is Literal and len(typing.get_args(annotation)) == 1


@pytest.fixture(autouse=True)
def surroundings_of_a_suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another engine, and a weights file."""
    for name, like in (("another", "torchvision"), ("another_detr", "detr")):
        monkeypatch.setitem(ENGINES, name, replace(ENGINES[like], name=name))  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pth").write_bytes(b"not loaded")


def plan_of(path: Path, *sets: str) -> Plan:
    return planning.make(open_suite(path, sets=sets))


def changed(setting: Setting, path: Path, base: Sequence[str]) -> set[str]:
    """The keys of the plan with another value of a setting.

    Raises:
        AssertionError: no other value is known.
    """
    beside = (*base, *BESIDE.get(setting.name, ()))
    if setting.name in OTHER:
        return set(plan_of(path, *beside, *OTHER[setting.name]).stages)
    value: Any = open_suite(path, sets=beside).sections
    for name in setting.path.split("."):
        value = getattr(value, name)
    for other in others(setting.annotation, value):
        try:
            written = yaml.safe_dump(other, default_flow_style=True).removesuffix("...\n").strip()
            return set(plan_of(path, *beside, f"{setting.path}={written}").stages)
        except UserError:
            continue
    raise AssertionError(f"{setting.name} is {value!r}: say in OTHER of tests/test_settings.py which value to try")


@pytest.mark.parametrize("setting", EVERY, ids=lambda one: one.name)
def test_a_setting_changes_a_key_or_has_a_test_of_its_effect(setting: Setting, tmp_path: Path, write: Write) -> None:
    if only_value(setting.annotation):
        assert setting.name not in EFFECTS
        return
    path = write(
        f"preset: cpu-{setting.engine}\nrows: {{baseline: {{method: baseline}}}}\n" if setting.engine else ALL_KINDS,
        "all.yaml",
    )
    if setting.folder:
        with photographs() as base:
            folder = Path(base[0].partition("path: ")[2].partition(",")[0])
            for name in ("train", "val"):  # others of these names, and the whole folder with other photographs
                (folder / "others").mkdir(exist_ok=True)
                (folder / "others" / f"{name}.jpg").write_bytes(b"larger than the one that is there")
            (tmp_path / "moved" / "images").mkdir(parents=True)
            for name in ("train", "val"):
                document = (folder / f"{name}.json").read_text()
                (tmp_path / "moved" / f"{name}.json").write_text(document)
                (tmp_path / "moved" / "images" / f"{name}.jpg").write_bytes(b"yet another size")
            before, after = set(plan_of(path, *base).stages), changed(setting, path, base)
    else:
        before = set(plan_of(path, *BESIDE.get(setting.name, ())).stages)
        after = changed(setting, path, ())
    if setting.name in EFFECTS:
        assert before == after, f"{setting.name} is in a key: it has no business in EFFECTS"
    else:
        assert before != after, f"{setting.name} changes nothing.{HINT}"


def test_the_plan_has_every_kind_of_stage(write: Write) -> None:
    assert {stage.kind for stage in plan_of(write(ALL_KINDS)).stages.values()} == set(KINDS)


def test_every_setting_is_looked_at() -> None:
    names = [setting.name for setting in EVERY]
    assert len(names) == len(set(names)) > 85
    for listed in (OTHER, BESIDE, EFFECTS):
        assert not set(listed) - set(names), "these are no settings any more"


def test_the_tests_of_effects_are_there() -> None:
    for name, test in EFFECTS.items():
        assert is_there(test), f"{name}: {test} is not there"


@pytest.mark.parametrize("name", [name for name in Cost.model_fields if name != "measured_on"])
def test_every_declared_cost_moves_the_estimate(name: str, write: Write) -> None:
    from bench.plan import forecast

    plan = plan_of(write(ALL_KINDS))
    cost = plan.suite.sections.cost.model_copy(update={"gpu_mb": 100.0})

    def seconds(declared: Cost) -> tuple[float | None, ...]:
        estimate = Estimate(declared)
        whole = forecast.wall_seconds(plan, set(plan.stages), estimate, 1)
        peak = forecast.peak(plan, plan.stages, estimate)
        assert peak is not None
        return (whole, peak.host, peak.gpu, *(estimate(stage) for stage in plan.stages.values()))

    value = getattr(cost, name)
    assert value > 0
    more = seconds(cost.model_copy(update={name: 2 * value}))
    assert more != seconds(cost)
    sign = -1 if name == "val_images" else 1  # as long for twice the images is half as long for each
    assert all(
        a is not None and b is not None and sign * (a - b) >= 0 for a, b in zip(more, seconds(cost), strict=True)
    )


def is_there(test: str) -> bool:
    """Whether a test function of this name exists, written as pytest does: file.py::name."""
    file, _, function = test.partition("::")
    body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body if (ROOT / file).is_file() else []
    return function in {node.name for node in body if isinstance(node, ast.FunctionDef)}


# -- what a row brings of its own


def asked(plan: Plan) -> list[Resources]:
    from bench.launch import submission

    cluster = Cluster(kind="slurm")
    return [submission.needs(plan, cluster, job) for job in make_jobs(plan, set(plan.stages), Estimate(Cost()))]


OF_A_ROW = {
    "schedule": "schedule: {lr: 0.003}",
    "data": "data: {classes: 12}",
    "detector": "detector: {widths: [8, 16, 24, 32]}",
    "cluster": "cluster: {cpus: 3}",
    "against": "against: baseline",
    "each": "each: {beta: [8, 9]}",
}


@pytest.mark.parametrize("name", [*ROW_SECTIONS, "each"])
def test_what_a_row_brings_of_its_own_does_something(name: str, write: Write) -> None:
    assert set(OF_A_ROW) == {*ROW_SECTIONS, "each"}, "say in OF_A_ROW what to try"
    bare = "rows:\n  baseline: {method: baseline}\n  BAGS {beta}: {method: bags, beta: 8}\n"
    own = bare.replace("beta: 8}", f"{'' if name == 'each' else 'beta: 8, '}{OF_A_ROW[name]}}}")
    before, after = (plan_of(write(f"preset: cpu\n{rows}")) for rows in (bare, own))
    if name == "against":
        assert before.stages.keys() == after.stages.keys()
        assert before.suite.controls == {}
        assert after.suite.controls == {"BAGS {beta}": "baseline"}
    elif name == "cluster":
        assert set(before.stages) == set(after.stages)
        assert max(one.cpus for one in asked(before)) == 1
        assert max(one.cpus for one in asked(after)) == 3
    else:
        assert set(before.stages) != set(after.stages)
        assert {stage.key for stage in before.stages.values() if stage.kind == "data"} <= set(
            after.stages
        ) or name == "data"
