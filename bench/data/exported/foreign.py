"""Folders of other tools as COCO-like documents, for `data convert`: YOLO, Pascal VOC, CVAT for images, Datumaro.

Separate from convert.py, which mends documents and writes them. A reader gives the splits that a folder has; where a
tool writes one file for everything, the split is named "all" and is divided afterwards. Boxes are x, y, width, height
in pixels of the image as its tool shows it; sizes that a format does not hold are left to the images.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.data.split import Document, read_json
from bench.data.values import Unreadable, number, shown
from bench.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
TRAIN, VAL = ("train", "training", "trainval"), ("val", "valid", "validation", "dev", "test")


@dataclass
class Foreign:
    """One split: a document whose image names are relative to `base`, and boxes in fractions of the image where asked.

    Attributes:
        document: images, annotations, categories.
        base: folder that image names start from.
        file: what to blame.
        fractions: whether boxes are YOLO's: centre and size as fractions of the image.
    """

    document: Document
    base: Path
    file: Path
    fractions: bool = False
    notes: list[str] = field(default_factory=list)


class Builder:
    """Collects a document; classes are numbered from 1 as they come, images and boxes too."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.images: list[Document] = []
        self.annotations: list[Document] = []
        self.classes: dict[str, int] = {}
        for name in names:
            self.class_of(name)

    def class_of(self, name: str) -> int:
        return self.classes.setdefault(name, len(self.classes) + 1)

    def image(self, name: str, width: Any = None, height: Any = None) -> int:
        self.images.append({"id": len(self.images) + 1, "file_name": name, "width": width, "height": height})
        return len(self.images)

    def box(self, image: int, category: int, box: list[Any], **more: Any) -> None:
        row = {"id": len(self.annotations) + 1, "image_id": image, "category_id": category, "bbox": box}
        self.annotations.append(row | {"iscrowd": 0} | more)

    def document(self) -> Document:
        categories = [{"id": i, "name": name} for name, i in self.classes.items()]
        return {"images": self.images, "annotations": self.annotations, "categories": categories}


# -- YOLO: data.yaml (names, path, train, val) and a .txt of lines "class cx cy w h" for each image


def yolo(root: Path) -> dict[str, Foreign]:
    """The splits of a YOLO folder. Lines of more than five numbers are polygons; their box is taken."""
    file = next((f for f in (root / "data.yaml", root / "data.yml", *sorted(root.glob("*.y*ml"))) if f.is_file()), None)
    settings = _yaml(file) if file else {}
    names = _yolo_names(settings.get("names"), root, file)
    found = {}
    for split, words in (("train", TRAIN), ("val", VAL)):
        given = next((settings[word] for word in words if settings.get(word)), None)
        places = _yolo_places(root, settings, given) if given else _existing(root, words)
        if places:
            found[split] = _yolo_split(root, places, names, file or root)
    return found


def _yolo_split(root: Path, places: list[Path], names: list[str], blamed: Path) -> Foreign:
    built = Builder(names)
    for image in sorted(_images(places)):
        identity = built.image(_relative(image, root))
        labels = _label_file(image)
        for at, line in enumerate(_lines(labels), start=1) if labels else ():
            where = f"{labels}:{at}"
            values = [_number(word, where) for word in line.split()]
            if len(values) not in (5, 6) and (len(values) < 7 or len(values) % 2 == 0):
                raise UserError(
                    f"not a line of YOLO: {shown(line)}", where=where, allowed="class cx cy w h, or a polygon"
                )
            kind = values[0]
            if kind != int(kind) or not 0 <= kind < len(names):
                what = f"class {shown(kind)} is not in the list of {len(names)} names"
                raise UserError(what, where=where, hint="complete `names` in data.yaml, or classes.txt")
            box = values[1:5] if len(values) < 7 else _around(values[1::2], values[2::2])
            built.box(identity, int(kind) + 1, box)
    return Foreign(built.document(), root, blamed, fractions=True)


def _yolo_names(names: Any, root: Path, file: Path | None) -> list[str]:
    if isinstance(names, dict):
        numbered = {int(_number(str(k), str(file))): v for k, v in names.items()}
        names = [numbered.get(i, f"class {i}") for i in range(max(numbered, default=-1) + 1)]
    if names is None:
        listed = next((f for f in root.rglob("classes.txt") if f.is_file()), None)
        names = _lines(listed) if listed else None
    if not isinstance(names, list) or not names:
        raise UserError("no names of classes", where=str(file or root), allowed="`names` in data.yaml, or classes.txt")
    texts = [str(name) for name in names]
    if len(set(texts)) != len(texts):
        raise UserError("two classes of one name", where=str(file or root))
    return texts


