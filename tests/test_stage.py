"""Stages: what is in a key, what is not, how shared stages are walked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.errors import UserError
from bench.key import part
from bench.stage import KINDS, DataSpec, Stage, TrainSpec, spec_of, walk

DATA = Stage("data", {"seed": 0})
BASE = Stage("train", {"lr": 0.1}, {"train": DATA})


def test_the_key_holds_kind_spec_and_inputs() -> None:
    keys = {
        DATA.key,
        BASE.key,
        Stage("patch", {"lr": 0.1}, {"train": DATA}).key,
        Stage("train", {"lr": 0.2}, {"train": DATA}).key,
        Stage("train", {"lr": 0.1}, {"init": DATA}).key,
        Stage("train", {"lr": 0.1}, {"train": Stage("data", {"seed": 1})}).key,
        Stage("train", {"lr": 0.1}).key,
    }
    assert len(keys) == 7


def test_what_is_not_in_the_key_is_in_the_file() -> None:
    moved = Stage("train", {"lr": 0.1}, {"train": DATA}, {"weights_path": "/elsewhere"})
    assert moved == BASE
    assert hash(moved) == hash(BASE)
    assert moved.to_json()["aside"] == {"weights_path": "/elsewhere"}


def test_a_new_version_of_a_kind_is_a_new_key_for_it_and_all_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "data", replace(KINDS["data"], version=99))
    data = Stage("data", {"seed": 0})
    assert data.key != DATA.key
    assert Stage("train", {"lr": 0.1}, {"train": data}).key != BASE.key


def test_a_part_in_a_spec_is_written_out() -> None:
    stage = Stage("train", {"classifier": part("group_softmax:GroupSoftmax")})
    written = stage.to_json()["spec"]["classifier"]
    assert written["part"] == "group_softmax:GroupSoftmax"
    assert written["settings"]["beta"] == 8
    assert Stage("train", {"classifier": written}).key == stage.key


def test_walk_gives_each_stage_once_and_inputs_first() -> None:
    again = Stage("train", {"lr": 0.1}, {"train": Stage("data", {"seed": 0})})  # the same, made a second time
    one = Stage("predict", {}, {"model": BASE, "val": DATA})
    two = Stage("patch", {}, {"model": again})
    walked = list(walk(one, two))
    assert walked == [DATA, BASE, one, two]
    for i, stage in enumerate(walked):
        assert all(source in walked[:i] for source in stage.inputs.values())


def test_a_spec_of_another_version_is_named() -> None:
    with pytest.raises(UserError, match=r"train stage \w{6}: the stage has no entry 'annotations'\n.*another --store"):
        spec_of(BASE, TrainSpec)


def test_the_facts_of_kinds_name_what_there_is() -> None:
    """An input that a kind rides with, or whose images it goes over, is one that the documented spec names."""
    assert [kind.order for kind in KINDS.values()] == sorted({kind.order for kind in KINDS.values()})
    rides = {kind.name: kind.rides_with for kind in KINDS.values() if kind.rides_with}
    assert rides == {"fit": "model", "patch": "model", "features": "model", "predict": "model", "evaluate": "predict"}


def test_optional_entries_of_a_spec_may_be_absent() -> None:
    data = {"data": {"name": "glyphs"}, "split": "val", "reader": 1, "seed": 3}
    assert spec_of(Stage("data", data), DataSpec)["seed"] == 3
    assert DataSpec.__optional_keys__ == {"seed", "fingerprint"}
    assert TrainSpec.__optional_keys__ == {"scope"}
