"""A suite on its division, run through: what its records say, what its models saw, and that AP is that of the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_suite import bring, key_of, tiny

from bench.evaluation import official
from bench.evaluation.ap import DetectedBoxes
from bench.evaluation.stored import DETECTIONS
from bench.plan import planning
from bench.plan.planning import Plan
from bench.record import Result, dumps, loads, points
from bench.run.checkpoint import read_tensors
from bench.run.model import load_classifier
from bench.stage import Stage
from bench.store.store import Store
from bench.suite.tuning import Tuning
from reports.load import RowResult, load
from reports.tables import table
from tests.run.test_divided import photographs

LABELS = ("baseline", "RFS", "tau-norm", "BAGS")


@dataclass(frozen=True)
class Searched:
    """A store with a divided suite, done."""

    plan: Plan
    store: Store

    @property
    def data(self) -> dict[str, Stage]:
        return {stage.spec["split"]: stage for stage in self.plan.stages.values() if stage.kind == "data"}

    def read(self, split: str, name: str) -> Any:
        return json.loads((self.store.output(self.data[split].key) / name).read_text())

    def results(self) -> list[RowResult]:
        return load(self.store, self.plan)


def searched(suite: Any, root: Path) -> Searched:
    divided = replace(suite, division=Tuning(0.3))
    outcomes = bring(divided, root)
    assert {outcome.state for outcome in outcomes.values()} == {"done"}, outcomes
    return Searched(planning.make(divided), Store(root))


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    suite = tiny("data.max_instances=60", "data.objects=3", "seeds=[1]", only=",".join(LABELS))
    return searched(suite, tmp_path_factory.mktemp("divided") / "store")


def ids(document: Any) -> set[int]:
    return {image["id"] for image in document["images"]}


@pytest.mark.slow
def test_the_record_says_what_was_divided(glyphs: Searched) -> None:
    whole, rest, tune = (ids(glyphs.read(split, "annotations.json")) for split in ("train", "rest", "tune"))
    assert not rest & tune
    assert rest | tune == whole
    results = glyphs.results()
    assert [result.record.row for result in results] == list(LABELS)
    for result in results:
        protocol = result.record.protocol
        assert protocol.split == "tune"
        assert (protocol.train_images, protocol.val_images) == (len(rest), len(tune))
        assert protocol.counted_images == len(whole)
        done = [glyphs.store.done(glyphs.data[split].key) for split in ("rest", "tune")]
        assert [protocol.train_digest, protocol.val_digest] == [one.digest for one in done if one is not None]
        assert result.record.schema_version == 3
        assert loads(Result, dumps(result.record.result)) == result.record.result


@pytest.mark.slow
def test_methods_and_bins_go_by_the_counts_of_all_training_images(glyphs: Searched) -> None:
    full = glyphs.read("train", "counts.json")
    assert full["instances"] != glyphs.read("rest", "counts.json")["own"]["instances"]
    for label, kind in (("baseline", "train"), ("BAGS", "train"), ("tau-norm", "patch")):
        model = glyphs.plan.stages[key_of(glyphs.plan, label, kind)]
        head = load_classifier(glyphs.store, model).head
        assert list(head.instance_counts) == full["instances"]
        assert list(head.image_counts) == full["images"]
        assert head.num_images == full["num_images"]
    for result in glyphs.results():
        assert result.instance_counts == full["instances"]


@pytest.mark.slow
def test_ap_is_that_of_the_official_evaluator_on_these_images(glyphs: Searched) -> None:
    """The ground truth is cut from the whole training set here, by image ids alone."""
    pytest.importorskip("lvis")
    whole, tuned = glyphs.read("train", "annotations.json"), ids(glyphs.read("tune", "annotations.json"))
    found = compared(glyphs, truth(whole, tuned, exhaustive=True))
    assert any(ap["AP"] or 0.0 for ap in found), "nothing was detected: the comparison says nothing"


def truth(whole: Any, kept: set[int], *, exhaustive: bool) -> dict[str, Any]:
    """LVIS form: some images of a stored split."""
    images = [dict(image) for image in whole["images"] if image["id"] in kept]
    boxes = [box for box in whole["annotations"] if box["image_id"] in kept]
    for image in images if exhaustive else ():
        shown = {box["category_id"] for box in boxes if box["image_id"] == image["id"]}
        image["neg_category_ids"] = [c["id"] for c in whole["categories"] if c["id"] not in shown]
        image["not_exhaustive_category_ids"] = []
    return {"images": images, "annotations": boxes, "categories": whole["categories"]}


def compared(run: Searched, gt: dict[str, Any]) -> list[dict[str, float | None]]:
    """The metrics of every row, which are those of the official evaluator on this ground truth."""
    image_ids = [image["id"] for image in gt["images"]]
    found = []
    for row, result in zip(run.plan.rows, run.results(), strict=True):
        assert row.evaluate is not None
        path = run.store.output(row.evaluate.inputs["predict"].key) / DETECTIONS
        rows = {name: tensor.numpy() for name, tensor in read_tensors(path).items()}
        boxes = DetectedBoxes.from_xyxy(
            column(image_ids, rows["image"]), column([c["id"] for c in gt["categories"]], rows["labels"]),
            rows["boxes"], rows["scores"],
        )  # fmt: skip
        spec = row.evaluate.spec
        again = official.evaluate_boxes(gt, boxes, tuple(spec["bins"]), spec["max_detections"])
        expected = points(again.metrics())
        own = {name: result.record.metrics[name] for name in expected}
        assert own == pytest.approx(expected, abs=1e-9, nan_ok=True)
        found.append(own)
    return found


def column(values: Sequence[int], at: Any) -> Any:
    return np.array(values, np.int64)[at]


@pytest.mark.slow
def test_a_table_of_a_search_says_that_it_is_one(glyphs: Searched) -> None:
    protocol = glyphs.results()[0].record.protocol
    notes = table(glyphs.results(), suite="smoke").footnotes
    said = f"measured on `tune`, {protocol.val_images} of the {protocol.counted_images} training images"
    assert sum(said in note for note in notes) == 1
    assert any("split tune" in note for note in notes)


def test_photographs_keep_their_lists_of_negatives(tmp_path: Path) -> None:
    """Federated: a false positive counts on an image of `tune` only where the training annotations list its class."""
    pytest.importorskip("lvis")
    from bench.cli.open import open_suite

    suite = open_suite(photographs(tmp_path / "photos"), sets=["schedule.steps=6"])
    run = searched(suite, tmp_path / "store")
    whole, tuned = run.read("train", "annotations.json"), ids(run.read("tune", "annotations.json"))
    gt = truth(whole, tuned, exhaustive=False)
    assert any(image["neg_category_ids"] for image in gt["images"])
    compared(run, gt)
    (result,) = run.results()
    protocol = result.record.protocol
    assert (protocol.split, protocol.val_images, protocol.train_images, protocol.counted_images) == ("tune", 3, 7, 10)
    assert protocol.negatives == "listed"
