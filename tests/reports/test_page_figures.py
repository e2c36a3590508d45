"""What a page draws itself or takes over: SVGs without style sheets, the graph of a lineage, the differences."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from reports.differences import Difference
from reports.figures.canvas import Drawing as Drawn
from reports.figures.canvas import blank, finish, image_of
from reports.figures.forest import GREY, forest
from reports.intervals import Interval
from reports.page.inline_svg import inlined
from reports.page.lineage_graph import Box, drawn
from reports.stats import Cell

GIVEN = """<?xml version="1.0"?><!DOCTYPE svg>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 200 100" width="1pt"
 onload="bad()"><metadata>m</metadata><defs><style>*{fill:red}</style></defs>
 <g id="caption-30"><defs><path id="A" d="M0 0"/></defs><use xlink:href="#A"/></g>
 <!-- text --><script>bad()</script><g id="axes_1" onclick="bad()">
 <path id="unused" style="fill: #fff; stroke: none; background: url(x)" clip-path="url(#c)"/>
 <clipPath id="c"><rect x="1"/></clipPath><use xlink:href="#A"/><use href="http://evil/#x"/>
 <image xlink:href="data:image/png;base64,AAAA"/><image href="data:image/svg+xml,bad"/><foreignObject/></g></svg>"""


def test_a_figure_keeps_its_shapes_and_nothing_else() -> None:
    joins = 'stroke-linejoin="round" stroke-linecap="butt"'
    assert inlined(GIVEN.encode(), "f", "a <b>").replace("\n", "") == (
        '<svg viewBox="0 0 200 70" width="200" height="70" role="img" aria-label="a &lt;b&gt;">'
        f'<defs {joins} />'
        f'<defs {joins}><path id="f-0" d="M0 0" /></defs>'
        f'<g {joins}><path fill="#fff" stroke="none" clip-path="url(#f-3)" />'
        '<clipPath id="f-3"><rect x="1" /></clipPath><use href="#f-0" /><use />'
        '<image href="data:image/png;base64,AAAA" /><image /></g></svg>'
    )  # fmt: skip


def test_a_name_is_short_and_a_description_is_elsewhere() -> None:
    assert 'aria-label="a title" aria-describedby="said-x">' in inlined(GIVEN.encode(), "f", "a title", "said-x")


def test_a_caption_leaves_the_page_and_the_letters_stay() -> None:
    """matplotlib defines a letter where it first draws it: here in the caption, and the label below needs it."""
    figure, (axes, *_) = blank(3, 2)
    axes.set_ylabel("Q")
    before = image_of(Drawn(finish(figure, {}, "", None), (), ()), "svg")
    figure, (axes, *_) = blank(3, 2)
    axes.set_ylabel("Q")
    finish(figure, {}, "Q <q>", None)
    assert figure.get_label() == "Q <q>"
    svg = image_of(Drawn(figure, (), ()), "svg")
    assert svg == image_of(Drawn(figure, (), ()), "svg")
    root = ElementTree.fromstring(inlined(svg, "x", "label"))
    ids = {one.attrib["id"] for one in root.iter() if "id" in one.attrib}
    assert {one.attrib["href"][1:] for one in root.iter("use")} <= ids
    assert len(list(root.iter("use"))) == len(re.findall(b"<use ", before))
    assert float(root.attrib["height"]) == pytest.approx(144, abs=3)  # 2 inches, without what the caption took


def test_boxes_stand_right_of_what_they_are_made_from() -> None:
    a, b, c, d = (letter * 64 for letter in "abcd")
    boxes = (
        Box("data", a, "train", ()), Box("train", b, "base", (("train", a),)),
        Box("fit", c, "", (("model", b), ("data", a))),
        Box("patch", d, "a name that is quite long", (("model", b), ("x", c))),
    )  # fmt: skip
    root = ElementTree.fromstring(drawn(boxes, "a <graph>"))
    corners = [(float(one.attrib["x"]), float(one.attrib["y"])) for one in root.iter("rect")]
    assert [x for x, _ in corners] == sorted({x for x, _ in corners})  # one column each, from left to right
    assert [y for _, y in corners] == [60, 4, 60, 4]  # the chain above, what it takes below
    assert [one.text for one in root.iter("text")] == [
        "data train", "aaaaaa", "train base", "bbbbbb", "fit", "cccccc", "patch a name that is …", "dddddd"
    ]  # fmt: skip
    assert len(list(root.iter("path"))) == 5
    assert root.attrib["aria-label"] == "a <graph>"


def test_differences_are_drawn_with_their_intervals() -> None:
    sure = Difference("baseline", Cell(3.0, None, 1), Interval(2.0, 4.0, 0.001), 0.002)
    open_ = Difference("baseline", Cell(-1.0, None, 1), Interval(-3.0, 1.0, 0.4), 0.4)
    by_itself = Difference("baseline", Cell(1.5, None, 1), Interval(0.1, 2.9, 0.03), 0.06)
    bare = Difference("baseline", Cell(2.0, None, 1), None, None)
    found = {
        "BAGS": {"AP": sure, "AP1": bare}, "x2": {"AP": open_, "AP1": bare}, "RFS": {"AP": by_itself},
        "NCM": {"AP": bare},
    }  # fmt: skip
    drawing = forest(found)
    assert drawing is not None
    (axes,) = drawing.figure.axes  # no panel of AP1, which has no interval
    assert axes.get_title() == "ΔAP\nall classes"
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["BAGS", "x2", "RFS", "NCM"]
    bars = [tuple(round(float(x), 6) for x in line.get_segments()[0][:, 0]) for line in axes.collections]
    assert bars == [(2.0, 4.0), (-3.0, 1.0), (0.1, 2.9)]
    legend = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert legend == ["certain", "without 0, but not after Holm", "not told apart from 0", "no interval"]
    marks = [(line.get_marker(), line.get_color(), line.get_markerfacecolor()) for line in axes.lines]
    drawn = [mark for mark in marks if mark[0] in ("o", "D")]
    assert drawn == [("o", "black", "black"), ("D", GREY, "white"), ("o", "black", "white")]
    assert drawing.lines[0] == ("BAGS", "AP", "baseline", 3.0, 2.0, 4.0, 0.001, 0.002, "certain")
    assert drawing.lines[1] == ("BAGS", "AP1", "baseline", 2.0, None, None, None, None, "no interval")
    assert forest({"NCM": {"AP": bare}}) is None
