"""The page of a report in Chromium: it opens from a file, sorts, filters, shows columns, and says nothing on the
console."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reports.page.render import render
from tests.chromium import CHROMIUM, Chromium, chromium
from tests.reports.made_page import made_page, result

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here (apt-get install chromium)"),
]

CLASSES = 1203
OPENS_S = 2.0
# What a reader does, and what is seen then; the browser evaluates it in the page.
READER = """
(() => {
  const seen = { opened: performance.getEntriesByType("navigation")[0].loadEventEnd };
  const column = (grid, place) => Array.from(document.querySelectorAll(`#${grid} tbody tr:not([hidden])`),
    (row) => row.cells[place].textContent);
  const head = (grid, name) => Array.from(document.querySelectorAll(`#${grid} thead th`)).find(
    (one) => one.textContent === name);
  const press = (grid, name) => head(grid, name).querySelector("button").click();
  press("table", "AP1");
  seen.falling = [column("table", 0), head("table", "AP1").getAttribute("aria-sort")];
  press("table", "AP1");
  seen.rising = [column("table", 0), head("table", "AP1").getAttribute("aria-sort")];
  press("table", "AP50");
  seen.missing = column("table", 0);
  press("table", "row");
  seen.byName = column("table", 0);
  seen.sorted = document.querySelectorAll("#table [aria-sort]").length;
  const filter = document.querySelector("[data-grid=per-class] [data-filter]");
  const before = performance.now();
  filter.value = "CLASS 12";
  filter.dispatchEvent(new Event("input"));
  document.body.getBoundingClientRect();
  seen.left = column("per-class", 0).length;
  press("per-class", "instances");
  document.body.getBoundingClientRect();
  seen.took = performance.now() - before;
  seen.status = document.querySelector("[data-grid=per-class] [data-status]").textContent;
  const shown = (name) => getComputedStyle(head("table", name)).display !== "none";
  seen.columns = ["AP", "AP50", "ΔAP", "ΔAP control"].map(shown);
  document.querySelector("[data-grid=table] [data-block=against]").click();
  document.querySelector("[data-grid=table] [data-block=own]").click();
  seen.chosen = ["AP", "AP50", "ΔAP", "ΔAP control"].map(shown);
  for (const section of document.querySelectorAll("section")) section.style.contentVisibility = "visible";
  seen.wide = document.documentElement.scrollWidth <= innerWidth;
  seen.controls = document.querySelectorAll(".controls[hidden]").length;
  return seen;
})()
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fifteen rows, three seeds, as many classes as LVIS has."""
    names = [f"class {i}" for i in range(CLASSES)]
    labels = ["baseline", "BAGS", "cls-retrain", *(f"row {i}" for i in range(12))]
    rows = [result(label, seed, names) for label in labels for seed in (1, 2, 3)]
    return render(made_page(tmp_path_factory.mktemp("page"), rows))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with chromium(tmp_path) as page:
        yield page


@pytest.mark.parametrize("width", [1280, 500])
def test_a_reader_sorts_filters_and_chooses(text: str, tmp_path: Path, browser: Chromium, width: int) -> None:
    (tmp_path / "report.html").write_text(text)
    browser.screen(width, 900)
    browser.open((tmp_path / "report.html").as_uri())
    seen = browser.value(READER)
    assert not browser.console
    print(f"opened {seen['opened']:.0f} ms, filter and sort {seen['took']:.0f} ms")
    assert 0 < seen["opened"] < 1000 * OPENS_S
    assert seen["took"] < 1000
    assert seen["falling"][0][:3] == ["BAGS", "cls-retrain", "baseline"]
    assert seen["falling"][1] == "descending"
    assert seen["rising"][0][-3:] == ["baseline", "cls-retrain", "BAGS"]
    assert seen["rising"][1] == "ascending"
    assert seen["missing"][:2] == ["BAGS", "baseline"]  # the others have no AP50
    assert seen["byName"][:5] == ["BAGS", "baseline", "cls-retrain", "row 0", "row 1"]
    assert seen["byName"][-1] == "row 11"  # as a number, behind row 2
    assert seen["sorted"] == 1
    assert seen["left"] == 1 + 10 + 3  # 12, 120 to 129, 1200 to 1202
    assert seen["status"] == "sorted by instances, largest first"
    assert seen["columns"] == [True, False, True, False]
    assert seen["chosen"] == [False, False, True, True]
    assert seen["wide"], "nothing but the boxes of tables scrolls sideways"
    assert seen["controls"] == 0


def test_a_printed_page_keeps_headers_apart_and_figures_side_by_side(
    text: str, tmp_path: Path, browser: Chromium
) -> None:
    (tmp_path / "report.html").write_text(text)
    browser.screen(1050, 700)
    browser.open((tmp_path / "report.html").as_uri())
    browser.call("Emulation.setEmulatedMedia", media="print")
    style = "getComputedStyle(document.querySelector('{}')).{}"
    assert float(browser.value(style.format("#intervals thead th", "paddingLeft"))[:-2]) > 3
    assert float(browser.value(style.format("#intervals thead th", "paddingRight"))[:-2]) > 3
    assert browser.value(style.format("#table", "breakInside")) == "avoid"
    tops = browser.value("Array.from(document.querySelectorAll('#lineage ~ .shown'), (one) => one.offsetTop)")
    assert len(tops) > len(set(tops)), "two stand beside one another"
    browser.printed(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_the_page_is_quiet_and_the_policy_holds(text: str, tmp_path: Path, browser: Chromium) -> None:
    """As it is it says nothing; a script that somebody put into it does not run, and the browser says so."""
    (tmp_path / "report.html").write_text(text)
    browser.open((tmp_path / "report.html").as_uri())
    assert not browser.console
    bad = text.replace("</body>", "<script>document.title = 'taken'</script><p style='color:red'>x</p></body>")
    (tmp_path / "bad.html").write_text(bad)
    browser.open((tmp_path / "bad.html").as_uri())
    assert browser.value("document.title") == "mine"
    assert len([line for line in browser.console if "Content Security Policy" in line]) >= 2
