"""Stages: what is in a key, what is not, how shared stages are walked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.errors import UserError
from bench.key import part
from bench.stage import KINDS, DataSpec, Stage, TrainSpec, length_of, rung, spec_of, walk, with_rungs

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
    assert DataSpec.__optional_keys__ == {"seed", "fingerprint", "fraction", "division_seed"}
    assert TrainSpec.__optional_keys__ == {"scope", "until", "losses", "detection", "views", "take", "start"}


# -- rungs

STEPS = Stage("train", {"schedule": {"steps": 24, "epochs": None}}, {"train": DATA}, {"weights_path": "/w"})
EPOCHS = Stage("train", {"schedule": {"steps": None, "epochs": 5}}, {"train": DATA})


def test_a_rung_is_the_stage_and_where_it_stops() -> None:
    early = rung(STEPS, 10)
    assert early.spec == {**STEPS.spec, "until": 10}
    assert (early.inputs, early.not_in_key) == (STEPS.inputs, STEPS.not_in_key)
    assert len({STEPS.key, early.key, rung(STEPS, 11).key, rung(EPOCHS, 3).key, EPOCHS.key}) == 5
    assert rung(early, 4) == rung(STEPS, 4), "of a rung it is the shorter one of the same training"
    assert [length_of(stage) for stage in (STEPS, early, EPOCHS, rung(EPOCHS, 3))] == [24, 10, 5, 3]


def test_rungs_to_continue_from_are_not_in_the_key() -> None:
    noted = with_rungs(STEPS, [17, 4, 10, 4])
    assert noted == STEPS
    assert noted.not_in_key == {"weights_path": "/w", "rungs": [4, 10, 17]}
    assert rung(noted, 10) == rung(STEPS, 10)
    assert rung(noted, 10).not_in_key["rungs"] == [4]
    assert rung(noted, 4).not_in_key == STEPS.not_in_key
    assert with_rungs(noted, []).not_in_key == STEPS.not_in_key


@pytest.mark.parametrize("until", [-1, 0, 24, 25])
def test_no_rung_is_empty_or_the_whole(until: int) -> None:
    with pytest.raises(ValueError, match=rf"training of 24 steps ends after {until}: only after 1 to 23"):
        rung(STEPS, until)
    with pytest.raises(ValueError, match="24 steps"):
        with_rungs(STEPS, [10, until])
    with pytest.raises(ValueError, match="training of 10 steps"):
        rung(rung(STEPS, 10), 10)
    with pytest.raises(ValueError, match="training of 5 epochs ends after 6"):
        rung(EPOCHS, 6)
