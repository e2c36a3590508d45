"""The training images of a search in two stages: what is in their folders, what is planned on them, what it costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_suite import bring, data_keys, tiny

from bench.cli.open import open_suite
from bench.cli.overview import compare
from bench.data.folder import image_root_of
from bench.data.split import open_split
from bench.launch.submission import Dependencies
from bench.plan import planning
from bench.plan.cost import DIVIDE_SECONDS, Estimate
from bench.plan.jobs import make_jobs
from bench.plan.planning import Plan
from bench.stage import Stage
from bench.store.store import Store
from bench.suite.suite import Suite
from bench.suite.tuning import Tuning

TUNING = Tuning(0.3, 0)
CLASSES = ("cat", "dog", "newt", "owl")
SHOWN = [[0], [0, 1], [0], [0, 1], [0, 2], [0], [1], [], [0, 3], [0, 1]]  # owl is in one image


def divided(suite: Suite, tuning: Tuning = TUNING) -> Suite:
    return replace(suite, division=tuning)


def data_of(plan: Plan) -> dict[tuple[str, Any], Stage]:
    """By split and seed."""
    return {(s.spec["split"], s.spec.get("seed")): s for s in plan.stages.values() if s.kind == "data"}


def made(suite: Suite, root: Path) -> tuple[Plan, Store]:
    """A store with the data stages of a suite."""
    plan = planning.make(suite)
    outcomes = bring(suite, root, only=data_keys(plan).__contains__)
    assert {outcome.state for outcome in outcomes.values()} == {"done"}, outcomes
    return plan, Store(root)


def photographs(root: Path) -> Path:
    """A folder in LVIS form whose images differ, with lists of negatives, a crowd, and run-length masks; its suite."""
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    for split, first in (("train", 1), ("val", 101)):
        images, annotations = [], []
        for i, classes in enumerate(SHOWN):
            Image.fromarray(np.full((48, 64, 3), first + i, np.uint8)).save(root / "images" / f"{first + i}.png")
            absent = [c + 1 for c in range(4) if c not in classes][: 1 + i % 2]
            image = {"id": first + i, "file_name": f"{first + i}.png", "width": 64, "height": 48}
            images.append(image | {"neg_category_ids": absent, "not_exhaustive_category_ids": absent[:1]})
            for k, c in enumerate([*classes, *classes[:1]]):
                box = {"bbox": [2 + 9 * k, 3, 20 + i, 30], "area": 500 + i, "iscrowd": 0}
                mask = {"size": [48, 64], "counts": [100, 500, 2472]}
                box |= {"id": 10 * (first + i) + k, "image_id": first + i, "category_id": c + 1, "segmentation": mask}
                annotations.append(box)
        categories = [{"id": c + 1, "name": name} for c, name in enumerate(CLASSES)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
    suite = root / "photos.yaml"
    suite.write_text(
        f"preset: cpu\ndata: {{name: lvis, path: {root}}}\ninput: {{min_size: 48, max_size: 64}}\n"
        "schedule: {steps: 3, batch: 4, lr: 0.01, warmup: 1}\nrows:\n  baseline: {method: baseline}\n"
    )
    return suite


def read(store: Store, stage: Stage, name: str) -> Any:
    return json.loads((store.output(stage.key) / name).read_text())


# -- what the stages hold


@pytest.mark.parametrize("kind", ["glyphs", "photographs"])
def test_each_image_is_on_one_side_as_it_was(kind: str, tmp_path: Path) -> None:
    """Boxes, masks, lists, categories and pixels of an image are those of the whole."""
    suite = tiny("data.masks=true") if kind == "glyphs" else open_suite(photographs(tmp_path / "photos"))
    plan, store = made(divided(suite), tmp_path / "store")
    stages = {split: stage for (split, _), stage in data_of(plan).items()}
    assert set(stages) == {"train", "rest", "tune"}
    documents = {split: read(store, stage, "annotations.json") for split, stage in stages.items()}
    splits = {name: open_split(store.output(one.key), image_root_of(one)) for name, one in stages.items()}
    whole = documents["train"]
    assert any("segmentation" in box for box in whole["annotations"])
    ids = {split: [image["id"] for image in document["images"]] for split, document in documents.items()}
    assert sorted(ids["rest"] + ids["tune"]) == sorted(ids["train"])
    assert len(ids["tune"]) == round(0.3 * len(ids["train"]))
    for side in ("rest", "tune"):
        own = documents[side]
        assert own["categories"] == whole["categories"]
        assert own["images"] == [image for image in whole["images"] if image["id"] in ids[side]]
        assert own["annotations"] == [box for box in whole["annotations"] if box["image_id"] in ids[side]]
        assert own["info"] == {**whole["info"], "description": f"{whole['info']['description']}, {side}"}
        positions = [ids["train"].index(identity) for identity in ids[side]]
        again = splits["train"].subset(positions).lvis_json()
        again["info"] = own["info"]
        assert splits[side].lvis_json() == again
        for i, position in enumerate(positions):
            np.testing.assert_array_equal(splits[side].pixels(i), splits["train"].pixels(position))


@pytest.mark.parametrize("kind", ["glyphs", "photographs"])
def test_counts_are_those_of_all_training_images(kind: str, tmp_path: Path) -> None:
    suite = tiny() if kind == "glyphs" else open_suite(photographs(tmp_path / "photos"))
    plan, store = made(divided(suite), tmp_path / "store")
    counts = {split: read(store, stage, "counts.json") for (split, _), stage in data_of(plan).items()}
    full = counts["train"]
    assert "own" not in full
    for side in ("rest", "tune"):
        assert {name: counts[side][name] for name in full} == full
    for name in ("instances", "images"):
        added = np.add(counts["rest"]["own"][name], counts["tune"]["own"][name])
        assert added.tolist() == full[name]
    assert counts["rest"]["own"]["num_images"] + counts["tune"]["own"]["num_images"] == full["num_images"]
    assert counts["rest"]["unsplit"] == counts["tune"]["unsplit"]
    names = [c["name"] for c in read(store, data_of(plan)["tune", 0 if kind == "glyphs" else None],
                                     "annotations.json")["categories"]]  # fmt: skip
    absent = {name for name, n in zip(names, counts["tune"]["own"]["images"], strict=True) if n == 0}
    assert set(counts["tune"]["unsplit"]) == absent
    if kind == "photographs":
        assert absent == {"newt", "owl"}, "classes of a single image"
        assert full["num_images"] == 10


def test_the_folder_may_lie_elsewhere_for_a_job(tmp_path: Path) -> None:
    """Where the images are is in no key; a side finds them through the whole."""
    suite = divided(open_suite(photographs(tmp_path / "photos")))
    tune = suite.data_stage("val", 0)
    (tmp_path / "photos").rename(tmp_path / "moved")
    text = (tmp_path / "moved" / "photos.yaml").read_text().replace("/photos", "/moved")
    (tmp_path / "moved" / "photos.yaml").write_text(text)
    moved = divided(open_suite(tmp_path / "moved" / "photos.yaml")).data_stage("val", 0)
    assert moved == tune
    assert image_root_of(moved) == tmp_path / "moved" / "images"
    assert tune.not_in_key == {}


def test_a_set_that_cannot_be_divided_says_so(tmp_path: Path) -> None:
    suite = divided(open_suite(photographs(tmp_path / "photos")), Tuning(0.01))
    plan = planning.make(suite)
    outcomes = bring(suite, tmp_path / "store", only=data_keys(plan).__contains__)
    assert {outcome.state for outcome in outcomes.values()} == {"done"}, "a class of two images needs one there"
    for split in ("train", "val"):
        file = tmp_path / "photos" / "annotations" / f"{split}.json"
        content = json.loads(file.read_text())
        content["annotations"] = content["annotations"][:1]
        file.write_text(json.dumps(content))
    suite = divided(open_suite(tmp_path / "photos" / "photos.yaml"), Tuning(0.01))
    plan = planning.make(suite)
    outcomes = bring(suite, tmp_path / "store", only=data_keys(plan).__contains__)
    failed = [outcome for outcome in outcomes.values() if outcome.state == "failed"]
    assert [outcome.code for outcome in failed] == [2, 2]
    assert all("10 images cannot be divided: all would be in `rest`" in outcome.message for outcome in failed)


# -- what is planned


def test_the_same_rows_are_planned_on_the_sides() -> None:
    plain = tiny("seeds=[0, 1]")
    ordinary, search = planning.make(plain), planning.make(divided(plain))
    assert [(row.label, row.seed) for row in ordinary.rows] == [(row.label, row.seed) for row in search.rows]
    stages = data_of(search)
    assert set(stages) == {(split, seed) for split in ("train", "rest", "tune") for seed in (0, 1)}
    for (split, seed), stage in stages.items():
        assert split == "train" or stage.inputs["whole"] is stages["train", seed]
        assert split != "train" or stage == data_of(ordinary)["train", seed]
    for row in search.rows:
        assert row.evaluate is not None
        assert row.evaluate.inputs["train"] is stages["rest", row.seed]
        assert row.evaluate.inputs["val"] is stages["tune", row.seed]
    kinds = [[s.kind for s in plan.stages.values() if s.kind != "data"] for plan in (ordinary, search)]
    assert kinds[0] == kinds[1]
    assert not {k for k, s in ordinary.stages.items() if s.kind != "data"} & set(search.stages)


def test_what_divides_is_in_the_keys() -> None:
    suite = tiny()
    keys = {
        divided(suite, tuning).data_stage("val", seed).key
        for tuning in (Tuning(), Tuning(0.3), Tuning(0.2, 1))
        for seed in (0, 1)
    }
    assert len(keys) == 6
    assert divided(suite, Tuning()).data_stage("val", 0) == divided(suite, Tuning(0.2, 0)).data_stage("val", 0)
    assert suite.data_stage("val", 0).key not in keys


def test_photographs_are_divided_once_for_all_seeds(tmp_path: Path) -> None:
    plan = planning.make(divided(open_suite(photographs(tmp_path / "photos"), sets=["seeds=[0, 1, 2]"])))
    assert set(data_of(plan)) == {(split, None) for split in ("train", "rest", "tune")}


def names(plan: Plan, keys: tuple[str, ...]) -> list[str]:
    return [f"{plan.stages[k].spec.get('split', plan.stages[k].kind)}" for k in keys]


def test_one_job_makes_a_set_and_its_sides() -> None:
    """The images first; `tune` before `rest`, so that a training that waits for `rest` finds both."""
    plan = planning.make(divided(tiny("seeds=[0, 1]", only="baseline")))
    jobs = make_jobs(plan, set(plan.stages), Estimate(plan.suite.sections.cost))
    found = sorted(names(plan, job.keys) for job in jobs)
    assert found == [["train", "predict", "evaluate"]] * 2 + [["train", "tune", "rest"]] * 2
    dependencies = Dependencies(plan)
    for job in jobs:
        if "tune" in names(plan, job.keys):
            assert dependencies.below(job) == set()
    stages = data_of(plan)
    done = {stages["train", 0].key, stages["tune", 0].key}
    left = make_jobs(plan, set(plan.stages) - done, Estimate(plan.suite.sections.cost), done=done)
    assert sorted(names(plan, job.keys) for job in left if "rest" in names(plan, job.keys)) == [
        ["rest"], ["train", "tune", "rest"],
    ]  # fmt: skip


# -- what it costs


def test_an_estimate_before_and_after_the_set_is_made(tmp_path: Path) -> None:
    suite = divided(tiny("schedule={epochs: 10}", only="baseline"))
    plan = planning.make(suite)
    stages = data_of(plan)
    before = planning.learned(plan, Store(tmp_path / "store"))
    images = {split: before._images(stage) for (split, _), stage in stages.items()}
    assert images["tune"] == pytest.approx(0.3 * images["train"])
    assert images["rest"] == pytest.approx(0.7 * images["train"])
    assert before(stages["tune", 0]) == pytest.approx(DIVIDE_SECONDS * images["train"] / 1000)
    assert before.megabytes(stages["tune", 0]) == pytest.approx(0.3 * (before.megabytes(stages["train", 0]) or 0.0))
    bring(suite, tmp_path / "store", only={stages["train", 0].key}.__contains__)
    whole = planning.learned(plan, Store(tmp_path / "store"))
    counted = whole.images[stages["train", 0].key]
    assert whole._images(stages["rest", 0]) == pytest.approx(0.7 * counted)
    training = next(stage for stage in plan.stages.values() if stage.kind == "train")
    assert whole._steps(training) == pytest.approx(10 * 0.7 * counted / training.spec["schedule"]["batch"])
    assert whole._classes(stages["tune", 0]) == 8
    bring(suite, tmp_path / "store", only=data_keys(plan).__contains__)
    after = planning.learned(plan, Store(tmp_path / "store"))
    assert after.images[stages["tune", 0].key] == round(0.3 * counted)
    assert after.images[stages["rest", 0].key] == counted - round(0.3 * counted)


def test_a_plan_of_photographs_that_nobody_has_read(tmp_path: Path) -> None:
    plan = planning.make(divided(open_suite(photographs(tmp_path / "photos"))))
    estimate = planning.learned(plan, Store(tmp_path / "store"))
    stages: Mapping[tuple[str, Any], Stage] = data_of(plan)
    assert estimate._images(stages["tune", None]) is None
    assert estimate(stages["tune", None]) is None or estimate.cost.data is not None
    assert compare(plan, Store(tmp_path / "store"), 2).headline()
