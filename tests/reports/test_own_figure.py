"""A user's own figure: one file of a suite's `figures_path`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from bench.cli.open import config_text, open_suite
from bench.errors import UserError
from bench.spec import FIGURES, Figure
from reports.figures.bars import ap_by_bin
from reports.figures.canvas import image_of
from reports.figures.scene import Scene
from reports.write import write
from tests.conftest import ROOT
from tests.reports.made_records import made

TINY = "preset: cpu\nrows:\n  baseline: {method: baseline}\n"
Write = Callable[..., Path]
GOOD = """
from reports.figures.canvas import Drawing, blank, finish
def draw(rows, *, order, edges, caption, title):
    figure, (axes,) = blank(3, 2)
    return Drawing(finish(figure, {}, caption, title), ("row", "edges"), ((rows[0].record.row, len(edges)),))
"""


@pytest.fixture
def write_suite(tmp_path: Path) -> Write:
    def written(figures: str, **files: str) -> Path:
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        (tmp_path / "tiny.yaml").write_text(f"figures: {figures}\n{TINY}")
        return tmp_path / "tiny.yaml"

    return written


def own(path: Path) -> dict[str, Path]:
    return {path.stem: path}


def test_a_file_is_a_kind(write_suite: Write, tmp_path: Path) -> None:
    suite = open_suite(write_suite("[{kind: mine, title: T}]\nfigures_path: mine.py", mine=GOOD))
    rows = [made("baseline", AP=1.0)]
    written = write(
        rows, tmp_path / "out", "tiny", wanted=suite.sections.figures, own_figures=own(tmp_path / "mine.py")
    )
    assert not written.lacking
    assert (tmp_path / "out/mine.csv").read_text() == "row,edges\nbaseline,3\n"
    assert (tmp_path / "out/mine.png").read_bytes().startswith(b"\x89PNG")
    assert "suite tiny" in written.figures[-1].caption
    assert yaml.safe_load(config_text(suite))["figures_path"] == [str(tmp_path / "mine.py")]


def test_the_example_of_contributing_draws(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    found = re.search(r"^```python title=seed_dots.py\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    path = tmp_path / "seed_dots.py"
    path.write_text(found[1])
    rows = [made("baseline", 0, AP=1.5), made("baseline", 1, AP=2.5), made("A", AP=3.0)]
    written = write(rows, tmp_path / "out", "s", wanted=[Figure(kind="seed_dots")], own_figures=own(path))
    assert not written.lacking
    assert (tmp_path / "out/seed_dots.csv").read_text() == "row,seed,AP\nbaseline,0,1.5\nbaseline,1,2.5\nA,0,3\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x = 1", r"has no function draw\("),
        ("import nowhere", "cannot be imported: ModuleNotFoundError"),
        ("def draw(rows, **_):\n    return 1 / 0", r"ZeroDivisionError: division by zero \(.*mine\.py:2\)"),
        ("def draw(rows, **_):\n    return 3", "draw returned int, not a reports.figures.canvas.Drawing or None"),
        ("def draw(rows, **_):\n    return None", "its file draws nothing of these rows"),
    ],
)
def test_a_mistake_costs_that_figure_alone(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    wanted = [Figure(kind="mine"), Figure(kind="bins")]
    written = write([made("A", AP=1.0)], tmp_path / "out", "s", wanted=wanted, own_figures=own(tmp_path / "mine.py"))
    (said,) = written.lacking
    assert re.match(f"no figure mine: .*{why}", said), said
    assert (tmp_path / "out/ap_by_bin.png").exists()


def test_rows_without_a_result_are_not_the_files_fault(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    wanted = [Figure(kind="mine", rows=("B",))]
    written = write([made("A", AP=1.0)], tmp_path / "out", "s", wanted=wanted, own_figures=own(tmp_path / "mine.py"))
    assert written.lacking == ("no figure mine: none of its rows has a result",)


def test_a_report_without_the_suites_files_says_so(tmp_path: Path) -> None:
    written = write([made("A", AP=1.0, norms=[1.0] * 7)], tmp_path, "s", wanted=[Figure(kind="mine")])
    assert written.lacking == ("no figure mine: its file is not here (figures_path)",)


def test_names_that_there_are_not(write_suite: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no figure 'tradeof'. Did you mean 'tradeoff'\?") as raised:
        open_suite(write_suite("[{kind: bins}, {kind: tradeof}]"))
    assert "tiny.yaml:1" in (raised.value.where or "")
    assert "figures_path" in (raised.value.hint or "")
    with pytest.raises(UserError, match="no such figure file"):
        open_suite(write_suite("[]\nfigures_path: none.py"))
    with pytest.raises(UserError, match="there is a figure 'bins' already"):
        open_suite(write_suite("[]\nfigures_path: bins.py", bins=GOOD))
    search = "[]\nsearch: {space: {beta: 1:8}, rows: [BAGS], trials: 2}\nfigures_path: history.py"
    with pytest.raises(UserError, match="the report of a search has a figure 'history' already"):
        open_suite(write_suite(search, history=GOOD))
    (tmp_path / "more").mkdir()
    (tmp_path / "more/mine.py").write_text(GOOD)
    with pytest.raises(UserError, match="two figures are called 'mine'"):
        open_suite(write_suite("[]\nfigures_path: [mine.py, more]", mine=GOOD))
    with pytest.raises(UserError, match="figures_path: not a path: 3"):
        open_suite(write_suite("[]\nfigures_path: 3"))
    assert "bins" in FIGURES


def test_pdf_of_every_figure(tmp_path: Path) -> None:
    written = write([made("A", AP=1.0)], tmp_path, "s", wanted=[Figure(kind="bins")], formats=("png", "svg", "pdf"))
    assert (tmp_path / "ap_by_bin.pdf").read_bytes().startswith(b"%PDF")
    assert "ap_by_bin.png .svg .pdf .csv" in written.spoken()


def test_a_pdf_has_no_caption_and_the_others_keep_theirs() -> None:
    """A paper sets its own; the figure is as high as without one."""
    drawing, bare = (ap_by_bin(Scene([made("A", AP=1.0)], caption=caption)) for caption in ("what was run; " * 30, ""))

    def points(image: bytes) -> list[float]:
        found = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+)", image)
        assert found is not None
        return [float(found[1]), float(found[2])]

    before = image_of(drawing, "svg")
    assert points(image_of(drawing, "pdf")) == pytest.approx(points(image_of(bare, "pdf")), abs=0.5)
    assert image_of(drawing, "svg") == before
    assert b"what was run" in before
