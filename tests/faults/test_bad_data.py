"""Images, annotations and weights that are wrong, through the real command line: one message, nothing lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from refused import kept_store, refused, states

from tests.conftest import Bench, Write

SIDE = 64  # pixels of an image
Document = dict[str, Any]
PHOTOS = """\
preset: cpu
data: {name: lvis, path: photos}
input: {min_size: 64, max_size: 64}
schedule: {steps: 3, batch: 4, lr: 0.01, warmup: 1, checkpoint_every: 1}
test: {bins: [2, 3]}
rows:
  baseline: {method: baseline}
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """A store that holds something; it is the same afterwards."""
    yield from kept_store(tmp_path / "store")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six images to train on and two to test on, two classes."""
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    rng = np.random.default_rng(0)
    for split, ids in (("train", range(1, 7)), ("val", range(7, 9))):
        images, boxes = [], []
        for i in ids:
            Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(folder / "images" / f"{i}.png")
            image = {"id": i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE}
            images.append(image | {"neg_category_ids": [2 - i % 2]})
            boxes.append({"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [5, 5, 30, 30], "area": 900})
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "newt"}]
        document = {"images": images, "annotations": boxes, "categories": categories}
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(document))
    return folder


def change(file: Path, edit: Callable[[Document], object]) -> None:
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document))


def test_missing_annotation_file(call: Bench, write: Write, photos: Path, store: Path) -> None:
    (photos / "annotations" / "val.json").rename(photos / "annotations" / "test.json")
    ran = call("run", write(PHOTOS), "--store", store)
    refused(ran, r"photos/annotations/val\.json: no such annotation file\. Legal: .*test\.json")


def test_truncated_annotation_file(call: Bench, write: Write, photos: Path, store: Path) -> None:
    file = photos / "annotations" / "train.json"
    file.write_bytes(file.read_bytes()[:-200])
    ran = call("run", write(PHOTOS), "--store", store)
    refused(ran, r"train\.json:1:\d+: not valid JSON at character \d+", "may be cut short")


def test_missing_image(call: Bench, write: Write, photos: Path, store: Path) -> None:
    (photos / "images" / "3.png").unlink()
    ran = call("run", write(PHOTOS), "--store", store)
    refused(ran, r"no such image \(1\): 3\.png", "data check")


def test_an_image_name_that_leaves_the_root(call: Bench, write: Write, photos: Path, store: Path) -> None:
    change(photos / "annotations" / "train.json", lambda d: d["images"][0].update(file_name="../../secret.png"))
    ran = call("run", write(PHOTOS), "--store", store)
    refused(ran, r"train\.json: an image name leaves the image root \(1\): '\.\./\.\./secret\.png'", "data check")


def test_weights_that_are_none(call: Bench, write: Write, photos: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(bytes(range(256)) * 20)
    ran = call("run", write(PHOTOS), "--store", store, "--set", "detector.weights=w.pth")
    refused(ran, r"--set detector\.weights: cannot read 'w\.pth': damaged, cut short, or not written by torch")


def test_ids_that_do_not_exist(call: Bench, write: Write, photos: Path, tmp_path: Path) -> None:
    change(photos / "annotations" / "train.json", lambda d: d["annotations"][0].update(category_id=77))
    ran = call("run", write(PHOTOS))
    refused(ran, r"categories of the training file lack \(1\): annotation 1: category 77", "data check")
    assert not list((tmp_path / "store").glob("*/attempts"))  # nothing began, not even the data stage


@pytest.mark.slow
def test_an_undecodable_image_is_named_when_training_reaches_it(
    bench: Bench, write: Write, photos: Path, tmp_path: Path
) -> None:
    for image in (photos / "images").glob("[1-6].png"):
        image.write_bytes(image.read_bytes()[:300])
    ran = bench("run", write(PHOTOS))
    refused(ran, r"photos/images/[1-6]\.png: cannot decode this image")
    assert states(tmp_path / "store") == {
        "data": "done",
        "train": "missing",
        "predict": "missing",
        "evaluate": "missing",
    }
    assert "baseline" in ran.out  # the table is there, with the reason in place of numbers
    assert "cannot decode" in ran.out
