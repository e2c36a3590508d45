"""Predictions over one trunk in one pass, and over features that were kept: the bits of each prediction alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_suite import SMOKE, Undisturbed, bring, copied, digests, flip_bit, key_of, tiny, work

from bench.plan import planning
from bench.plan.cost import Estimate
from bench.plan.jobs import make_jobs
from bench.plan.planning import Plan
from bench.run import features
from bench.run.features import FEATURES, INFO
from bench.run.job import Job
from bench.store.disk import read_json
from bench.store.store import Store
from bench.suite.suite import Suite

METHOD = '''
"""A classifier that breaks when it predicts, outside the tree."""

from pathlib import Path
from typing import ClassVar

from bench.method import Builder, Method, part
from bench.stage import Stage

HERE = Path(__file__).parent


class Broken(Method):
    """Breaks at its second batch."""

    name: ClassVar[str] = "broken"

    def plan(self, b: Builder) -> Stage:
        return b.wrap(b.train(), part(f"{HERE / 'heads.py'}:Broken"))
'''
HEAD = '''
"""The inner classifier, until it breaks."""

from bench.detection.contract import Classifier, build_classifier


class Broken(Classifier):
    def __init__(self, head, *, inner):
        super().__init__(head)
        self.inner = build_classifier(inner, head)
        self.calls = 0

    def forward(self, taps):
        return self.inner(taps)

    def loss(self, z_NK, targets, context):
        return self.inner.loss(z_NK, targets, context)

    def scores(self, z_NK):
        self.calls += 1
        if self.calls > 1:
            raise ZeroDivisionError("no score for this picture")
        return self.inner.scores(z_NK)
'''
ROWS = """\
  "tau={tau}": {method: tau_norm, each: {tau: [0.25, 0.5, 0.75]}}
  NCM:    {method: ncm}
  conv:   {method: ncm, feature: conv}
  broken: {method: broken}
methods_path: more/broken.py
"""
POST_HOC = ("baseline", "tau-norm", "tau=0.25", "tau=0.5", "tau=0.75", "NCM", "conv")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "more").mkdir()
    (folder / "more" / "broken.py").write_text(METHOD)
    (folder / "more" / "heads.py").write_text(HEAD)
    path = folder / "sweep.yaml"
    path.write_text(SMOKE.read_text() + ROWS)
    return tiny("test.batch=2", path=path)


@pytest.fixture(scope="module")
def plan(suite: Suite) -> Plan:
    return planning.make(suite)


@pytest.fixture(scope="module")
def models(smoke: Undisturbed, suite: Suite, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with every model and no prediction."""
    kept = {key for key in smoke.plan.stages if key in plan.stages}
    root = copied(smoke.root, tmp_path_factory.mktemp("models") / "store", kept)
    outcomes = bring(suite, root, only=lambda key: plan.stages[key].kind in ("fit", "patch"))
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    for stage in plan.stages.values():
        Store(root).add(stage)
    return root


