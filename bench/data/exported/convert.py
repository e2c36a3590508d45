"""A mended copy of data that a tool exported, as a folder that the readers take without a note. Separate from the
readers, which refuse or note what is not clean, and from foreign.py, which reads the formats of other tools.

What is done: ids become numbers from 1; numbers written as text are parsed; sizes are taken from the images; a box that
is missing is taken from its polygons; boxes drawn on images as they are shown (EXIF) go back to the stored pixels; val
takes the classes of train by name; an image that is listed twice becomes one. What cannot be mended is left out and
said. Masks and fields that are not read are not copied. Nothing is overwritten, and the source is not touched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.data.entries import LISTS, entries_of
from bench.data.exported.foreign import Foreign
from bench.data.exported.images import Finder, Picture, picture_of, stored_box
from bench.data.exported.splits import SPLITS, divided, splits_of, token_of
from bench.data.kinds import first_error
from bench.data.names import candidates
from bench.data.pixels import TURNED
from bench.data.split import Document, write_json
from bench.data.values import Unreadable, class_name, number, several, shown, whole
from bench.errors import UserError

Transfer = Literal["none", "link", "copy"]


@dataclass
class Converted:
    """What was written.

    Attributes:
        form: `data.name` for it: "coco", or "lvis" where images list the classes that they lack.
        images: the folder of the images, absolute; None: the folder's own `images`.
        lines: what was mended and left out, a line for each kind and split.
    """

    form: str
    images: Path | None
    lines: list[str]


@dataclass
class _Done:
    """How often each thing was done, with a few entries."""

    said: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, entry: str) -> None:
        self.said.setdefault(what, []).append(entry)

    def lines(self, split: str) -> list[str]:
        return [
            f"{split}: {len(entries):,} {what} ({several(entries, len(entries))})"
            for what, entries in self.said.items()
        ]


def convert(
    source: Path,
    target: Path,
    form: str = "auto",
    *,
    train: str = "",
    val: str = "",
    transfer: Transfer = "none",
    exif: Literal["ignore", "apply"] = "ignore",
    val_share: float = 0.0,
) -> Converted:
    """Write `target`/annotations/train.json and val.json from a folder of any known form.

    Args:
        form: "auto", or one of FORMS and JSON_FORMS.
        train, val: annotation files below `source`, where they are not found by their names.
        transfer: whether the images are linked or copied into `target`/images; "none": they stay where they are.
        exif: "apply": boxes were drawn on the images as viewers show them, also where sizes cannot show it.
        val_share: of a folder without a val split: this share of its images becomes one, chosen by a hash of their
            names.

    Raises:
        UserError: it cannot be read, or something in it has two meanings, or `target` is there.
    """
    if target.exists():
        raise UserError("the folder exists", where=str(target), hint="name another one: nothing is overwritten")
    if not source.is_dir():
        raise UserError("no such folder", where=str(source))
    splits = splits_of(source, form, train, val)
    if "all" in splits or set(splits) == {"train"}:
        splits = divided(next(iter(splits.values())), val_share)
    if set(splits) != set(SPLITS):
        raise UserError(
            f"found {', '.join(sorted(splits)) or 'no split'}", where=str(source), allowed="a train and a val split"
        )
    finder = Finder(source)
    done = {split: _Done() for split in SPLITS}
    classes = _classes(splits, done["val"])
    made = {split: _mended(split, splits[split], classes, finder, exif, done[split]) for split in SPLITS}
    lists = any(image.get(key) for document, _ in made.values() for image in document["images"] for key in LISTS)
    _verify(made, target, lists)
    images = _write(made, source, target, transfer)
    lines = [
        line
        for split in SPLITS
        for line in [f"{split}: {note}" for note in splits[split].notes] + done[split].lines(split)
    ]
    return Converted("lvis" if lists else "coco", images, lines)


# -- classes: those of train, under their names


@dataclass
class _Classes:
    """Names in the order of their numbers from 1; per split the number of each id as it is written."""

    names: list[str]
    numbers: dict[str, dict[str, int]]


def _classes(splits: Mapping[str, Foreign], done: _Done) -> _Classes:
    named = {split: _named(one, splits) for split, one in splits.items()}
    names = list(dict.fromkeys(named["train"].values()))
    if len(names) != len(named["train"]):
        raise UserError("class names occur more than once", where=str(splits["train"].file), hint="rename one of them")
    position = {name: i for i, name in enumerate(names, start=1)}
    own = {name: token for token, name in named["train"].items()}
    used = {token_of(a.get("category_id")) for a in splits["val"].document["annotations"] if isinstance(a, dict)}
    lacking = sorted(name for token, name in named["val"].items() if name not in position and token in used)
    if lacking:
        what = f"classes of val that train lacks ({len(lacking)})"
        raise UserError(f"{what}: {several(lacking, len(lacking))}", where=str(splits["val"].file))
    for token, name in named["val"].items():
        if own.get(name, token) != token:
            done.add("classes mapped to the ids of train by their names", f"{name}: {token} is {own[name]}")
    numbers = {split: {t: position[n] for t, n in pairs.items() if n in position} for split, pairs in named.items()}
    for token, name in named["train"].items():  # val may leave out its list
        if not named["val"]:
            numbers["val"][token] = position[name]
    return _Classes(names, numbers)


def _named(one: Foreign, splits: Mapping[str, Foreign]) -> dict[str, str]:
    """Token of each category's id -> its name, which the other file may have."""
    named: dict[str, str] = {}
    for row in one.document["categories"]:
        if not isinstance(row, dict) or "id" not in row:
            raise UserError(f"a category without an id: {shown(row)}", where=str(one.file))
        token, name = token_of(row["id"]), row.get("name")
        if name is None or name == "":
            rows = [r for s in splits.values() for r in s.document["categories"] if isinstance(r, dict)]
            others = [r["name"] for r in rows if token_of(r.get("id")) == token and r.get("name") not in (None, "")]
            name = others[0] if others else None
        try:
            text = class_name(name, int(token) if token.lstrip("-").isdigit() else len(named) + 1)[0].strip()
        except Unreadable as error:
            raise UserError(f"category {shown(row)}: {error}", where=str(one.file)) from None
        if token in named:
            raise UserError(f"category id {shown(token)} occurs more than once", where=str(one.file))
        named[token] = text
    return named


