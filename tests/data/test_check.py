"""Every finding of the data check, and the one repair."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from faster_coco_eval import COCO, COCOeval_faster
from photographs import CATEGORIES, Document, make_folder
from PIL import Image

from bench.data.check import Finding, check, fill_negatives
from bench.errors import UserError
from bench.spec import FolderData


def findings(root: Path, style: Literal["lvis", "coco"] = "lvis") -> dict[tuple[str, str], Finding]:
    found = check(FolderData(name=style, path=str(root)))
    return {(f.kind, f.where): f for f in found}


def _newt(document: Document) -> None:
    """Give the class without training boxes one, so that a clean folder has no finding."""
    document["annotations"].append({"id": 50, "image_id": 5, "category_id": 11, "bbox": [1, 1, 9, 9], "area": 81})


def _set(section: str, index: int, **values: Any) -> Callable[[Document], None]:
    return lambda document: document[section][index].update(values)


def test_a_clean_folder_has_no_finding(tmp_path: Path) -> None:
    assert findings(make_folder(tmp_path, train=_newt)) == {}


@pytest.mark.parametrize(
    ("spoil", "kind", "severity", "example"),
    [
        (_set("images", 0, file_name="lost.png"), "missing_image", "error", "lost.png"),
        (_set("images", 0, file_name="../x.png"), "outside_root", "error", "../x.png"),
        (_set("images", 0, width=63), "size_mismatch", "error", "64 x 48, annotated 63 x 48"),
        (_set("images", 1, id=1), "duplicate_image_id", "error", "1 (2 times)"),
        (_set("annotations", 1, id=1), "duplicate_annotation_id", "error", "1 (2 times)"),
        (_set("categories", 1, id=7), "duplicate_category_id", "error", "7 (2 times)"),
        (_set("annotations", 0, image_id=99), "unknown_image_id", "error", "annotation 1: image 99"),
        (_set("annotations", 0, category_id=99), "unknown_category_id", "error", "annotation 1: category 99"),
        (_set("images", 0, neg_category_ids=[99]), "unknown_category_id", "error", "image 1, neg_category_ids"),
        (_set("annotations", 0, bbox=[1, 2, 3]), "malformed_box", "error", "annotation 1"),
        (_set("annotations", 0, bbox=[1, 2, float("nan"), 3]), "malformed_box", "error", "annotation 1"),
        (_set("annotations", 0, bbox=[1, 2, 0, 3]), "degenerate_box", "warning", "[1, 2, 0, 3]"),
        (_set("annotations", 0, bbox=[50, 2, 20, 3]), "box_outside", "warning", "in 64 x 48"),
        (_set("annotations", 0, bbox=[-3, 2, 20, 3]), "box_outside", "warning", "in 64 x 48"),
    ],
)
def test_finds(spoil: Callable[[Document], Any], kind: str, severity: str, example: str, tmp_path: Path) -> None:
    def both(document: Document) -> None:
        _newt(document)
        spoil(document)

    found = findings(make_folder(tmp_path, train=both))[kind, "train"]
    assert (found.severity, found.count) == (severity, 1)
    assert example in found.examples[0]
    assert found.advice


def test_a_box_a_pixel_over_the_edge_is_no_finding(tmp_path: Path) -> None:
    def edge(document: Document) -> None:
        _newt(document)
        document["annotations"][0]["bbox"] = [-0.5, 0, 65, 48.7]

    assert findings(make_folder(tmp_path, train=edge)) == {}


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_finds_undecodable_images(suffix: str, tmp_path: Path) -> None:
    def spoil(document: Document) -> None:
        _newt(document)
        document["images"][0]["file_name"] = f"cut.{suffix}"

    root = make_folder(tmp_path, train=spoil)
    Image.effect_noise((64, 48), 90).convert("RGB").save(tmp_path / f"images/cut.{suffix}")
    assert findings(root) == {}
    whole = (tmp_path / f"images/cut.{suffix}").read_bytes()
    (tmp_path / f"images/cut.{suffix}").write_bytes(whole[: len(whole) // 2])
    assert findings(root)["undecodable_image", "train"].examples == (f"cut.{suffix}",)


def test_finds_a_class_without_training_image(tmp_path: Path) -> None:
    found = findings(make_folder(tmp_path))
    assert found["class_without_training_image", "train"].examples == ("11 newt",)


def test_finds_images_in_both_splits_by_name_and_by_content(tmp_path: Path) -> None:
    def share(document: Document) -> None:
        document["images"][0]["file_name"] = "COCO_train2014_000000000001.png"

    root = make_folder(tmp_path, train=_newt, val=share)
    shutil.copy(root / "images/COCO_train2014_000000000002.png", root / "images/COCO_train2014_000000000009.png")
    found = findings(root)["in_train_and_val", "train and val"]
    assert found.count == 2
    assert found.examples == (
        "COCO_train2014_000000000001.png",
        "COCO_train2014_000000000009.png = COCO_train2014_000000000002.png",
    )


@pytest.mark.parametrize("key", ["absent", "empty"])
def test_warns_of_missing_negatives_in_lvis_but_not_in_coco(key: str, tmp_path: Path) -> None:
    def without(document: Document) -> None:
        for image in document["images"]:
            image["neg_category_ids"] = []
            if key == "absent":
                del image["neg_category_ids"]

    root = make_folder(tmp_path, train=_newt, val=without)
    found = findings(root)
    assert set(found) == {("no_negatives", "val")}
    assert "ignores false positives" in found["no_negatives", "val"].advice
    assert findings(root, "coco") == {}


def test_errors_come_before_warnings(tmp_path: Path) -> None:
    root = make_folder(tmp_path, train=_set("images", 0, file_name="lost.png"))
    assert [f.severity for f in findings(root).values()] == ["error", "warning"]


def test_no_folder_of_images(tmp_path: Path) -> None:
    make_folder(tmp_path)
    with pytest.raises(UserError, match="no such folder of images"):
        check(FolderData(name="lvis", path=str(tmp_path), images="jpg"))


def test_filling_negatives_lists_what_is_absent(tmp_path: Path) -> None:
    def without(document: Document) -> None:
        for image in document["images"]:
            del image["neg_category_ids"], image["not_exhaustive_category_ids"]
        document["images"][0]["not_exhaustive_category_ids"] = [11]

    source = make_folder(tmp_path, val=without) / "annotations/val.json"
    before = source.read_bytes()
    target = tmp_path / "annotations/val_filled.json"
    assert fill_negatives(source, target) == 2
    assert source.read_bytes() == before
    filled = json.loads(target.read_text())
    assert [i["neg_category_ids"] for i in filled["images"]] == [[3], [7]]
    assert filled["annotations"] == json.loads(before)["annotations"]
    with pytest.raises(UserError, match="the file exists"):
        fill_negatives(source, target)


def test_filled_negatives_make_false_positives_count(tmp_path: Path) -> None:
    """What the warning claims: with empty lists the LVIS evaluator does not see false positives of absent classes."""

    def without(document: Document) -> None:
        for image in document["images"]:
            image["neg_category_ids"] = image["not_exhaustive_category_ids"] = []

    source = make_folder(tmp_path, val=without) / "annotations/val.json"
    target = tmp_path / "filled.json"
    fill_negatives(source, target)
    assert _ap(source) == pytest.approx(1.0)
    assert _ap(target) < 0.7


def _ap(file: Path) -> float:
    """AP of the true boxes plus, in every image, a better scored box of every class."""
    document = json.loads(file.read_text())
    document["info"] = {}
    found = [{**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.5} for a in document["annotations"]]
    shown = {(f["image_id"], f["category_id"]) for f in found}
    for image in document["images"]:
        for c in CATEGORIES:
            if (image["id"], c["id"]) not in shown:
                found.append({"image_id": image["id"], "category_id": c["id"], "bbox": [0, 0, 5, 5], "score": 0.9})
    truth = COCO(document)
    evaluator = COCOeval_faster(truth, truth.loadRes(found), "bbox", lvis_style=True, print_function=lambda *_: None)
    evaluator.params.maxDets = [300]
    evaluator.run()
    return float(evaluator.stats_as_dict["AP_all"])
