"""The recipe language: the stages of every row of table1, what a recipe may not say, methods found elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.cli.open import config_text, open_suite
from bench.errors import UserError
from bench.key import Part, part
from bench.method import Builder, Method, planned, stopped
from bench.plan import planning
from bench.plan.planning import Plan
from bench.stage import Stage, length_of, rung, walk
from bench.suite.catalogue import discover
from bench.suite.suite import Suite
from tests.conftest import ROOT, TINY, Write

SOFTMAX, SHUFFLE = "softmax:Softmax", "samplers:Shuffle"


@pytest.fixture(scope="module")
def table1() -> Plan:
    return planning.make(open_suite(ROOT / "suites" / "table1.yaml"))


@pytest.fixture
def suite(write: Write) -> Suite:
    return open_suite(write())


def models(plan: Plan) -> dict[str, Stage]:
    """Row label -> the stage whose model is evaluated."""
    return {row.label: row.evaluate.inputs["predict"].inputs["model"] for row in plan.rows if row.evaluate is not None}


def ref(value: Any) -> str:
    assert isinstance(value, Part)
    return value.ref


def train_facts(stage: Stage) -> tuple[Any, ...]:
    """(phase, trainable, keep_classifier, classifier, sampler, steps, lr)."""
    s = stage.spec
    schedule = s["schedule"]
    return (
        s["phase"], tuple(s["trainable"]), s["keep_classifier"], ref(s["classifier"]), ref(s["sampler"]),
        schedule["steps"], schedule["lr"],
    )  # fmt: skip


BASE = (0, (), None, SOFTMAX, SHUFFLE, 900, 0.06)
ROWS: dict[str, tuple[Any, ...]] = {
    "baseline": BASE,
    "x2": (1, (), True, SOFTMAX, SHUFFLE, 900, 0.06),
    "RFS": (0, (), None, SOFTMAX, "samplers:RepeatFactor", 900, 0.06),
    "cls-retrain": (1, ("classifier",), True, SOFTMAX, SHUFFLE, 1337, 0.02),
    "re-weight-cls": (1, ("classifier",), True, "losses:ReweightedSoftmax", SHUFFLE, 1337, 0.02),
    "BAGS": (1, ("classifier",), False, "group_softmax:GroupSoftmax", SHUFFLE, 1337, 0.02),
}


@pytest.mark.parametrize("label", ROWS)
def test_rows_of_table1_that_train(table1: Plan, label: str) -> None:
    model = models(table1)[label]
    assert model.kind == "train"
    assert train_facts(model) == ROWS[label]
    if ROWS[label][0] == 1:
        assert model.inputs["init"] == models(table1)["baseline"]
    else:
        assert "init" not in model.inputs


def test_tau_norm_of_table1_edits_the_baseline(table1: Plan) -> None:
    model = models(table1)["tau-norm"]
    assert model.kind == "patch"
    assert model.inputs["model"] == models(table1)["baseline"]
    assert ref(model.spec["patch"]) == "patches:tau_norm"
    assert dict(model.spec["patch"].settings) == {"tau": 1.0, "background": "scaled"}


def test_every_row_is_predicted_and_evaluated_alike(table1: Plan) -> None:
    rows = [row.evaluate for row in table1.rows]
    assert len(rows) == 15
    for evaluate in rows:
        assert evaluate is not None
        assert evaluate.kind == "evaluate"
        predict = evaluate.inputs["predict"]
        assert predict.inputs["val"] == evaluate.inputs["val"]
        first = rows[0].inputs["predict"] if rows[0] else None
        assert first is not None
        assert predict.spec == first.spec


def test_settings_reach_the_parts(table1: Plan) -> None:
    made = models(table1)
    assert made["BAGS"].spec["classifier"].settings["beta"] == 8
    assert made["re-weight-cls"].spec["classifier"].settings["clip"] == (0.01, 5.0)
    assert made["RFS"].spec["sampler"].settings == {"t": {"images": 57}, "rounding": "stochastic", "power": 0.5}


def test_seeds_share_nothing_but_what_a_seed_does_not_change(write: Write) -> None:
    fixed = TINY.replace("classes: 4", "seed: 7, classes: 4")
    plan = planning.make(open_suite(write(fixed), seeds="1,2"))
    one, two = (set(walk(row.evaluate)) for row in plan.rows if row.label == "BAGS" and row.evaluate is not None)
    assert {stage.kind for stage in one & two} == {"data"}
    following = planning.make(open_suite(write(TINY, "b.yaml"), seeds="1,2"))
    one, two = (set(walk(row.evaluate)) for row in following.rows if row.label == "BAGS" and row.evaluate is not None)
    assert not one & two


# -- a training that is stopped early


def test_a_recipe_may_stop_a_training(suite: Suite) -> None:
    """TINY trains for 3 steps; one that is no longer than `until` is the whole, and so the same stage."""
    builder = Builder(suite, seed=0)
    whole = builder.train()
    assert builder.train(until=2) == rung(whole, 2)
    assert builder.train(until=3) == builder.train(until=500) == whole
    after = builder.train(init=builder.train(until=2), keep_classifier=True, trainable=("classifier",), until=1)
    assert (after.inputs["init"], length_of(after)) == (rung(whole, 2), 1)
    with pytest.raises(UserError, match=r"until=: a training cannot stop after 0. Legal: 1 and more"):
        builder.train(until=0)


class Early(Method):
    """Stops after 5 steps."""

    name = "early"

    def plan(self, b: Builder) -> Stage:
        return b.patch(b.train(until=5), part("patches:tau_norm"))


def test_a_row_s_own_schedule_is_stopped_too(suite: Suite) -> None:
    """Whether the suite's own 3 steps end before or not."""
    long = planned(Early(), suite, 0, {"steps": 9}).inputs["model"]
    assert (long.spec["until"], long.spec["schedule"]["steps"]) == (5, 9)
    assert "until" not in planned(Early(), suite, 0).inputs["model"].spec
    assert "until" not in planned(Early(), suite, 0, {"steps": 4}).inputs["model"].spec


