"""Photographs whose numbers would be wrong: refused before anything is trained, with the ways out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.data import coco
from bench.errors import UserError
from bench.spec import FolderData
from bench.store.store import Store
from tests.conftest import Bench
from tests.data.photographs import Document, make_folder

SUITE = """\
preset: cpu
data: {name: FORM, path: photographs}
input: {min_size: 64, max_size: 64}
schedule: {steps: 3, batch: 2, lr: 0.01, warmup: 1}
stages: {classifier_only: {steps: 2, lr: 0.01}}
test: {bins: [2, 4, 6]}
seeds: [0]
rows:
  baseline: {method: baseline}
"""


def no_lists(document: Document) -> None:
    for image in document["images"]:
        image["neg_category_ids"] = []


def as_coco(document: Document) -> None:
    for image in document["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]


def folder(tmp_path: Path, form: str, **spoil: Any) -> Path:
    (tmp_path / "own.yaml").write_text(SUITE.replace("FORM", form))
    return make_folder(tmp_path / "photographs", "coco" if form == "coco" else "v0.5", **spoil)


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(("spoil", "recognised"), [(no_lists, False), (as_coco, True)])
def test_a_val_set_without_negatives_is_refused(
    tmp_path: Path, call: Bench, command: str, spoil: Any, recognised: bool
) -> None:
    folder(tmp_path, "lvis", val=spoil)
    refused = call(command, "own.yaml")
    assert refused.code == 2
    assert "val.json: no image lists a class that is absent from it" in refused.err
    assert ("(no image has the entry neg_category_ids: a file of COCO's form?)" in refused.err) == recognised
    for way in ("--set data.name=coco", "bench data fill-negatives", "--set data.negatives=optional"):
        assert way in refused.err
    assert not (tmp_path / "store").exists()
    assert call(command, "own.yaml", "--set", "data.negatives=often").code == 2, "no other value goes on"


def test_a_row_with_its_own_data_is_asked_too(tmp_path: Path, call: Bench) -> None:
    folder(tmp_path, "lvis")
    make_folder(tmp_path / "others", val=as_coco)
    own = "  elsewhere: {method: baseline, data: {path: others}}\n"
    (tmp_path / "own.yaml").write_text(SUITE.replace("FORM", "lvis") + own)
    assert "others/annotations/val.json: no image lists a class" in call("plan", "own.yaml").err


def test_one_may_go_on_and_the_table_says_so(tmp_path: Path, call: Bench) -> None:
    """The same model on the same images: `optional` changes no key, so that what is refused later is found done."""
    folder(tmp_path, "lvis", val=no_lists)
    went_on = call("run", "own.yaml", "--cluster", "debug", "--set", "data.negatives=optional")
    assert went_on.code == 0, went_on.err
    assert "negatives none listed: no image of val says which classes are absent from it" in went_on.out
    (row,) = json.loads(call("report", "own.yaml", "--json").out)
    assert row["protocol"]["negatives"] == "none listed"
    assert row["protocol"]["image_px"] == [64, 64]
    assert row["protocol"]["lr"] == {"1:all": 0.01}


@pytest.mark.parametrize(("form", "known"), [("lvis", "listed"), ("coco", "exhaustive")])
def test_how_negatives_were_known_is_in_the_protocol(tmp_path: Path, call: Bench, form: str, known: str) -> None:
    folder(tmp_path, form)
    done = call("run", "own.yaml", "--cluster", "debug")
    assert done.code == 0, done.err
    assert f"negatives {known}" in done.out
    assert "not counted" not in done.out


def class_of_its_own(document: Document) -> None:
    document["annotations"][0]["category_id"] = 99
    document["categories"].append({"id": 99, "name": "unicorn"})


def test_a_val_set_that_is_refused_stops_the_training_that_it_makes_pointless(tmp_path: Path, call: Bench) -> None:
    folder(tmp_path, "coco", val=class_of_its_own)
    refused = call("run", "own.yaml", "--cluster", "debug")
    assert refused.code == 2
    assert "annotation 101: category 99" in refused.err
    assert not (tmp_path / "store").exists()


def test_so_does_one_that_cannot_be_read_any_more_when_its_job_begins(
    tmp_path: Path, call: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What planning has seen may be gone a minute later: no training starts before val is there."""
    folder(tmp_path, "coco")
    written = coco.write_split

    def gone(spec: FolderData, split: str, out: Path) -> None:
        if split == "val":
            raise UserError("no such annotation file", where=spec.val)
        written(spec, split, out)  # type: ignore[arg-type]

    monkeypatch.setattr(coco, "write_split", gone)
    refused = call("run", "own.yaml", "--cluster", "debug")
    assert refused.code == 2
    assert "no such annotation file" in refused.err
    store = Store(tmp_path / "store")
    every = store.keys()
    assert {store.load(key)["kind"] for key in every if store.attempts(key)} == {"data"}
