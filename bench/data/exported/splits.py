"""Which splits an exported folder has, and in which form. Separate from convert.py, which mends and writes them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench.data.entries import sections
from bench.data.exported.foreign import Foreign, cvat, datumaro, split_named, voc, yolo
from bench.data.names import candidates
from bench.data.split import read_json
from bench.data.values import Unreadable, shown, whole
from bench.errors import UserError

FORMS: Mapping[str, Callable[[Path], dict[str, Foreign]]] = {
    "yolo": yolo,
    "voc": voc,
    "cvat": cvat,
    "datumaro": datumaro,
}
JSON_FORMS = ("coco", "lvis", "labelstudio")  # documents of the same form, whose files lie elsewhere
SPLITS = ("train", "val")
_DEPTH = 4  # folders below the source in which files are looked for


def splits_of(source: Path, form: str, train: str, val: str) -> dict[str, Foreign]:
    """The splits of a folder: train and val, or "all" where it has one.

    Raises:
        UserError: nothing of a known form is there, or it cannot be told which file is which split.
    """
    legal = ("auto", *JSON_FORMS, *FORMS)
    if form not in legal:
        raise UserError(f"'{shown(form)}' is no format", where="--format", allowed=", ".join(legal))
    if train or val:
        named = {"train": train, "val": val}
        return {split: _json_split(source / name) for split, name in named.items() if name}
    if form == "auto":
        form = _recognised(source)
    if form in FORMS:
        try:
            found = FORMS[form](source)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"not a folder of {form}: {shown(str(error))}", where=str(source)) from None
        return {split: one for split, one in found.items() if one.document["images"]}
    return _json_splits(source)


def _recognised(source: Path) -> str:
    files = _files(source)
    if any(f.name in ("data.yaml", "data.yml", "classes.txt") for f in files):
        return "yolo"
    documents = [f for f in files if f.suffix.lower() == ".json"]
    if documents and not all("items" in read_json(f) for f in documents[:1]):
        return "coco"
    if documents:
        return "datumaro"
    tables = [f for f in files if f.suffix.lower() == ".xml"]
    if tables:
        with tables[0].open("rb") as stream:
            return "cvat" if b"<annotations" in stream.read(400) else "voc"
    allowed = ", ".join((*JSON_FORMS, *FORMS))
    raise UserError("no annotations of a known form", where=str(source), allowed=allowed, hint="name it with --format")


def _json_splits(source: Path) -> dict[str, Foreign]:
    """COCO files by their names, or by that of their folder."""
    found: dict[str, list[Path]] = {}
    for file in _files(source):
        if file.suffix.lower() == ".json":
            split = split_named(file.stem) or split_named(file.parent.name) or "all"
            found.setdefault(split, []).append(file)
    chosen: dict[str, Foreign] = {}
    for split, files in found.items():
        usable = [f for f in files if {"images", "annotations", "categories"} <= read_json(f).keys()]
        likely = [f for f in usable if "test" not in f.stem and f.parent.name != "test"] or usable
        boxes = [f for f in likely if f.name.startswith("instances_")] or likely
        if len(boxes) > 1:
            names = ", ".join(f.relative_to(source).as_posix() for f in boxes[:6])
            what = f"several annotation files for {split}: {names}"
            raise UserError(what, where=str(source), hint="name them: --train FILE --val FILE")
        if boxes:
            chosen[split] = _json_split(boxes[0])
    if set(SPLITS) <= chosen.keys():
        chosen.pop("all", None)
    return chosen


def _json_split(file: Path) -> Foreign:
    return Foreign(sections(read_json(file), file), file.parent, file)


def divided(whole_set: Foreign, share: float) -> dict[str, Foreign]:
    """Train and val of one split, by a hash of each image's name, so that it does not depend on their order."""
    if not 0 < share < 1:
        hint = "divide it: --val-share 0.2 takes that share of the images as val, chosen by a hash of their names"
        raise UserError("there is no val split", where=str(whole_set.file), hint=hint)
    document = whole_set.document
    names = {token_of(i.get("id")): "".join(candidates(i)) for i in document["images"] if isinstance(i, dict)}
    val = {
        k for k, name in names.items() if int(sha256(name.encode(errors="replace")).hexdigest()[:8], 16) < share * 2**32
    }
    made = {}
    for split, inside in (("train", names.keys() - val), ("val", val)):
        images = [i for i in document["images"] if isinstance(i, dict) and token_of(i.get("id")) in inside]
        boxes = [a for a in document["annotations"] if isinstance(a, dict) and token_of(a.get("image_id")) in inside]
        part = {**document, "images": images, "annotations": boxes}
        made[split] = Foreign(part, whole_set.base, whole_set.file, whole_set.fractions, list(whole_set.notes))
    return made


def _files(source: Path) -> list[Path]:
    """Files that may hold annotations, some folders deep."""
    found = []
    for folder, inside, names in os.walk(source):
        if len(Path(folder).relative_to(source).parts) >= _DEPTH:
            inside.clear()
        wanted = (".json", ".xml", ".yaml", ".yml")
        found += [Path(folder) / n for n in sorted(names) if n.lower().endswith(wanted) or n == "classes.txt"]
        inside.sort()
    return found


def token_of(value: Any) -> str:
    """An id as a name: 25, 25.0 and "25" are one, and an object or text is one too."""
    try:
        return str(whole(value)[0])
    except Unreadable:
        pass
    try:
        return json.dumps(value, sort_keys=True)
    except (ValueError, RecursionError):
        return shown(value)
