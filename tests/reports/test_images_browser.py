"""The image browser in Chromium, opened from a file: a reader filters, opens an image by keyboard, looks at two rows
side by side, goes on and back; the policy lets nothing else run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from reports.page.images import Browser, Class, Thumbnail, page_text, write_browser
from tests.chromium import CHROMIUM, Chromium, chromium
from tests.reports.made_images import made_store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here (apt-get install chromium)"),
]
NAMES = ("cat", "</script><b>dog</b>", "elk \u202e {{ 1 }}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report's folder; its name has what an address must escape."""
    out = tmp_path_factory.mktemp("out") / "a report #1 100%"
    out.mkdir()
    store, rows, stages = made_store(tmp_path_factory.mktemp("store"), NAMES, files=("a.jpg", "<i>b</i>.jpg", "c.jpg"))
    write_browser(rows, stages, store, out, "mine")
    return out


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(running: Chromium, folder: Path) -> Chromium:
    """The browser at the first image list, on a desk."""
    running.console.clear()
    running.screen(1280, 900)
    go(running, folder, "")
    return running


def go(page: Chromium, folder: Path, fragment: str) -> None:
    page.open((folder / "images.html").as_uri() + fragment)
    settled(page)


def settled(page: Chromium) -> None:
    """Until the last question is answered."""
    page.until("document.documentElement.dataset.ready !== undefined")
    page.value("new Promise((done) => setTimeout(done, 150))")