def test_a_trial_is_stopped_in_its_last_training(table1: Plan) -> None:
    made = models(table1)
    head = stopped(made["BAGS"], 300, below=(100, 300, 900))
    assert head == rung(made["BAGS"], 300)
    assert head.inputs["init"] == made["baseline"], "the trunk that it starts from is trained to its end"
    assert head.not_in_key["rungs"] == [100]
    edited = stopped(made["tau-norm"], 300, below=[100])
    assert edited.kind == "patch"
    assert edited.inputs["model"] == rung(made["baseline"], 300)
    assert edited.inputs["model"].not_in_key["rungs"] == [100]


def test_a_trial_that_reaches_its_end_is_the_row(table1: Plan) -> None:
    made = models(table1)
    whole = stopped(made["tau-norm"], 900, below=(100, 300, 900))
    assert whole == made["tau-norm"]
    assert whole.inputs["model"].not_in_key["rungs"] == [100, 300]
    assert "rungs" not in made["baseline"].not_in_key
    for until in (0, 901):
        with pytest.raises(ValueError, match="training of 900 steps"):
            stopped(made["tau-norm"], until)


# -- what a recipe may not say


def test_init_demands_keep_classifier_in_writing(suite: Suite) -> None:
    builder = Builder(suite, seed=0)
    with pytest.raises(UserError, match=r"init= and keep_classifier= go together"):
        builder.train(init=builder.train())
    with pytest.raises(UserError, match=r"init= and keep_classifier= go together"):
        builder.train(keep_classifier=True)


def test_a_kept_classifier_stays_of_its_kind(suite: Suite) -> None:
    builder = Builder(suite, seed=0)
    grouped = builder.train(init=builder.train(), keep_classifier=False, classifier=part("group_softmax:GroupSoftmax"))
    assert ref(builder.train(init=grouped, keep_classifier=True).spec["classifier"]) == "group_softmax:GroupSoftmax"
    assert ref(builder.train(init=grouped, keep_classifier=False).spec["classifier"]) == SOFTMAX
    patched = builder.patch(grouped, part("patches:tau_norm"))
    assert ref(patched.spec["classifier"]) == "group_softmax:GroupSoftmax"


def test_phases_count_the_init_chain(suite: Suite) -> None:
    builder = Builder(suite, seed=0)
    first = builder.train()
    second = builder.train(init=first, keep_classifier=True)
    edited = builder.patch(second, part("patches:tau_norm"))
    third = builder.train(init=edited, keep_classifier=True)
    assert [s.spec["phase"] for s in (first, second, edited, third)] == [0, 1, 1, 2]


