"""What stages must have in common for one pass to make them: every entry of their specs that is not a head's own.

The entries are those of planned suites, so that a new entry of a spec is held to this without being named here: leaving
one out would train a head on the batches, or show it the images, of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.key import Fixed, Part, StageRef
from bench.lineage import prediction_group, training_group, trains_classifier_only, trunk_of
from bench.plan.cost import Estimate
from bench.plan.jobs import make_jobs
from bench.plan.planning import Plan
from bench.stage import PredictSpec, Stage, TrainSpec
from tests.planned import COST, model, plan_of, predict

# What a head has for itself, written out: all other entries are of the pass. `batch` and the form of the length
# (steps or epochs) are the pass's, though they stand in the schedule.
OWN = {"classifier", "keep_classifier", "trainable", "schedule", "until"}
OWN_SCHEDULE = {
    "steps", "lr", "momentum", "nesterov", "weight_decay", "warmup", "warmup_from", "decay", "drops", "clip"
}  # fmt: skip

# A recipe with each entry that a train spec may have: a sampler and a data part with settings, one of them a stage.
METHOD = '''
"""Heads over the baseline's trunk, with a sampler and annotations of their own."""

from typing import ClassVar

from bench.method import Builder, Method, part
from bench.stage import Stage


class Sampled(Method):
    """A classifier on the frozen trunk that sees rare classes more often."""

    name: ClassVar[str] = "sampled"
    t: float | None = None  # None: every image once
    beta: float | None = None
    below: int | None = None
    measured: bool = False
    until: int | None = None
    taken: bool = False

    def plan(self, b: Builder) -> Stage:
        t = b.fit(part("ncm:ClassMeans"), model=b.train()) if self.measured else self.t
        return b.train(
            init=b.train(),
            keep_classifier=False,
            classifier=None if self.beta is None else part("group_softmax:GroupSoftmax", beta=self.beta),
            sampler=None if t is None else part("samplers:RepeatFactor", t=t),
            data=None if self.below is None else part("annotations:tail_only", below=self.below),
            trainable=("classifier",),
            until=self.until,
            take=("backbone",) if self.taken else None,
        )
