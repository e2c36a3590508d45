"""Exports that are no such thing, and command lines about them: one message, exit code 2, nothing written."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from refused import refused

from bench.errors import UserError
from bench.store.pack import write_zip
from reports.exports.shown import Shown
from reports.exports.write import exported
from reports.load import frame
from tests.conftest import Bench
from tests.made_stores import TWO_SEEDS, a_plan, finish, tree


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a suite, the store where it is done, and its export (without the files of a report)."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "tiny.yaml").write_text(TWO_SEEDS)
    plan = a_plan(folder / "tiny.yaml")
    store = finish(folder / "store", plan)
    shown = Shown.of(plan, {}, "")
    write_zip(folder / "good.zip", exported(store, shown, "tiny", predictions=False, report=[folder / "tiny.yaml"]))
    return folder


@pytest.fixture
def suite(made: Path, tmp_path: Path, call: Bench) -> Path:
    """The same in the test's folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "tiny.yaml"


def rewritten(change: Callable[[dict[str, bytes]], None]) -> None:
    """`bad.zip`: good.zip with other content."""
    with zipfile.ZipFile("good.zip") as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    change(files)
    with zipfile.ZipFile("bad.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)


def manifest(**changes: object) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files["export.json"] = json.dumps({**json.loads(files["export.json"]), **changes}).encode()

    return change


def without(ending: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        for name in [name for name in files if name.endswith(ending)]:
            del files[name]

    return change


def more(name: str, content: bytes = b"x") -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({name: content})


def other_number(files: dict[str, bytes]) -> None:
    for name in [name for name in files if name.endswith("/result.json")]:
        files[name] = files[name].replace(b"20.25", b"90.25")


def other_table(files: dict[str, bytes]) -> None:
    found = json.loads(files["export.json"])
    found["table"]["rows"][0]["seed"] = "many"
    files["export.json"] = json.dumps(found).encode()


REWRITTEN = [
    (without("export.json"), "not an export: it has no export.json"),
    (more("export.json", b"{"), "its export.json is of something else, or damaged"),
    (manifest(format="other"), "its export.json is of something else, or damaged"),
    (manifest(version=99), "written by a newer version: form 99, this one reads up to 1"),
    (manifest(table=None), "not what `bench export` writes"),
    (other_table, "not what `bench export` writes: 0.seed: "),
    (without("/stage.json"), "no stage [0-9a-f]{12} in this store"),
    (other_number, r"the file is not what was written: its sha256 differs"),
    (more("../out.txt"), r"'\.\./out\.txt' is no name of a file of an export"),
    (more("/etc/out.txt"), "'/etc/out.txt' is no name of a file"),
    (more("report/../../out.txt"), "is no name of a file"),
    (more("roots\\..\\out.json"), "is no name of a file"),
    (more("C:/out.txt"), "is no name of a file"),
    (more("a" * 64 + "/attempts/1/outputs/../../../../out"), "is no name of a file"),
    (more("a" * 64 + "/lease.1"), "is no name of a file"),
    (more("a" * 64 + "/attempts/1/outputs/zeros", b"\0" * 60_000_000), r"its [\d,]+ bytes would unpack to 60,"),
]


@pytest.mark.parametrize(("change", "says"), REWRITTEN, ids=[says[:40] for _, says in REWRITTEN])
def test_a_zip_that_is_no_export_or_was_changed(
    suite: Path, call: Bench, tmp_path: Path, change: Callable[[dict[str, bytes]], None], says: str
) -> None:
    rewritten(change)
    before = tree(tmp_path)
    said = call("report", "bad.zip")
    refused(said, r"error: bad\.zip: ", says)
    assert "bench-export-" not in said.err  # the folder that it was unpacked into, which is gone
    assert "run the suite again" not in said.err
    if "sha256" not in says and "stage" not in says and "writes" not in says:
        refused(call("merge", "other", "bad.zip"), says)
    assert {name: content for name, content in tree(tmp_path).items() if "cache/" not in name} == before
    assert not (tmp_path.parent / "out.txt").exists()


@pytest.mark.parametrize("packed", [True, False])
def test_a_changed_file_is_named_in_its_export(suite: Path, call: Bench, packed: bool) -> None:
    """By whoever reads it: the zip or the folder, the file in it, and that the export has to be made again."""
    rewritten(other_number)
    name, joint = "bad.zip", ": "
    if not packed:
        shutil.unpack_archive("bad.zip", "bad")
        name, joint = "bad", "/"
    place = rf"{name}{joint}[0-9a-f]{{64}}/attempts/1/outputs/result\.json: the file is not what was written"
    again = "export it again where it was made: python -m bench export SUITE"
    for words in (("report", name), ("report", name, "--json"), ("report", name, "good.zip", "--compare")):
        refused(call(*words), f"error: {place}", again)
    with pytest.raises(UserError, match=place) as caught:
        frame(name)
    assert caught.value.hint.startswith(again)
    rewritten(lambda files: files.update({"report/tiny.yaml": b"x", "roots/tiny.json": b"{"}))
    if packed:
        refused(call("merge", "new", name), r"error: bad\.zip: roots/tiny\.json: what this suite needs", again)


def bent(content: bytes, how: str) -> bytes:
    if how == "cut":
        return content[: len(content) // 2]
    if how == "a byte":  # of the packed export.json
        at = content.index(b"export.json") + len("export.json") + 50
        return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]
    if how == "encrypted":  # bit 0 of the flags of each entry of the list of contents
        at = content.index(b"PK\x01\x02")
        return content[: at + 8] + struct.pack("<H", 1) + content[at + 10 :]
    return how.encode()


@pytest.mark.parametrize("how", ["cut", "a byte", "encrypted", "no zip at all", ""])
def test_a_damaged_zip(suite: Path, call: Bench, how: str) -> None:
    Path("bad.zip").write_bytes(bent(Path("good.zip").read_bytes(), how))
    for words in (("report", "bad.zip"), ("merge", "other", "bad.zip"), ("report", "bad.zip", "good.zip", "--compare")):
        refused(call(*words), "bad.zip", "this zip is damaged or is none|is encrypted")


def test_a_name_that_stands_twice(suite: Path, call: Bench) -> None:
    shutil.copy("good.zip", "bad.zip")
    with zipfile.ZipFile("bad.zip", "a") as packed, pytest.warns(UserWarning, match="Duplicate"):
        packed.writestr("README.txt", b"another")
    refused(call("report", "bad.zip"), "a name stands in it twice")


CASES = [
    (("report", "gone.zip"), ("gone.zip: no such file",)),
    (("report", "good.zip", "--set", "schedule.steps=3"), ("--set: an export has its table", "name the suite's file")),
    (("report", "good.zip", "--official"), ("--official: an export",)),
    (("report", "good.zip", "--html"), (r"report\.html is written as it was exported",)),
    (("report", "good.zip", "--against", "BGS"), (r"--against: no row 'BGS'\. Did you mean 'BAGS'",)),
    (("report", "good.zip", "--columns", "XX"), ("XX",)),
    (("report", "good.zip", "other.zip"), ("a report is of one suite", "--compare")),
    (("report", "good.zip", "--compare"), ("two sources are compared, and one was named",)),
    (("report", "good.zip", "gone", "--compare"), ("gone: no such file or folder", "Legal: a suite's file")),
    (("report", "good.zip", "tiny.yaml", "--compare", "--html"), ("--html: a comparison has no use for it",)),
    (("report", "good.zip", "tiny.yaml", "--compare", "--no-intervals"), ("--intervals: a comparison has no use",)),
    (("report", "good.zip", "good.zip", "--compare", "--seeds", "1"), ("--seeds: options change a suite's file",)),
    (("report", "good.zip", "empty", "--compare"), ("empty: no store: no suite was run on this folder",)),
    (("report", "good.zip", "store/roots/tny.json", "--compare"), (r"no table 'tny'\. Did you mean 'tiny'",)),
    (("export", "tiny.yaml", "a.tar"), (r"a\.tar: an export is a zip\. Legal: a name that ends in \.zip",)),
    (("export", "tiny.yaml", "notes.zip"), ("notes.zip: this file is there and is no export", "--force")),
    (("export", "tiny.yaml", "empty"), ("empty: this is a folder", "empty/tiny.zip")),
    (("export", "tiny.yaml", "a.zip", "--store", "nowhere"), ("nowhere: no such store",)),
    (("export", "tiny.yaml", "a.zip", "--set", "schedule.lr=0.5"), ("no row has a result yet", "bench status")),
    (("export", "tiny.yaml", "folder/a.zip/b.zip"), ("a file stands where a folder should be",)),
    (("export", "tiny.yaml", "notes.zip", "--format", "coco"), ("a file stands there",)),
    (("export", "tiny.yaml", "store", "--format", "coco"), ("the folder holds other files", "--force")),
    (("export", "tiny.yaml", "x", "--format", "coco", "--predictions"), ("--predictions: COCO results",)),
    (("merge", "good.zip", "store"), ("good.zip: this is a file", "the store comes first")),
    (("merge", "store", "store"), ("a store cannot be merged into itself",)),
    (("merge", "new", "nowhere"), ("nowhere: no such store",)),
    (("merge", "new", "empty"), ("empty: no store: no stage is in this folder",)),
]  # fmt: skip


@pytest.mark.parametrize(("words", "says"), CASES, ids=[" ".join(words)[:60] for words, _ in CASES])
def test_a_command_line_that_is_wrong(
    suite: Path, call: Bench, tmp_path: Path, words: tuple[str, ...], says: tuple[str, ...]
) -> None:
    Path("notes.zip").write_text("mine")
    Path("empty").mkdir()
    Path("folder").mkdir()
    Path("folder/a.zip").write_text("mine")
    shutil.copy("good.zip", "other.zip")
    before = tree(tmp_path)
    refused(call(*words), *says)
    assert {name: content for name, content in tree(tmp_path).items() if "cache/" not in name} == before


def test_a_disk_that_is_full_leaves_the_old_export_whole(
    suite: Path, call: Bench, mounted: Callable[[str], Path]
) -> None:
    disk = mounted("size=200k")
    target = disk / "a.zip"
    shutil.copy("good.zip", target)
    (disk / "filler").write_bytes(b"x" * 120_000)
    before = target.read_bytes()
    refused(call("export", suite, target, "--seeds", "0,1"), r"a\.zip: no space left on the disk", "name another file")
    assert target.read_bytes() == before
    assert sorted(path.name for path in disk.iterdir()) == ["a.zip", "filler"]
