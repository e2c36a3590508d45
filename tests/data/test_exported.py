"""Annotation files as tools export them: what is read as it is meant, what is refused, and that check and reader agree.

Every case is made here from the small folder; AP is worked out by hand (`exported.AP`), as the clean file gives it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import AP, FOUND, Spoil, ap, drop, every, exported, findings, first, ids_as, nothing, stored

from bench.data import coco
from bench.data.areas import mask_area, run_lengths
from bench.data.entries import read_entries
from bench.data.values import Unreadable, class_name, flag, number, shown, whole
from bench.errors import UserError
from bench.evaluation import official
from bench.evaluation.ap import DetectedBoxes, evaluate_boxes

POLYGON = [[5, 6, 35, 6, 35, 26, 5, 26]]  # 30 x 20
RUNS = {"size": [48, 64], "counts": [48 * 5 + 6, 20, 28, 20, 48 * 64 - 48 * 5 - 6 - 20 - 28 - 20]}  # two columns of 20
WHOLE = 64 * 48


def both(*spoils: Spoil) -> Spoil:
    return lambda document: [spoil(document) for spoil in spoils]


# kind of mend -> how val is spoiled, and how often it is said
MEANT: list[tuple[str, Spoil, int]] = [
    ("id_text", every("annotations", image_id=float, category_id=float), 6),
    ("id_text", every("annotations", image_id=str, id=str), 6),
    ("id_text", both(every("images", id=str), every("annotations", image_id=lambda i: f" {i}.0 ")), 5),
    ("id_text", both(every("categories", id=str), every("annotations", category_id=lambda i: f"{i}e0")), 6),
    ("box_text", every("annotations", bbox=lambda box: [str(v) for v in box]), 3),
    ("box_text", first("annotations", bbox=["5.0", 6, " 30", "2e1"]), 1),
    ("box_text", first("annotations", bbox=[5, 6, "30", 20]), 1),
    ("size_text", every("images", width="64", height="48"), 4),
    ("size_text", every("images", width=64.0), 2),
    ("size_text", first("images", height="48.0"), 1),
    ("flag_text", every("annotations", iscrowd="0"), 3),
    ("flag_text", first("annotations", iscrowd="false"), 1),
    ("flag_text", first("annotations", iscrowd=" 0.0 "), 1),
    ("area_box", every("annotations", area=0), 3),
    ("area_box", every("annotations", area=None), 3),
    ("area_box", every("annotations", area=float("nan")), 3),
    ("area_box", every("annotations", area=WHOLE), 3),
    ("area_box", every("annotations", area=-1.5), 3),
    ("area_box", every("annotations", area="unknown"), 3),
    ("area_box", every("annotations", area=[600]), 3),
    ("area_mask", first("annotations", area=0, segmentation=POLYGON), 1),
    ("area_mask", first("annotations", area=WHOLE, segmentation=POLYGON[0]), 1),
    ("area_mask", both(drop("annotations", "area"), first("annotations", segmentation=POLYGON)), 1),
    ("area_text", first("annotations", area="600"), 1),
    ("area_text", first("annotations", area="600.0 "), 1),
    ("name_control", first("categories", name="cat\n"), 1),
    ("image_id_range", ids_as(lambda i: 20230817123456000 + i), 2),
    ("image_id_range", ids_as(lambda i: 2**64 + i), 2),
    ("image_id_range", ids_as(lambda i: -i), 2),
    ("annotation_id_range", ids_as(lambda i: 2**70 + i, "annotation"), 3),
    ("annotation_id_range", ids_as(lambda i: -i, "annotation"), 3),
    ("mask_damaged", first("annotations", segmentation={"size": [48, 64], "counts": [1.5]}), 1),
    ("mask_damaged", first("annotations", segmentation={"counts": "abc"}), 1),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spoil", "count"), MEANT)
def test_read_as_it_is_meant_and_said_once(kind: str, spoil: Spoil, count: int, tmp_path: Path) -> None:
    spec = exported(tmp_path / "data", val=spoil)
    found = findings(spec)
    assert {(k, f.severity) for (k, _), f in found.items()} == {(kind, "note")}
    assert found[kind, "val"].count == count
    (note,) = coco.inspect(spec, "val").notes
    assert note.startswith(f"val.json: {count} ")
    split = stored(spec, "val", tmp_path / "stored")
    assert ap(split) == pytest.approx(AP)
    assert [b.tolist() for b in split.boxes] == [[[5, 6, 35, 26]], [[1, 1, 11, 13], [20, 20, 29, 29]]]
    assert [(i.width, i.height) for i in split.images] == [(64, 48), (64, 48)]
    assert not any(flags.any() for flags in split.ignore)
    areas = [a[:, 4].tolist() for a in split.annotated]
    assert areas == [[600], [120, 81]]


@pytest.mark.parametrize("form", [str, float, lambda i: {3: -1, 7: 0, 11: 5}[i], lambda i: -i, lambda i: i + 2**40])
def test_ids_of_classes_are_only_names(form: Any, tmp_path: Path) -> None:
    spec = exported(tmp_path / "data", train=ids_as(form, "category"), val=ids_as(form, "category"))
    split = stored(spec, "val", tmp_path / "stored")
    assert ap(split) == pytest.approx(AP)
    assert {c.name: c.instance_count for c in split.categories} == {"cat": 1, "dog": 3, "newt": 1}
    assert all(c.id >= 0 for c in split.categories)
    assert not [f for f in findings(spec).values() if f.severity != "note"]


def test_negative_class_ids_are_numbered_in_their_order(tmp_path: Path) -> None:
    def form(i: int) -> int:
        return {3: -1, 7: 0, 11: 5}[i]

    spec = exported(tmp_path / "data", train=ids_as(form, "category"), val=ids_as(form, "category"))
    split = stored(spec, "val", tmp_path / "stored")
    assert [(c.id, c.name) for c in split.categories] == [(1, "dog"), (2, "cat"), (3, "newt")]


@pytest.mark.parametrize(
    ("written", "read", "kind"),
    [(7, "7", "name_number"), (3.5, "3.5", "name_number"), (-2, "-2", "name_number"), (None, "class 7", "name_empty"),
     ("", "class 7", "name_empty"), ("  ", "class 7", "name_empty"), ("a\x1b[31mb", "a [31mb", "name_control")],
)  # fmt: skip
def test_names_of_classes_that_are_no_text(written: Any, read: str, kind: str, tmp_path: Path) -> None:
    spoil = first("categories", name=written)
    spec = exported(tmp_path / "data", train=spoil, val=spoil)
    split = stored(spec, "val", tmp_path / "stored")
    assert sorted(c.name for c in split.categories) == sorted([read, "dog", "newt"])
    assert {k for k, _ in findings(spec)} == {kind}


@pytest.mark.parametrize("flag", ["1", 1, True, "true", 1.0])
def test_a_crowd_is_one_however_it_is_written(flag: Any, tmp_path: Path) -> None:
    split = stored(exported(tmp_path / "data", val=first("annotations", iscrowd=flag)), "val", tmp_path / "stored")
    assert [v.tolist() for v in split.ignore] == [[True], [False, False]]
    assert split.lvis_json()["annotations"][0]["iscrowd"] == 1
    assert ap(split) == pytest.approx(1 / 2)  # of dog and newt


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_says_how_to_read_a_file(mark: str, tmp_path: Path) -> None:
    spec = exported(tmp_path / "data")
    file = tmp_path / "data/annotations/val.json"
    file.write_text(file.read_text(encoding="utf-8"), encoding=mark)
    assert findings(spec) == {}
    assert ap(stored(spec, "val", tmp_path / "stored")) == pytest.approx(AP)


def test_the_area_is_that_of_the_mask(tmp_path: Path) -> None:
    """Half of the box by polygon, 40 pixels by run lengths; a mask larger than its box is not believed."""
    half = [[5, 6, 35, 6, 35, 26]]
    large = [[0, 0, 64, 0, 64, 48, 0, 48]]
    for n, (mask, area) in enumerate(((half, 300), (RUNS, 40), (large, 600), ({"size": [1]}, 600))):
        spec = exported(tmp_path / str(n), val=first("annotations", area=0, segmentation=mask))
        split = stored(spec, "val", tmp_path / "stored")
        assert split.annotated[0][0].tolist() == [5, 6, 30, 20, area]


def test_areas_of_masks_agree_with_pycocotools() -> None:
    mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(30):
        pixels = np.asfortranarray((rng.random((13, 17)) < rng.random()).astype(np.uint8))
        coded = mask.encode(pixels)
        text = {"size": coded["size"], "counts": coded["counts"].decode()}
        assert mask_area(text) == (float(pixels.sum()) or None)
        assert run_lengths(text) is not None
    for damaged in ("", "abc", "\x00", "~~~", "0" * 99, 7, None):
        assert run_lengths({"size": [13, 17], "counts": damaged}) is None


# -- ignore: 1


def test_an_ignored_box_is_not_counted_and_matched_as_a_box(tmp_path: Path) -> None:
    """Two dogs, of which one is `ignore: 1`. The better detection lies inside it with IoU 0.25: in a crowd it would not
    count, here it is false, and the second one finds the other dog: precision 1/2 at recall 1, AP 1/2."""

    def spoil(document: Any) -> None:
        document["annotations"] = [
            {"id": 1, "image_id": 8, "category_id": 3, "bbox": [0, 0, 20, 20], "area": 400, "ignore": 1},
            {"id": 2, "image_id": 8, "category_id": 3, "bbox": [30, 20, 20, 20], "area": 400},
        ]

    split = stored(exported(tmp_path / "data", val=spoil), "val", tmp_path / "stored")
    assert split.ignore[0].tolist() == [True, False]
    inside, other, on_it = (0, 0, 10, 10), (30, 20, 20, 20), (0, 0, 20, 20)
    assert ap(split, [("dog", 0, inside), ("dog", 0, other)]) == pytest.approx(1 / 2)
    assert ap(split, [("dog", 0, on_it), ("dog", 0, other)]) == pytest.approx(1)
    assert ap(split, [("dog", 0, on_it)]) == pytest.approx(0)
    assert split.subset([0]).lvis_json()["annotations"][0]["ignore"] == 1
    kept = split.keep_boxes([np.array([True, False]), np.zeros(0, bool)])
    assert [a["ignore"] for a in kept.lvis_json()["annotations"]] == [1]


def test_an_ignored_box_is_in_no_training_count(tmp_path: Path) -> None:
    spec = exported(tmp_path / "data", train=first("annotations", ignore=1))
    split = stored(spec, "train", tmp_path / "stored")
    assert {c.name: c.instance_count for c in split.categories} == {"cat": 1, "dog": 2, "newt": 1}
    assert split.statistics().instance_counts.tolist() == [2, 1, 1]
    assert findings(spec)["ignore", "train"].count == 1


@pytest.mark.parametrize("seed", range(12))
def test_ignored_boxes_as_the_official_package_takes_them(seed: int) -> None:
    from tests.evaluation.federated import federated

    rng = np.random.default_rng(seed)
    truth, found = federated(rng, images=8, classes=6, detections=25)
    for a in truth["annotations"]:
        a["ignore"] = int(rng.random() < 0.4)
    ours, theirs = evaluate_boxes(truth, found).metrics(), official.evaluate_boxes(truth, found).metrics()
    assert ours == {name: value if value is None else pytest.approx(value, abs=1e-12) for name, value in theirs.items()}


@pytest.mark.parametrize(("images", "classes"), [(2**53 - 100, 0), (2**40, 2**31), (-5, 0), (0, -3)])
def test_large_and_negative_ids_change_no_ap(images: int, classes: int) -> None:
    from tests.evaluation.federated import federated

    truth, found = federated(np.random.default_rng(7), images=20, classes=15, detections=30)
    before = evaluate_boxes(truth, found).ap
    for i in truth["images"]:
        i["id"] += images
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            i[key] = [c + classes for c in i[key]]
    for c in truth["categories"]:
        c["id"] += classes
    for a in truth["annotations"]:
        a["image_id"] += images
        a["category_id"] += classes
    moved = DetectedBoxes(found.image_id + images, found.category_id + classes, found.xywh, found.score)
    assert evaluate_boxes(truth, moved).ap == before


# -- what is refused, by reader and check alike


def swapped(document: Any) -> None:
    """Cat and dog change ids, as another tool numbers them."""
    names = {3: "cat", 7: "dog", 11: "newt"}
    for c in document["categories"]:
        c["name"] = names[c["id"]]


def listed_twice(name: str) -> Spoil:
    def spoil(document: Any) -> None:
        document["images"].append({**document["images"][0], "id": 88, "file_name": name})

    return spoil


REFUSED: list[tuple[str, Spoil, str]] = [
    ("malformed_entry", lambda d: d["annotations"].append(7), "annotation entry 3: 7"),
    ("malformed_entry", lambda d: d["images"].append(None), "image entry 2: None"),
    ("malformed_entry", lambda d: d["categories"].append([]), r"category entry 3: \[\]"),
    ("malformed_category", drop("categories", "name"), "no name"),
    ("malformed_category", first("categories", name=True), "true or false"),
    ("malformed_category", first("categories", name="\ud800"), "no valid text"),
    ("malformed_category", drop("categories", "id"), "None is not a number"),
    ("duplicate_category_id", first("categories", id=3), r"3 \(2 times\)"),
    ("duplicate_class_name", first("categories", name="dog"), "'dog' is 7 and 3"),
    ("malformed_image", first("images", id={"$oid": "19"}), "oid"),
    ("malformed_image", first("images", id="img_8"), "img_8 is not a number"),
    ("malformed_image", first("images", id=[[8]]), "is not a number"),
    ("image_size", first("images", width=None), "image 8: None x 48"),
    ("image_size", first("images", height=float("nan")), "image 8: 64 x nan"),
    ("image_size", first("images", width="wide"), "image 8: wide x 48"),
    ("duplicate_image_id", first("images", id="9"), r"9 \(2 times\)"),
    ("malformed_annotation", drop("annotations", "category_id"), "annotation 101: no category_id"),
    ("malformed_annotation", first("annotations", image_id={"$oid": "8"}), "annotation 101: image_id"),
    ("malformed_annotation", first("annotations", id=True), "annotation True: id True is not a number"),
    ("malformed_annotation", first("annotations", image_id=8.5), "8.5 is not a whole number"),
    ("malformed_annotation", first("annotations", image_id=1e300), r"1e\+300 is not a whole number"),
    ("duplicate_annotation_id", first("annotations", id=102.0), r"102 \(2 times\)"),
    ("unknown_image_id", first("annotations", image_id=77), "annotation 101: image 77"),
    ("malformed_box", first("annotations", bbox=[float("nan"), 1, 2, 3]), r"annotation 101: \[nan, 1, 2, 3\]"),
    ("malformed_box", first("annotations", bbox=["1", "2", "3", "x"]), "annotation 101"),
    ("malformed_box", first("annotations", bbox={"x": 1}), "annotation 101"),
    ("malformed_box", first("annotations", bbox=[1e12, 1, 2, 3]), "annotation 101"),
    ("malformed_flag", first("annotations", iscrowd=2), "iscrowd 2 is neither 0 nor 1"),
    ("malformed_flag", first("annotations", iscrowd="maybe"), "iscrowd maybe is neither 0 nor 1"),
    ("malformed_flag", first("annotations", ignore=[]), r"ignore \[\] is neither 0 nor 1"),
    ("unknown_category_id", first("annotations", category_id=77), "annotation 101: category 77"),
    ("other_category_ids", swapped, "id 7 is 'dog' in val.json, 'cat' in train.json; 'dog' is 3"),
    ("other_category_ids", first("categories", name="fox"), "id 7 is 'fox' in val.json, 'cat' in train.json"),
    ("no_images", lambda d: d.update(images=[], annotations=[]), "'images' is empty"),
    ("no_ground_truth", lambda d: d.update(annotations=[]), "0 boxes"),
    ("no_ground_truth", every("annotations", iscrowd=1), "3 boxes, none of which counts"),
    ("no_ground_truth", every("annotations", ignore=1), "3 boxes, none of which counts"),
    ("same_file_twice", listed_twice("000000000008.png"), "000000000008.png: images 8 and 88"),
    ("same_file_twice", listed_twice("./000000000008.png"), "images 8 and 88"),
    ("same_file_twice", listed_twice("images\\000000000008.png"), "images 8 and 88"),
    ("outside_root", first("images", file_name="../images/000000000008.png"), "leaves the image root"),
    ("missing_image", first("images", file_name="a\x00b.png"), r"a\\x00b\.png"),
    ("missing_image", first("images", file_name="\ud800.png"), r"\\ud800\.png"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spoil", "says"), REFUSED)
def test_refused_by_reader_and_check_alike(kind: str, spoil: Spoil, says: str, tmp_path: Path) -> None:
    spec = exported(tmp_path, val=spoil)
    assert findings(spec)[kind, "val"].severity == "error"
    for read in (coco.inspect, coco.read_folder):
        with pytest.raises(UserError, match=says) as error:
            read(spec, "val")
        assert "data check" in str(error.value)


def test_a_crowd_that_is_left_gives_no_ap_column_but_an_error_in_training_too(tmp_path: Path) -> None:
    spec = exported(tmp_path, train=every("annotations", iscrowd=1))
    with pytest.raises(UserError, match=r"train\.json: no box counts"):
        coco.inspect(spec, "val")


def test_a_class_that_val_alone_lists_and_does_not_use_is_no_fault(tmp_path: Path) -> None:
    spec = exported(tmp_path / "data", val=lambda d: d["categories"].append({"id": 99, "name": "eel"}))
    assert findings(spec) == {}
    assert ap(stored(spec, "val", tmp_path / "stored")) == pytest.approx(AP)


def test_all_entries_of_a_kind_are_found(tmp_path: Path) -> None:
    spec = exported(tmp_path, val=both(every("annotations", bbox=None), first("images", width=0)))
    found = findings(spec)
    assert found["malformed_box", "val"].examples == tuple(f"annotation {i}: None" for i in (101, 102, 103))
    assert found["image_size", "val"].examples == ("image 8: 0 x 48",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"[" * 100_000, "nested too deep"),
        (b'{"images": ' + b"9" * 5000 + b"}", "thousands of digits"),
        (b'{"images": []}', "no list 'annotations'"),
        (b'{"images": 1, "annotations": [], "categories": []}', "no list 'images'"),
        (b"[]", "not a JSON object"),
        (b"\xff\xff", "not UTF-8 text at byte 0"),
        (b"", "not valid JSON at character 0"),
    ],
)
def test_text_that_is_no_annotation_file_is_one_message(text: bytes, says: str, tmp_path: Path) -> None:
    spec = exported(tmp_path)
    (tmp_path / "annotations/val.json").write_bytes(text)
    for read in (lambda: coco.inspect(spec, "val").fingerprint, lambda: findings(spec)):
        with pytest.raises(UserError, match=says):
            read()


# -- keys


def by_hand(root: Path, split: str) -> str:
    """The fingerprint of a clean split as it was taken before anything was mended: people's stores hold these."""
    files = [root / "annotations" / f"{name}.json" for name in ("train", split)]
    digests = " ".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    total = hashlib.sha256(f"coco 1 {digests}\n".encode())
    for image in json.loads(files[1].read_text())["images"]:
        total.update(f"{image['file_name']}\0{(root / 'images' / image['file_name']).stat().st_size}\n".encode())
    return total.hexdigest()


