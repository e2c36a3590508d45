"""Every check of an engine can fail: the engine of the examples with one thing wrong, caught by the check that is there
for it. And every engine of the house passes all."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import broken_engine
import pytest

from bench.contract_check.built import EngineSubject
from bench.contract_check.checks import CHECKS
from bench.contract_check.engine import ENGINE_CHECKS, OF_BASELINE, examine_engine
from bench.contract_check.subject import Subject, Verdict, look
from bench.engines.facts import ENGINES
from bench.suite.catalogue import discover
from tests.conftest import Bench
from tests.engines.own_engine import GRID

NAMES = [check.name for check in ENGINE_CHECKS]
Change = dict[str, Any]


def nine(detector: Any, classes: int) -> int:
    return 9


nine.__module__ = GRID.check.__module__  # or the facts would be made of this file, which imports torch
# name: (check, what is wrong: facts, or the class of the detector, words of the message that tells the author)
WRONG: dict[str, tuple[str, Change | type[broken_engine.Plain], str]] = {
    "torch in the facts": ("facts", {"check": broken_engine.heavy_check}, "its facts import torch"),
    "a word of its own": ("facts", {"provides": GRID.provides | {"masks"}}, "it provides masks"),
    "a group that it has not": ("facts", {"judges": ("objectness", "classifier")}, "judges names objectness"),
    "no classifier": ("facts", {"groups": ("encoder", "decoder")}, "'classifier' among them"),
    "a tiny detector that it refuses": ("facts", {"tiny": {}}, "its tiny detector cannot be built: UserError: "),
    "a size that is not so": ("facts", {"parameters": nine}, "says 9 below the classifier"),
    "a group left out": ("groups", {"groups": ("encoder", "classifier"), "head": ()}, "of group 'decoder'"),
    "a group of nothing": ("groups", {"groups": (*GRID.groups, "neck")}, "group neck has no parameter"),
    "no seed": ("seeds", broken_engine.Unseeded, "torch's global generator"),
    "a seed for all": ("seeds", broken_engine.MovesTheStream, "torch's global generator"),
    "a layer that nobody uses": ("losses", broken_engine.Unused, "gives decoder.spare.weight no gradient"),
    "a mean over nothing": ("losses", broken_engine.MeanOverNothing, "loss 'loss_boxes' of a batch without boxes"),
    "boxes to ignore": ("losses", broken_engine.LearnsWhatIsIgnored, "to ignore gives a foreground target"),
    "a stream of its own": ("draws", broken_engine.OwnStream, "the same step twice gives other box_features"),
    "dropout in prediction": ("draws", broken_engine.DrawsInPrediction, "predicted twice"),
    "statistics that go on": ("frozen", broken_engine.CountsOn, "moves encoder.1.num_batches_tracked"),
    "parameters that go on": ("frozen", broken_engine.LearnsMore, "decoder.box.bias learns"),
    "a class that is special": ("classes", broken_engine.FirstClassIsNone, "another loss_boxes"),
    "images that share a mean": ("batch-mates", broken_engine.Mixes, "beside another image"),
    "boxes beyond the border": ("boxes", broken_engine.Leaves, "a box leaves its image"),
    "rows out of order": ("boxes", broken_engine.OutOfOrder, "rising order"),
    "fewer rows in the facts": ("boxes", {"proposals": lambda detector, classes: (9, 1)}, "the facts say 9"),
    "boxes in another order": ("given-boxes", broken_engine.SortsBoxes, "in another order"),
    "no row for no box": ("given-boxes", broken_engine.NeedsABox, "of no box"),
    "state outside buffers": ("resume", broken_engine.Forgets, "stopped at step 2 of 4 and resumed"),
}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`made(change)`: an engine that is the grid with facts changed, or with another detector."""

    def make(change: Change | type[broken_engine.Plain]) -> EngineSubject:
        facts = change if isinstance(change, dict) else {}
        kind = broken_engine.Plain if isinstance(change, dict) else change
        module = ModuleType("broken_engine_module")
        module.__dict__.update(build=broken_engine.builder(kind), read_weights=broken_engine.read_weights)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        tiny = {**GRID.tiny, "detector": {**GRID.tiny["detector"], "engine": "broken"}}
        engine = replace(GRID, name="broken", module=module.__name__, **{"tiny": tiny, **facts})
        monkeypatch.setitem(ENGINES, "broken", engine)  # type: ignore[arg-type]
        return EngineSubject("broken", tmp_path)

    return make


def found(name: str, subject: EngineSubject) -> Verdict:
    for check in ENGINE_CHECKS:
        if check.name == name:
            return look(check, subject)
    of_method = next(check for check in CHECKS if check.name == name)
    return look(of_method, Subject(discover()["baseline"], subject.place))


@pytest.mark.parametrize(("check", "change", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_caught(check: str, change: Change | type[broken_engine.Plain], words: str, made: Any) -> None:
    finding = found(check, made(change))
    assert finding.state == "fail", finding
    assert words in finding.message
    assert "\n" in finding.message or finding.trace, "neither advice nor where it comes from"


def test_with_nothing_wrong_every_check_passes(made: Any) -> None:
    """What differs from this above is one thing."""
    findings = list(examine_engine(made({})))
    assert [f.check for f in findings] == [*NAMES, *OF_BASELINE]
    assert {f.check: f.message for f in findings if f.state != "pass"} == {}


@pytest.mark.parametrize("name", [name for name in ENGINES if name != "broken"])
def test_an_engine_of_the_house_keeps_its_promises(name: str, tmp_path: Path) -> None:
    why = ENGINES[name].absent()
    if why is not None:
        pytest.skip(why)
    subject = EngineSubject(name, tmp_path)
    findings = list(examine_engine(subject))
    assert not [f"{f.check}: {f.message}\n{f.trace}" for f in findings if f.state != "pass"]


def test_every_check_has_an_engine_that_it_catches() -> None:
    assert {check for check, _, _ in WRONG.values()} >= set(NAMES)


def test_boxes_per_class_have_an_order_of_classes(made: Any) -> None:
    finding = found("classes", made({"proposals": lambda detector, classes: (64, classes)}))
    assert (finding.state, finding.message.split(",")[0]) == ("skip", "box regression is per class")


def test_one_that_cannot_be_built_is_told_once(made: Any) -> None:
    findings = list(examine_engine(made({"tiny": {}})))
    assert [f.check for f in findings if f.state == "fail"] == ["facts"]
    assert {f.message for f in findings if f.state == "skip"} == {"its tiny detector cannot be built: see 'facts'"}


def test_the_command(call: Bench, made: Any) -> None:
    made({"judges": ("objectness", "classifier")})
    said = call("engines", "check", "broken")
    assert said.code == 1
    assert "15 passed, 1 failed, 0 skipped" in said.out
    assert "judges names objectness" in said.out
    said = call("engines", "check", "brokn")
    assert said.code == 2
    assert "no engine 'brokn'. Did you mean 'broken'?" in said.err