'''
SUITE = """\
preset: cpu
methods_path: sampled.py
machine: {tasks: 2, scope: device}
rows:
  shuffled:     {method: sampled}
  two groups:   {method: sampled, beta: 2}
  more groups:  {method: sampled, beta: 8}
  slower:       {method: sampled, schedule: {lr: 0.001, steps: 9}}
  epochs:       {method: sampled, schedule: {epochs: 2}}
  smaller:      {method: sampled, schedule: {batch: 8}}
  rare:         {method: sampled, t: 0.5}
  rare, groups: {method: sampled, t: 0.5, beta: 8}
  rarer:        {method: sampled, t: 0.25}
  tail:         {method: sampled, below: 50}
  measured:     {method: sampled, measured: true, below: 50}
  rung:         {method: sampled, until: 5}
  taken:        {method: sampled, taken: true}
  tau:          {method: tau_norm}
"""
# The rows that one pass trains. All other heads are trained alone.
TOGETHER = {
    "shuffled": {"shuffled", "two groups", "more groups", "slower", "rung"},
    "rare": {"rare", "rare, groups"},
}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("sampled")
    (folder / "sampled.py").write_text(METHOD)
    (folder / "suite.yaml").write_text(SUITE)
    return plan_of(folder / "suite.yaml")


@pytest.fixture(scope="module")
def heads(plan: Plan) -> list[Stage]:
    """The classifier-only stages of this suite, and those of table 1."""
    table = plan_of(Path(__file__).resolve().parents[1] / "suites" / "table1.yaml")
    found = [stage for one in (plan, table) for stage in one.stages.values() if trains_classifier_only(stage)]
    assert len(found) >= 13
    return found


# -- other values of an entry


def variants(value: Any, at: str) -> Iterator[tuple[str, Any]]:
    """The value with one thing in it changed, for each thing there is. An `Input` changes with the stage it names."""
    if isinstance(value, Part):
        yield f"{at}, reference", replace(value, ref=f"{value.ref}2")
        yield f"{at}, version", replace(value, version=f"{value.version}2")
        for where, settings in variants(value.settings, at):
            yield where, replace(value, settings=settings)
    elif isinstance(value, Mapping):
        kind = Fixed if isinstance(value, Fixed) else dict
        for name, inner in value.items():
            for where, other in variants(inner, f"{at}.{name}"):
                yield where, kind({**value, name: other})
        yield f"{at}, one more", kind({**value, "new": 0})
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            for where, other in variants(inner, f"{at}[{i}]"):
                yield where, [*value[:i], other, *value[i + 1 :]]
        yield f"{at}, longer", [*value, 0]
    elif not isinstance(value, StageRef):
        yield at, another(value)


def another(value: Any) -> Any:
    """A value that differs from a bool, number, text or None."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return 0.5 if value == float("inf") else value + 1
    return f"{value}2" if isinstance(value, str) else "2"


def with_entry(stage: Stage, name: str, value: Any) -> Stage:
    return replace(stage, spec={**stage.spec, name: value})


def with_input(stage: Stage, name: str, source: Stage) -> Stage:
    return replace(stage, inputs={**stage.inputs, name: source})


def other_data(data: Stage) -> Stage:
    return with_entry(data, "seed", data.spec["seed"] + 1)


def other_trunk(trained: Stage) -> Stage:
    assert not trains_classifier_only(trained)
    return with_entry(trained, "seed", trained.spec["seed"] + 1)


# -- training


def test_these_heads_have_every_entry_that_a_train_stage_may_have(heads: list[Stage]) -> None:
    every = TrainSpec.__required_keys__ | TrainSpec.__optional_keys__
    alone = {"losses", "detection", "views", "start"}  # these share no pass; what has an init starts from that
    assert {name for head in heads for name in head.spec} == every - alone
    assert all(set(head.spec) > OWN - {"until"} for head in heads)
    assert set(heads[0].spec["schedule"]) == OWN_SCHEDULE | {"batch", "epochs"}
    assert {head.spec["sampler"].ref for head in heads} == {"samplers:Shuffle", "samplers:RepeatFactor"}
    assert {head.spec["annotations"] is None for head in heads} == {True, False}


def test_what_a_pass_has_in_common_is_in_the_group(heads: list[Stage]) -> None:
    for head in heads:
        for name in head.spec.keys() - OWN:
            changed = list(variants(head.spec[name], name))
            assert changed, name
            for where, value in changed:
                assert training_group(with_entry(head, name, value)) != training_group(head), where


def test_an_entry_that_comes_later_is_in_the_group(heads: list[Stage]) -> None:
    for head in heads:
        assert training_group(with_entry(head, "new", 0)) != training_group(head)
        if "scope" not in head.spec:
            assert training_group(with_entry(head, "scope", {"device": 2})) != training_group(head)


def test_what_a_head_has_for_itself_is_not(heads: list[Stage]) -> None:
    for head in heads:
        assert training_group(with_entry(head, "until", 3)) == training_group(head)
        for name in OWN & head.spec.keys() - {"schedule"}:
            for where, value in variants(head.spec[name], name):
                assert training_group(with_entry(head, name, value)) == training_group(head), where
        schedule = dict(head.spec["schedule"])
        for name in OWN_SCHEDULE - {"steps"}:
            for where, value in variants(schedule[name], name):
                changed = with_entry(head, "schedule", {**schedule, name: value})
                assert training_group(changed) == training_group(head), where


def test_of_the_schedule_the_batch_and_the_form_of_the_length_are(heads: list[Stage]) -> None:
    for head in heads:
        schedule = dict(head.spec["schedule"])

        def group(head: Stage = head, schedule: dict[str, Any] = schedule, **changes: int | None) -> str:
            return training_group(with_entry(head, "schedule", {**schedule, **changes}))

        assert group(batch=schedule["batch"] + 1) != training_group(head)
        assert group(steps=5, epochs=None) != group(steps=None, epochs=5)
        assert group(steps=5, epochs=None) == group(steps=6, epochs=None)
        assert group(steps=None, epochs=5) == group(steps=None, epochs=6)


def test_a_head_s_inputs(plan: Plan, heads: list[Stage]) -> None:
    for head in heads:
        group = training_group(head)
        assert training_group(with_input(head, "train", other_data(head.inputs["train"]))) != group
        assert training_group(with_input(head, "init", other_trunk(head.inputs["init"]))) != group
        alone = {name: source for name, source in head.inputs.items() if name != "init"}
        assert training_group(replace(head, inputs=alone)) != group
        # What lies between the trunk and the head is the head's own: its classifier starts from there. One that takes
        # only groups of the trunk over has a trunk of its own.
        assert (training_group(with_input(head, "init", head)) == group) is ("take" not in head.spec)
    shuffled, patched = model(plan, "shuffled"), model(plan, "tau")
    assert patched.kind == "patch"
    assert training_group(with_input(shuffled, "init", patched)) == training_group(shuffled)


def test_an_input_that_the_sampler_names_is_in_the_group(plan: Plan) -> None:
    head = model(plan, "measured")
    assert head.spec["sampler"].settings["t"] == StageRef("t")
    other = with_entry(head.inputs["t"], "batch", 3)
    assert training_group(with_input(head, "t", other)) != training_group(head)
    # The same input named by the classifier instead is the head's own.
    by_head = {"sampler": head.spec["classifier"], "classifier": head.spec["sampler"]}
    swapped = replace(head, spec={**head.spec, **by_head})
    assert training_group(with_input(swapped, "t", other)) == training_group(swapped)


# -- prediction


def test_what_predictions_of_one_trunk_have_in_common(plan: Plan) -> None:
    for stage in (predict(plan, "shuffled"), predict(plan, "tau")):
        group = prediction_group(stage)
        assert set(stage.spec) == PredictSpec.__required_keys__ | PredictSpec.__optional_keys__
        for name in stage.spec:
            changed = list(variants(stage.spec[name], name))
            assert changed, name
            for where, value in changed:
                assert prediction_group(with_entry(stage, name, value)) != group, where
        assert prediction_group(with_entry(stage, "new", 0)) != group
        assert prediction_group(with_input(stage, "val", other_data(stage.inputs["val"]))) != group
        assert prediction_group(with_input(stage, "model", other_trunk(trunk_of(stage.inputs["model"])))) != group


def test_whose_head_it_is_does_not_matter_to_a_prediction(plan: Plan) -> None:
    group = prediction_group(predict(plan, "shuffled"))
    others = {row.label: prediction_group(predict(plan, row.label)) for row in plan.rows}
    assert others.pop("taken") != group  # a trunk of its own
    assert set(others.values()) == {group}
    assert len({predict(plan, row.label).key for row in plan.rows}) == len(plan.rows)


# -- a real plan


def test_heads_with_different_samplers_are_trained_in_different_units(plan: Plan) -> None:
    jobs = make_jobs(plan, set(plan.stages), Estimate(COST))
    unit_of = {key: unit for job in jobs for unit in job.units for key in unit}
    for row in plan.rows:
        head = model(plan, row.label)
        if trains_classifier_only(head):
            together = {label for key in unit_of[head.key] for label in plan.needed_by[key]}
            assert together == next((group for group in TOGETHER.values() if row.label in group), {row.label})