def test_the_fingerprint_of_a_clean_split_is_as_it_was(tmp_path: Path) -> None:
    spec = exported(tmp_path)
    for split in ("train", "val"):
        assert coco.inspect(spec, split).fingerprint == by_hand(tmp_path, split)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "spoil", "_count"), MEANT)
def test_what_is_mended_has_another_fingerprint_than_before(
    kind: str, spoil: Spoil, _count: int, tmp_path: Path
) -> None:
    """A store that was made when such a file was read otherwise may not be found again."""
    spec = exported(tmp_path, val=spoil)
    assert coco.inspect(spec, "val").fingerprint != by_hand(tmp_path, "val")
    assert coco.inspect(spec, "train").fingerprint == by_hand(tmp_path, "train")


def test_a_mend_of_train_is_in_the_fingerprint_of_val_too(tmp_path: Path) -> None:
    spec = exported(tmp_path, train=first("annotations", ignore=1))
    assert coco.inspect(spec, "val").fingerprint != by_hand(tmp_path, "val")


@pytest.mark.parametrize("spoil", [nothing, every("annotations", iscrowd=False), every("annotations", area=50.5)])
def test_what_was_always_read_so_is_no_mend(spoil: Spoil, tmp_path: Path) -> None:
    spec = exported(tmp_path, val=spoil)
    assert coco.inspect(spec, "val").notes == ()
    assert coco.inspect(spec, "val").fingerprint == by_hand(tmp_path, "val")


