"""Annotation files that went wrong: a generator with a seed, aware of the structure. Separate so that longer runs can
use it.

    python -m tests.faults.fuzz_annotations SEED NUMBER

Each case is a small valid file with one to three changes of entries, fields, values or of the text itself.
"""

from __future__ import annotations

import copy
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.data import coco, lvis
from bench.data.check import check, fill_negatives
from bench.data.exported.convert import convert
from bench.data.split import NoPixels, from_document, write_json
from bench.errors import UserError
from bench.spec import FolderData

Document = dict[str, Any]
IMAGES = {"train": (1, 2, 3), "val": (4, 5)}
LONGEST = 2000  # characters of a message
ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        [],
        {},
        [[]],
        [None],
        [1, 2, 3, 4],
        ["1", "2", "3", "4"],
        [[[[1]]]],
        {"$oid": "0019"},
        {"id": 1},
    ),
    *("", " ", "25", " 7 ", "7.0", "-1", "1e3", "NaN", "abc", "1_000", "\u0661", "x" * 5000),
    *(0, 1, 2, -1, 25.0, 2.5, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
    *(2**31, 2**53 + 1, 2**63, -(2**63), 10**400, 10**4000),
    *("\x00", "a\x00b.png", "\ud800", "\udcff", "\u202egnp.1", "\x1b[31mred\x1b[0m", "a\nb", "[red]1[/]"),
    *("../../etc/passwd", "/etc/passwd", "..\\..\\x", "images\\1.png", "images/1.png", "./1.png", "1.PNG", "%31.png"),
    *("1.png/", ".", "..", "con", "http://[", "C:\\data\\images\\1.png"),
)


def base(split: str) -> Document:
    """A valid file: two classes, a box or two an image, lists as LVIS has them."""
    images = [
        {
            "id": i,
            "file_name": f"{i}.png",
            "width": 32,
            "height": 24,
            "neg_category_ids": [2],
            "not_exhaustive_category_ids": [],
        }
        for i in IMAGES[split]
    ]
    boxes = [(i, 1 + i % 2, [2, 3, 10 + i, 8]) for i in IMAGES[split]] + [(IMAGES[split][0], 2, [5, 5, 6, 6])]
    annotations = [
        {
            "id": n,
            "image_id": i,
            "category_id": c,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            "segmentation": [],
        }
        for n, (i, c, box) in enumerate(boxes, start=1)
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }


