"""Parts outside the product, edited between planning and running. The files and the jobs are real."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_suite import bring, key_of, work

from bench.cli.open import open_suite
from bench.errors import UserError
from bench.key import canonical, part
from bench.plan import planning
from bench.run import external_parts as outside
from bench.store.store import Store
from tests.conftest import TINY

METHOD = """\
from pathlib import Path
from typing import ClassVar

from bench.method import Builder, Method, part
from bench.stage import Stage

SAMPLER = Path(__file__).resolve().parent / "own_sampler.py"


class Mine(Method):
    name: ClassVar[str] = "mine"

    def plan(self, b: Builder) -> Stage:
        return b.train(sampler=part(f"{SAMPLER}:InTurn", first=1))
"""
SAMPLER = """\
import numpy as np


class InTurn:
    def __init__(self, stats, *, first=0):
        self._images, self._first = stats.num_images, first

    def epoch(self, e, rng):
        return np.roll(np.arange(self._images), self._first)

    def expected_length(self):
        return float(self._images)
"""


def spec(path: Path) -> object:
    return canonical({"classifier": part("softmax:Softmax"), "sampler": part(f"{path}:InTurn", first=3), "lr": 0.1})


def test_as_planned_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(SAMPLER)
    planned = spec(path)
    outside.check([planned])
    path.write_text(SAMPLER + "\n# a remark\n")
    with pytest.raises(UserError, match="has changed since the stage was planned") as caught:
        outside.check([{"nested": [planned]}])
    assert caught.value.where == f"{path}:InTurn"
    assert caught.value.exit_code == 2
    path.write_text(SAMPLER)
    outside.check([planned])
    path.unlink()
    with pytest.raises(UserError, match=r"mine\.py"):
        outside.check([planned])


def test_parts_of_the_product_have_a_version_and_are_not_looked_at() -> None:
    found = canonical(part("softmax:Softmax"))
    outside.check([{**found, "version": "0"}])


def test_a_job_refuses_what_was_edited_after_it_was_planned(tmp_path: Path) -> None:
    methods, sampler = tmp_path / "methods" / "mine.py", tmp_path / "methods" / "own_sampler.py"
    methods.parent.mkdir()
    methods.write_text(METHOD)
    sampler.write_text(SAMPLER)
    path = tmp_path / "suite.yaml"
    path.write_text(TINY.replace("preset: cpu", f"preset: cpu\nmethods_path: {methods}") + "  own: {method: mine}\n")
    suite = open_suite(path, only="own")
    plan, root = planning.make(suite), tmp_path / "store"
    train, predict = key_of(plan, "own"), key_of(plan, "own", "predict")
    bring(suite, root, only=lambda key: plan.stages[key].kind == "data")

    sampler.write_text(SAMPLER.replace("np.roll", "-np.roll"))
    refused = work(root, suite, (train,))[train]
    assert (refused.state, refused.code) == ("failed", 2)
    assert f"{sampler}:InTurn: this file has changed since the stage was planned" in refused.message
    assert "run the suite again" in refused.message
    assert Store(root).attempts(train) == [], "nothing was begun"
    assert Store(root).running(train) is None

    sampler.write_text(SAMPLER)
    assert work(root, suite, (train,))[train].state == "done"
    sampler.write_text(SAMPLER + "# a model that was made with the old file is not read with the new one\n")
    assert work(root, suite, (predict,))[predict].code == 2
    assert planning.make(open_suite(path, only="own")).stages.keys() != plan.stages.keys()
