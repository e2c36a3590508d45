"""Recipes with losses, teachers and chains: what is in their keys, and the stages of step-wise learning."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from bench.cli.open import open_suite
from bench.errors import UserError
from bench.key import part
from bench.lineage import model_chain
from bench.method import Builder, Usual, planned
from bench.stage import Stage
from bench.suite.suite import Suite
from methods.simltd import SimLTD
from methods.stepwise import StepWise
from tests.conftest import Write


@pytest.fixture
def suite(write: Write) -> Suite:
    return open_suite(write())


def trainings(suite: Suite, method: Any) -> list[Stage]:
    return [stage for stage in model_chain(planned(method, suite, 0)) if stage.kind == "train"]


def settings(stage: Stage, entry: str) -> dict[str, Any]:
    return dict(stage.spec[entry].settings)


def test_step_wise_is_a_base_an_expert_and_a_unified_model(suite: Suite) -> None:
    base, expert, unified = trainings(suite, StepWise())
    assert base.key == Builder(suite, 0).train().key  # shared with every other row
    assert [one.spec["phase"] for one in (base, expert, unified)] == [0, 1, 2]
    for one in (expert, unified):
        assert one.spec["trainable"] == ["fpn", "classifier"]
        assert one.spec["keep_classifier"] is True
        assert one.spec["sampler"].ref == "samplers:RepeatByLevel"
    assert "losses" not in expert.spec
    assert settings(expert, "annotations")["quotas"] == (200, 30)
    assert settings(unified, "annotations")["quotas"] == (50, None)
    assert [settings(one, "sampler")["powers"] for one in (expert, unified)] == [(0.3, 0.5), (0.0, 1.0)]
    assert [settings(one, "sampler")["t"] for one in (expert, unified)] == [0.003, 0.0015]
    features, scores = unified.spec["losses"]
    assert (features.ref, scores.ref) == ("distill:Features", "distill:Scores")
    assert (features.settings["weight"], scores.settings["weight"]) == (0.1, 1.0)  # the paper's
    assert unified.inputs["teacher"] == unified.inputs["init"] == expert
    assert unified.inputs["scores"].inputs["model"] == base


def test_the_schedules_are_the_paper_s_where_the_suite_says_nothing(write: Write) -> None:
    plain = open_suite(write())
    base, expert, unified = trainings(plain, StepWise())
    assert expert.spec["schedule"]["lr"] == pytest.approx(base.spec["schedule"]["lr"] / 10)
    assert unified.spec["schedule"]["lr"] == base.spec["schedule"]["lr"]
    assert [one.spec["schedule"]["epochs"] for one in (expert, unified)] == [1, 2]
    assert list(unified.spec["schedule"]["drops"]) == [0.5]
    own = open_suite(write(), sets=["stages.unified={steps: 7, lr: 0.001}"])
    _, _, last = trainings(own, StepWise())
    assert (last.spec["schedule"]["steps"], last.spec["schedule"]["epochs"]) == (7, None)
    assert last.spec["schedule"]["lr"] == 0.001
    assert list(last.spec["schedule"]["drops"]) == [0.5]  # what the suite leaves out stays the paper's


def test_the_released_code_s_settings(suite: Suite) -> None:
    method = StepWise(at="above", tail=100, rare="all", imitate=1, transfer=0.1, unselected="drop")
    _, expert, unified = trainings(suite, method)
    assert settings(expert, "annotations") | {"scores": 0} == {
        "scores": 0, "quotas": (200, 100), "edges": ({"images": 30.0},), "inclusive": False, "rare": None,
        "unselected": "drop",
    }  # fmt: skip
    assert [loss.settings["weight"] for loss in unified.spec["losses"]] == [1, 0.1]


def test_parts_of_the_chain_alone(suite: Suite) -> None:
    base, expert = trainings(suite, StepWise(stages="expert"))
    assert expert == trainings(suite, StepWise())[1]
    first, alone = trainings(suite, StepWise(stages="unified"))
    assert first == base
    assert alone.inputs["teacher"] == alone.inputs["init"] == base
    *_, neither = trainings(suite, StepWise(imitate=0, transfer=0))
    assert "losses" not in neither.spec
    assert len(trainings(suite, StepWise(transfer=0))[-1].spec["losses"]) == 1
    plain = trainings(suite, StepWise(t_expert=None, t_unified=None))[-1]
    assert plain.spec["sampler"].ref == "samplers:Shuffle"


def test_more_steps_have_the_one_before_as_the_teacher_of_all_above(suite: Suite) -> None:
    _, expert, second, third = trainings(suite, StepWise(M=[{"images": 100}, {"images": 30}]))
    assert [settings(one, "annotations")["quotas"] for one in (expert, second, third)] == [
        (200, 30, 30), (50, None, 30), (50, 50, None),
    ]  # fmt: skip
    assert second.inputs["teacher"] == expert
    assert third.inputs["teacher"] == second
    assert [loss.settings["levels"] for loss in (*second.spec["losses"], *third.spec["losses"])] == [1, 1, 2, 2]


def test_it_stands_on_another_base(suite: Suite) -> None:
    base, classifier, expert, unified = trainings(suite, StepWise(classifier="bags"))
    assert base == trainings(suite, StepWise())[0]
    assert {one.spec["classifier"].ref for one in (classifier, expert, unified)} == {"group_softmax:GroupSoftmax"}
    assert trainings(suite, StepWise(classifier="reweight"))[-1].spec["classifier"].ref == "losses:ReweightedSoftmax"


@pytest.mark.parametrize(
    "wrong",
    [
        {"stages": "expert", "few": 3},
        {"stages": "expert", "M": [{"images": 9}, {"images": 3}]},
        {"t_expert": 0},
        {"M": []},
        {"transfer": -1},
        {"head": -1},
    ],
)
def test_settings_that_nothing_would_use_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        StepWise.model_validate(wrong)


def test_simltd_joins_two_classifiers(suite: Suite) -> None:
    head, tail, few = trainings(suite, SimLTD())
    assert [settings(one, "annotations")["keep"] for one in (head, tail)] == [(0,), (1,)]
    assert tail.spec["trainable"] == ["classifier"]
    assert tail.spec["keep_classifier"] is False
    both = few.inputs["init"]
    assert (both.kind, both.inputs["model"], both.inputs["other"]) == ("patch", tail, head)
    assert settings(few, "annotations")["quotas"] == (10, 10)


def test_losses_and_their_teachers_are_in_the_key(suite: Suite) -> None:
    b = Builder(suite, 0)
    base, other = b.train(), b.train(sampler=part("samplers:RepeatFactor"))

    def key(*losses: Any, **more: Any) -> str:
        return b.train(init=base, keep_classifier=True, losses=losses, **more).key

    plain = key()
    keys = [
        key(part("distill:Features", teacher=base)), key(part("distill:Features", teacher=other)),
        key(part("distill:Features", teacher=base, weight=2.0)), key(part("distill:Scores", teacher=base)),
        key(part("distill:Features", teacher=base), part("distill:Scores", teacher=base)),
        key(part("distill:Features", teacher=base), detection=False),
    ]  # fmt: skip
    assert len({plain, *keys}) == 7
    assert plain == b.train(init=base, keep_classifier=True).key


def test_what_cannot_be_handed_over_is_refused(suite: Suite) -> None:
    b = Builder(suite, 0)
    base = b.train()
    with pytest.raises(UserError, match="detection=False leaves no loss"):
        b.train(detection=False)
    with pytest.raises(UserError, match=r"samplers:RepeatFactor: its setting 't' is a train stage"):
        b.train(sampler=part("samplers:RepeatFactor", t=base))
    with pytest.raises(UserError, match="its setting 'teacher' is a data stage"):
        b.train(init=base, keep_classifier=True, losses=(part("distill:Scores", teacher=b.data("train")),))


def test_a_usual_schedule_is_not_the_suite_s_word(write: Write) -> None:
    suite = open_suite(write(), sets=["stages.later={lr: 0.5}"])
    b = Builder(suite, 0)
    found = b.train(schedule="later", usual=Usual(rate=3, epochs=4)).spec["schedule"]
    assert (found["lr"], found["epochs"], found["steps"]) == (0.5, 4, None)