def cases(seed: int, number: int) -> Iterator[tuple[str, bytes]]:
    """(the split whose file it is, its bytes); the same for the same seed."""
    for n in range(number):
        rng = random.Random(f"{seed} {n}")
        split = rng.choice(("train", "val"))
        document = base(split)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            rng.choice(CHANGES)(document, rng)
        text = json.dumps(document)  # NaN and the like as Python and many tools write them
        yield split, (rng.choice(TEXTS)(text, rng) if rng.random() < 0.15 else text.encode("utf-8", "surrogatepass"))


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    if isinstance(value, dict):
        for key in value:
            yield from _paths(value[key], (*at, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _paths(inner, (*at, i))


def _place(document: Document, rng: random.Random) -> tuple[Any, Any]:
    """A container in the document and a key of it; the deeper ones are as likely as the others."""
    paths = list(_paths(document))
    depth = rng.randint(1, 4)
    *above, last = rng.choice([p for p in paths if len(p) == depth] or paths)
    for key in above:
        document = document[key]
    return document, last


def _replace(document: Document, rng: random.Random) -> None:
    container, key = _place(document, rng)
    container[key] = copy.deepcopy(rng.choice(ODD))


def _field(document: Document, rng: random.Random) -> None:
    """A known field of one entry, or of all of them."""
    fields = (
        "id",
        "image_id",
        "category_id",
        "bbox",
        "area",
        "iscrowd",
        "ignore",
        "segmentation",
        "file_name",
        "coco_url",
    )
    key = rng.choice((*fields, "width", "height", "name", "neg_category_ids", "not_exhaustive_category_ids"))
    rows = [r for s in document.values() if isinstance(s, list) for r in s if isinstance(r, dict)]
    named = [r for r in rows if key in r] or rows
    odd = rng.choice(ODD)
    for row in named if rng.random() < 0.3 else named[:1]:
        row[key] = copy.deepcopy(odd)


def _remove(document: Document, rng: random.Random) -> None:
    container, key = _place(document, rng)
    del container[key]


def _repeat(document: Document, rng: random.Random) -> None:
    section = rng.choice([s for s in document.values() if isinstance(s, list) and s] or [[0]])
    row = rng.choice(section)
    section.append(dict(row) if isinstance(row, dict) else row)


def _deep(document: Document, rng: random.Random) -> None:
    value: Any = 1
    for _ in range(rng.choice((10, 100, 280))):  # three of them: what Python can write
        value = [value] if rng.random() < 0.5 else {"a": value}
    container, key = _place(document, rng)
    container[key] = value


def _ids_as(document: Document, rng: random.Random) -> None:
    """All ids of one kind in another form."""
    form: Callable[[Any], Any] = rng.choice((str, float, lambda i: -i, lambda i: i + 2**60, lambda i: {"$oid": str(i)}))
    which = rng.choice(("id", "image_id", "category_id"))
    for section in document.values():
        for row in section if isinstance(section, list) else ():
            if isinstance(row, dict) and type(row.get(which)) is int:
                row[which] = form(row[which])


CHANGES = (_replace, _field, _field, _field, _remove, _repeat, _deep, _ids_as)
TEXTS: tuple[Callable[[str, random.Random], bytes], ...] = (
    lambda text, rng: text.encode("utf-8", "replace")[: rng.randint(0, len(text))],
    lambda text, rng: b"\xef\xbb\xbf" + text.encode("utf-8", "replace"),
    lambda text, rng: text.encode("utf-16", "replace"),
    lambda text, rng: text.encode("utf-8", "replace").replace(b'"', b"\xff", 1),
    lambda text, rng: b"[" * 100_000,
    lambda text, rng: text.replace("[]", "[" * 930 + "]" * 930, 1).encode("utf-8", "replace"),
    lambda text, rng: text.replace("1", "1" * 5000, 1).encode("utf-8", "replace"),
    lambda text, rng: b"[1, 2]",
    lambda text, rng: b"null",
    lambda text, rng: text.encode("utf-8", "replace") + b"}",
    lambda text, rng: text.replace("1", "NaN", 1).encode("utf-8", "replace"),
)


@dataclass(frozen=True)
class Answer:
    """What a command said to a case: a result, or the text of its one error."""

    result: Any = None
    error: str | None = None


def answer(command: Callable[[], Any]) -> Answer:
    """Run it; anything but success and a UserError of a printable, short text is raised.

    Raises:
        AssertionError: the text is too long or not printable.
    """
    try:
        return Answer(command())
    except UserError as error:
        text = str(error)
        assert len(text) < LONGEST, f"{len(text)} characters: {text[:300]}"
        assert all(part.isprintable() for part in text.split("\n")), ascii(text)
        return Answer(error=text)


def folder(root: Path, split: str, content: bytes) -> Path:
    """A folder with this file, another valid one and its images."""
    (root / "annotations").mkdir(parents=True)
    (root / "images").mkdir()
    for name, ids in IMAGES.items():
        (root / "annotations" / f"{name}.json").write_text(json.dumps(base(name)))
        for i in ids:
            Image.fromarray(np.full((24, 32, 3), i, np.uint8)).save(root / "images" / f"{i}.png")
    (root / "annotations" / f"{split}.json").write_bytes(content)
    return root


def read(root: Path, form: str) -> None:
    """What planning and both data stages do."""
    spec, module = FolderData(name=form, path=str(root)), coco if form == "coco" else lvis
    for split in ("train", "val"):
        module.inspect(spec, split)
        document = module.read_folder(spec, split)
        write_json(root / f"{split}-stored.json", document)
        from_document(document, NoPixels(root)).lvis_json()


def hold(split: str, content: bytes, root: Path) -> str:
    """Give a case to reader, check, filler and converter, and compare what they say; returns how the reader took it."""
    folder(root, split, content)
    file = root / "annotations" / f"{split}.json"
    said = "read"
    for form in ("coco", "lvis"):
        reader = answer(lambda form=form: read(root, form))
        look = answer(lambda form=form: check(FolderData(name=form, path=str(root))))
        errors = [f.kind for f in look.result or () if f.severity == "error"]
        if reader.error is not None:
            said = "refused"
            assert look.error or errors, f"the reader refuses what the check passes: {reader.error}"
        elif look.error or errors:
            assert errors, look.error
            assert set(errors) <= {"size_mismatch", "undecodable_image", "in_train_and_val"}, (
                errors,
                look.error,
            )
    answer(lambda: fill_negatives(file, root / "filled.json"))
    made = answer(lambda: convert(root, root.with_name(root.name + "-copy"), transfer="link"))
    if made.error is None:
        read(root.with_name(root.name + "-copy"), made.result.form)
    assert file.read_bytes() == content
    return said


def main(seed: int, number: int) -> None:
    """Hold all cases, and print those that fail."""
    failed = 0
    for n, (split, content) in enumerate(cases(seed, number)):
        with tempfile.TemporaryDirectory() as place:
            try:
                hold(split, content, Path(place) / "data")
            except Exception as error:
                failed += 1
                print(f"{seed} {n} {split}: {type(error).__name__} {str(error)[:300]}")
    print(f"{number} files, {failed} failed")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