def test_the_weights_file_made_the_first_stage_alone(write: Write, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"weights")
    text = TINY.replace("preset: cpu", f"preset: cpu\ndetector: {{weights: {tmp_path / 'w.pth'}}}")
    builder = Builder(open_suite(write(text)), seed=0)
    first = builder.train()
    assert len(first.spec["weights"]) == 64
    assert builder.train(init=first, keep_classifier=True).spec["weights"] is None
    (tmp_path / "copy.pth").write_bytes(b"weights")
    other = open_suite(write(text.replace("w.pth", "copy.pth"), "b.yaml"))
    assert Builder(other, seed=0).train() == first  # the content counts, not the path


# -- discovery

MINE = '''
from typing import ClassVar
from bench.method import Builder, Method
from bench.stage import Stage


class Mine(Method):
    """Half the training, mine.

    Source: nobody 2026.
    """

    name: ClassVar[str] = "mine"
    needs: ClassVar[frozenset[str]] = frozenset({NEEDS})
    # DEVIATION: there is no paper.
    gain: float = 1.0

    def plan(self, b: Builder) -> Stage:
        return b.train()
'''


def mine(folder: Path, needs: str = '"classifier"') -> Path:
    (folder / "more").mkdir(exist_ok=True)
    (folder / "more" / "mine.py").write_text(MINE.replace("NEEDS", needs))
    return folder / "more"


def test_a_method_of_methods_path_makes_rows(write: Write, tmp_path: Path) -> None:
    mine(tmp_path)
    for path in ("more", "more/mine.py", "[more/mine.py]"):
        text = TINY.replace("preset: cpu", f"preset: cpu\nmethods_path: {path}") + "  M: {method: mine, gain: 2}\n"
        plan = planning.make(open_suite(write(text)))
        assert models(plan)["M"] == models(plan)["baseline"]
        shown = write(config_text(plan.suite), "shown.yaml")
        assert models(planning.make(open_suite(shown)))["M"] == models(plan)["M"]


def test_what_a_method_says_of_itself(tmp_path: Path) -> None:
    found = discover([mine(tmp_path)])["mine"]
    assert found.source() == "nobody 2026."
    assert found.deviations() == ["there is no paper."]


def test_a_row_whose_engine_lacks_something_is_skipped_with_the_reason(write: Write, tmp_path: Path) -> None:
    mine(tmp_path, '"classifier", "masks", "queries"')
    text = TINY.replace("preset: cpu", "preset: cpu\nmethods_path: more") + "  M: {method: mine}\n"
    plan = planning.make(open_suite(write(text)))
    row = plan.rows[-1]
    assert (row.label, row.evaluate) == ("M", None)
    assert row.skipped == "engine 'torchvision' lacks masks, queries"
    assert all("M" not in labels for labels in plan.needed_by.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import nothing_of_this_name", r"mine\.py: cannot be imported: ModuleNotFoundError"),
        ("def x(:", r"mine\.py: cannot be imported: SyntaxError"),
        ("raise KeyError('x')", r"mine\.py: cannot be imported: KeyError"),
        (MINE.replace("NEEDS", "").replace('"mine"', '"bags"'), r"mine\.py: two methods are called 'bags'"),
        (MINE.replace("NEEDS", "").replace('    name: ClassVar[str] = "mine"\n', ""), r"mine\.py: .*Mine has no name"),
        (MINE.replace("NEEDS", "").replace("def plan", "def plam"), r"mine\.py: .*Mine has no plan"),
    ],
)
def test_a_method_file_that_cannot_be_used_is_named(write: Write, tmp_path: Path, content: str, message: str) -> None:
    (mine(tmp_path) / "mine.py").write_text(content)
    with pytest.raises(UserError, match=message):
        open_suite(write(TINY.replace("preset: cpu", "preset: cpu\nmethods_path: more")))


def test_a_method_path_that_is_not_there(write: Write) -> None:
    with pytest.raises(UserError, match=r"none\.py: no such method file\n.*methods_path"):
        open_suite(write(TINY.replace("preset: cpu", "preset: cpu\nmethods_path: none.py")))


@pytest.mark.parametrize("kind", list(discover().values()), ids=list(discover()))
def test_every_method_of_the_house_says_what_it_is(kind: type[Method]) -> None:
    assert kind.source() != "-"
    assert kind.name.islower()
    doc = (kind.__doc__ or "").strip()
    assert doc.split(".")[0]
