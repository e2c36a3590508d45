"""`data convert`: mended copies, and folders of other tools, made here and compared with boxes worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import AP, FOUND, ap, drop, every, exported, findings, first, ids_as, newt, nothing, stored
from photographs import make_folder
from PIL import Image

from bench.data import coco, lvis
from bench.data.exported.convert import Converted, convert
from bench.data.exported.images import stored_box
from bench.data.pixels import turned
from bench.data.split import Split
from bench.errors import UserError
from bench.spec import FolderData
from tests.conftest import Bench

# What the small folder holds, as (class, x, y, w, h) of each image: whatever the form, this has to come out.
TRAIN = [
    [("cat", 10, 20, 8, 8), ("dog", 4, 4, 20, 10), ("dog", 30, 5, 10, 10)],
    [("dog", 0, 0, 64, 48)],
    [("newt", 1, 1, 9, 9)],
]
VAL = [[("cat", 5, 6, 30, 20)], [("dog", 1, 1, 10, 12), ("newt", 20, 20, 9, 9)]]
Boxes = list[list[tuple[Any, ...]]]


def converted(source: Path, target: Path, form: str = "auto", **more: Any) -> tuple[FolderData, Converted]:
    """Convert, and hold what comes out to be read without error, warning or note."""
    before = {p: p.read_bytes() for p in source.rglob("*") if p.is_file()}
    done = convert(source, target, form, **more)
    assert {p: p.read_bytes() for p in source.rglob("*") if p.is_file()} == before
    spec = FolderData(name=done.form, path=str(target), **({"images": str(done.images)} if done.images else {}))
    assert findings(spec) == {}
    reader = lvis if done.form == "lvis" else coco
    assert reader.inspect(spec, "val").notes == ()
    return spec, done


def boxes(split: Split) -> Boxes:
    names = [c.name for c in split.categories]
    return [
        sorted((names[k], *np.round(a[:4], 6).tolist()) for k, a in zip(labels, annotated, strict=True))
        for labels, annotated in zip(split.labels, split.annotated, strict=True)
    ]


def holds(spec: FolderData, out: Path, train: Boxes = TRAIN, val: Boxes = VAL) -> None:
    assert boxes(stored(spec, "train", out)) == train
    split = stored(spec, "val", out)
    assert boxes(split) == val
    if val is VAL:
        assert ap(split) == pytest.approx(AP)


# -- COCO and LVIS that are mended

MENDED = [
    (nothing, ""),
    (ids_as(lambda i: {"$oid": f"{i:024d}"}), ""),
    (ids_as(str), ""),
    (ids_as(lambda i: f"img_{i}"), ""),
    (ids_as(lambda i: -i, "annotation"), ""),
    (ids_as(lambda i: 7, "annotation"), ""),
    (every("images", width=None, height="tall"), "2 sizes taken from the images"),
    (every("images", width=0), "2 sizes taken from the images"),
    (every("annotations", bbox=lambda box: [str(v) for v in box]), ""),
    (every("annotations", area=0, iscrowd="0"), ""),
    (first("images", file_name="/somewhere/else/000000000008.png"), ""),
    (first("images", file_name="../../000000000008.png"), ""),
    (lambda d: d["annotations"].append({"id": 9, "image_id": 8}), "1 boxes left out whose image or class is not there"),
    (
        lambda d: d["annotations"].append({**d["annotations"][0], "id": 9, "image_id": 77}),
        "1 boxes left out whose image or class is not there (annotation 9)",
    ),
    (
        lambda d: d["annotations"].append({**d["annotations"][0], "id": 9, "bbox": [1, float("nan"), 2, 3]}),
        "1 boxes left out that are not four finite numbers (annotation 9: [1, nan, 2, 3])",
    ),
    (lambda d: d["annotations"].append(7), "1 boxes left out whose image or class is not there (annotation entry 3)"),
    (
        lambda d: [d["images"].append({**d["images"][0], "id": 88}), d["annotations"][0].update(image_id=88)],
        "1 images listed twice made one (000000000008.png)",
    ),
    (
        lambda d: d["images"].append({"id": 88, "file_name": "lost.png"}),
        "1 images left out that were not found (lost.png)",
    ),
    (lambda d: d["categories"][0].pop("name"), ""),
    (lambda d: [c.update(name=None) for c in d["categories"]], ""),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "says"), MENDED)
def test_coco_is_mended(spoil: Any, says: str, tmp_path: Path) -> None:
    exported(tmp_path / "data", val=spoil)
    spec, done = converted(tmp_path / "data", tmp_path / "copy")
    assert done.form == "coco"
    assert len(done.lines) == bool(says)
    assert not says or says in done.lines[0]
    holds(spec, tmp_path / "stored")


def test_a_box_that_is_missing_is_that_of_its_polygons(tmp_path: Path) -> None:
    def spoil(document: Any) -> None:
        del document["annotations"][0]["bbox"]
        document["annotations"][0]["segmentation"] = [[5, 6, 35, 6, 20, 10], [10, 20, 12, 26, 20, 20]]

    exported(tmp_path / "data", val=spoil)
    holds(converted(tmp_path / "data", tmp_path / "copy")[0], tmp_path / "stored")


def test_val_takes_the_classes_of_train_by_name(tmp_path: Path) -> None:
    def spoil(document: Any) -> None:  # the same boxes, numbered by another tool
        number = {7: 1, 3: 2, 11: 3}
        document["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "newt"}]
        for a in document["annotations"]:
            a["category_id"] = number[a["category_id"]]

    source = exported(tmp_path / "data", val=spoil)
    with pytest.raises(UserError, match="data convert"):
        coco.inspect(source, "val")
    spec, done = converted(tmp_path / "data", tmp_path / "copy")
    assert done.lines == [
        "val: 3 classes mapped to the ids of train by their names (cat: 1 is 7, dog: 2 is 3, newt: 3 is 11)"
    ]
    holds(spec, tmp_path / "stored")


def test_a_class_that_train_lacks_is_refused(tmp_path: Path) -> None:
    exported(tmp_path / "data", val=first("categories", name="fox"))
    with pytest.raises(UserError, match=r"classes of val that train lacks \(1\): fox"):
        convert(tmp_path / "data", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda d: d["images"][1].update(id=8), "image id 8 occurs more than once"),
        (first("images", width=32, height=24), "another size than annotated, 000000000008.png: 64 x 48, not 32 x 24"),
        (first("categories", name=True), "a name that is true or false"),
        (drop("categories", "id"), "a category without an id"),
        (first("categories", id=3), "category id 3 occurs more than once"),
        (first("annotations", iscrowd=2), "neither 0 nor 1"),
        (lambda d: d.update(annotations=[]), "no box counts"),
    ],
)  # fmt: skip
def test_what_has_two_meanings_is_refused(spoil: Any, says: str, tmp_path: Path) -> None:
    exported(tmp_path / "data", val=spoil)
    with pytest.raises(UserError, match=says):
        convert(tmp_path / "data", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_lists_of_lvis_stay(tmp_path: Path) -> None:
    make_folder(tmp_path / "data", "v0.5", train=newt)
    spec, done = converted(tmp_path / "data", tmp_path / "copy")
    assert done.form == "lvis"
    images = json.loads((tmp_path / "copy/annotations/val.json").read_text())["images"]
    assert [(i["neg_category_ids"], i["not_exhaustive_category_ids"]) for i in images] == [([2], [3]), ([1], [])]
    assert [c["name"] for c in lvis.read_folder(spec, "val")["categories"]] == ["cat", "dog", "newt"]


@pytest.mark.parametrize("transfer", ["none", "link", "copy"])
def test_what_is_done_with_the_images(transfer: Any, tmp_path: Path) -> None:
    exported(tmp_path / "data")
    _, done = converted(tmp_path / "data", tmp_path / "copy", transfer=transfer)
    files = sorted((tmp_path / "copy").rglob("*.png"))
    assert done.images == (tmp_path / "data/images" if transfer == "none" else None)
    assert len(files) == (0 if transfer == "none" else 5)
    assert all(f.is_symlink() == (transfer == "link") for f in files)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    exported(tmp_path / "data")
    (tmp_path / "copy").mkdir()
    with pytest.raises(UserError, match="the folder exists"):
        convert(tmp_path / "data", tmp_path / "copy")


def test_one_split_is_divided_by_names(tmp_path: Path) -> None:
    """Label Studio's export: result.json beside images/, one split."""
    exported(tmp_path / "made")
    (tmp_path / "data").mkdir()
    (tmp_path / "made/images").rename(tmp_path / "data/images")
    both = [json.loads((tmp_path / "made/annotations" / f"{n}.json").read_text()) for n in ("train", "val")]
    document = {**both[0], **{k: both[0][k] + both[1][k] for k in ("images", "annotations")}}
    for image in document["images"]:
        image["file_name"] = "images\\" + image["file_name"]
    (tmp_path / "data/result.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"there is no val split\n.*--val-share"):
        convert(tmp_path / "data", tmp_path / "copy")
    done = convert(tmp_path / "data", tmp_path / "copy", val_share=0.5)
    made = {n: json.loads((tmp_path / "copy/annotations" / f"{n}.json").read_text()) for n in ("train", "val")}
    names = {n: {i["file_name"] for i in d["images"]} for n, d in made.items()}
    assert done.images == tmp_path / "data/images"
    assert len(names["train"] | names["val"]) == 5
    assert not names["train"] & names["val"]
    document["images"].reverse()  # the order in the file does not matter
    (tmp_path / "data/result.json").write_text(json.dumps(document))
    convert(tmp_path / "data", tmp_path / "again", val_share=0.5)
    again = json.loads((tmp_path / "again/annotations/val.json").read_text())["images"]
    assert {i["file_name"] for i in again} == names["val"]


# -- EXIF


@pytest.mark.parametrize("how", range(2, 9))
def test_a_box_as_shown_is_the_box_of_the_same_pixels(how: int) -> None:
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[10:15, 20:40] = 255  # stored: x 20, y 10, 20 x 5
    rows, columns = np.nonzero(turned(pixels, how)[..., 0])
    seen = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
    size = turned(pixels, how).shape[1::-1]
    assert stored_box([float(v) for v in seen], how, size) == [20, 10, 20, 5]


@pytest.mark.parametrize(("how", "exif"), [(6, "ignore"), (8, "ignore"), (3, "apply"), (5, "apply")])
def test_boxes_as_shown_go_back_to_the_stored_pixels(how: int, exif: Any, tmp_path: Path) -> None:
    exported(tmp_path / "data")
    file = tmp_path / "data/images/000000000008.png"
    inverse = {6: 8, 8: 6}.get(how, how)
    shown = np.asarray(Image.open(file))
    mark = Image.Exif()
    mark[0x0112] = how
    Image.fromarray(turned(shown, inverse)).save(file, exif=mark)
    done = convert(tmp_path / "data", tmp_path / "copy", exif=exif)
    assert "1 images with boxes as shown, turned back to the stored pixels" in done.lines[0]
    image = json.loads((tmp_path / "copy/annotations/val.json").read_text())["images"][0]
    (box,) = [a["bbox"] for a in json.loads((tmp_path / "copy/annotations/val.json").read_text())["annotations"][:1]]
    assert (image["width"], image["height"]) == ((48, 64) if how > 4 else (64, 48))
    assert box == stored_box([5, 6, 30, 20], how, (64, 48))


# -- other tools


def images(root: Path, train: str = "images/train", val: str = "images/val") -> None:
    for folder, numbers in ((train, (1, 2, 5)), (val, (8, 9))):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in numbers:
            Image.new("RGB", (64, 48), (i, 0, 0)).save(root / folder / f"{i}.png")


def yolo_lines(rows: list[tuple[Any, ...]], names: list[str]) -> str:
    return "".join(
        f"{names.index(n)} {(x + w / 2) / 64} {(y + h / 2) / 48} {w / 64} {h / 48}\n" for n, x, y, w, h in rows
    )


@pytest.mark.parametrize("style", ["list", "dict", "classes.txt", "roboflow"])
def test_yolo(style: str, tmp_path: Path) -> None:
    root, names = tmp_path / "data", ["cat", "dog", "newt"]
    folders = {"train": "images/train", "val": "images/val"}
    if style == "roboflow":
        folders = {"train": "train/images", "val": "valid/images"}
    images(root, *folders.values())
    for split, rows, numbers in (("train", TRAIN, (1, 2, 5)), ("val", VAL, (8, 9))):
        labels = root / folders[split].replace("images", "labels")
        labels.mkdir(parents=True)
        for number, row in zip(numbers, rows, strict=True):
            (labels / f"{number}.txt").write_text(yolo_lines(row, names))
    if style == "classes.txt":
        (root / "classes.txt").write_text("cat\ndog\nnewt\n")
    elif style == "roboflow":
        (root / "data.yaml").write_text(f"train: ../train/images\nval: ../valid/images\nnc: 3\nnames: {names}\n")
    else:
        listed = names if style == "list" else dict(enumerate(names))
        (root / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\nnames: {listed}\n")
    spec, done = converted(root, tmp_path / "copy")
    assert done.lines == ["train: 3 sizes taken from the images (1.png: 64 x 48, 2.png: 64 x 48, 5.png: 64 x 48)",
                          "val: 2 sizes taken from the images (8.png: 64 x 48, 9.png: 64 x 48)"]  # fmt: skip
    holds(spec, tmp_path / "stored")


@pytest.mark.parametrize(
    ("line", "says"),
    [("3 .5 .5 .1 .1", "class 3.0 is not in the list of 3 names"), ("0 .5 .5 .1", "not a line of YOLO"),
     ("cat .5 .5 .1 .1", "not a number: 'cat'"), ("0 nan .5 .1 .1", "not a number: 'nan'")],
)  # fmt: skip
def test_a_bad_line_of_yolo_is_named(line: str, says: str, tmp_path: Path) -> None:
    images(tmp_path / "data")
    (tmp_path / "data/labels/val").mkdir(parents=True)
    (tmp_path / "data/labels/val/8.txt").write_text(f"0 .5 .5 .1 .1\n{line}\n")
    (tmp_path / "data/data.yaml").write_text("train: images/train\nval: images/val\nnames: [a, b, c]\n")
    with pytest.raises(UserError, match=says) as error:
        convert(tmp_path / "data", tmp_path / "copy")
    assert error.value.where.endswith("labels/val/8.txt:2")


def test_a_polygon_of_yolo_is_its_box(tmp_path: Path) -> None:
    images(tmp_path / "data")
    for split, number in (("train", 1), ("val", 8)):
        (tmp_path / "data/labels" / split).mkdir(parents=True)
        (tmp_path / "data/labels" / split / f"{number}.txt").write_text("0 0.25 0.25 0.5 0.25 0.5 0.75\n")
    (tmp_path / "data/data.yaml").write_text("train: images/train\nval: images/val\nnames: [a]\n")
    spec, _ = converted(tmp_path / "data", tmp_path / "copy")
    assert boxes(stored(spec, "val", tmp_path / "stored")) == [[("a", 16, 12, 16, 24)], []]


def voc_file(rows: list[tuple[Any, ...]], name: str, one: int, difficult: int = 0) -> str:
    things = ""
    for n, x, y, w, h in rows:
        corners = {"xmin": x + one, "ymin": y + one, "xmax": x + w, "ymax": y + h}
        box = "".join(f"<{key}>{value}</{key}>" for key, value in corners.items())
        things += f"<object><name>{n}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>"
    size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{things}</annotation>"


@pytest.mark.parametrize("one", [1, 0])
def test_voc(one: int, tmp_path: Path) -> None:
    """Pixels counted from 1, both ends included; or from 0, which the box at x = 0 shows."""
    root = tmp_path / "data"
    images(root, "JPEGImages", "JPEGImages")
    (root / "Annotations").mkdir()
    (root / "ImageSets/Main").mkdir(parents=True)
    for split, rows, numbers in (("train", TRAIN, (1, 2, 5)), ("val", VAL, (8, 9))):
        (root / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{n}\n" for n in numbers))
        for number, row in zip(numbers, rows, strict=True):
            (root / "Annotations" / f"{number}.xml").write_text(voc_file(row, f"{number}.png", one))
    spec, done = converted(root, tmp_path / "copy")
    counted = "from 1, both ends included" if one else "from 0"
    assert done.lines == [f"{split}: pixels of VOC boxes counted {counted}" for split in ("train", "val")]
    holds(spec, tmp_path / "stored")


def test_datumaro(tmp_path: Path) -> None:
    root, names = tmp_path / "data", ["cat", "dog", "newt"]
    images(root)
    (root / "annotations").mkdir()
    for split, rows, numbers in (("train", TRAIN, (1, 2, 5)), ("val", VAL, (8, 9))):
        items = [
            {
                "id": str(number),
                "image": {"path": f"{number}.png", "size": [48, 64]},
                "annotations": [
                    {"type": "bbox", "label_id": names.index(n), "bbox": [x, y, w, h]} for n, x, y, w, h in row
                ],
            }
            for number, row in zip(numbers, rows, strict=True)
        ]
        document = {"categories": {"label": {"labels": [{"name": n} for n in names]}}, "items": items}
        (root / "annotations" / f"{split}.json").write_text(json.dumps(document))
    spec, done = converted(root, tmp_path / "copy")
    assert done.lines == []
    holds(spec, tmp_path / "stored")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no annotations of a known form"),
        ({"data.yaml": "names: [a, a]\ntrain: x\n"}, "two classes of one name"),
        ({"data.yaml": "{"}, "not valid YAML"),
        ({"data.yaml": "names: [a]\ntrain: nowhere\n"}, "data.yaml names nowhere, which is not there"),
        ({"a.xml": "<annotation><"}, "not valid XML"),
        ({"train.json": '{"items": [7]}'}, "not a folder of datumaro"),
        ({"train.json": "[" * 100_000}, "nested too deep"),
        ({"a/train.json": "{}", "b/train.json": "{}"}, "found no split"),
    ],
)
def test_a_folder_that_is_nothing_is_one_message(files: dict[str, str], says: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, text in files.items():
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_text(text)
    with pytest.raises(UserError, match=says):
        convert(tmp_path / "data", tmp_path / "copy")


def test_the_command_says_how_to_use_what_it_wrote(tmp_path: Path, bench: Bench) -> None:
    exported(tmp_path / "data", val=ids_as(str))
    ran = bench("data", "convert", tmp_path / "data", tmp_path / "copy")
    assert ran.code == 0, ran.err
    assert (
        f"use it: --data {tmp_path / 'copy'} --set data.name=coco --set data.images={tmp_path / 'data/images'}"
        in ran.out
    )
    (look,) = [
        line.partition("look at it: python -m bench ")[2] for line in ran.out.splitlines() if "look at it" in line
    ]
    checked = bench(*look.split())
    assert (checked.code, checked.out) == (0, "0 errors, 0 warnings\n")
    refused = bench("data", "convert", tmp_path / "data", tmp_path / "copy")
    assert (refused.code, "the folder exists" in refused.err) == (2, True)
    assert bench("data", "convert", tmp_path / "data", tmp_path / "x", "--images", "move").code == 2
    assert len(FOUND) == 2