def choose(page: Chromium, name: str, value: str) -> None:
    page.value(
        f"(() => {{ const one = document.querySelector('[name={name}]'); one.value = '{value}';"
        " one.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )
    settled(page)


def listed(page: Chromium) -> list[str]:
    return list(
        page.value(
            "Array.from(document.querySelectorAll('.thumbnails li:not([hidden]) .name'), (one) => one.textContent)"
        )
    )


def text(page: Chromium, query: str) -> list[str]:
    return list(page.value(f"Array.from(document.querySelectorAll('{query}'), (one) => one.textContent)"))


def table(page: Chromium, panel: int) -> list[list[str]]:
    """The cells of a row's table: no., what, class, score, concerns."""
    return list(
        page.value(
            f"Array.from(document.querySelectorAll('#panels figure')[{panel}].querySelectorAll('tbody tr'),"
            " (row) => Array.from(row.cells, (cell) => cell.textContent))"
        )
    )


def test_filters(page: Chromium) -> None:
    assert listed(page) == ["a.jpg", "<i>b</i>.jpg", "c.jpg"]
    assert text(page, "#status") == ["3 of the 3 images of seed 1"]
    choose(page, "kind", "6")
    assert listed(page) == ["<i>b</i>.jpg"], "the elk is missed by both rows"
    choose(page, "row", "1")
    assert listed(page) == ["a.jpg", "<i>b</i>.jpg"], "and this row misses the cat"
    choose(page, "bin", "1")
    assert listed(page) == ["a.jpg"]
    choose(page, "class", "2")
    assert listed(page) == [], "the elk is in bin 4"
    choose(page, "bin", "f")
    assert listed(page) == ["<i>b</i>.jpg"]
    page.value("document.getElementById('clear').click()")
    settled(page)
    assert len(listed(page)) == 3
    choose(page, "row", "0")
    choose(page, "kind", "2")
    choose(page, "bin", "2")
    assert listed(page) == ["a.jpg"]
    choose(page, "score", "0.65")
    assert listed(page) == [], "the dog's misplaced box scores 0.6"
    assert text(page, "#status") == ["0 of the 3 images of seed 1 fit the filter"]
    assert not page.console


def test_an_image_by_keyboard(page: Chromium) -> None:
    focus = "document.activeElement"
    for _ in range(40):
        page.key("Tab")
        if page.value(f"{focus}.matches('.thumbnails a')"):
            break
    assert page.value(f"{focus}.querySelector('.name').textContent") == "a.jpg"
    page.key("Enter")
    settled(page)
    assert page.value(f"{focus}.id") == "view-name"
    assert text(page, "#view-name") == ["a.jpg"]
    assert page.value("document.getElementById('grid').hidden")
    page.key("ArrowRight")
    settled(page)
    assert text(page, "#view-name") == ["<i>b</i>.jpg"]
    assert page.value("location.hash").endswith("image=1")
    page.key("ArrowLeft")
    settled(page)
    assert text(page, "#view-name") == ["a.jpg"]
    met = []
    for _ in range(5):
        page.key("Tab")
        met.append(page.value(f"{focus}.id || {focus}.getAttribute('aria-label')"))
    assert met[:3] == ["next", "close", "Table of baseline"], "before the first image there is none"
    page.key("Escape")
    settled(page)
    assert page.value("document.getElementById('view').hidden")
    assert page.value(f"{focus}.querySelector('.name').textContent") == "a.jpg", "the focus is where it was"
    assert not page.console


def test_two_rows_side_by_side(page: Chromium, folder: Path) -> None:
    go(page, folder, "#row=0&with=1&image=0")
    assert text(page, "#panels h3") == ["baseline, seed 1", "BAGS, seed 1"]
    dog = NAMES[1]
    assert table(page, 0) == [
        ["1", "not judged", "elk \\u202e {{ 1 }}", "0.95", "-"],
        ["2", "true positive", "cat", "0.90", "its box"],
        ["3", "duplicate", "cat", "0.80", "a box of cat"],
        ["4", "classification", "cat", "0.70", f"a box of {dog}"],
        ["5", "localisation", dog, "0.60", f"a box of {dog}"],
        ["6", "background", "cat", "0.50", "-"],
        ["7", "class and place", "cat", "0.40", "-"],
        ["8", "ground truth", "cat", "-", "found, 0.90"],
        ["9", "ground truth", dog, "-", "not found; an error of class or place lies on it"],
    ]
    assert table(page, 1) == [
        ["1", "true positive", dog, "0.85", "its box"],
        ["2", "missed", "cat", "-", "missed"],
        ["3", "ground truth", dog, "-", "found, 0.85"],
    ]
    # Kinds are told apart by dash as well as by colour: no two styles are the same.
    styles = page.value(
        "Array.from(document.querySelectorAll('.legend path:not(.halo)'), (one) => { const s = getComputedStyle(one);"
        " return [s.strokeDasharray, s.strokeWidth].join(); })"
    )
    assert len(set(styles)) == len(styles) == 9
    left, right = page.value(
        "Array.from(document.querySelectorAll('#panels svg'), (one) => one.getBoundingClientRect().left)"
    )
    assert right > left + 400
    choose(page, "score", "0.65")
    assert [line[1] for line in table(page, 0)][:4] == ["not judged", "true positive", "duplicate", "classification"]
    assert len(table(page, 0)) == 4 + 2
    choose(page, "kind", "1")
    assert page.value("document.querySelectorAll('#panels figure')[0].querySelectorAll('tr.faint').length") == 5
    assert page.value("getComputedStyle(document.querySelector('#panels image')).width") != "0px"
    assert not page.console


def test_back_and_what_is_not_there(page: Chromium, folder: Path) -> None:
    page.value("document.querySelector('.thumbnails a').click()")
    settled(page)
    assert not page.value("document.getElementById('view').hidden")
    page.value("history.back()")
    settled(page)
    assert page.value("document.getElementById('view').hidden")
    for odd in ("#row=99&class=x&image=77", "#image=1e3", "#image=-1", "#seed=5&kind=%3Cb%3E", "#=&&"):
        go(page, folder, odd)
        assert len(listed(page)) == 3
        assert page.value("document.getElementById('view').hidden")
    assert not page.console


@pytest.mark.parametrize(("width", "phone"), [(1280, False), (390, True)])
def test_nothing_is_wider_than_the_screen(page: Chromium, folder: Path, width: int, phone: bool) -> None:
    page.screen(width, 800, phone)
    for fragment in ("", "#row=0&with=1&image=0"):
        go(page, folder, fragment)
        assert page.value("document.documentElement.scrollWidth") <= width
    small = "Array.from(document.querySelectorAll('#panels text'), (one) => one.getBoundingClientRect())"
    assert page.value(f"{small}.every((one) => one.left >= 0 && one.right <= {width})")
    heights = page.value(f"{small}.map((one) => one.height)")
    assert all(12 <= height <= 22 for height in heights), "letters are as large on a phone"


def test_a_script_in_markup_does_not_run(page: Chromium, folder: Path) -> None:
    """Not one that stands in the page, nor one that it names; and an image from elsewhere is not fetched."""
    text = (folder / "images.html").read_text()
    (folder / "other.js").write_text("document.title = 'taken'")
    bad = (
        "<script>document.title = 'taken'</script><script src='other.js'></script><img src='http://127.0.0.1:9/x.png'>"
    )
    (folder / "bad.html").write_text(text.replace("</main>", f"{bad}</main>"))
    page.open((folder / "bad.html").as_uri())
    settled(page)
    assert page.value("document.title") == "Images: mine"
    assert len([line for line in page.console if "Content Security Policy" in line]) == 3


def test_five_thousand_images_of_lvis_size(running: Chromium, tmp_path: Path) -> None:
    """1,203 classes, 15 rows, 3 seeds: the page can be used in 2 s, and a filter answers in 2."""
    rng = np.random.default_rng(0)
    images, classes = 5000, 1203
    browser = Browser("large", (10, 100, 1000), vals=1, total=images)
    browser.classes = {Class(k, f"class {k}", k % 4 + 1, "rcf"[k % 3]): k for k in range(classes)}
    browser.runs = {f"row {r}": [(seed, 3 * r + seed, 0) for seed in range(3)] for r in range(15)}
    browser.thumbnails = [Thumbnail(0, f"{i:012}.jpg", f"class {i % classes}", 320, 240) for i in range(images)]
    (tmp_path / "images.html").write_text(page_text(browser))
    (tmp_path / "report_images" / "rows").mkdir(parents=True)
    lines = [[i, *(n for k in rng.integers(0, classes, 15).tolist() for n in (k, k % 9, 0.5))] for i in range(images)]
    PILImage.new("RGB", (320, 240)).save(tmp_path / "0.jpg")
    for i in range(images):
        (tmp_path / "report_images" / f"{i}.jpg").hardlink_to(tmp_path / "0.jpg")
    (tmp_path / "report_images" / "rows" / "0.js").write_text(f"bench.row(0,{json.dumps(lines)});\n")
    running.screen(1280, 900)
    go(running, tmp_path, "")
    opened = running.value("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    took = running.value(
        "(async () => { const ready = () => document.documentElement.dataset.ready, before = ready();"
        " const one = document.querySelector('[name=kind]'), start = performance.now(); one.value = '3';"
        " one.dispatchEvent(new Event('input', { bubbles: true }));"
        " while (ready() === before) await new Promise((done) => setTimeout(done, 1));"
        " document.body.getBoundingClientRect(); return performance.now() - start; })()"
    )
    print(
        f"opened {opened:.0f} ms, filter {took:.0f} ms, page {(tmp_path / 'images.html').stat().st_size / 1e6:.1f} MB"
    )
    assert opened < 2000
    assert took < 2000
    fit = sum(
        any(kind == 3 and score >= 0.1 for kind, score in zip(one[2::3], one[3::3], strict=True)) for one in lines
    )
    assert len(listed(running)) == 200
    running.value("document.getElementById('more').click()")
    assert len(listed(running)) == 400
    assert running.value("document.activeElement.closest('li:not([hidden])') !== null")
    assert text(running, "#status") == [f"{fit} of the 5000 images of seed 0 fit the filter"]