# -- images and boxes


def _mended(
    split: str, one: Foreign, classes: _Classes, finder: Finder, exif: str, done: _Done
) -> tuple[Document, list[Path]]:
    """The clean document of a split, and the file of each of its images."""
    numbers = classes.numbers[split]
    images: list[Document] = []
    files: list[Path] = []
    number_of: dict[str, int] = {}
    pictures: dict[int, tuple[Picture, bool]] = {}
    at: dict[Path, int] = {}
    for row in one.document["images"]:
        picture = _picture(row, split, one, finder, done)
        if picture is None:
            continue
        token = token_of(row.get("id"))
        if token in number_of:
            raise UserError(f"image id {shown(token)} occurs more than once", where=str(one.file))
        real = picture.file.resolve()
        if real in at:
            done.add("images listed twice made one", shown(picture.file.name))
            number_of[token] = at[real]
            continue
        number_of[token] = at[real] = len(images) + 1
        image = {"id": at[real], "file_name": picture.file.name, "width": picture.size[0], "height": picture.size[1]}
        for key in LISTS:
            if isinstance(row.get(key), list):
                image[key] = sorted({numbers[t] for t in map(token_of, row[key]) if t in numbers})
        pictures[at[real]] = (picture, _shown_frame(row, picture, exif, one, done))
        images.append(image)
        files.append(picture.file)
    boxes = _boxes(one, number_of, numbers, pictures, done)
    categories = [{"id": i, "name": name} for i, name in enumerate(classes.names, start=1)]
    return {"images": images, "annotations": boxes, "categories": categories}, files


def _picture(row: Any, split: str, one: Foreign, finder: Finder, done: _Done) -> Picture | None:
    names = candidates(row) if isinstance(row, dict) else ()
    file = finder.find(names, split, one) if names else None
    if file is None:
        done.add("images left out that were not found", " or ".join(names) or shown(row))
        return None
    picture = picture_of(file)
    if picture is None:
        done.add("images left out that cannot be opened", shown(file.name))
    return picture


def _shown_frame(row: Document, picture: Picture, exif: str, one: Foreign, done: _Done) -> bool:
    """Whether the boxes of an image are in the frame that viewers show.

    Raises:
        UserError: its size is of neither frame.
    """
    turned = picture.size[::-1] if picture.turn in TURNED else picture.size
    label = f"{shown(picture.file.name)}: {picture.size[0]} x {picture.size[1]}"
    try:
        said = tuple(whole(row.get(side))[0] for side in ("width", "height"))
    except Unreadable:
        said = (0, 0)
    if min(said) <= 0:
        done.add("sizes taken from the images", label)
        said = turned if exif == "apply" else picture.size
    if said not in (picture.size, turned):
        what = f"image of another size than annotated, {label}, not {shown(said[0])} x {shown(said[1])}"
        raise UserError(what, where=str(one.file), hint="boxes refer to the annotated size: use the original images")
    shown_too = picture.turn != 1 and (said != picture.size or exif == "apply")
    if shown_too:
        done.add(
            "images with boxes as shown, turned back to the stored pixels",
            f"{shown(picture.file.name)}: {picture.turn}",
        )
    elif picture.turn != 1:
        done.add(
            "images with an EXIF orientation, boxes taken as stored (--exif apply: as shown)", shown(picture.file.name)
        )
    return shown_too


