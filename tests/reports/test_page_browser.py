"""The page of a report in Chromium: it opens from a file, sorts, filters, shows columns, and says nothing on the
console.

A copy of the page has one more script, with its digest in the policy, which does what a reader does and writes down
what it sees. `--dump-dom` gives the page as it is then.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reports.page.render import digest, render
from tests.reports.made_page import made_page, result

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
CLASSES = 1203
OPENS_S = 2.0
READER = """
addEventListener("load", () => {
  const seen = { opened: performance.now() };
  document.body.getBoundingClientRect();
  seen.laidOut = performance.now();
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
  document.documentElement.dataset.seen = JSON.stringify(seen);
});
"""


@dataclass
class Seen:
    """What Chromium made of a page: its DOM, and the lines that it wrote on the console."""

    dom: str
    console: list[str]


def browse(page: Path, *options: str) -> Seen:
    assert BROWSER is not None
    command = [
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--no-first-run",
        f"--user-data-dir={page.parent / 'profile'}", *options, "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Seen(done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line])


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fifteen rows, three seeds, as many classes as LVIS has."""
    names = [f"class {i}" for i in range(CLASSES)]
    labels = ["baseline", "BAGS", "cls-retrain", *(f"row {i}" for i in range(12))]
    rows = [result(label, seed, names) for label in labels for seed in (1, 2, 3)]
    return render(made_page(tmp_path_factory.mktemp("page"), rows))


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here (apt-get install chromium)")


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [1280, 500])
def test_a_reader_sorts_filters_and_chooses(text: str, tmp_path: Path, width: int) -> None:
    policy = f"script-src '{digest(READER)}' "
    probed = text.replace("script-src ", policy, 1).replace("</body>", f"<script>{READER}</script></body>")
    (tmp_path / "report.html").write_text(probed)
    found = browse(tmp_path / "report.html", f"--window-size={width},900")
    assert not found.console
    (written,) = re.findall('data-seen="([^"]*)"', found.dom)
    seen: dict[str, Any] = json.loads(html.unescape(written))
    print(f"opened {seen['opened']:.0f} ms, laid out {seen['laidOut']:.0f} ms, filter and sort {seen['took']:.0f} ms")
    assert seen["laidOut"] < 1000 * OPENS_S
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


@pytest.mark.slow
@needs_browser
def test_the_page_is_quiet_and_the_policy_holds(text: str, tmp_path: Path) -> None:
    """As it is it says nothing; a script that somebody put into it does not run, and the browser says so."""
    (tmp_path / "report.html").write_text(text)
    assert not browse(tmp_path / "report.html").console
    bad = text.replace("</body>", "<script>document.title = 'taken'</script><p style='color:red'>x</p></body>")
    (tmp_path / "bad.html").write_text(bad)
    found = browse(tmp_path / "bad.html")
    assert "<title>mine</title>" in found.dom
    assert len([line for line in found.console if "Content Security Policy" in line]) >= 2