def test_an_area_a_little_over_its_box_is_believed(tmp_path: Path) -> None:
    file = tmp_path / "annotations/val.json"
    exported(tmp_path, val=first("annotations", area=30 * 20 + 60))
    assert read_entries(file, lists=False).annotations[0]["area"] == 660


# -- values


def test_values() -> None:
    assert [number(v) for v in (3, 2.5, "4", " 1e2 ", "-.5")] == [
        (3, False), (2.5, False), (4, True), (100.0, True), (-0.5, True),
    ]  # fmt: skip
    assert [whole(v) for v in (3, 3.0, "3", "3.0")] == [(3, False), (3, True), (3, True), (3, True)]
    assert [flag(v)[0] for v in (None, 0, 1, True, False, "0", "1", "TRUE", 1.0)] == [
        False, False, True, True, False, False, True, True, True,
    ]  # fmt: skip
    for function in (number, whole):
        for bad in (True, None, "", "1_0", "\u0661", "0x1", "nan", "inf", float("inf"), 10**400, "9" * 500, [], {}):
            if function is whole and bad == 10**400:
                continue
            with pytest.raises(Unreadable):
                function(bad)
    for bad in (2, "2", "yes", [], float("nan")):
        with pytest.raises(Unreadable):
            flag(bad)
    assert class_name("plain", 1) == ("plain", "")


def test_a_value_in_a_message_is_short_and_printable() -> None:
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    for value in ("\x1b[31m", "\ud800", "x" * 999, deep, 10**4000, {"a": "\x00"}, [1] * 99, "\u202e", b"\x00"):
        text = shown(value)
        assert len(text) <= 80
        assert text.isprintable()
    assert shown("käse") == "käse"
    assert len(FOUND) == 2
