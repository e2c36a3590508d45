"""The image browser without a browser: what is in its files, that names are text, and what is no longer there."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from bench.data.split import ArrayPixels
from bench.errors import UserError, printable
from bench.evaluation.judged import Kind
from bench.spec import FolderData
from reports import detected
from reports.page.images import BOX, MISSED, NOT_JUDGED, ONLY_WRONG, Browser, write_browser
from tests.conftest import Bench, Write
from tests.reports.made_images import FOUND, SIDE, made_store
from tests.reports.made_page import Reader, read

HOSTILE = ("</script><script>alert(1)</script>", "\" onclick='x' y=\"\u2028", "a\u202eb {{ 7*7 }} <img src=x>")
NUMBERS = re.compile(rb"bench\.(image|row)\([\d.,\[\]-]*\);\n")


def written(folder: Path, **changes: Any) -> tuple[Browser, Reader, Path]:
    """The browser of the made store, and its page as it is read."""
    (folder / "store").mkdir()
    out = folder / "out"
    out.mkdir()
    store, rows, stages = made_store(folder / "store", **changes)
    browser, lacking = write_browser(rows, stages, store, out, changes.get("title", "mine"))
    assert browser is not None
    assert not lacking
    return browser, read((out / "images.html").read_text()), out


def numbers(path: Path) -> list[Any]:
    """The arguments of a script."""
    text = path.read_bytes()
    assert NUMBERS.fullmatch(text)
    return list(json.loads(f"[{text[text.index(b'(') + 1 : -3].decode()}]"))


def test_the_files_of_an_image_and_of_a_row(tmp_path: Path) -> None:
    browser, page, out = written(tmp_path)
    folder = out / "report_images"
    assert {path.name for path in folder.iterdir()} == {"0.jpg", "1.jpg", "2.jpg", "boxes", "rows"}
    assert {path.name for path in (folder / "boxes").iterdir()} == {"0.js", "1.js", "2.js"}
    number, size, truth, views = numbers(folder / "boxes" / "0.js")
    assert (number, size) == (0, [SIDE, SIDE])
    assert truth == [[0, 4, 4, 20, 20], [1, 40, 4, 16, 16]]
    assert [view[0] for view in views] == [0, 1]
    _, states, found = views[0]
    assert states == [0.9, ONLY_WRONG]
    assert found == [
        [k, *box, score, NOT_JUDGED if kind < 0 else int(kind), at]
        for (score, k, box, kind), at in zip(FOUND, (-1, 0, 0, 1, 1, -1, -1), strict=True)
    ]
    assert views[1][1] == [MISSED, 0.85]
    _, lines = numbers(folder / "rows" / "0.js")
    met = {(image, *pair[i : i + 2]): pair[i + 2] for image, *pair in lines for i in range(0, len(pair), 3)}
    assert met == {
        (0, 0, Kind.TRUE_POSITIVE): 0.9, (0, 0, Kind.DUPLICATE): 0.8, (0, 0, Kind.BACKGROUND): 0.5,
        (0, 0, Kind.BOTH): 0.4, (0, 1, Kind.LOCALISATION): 0.6, (0, 2, NOT_JUDGED): 0.95, (0, 0, BOX): 1,
        (0, 1, BOX): 1, (1, 2, Kind.MISSED): 1,
        (0, 0, Kind.CLASSIFICATION): 0.7, (0, 1, Kind.CLASSIFICATION): 0.7,  # its own class, and that of the box
    }  # fmt: skip
    assert browser.of_class(2, "dog") == "images.html#class=1"
    assert browser.of_class(2, "cat") is None
    assert browser.of_row("BAGS", "AP") == "images.html#row=1"
    assert browser.of_row("BAGS", "AP4") == "images.html#row=1&bin=4"
    assert browser.of_row("none", "AP") is None
    with PILImage.open(folder / "1.jpg") as picture:
        assert (picture.size, picture.format) == ((SIDE, SIDE), "JPEG")
    images = page.all("img")
    assert [one.attributes["src"] for one in images] == [f"report_images/{i}.jpg" for i in range(3)]
    assert {one.attributes["loading"] for one in images} == {"lazy"}
    assert [one.text for one in page.elements if one.attributes.get("class") == "what"] == ["cat, dog", "elk", "no box"]
    options = {one.attributes.get("data-name"): one.attributes for one in page.all("option")}
    assert (options["elk"]["data-bin"], options["elk"]["data-frequency"]) == ("4", "f")


def test_names_are_text_wherever_they_come_from(tmp_path: Path) -> None:
    """Of classes, rows and files: no other element than with plain names, and no script but ours."""
    for name in ("plain", "odd"):
        (tmp_path / name).mkdir()
    _, plain, _ = written(tmp_path / "plain")
    _, page, out = written(tmp_path / "odd", names=HOSTILE, labels=HOSTILE[:2], files=HOSTILE)
    text = (out / "images.html").read_text()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202a-\u202e\u2066-\u2069]", text)
    assert [(one.tag, sorted(one.attributes)) for one in page.elements] == [
        (one.tag, sorted(one.attributes)) for one in plain.elements
    ]
    assert len(page.all("script")) == 1
    for name in map(printable, HOSTILE):
        assert any(one.text == name for one in page.all("span"))
        assert any(one.attributes.get("data-name") == name for one in page.all("option"))
    scripts = list((out / "report_images").rglob("*.js"))
    assert len(scripts) == 5
    assert all(NUMBERS.fullmatch(path.read_bytes()) for path in scripts)


def test_the_page_runs_its_script_alone(tmp_path: Path) -> None:
    _, page, _ = written(tmp_path)
    (policy,) = (one.attributes["content"] for one in page.all("meta") if "http-equiv" in one.attributes)
    assert re.fullmatch(
        "default-src 'none'; img-src 'self' file: data:; style-src 'sha256-[^ ]*'; script-src 'sha256-[^ ]*' "
        "'strict-dynamic'; base-uri 'none'; form-action 'none'",
        policy,
    )
    names = {name for one in page.elements for name in one.attributes}
    assert not {name for name in names if name.startswith("on") or name in ("style", "srcset", "action")}
    places = [one.attributes[name] for one in page.elements for name in ("src", "href") if name in one.attributes]
    assert all(re.fullmatch(r"#\w+|report_images/\d+\.jpg|report\.html|data:,", place) for place in places)
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|https?:(?!//www\.w3\.org/2000/svg)",
                         page.all("script")[0].text)  # fmt: skip


def test_a_smaller_report_leaves_nothing_of_a_larger_one(tmp_path: Path) -> None:
    _, _, out = written(tmp_path)
    (out / "report_images" / "mine.txt").write_text("kept")
    (tmp_path / "again").mkdir()
    store, rows, stages = made_store(tmp_path / "again")
    browser, _ = write_browser(rows[:1], stages, store, out, "mine", 1)
    assert browser is not None
    assert (len(browser.thumbnails), browser.total) == (1, 3)
    left = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert left == {"images.html"} | {f"report_images/{n}" for n in ("0.jpg", "mine.txt", "boxes/0.js", "rows/0.js")}


def test_images_are_read_where_the_plan_has_them(tmp_path: Path) -> None:
    """Files where the plan says; one that is gone is left out and said, all gone: no browser."""
    folder = tmp_path / "photos"
    folder.mkdir()
    source = FolderData(name="lvis", path=str(folder), images=".").model_dump()
    (tmp_path / "store").mkdir()
    store, rows, stages = made_store(tmp_path / "store", source=source)
    out = tmp_path / "out"
    out.mkdir()
    browser, lacking = write_browser(rows, stages, store, out, "mine")
    assert browser is None
    assert len(lacking) == 1
    assert lacking[0].startswith("no images.html: the val images cannot be read: ")
    assert "no such image" in lacking[0]
    assert not (out / "images.html").exists()
    for name in ("a.jpg", "c.jpg"):
        PILImage.new("RGB", (SIDE, SIDE), "red").save(folder / name)
    browser, lacking = write_browser(rows, stages, store, out, "mine")
    assert browser is not None
    assert [one.name for one in browser.thumbnails] == ["a.jpg", "c.jpg"]
    assert lacking[0].startswith("images.html: 1 of 3 images cannot be read and are left out: ")
    assert [line[0] for line in numbers(out / "report_images" / "rows" / "0.js")[1]] == [0, 1]


def test_a_val_that_is_no_longer_in_the_store_is_said(tmp_path: Path) -> None:
    store, rows, stages = made_store(tmp_path)
    val = stages[rows[0].record.evaluate_key].inputs["val"]
    (store.output(val.key) / "annotations.json").unlink()
    browser, (text,) = write_browser(rows, stages, store, tmp_path, "mine")
    assert browser is None
    assert text.startswith("no images.html: baseline, seed 1: its val cannot be read: ")


def test_a_row_without_predictions_is_left_out_and_said(tmp_path: Path) -> None:
    store, rows, stages = made_store(tmp_path)
    (store.folder(stages[rows[1].record.evaluate_key].inputs["predict"].key) / "done").unlink()
    browser, lacking = write_browser(rows, stages, store, tmp_path, "mine")
    assert browser is not None
    assert list(browser.runs) == ["baseline"]
    assert lacking == ["images.html: BAGS, seed 1: its predictions are no longer in the store"]


def test_a_thumbnail_is_at_most_so_large(tmp_path: Path) -> None:
    store, rows, stages = made_store(tmp_path)
    val = detected.shown(store, stages[rows[0].record.evaluate_key], 1)
    pixels = np.zeros((1, 30, 900, 3), np.uint8)
    image = replace(val.split.images[0], width=900, height=30)
    wide = replace(val, split=replace(val.split, source=ArrayPixels(pixels), images=(image,), rows=np.array([0])))
    ((place, picture),) = detected.smaller(wide, 320)
    assert place == 0
    assert not isinstance(picture, UserError)
    assert picture.shape == (11, 320, 3)


def test_the_command_line_says_what_is_missing(call: Bench, write: Write, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    said = call("report", write(), "--images")
    assert said.code == 2
    assert "--html --images" in said.err
    said = call("report", write(), "--html", "--images", "--out", "out")
    assert said.code == 0, said.err
    assert "no row has a result yet" in said.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("most", ["0", "-1", "all"])
def test_how_many_is_a_number(call: Bench, write: Write, most: str) -> None:
    said = call("report", write(), "--html", "--images", "--most-images", most)
    assert said.code == 2
    assert "--most-images" in said.err
