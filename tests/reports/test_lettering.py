"""Long names in figures, and names in writings that the usual font has not."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.evaluation.error_kinds import Costs, Counts, Group
from reports.figures import lettering
from reports.figures.bars import bars
from reports.figures.canvas import Drawing, blank, finish, handles, image_of
from reports.figures.confusion import confusion
from reports.figures.errors import error_costs
from reports.figures.kinds import draw
from reports.figures.lettering import columns, fitted, width, wrapped
from reports.figures.scene import Scene
from reports.figures.tradeoff import tradeoff
from reports.load import Errors, RowResult
from tests.reports.made_records import COUNTS, made

# Seven, the longest of them not at the front: in three columns matplotlib puts 3, 2 and 2.
LONG = (
    "baseline", "<img src=x onerror=alert(1)>", "=1+1", "$\\frac{a}{b}$ & 5% _x #1 ~ ^ \\input{/etc/passwd}",
    "red and right-to-left", "| pipe | `tick` [l](javascript:alert(1))", "@SUM(A1)",
)  # fmt: skip
ENDLESS = "a row whose name was written by someone who had " + "very " * 30 + "much to say, beta 8"
MARGIN = 2.0  # pixels at 100 to the inch between what is drawn and the edge of the paper
CJK = "\u7a00\u6709\u7c7b BAGS"  # "rare classes"


def inside(figure: Any) -> list[Any]:
    """Extents of legends, titles, ticks and labels, all of them on the paper."""
    figure.canvas.draw()
    boxes = [legend.get_window_extent() for legend in figure.legends]
    boxes += [axes.get_tightbbox() for axes in figure.axes]
    for box in boxes:
        assert MARGIN <= box.x0 <= box.x1 <= figure.bbox.x1 - MARGIN
        assert MARGIN <= box.y0 <= box.y1 <= figure.bbox.y1 - MARGIN
    return boxes


def rows(labels: tuple[str, ...]) -> list[RowResult]:
    none = Group(2, 0, 5, 3, 0.5, Counts(*[1] * 9), Costs(*[0.1] * 8))
    found = Errors({"AP": none, "AP1": none, "AP2": none}, ((5, 1, 2), (0, 6, 1), (3, 9, 0)))
    made_rows = [replace(made(label, AP=20.0 + i, AP1=1.0, AP4=50.0), errors=found) for i, label in enumerate(labels)]
    return [replace(row, per_class_ap=(5.0,) * len(COUNTS)) for row in made_rows]


@pytest.mark.parametrize("width_in", [7.0, 8.0])
@pytest.mark.parametrize("names", [LONG, tuple(f"{ENDLESS} {i}" for i in range(3))])
def test_a_legend_lies_on_the_paper(width_in: float, names: tuple[str, ...]) -> None:
    figure, (axes,) = blank(width_in, 3.0)
    for name in names:
        axes.plot([0, 1], [0, 1], label=name)
    finish(figure, handles(axes), "", f"A title. {ENDLESS}")
    inside(figure)


def test_columns_are_those_that_matplotlib_fills() -> None:
    size, long = 8.5, "a name of some length"
    one = 4.8 * size
    names = ["x", "x", "x", long, "x", long, "x"]  # 3, 2, 2: two columns are as wide as the long name, not one
    needed = width("x", size) + 2 * width(long, size) + 3 * one
    assert columns(names, size, needed + 1) == 3
    assert columns(names, size, needed - 1) == 2  # of 4 and 3
    assert columns(["x"] * 7, size, 6 * (width("x", size) + one) + 1) == 4  # on 2 lines, as 6 columns would be


def test_what_does_not_fit_is_left_out_of_the_middle() -> None:
    assert fitted("BAGS", 8, 100) == "BAGS"
    assert fitted("cosine head, beta 8", 8, 60, lines=2) == "cosine head,\nbeta 8"
    short = fitted(ENDLESS, 8, 200)
    assert short.startswith("a row whose name was")
    assert short.endswith("beta 8")
    assert "\N{HORIZONTAL ELLIPSIS}" in short
    assert 150 < width(short, 8) <= 200
    lines = fitted(ENDLESS, 8, 100, lines=2).split("\n")
    assert len(lines) == 2
    assert max(width(line, 8) for line in lines) <= 100
    assert [line for line in wrapped("x" * 60, 8, 100) if width(line, 8) > 100] == []


@pytest.mark.parametrize("kind", [confusion, error_costs, tradeoff, lambda scene: bars(scene, ["AP", "AP1"])])
def test_rows_with_long_names_share_a_figure(kind: Any) -> None:
    labels = (*LONG, ENDLESS, f"{ENDLESS} and more", *(f"row {i}" for i in range(3)))
    drawing = kind(Scene(rows(labels), edges=(10,) if kind in (confusion, error_costs) else (10, 100, 1000)))
    assert drawing is not None
    inside(drawing.figure)
    titles = [axes.title.get_window_extent() for axes in drawing.figure.axes if axes.get_title()]
    assert not [(a, b) for i, a in enumerate(titles) for b in titles[:i] if a.overlaps(b)]
    assert drawing.figure.get_size_inches()[0] < 16


def test_letters_that_no_font_has_are_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "FALLBACK", ())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, lacking = draw(rows(("baseline", CJK)), tmp_path, (), suite="mine")
    (said,) = lacking
    assert said.startswith(
        f"figures show boxes in {CJK}: no font found here has \u6709\u7a00\u7c7b (apt-get install fonts-noto-cjk;"
    )
    assert "fontlist-*.json" in said
    assert draw(rows(("baseline", "BAGS")), tmp_path, (), suite="mine")[1] == []


def test_letters_come_from_a_font_that_has_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """STIXGeneral comes with matplotlib and has a watch, which DejaVu Sans has not."""
    monkeypatch.setattr(lettering, "FALLBACK", ("Not installed", "STIXGeneral"))
    figure, (axes,) = blank(3, 2)
    axes.set_title("watch \u231a")
    axes.set_ylabel("plain")
    finish(figure, {}, "", None)
    assert axes.title.get_fontfamily()[-1] == "STIXGeneral"
    assert "STIXGeneral" not in axes.yaxis.label.get_fontfamily()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = image_of(Drawing(figure, (), ()), "svg").decode()
    assert "STIXGeneral" in svg
    assert lettering.undrawable(figure) == set()
    assert not [record for record in caplog.records if "findfont" in record.getMessage()]


def test_figures_of_latin_names_are_the_same_whatever_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def svg() -> bytes:
        drawing = bars(Scene(rows(("baseline", "caf\u00e9 \u0394\u03c1")), caption="made."), ["AP"])
        return image_of(drawing, "svg")

    before = svg()
    monkeypatch.setattr(lettering, "FALLBACK", ("STIXGeneral", "DejaVu Serif"))
    assert svg() == before


def test_inches_are_of_the_widest_line() -> None:
    """DejaVu Sans' M is 0.863 of the font's size, with 4 % for whole pixels; i is 0.278."""
    assert lettering.inches(["i", "MM", ""], 36) == pytest.approx(1.04 * 0.863, rel=0.002)
    assert lettering.inches([]) == 0