def _yolo_places(root: Path, settings: Document, given: Any) -> list[Path]:
    """Folders or lists of images as data.yaml names them: below `path`, below the file, or with a ../ too many."""
    base = root / str(settings.get("path") or "")
    places = []
    for one in given if isinstance(given, list) else [given]:
        text = str(one).replace("\\", "/")
        tried = [base / text, root / text, root / text.removeprefix("../"), root / text.removeprefix("./")]
        place = next((p for p in tried if p.exists()), None)
        if place is None:
            raise UserError(f"data.yaml names {shown(text)}, which is not there", where=str(root))
        places.append(place)
    return places


def _label_file(image: Path) -> Path | None:
    parts = list(image.parts)
    tried = [image.with_suffix(".txt")]
    for at in range(len(parts) - 1, -1, -1):
        if parts[at] == "images":
            tried.insert(0, Path(*parts[:at], "labels", *parts[at + 1 :]).with_suffix(".txt"))
            break
    return next((p for p in tried if p.is_file()), None)


# -- Pascal VOC: an XML file for each image


def voc(root: Path) -> dict[str, Foreign]:
    """The splits of a VOC folder: by ImageSets/Main/{train,val}.txt, or by folders train and val(id)."""
    sets = next((p for p in root.rglob("ImageSets/Main") if p.is_dir()), None)
    files: dict[str, list[Path]] = {}
    if sets is not None:
        folder = next((p for p in sets.parent.parent.glob("[Aa]nnotations") if p.is_dir()), sets.parent.parent)
        for split, words in (("train", TRAIN), ("val", VAL)):
            listed = next((sets / f"{word}.txt" for word in words if (sets / f"{word}.txt").is_file()), None)
            if listed is not None:
                stems = [line.split()[0] for line in _lines(listed)]
                files[split] = [folder / f"{stem}.xml" for stem in stems]
    else:
        for split, words in (("train", TRAIN), ("val", VAL)):
            inside = [f for place in _existing(root, words) for f in sorted(place.rglob("*.xml"))]
            if inside:
                files[split] = inside
        if not files:
            files["all"] = sorted(root.rglob("*.xml"))
    trees = {split: [(file, _xml(file)) for file in listed] for split, listed in files.items()}
    corners = [
        _corners(box, str(file)) for rows in trees.values() for file, tree in rows for box in tree.iter("bndbox")
    ]
    # VOC counts pixels from 1, both ends included; a box that begins at 0 shows that the tool did not.
    one = 0 if any(x < 1 or y < 1 for x, y, _, _ in corners) else 1
    return {split: _voc_split(root, rows, one) for split, rows in trees.items()}


def _voc_split(root: Path, rows: list[tuple[Path, ET.Element]], one: int) -> Foreign:
    built = Builder()
    for file, tree in rows:
        name = (tree.findtext("filename") or file.stem).strip()
        identity = built.image(name, tree.findtext("size/width"), tree.findtext("size/height"))
        for thing in tree.iter("object"):
            box = thing.find("bndbox")
            if box is None:
                continue
            x, y, right, bottom = _corners(box, str(file))
            label = (thing.findtext("name") or "").strip()
            difficult = (thing.findtext("difficult") or "0").strip() == "1"
            more = {"ignore": 1} if difficult else {}  # VOC's evaluation leaves difficult ones out, as `ignore` does
            built.box(identity, built.class_of(label), [x - one, y - one, right - x + one, bottom - y + one], **more)
    base = "from 1, both ends included" if one else "from 0"
    return Foreign(built.document(), root, rows[0][0] if rows else root, notes=[f"pixels of VOC boxes counted {base}"])


def _corners(box: ET.Element, where: str) -> tuple[float, float, float, float]:
    x, y, right, bottom = (_number(box.findtext(k) or "", where) for k in ("xmin", "ymin", "xmax", "ymax"))
    return x, y, right, bottom


# -- CVAT for images 1.1: one XML file, whose images may name a subset


