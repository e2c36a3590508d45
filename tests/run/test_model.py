"""What a stage stores of a model, and how a model is put together along its lineage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_suite import SMOKE, Undisturbed, bring, copied, key_of, tiny
from torch import Tensor, nn

from bench.detection.contract import HeadSpec
from bench.lineage import read_stage
from bench.plan import planning
from bench.record import Result, loads
from bench.run.checkpoint import newest, read_tensors, save
from bench.run.model import load_model, make_classifier, new_detector, state_of
from bench.store.disk import read_json
from bench.store.store import Store

TUNE = '''
"""Partial training by group names."""

from typing import ClassVar

from bench.method import Builder, Method
from bench.stage import Stage


class Tune(Method):
    """Train box head and classifier."""

    name: ClassVar[str] = "tune"

    def plan(self, b: Builder) -> Stage:
        return b.train(init=b.train(), keep_classifier=True, trainable=("box_head", "classifier"))
'''


def stored(root: Path, key: str) -> dict[str, Tensor]:
    return read_tensors(Store(root).output(key) / "model.safetensors")


def loaded(root: Path, key: str) -> dict[str, Tensor]:
    store = Store(root)
    model = load_model(store, read_stage(store.load, key))
    assert isinstance(model, nn.Module)
    return nn.Module.state_dict(model)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def of_classifier(state: dict[str, Tensor], yes: bool) -> dict[str, Tensor]:
    return {name: t for name, t in state.items() if name.startswith("classifier.") == yes}


@pytest.mark.parametrize("label", ["cls-retrain", "re-weight-cls", "BAGS", "tau-norm"])
def test_a_head_is_stored_alone_and_loaded_over_its_trunk(smoke: Undisturbed, label: str) -> None:
    kind = "patch" if label == "tau-norm" else "train"
    own = stored(smoke.root, key_of(smoke.plan, label, kind))
    base = stored(smoke.root, key_of(smoke.plan, "baseline"))
    assert own
    assert of_classifier(own, False) == {}
    whole = loaded(smoke.root, key_of(smoke.plan, label, kind))
    assert same(of_classifier(whole, True), own)
    assert same(of_classifier(whole, False), of_classifier(base, False))
    assert not same(own, of_classifier(base, True))


def test_tau_norm_is_the_baseline_with_rows_of_length_one(smoke: Undisturbed) -> None:
    own = stored(smoke.root, key_of(smoke.plan, "tau-norm", "patch"))["classifier.fc.weight"]
    base = stored(smoke.root, key_of(smoke.plan, "baseline"))["classifier.fc.weight"]
    torch.testing.assert_close(own, base / base.norm(dim=1, keepdim=True))


def test_a_whole_detector_is_stored_whole(smoke: Undisturbed) -> None:
    base = stored(smoke.root, key_of(smoke.plan, "baseline"))
    assert same(loaded(smoke.root, key_of(smoke.plan, "baseline")), base)
    assert same(state_of(Store(smoke.root), smoke.plan.stages[key_of(smoke.plan, "baseline")]), base)
    twice = stored(smoke.root, key_of(smoke.plan, "x2"))
    assert twice.keys() == base.keys()
    moved = [name for name in base if not torch.equal(base[name], twice[name])]
    assert len(moved) == len(base)  # every weight and every running statistic


def test_partial_training_moves_the_named_groups_only(smoke: Undisturbed, tmp_path: Path) -> None:
    (tmp_path / "tune.py").write_text(TUNE)
    path = tmp_path / "tune.yaml"
    path.write_text(SMOKE.read_text() + "  tune: {method: tune}\nmethods_path: tune.py\n")
    suite = tiny("stages.second.steps=3", path=path, only="tune")
    plan = planning.make(suite)
    key, base = key_of(plan, "tune"), key_of(smoke.plan, "baseline")
    root = copied(smoke.root, tmp_path / "store", {k for k in plan.stages if k in smoke.plan.stages})
    outcomes = bring(suite, root, only=lambda k: k == key)
    assert outcomes[key].state == "done"
    before, own, after = stored(root, base), stored(root, key), loaded(root, key)
    assert {name.split(".")[0] for name in own} == {"box_head", "classifier"}
    assert all(not torch.equal(own[name], before[name]) for name in own)
    assert all(torch.equal(after[name], before[name]) for name in before if name not in own)
    assert all(torch.equal(after[name], own[name]) for name in own)


def test_the_record_names_parameters_that_were_made_anew(smoke: Undisturbed) -> None:
    """BAGS' layout of groups lies in buffers: nothing that was learned, nothing that was lost."""
    store = Store(smoke.root)
    expected = {
        "BAGS": ("classifier.fc.bias", "classifier.fc.weight"),
        **dict.fromkeys(("cls-retrain", "x2", "baseline", "tau-norm"), ()),
    }
    for label, names in expected.items():
        result = loads(Result, (store.output(key_of(smoke.plan, label, "evaluate")) / "result.json").read_text())
        assert result.protocol.reinitialised == names, label
    kept = read_json(store.output(key_of(smoke.plan, "re-weight-cls")) / "train.json")
    assert kept == {"steps": 16, "reinitialised": []}


def test_initial_weights_have_an_address(smoke: Undisturbed) -> None:
    """They follow the seed and nothing else: not torch's global stream, and they do not move it."""
    stage = smoke.plan.stages[key_of(smoke.plan, "baseline")]
    head = HeadSpec(8, 128, (64, 7, 7), (3,) * 8, (2,) * 8, 12, (3,) * 8, (2,) * 8, (5, 15, 40), 0.01)

    def initial(seed: int) -> dict[str, Tensor]:
        classifier = make_classifier(Store(smoke.root), stage, head, seed)
        model = new_detector(replace(stage, spec={**stage.spec, "seed": seed}), head, classifier)
        assert isinstance(model, nn.Module)
        return {name: t.detach().clone() for name, t in model.named_parameters()}

    torch.manual_seed(1)
    first = initial(0)
    drawn = torch.rand(1)
    torch.manual_seed(2)
    assert same(initial(0), first)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    other = initial(1)
    weights = [name for name in first if first[name].dim() > 1]
    assert all(not torch.equal(first[name], other[name]) for name in weights)


def test_a_checkpoint_of_other_inputs_is_not_taken(tmp_path: Path) -> None:
    for number, step, inputs in ((1, 5, "ours"), (2, 9, "theirs")):
        save(tmp_path / str(number), step, {"w": torch.full((2,), float(step))}, {"inputs": {"init": inputs}})
    folders = [tmp_path / "1", tmp_path / "2"]
    passed: list[str] = []
    found = newest(folders, passed.append, accept=lambda meta: meta["inputs"] == {"init": "ours"})
    assert found is not None
    assert found[0] == 5
    assert [text for text in passed if "other inputs" in text and "checkpoint-9" in text] == passed
    assert len(passed) == 1
