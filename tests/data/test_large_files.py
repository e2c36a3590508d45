"""What large annotation files need: polygons that are skipped, summaries that are kept, lists written in pieces. None
of it may change what is read."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from exported import every, exported, first
from photographs import make_folder

from bench.data import coco, lvis, quick, summaries
from bench.data.entries import entries_of, read_entries, sections
from bench.data.split import PIECE, read_json, write_json
from bench.errors import UserError
from bench.spec import FolderData
from tests.faults.fuzz_annotations import cases


def plainly(file: Path, lists: bool) -> Any:
    """Entries and summary as Python's own parser gives them, or what it says."""
    try:
        return entries_of(sections(read_json(file), file), file, lists=lists)
    except UserError as error:
        return str(error)


def quickly(file: Path, lists: bool) -> Any:
    try:
        return read_entries(file, lists=lists)
    except UserError as error:
        return str(error)


def told(found: Any) -> Any:
    if isinstance(found, str):
        return found
    mends = {kind: vars(mend) for kind, mend in found.summary.mends.items()}
    return json.dumps([vars(found.summary) | {"mends": mends}, found.images, found.annotations], default=str)


@pytest.mark.skipif(quick.msgspec is None, reason="msgspec is not installed")
def test_skipping_polygons_changes_nothing(tmp_path: Path) -> None:
    quick_ones = 0
    for n, (_, content) in enumerate(cases(11, 300)):
        file = tmp_path / f"{n}.json"
        file.write_bytes(content)
        assert told(quickly(file, n % 2 == 0)) == told(plainly(file, n % 2 == 0)), content
        quick_ones += quick.document_of(file) is not None
    assert quick_ones > 150


def test_without_the_parser_the_same_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = exported(tmp_path, val=first("annotations", area=0, segmentation=[[5, 6, 35, 6, 35, 26, 5, 26]]))
    before = coco.inspect(spec, "val").fingerprint, coco.read_folder(spec, "val")
    monkeypatch.setattr(quick, "_decoder", None)
    assert (coco.inspect(spec, "val").fingerprint, coco.read_folder(spec, "val")) == before


def test_lists_are_written_in_pieces_of_the_same_text(tmp_path: Path) -> None:
    rows = [{"id": i, "bbox": [0.1 * i, i], "name": "ä\ud800"} for i in range(2 * PIECE + 7)]
    for document in (
        {},
        {"a": []},
        {"info": {"x": None}, "rows": rows, "empty": {}, "few": rows[:PIECE], "b": rows[: PIECE + 1]},
    ):
        write_json(tmp_path / "a.json", document)
        expected = json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n"
        assert (tmp_path / "a.json").read_bytes() == expected.encode("ascii")


# -- summaries that are kept


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderData:
    """A folder whose files count as large, written a while ago, and an empty cache."""
    monkeypatch.setattr(summaries, "SMALLEST", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(summaries, "_SETTLED", -1e18)
    make_folder(tmp_path / "data", val=every("annotations", area=None))
    return FolderData(name="lvis", path=str(tmp_path / "data"))


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache/longtail-bench/annotations").glob("*"))


def again(spec: FolderData, split: Any = "val") -> Any:
    """As another process sees it: nothing in memory."""
    summaries.summary_of.cache_clear()
    return lvis.inspect(spec, split)


def test_a_kept_summary_says_the_same(large: FolderData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first_time = again(large)
    assert len(first_time.notes) == 1
    assert len(kept(tmp_path)) == 2  # of train and of val
    assert kept(tmp_path)[0].parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(summaries, "read_entries", None)  # nothing is read
    assert again(large) == first_time
    assert again(large, "train") is not None


@pytest.mark.parametrize("change", ["content", "times", "code", "damage", "owner"])
def test_a_summary_is_not_used_after_a_change(
    change: str, large: FolderData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = again(large)
    file = tmp_path / "data/annotations/val.json"
    stat = file.stat()
    read: list[Path] = []
    original = summaries.read_entries

    def reading(path: Path, **more: Any) -> Any:
        read.append(path)
        return original(path, **more)

    monkeypatch.setattr(summaries, "read_entries", reading)
    if change == "content":  # of the same size and time, as a copy that keeps times leaves it
        file.write_bytes(file.read_bytes().replace(b"[5, 6, 30, 20]", b"[5, 6, 30, 21]"))
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "times":
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns - 10**9))
    elif change == "code":
        monkeypatch.setattr(summaries, "_code", lambda: "other")
    elif change == "damage":
        for place in kept(tmp_path):
            place.write_text(place.read_text()[:-9])
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    after = again(large)
    assert file in read
    assert (after == before) == (change != "content")


def test_what_has_a_fault_or_was_written_just_now_is_not_kept(
    large: FolderData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "data/annotations/val.json"
    monkeypatch.setattr(summaries, "_SETTLED", 2e9)
    assert time.time_ns() - file.stat().st_mtime_ns < 2e9 or pytest.skip("a slow machine")
    again(large, "train")
    assert kept(tmp_path) == []
    monkeypatch.setattr(summaries, "_SETTLED", -1e18)
    file.write_text(file.read_text().replace('"category_id": 7', '"category_id": "x"'))
    with pytest.raises(UserError, match="is not a number"):
        again(large)
    assert len(kept(tmp_path)) == 1  # of train


def test_a_cache_that_cannot_be_written_is_no_fault(large: FolderData, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert again(large).fingerprint == again(large).fingerprint


def test_counts_of_val_are_those_of_train_by_hand(large: FolderData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class 7: three boxes that count, in two images; a crowd and an ignored one in a third. Class 3: a crowd alone.
    Read from the file, and from what was kept of it."""
    file = Path(large.path) / "annotations" / "train.json"
    document = json.loads(file.read_text())
    one, two, three = (image["id"] for image in document["images"][:3])
    rows = [(7, one, {}), (7, one, {}), (7, two, {}), (7, three, {"iscrowd": 1}), (7, three, {"ignore": 1})]
    rows.append((3, one, {"iscrowd": 1}))
    document["annotations"] = [
        {"id": number, "image_id": image, "category_id": label, "bbox": [1, 1, 9, 9], "area": 81, **more}
        for number, (label, image, more) in enumerate(rows, 1)
    ]
    file.write_text(json.dumps(document))
    counts = {3: (0, 0), 7: (3, 2), 11: (0, 0)}
    assert counted(lvis.read_folder(large, "train")) == counts
    for kept_only in (False, True):
        summaries.summary_of.cache_clear()
        if kept_only:
            monkeypatch.setattr(summaries, "read_entries", None)
        assert counted(lvis.read_folder(large, "val")) == counts


def counted(split: Any) -> dict[int, tuple[int, int]]:
    """Class -> instances and images of a stored split."""
    return {one["id"]: (one["instance_count"], one["image_count"]) for one in split["categories"]}
