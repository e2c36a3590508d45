"""Heads over one frozen trunk: together they are what each is alone, and one that fails fails alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_suite import (
    HEADS,
    SMOKE,
    Undisturbed,
    attempts,
    bring,
    copied,
    data_keys,
    digests,
    drive,
    key_of,
    tiny,
    work,
)

from bench.plan import planning
from bench.plan.cost import Estimate
from bench.plan.jobs import fused_groups, make_jobs
from bench.store.store import Store
from bench.suite.suite import Suite

METHOD = '''
"""Heads that go wrong, outside the tree."""

from pathlib import Path
from typing import ClassVar, Literal

from bench.method import Builder, Method, part
from bench.stage import Stage

HERE = Path(__file__).parent


class Wrong(Method):
    """A head that goes wrong."""

    name: ClassVar[str] = "wrong"
    how: Literal["nan", "raises", "born", "last"] = "nan"

    def plan(self, b: Builder) -> Stage:
        head = part(f"{HERE / 'heads.py'}:Wrong", how=self.how)
        return b.train(init=b.train(), keep_classifier=True, classifier=head, trainable=("classifier",))
'''
HEAD = '''
"""A softmax that goes wrong at step 7, at birth, or in the gradient of the last step."""

from bench.errors import UserError
from methods.parts.softmax import Softmax


class Wrong(Softmax):
    def __init__(self, head, *, how="nan"):
        super().__init__(head)
        self.how = how
        if how == "born":
            raise UserError("this head does not fit these classes", where="Wrong")

    def loss(self, z_NK, targets, context):
        losses = super().loss(z_NK, targets, context)
        if self.how == "last" and context.step == 15:  # a finite loss whose gradient is not
            self.fc.bias.register_hook(lambda g: g * float("nan"))
        if context.step == 7:
            if self.how == "nan":
                return {"classification": losses["classification"] * float("nan")}
            if self.how == "raises":
                raise ZeroDivisionError("a class without a picture")
        return losses
'''


@pytest.fixture
def wrong_suite(tmp_path: Path) -> Path:
    """The smoke suite with a fourth head, whose code lies beside the suite file."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "wrong.py").write_text(METHOD)
    (tmp_path / "more" / "heads.py").write_text(HEAD)
    path = tmp_path / "wrong.yaml"
    path.write_text(SMOKE.read_text() + "  wrong: {method: wrong}\nmethods_path: more/wrong.py\n")
    return path


def without_heads(smoke: Undisturbed, root: Path, suite: Suite) -> Path:
    """A store in which all but the heads and what is made from them is done."""
    heads = {key_of(smoke.plan, label) for label in HEADS}
    kept = {key for key, stage in smoke.plan.stages.items() if key not in heads}
    kept -= {row.evaluate.key for row in smoke.plan.rows if row.label in HEADS and row.evaluate}
    kept -= {key_of(smoke.plan, label, "predict") for label in HEADS}
    return copied(smoke.root, root, kept)


def test_the_reference_was_trained_in_one_pass(smoke: Undisturbed) -> None:
    """Else this file would compare nothing: the heads' attempts began within the same job."""
    hosts = []
    for label in HEADS:
        events = Store(smoke.root).attempts(key_of(smoke.plan, label))[0] / "events.jsonl"
        lines = events.read_text().splitlines()
        assert '"start"' in lines[0]
        hosts.append(float(lines[0].split('"time": ')[1].split(",")[0]))
    assert max(hosts) - min(hosts) < 2.0
    groups = fused_groups(smoke.plan, smoke.plan.stages)
    assert [sorted(smoke.plan.needed_by[key][0] for key in group) for group in groups] == [sorted(HEADS)]


def test_alone_they_have_the_same_bits(smoke: Undisturbed, tmp_path: Path) -> None:
    root = without_heads(smoke, tmp_path / "store", smoke.suite)
    store = Store(root)
    for stage in smoke.plan.stages.values():
        store.add(stage)
    for label in HEADS:
        key = key_of(smoke.plan, label)
        assert work(root, smoke.suite, (key,))[key].state == "done"
    bring(smoke.suite, root, fuse=False)
    assert digests(smoke.plan, root) == smoke.digests()