def cvat(root: Path) -> dict[str, Foreign]:
    """The splits of CVAT's XML: by file name, by the images' subset, or "all"."""
    found: dict[str, Foreign] = {}
    builders: dict[str, Builder] = {}
    files = sorted(f for f in root.rglob("*.xml") if _xml(f).tag == "annotations")
    names = [str(label.text) for f in files for label in _xml(f).iterfind(".//labels/label/name")]
    for file in files:
        for image in _xml(file).iterfind("image"):
            split = (
                split_named(image.get("subset") or "")
                or split_named(file.stem)
                or split_named(file.parent.name)
                or "all"
            )
            built = builders.setdefault(split, Builder(names))
            identity = built.image(image.get("name") or "", image.get("width"), image.get("height"))
            for shape in image:
                box = _cvat_box(shape, str(file))
                if box is not None:
                    built.box(identity, built.class_of(shape.get("label") or ""), box)
            found[split] = Foreign(built.document(), root, file)
    return found


def _cvat_box(shape: ET.Element, where: str) -> list[float] | None:
    if shape.tag == "box":
        x, y, right, bottom = (_number(shape.get(k) or "", where) for k in ("xtl", "ytl", "xbr", "ybr"))
        return [x, y, right - x, bottom - y]
    if shape.tag == "polygon":
        points = [pair.split(",") for pair in (shape.get("points") or "").split(";") if pair]
        xs, ys = ([_number(p[i] if len(p) == 2 else "", where) for p in points] for i in (0, 1))
        return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)] if xs else None
    return None


# -- Datumaro's own JSON: items with annotations, labels by position


def datumaro(root: Path) -> dict[str, Foreign]:
    """The splits of a Datumaro folder, a JSON file each."""
    found = {}
    for file in sorted(root.rglob("*.json")):
        document = read_json(file)
        items = document.get("items")
        if not isinstance(items, list):
            continue
        labels = document.get("categories", {}).get("label", {}).get("labels", [])
        built = Builder(str(label.get("name")) for label in labels)
        for item in items:
            image = item.get("image") or {}
            height, width = (image.get("size") or [None, None])[:2]
            identity = built.image(str(image.get("path") or item.get("id")), width, height)
            for a in item.get("annotations") or []:
                if a.get("type") == "bbox":
                    built.box(identity, int(_number(str(a.get("label_id")), str(file))) + 1, a.get("bbox"))
        found[split_named(file.stem) or "all"] = Foreign(built.document(), root, file)
    return found


# -- what they share


def split_named(text: str) -> str | None:
    """The split that a file or folder name says: "train", "val", or None."""
    words = text.lower().replace("-", "_").replace(".", "_").split("_")
    for split, names in (("train", TRAIN), ("val", VAL)):
        if any(word.rstrip("0123456789") in names for word in words):
            return split
    return None


def _existing(root: Path, words: tuple[str, ...]) -> list[Path]:
    """The first of these folders there are: images/train, train/images, train."""
    for word in words:
        for place in (root / "images" / word, root / word / "images", root / word):
            if place.is_dir():
                return [place]
    return []


def _images(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_file():  # a list of images, a line each
            for line in _lines(place):
                yield place.parent / line if not Path(line).is_absolute() else Path(line)
        else:
            yield from (f for f in place.rglob("*") if f.suffix.lower() in SUFFIXES)


def _relative(file: Path, root: Path) -> str:
    try:
        return file.relative_to(root).as_posix()
    except ValueError:
        return file.as_posix()


def _around(xs: list[float], ys: list[float]) -> list[float]:
    """Centre and size of the box around points."""
    return [(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)]


def _number(text: str, where: str) -> float:
    try:
        return float(number(text)[0])
    except Unreadable:
        raise UserError(f"not a number: {shown(text)!r}", where=where) from None


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read it: {shown(str(error))}", where=str(file)) from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _yaml(file: Path) -> Document:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"not valid YAML: {shown(str(error))}", where=str(file)) from None
    if not isinstance(found, dict):
        raise UserError("not a mapping", where=str(file), allowed="names, train, val, path")
    return found


def _xml(file: Path) -> ET.Element:
    try:
        return ET.parse(file).getroot()
    except (OSError, ET.ParseError, ValueError) as error:
        raise UserError(f"not valid XML: {shown(str(error))}", where=str(file)) from None
