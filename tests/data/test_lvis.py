"""Readers of LVIS v0.5, LVIS v1 and COCO folders: what they count, what they refuse, what the fingerprint sees."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from photographs import PHOTOGRAPHS, TRAIN, Document, make_folder, pixels_of

from bench.data import coco, lvis
from bench.data.folder import candidates, image_root, inspect, leaves_root
from bench.data.split import open_split
from bench.errors import UserError
from bench.frequency import repeat_factors
from bench.spec import FolderData

STYLES = {"v0.5": "lvis", "v1": "lvis", "coco": "coco"}
SplitName = Literal["train", "val"]


def read_folder(spec: FolderData, split: SplitName) -> Document:
    return (coco if spec.name == "coco" else lvis).read_folder(spec, split)


def write_split(spec: FolderData, split: SplitName, out: Path) -> None:
    (coco if spec.name == "coco" else lvis).write_split(spec, split, out)


def spec_of(root: Path, style: str = "v0.5") -> FolderData:
    return FolderData.model_validate({"name": STYLES[style], "path": str(root)})


@pytest.mark.parametrize("style", STYLES)
def test_reads_every_style(style: str, tmp_path: Path) -> None:
    spec = spec_of(make_folder(tmp_path / "photos", style), style)
    for name in ("train", "val"):
        write_split(spec, name, tmp_path)
        split = open_split(tmp_path, image_root(spec))
        for i, image in enumerate(split.images):
            np.testing.assert_array_equal(split.pixels(i), pixels_of(image.id))
        # Counts are those of the training annotations, whatever the files claim.
        assert [(c.instance_count, c.image_count, c.frequency) for c in split.categories] == [
            (3, 2, "r"), (1, 1, "r"), (0, 0, "r"),
        ]  # fmt: skip
    assert split.boxes[1].tolist() == [[1, 1, 11, 13], [20, 20, 29, 29]]
    assert split.labels[1].tolist() == [0, 2]


def test_coco_is_exhaustive(tmp_path: Path) -> None:
    spec = spec_of(make_folder(tmp_path / "photos", "coco"), "coco")
    write_split(spec, "val", tmp_path)
    split = open_split(tmp_path, image_root(spec))
    assert [split.negative(i).tolist() for i in range(2)] == [[0, 2], [1]]
    assert [image["neg_category_ids"] for image in split.lvis_json()["images"]] == [[3, 11], [7]]
    assert all(not image.not_exhaustive for image in split.images)


def test_a_crowd_is_ignored_counted_nowhere_and_no_negative(tmp_path: Path) -> None:
    def crowd(document: Document) -> None:
        document["annotations"][2]["iscrowd"] = 1

    spec = spec_of(make_folder(tmp_path / "photos", "coco", train=crowd), "coco")
    write_split(spec, "train", tmp_path)
    split = open_split(tmp_path, image_root(spec))
    assert split.ignore[0].tolist() == [False, False, True]
    assert split.categories[1].instance_count == split.categories[1].image_count == 0
    assert 1 not in split.negative(0)
    assert split.lvis_json()["annotations"][2]["iscrowd"] == 1


def test_images_without_annotations_count_in_repeat_factors(tmp_path: Path) -> None:
    spec = spec_of(make_folder(tmp_path / "photos"))
    write_split(spec, "train", tmp_path)
    stats = open_split(tmp_path, image_root(spec)).statistics()
    assert stats.num_images == len(TRAIN) == 3
    r_class, r_image = repeat_factors(stats, t=0.9)
    np.testing.assert_allclose(r_class, np.sqrt([0.9 / (2 / 3), 0.9 / (1 / 3), 1]))
    np.testing.assert_allclose(r_image, [r_class[1], r_class[0], 1])


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    spec = spec_of(make_folder(tmp_path / "photos"))
    read = []
    for _ in range(2):
        write_split(spec, "val", tmp_path)
        read.append((tmp_path / "annotations.json").read_bytes())
    assert read[0] == read[1]
    assert str(tmp_path).encode() not in read[0]


def test_polygons_go_and_run_lengths_stay(tmp_path: Path) -> None:
    coded = {"size": [48, 64], "counts": "abc"}

    def mask(document: Document) -> None:
        document["annotations"][0]["segmentation"] = coded

    annotations = read_folder(spec_of(make_folder(tmp_path, train=mask)), "train")["annotations"]
    assert [a.get("segmentation") for a in annotations] == [coded, None, None, None]


def test_names_are_tried_in_order() -> None:
    assert candidates({"coco_url": "http://h/train2017/000000000001.jpg"}) == (
        "train2017/000000000001.jpg",
        "000000000001.jpg",
    )
    assert candidates({"file_name": "COCO_val2014_000000266409.jpg"})[-1] == "000000266409.jpg"
    assert candidates({}) == ()


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b", "..", "..\\b"])
def test_a_name_that_leaves_the_root_is_refused(name: str, tmp_path: Path) -> None:
    def escape(document: Document) -> None:
        document["images"][0]["file_name"] = name

    make_folder(tmp_path / "photos", train=escape)
    shutil.copy(tmp_path / "photos/images/COCO_train2014_000000000001.png", tmp_path / "photos/secret.png")
    assert leaves_root(name)
    with pytest.raises(UserError, match="leaves the image root"):
        read_folder(spec_of(tmp_path / "photos"), "train")


@pytest.mark.parametrize("name", ["a.png", "a/../b.png", "..a/b", "a..b"])
def test_a_name_that_stays_is_not_refused(name: str) -> None:
    assert not leaves_root(name)


def _set(section: str, index: int, **values: Any) -> Callable[[Document], None]:
    return lambda document: document[section][index].update(values)


def _drop(section: str, index: int, key: str) -> Callable[[Document], None]:
    return lambda document: document[section][index].pop(key)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_set("annotations", 0, image_id=77), r"images that are not listed \(1\): annotation 1: image 77"),
        (
            _set("annotations", 0, category_id=77),
            r"categories of the training file lack \(1\): annotation 1: category 77",
        ),
        (_set("annotations", 1, id=1), r"annotation ids occur more than once \(1\): 1 \(2 times\)"),
        (_set("images", 1, id=1), r"image ids occur more than once \(1\): 1"),
        (_set("categories", 1, id=7), r"category ids occur more than once \(1\): 7"),
        (_set("annotations", 0, bbox=[1, 2, 3]), r"not four finite numbers \(1\): annotation 1: \[1, 2, 3\]"),
        (
            _set("annotations", 0, bbox=[1, 2, 3, float("nan")]),
            r"not four finite numbers \(1\): annotation 1: \[1, 2, 3, nan\]",
        ),
        (_set("images", 0, width=0), r"images that have no size \(1\): image 1: 0 x 48"),
        (_set("images", 0, neg_category_ids=[77]), r"training file lack \(1\): image 1, neg_category_ids: category 77"),
        (_set("images", 0, id="one"), r"images without a usable id \(1\): image one: one is not a number"),
        (
            _drop("annotations", 0, "bbox"),
            r"without a usable id, image_id, category_id or bbox \(1\): annotation 1: no bbox",
        ),
        (lambda d: d.pop("categories"), "no list 'categories'"),
        (_set("images", 0, file_name="lost.png"), r"no such image \(1\): lost\.png"),
        (_set("images", 0, file_name="."), r"no such image \(1\): \."),
    ],
)
def test_refuses_what_cannot_be_right(spoil: Callable[[Document], Any], message: str, tmp_path: Path) -> None:
    make_folder(tmp_path, train=spoil)
    with pytest.raises(UserError, match=message):
        read_folder(spec_of(tmp_path), "train")


def test_val_may_not_know_classes_that_train_lacks(tmp_path: Path) -> None:
    make_folder(tmp_path, val=_set("annotations", 0, category_id=77))
    with pytest.raises(UserError, match="annotation 101: category 77"):
        read_folder(spec_of(tmp_path), "val")


def test_truncated_annotations_name_file_and_position(tmp_path: Path) -> None:
    file = make_folder(tmp_path) / "annotations/train.json"
    file.write_text(file.read_text()[:200])
    for read in (read_folder, inspect):
        with pytest.raises(UserError, match=r"not valid JSON at character \d+ of 200") as error:
            read(spec_of(tmp_path), "train")
        assert "train.json:1:" in error.value.where


def test_missing_files_show_what_is_there(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "annotations/val.json").rename(tmp_path / "annotations/validation.json")
    for read in (read_folder, inspect):
        with pytest.raises(UserError) as error:
            read(spec_of(tmp_path), "val")
        assert "validation.json" in error.value.allowed
    elsewhere = spec_of(tmp_path).model_copy(update={"images": "jpg"})
    with pytest.raises(UserError, match="no such folder of images") as error:
        read_folder(elsewhere, "train")
    assert "annotations/, images/" in error.value.allowed


def test_fingerprint_does_not_see_the_path(tmp_path: Path) -> None:
    make_folder(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for name in ("train", "val"):
        assert inspect(spec_of(tmp_path / "a"), name).fingerprint == inspect(spec_of(tmp_path / "b"), name).fingerprint
    assert inspect(spec_of(tmp_path / "a"), "train").fingerprint != inspect(spec_of(tmp_path / "a"), "val").fingerprint


def test_fingerprint_sees_images_and_annotations(tmp_path: Path) -> None:
    spec = spec_of(make_folder(tmp_path))
    before = {name: inspect(spec, name).fingerprint for name in ("train", "val")}
    with (tmp_path / "images/COCO_train2014_000000000001.png").open("ab") as stream:
        stream.write(b"\0")
    assert inspect(spec, "train").fingerprint != before["train"]
    assert inspect(spec, "val").fingerprint == before["val"]
    file = tmp_path / "annotations/train.json"
    document = json.loads(file.read_text())
    document["annotations"].pop()
    file.write_text(json.dumps(document))
    assert inspect(spec, "val").fingerprint != before["val"]  # val carries the training counts


@pytest.mark.skipif(not (PHOTOGRAPHS / "coco_mini").is_dir(), reason="no photographs (BENCH_TEST_DATA)")
def test_real_photographs(tmp_path: Path) -> None:
    spec = FolderData(name="lvis", path=str(PHOTOGRAPHS / "coco_mini"))
    write_split(spec, "train", tmp_path)
    split = open_split(tmp_path, image_root(spec))
    stats = split.statistics()
    assert (len(split), split.num_classes, stats.instance_counts.sum()) == (344, 80, 2732)
    person = split.categories[0]
    assert (person.name, person.frequency, person.image_count, person.instance_count) == ("person", "f", 174, 779)
    claimed = json.loads((PHOTOGRAPHS / "coco_mini/annotations/train.json").read_text())["categories"]
    claimed.sort(key=lambda c: c["id"])
    assert [c["instance_count"] for c in claimed] == stats.instance_counts.tolist()
    assert [c["frequency"] for c in claimed] == [c.frequency for c in split.categories]