def _boxes(
    one: Foreign,
    number_of: Mapping[str, int],
    numbers: Mapping[str, int],
    pictures: Mapping[int, tuple[Picture, bool]],
    done: _Done,
) -> list[Document]:
    boxes: list[Document] = []
    seen: set[tuple[Any, ...]] = set()
    for position, row in enumerate(one.document["annotations"]):
        label = f"annotation {shown(row.get('id', position)) if isinstance(row, dict) else f'entry {position}'}"
        image = number_of.get(token_of(row.get("image_id"))) if isinstance(row, dict) else None
        category = numbers.get(token_of(row.get("category_id"))) if isinstance(row, dict) else None
        if image is None or category is None:
            done.add("boxes left out whose image or class is not there", label)
            continue
        picture, as_shown = pictures[image]
        size = picture.size[::-1] if as_shown and picture.turn in TURNED else picture.size
        box = _box(row, size if one.fractions else None)
        if box is None:
            done.add("boxes left out that are not four finite numbers", f"{label}: {shown(row.get('bbox'))}")
            continue
        if as_shown:
            box = stored_box(box, picture.turn, size)
        same = (image, category, *box)
        if same in seen:
            done.add("boxes left out that occur twice", label)
            continue
        seen.add(same)
        clean: Document = {"id": len(boxes) + 1, "image_id": image, "category_id": category, "bbox": box}
        clean |= {key: row[key] for key in ("area", "iscrowd", "ignore", "segmentation") if key in row}
        boxes.append(clean)
    return boxes


def _box(row: Document, fractions_of: tuple[int, int] | None) -> list[float] | None:
    value = row.get("bbox")
    if value is None:
        value = _polygon_box(row.get("segmentation"))
    if not isinstance(value, list) or len(value) != 4:
        return None
    try:
        x, y, w, h = (number(v)[0] for v in value)
    except Unreadable:
        return None
    if max(abs(x), abs(y), abs(w), abs(h)) >= 1e9:
        return None
    if fractions_of is None:
        return [x, y, w, h]
    width, height = fractions_of
    return [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]


def _polygon_box(parts: Any) -> list[float] | None:
    if not isinstance(parts, list) or not parts or not all(isinstance(p, list) and len(p) >= 6 for p in parts):
        return None
    try:
        values = [number(v)[0] for part in parts for v in part[: len(part) // 2 * 2]]
    except Unreadable:
        return None
    xs, ys = values[0::2], values[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


# -- writing


def _verify(made: Mapping[str, tuple[Document, list[Path]]], target: Path, lists: bool) -> None:
    """Read the documents as the readers will, and take over what they would note.

    Raises:
        UserError: what is left has a fault that cannot be mended.
    """
    for split, (document, _) in made.items():
        entries = entries_of(document, target / "annotations" / f"{split}.json", lists=lists)
        error = first_error(Path(split), entries.summary.faults)
        if error is not None:
            raise UserError(f"after mending: {error.what}", where=error.where)
        rows = []
        for a in entries.annotations:
            a.pop("segmentation", None)
            rows.append(a)
        document["annotations"] = rows


def _write(
    made: Mapping[str, tuple[Document, list[Path]]], source: Path, target: Path, transfer: Transfer
) -> Path | None:
    """Write the documents last, so that a folder with both is whole; returns where the images are, if not in it."""
    every = [str(f.absolute()) for _, files in made.values() for f in files]
    root = Path(
        os.path.commonpath([*every, str(source.absolute())] if not every else [os.path.dirname(f) for f in every])
    )
    try:
        (target / "annotations").mkdir(parents=True)
        for split, (document, files) in made.items():
            for image, file in zip(document["images"], files, strict=True):
                inside = file.absolute().relative_to(root).as_posix()
                image["file_name"] = inside if transfer == "none" else f"{split}/{inside.removeprefix(f'{split}/')}"
                if transfer != "none":
                    _transfer(file, target / "images" / image["file_name"], transfer)
        for split, (document, _) in made.items():
            write_json(target / "annotations" / f"{split}.json", document)
    except OSError as error:
        raise UserError(f"cannot write it: {error.strerror}", where=str(error.filename or target)) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"cannot be written as JSON: {shown(str(error))}", where=str(target)) from None
    return root if transfer == "none" else None


def _transfer(file: Path, place: Path, transfer: Transfer) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if transfer == "copy":
        shutil.copyfile(file, place)
    else:
        place.symlink_to(file.resolve())