@pytest.fixture(scope="module")
def alone(models: Path, suite: Suite, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What each prediction holds that was made by itself, through the network."""
    root = copied(models, tmp_path_factory.mktemp("alone") / "store", {path.name for path in models.iterdir()})
    for label in POST_HOC:
        key = key_of(plan, label, "predict")
        assert work(root, suite, (key,))[key].state == "done"
    return predictions(plan, root)


def predictions(plan: Plan, root: Path) -> dict[str, str | None]:
    held = digests(plan, root)
    return {label: held[key_of(plan, label, "predict")] for label in POST_HOC}


def unit(plan: Plan) -> tuple[str, ...]:
    return tuple(key_of(plan, label, "predict") for label in (*POST_HOC, "broken"))


def the_features(plan: Plan) -> str:
    (key,) = [key for key, stage in plan.stages.items() if stage.kind == "features"]
    return key


def fresh(models: Path, tmp_path: Path) -> Path:
    tmp_path.mkdir(exist_ok=True)
    return copied(models, tmp_path / "store", {path.name for path in models.iterdir()})


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was run")

    monkeypatch.setattr(features.TrunkPass, "__init__", refuse)


def test_one_pass_gives_what_each_gives_alone_and_one_that_breaks_breaks_alone(
    models: Path, suite: Suite, plan: Plan, alone: dict[str, str | None], tmp_path: Path
) -> None:
    root = fresh(models, tmp_path)
    outcomes = work(root, suite, unit(plan))
    broken = key_of(plan, "broken", "predict")
    assert {key for key, outcome in outcomes.items() if outcome.state != "done"} == {broken}
    assert "no score for this picture" in outcomes[broken].message
    assert Store(root).done(broken) is None
    assert predictions(plan, root) == alone
    assert None not in alone.values()
    assert len(set(alone.values())) == len(POST_HOC)  # else this would compare nothing
    done = Store(root).done(key_of(plan, "NCM", "predict"))
    assert done is not None
    assert done.extra["fused"] == len(POST_HOC) + 1
    assert done.extra["own_seconds"] + done.extra["shared_seconds"] < done.seconds


def test_a_prediction_that_another_run_holds_is_left_to_it(
    models: Path, suite: Suite, plan: Plan, alone: dict[str, str | None], tmp_path: Path
) -> None:
    root = fresh(models, tmp_path)
    held = key_of(plan, "tau=0.5", "predict")
    lease = Store(root).acquire(held)
    assert lease is not None
    with lease:
        outcomes = work(root, suite, unit(plan)[:-1])
    assert {key for key, outcome in outcomes.items() if outcome.state == "busy"} == {held}
    assert predictions(plan, root) == {**alone, "tau=0.5": None}


def test_kept_features_give_the_same_bits_without_the_network(
    models: Path,
    suite: Suite,
    plan: Plan,
    alone: dict[str, str | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also to a point that is added later; not where they have rotted."""
    root = fresh(models, tmp_path)
    cache = the_features(plan)
    assert work(root, suite, (cache,))[cache].state == "done"
    assert read_json(Store(root).output(cache) / INFO)["skipped"] is None

    later = tiny("test.batch=2", "rows.tau-norm.tau=0.9", path=suite.path, only="tau-norm")
    new = key_of(planning.make(later), "tau-norm", "predict")
    assert new not in plan.stages
    with monkeypatch.context() as patch:
        no_network(patch)
        assert {outcome.state for key, outcome in work(root, suite, unit(plan)).items()} == {"done", "failed"}
        assert bring(later, root)[new].state == "done"
    assert predictions(plan, root) == alone

    again = fresh(models, tmp_path / "again")
    assert work(again, suite, (cache,))[cache].state == "done"
    flip_bit(Store(again).output(cache) / FEATURES)
    key = key_of(plan, "conv", "predict")
    assert work(again, suite, (key,))[key].state == "done"
    assert predictions(plan, again)["conv"] == alone["conv"]


def test_features_over_the_bound_are_not_kept(
    models: Path, suite: Suite, plan: Plan, alone: dict[str, str | None], tmp_path: Path
) -> None:
    root, cache = fresh(models, tmp_path), the_features(plan)
    machine = suite.sections.machine.model_copy(update={"features_mb": 0})
    assert Job(str(root), ((cache,), (key_of(plan, "NCM", "predict"),)), machine)()[cache].state == "done"
    assert "machine.features_mb" in read_json(Store(root).output(cache) / INFO)["skipped"]
    assert not (Store(root).output(cache) / FEATURES).exists()
    assert predictions(plan, root)["NCM"] == alone["NCM"]


def test_the_plan_makes_it_all_in_one_job(models: Path, suite: Suite, plan: Plan, tmp_path: Path) -> None:
    root = fresh(models, tmp_path)
    labels = {key_of(plan, label, "predict") for label in (*POST_HOC, "broken")}
    wanted = labels | {the_features(plan)}
    done = {key for key in plan.stages if Store(root).done(key) is not None}
    jobs = make_jobs(plan, wanted, Estimate(suite.sections.cost), done=done)
    assert [[set(unit) for unit in job.units] for job in jobs] == [[{the_features(plan)}, labels]]
    outcomes = bring(suite, root, only=lambda key: key in wanted)
    assert [key for key, outcome in outcomes.items() if outcome.state != "done"] == [key_of(plan, "broken", "predict")]