def test_without_fusing_every_head_is_a_job(smoke: Undisturbed) -> None:
    estimate = Estimate(smoke.suite.sections.cost)
    heads = {key_of(smoke.plan, label) for label in HEADS}
    assert len(make_jobs(smoke.plan, heads, estimate, fuse=False)) == 3
    assert len(make_jobs(smoke.plan, heads, estimate, fuse=True)) == 1


@pytest.mark.slow
def test_a_diverging_head_fails_alone(smoke: Undisturbed, tmp_path: Path, wrong_suite: Path) -> None:
    """By the command: the other rows get their numbers, the row is named, exit code 1, and never done."""
    suite = tiny(path=wrong_suite)
    plan = planning.make(suite)
    bad = key_of(plan, "wrong")
    root = without_heads(smoke, tmp_path / "store", suite)
    ended = drive(root, path=wrong_suite)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "the loss diverged at step 8 of 16: classification nan" in ended.stdout
    assert "lower schedule.lr" in ended.stdout
    store = Store(root)
    assert store.done(bad) is None
    failure = store.failure(bad)
    assert failure is not None
    assert "diverged at step 8" in failure.error
    assert {k: d for k, d in digests(plan, root).items() if k in smoke.plan.stages} == smoke.digests()
    row = next(line for line in ended.stdout.splitlines() if line.startswith("wrong "))
    assert row.count("-") > 5
    assert not any(letter.isdigit() for letter in row)  # a missing number is never 0
    assert any("wrong" in line and "diverged" in line for line in ended.stdout.splitlines())
    heads = {key_of(plan, label) for label in (*HEADS, "wrong")}
    assert {len(found) for key, found in attempts(plan, root).items() if key in heads} == {1}

    again = drive(root, path=wrong_suite)
    assert again.returncode == 1
    assert Store(root).done(bad) is None
    assert {len(found) for key, found in attempts(plan, root).items() if key in smoke.plan.stages} == {1}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raises", "ZeroDivisionError: a class without a picture"),
        ("born", "this head does not fit these classes"),
        ("last", "not finite after the last step"),
    ],
)
def test_a_head_that_breaks_fails_alone(
    smoke: Undisturbed, tmp_path: Path, wrong_suite: Path, how: str, said: str
) -> None:
    suite = tiny(f"rows.wrong.how={how}", path=wrong_suite)
    plan = planning.make(suite)
    bad = key_of(plan, "wrong")
    root = without_heads(smoke, tmp_path / "store", suite)
    outcomes = bring(suite, root)
    assert {key for key, outcome in outcomes.items() if outcome.state == "failed"} == {bad}
    assert said in outcomes[bad].message
    assert Store(root).done(bad) is None
    assert {k: d for k, d in digests(plan, root).items() if k in smoke.plan.stages} == smoke.digests()


def test_a_head_alone_that_breaks(smoke: Undisturbed, tmp_path: Path, wrong_suite: Path) -> None:
    suite = tiny("rows.wrong.how=born", path=wrong_suite, only="wrong")
    outcomes = bring(suite, copied(smoke.root, tmp_path / "store", set(smoke.plan.stages)))
    assert outcomes.pop(key_of(planning.make(suite), "wrong")).state == "failed"
    assert {outcome.state for outcome in outcomes.values()} == {"waiting"}


def test_a_rate_that_is_too_high_is_found_out(smoke: Undisturbed, tmp_path: Path) -> None:
    """A whole detector, by its real loss."""
    suite = tiny("schedule.lr=1e6", "schedule.clip=null", "schedule.warmup=0", only="baseline")
    plan = planning.make(suite)
    key = key_of(plan, "baseline")
    root = copied(smoke.root, tmp_path / "store", data_keys(plan))
    outcomes = bring(suite, root, only=lambda k: k == key)
    assert outcomes[key].state == "failed"
    assert outcomes[key].code == 1
    assert "diverged at step" in outcomes[key].message
    assert "now 1e+06" in outcomes[key].message
    assert Store(root).done(key) is None
